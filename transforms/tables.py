"""The dataset's four Delta tables: create them, and read what is committed.

    create_tables("out"); clips = read_table("out", "clips", ["clip_id", "caption"])

A row of `clips`, `rejected` or `failures` counts when its (video_id, run_id) stands in `videos`: the committer appends
there first and publishes the video last, so whoever joins on these two columns never sees a video in part. Other
readers who do so must load `videos` before the rest; a `Snapshot` does.
"""

from __future__ import annotations

import dataclasses
import os
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import DeltaError

from transforms.files import Directory, exists, join, list_files
from transforms.objects import is_object
from transforms.parquet_files import (
    delta_table,
    is_delta_table,
    pair_keys,
    scan_files,
    storage_options,
    table_files,
    table_uri,
    writer_properties,
)
from transforms.schemas import (
    CLIPS,
    FAILURES,
    REJECTED,
    STATISTICS,
    TABLES,
    VIDEOS,
    RowError,
    VideoRows,
    earlier_schemas,
    rows_to_table,
)

__all__ = [
    "CLIPS",
    "FAILURES",
    "REJECTED",
    "TABLES",
    "VIDEOS",
    "CurrentVideo",
    "Directory",
    "RowError",
    "Snapshot",
    "VideoRows",
    "create_tables",
    "current_videos",
    "pair_keys",
    "read_table",
    "rows_to_table",
    "scan_files",
    "scan_table",
    "table_files",
    "table_uri",
    "writer_properties",
]

#: How often a reader looks again when a writer published a video, or removed a file, while it was opening the tables.
_LOOKS = 50


class NoDataset(ValueError):
    """There is no dataset, or only part of one."""


#: What a dataset's directory holds besides the card: nobody else's files may stand under these names.
FOLDERS = (*TABLES, "annotations", "reels", "runs", "media")


class OutputError(ValueError):
    """A directory in which a dataset cannot be made; the message says why and what to do."""


def check_output(dataset_dir: str, sources: Iterable[str]) -> None:
    """Refuse a directory, or a folder in Cloud Storage, whose contents a dataset would overwrite or sweep away.

    Args:
      sources: paths and URIs of the run's inputs; none may stand in a folder that is the dataset's own.

    Raises:
      OutputError: it is a file, it holds others' files under a dataset's names, inputs stand among its own, or Delta
        tables cannot stand there (see `table_uri`).
    """
    try:
        videos = table_uri(dataset_dir, "videos")
    except ValueError as error:
        raise OutputError(str(error)) from error
    in_bucket = is_object(dataset_dir)
    if not in_bucket and os.path.exists(dataset_dir) and not os.path.isdir(dataset_dir):
        raise OutputError(f"{dataset_dir} is a file; --output is a directory")
    folders = own_folders(dataset_dir)
    for source in sources:
        inside = next((folder for folder in folders if source.startswith(folder)), None)
        if inside:
            raise OutputError(
                f"the input {source} stands in {inside[:-1]}, which is the dataset's own; take another --output"
            )
    # A run that was cut short as it began left its lease, and a record, before there was a table.
    if is_delta_table(videos) or exists(join(dataset_dir, ".lease")):
        return
    for folder in folders:
        if _is_strangers(folder[:-1]):
            raise OutputError(f"{folder[:-1]} holds something that is no dataset's; take another --output")


def own_folders(dataset_dir: str) -> tuple[str, ...]:
    """The folders that hold a dataset's own files, each with a slash at its end; no input of its stands in them."""
    root = dataset_dir if is_object(dataset_dir) else os.path.realpath(dataset_dir)
    return tuple(f"{join(root, name)}/" for name in FOLDERS)


def _is_strangers(folder: str) -> bool:
    if is_object(folder):
        return bool(list_files(folder, below=True)) and not list_files(join(folder, "_delta_log"))
    is_table = os.path.isdir(os.path.join(folder, "_delta_log"))
    return os.path.lexists(folder) and not is_table and (not os.path.isdir(folder) or bool(os.listdir(folder)))


def create_tables(dataset_dir: Directory) -> None:
    """Create those of the four tables that are not there. Any number of callers may do so at once.

    A table of an earlier version gets the columns that it lacks.

    Raises:
      RowError: a table stands there with other columns.
    """
    for name, schema in TABLES.items():
        uri = table_uri(dataset_dir, name)
        if not is_delta_table(uri):
            _create(uri, name, schema)
        table = delta_table(uri)
        if any(_has_columns(table, earlier) for earlier in earlier_schemas(name)):
            table = _widen(table, dataset_dir, name)
        if not _has_columns(table, schema):
            raise RowError(f"{uri} has other columns than this version writes; curate into a new directory")


def _has_columns(table: DeltaTable, schema: pa.Schema) -> bool:
    return table.schema().to_json() == DeltaSchema.from_arrow(schema).to_json()


def _widen(table: DeltaTable, dataset_dir: Directory, name: str) -> DeltaTable:
    """Write a table's rows anew with the columns that it lacks, all null, in one commit; return it as it is then.

    Delta alone would be content with a new column in its log. But whoever reads the bare Parquet files takes the first
    one's columns for all, or refuses files that differ.
    """
    schema = TABLES[name]
    batches = scan_files(table_files(table, dataset_dir, name), schema, None)
    rows = pa.RecordBatchReader.from_batches(schema, (batch.cast(schema) for batch in batches))
    uri = table_uri(dataset_dir, name)
    try:
        write_deltalake(table, rows, mode="overwrite", schema_mode="overwrite", writer_properties=writer_properties())
    except DeltaError:
        # Another writer may have been faster.
        if not _has_columns(delta_table(uri), schema):
            raise
    return delta_table(uri)


