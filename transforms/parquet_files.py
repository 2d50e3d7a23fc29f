"""The Parquet files of a Delta table: where they are, and how they are read and written.

for batch in scan_files(table_files(table, "out", "clips"), CLIPS, ["clip_id"]): ...
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable, WriterProperties

from transforms.files import Directory, check_folder, name_of, reading
from transforms.objects import is_object

#: As patient as Google's client (see `transforms.objects`).
_PATIENCE = {"connect_timeout": "10s", "timeout": "60s", "max_retries": "100", "retry_timeout": "90s"}

_BAD_IN_PATHS = re.compile(r"[%\[\]^|\\\x00-\x1f\x7f]")


def table_uri(dataset_dir: Directory, name: str) -> str:
    """Where the table stands.

    Raises:
      ValueError: the directory's path holds a character that deltalake panics at, or takes for another one, or it is
        an address, but not gs://BUCKET/FOLDER.
    """
    directory = check_folder(dataset_dir)
    if "://" not in directory:
        directory = os.path.abspath(directory)
        bad = _BAD_IN_PATHS.search(directory)
        if bad:
            raise ValueError(f"a dataset can't stand in {directory!r}: {bad.group()!r} in its path breaks Delta tables")
    return f"{directory.rstrip('/')}/{name}"


def delta_table(uri: str) -> DeltaTable:
    """The table as of now; its requests are tried again for a while when the service stumbles."""
    return DeltaTable(uri, storage_options=storage_options(uri))


def is_delta_table(uri: str) -> bool:
    """Whether there is a table."""
    return DeltaTable.is_deltatable(uri, storage_options=storage_options(uri))


def storage_options(uri: str) -> dict[str, str] | None:
    """How long deltalake tries: by default it gives up after some seconds."""
    return _PATIENCE if is_object(uri) else None


def table_files(table: DeltaTable, dataset_dir: Directory, name: str) -> list[str]:
    """The URIs of a table's files (`file_uris` gives them percent-encoded, even local ones)."""
    folder = table_uri(dataset_dir, name)
    return [f"{folder}/{name_of(uri)}" for uri in table.file_uris()]


def writer_properties() -> WriterProperties:
    """zstd everywhere: about half of snappy's bytes for text and embeddings."""
    return WriterProperties(compression="ZSTD")


def scan_files(files: Sequence[str], schema: pa.Schema, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    """Read Parquet files batch by batch in bounded memory, in the order given.

    Columns that a file lacks, as one of an older version does, are null. Not by Arrow's dataset scanner: its threads
    outlive the last batch, and where one of them lets go of the file while Python ends, the interpreter aborts (on a
    busy machine one run in ten).
    """
    wanted = pa.schema([schema.field(name) for name in columns or schema.names])
    # Embeddings and captions take kilobytes a row, the other columns next to nothing.
    heavy = not columns or {"embedding", "captions", "detail"} & set(columns)
    for uri in files:
        with reading(uri) as file:
            parquet = pq.ParquetFile(file, pre_buffer=False)
            # One of them at least, or a batch would not know how many rows it has.
            there = parquet.schema_arrow.names
            present = [name for name in wanted.names if name in there] or there[:1]
            size = 4096 if heavy else 65536
            for batch in parquet.iter_batches(size, columns=present, use_threads=False):
                yield _shaped(batch, wanted)


def _shaped(batch: pa.RecordBatch, wanted: pa.Schema) -> pa.RecordBatch:
    """The batch with these columns in this order."""
    found = set(batch.schema.names)
    columns = [
        batch.column(field.name).cast(field.type) if field.name in found else pa.nulls(len(batch), field.type)
        for field in wanted
    ]
    return pa.RecordBatch.from_arrays(columns, schema=wanted)


def pair_keys(rows: pa.Table | pa.RecordBatch) -> pa.Array:
    """One "video_id run_id" a row; a blank is in no id."""
    keys = pc.binary_join_element_wise(rows.column("video_id"), rows.column("run_id"), " ")
    return keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys
