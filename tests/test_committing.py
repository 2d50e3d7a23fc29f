import glob
import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time

import apache_beam as beam
import pyarrow.dataset as pa_dataset
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from commit_script import rows_of
from dataset_rows import failed_rows, video_rows
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from beam_pipeline.verify import audit, verify
from transforms.committing import Committed, Committer, CommitVideos, among_ids, finalise
from transforms.finalising import sweep
from transforms.lease import LeaseLost, WriterLease
from transforms.schemas import TABLES, RowError
from transforms.tables import Snapshot, current_videos, read_table, table_uri

SCRIPT = pathlib.Path(__file__).with_name("commit_script.py")


def finish(directory):
    with WriterLease(directory, "finisher"):
        return finalise(directory)


def content(directory):
    """All rows but their run_id, in an order of their own."""
    found = {}
    for name in TABLES:
        rows = read_table(directory, name).drop_columns(["run_id"]).to_pylist()
        found[name] = sorted(rows, key=repr)
    return found


def plain(directory, name):
    """The rows that a reader sees who knows nothing of Delta."""
    return pa_dataset.dataset(f"{directory}/{name}", format="parquet").to_table()


def captions(directory):
    rows = read_table(directory, "clips", ["clip_id", "caption", "run_id"]).to_pylist()
    return sorted((row["clip_id"], row["caption"], row["run_id"]) for row in rows)


def test_a_batch_is_committed_and_says_so(tmp_path):
    committed = Committer(tmp_path).commit([video_rows("a"), failed_rows("b"), video_rows("c", n_clips=0)])
    assert committed == [
        Committed("a", "r1", "ok", 2, 4, 1),
        Committed("b", "r1", "failed", 0, 0, 1),
        Committed("c", "r1", "ok", 0, 0, 0),
    ]
    assert {name: read_table(tmp_path, name).num_rows for name in TABLES} == {
        "clips": 2, "rejected": 4, "failures": 2, "videos": 3,
    }  # fmt: skip
    assert verify(tmp_path) == []


def test_committing_a_batch_again_writes_nothing(tmp_path):
    batch = [video_rows("a"), video_rows("b")]
    committer = Committer(tmp_path)
    committer.commit(batch)
    before = {name: DeltaTable(table_uri(tmp_path, name)).version() for name in TABLES}
    for again in (committer, Committer(tmp_path)):
        assert [one.repeated for one in again.commit(batch)] == [True, True]
    assert {name: DeltaTable(table_uri(tmp_path, name)).version() for name in TABLES} == before


@pytest.mark.parametrize("reached", [1, 2, 3])
def test_a_commit_that_died_half_way_is_finished_and_not_doubled(tmp_path, reached):
    batch = [video_rows("a"), video_rows("b")]
    dying = Committer(tmp_path)
    for name in ("clips", "rejected", "failures")[:reached]:
        dying._append(name, batch)
    assert [one.repeated for one in Committer(tmp_path).commit(batch)] == [False, False]
    finish(tmp_path)
    assert [plain(tmp_path, name).num_rows for name in TABLES] == [4, 8, 2, 2]


def test_leftovers_of_other_contents_under_the_same_run_id_are_replaced(tmp_path):
    with WriterLease(tmp_path, "r1"):
        Committer(tmp_path)._append("clips", [video_rows("a", n_clips=5, caption="lost"), video_rows("z")])
        Committer(tmp_path).commit([video_rows("a", caption="kept"), video_rows("b", n_clips=0)])
        assert [caption for _, caption, _ in captions(tmp_path)] == ["kept", "kept"]
        assert verify(tmp_path) == []
        assert audit(tmp_path).counts["uncommitted"] == 2  # Of z, whose turn has not come.


def test_a_retry_after_the_sweep_writes_what_was_swept(tmp_path):
    batch = [video_rows("a")]
    Committer(tmp_path)._append("clips", batch)
    finish(tmp_path)
    assert plain(tmp_path, "clips").num_rows == 0
    Committer(tmp_path).commit(batch)
    assert read_table(tmp_path, "clips").num_rows == 2


def test_a_video_that_is_given_twice_in_a_batch_is_committed_once(tmp_path):
    assert len(Committer(tmp_path).commit([video_rows("a"), video_rows("a")])) == 1
    assert read_table(tmp_path, "clips").num_rows == 2


def test_a_replaced_video_is_replaced_and_the_others_stay(tmp_path):
    committer = Committer(tmp_path)
    committer.commit([video_rows("a", caption="old"), video_rows("b", caption="old")])
    committer.commit([video_rows("a", "r2", n_clips=1, caption="new", etag="2"), video_rows("c", "r2", n_clips=1)])
    expected = [
        ("a_1000_9000", "new", "r2"),
        ("b_11000_19000", "old", "r1"),
        ("b_1000_9000", "old", "r1"),
        ("c_1000_9000", "a dog runs", "r2"),
    ]
    assert captions(tmp_path) == sorted(expected)
    assert {video.video_id: video.etag for video in current_videos(tmp_path).values()} == {"a": "2", "b": "1", "c": "1"}
    assert audit(tmp_path).counts["uncommitted"] == 2 + 4 + 1
    assert finish(tmp_path) == {"clips": 2, "rejected": 4, "failures": 1}
    assert captions(tmp_path) == sorted(expected)


def test_a_second_version_in_one_run_gets_a_run_id_of_its_own(tmp_path):
    committer = Committer(tmp_path)
    committer.commit([video_rows("a", caption="old", etag="1")])
    for _ in range(2):
        committed = committer.commit([video_rows("a", n_clips=1, caption="new", etag="2")])
    assert committed[0].repeated
    assert captions(tmp_path) == [("a_1000_9000", "new", "r1--2")]
    committer.commit([video_rows("a", n_clips=1, caption="newest", etag="3")])
    assert captions(tmp_path) == [("a_1000_9000", "newest", "r1--3")]
    finish(tmp_path)
    assert verify(tmp_path) == []


def test_readers_never_see_a_video_in_part_while_it_is_replaced(tmp_path):
    Committer(tmp_path).commit([video_rows(f"v{n}", "r0", n_clips=1, caption="0") for n in range(4)])
    stop, seen, wrong = threading.Event(), set(), []

    def look():
        while not stop.is_set():
            snapshot = Snapshot.open(tmp_path)
            videos = {row["video_id"]: row["n_clips"] for row in snapshot.read("videos").to_pylist()}
            by_video: dict[str, list[str]] = {}
            for row in snapshot.read("clips", ["video_id", "caption"]).to_pylist():
                by_video.setdefault(row["video_id"], []).append(row["caption"])
            for video_id, n_clips in videos.items():
                seen.add(n_clips)
                if by_video[video_id] != [str(n_clips - 1)] * n_clips:
                    wrong.append((video_id, n_clips, by_video[video_id]))

    reader = threading.Thread(target=look)
    reader.start()
    committer = Committer(tmp_path)
    for version in range(1, 15):
        committer.commit(
            [video_rows(f"v{n}", f"r{version}", n_clips=version + 1, caption=str(version)) for n in range(4)]
        )
        if version % 5 == 0:
            sweep(tmp_path)
    stop.set()
    reader.join()
    assert wrong == []
    assert len(seen) > 1


def test_rows_that_do_not_fit_leave_the_dataset_as_it_was(tmp_path):
    committer = Committer(tmp_path)
    committer.commit([video_rows("a")])
    before = content(tmp_path)
    for bad in ("x' OR '1'='1", "", "ü", "a/../b", "a b"):
        with pytest.raises(RowError, match="may hold only letters"):
            committer.commit([video_rows("b"), video_rows(bad)])
    assert content(tmp_path) == before


def test_predicates_are_for_safe_ids_only():
    assert among_ids("video_id", ["-a", "b_1"]) == "video_id IN ('-a', 'b_1')"
    with pytest.raises(RowError):
        among_ids("video_id", ["x' OR '1'='1"])
    with pytest.raises(RowError):
        among_ids("video_id", [])


def test_delta_refuses_the_second_of_two_racing_commits_of_one_batch(tmp_path):
    first, second = Committer(tmp_path), Committer(tmp_path)
    for committer in (first, second):
        committer._standing["videos"].refresh()
    first._publish([video_rows("a")], replacing=False)
    with pytest.raises(CommitFailedError, match="Concurrent transaction"):
        second._publish([video_rows("a")], replacing=False)


def test_two_processes_that_commit_the_same_do_not_double_it(tmp_path):
    racing = [start(tmp_path, "same", "1", 24, "--no-lease") for _ in range(2)]
    assert [process.wait(timeout=60) for process in racing] == [0, 0]
    assert len(current_videos(tmp_path)) == 24
    finish(tmp_path)
    assert verify(tmp_path) == []


def test_a_commit_that_others_keep_disturbing_is_given_up_at_the_deadline(tmp_path, monkeypatch):
    committer = Committer(tmp_path, deadline_s=0.2)

    def refuse(*_, **__):
        raise CommitFailedError("disturbed")

    monkeypatch.setattr("transforms.committing.write_deltalake", refuse)
    with pytest.raises(TimeoutError, match=r"within 0\.2 s: disturbed"):
        committer.commit([video_rows("a")])


def test_thirty_batches_take_seconds_and_end_as_one_file_a_table(tmp_path):
    began = time.monotonic()
    committer = Committer(tmp_path)
    for number in range(30):
        committer.commit([video_rows(f"v{number}-{n}") for n in range(4)])
    assert time.monotonic() - began < 30
    finish(tmp_path)
    assert {name: len(glob.glob(f"{tmp_path}/{name}/*.parquet")) for name in TABLES} == dict.fromkeys(TABLES, 1)
    assert read_table(tmp_path, "clips").num_rows == 240
    assert verify(tmp_path) == []


RUNNERS = {
    "one thread": ["--runner=FnApiRunner"],
    "two threads": ["--runner=FnApiRunner", "--direct_running_mode=multi_threading", "--direct_num_workers=2"],
    "streaming runner": ["--runner=BundleBasedDirectRunner"],
}


@pytest.mark.parametrize("flags", RUNNERS.values(), ids=RUNNERS)
@pytest.mark.parametrize("max_wait_s", [None, 1.0])
def test_the_stage_commits_every_video_once(tmp_path, flags, max_wait_s):
    rows = [rows_of(number, "r1", "1") for number in range(10)]
    out = tmp_path / "said"
    with beam.Pipeline(options=PipelineOptions(flags)) as pipeline:
        committed = pipeline | beam.Create(rows) | CommitVideos(str(tmp_path / "d"), "r1", 4, max_wait_s)
        _ = committed | beam.Map(lambda one: f"{one.video_id} {one.n_clips}") | beam.io.WriteToText(str(out))
    said = sorted(line for path in glob.glob(f"{out}*") for line in pathlib.Path(path).read_text().splitlines())
    assert said == sorted(f"{video.video_id} {len(video.clips)}" for video in rows)
    assert read_table(tmp_path / "d", "clips").num_rows == sum(len(video.clips) for video in rows)
    assert verify(tmp_path / "d") == []


def test_a_run_that_commits_anothers_rows_is_stopped(tmp_path):
    pipeline = beam.Pipeline(options=PipelineOptions(RUNNERS["one thread"]))
    _ = pipeline | beam.Create([video_rows("a", "other")]) | CommitVideos(str(tmp_path), "r1")
    with pytest.raises(RowError, match="rows of run 'other' in run 'r1'"):
        pipeline.run()


def test_the_stage_refuses_what_can_not_be_meant(tmp_path):
    with pytest.raises(RowError):
        CommitVideos(str(tmp_path), "run '1")
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        CommitVideos(str(tmp_path), "r1", 0)
    with pytest.raises(ValueError, match="max_wait_s must be above 0"):
        CommitVideos(str(tmp_path), "r1", 1, 0.0)


def start(directory, *arguments):
    root = str(SCRIPT.parents[1])
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(directory), *map(str, arguments)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def check_after_kill(directory):
    """What must hold at any instant: nothing is breached, every video is of one version and whole."""
    if not (directory / "videos" / "_delta_log").is_dir():
        return
    found = audit(directory)
    assert found.breaches == []
    clips: dict[str, set[str]] = {}
    snapshot = Snapshot.open(directory)
    for row in snapshot.read("clips", ["video_id", "caption"]).to_pylist():
        clips.setdefault(row["video_id"], set()).add(row["caption"])
    for row in snapshot.read("videos", ["video_id", "n_clips", "etag"]).to_pylist():
        assert clips.get(row["video_id"], set()) == ({f"version {row['etag']}"} if row["n_clips"] else set())


def kill_and_rerun(directory, kills, n_videos, seed):
    """Build two versions of a dataset, killing its writer at random instants; returns how many kills hit."""
    draw, hit, run = random.Random(seed), 0, 0
    for etag in ("1", "2"):
        for _ in range(kills // 2):
            run += 1
            process = start(directory, f"run-{run}", etag, n_videos)
            time.sleep(draw.uniform(0.0, 0.5))
            process.send_signal(signal.SIGKILL)
            hit += process.wait() == -signal.SIGKILL
            check_after_kill(directory)
        run += 1
        assert start(directory, f"run-{run}", etag, n_videos).wait(timeout=60) == 0
        assert verify(directory) == []
    return hit


def expected_content(directory, n_videos):
    """The same two versions, undisturbed."""
    for etag in ("1", "2"):
        Committer(directory).commit([rows_of(number, f"u{etag}", etag) for number in range(n_videos)])
    finish(directory)
    return content(directory)


def check_killed_dataset(tmp_path, kills, n_videos, seed):
    assert kill_and_rerun(tmp_path / "killed", kills, n_videos, seed) >= kills // 2
    assert content(tmp_path / "killed") == expected_content(tmp_path / "whole", n_videos)
    for name in TABLES:
        assert plain(tmp_path / "killed", name).num_rows == plain(tmp_path / "whole", name).num_rows


def test_a_run_killed_at_any_instant_is_accepted_and_finished_by_the_next(tmp_path):
    check_killed_dataset(tmp_path, kills=4, n_videos=40, seed=1)


@pytest.mark.parametrize("run_id", ["r1", "r2"])
def test_an_older_generation_of_an_object_replaces_no_newer_one(tmp_path, run_id):
    committer = Committer(tmp_path)
    committer.commit([video_rows("a", "r1", caption="new", etag="20")])
    (told,) = committer.commit([video_rows("a", run_id, caption="old", etag="9")])
    assert (told.repeated, read_table(tmp_path, "videos")["etag"].to_pylist()) == (True, ["20"])
    committer.commit([video_rows("a", run_id, caption="newest", etag="100")])
    assert read_table(tmp_path, "videos")["etag"].to_pylist() == ["100"]
    assert set(read_table(tmp_path, "clips")["caption"].to_pylist()) == {"newest"}


def test_a_failure_takes_no_good_rows_of_the_same_version_away(tmp_path):
    committer = Committer(tmp_path)
    committer.commit([video_rows("a", "r1")])
    before = read_table(tmp_path, "clips").drop_columns(["run_id"])
    (told,) = committer.commit([failed_rows("a", "r2", etag="1")])
    assert (told.status, told.n_clips, told.n_failures, told.repeated) == ("partial", 2, 2, False)
    assert read_table(tmp_path, "clips").drop_columns(["run_id"]) == before
    letters = [(row["stage"], row["teacher"]) for row in read_table(tmp_path, "failures").to_pylist()]
    assert sorted(letters, key=str) == [("caption", "lite-text"), ("split", None)]
    assert [one.repeated for one in committer.commit([failed_rows("a", "r2", etag="1")])] == [True]
    (again,) = committer.commit([failed_rows("a", "r3", etag="1")])
    assert again.n_failures == 2


def test_a_failure_of_a_new_version_replaces_the_old_one(tmp_path):
    committer = Committer(tmp_path)
    committer.commit([video_rows("a", "r1")])
    (told,) = committer.commit([failed_rows("a", "r2", etag="2")])
    assert (told.status, read_table(tmp_path, "clips").num_rows) == ("failed", 0)


def test_a_source_that_has_gone_replaces_nothing_that_stands(tmp_path):
    committer = Committer(tmp_path)
    committer.commit([video_rows("a", "r1", etag="7")])
    (told,) = committer.commit([failed_rows("a", "r2", etag="")])
    assert (told.repeated, read_table(tmp_path, "videos")["etag"].to_pylist()) == (True, ["7"])


def test_of_two_generations_in_one_batch_the_newer_one_stands_whatever_their_order(tmp_path):
    Committer(tmp_path).commit([video_rows("a", "r1", etag="200"), video_rows("a", "r1", etag="100")])
    assert read_table(tmp_path, "videos")["etag"].to_pylist() == ["200"]


def test_a_writer_whose_lease_another_one_took_commits_nothing_more(tmp_path):
    with WriterLease(tmp_path, "r1"):
        committer = Committer(tmp_path, owner="r1")
        committer.commit([video_rows("a", "r1")])
        (tmp_path / ".lease").unlink()
        with WriterLease(tmp_path, "r2"), pytest.raises(LeaseLost, match="r1 lost its lease"):
            committer.commit([video_rows("b", "r1")])
        with pytest.raises(LeaseLost, match="r1 lost its lease"):
            committer.commit([video_rows("b", "r1")])
    assert read_table(tmp_path, "videos")["video_id"].to_pylist() == ["a"]


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_hundred_kills(tmp_path):
    for seed in range(5):
        check_killed_dataset(tmp_path / str(seed), kills=20, n_videos=120, seed=seed)
