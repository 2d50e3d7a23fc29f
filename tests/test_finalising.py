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
from transforms.finalising import drop_videos, finalise, forget_history, sweep
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
    Committer(tmp_path).commit([failed_rows("a", "r2", etag="2")])
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


@pytest.mark.parametrize("name", TABLES)
def test_videos_are_dropped_from_a_table_whatever_run_they_are_of(tmp_path, name):
    committer = Committer(tmp_path)
    committer.commit([video_rows("a"), video_rows("b"), failed_rows("c")])
    committer.commit([video_rows("b", "r2")])
    committer._append("clips", [video_rows("b", "never-committed")])
    before = plain(tmp_path, name)["video_id"].to_pylist()
    gone = {"clips": 6, "rejected": 8, "failures": 2, "videos": 1}
    assert drop_videos(tmp_path, name, ["b", "not there"]) == gone[name]
    assert drop_videos(tmp_path, name, ["b"]) == 0
    table = DeltaTable(table_uri(tmp_path, name))
    left = pa.concat_tables([pq.read_table(path) for path in table.file_uris()])
    assert left.schema.equals(TABLES[name])
    assert set(left["video_id"].to_pylist()) == set(before) - {"b"}


def log_of(directory, name):
    return sorted(os.listdir(directory / name / "_delta_log"))


def test_a_forgotten_history_leaves_the_present_rows_and_no_older_version(tmp_path):
    committer = Committer(tmp_path)
    for number in range(9):
        committer.commit([video_rows(f"video-{number}", n_clips=1)])
    DeltaTable(table_uri(tmp_path, "clips")).create_checkpoint()
    for path in (tmp_path / "clips" / "_delta_log").iterdir():
        # Written by a machine whose clock is a day ahead.
        os.utime(path, (path.stat().st_mtime + 86400,) * 2)
    with WriterLease(tmp_path, "forgetter"):
        for name in TABLES:
            drop_videos(tmp_path, name, ["video-7"])
        finalise(tmp_path)
        before = read_table(tmp_path, "clips").to_pylist()
        forget_history(tmp_path)
    version = DeltaTable(table_uri(tmp_path, "clips")).version()
    assert log_of(tmp_path, "clips") == [
        f"{version - 1:020}.checkpoint.parquet",
        f"{version - 1:020}.json",
        f"{version:020}.json",
        "_last_checkpoint",
    ]
    actions = pq.read_table(tmp_path / "clips" / "_delta_log" / f"{version - 1:020}.checkpoint.parquet").to_pylist()
    assert [action["remove"] for action in actions if action.get("remove")] == []
    assert read_table(tmp_path, "clips").to_pylist() == before
    assert verify(tmp_path) == []
    # What was committed once is known still.
    assert [one.repeated for one in Committer(tmp_path).commit([video_rows("video-3", n_clips=1)])] == [True]


def test_a_history_may_be_forgotten_again_after_a_kill(tmp_path):
    Committer(tmp_path).commit([video_rows("a")])
    uri = table_uri(tmp_path, "videos")
    DeltaTable(uri).alter.set_table_properties({"delta.logRetentionDuration": "interval 0 days"})
    with WriterLease(tmp_path, "forgetter"):
        for _ in range(2):
            forget_history(tmp_path)
    configuration = DeltaTable(uri).metadata().configuration
    assert configuration["delta.logRetentionDuration"] == "interval 7 days"
    assert configuration["delta.deletedFileRetentionDuration"] == "interval 1 week"
    assert len(log_of(tmp_path, "videos")) == 4
    with pytest.raises(LeaseLost, match="nobody holds"):
        forget_history(tmp_path)
