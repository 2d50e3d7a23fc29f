"""Duplicates of a dataset: the same marks whatever the order of arrivals and runs, and none that names what is gone."""

import collections
import hashlib
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from duplicate_sets import THRESHOLD, Look, distance, plan, video
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beam_pipeline.duplicates import Duplicates, check_duplicates, clear_marks, content_hash, mark_duplicates
from beam_pipeline.split import PARTS, SplitOptions, split_dataset
from beam_pipeline.verify import verify
from transforms.committing import Committer, finalise
from transforms.duplicates import File
from transforms.finalising import drop_videos
from transforms.lease import LeaseLost, WriterLease
from transforms.sources import version_of
from transforms.tables import Snapshot, read_table, table_uri

SCRIPT = pathlib.Path(__file__).with_name("duplicate_sets.py")


def marks(folder, name="clips"):
    """The marks of a table by id: what stands for it and, of a clip, how far that is."""
    key = f"{name.removesuffix('s')}_id"
    columns = [key, "duplicate_of", "duplicate_distance" if name == "clips" else "content_hash"]
    return {row.pop(key): tuple(row.values()) for row in read_table(folder, name, columns).to_pylist()}


def breaches(folder):
    """Of the audit, and of the part of it that looks at duplicates."""
    return verify(folder) + list(check_duplicates(Snapshot.open(folder), collections.Counter(), orderly=True))


def by_the_rule(videos):
    """The same marks by the definition, in plain Python: components of pairs, the first of an order stands."""
    clips = [
        (video_id, f"{video_id}_{round(start * 1000)}_{round((start + look.length_s) * 1000)}", look)
        for video_id, looks in videos.items()
        for start, look in zip(np.cumsum([0.0, *(look.length_s for look in looks)]), looks, strict=False)
    ]
    groups = [{number} for number in range(len(clips))]
    for a, (video_a, _, look_a) in enumerate(clips):
        for b, (video_b, _, look_b) in enumerate(clips):
            if video_a != video_b and distance(look_a, look_b) < THRESHOLD:
                joined = next(one for one in groups if a in one) | next(one for one in groups if b in one)
                groups = [one for one in groups if not one & joined] + [joined]
    found = {}
    for group in groups:
        first = min(group, key=lambda at: (-clips[at][2].length_s, -clips[at][2].width, clips[at][1]))
        for at in group:
            told = None
            if clips[at][0] != clips[first][0]:
                told = (clips[first][1], pytest.approx(distance(clips[at][2], clips[first][2]), abs=1e-6))
            found[clips[at][1]] = told or (None, None)
    return found


VIDEOS = {
    "a": [Look(0), Look(90)],
    "b": [Look(3, 9.0), Look(180)],
    "c": [Look(10), Look(270)],
    "d": [Look(180, 8.0, 1920), Look(200)],
    "e": [Look(270), Look(272)],
}


def test_the_longest_then_the_largest_then_the_first_stands_for_its_cluster(tmp_path):
    with WriterLease(tmp_path, "r1"):
        Committer(tmp_path).commit([video(name, looks) for name, looks in VIDEOS.items()])
        marked = mark_duplicates(tmp_path, THRESHOLD)
        found = marks(tmp_path)
        finalise(tmp_path)
    assert found == by_the_rule(VIDEOS)
    assert {one: other for one, (other, _) in found.items() if other} == {
        "a_0_8000": "b_0_9000",
        "c_0_8000": "b_0_9000",  # 7 degrees off b, 10 off a.
        "b_9000_17000": "d_0_8000",
        "e_0_8000": "c_8000_16000",
        "e_8000_16000": "c_8000_16000",
    }
    assert (marked.clips, marked.duplicate_clips, marked.clusters, marked.changed) == (10, 5, 3, 5)
    assert marks(tmp_path) == found
    assert breaches(tmp_path) == []


