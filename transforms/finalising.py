"""Leave the dataset so that whoever reads just the Parquet files sees what the Delta tables say.

    with WriterLease("out", owner=run_id):
        ...
        finalise("out")

Superseded rows and those that a killed run left are removed, small files are joined, and files that belong to no table
are deleted; a table without rows keeps one file without rows, which has its schema.

Rows are removed by writing their file anew here: `DeltaTable.delete` and `merge` leave files whose strings come back
as Arrow's string_view, while appending, replacing and compacting keep the types.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable
from deltalake.transaction import AddAction, RemoveAction

from transforms.files import Directory, join, list_files, name_of, reading, remove, writing
from transforms.lease import require_lease
from transforms.objects import is_object
from transforms.parquet_files import (
    delta_table,
    pair_keys,
    scan_files,
    table_files,
    table_uri,
    writer_properties,
)
from transforms.schemas import STATISTICS, TABLES
from transforms.tables import Snapshot, create_tables

#: Large enough for scans, small enough to be written anew when one of its videos was replaced.
TARGET_BYTES = 128 * 1024 * 1024

_ROW_GROUP_BYTES = 64 * 1024 * 1024

#: What an object store client that was killed leaves: staged files, and commits that never got their number.
_LITTER = re.compile(r".+#\d+|.+\.tmp")

#: How long a table's log speaks of what was, by property: what `create_tables` sets, else Delta's own default.
_RETENTIONS = {"delta.logRetentionDuration": "interval 7 days", "delta.deletedFileRetentionDuration": "interval 1 week"}
_AT_ONCE = "interval 0 days"

#: The names of Parquet files that Delta writers, and `write_file`, give.
_OURS = re.compile(r"part-[^/]*\.parquet")


def finalise(dataset_dir: Directory, *, retention_hours: int = 0, target_bytes: int = TARGET_BYTES) -> dict[str, int]:
    """Make plain readers see exactly what Delta readers see. Cheap where nothing changed since the last time.

    This process must hold the writer's lease, since another writer's uncommitted files would be deleted.

    Args:
      retention_hours: how long files of older versions stay; with any but 0 plain readers see those too, until then.
      target_bytes: files are joined up to about this size.

    Returns:
      How many rows were removed, by table.

    Raises:
      LeaseLost: this process does not hold the lease, or not any more.
    """
    require_lease(dataset_dir)
    create_tables(dataset_dir)
    removed = sweep(dataset_dir)
    for name in TABLES:
        require_lease(dataset_dir)
        uri = table_uri(dataset_dir, name)
        delta_table(uri).optimize.compact(
            target_size=target_bytes, max_concurrent_tasks=1, writer_properties=writer_properties()
        )
        table = delta_table(uri)
        if not table.file_uris():
            replace_files(table, dataset_dir, name, removed=(), added=[write_file(dataset_dir, name, ())])
        _delete_unused(delta_table(uri), uri, retention_hours)
    return removed


def sweep(dataset_dir: Directory) -> dict[str, int]:
    """Remove the rows of `clips`, `rejected` and `failures` whose (video_id, run_id) is not in `videos`.

    They are what was superseded, and what a killed run left. Only the files that hold such rows are written anew.
    """
    current = Snapshot.open(dataset_dir).current
    return {name: drop_rows(dataset_dir, name, keep=current) for name in TABLES if name != "videos"}


def drop_rows(dataset_dir: Directory, name: str, *, keep: pa.Array | None = None, drop: pa.Array | None = None) -> int:
    """Remove rows by their "video_id run_id": all but `keep`, or just `drop`. Returns how many."""

    def stays(batch: pa.RecordBatch) -> pa.Array:
        keys = pair_keys(batch)
        return pc.is_in(keys, keep) if keep is not None else pc.invert(pc.is_in(keys, drop))

    return _drop(dataset_dir, name, stays)


def drop_videos(dataset_dir: Directory, name: str, video_ids: Iterable[str]) -> int:
    """Remove all rows of these videos from one table, whatever run they are of. Returns how many."""
    gone = pa.array(sorted(video_ids), pa.string())
    return _drop(dataset_dir, name, lambda batch: pc.invert(pc.is_in(batch.column("video_id"), gone)))


def _drop(dataset_dir: Directory, name: str, stays: Callable[[pa.RecordBatch], pa.Array]) -> int:
    """Write those files anew that hold rows which do not stay; `stays` needs video_id and run_id alone."""
    table, schema = delta_table(table_uri(dataset_dir, name)), TABLES[name]
    affected, gone = [], 0
    for uri in table_files(table, dataset_dir, name):
        batches = scan_files([uri], schema, ["video_id", "run_id"])
        stale = sum(batch.num_rows - (stays(batch).true_count) for batch in batches)
        if stale:
            affected.append(uri)
            gone += stale
    if affected:
        kept = (batch.filter(stays(batch)) for batch in scan_files(affected, schema, None))
        added = write_file(dataset_dir, name, kept)
        replace_files(table, dataset_dir, name, removed=affected, added=[added])
    return gone


def forget_history(dataset_dir: Directory) -> None:
    """Shorten every table's log to its present state; what it said of earlier files is gone.

    Entries of the log hold the least and the greatest id of each file that ever was. Run it after `finalise`, which
    deletes the files themselves. Killed half-way it leaves a table that cleans its log early, and may be run again.

    Raises:
      LeaseLost: this process does not hold the writer's lease, or not any more.
    """
    for name in TABLES:
        require_lease(dataset_dir)
        uri = table_uri(dataset_dir, name)
        table = delta_table(uri)
        kept = {key: table.metadata().configuration.get(key) for key in _RETENTIONS}
        table.alter.set_table_properties(dict.fromkeys(_RETENTIONS, _AT_ONCE))
        table.create_checkpoint()
        # Not `cleanup_metadata`: it goes by the files' times, which another machine's clock may have set in the future.
        for path in list_files(join(uri, "_delta_log")):
            version = name_of(path).partition(".")[0]
            if version.isdigit() and int(version) < table.version():
                remove(path)
        # One that is zero is from a call that was killed.
        table.alter.set_table_properties(
            {key: value if value not in (None, _AT_ONCE) else _RETENTIONS[key] for key, value in kept.items()}
        )


def write_file(dataset_dir: Directory, name: str, batches: Iterable[pa.RecordBatch]) -> tuple[str, dict[str, Any]]:
    """Write one Parquet file of these rows beside the table's others; return its name and its statistics."""
    schema, file_name = TABLES[name], f"part-00000-{uuid.uuid4()}-c000.zstd.parquet"
    rows = 0
    least: dict[str, Any] = {}
    greatest: dict[str, Any] = {}
    with (
        writing(join(table_uri(dataset_dir, name), file_name)) as file,
        pq.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        for group in _row_groups(batches, schema):
            writer.write_table(group)
            rows += group.num_rows
            for column in STATISTICS[name]:
                if pa.types.is_timestamp(schema.field(column).type):
                    continue
                bounds = pc.min_max(group.column(column)).as_py()
                if bounds["min"] is not None:
                    least[column] = min(bounds["min"], least.get(column, bounds["min"]))
                    greatest[column] = max(bounds["max"], greatest.get(column, bounds["max"]))
    return file_name, {"numRecords": rows, "minValues": least, "maxValues": greatest, "nullCount": {}}


def _row_groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    for batch in batches:
        if batch.num_rows:
            held.append(batch.cast(schema))
        if sum(one.nbytes for one in held) >= _ROW_GROUP_BYTES:
            yield pa.Table.from_batches(held, schema)
            held = []
    if held:
        yield pa.Table.from_batches(held, schema)


def replace_files(
    table: DeltaTable,
    dataset_dir: Directory,
    name: str,
    *,
    removed: Sequence[str],
    added: Sequence[tuple[str, dict[str, Any]]],
    why: str = "sweep",
) -> None:
    """Commit files that `write_file` wrote instead of others, in one go.

    Delta checks neither that they are there nor their columns: done here.
    """
    schema, now_ms = TABLES[name], int(time.time() * 1000)
    actions: list[AddAction | RemoveAction] = [
        RemoveAction(path=name_of(uri), data_change=True, deletion_timestamp=now_ms) for uri in removed
    ]
    for file_name, statistics in added:
        path = join(table_uri(dataset_dir, name), file_name)
        with reading(path) as file:
            written, size = pq.read_schema(file), file.seek(0, os.SEEK_END)
        if not written.equals(schema):
            raise RuntimeError(f"{path} was written with other columns than {name} has")
        actions.append(
            AddAction(
                path=file_name,
                size=size,
                partition_values={},
                modification_time=now_ms,
                data_change=True,
                stats=json.dumps(statistics),
            )
        )
    properties = CommitProperties(custom_metadata={"reelscribe": why})
    table.create_write_transaction(actions, mode="append", schema=schema, commit_properties=properties)


def _delete_unused(table: DeltaTable, uri: str, retention_hours: int) -> None:
    # `full`, or files that never got into a commit would stay for ever; looked for, since it would delete any file.
    unused = table.vacuum(retention_hours=retention_hours, dry_run=True, enforce_retention_duration=False, full=True)
    for file_name in map(urllib.parse.unquote, unused):
        # Only what a table's writer made: whatever else somebody put here is theirs, and verify speaks of it.
        if _OURS.fullmatch(file_name):
            remove(join(uri, file_name))
    if is_object(uri):
        return  # An object store shows no staged files.
    for directory in (pathlib.Path(uri), pathlib.Path(uri) / "_delta_log"):
        for file_name in os.listdir(directory):
            if _LITTER.fullmatch(file_name):
                (directory / file_name).unlink(missing_ok=True)