def _create(uri: str, name: str, schema: pa.Schema) -> None:
    configuration = {
        "delta.dataSkippingStatsColumns": ",".join(STATISTICS[name]),
        # A batch that is committed again after a month is no retry.
        "delta.setTransactionRetentionDuration": "interval 30 days",
        "delta.logRetentionDuration": "interval 7 days",
        "delta.checkpointInterval": "20",
    }
    try:
        DeltaTable.create(
            uri,
            schema,
            mode="ignore",
            name=name,
            configuration=configuration,
            storage_options=storage_options(uri),
        )
    except DeltaError:
        # Another creator was faster; whether it made the same table is checked by the caller.
        if not is_delta_table(uri):
            raise


def open_table(dataset_dir: Directory, name: str) -> DeltaTable:
    """The table as of now, or a `NoDataset` that says what to do."""
    uri = table_uri(dataset_dir, name)
    if not is_delta_table(uri):
        raise NoDataset(f"{dataset_dir} is no dataset: it has no table {name}; make one with `reelscribe curate`")
    return delta_table(uri)


@dataclasses.dataclass(frozen=True, slots=True)
class CurrentVideo:
    """What the dataset says of a video: enough to decide whether there is anything left to do."""

    video_id: str
    uri: str
    etag: str
    fingerprints: Mapping[str, str]
    status: str
    run_id: str
    n_shots: int
    n_clips: int
    n_rejected: int
    n_failures: int

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> CurrentVideo:
        """Of a row of `videos`, or one with these columns at least."""
        return cls(**{field.name: row[field.name] for field in dataclasses.fields(cls)})


class Snapshot:
    """The four tables as of one moment, read while writers go on.

        snapshot = Snapshot.open("out"); for batch in snapshot.scan("clips", ["clip_id"]): ...

    Attributes:
      tables: the Delta tables by name, each at one version; files: the URIs of their Parquet files.
      current: "video_id run_id" of every committed video.
    """

    def __init__(self, dataset_dir: Directory, tables: Mapping[str, DeltaTable]):
        self.directory, self.tables = dataset_dir, tables
        self.files = {name: table_files(table, dataset_dir, name) for name, table in tables.items()}
        self.current = self._keys(self.files["videos"], VIDEOS)

    @classmethod
    def open(cls, dataset_dir: Directory) -> Snapshot:
        """Open the tables at versions that belong together.

        Had a video been replaced between opening `videos` and the rest, its old rows might be gone already and its new
        ones not counted; so `videos` must stand still meanwhile.
        """
        for look in range(_LOOKS):
            videos = open_table(dataset_dir, "videos")
            tables = {name: open_table(dataset_dir, name) for name in TABLES if name != "videos"}
            try:
                if open_table(dataset_dir, "videos").version() == videos.version():
                    return cls(dataset_dir, {**tables, "videos": videos})
            except FileNotFoundError:
                pass
            time.sleep(random.uniform(0.0, 0.02 * (look + 1)))
        raise TimeoutError(f"{dataset_dir} changes faster than it can be read; try again when the run has finished")

    def is_outdated(self) -> bool:
        """Whether a table has changed since."""
        return any(open_table(self.directory, name).version() != table.version() for name, table in self.tables.items())

    def scan(self, name: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The committed rows of a table, batch by batch."""
        files = self.files[name]
        if name == "videos":
            yield from scan_files(files, VIDEOS, columns)
            return
        schema = TABLES[name]
        for file in files:
            # Looked up a file at a time: Arrow makes a hash table of all videos for each look.
            is_current = pc.is_in(self._keys([file], schema), self.current)
            at = 0
            for batch in scan_files([file], schema, columns):
                yield batch.filter(is_current.slice(at, batch.num_rows))
                at += batch.num_rows

    def _keys(self, files: Sequence[str], schema: pa.Schema) -> pa.Array:
        keys = [pair_keys(batch) for batch in scan_files(files, schema, ["video_id", "run_id"])]
        return pa.chunked_array(keys, pa.string()).combine_chunks()

    def read(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """The committed rows of a table."""
        schema = TABLES[name]
        fields = [schema.field(column) for column in columns] if columns else list(schema)
        return pa.Table.from_batches(
            [batch.cast(pa.schema(fields)) for batch in self.scan(name, columns)], pa.schema(fields)
        )


def read_table(dataset_dir: Directory, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a table that are committed, in memory.

    Raises:
      NoDataset: there is none.
    """
    while True:
        try:
            return Snapshot.open(dataset_dir).read(name, columns)
        except FileNotFoundError:
            # A finishing run removed superseded files under us: what replaced them stands already.
            continue


def scan_table(dataset_dir: Directory, name: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The same batch by batch, for tables that do not fit into memory; a run that finishes meanwhile may end it."""
    return Snapshot.open(dataset_dir).scan(name, columns)


def current_videos(dataset_dir: Directory) -> dict[str, CurrentVideo]:
    """What stands of every video, by video_id; nothing where there is no dataset yet."""
    if not is_delta_table(table_uri(dataset_dir, "videos")):
        return {}
    names = [field.name for field in dataclasses.fields(CurrentVideo)]
    rows = read_table(dataset_dir, "videos", names).to_pylist()
    return {row["video_id"]: CurrentVideo.of(row) for row in rows}