def test_a_clip_of_the_video_that_stands_is_no_duplicate_of_its_own_video(tmp_path):
    videos = {"a": [Look(0, 9.0), Look(10)], "b": [Look(5)]}
    with WriterLease(tmp_path, "r1"):
        Committer(tmp_path).commit([video(name, looks) for name, looks in videos.items()])
        mark_duplicates(tmp_path, THRESHOLD)
        assert {one: other for one, (other, _) in marks(tmp_path).items()} == {
            "a_0_9000": None, "a_9000_17000": None, "b_0_8000": "a_0_9000",
        }  # fmt: skip
        finalise(tmp_path)
    assert breaches(tmp_path) == []


def test_a_second_pass_writes_nothing(tmp_path):
    with WriterLease(tmp_path, "r1"):
        Committer(tmp_path).commit([video(name, looks) for name, looks in VIDEOS.items()])
        mark_duplicates(tmp_path, THRESHOLD)
        before = {name: DeltaTable(table_uri(tmp_path, name)).version() for name in ("clips", "videos")}
        assert mark_duplicates(tmp_path, THRESHOLD).changed == 0
    assert {name: DeltaTable(table_uri(tmp_path, name)).version() for name in ("clips", "videos")} == before


def test_a_row_that_is_marked_changes_in_nothing_else(tmp_path):
    columns = ["run_id", "captions", "embedding", "fingerprint", "clip_id"]
    with WriterLease(tmp_path, "r1"):
        Committer(tmp_path).commit([video(name, looks) for name, looks in VIDEOS.items()])
        before = read_table(tmp_path, "clips", columns).sort_by("clip_id")
        mark_duplicates(tmp_path, THRESHOLD)
    assert read_table(tmp_path, "clips", columns).sort_by("clip_id").equals(before)


looks = st.builds(
    Look,
    degrees=st.integers(0, 40).map(lambda step: 4.5 * step),
    length_s=st.sampled_from([4.0, 8.0]),
    width=st.sampled_from([640, 1280]),
)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    videos=st.lists(st.lists(looks, max_size=3), min_size=2, max_size=7),
    order=st.randoms(use_true_random=False),
    runs=st.integers(1, 3),
    keeps=st.booleans(),
    gone=st.sets(st.integers(0, 6), max_size=2),
)
def test_any_order_of_arrivals_in_any_runs_ends_with_the_same_marks(videos, order, runs, keeps, gone):
    videos = {f"v{number}": found for number, found in enumerate(videos)}
    lost = {f"v{number}" for number in gone} & videos.keys()
    names = list(videos)
    order.shuffle(names)
    with tempfile.TemporaryDirectory() as folder:
        keeper = Duplicates(folder, THRESHOLD)
        for number in range(runs):
            with WriterLease(folder, f"r{number}"):
                committer = Committer(folder)
                for name in names[number::runs]:
                    committer.commit([video(name, videos[name], f"r{number}")])
                    if keeps:
                        keeper.mark()
                # Videos go half-way, and some that stood come again in another run.
                if number == runs - 1:
                    drop_videos(folder, "videos", lost)
                    clear_marks(folder)
                    kept = names[0]
                    if kept not in lost:
                        committer.commit([video(kept, videos[kept], "again")])
                (keeper.mark if keeps else lambda: mark_duplicates(folder, THRESHOLD))()
                finalise(folder)
        keeper.close()
        assert marks(folder) == by_the_rule({name: found for name, found in videos.items() if name not in lost})
        assert breaches(folder) == []


def test_after_a_takedown_no_mark_names_what_is_gone_and_the_next_pass_chooses_anew(tmp_path):
    with WriterLease(tmp_path, "r1"):
        Committer(tmp_path).commit([video(name, looks) for name, looks in VIDEOS.items()])
        mark_duplicates(tmp_path, THRESHOLD)
        drop_videos(tmp_path, "videos", ["b"])
        told = list(check_duplicates(Snapshot.open(tmp_path), collections.Counter(), orderly=True))
        assert told == [
            f"{one}_0_8000: it is called a duplicate of b_0_9000, which does not stand" for one in ("a", "c")
        ]
        assert list(check_duplicates(Snapshot.open(tmp_path), collections.Counter(), orderly=False)) == []
        # And that of a clip of b, which stands no more but is not swept away yet.
        assert clear_marks(tmp_path) == 3
        finalise(tmp_path)
        assert breaches(tmp_path) == []
        assert {one: other for one, (other, _) in marks(tmp_path).items() if other} == {
            "e_0_8000": "c_8000_16000", "e_8000_16000": "c_8000_16000",
        }  # fmt: skip
        mark_duplicates(tmp_path, THRESHOLD)
        finalise(tmp_path)
    assert marks(tmp_path) == by_the_rule({name: looks for name, looks in VIDEOS.items() if name != "b"})


