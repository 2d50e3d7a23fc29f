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
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pa_dataset
import pyarrow.fs as pa_fs
from deltalake import DeltaTable, WriterProperties
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import DeltaError

from transforms.schemas import CLIPS, FAILURES, REJECTED, STATISTICS, TABLES, VIDEOS, RowError, VideoRows, rows_to_table

__all__ = [
    "CLIPS",
    "FAILURES",
    "REJECTED",
    "TABLES",
    "VIDEOS",
    "CurrentVideo",
    "RowError",
    "Snapshot",
    "VideoRows",
    "create_tables",
    "current_videos",
    "read_table",
    "rows_to_table",
    "scan_table",
]

#: How often a reader looks again when a writer published a video, or removed a file, while it was opening the tables.
_LOOKS = 50

_BAD_IN_PATHS = re.compile(r"[%\[\]^|\\\x00-\x1f\x7f]")

Directory = str | os.PathLike[str]


class NoDataset(ValueError):
    """There is no dataset, or only part of one."""


def table_uri(dataset_dir: Directory, name: str) -> str:
    """Where the table stands.

    Raises:
      ValueError: the directory's path holds a character that deltalake panics at, or takes for another one.
    """
    directory = os.fspath(dataset_dir)
    if "://" not in directory:
        directory = os.path.abspath(directory)
        bad = _BAD_IN_PATHS.search(directory)
        if bad:
            raise ValueError(f"a dataset can't stand in {directory!r}: {bad.group()!r} in its path breaks Delta tables")
    return f"{directory.rstrip('/')}/{name}"


def table_files(table: DeltaTable, dataset_dir: Directory, name: str) -> list[str]:
    """The URIs of a table's files (`file_uris` gives them percent-encoded, even local ones)."""
    folder = table_uri(dataset_dir, name)
    return [f"{folder}/{uri.rpartition('/')[2]}" for uri in table.file_uris()]


def writer_properties() -> WriterProperties:
    """zstd everywhere: about half of snappy's bytes for text and embeddings."""
    return WriterProperties(compression="ZSTD")


#: What a dataset's directory holds besides the card: nobody else's files may stand under these names.
FOLDERS = (*TABLES, "reels", "runs", "media")


class OutputError(ValueError):
    """A directory in which a dataset cannot be made; the message says why and what to do."""


def check_output(dataset_dir: str, sources: Iterable[str]) -> None:
    """Refuse a directory whose contents a dataset would overwrite or sweep away.

    Args:
      sources: local paths of the run's inputs; none may stand in a folder that is the dataset's own.

    Raises:
      OutputError: it is a file, it holds others' files under a dataset's names, inputs stand among its own, or Delta
        tables cannot stand there (see `table_uri`).
    """
    try:
        videos = table_uri(dataset_dir, "videos")
    except ValueError as error:
        raise OutputError(str(error)) from error
    if os.path.exists(dataset_dir) and not os.path.isdir(dataset_dir):
        raise OutputError(f"{dataset_dir} is a file; --output is a directory")
    folders = [os.path.join(os.path.realpath(dataset_dir), name) for name in FOLDERS]
    for source in sources:
        inside = next((folder for folder in folders if source.startswith(folder + os.sep)), None)
        if inside:
            raise OutputError(
                f"the input {source} stands in {inside}, which is the dataset's own; take another --output"
            )
    if DeltaTable.is_deltatable(videos):
        return
    for folder in folders:
        is_table = os.path.isdir(os.path.join(folder, "_delta_log"))
        if os.path.lexists(folder) and not is_table and (not os.path.isdir(folder) or os.listdir(folder)):
            raise OutputError(f"{folder} holds something that is no dataset's; take another --output")


def create_tables(dataset_dir: Directory) -> None:
    """Create those of the four tables that are not there. Any number of callers may do so at once.

    Raises:
      RowError: a table stands there with other columns.
    """
    for name, schema in TABLES.items():
        uri = table_uri(dataset_dir, name)
        if not DeltaTable.is_deltatable(uri):
            _create(uri, name, schema)
        if DeltaTable(uri).schema().to_json() != DeltaSchema.from_arrow(schema).to_json():
            raise RowError(f"{uri} has other columns than this version writes; curate into a new directory")


def _create(uri: str, name: str, schema: pa.Schema) -> None:
    configuration = {
        "delta.dataSkippingStatsColumns": ",".join(STATISTICS[name]),
        # A batch that is committed again after a month is no retry.
        "delta.setTransactionRetentionDuration": "interval 30 days",
        "delta.logRetentionDuration": "interval 7 days",
        "delta.checkpointInterval": "20",
    }
    try:
        DeltaTable.create(uri, schema, mode="ignore", name=name, configuration=configuration)
    except DeltaError:
        # Another creator was faster; whether it made the same table is checked by the caller.
        if not DeltaTable.is_deltatable(uri):
            raise


def open_table(dataset_dir: Directory, name: str) -> DeltaTable:
    """The table as of now, or a `NoDataset` that says what to do."""
    uri = table_uri(dataset_dir, name)
    if not DeltaTable.is_deltatable(uri):
        raise NoDataset(f"{dataset_dir} is no dataset: it has no table {name}; make one with `reelscribe curate`")
    return DeltaTable(uri)


def file_system(uri: str) -> tuple[pa_fs.FileSystem, str]:
    """The file system that a file's URI belongs to, and its path there; plain paths are local ones."""
    if "://" in uri:
        return pa_fs.FileSystem.from_uri(uri)
    return pa_fs.LocalFileSystem(), uri


def scan_files(files: Sequence[str], schema: pa.Schema, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    """Read Parquet files batch by batch in bounded memory, in the order given.

    Not `DeltaTable.to_pyarrow_table`, which can abort the interpreter at exit.
    """
    # Embeddings and captions take kilobytes a row, the other columns next to nothing.
    heavy = not columns or {"embedding", "captions", "detail"} & set(columns)
    for uri in files:
        filesystem, path = file_system(uri)
        found = pa_dataset.dataset(path, schema=schema, format="parquet", filesystem=filesystem)
        yield from found.to_batches(
            columns=list(columns) if columns else None,
            batch_size=4096 if heavy else 65536,
            batch_readahead=1,
            fragment_readahead=1,
        )


def pair_keys(rows: pa.Table | pa.RecordBatch) -> pa.Array:
    """One "video_id run_id" a row; a blank is in no id."""
    keys = pc.binary_join_element_wise(rows.column("video_id"), rows.column("run_id"), " ")
    return keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys


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
        batches = scan_files(self.files["videos"], VIDEOS, ["video_id", "run_id"])
        self.current: pa.Array = pa.array(
            [key for batch in batches for key in pair_keys(batch).to_pylist()], pa.string()
        )

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
        wanted = list(columns) if columns else schema.names
        with_keys = list(dict.fromkeys([*wanted, "video_id", "run_id"]))
        for batch in scan_files(files, schema, with_keys):
            yield batch.filter(pc.is_in(pair_keys(batch), self.current)).select(wanted)

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
    if not DeltaTable.is_deltatable(table_uri(dataset_dir, "videos")):
        return {}
    names = [field.name for field in dataclasses.fields(CurrentVideo)]
    rows = read_table(dataset_dir, "videos", names).to_pylist()
    return {row["video_id"]: CurrentVideo(**row) for row in rows}
