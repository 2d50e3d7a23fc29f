"""Write marks into a table's rows: columns that a pass over the whole dataset decides, long after the rows came.

    change_columns("out", "clips", marks)      # rows of marks, by their first column; null in all other rows

Files that hold a row which changes are written anew, and take the old ones' place in one commit: readers see all marks
of before or all of now. Rows keep their run_id, so that they belong to their video at any instant.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from transforms.files import Directory, reading
from transforms.finalising import replace_files, write_file
from transforms.lease import require_lease
from transforms.parquet_files import delta_table, scan_files, table_files, table_uri
from transforms.schemas import TABLES


def change_columns(dataset_dir: Directory, name: str, marks: pa.Table) -> int:
    """Make a table's rows say what `marks` says, and null where that says nothing. Returns how many rows changed.

    This process must hold the writer's lease, and nothing may be committed to the table meanwhile.

    Args:
      marks: the key of a row, unique, and the columns to be set.

    Raises:
      LeaseLost: this process does not hold the lease, or not any more.
    """
    require_lease(dataset_dir)
    schema, key, columns = TABLES[name], marks.column_names[0], marks.column_names[1:]
    marks = marks.combine_chunks()
    table = delta_table(table_uri(dataset_dir, name))
    changed, removed, added = 0, [], []
    for uri in table_files(table, dataset_dir, name):
        if not marks.num_rows and not has_marks(uri, columns):
            continue
        rows = sum(_differing(batch, marks) for batch in scan_files([uri], schema, [key, *columns]))
        if rows:
            changed += rows
            removed.append(uri)
            added.append(write_file(dataset_dir, name, _marked(uri, schema, marks)))
    if removed:
        require_lease(dataset_dir)
        replace_files(table, dataset_dir, name, removed=removed, added=added, why="mark")
    return changed


def has_marks(uri: str, columns: Sequence[str]) -> bool:
    """Whether a row of a file has a value in one of these columns, as far as its footer tells."""
    with reading(uri) as file:
        found = pq.ParquetFile(file).metadata
        for number in range(found.num_row_groups):
            group = found.row_group(number)
            chunks = [group.column(at) for at in range(group.num_columns)]
            for chunk in chunks:
                if chunk.path_in_schema in columns:
                    told = chunk.statistics
                    if told is None or not told.has_null_count or told.null_count < group.num_rows:
                        return True
    return False


def _differing(batch: pa.RecordBatch, marks: pa.Table) -> int:
    """How many rows say something else than they shall."""
    wanted = _wanted(batch, marks)
    differs = pa.array([False] * batch.num_rows)
    for name, values in wanted.items():
        old = batch.column(name)
        same = pc.fill_null(pc.equal(old, values), pc.and_(pc.is_null(old), pc.is_null(values)))
        differs = pc.or_(differs, pc.invert(same))
    return differs.true_count


def _wanted(batch: pa.RecordBatch, marks: pa.Table) -> dict[str, pa.Array]:
    key, *columns = marks.column_names
    at = pc.index_in(batch.column(key), marks[key])
    return {name: pa.chunked_array([marks[name].combine_chunks()]).take(at).combine_chunks() for name in columns}


def _marked(uri: str, schema: pa.Schema, marks: pa.Table) -> Iterator[pa.RecordBatch]:
    for batch in scan_files([uri], schema, None):
        wanted = _wanted(batch, marks)
        arrays = [wanted.get(field.name, batch.column(field.name)) for field in schema]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)