def test_clearing_a_dataset_without_marks_writes_nothing(tmp_path):
    with WriterLease(tmp_path, "r1"):
        Committer(tmp_path).commit([video("a", [Look(0)])])
        before = DeltaTable(table_uri(tmp_path, "clips")).version()
        assert clear_marks(tmp_path) == 0
    assert DeltaTable(table_uri(tmp_path, "clips")).version() == before


def test_embeddings_of_another_embedder_are_never_compared(tmp_path):
    with WriterLease(tmp_path, "r1"):
        made_with = {"a": "old", "b": "old", "c": "new", "d": "new"}
        fingerprints = {"split": "s", "captions": "c", "select": "l"}
        Committer(tmp_path).commit(
            [video(name, [Look(0)], fingerprints={**fingerprints, "embed": by}) for name, by in made_with.items()]
        )
        assert mark_duplicates(tmp_path, THRESHOLD, lambda etag, embedded: embedded == "new").clips == 2
    found = {one: other for one, (other, _) in marks(tmp_path).items()}
    assert found == {"a_0_8000": None, "b_0_8000": None, "c_0_8000": None, "d_0_8000": "c_0_8000"}


def test_marks_need_the_lease(tmp_path):
    with WriterLease(tmp_path, "r1"):
        Committer(tmp_path).commit([video("a", [Look(0)])])
    with pytest.raises(LeaseLost, match="needs the writer's lease"):
        mark_duplicates(tmp_path, THRESHOLD)


def source(path, content):
    path.write_bytes(content)
    etag, size = version_of(str(path))
    return {"uri": str(path), "etag": etag, "size_bytes": size}


def test_copies_of_a_video_are_known_by_their_bytes_and_only_candidates_are_read(tmp_path):
    contents = {"a": b"one" * 50_000, "b": b"two" * 50_000, "c": b"one" * 50_000, "d": b"other", "e": b"one" * 50_000}
    files = {name: source(tmp_path / f"{name}.mp4", content) for name, content in contents.items()}
    (tmp_path / "e.mp4").unlink()
    with WriterLease(tmp_path / "set", "r1"):
        Committer(tmp_path / "set").commit([video(name, [Look(90)], **about) for name, about in files.items()])
        marked = mark_duplicates(tmp_path / "set", THRESHOLD)
        assert (marked.hashed, marked.duplicate_videos) == (4, 1)
        # What was read once is known from its row; what could not be read is tried again.
        assert mark_duplicates(tmp_path / "set", THRESHOLD).hashed == 1
        finalise(tmp_path / "set")
    one, two = (content_hash(File(name, **files[name], status="ok", n_clips=0)) for name in "ab")
    assert (one, two) == tuple(hashlib.sha256(contents[name]).hexdigest() for name in "ab")
    assert marks(tmp_path / "set", "videos") == {
        "a": (None, one), "b": (None, two), "c": ("a", one), "d": (None, None), "e": (None, None),
    }  # fmt: skip
    assert breaches(tmp_path / "set") == []


def test_a_file_of_another_version_by_now_has_no_known_content(tmp_path):
    about = source(tmp_path / "a.mp4", b"first")
    (tmp_path / "a.mp4").write_bytes(b"later")
    os.utime(tmp_path / "a.mp4", ns=(1, 1))
    assert content_hash(File("a", **about, status="ok", n_clips=0)) is None


