import glob
import os

import pyarrow as pa
import pyarrow.dataset as pa_dataset
import pyarrow.parquet as pq
import pytest
from dataset_rows import failed_rows, video_rows
from deltalake import DeltaTable

from beam_pipeline.verify import verify
from transforms.committing import Committer
from transforms.finalising import finalise, sweep
from transforms.lease import LeaseLost, WriterLease
from transforms.schemas import TABLES
from transforms.tables import read_table, table_uri


def finish(directory):
    with WriterLease(directory, "finisher"):
        return finalise(directory)


def plain(directory, name):
    """The rows that a reader sees who knows nothing of Delta."""
    return pa_dataset.dataset(f"{directory}/{name}", format="parquet").to_table()


def test_plain_readers_see_what_delta_readers_see_after_finishing(tmp_path):
    committer = Committer(tmp_path)
    committer.commit([video_rows("a", caption="old"), video_rows("b"), failed_rows("c")])
    committer.commit([video_rows("a", "r2", caption="new"), video_rows("c", "r2")])
    committer._append("clips", [video_rows("never", "r2")])
    (tmp_path / "clips" / "part-9.parquet#1").write_bytes(b"staged by one that was killed")
    (tmp_path / "clips" / "part-8.parquet").write_bytes(b"never committed")
    assert finish(tmp_path) == {"clips": 4, "rejected": 4, "failures": 2}
    for name, schema in TABLES.items():
        expected = sorted(read_table(tmp_path, name).to_pylist(), key=repr)
        by_folder = plain(tmp_path, name)
        assert by_folder.schema.equals(schema)  # No string_view, no large_string.
        assert sorted(by_folder.to_pylist(), key=repr) == expected
        by_glob = pa.concat_tables([pq.read_table(path) for path in glob.glob(f"{tmp_path}/{name}/*.parquet")])
        assert by_glob.schema.equals(schema)
        assert sorted(by_glob.to_pylist(), key=repr) == expected
        assert sorted(os.listdir(tmp_path / name)) == [
            "_delta_log",
            *sorted(map(os.path.basename, glob.glob(f"{tmp_path}/{name}/*.parquet"))),
        ]
    assert read_table(tmp_path, "clips", ["caption"])["caption"].to_pylist().count("new") == 2


def test_an_empty_dataset_has_one_file_without_rows_however_often_it_is_finished(tmp_path):
    for _ in range(3):
        finish(tmp_path)
        for name, schema in TABLES.items():
            assert [path.name for path in (tmp_path / name).iterdir() if path.is_file()] != []
            assert len(glob.glob(f"{tmp_path}/{name}/*.parquet")) == 1
            assert plain(tmp_path, name).schema.equals(schema)
            assert plain(tmp_path, name).num_rows == 0
    assert verify(tmp_path) == []
    Committer(tmp_path).commit([video_rows("a")])
    finish(tmp_path)
    assert len(glob.glob(f"{tmp_path}/clips/*.parquet")) == 1
    assert plain(tmp_path, "clips").num_rows == 2


def test_a_table_whose_last_rows_were_replaced_by_none_keeps_its_schema(tmp_path):
    Committer(tmp_path).commit([video_rows("a")])
    Committer(tmp_path).commit([failed_rows("a", "r2")])
    finish(tmp_path)
    assert plain(tmp_path, "clips").num_rows == 0
    assert plain(tmp_path, "clips").schema.equals(TABLES["clips"])
    assert verify(tmp_path) == []


def test_finishing_again_changes_no_file(tmp_path):
    Committer(tmp_path).commit([video_rows("a")])
    finish(tmp_path)
    before = sorted(glob.glob(f"{tmp_path}/*/*.parquet"))
    assert finish(tmp_path) == {"clips": 0, "rejected": 0, "failures": 0}
    assert sorted(glob.glob(f"{tmp_path}/*/*.parquet")) == before


def test_only_the_writer_may_finish(tmp_path):
    Committer(tmp_path).commit([video_rows("a")])
    with pytest.raises(LeaseLost, match="nobody holds"):
        finalise(tmp_path)


def test_files_are_pruned_by_the_statistics_of_rewritten_files(tmp_path):
    committer = Committer(tmp_path)
    committer.commit([video_rows("a"), video_rows("m")])
    committer.commit([video_rows("a", "r2")])
    sweep(tmp_path)
    actions = pa.table(DeltaTable(table_uri(tmp_path, "clips")).get_add_actions(flatten=True)).to_pylist()
    assert sorted((row["min.video_id"], row["max.video_id"], row["num_records"]) for row in actions) == [
        ("a", "a", 2), ("m", "m", 2),
    ]  # fmt: skip
