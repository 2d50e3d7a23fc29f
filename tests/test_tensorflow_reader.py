"""TensorFlow reads our clips: the README's snippet, run in an environment of its own (`make tensorflow` builds it).

tensorflow-io 0.37.1 reads Parquet column by column, without the levels that say what is absent: columns that are never
null are right; lists and columns with nulls come out shifted, or end the process. The last test keeps the warning true.
"""

import json
import pathlib
import subprocess

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from transforms.measure_columns import measured_row
from transforms.schemas import CLIPS, rows_to_table
from transforms.tables import create_tables, table_uri, writer_properties

ENVIRONMENT = pathlib.Path(__file__).parents[1] / ".venv-tensorflow"
COLUMNS = {
    "clip_id": "string",
    "video_id": "string",
    "uri": "string",
    "start_s": "float64",
    "end_s": "float64",
    "duration_s": "float64",
    "width": "int32",
    "height": "int32",
    "fps": "float64",
    "caption": "string",
    "teacher": "string",
    "abstained": "bool",
    "run_id": "string",
    "fingerprint": "string",
    "schema_version": "int32",
}

READ = """
import json, sys
import tensorflow_io as tfio

files, columns = json.loads(sys.argv[1]), json.loads(sys.argv[2])
rows = []
for file in files:
    for row in tfio.IODataset.from_parquet(file, columns=columns):
        values = {name: value.numpy() for name, value in row.items()}
        rows.append({n: v.decode() if isinstance(v, bytes) else v.item() for n, v in values.items()})
spec = tfio.IODataset.from_parquet(files[0], columns=columns).element_spec
print(json.dumps({"rows": rows, "types": {name: value.dtype.name for name, value in spec.items()}}))
"""


@pytest.fixture(scope="module")
def tensorflow_python() -> pathlib.Path:
    if not (ENVIRONMENT / ".installed").exists():
        pytest.skip(
            "no .venv-tensorflow: `make tensorflow` builds it where Python 3.11 or 3.12 and a registry are there"
        )
    return ENVIRONMENT / "bin" / "python"


@pytest.fixture
def clip_files(tmp_path: pathlib.Path) -> list[str]:
    """A table of clips as the committer writes it: two commits of 700 clips each, no two rows alike."""
    create_tables(str(tmp_path))
    for commit in range(2):
        rows = rows_to_table([_clip(number) for number in range(700 * commit, 700 * (commit + 1))], CLIPS)
        deltalake.write_deltalake(
            table_uri(str(tmp_path), "clips"), rows, mode="append", writer_properties=writer_properties()
        )
    return sorted(map(str, (tmp_path / "clips").glob("*.parquet")))


def _clip(number: int) -> dict:
    times = {"start_s": number * 1.5, "end_s": number * 1.5 + 8.25, "duration_s": 8.25}
    return {
        "clip_id": f"film_{number}",
        "video_id": "film",
        "uri": f"/videos/film {number % 9}.mp4",
        "title": f"Title {number}" if number % 2 else None,
        **times,
        "timestamp": ["0:00:00.000", "0:00:08.250"],
        "width": 1280 + number,
        "height": 720,
        "fps": 29.97,
        "caption": f"A cat drinks cup № {number} of the día. " * 9,
        "teacher": f"teacher-{number % 5}",
        "matching_score": number / 4,
        "margin": None,
        "abstained": number % 3 == 0,
        "captions": [],
        "subtitles": None,
        "embedding": [number / 2] * 384,
        "shots": [],
        "run_id": "run",
        "fingerprint": "f",
        "schema_version": 1,
        "clip_file": None,
        "made_with": None,
        **measured_row({}),
        "caption_language": None,
        "harmful_text": None,
        "duplicate_of": None,
        "duplicate_distance": None,
    }


def _read(python: pathlib.Path, files: list[str], columns: list[str]) -> subprocess.CompletedProcess[str]:
    command = [str(python), "-c", READ, json.dumps(files), json.dumps(columns)]
    # Outside the checkout, so that nothing but what is installed there is imported.
    return subprocess.run(command, capture_output=True, text=True, timeout=150, cwd=python.parent)


def test_tensorflow_reads_every_scalar_column_that_is_never_null(tensorflow_python, clip_files):
    never_null = {f.name for f in CLIPS if not f.nullable and not pa.types.is_nested(f.type)}
    assert set(COLUMNS) == never_null

    read = _read(tensorflow_python, clip_files, list(COLUMNS))

    assert read.returncode == 0, read.stderr[-2000:]
    found = json.loads(read.stdout.splitlines()[-1])
    assert found["types"] == COLUMNS
    expected = [{name: _clip(number)[name] for name in COLUMNS} for number in range(1400)]
    assert sorted(found["rows"], key=lambda row: row["start_s"]) == expected


def test_a_dataset_without_clips_reads_as_no_rows(tensorflow_python, tmp_path):
    empty = pa.Table.from_pylist([], schema=CLIPS)
    file = tmp_path / "empty.parquet"
    pq.write_table(empty, file, compression="zstd")

    read = _read(tensorflow_python, [str(file)], ["clip_id", "start_s", "caption"])

    assert read.returncode == 0, read.stderr[-2000:]
    assert json.loads(read.stdout.splitlines()[-1])["rows"] == []


@pytest.mark.parametrize("column", ["title", "embedding.list.element"])
def test_a_column_with_nulls_or_lists_goes_wrong_as_we_warn(tensorflow_python, clip_files, column):
    name = column.partition(".")[0]
    read = _read(tensorflow_python, clip_files[:1], ["clip_id", column])
    if read.returncode:
        assert "ParquetException" in read.stderr
    else:
        rows = json.loads(read.stdout.splitlines()[-1])["rows"]
        truth = {_clip(number)["clip_id"]: _clip(number)[name] for number in range(1400)}
        assert [row[column] for row in rows] != [truth[row["clip_id"]] for row in rows]