def test_objects_in_a_bucket_are_compared_like_files_and_so_is_a_dataset_there(gcs):
    contents = {"a": b"one" * 9000, "b": b"one" * 9000, "c": b"two" * 9000}
    etags = {name: gcs.put(f"{name}.mp4", content) for name, content in contents.items()}
    folder = "gs://bucket/set"
    with WriterLease(folder, "r1"):
        Committer(folder).commit(
            [
                video(name, [Look(4.0 * at)], uri=f"gs://bucket/{name}.mp4", etag=etags[name], size_bytes=27_000)
                for at, name in enumerate(contents)
            ]
        )
        gcs.put("c.mp4", b"new" * 9000)
        assert mark_duplicates(folder, THRESHOLD).changed == 4
        finalise(folder)
    one = hashlib.sha256(contents["a"]).hexdigest()
    assert marks(folder, "videos") == {"a": (None, one), "b": ("a", one), "c": (None, None)}
    assert {name: other for name, (other, _) in marks(folder).items()} == {
        "a_0_8000": None, "b_0_8000": "a_0_8000", "c_0_8000": "a_0_8000",
    }  # fmt: skip
    assert breaches(folder) == []


def test_a_split_keeps_clusters_on_one_side(tmp_path):
    folder, names = tmp_path / "set", [f"v{number:02d}" for number in range(40)]
    with WriterLease(folder, "r1"):
        # Each second looks like the one before it.
        Committer(folder).commit([video(name, [Look(9.0 * (n // 2))]) for n, name in enumerate(names)])
        mark_duplicates(folder, 0.05)
    split_dataset(str(folder), str(tmp_path / "parts"), SplitOptions(val=0.2, test=0.3))
    parts = {}
    for part in PARTS:
        for video_id in pq.read_table(tmp_path / "parts" / f"{part}.parquet")["video_id"].to_pylist():
            parts[video_id] = part
    assert all(parts[one] == parts[other] for one, other in zip(names[::2], names[1::2], strict=True))
    assert set(parts.values()) == set(PARTS)


def test_readers_of_a_snapshot_see_all_marks_of_a_pass_or_none(tmp_path):
    with WriterLease(tmp_path, "r1"):
        Committer(tmp_path).commit([video(name, looks) for name, looks in VIDEOS.items()])
        before = Snapshot.open(tmp_path)
        mark_duplicates(tmp_path, THRESHOLD)
        assert before.read("clips", ["duplicate_of"])["duplicate_of"].null_count == 10
        assert read_table(tmp_path, "clips", ["duplicate_of"])["duplicate_of"].null_count == 5


def start(directory, run_id, n_videos):
    root = str(SCRIPT.parents[1])
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(directory), run_id, str(n_videos)],
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def check_kills(tmp_path, kills, n_videos, longest_s):
    """Kill a marking run at random instants, finish it, and compare with one that nobody disturbed."""
    draw, hit = random.Random(7), 0
    for number in range(kills):
        process = start(tmp_path / "killed", f"run-{number}", n_videos)
        time.sleep(draw.uniform(0.0, longest_s))
        process.send_signal(signal.SIGKILL)
        hit += process.wait() == -signal.SIGKILL
        if (tmp_path / "killed" / "videos" / "_delta_log").is_dir():
            assert verify(tmp_path / "killed") == []
            snapshot = Snapshot.open(tmp_path / "killed")
            assert list(check_duplicates(snapshot, collections.Counter(), orderly=False)) == []
    assert start(tmp_path / "killed", "last", n_videos).wait(timeout=120) == 0
    assert breaches(tmp_path / "killed") == []
    with WriterLease(tmp_path / "whole", "r1"):
        Committer(tmp_path / "whole").commit([plan(number, "r1") for number in range(n_videos)])
        mark_duplicates(tmp_path / "whole", THRESHOLD)
    assert marks(tmp_path / "killed") == marks(tmp_path / "whole")
    assert sum(other is not None for other, _ in marks(tmp_path / "whole").values()) > n_videos // 2
    return hit


def test_a_pass_killed_at_any_instant_is_accepted_and_finished_by_the_next(tmp_path):
    assert check_kills(tmp_path, kills=2, n_videos=16, longest_s=0.8) >= 1


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_thirty_kills_at_random_instants_change_no_mark(tmp_path):
    assert check_kills(tmp_path, kills=30, n_videos=160, longest_s=2.5) >= 20
