"""A dataset in a bucket is what it would be in a directory: made, continued, redriven, taken down, fought over."""

# ruff: noqa: F811 (a test names the fixtures that it imports)

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time

import pytest
from bucket_sets import (  # noqa: F401
    SETS,
    URI,
    arguments,
    check_plain_readers,
    config_of,
    curate,
    fill,
    generations,
    ids,
    local,
    mirror,
    one_line,
    records,
    uploads,
    videos,
)
from sameness import differences
from test_takedown import where_named

from beam_pipeline.cli import main
from beam_pipeline.verify import audit
from transforms import objects, parquet_files
from transforms.files import read
from transforms.lease import LeaseRecord, WriterLease
from transforms.reading import video_id_of
from transforms.reel import Reel
from transforms.schemas import TABLES
from transforms.tables import current_videos, read_table

pytestmark = pytest.mark.usefixtures("temporary")


def test_a_dataset_is_the_same_in_a_bucket_as_in_a_directory_and_stays_untouched_when_nothing_changed(
    gcs, uploads, local, tmp_path, capsys
):
    assert curate(uploads, URI, tmp_path) == 0
    assert differences(URI, local) == []
    assert [main(["verify", one]) for one in (URI, str(local))] == [0, 0]
    red, green = ids(uploads, "red", "green")
    for video_id in (red, green):
        ours, theirs = (Reel.open(f"{one}/reels/{video_id}.arrow") for one in (URI, local))
        assert ours.times == theirs.times
        assert ours.jpegs(range(len(ours.times))) == theirs.jpegs(range(len(theirs.times)))
        assert (ours.etag, ours.settings, ours.shots) == (theirs.etag, theirs.settings, theirs.shots)
        assert {**ours.summary, "decode_s": 0} == {**theirs.summary, "decode_s": 0}
    names = {re.sub(r"part-.*\.parquet|\d{20}\.json|(?<=runs/).*(?=\.json)", "*", name) for name in gcs.names()}
    assert names == {
        *(f"{SETS}{table}/{one}" for table in TABLES for one in ("*", "_delta_log/*")),
        *(f"{SETS}reels/{video_id}.arrow" for video_id in (red, green)),
        f"{SETS}README.md",
        f"{SETS}runs/*.json",
    }
    check_plain_readers(URI)
    assert "| videos | 3 (2 ok, 1 failed) |" in read(f"{URI}/README.md").decode()
    assert main(["report", URI]) == 0
    assert read(f"{URI}/report.html").decode().count("data:image/jpeg;base64,") == 3
    assert capsys.readouterr().out.splitlines()[-1] == f"{URI}/report.html"

    before = generations(gcs)
    assert curate(uploads, URI, tmp_path) == 0
    assert "videos    3 in: 0 committed, 3 unchanged, 0 failed" in capsys.readouterr().out
    after = generations(gcs)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    (new,) = (name for name in changed if name.startswith(f"{SETS}runs/"))
    assert changed - {new} == {f"{SETS}README.md"}


@pytest.mark.slow
def test_only_a_video_of_a_new_version_is_done_again_though_no_copy_is_left_here(
    gcs, videos, tmp_path, temporary, capsys
):
    folder = fill(tmp_path / "uploads", videos)
    assert curate(folder, URI, tmp_path) == 0
    red, green = ids(folder, "red", "green")
    before = generations(gcs)
    (folder / "green.mp4").write_bytes(videos["grey"])
    for one in temporary.glob("reelscribe-kept-*"):
        shutil.rmtree(one)
    capsys.readouterr()
    assert curate(folder, URI, tmp_path) == 0
    assert "videos    3 in: 1 committed, 2 unchanged, 0 failed" in capsys.readouterr().out
    after = generations(gcs)
    reels = {name for name in before if "/reels/" in name}
    assert {name for name in reels if before[name] != after[name]} == {f"{SETS}reels/{green}.arrow"}
    standing = current_videos(URI)
    assert standing[green].run_id != standing[red].run_id
    assert audit(URI).breaches == []
    check_plain_readers(URI)
    assert curate(folder, tmp_path / "set", tmp_path) == 0
    assert differences(URI, tmp_path / "set") == []


@pytest.mark.slow
def test_what_was_committed_bit_by_bit_is_joined_in_the_end(gcs, uploads, local, tmp_path):
    assert curate(uploads, URI, tmp_path, "--chunk-videos", "1") == 0
    check_plain_readers(URI)
    assert differences(URI, local) == []


@pytest.mark.slow
@pytest.mark.parametrize("beside", [False, True], ids=["elsewhere", "in the dataset's own bucket"])
def test_a_bucket_is_watched_and_what_comes_is_curated_into_a_bucket(gcs, videos, tmp_path, beside, capsys):
    source = "gs://bucket/" if beside else "gs://bucket/up/"
    gcs.put("up/red.mp4", videos["red"])
    gcs.put("up/page.mp4", "<html></html>")

    def upload(name: str) -> None:
        if re.search(r"/videos/_delta_log/0*1\.json", name):  # The first ones were committed.
            gcs.put("up/green.mp4", videos["green"])

    gcs.after_write = upload
    command = ["watch", "--input", source, "--output", URI, "--config", config_of(tmp_path, "lite-frame")]
    command += ["--poll=0.3", "--settle=0.1", "--quiet=2", "--idle-exit=6"]
    told = subprocess.run(
        [sys.executable, "-m", "beam_pipeline.cli", *command], capture_output=True, text=True, timeout=170
    )
    assert told.returncode == 0, told.stderr
    assert "videos    3 in: 2 committed, 0 unchanged, 1 failed" in told.stdout
    assert audit(URI).breaches == []
    check_plain_readers(URI)
    assert curate("gs://bucket/up/", tmp_path / "set", tmp_path) == 0
    assert differences(URI, tmp_path / "set") == []


@pytest.mark.slow
def test_notifications_of_a_bucket_become_rows_in_a_bucket(gcs, videos, tmp_path):
    from fake_pubsub import FakePubSub
    from test_notifications import attributes_of

    with FakePubSub() as pubsub:
        subscription = pubsub.subscribe("uploads")
        for name in ("red", "green"):
            pubsub.publish(attributes_of(f"up/{name}.mp4", generation=gcs.put(f"up/{name}.mp4", videos[name])))
        # A bucket tells of its dataset's objects, too.
        gcs.after_write = lambda name: pubsub.publish(attributes_of(name, generation=gcs.generation(name)))
        command = ["watch", "--subscription", subscription, "--output", URI]
        command += ["--config", config_of(tmp_path, "lite-frame"), "--quiet=2", "--idle-exit=8"]
        told = subprocess.run(
            [sys.executable, "-m", "beam_pipeline.cli", *command], capture_output=True, text=True, timeout=170
        )
        assert told.returncode == 0, told.stderr
    gcs.after_write = None
    assert "videos    2 in: 2 committed, 0 unchanged, 0 failed" in told.stdout
    assert audit(URI).breaches == []
    assert curate("gs://bucket/up/", tmp_path / "set", tmp_path) == 0
    assert differences(URI, tmp_path / "set") == []


@pytest.mark.slow
def test_what_failed_is_redriven_and_what_is_taken_down_leaves_no_trace_in_a_bucket(
    gcs, videos, tmp_path, temporary, capsys
):
    folder = fill(tmp_path / "uploads", videos)
    hidden = folder / "Clandestine Footage.mp4"
    hidden.write_bytes(videos["grey"])
    hidden.with_suffix(".json").write_text(json.dumps({"title": "Walruses at Midnight"}))
    assert curate(folder, URI, tmp_path, "--chunk-videos", "1") == 0
    (folder / "page.mp4").write_bytes(videos["green"][: len(videos["green"])] + b"x")
    capsys.readouterr()
    assert main(["redrive", URI]) == 0
    assert "videos    1 in: 1 committed, 0 unchanged, 0 failed" in capsys.readouterr().out
    assert read_table(URI, "failures").num_rows == 0
    assert audit(URI).breaches == []
    # Another title, so that an older version of its rows lies in the history.
    hidden.with_suffix(".json").write_text(json.dumps({"title": "Walruses at Noon"}))
    assert curate(folder, URI, tmp_path, teachers=("lite-frame", "lite-text")) == 0
    assert main(["report", URI]) == 0
    video_id = video_id_of(str(hidden))
    words = {
        "file": "Clandestine Footage",
        "title": "Walruses at Noon",
        "older": "Walruses at Midnight",
        "id": video_id,
    }
    assert where_named(mirror(gcs, tmp_path / "before"), words)["file"] == {"clips", "report.html", "runs", "videos"}
    others = {
        name: sorted(repr(row) for row in read_table(URI, name).to_pylist() if row["video_id"] != video_id)
        for name in TABLES
    }

    assert main(["takedown", URI, "--video", video_id, "--reason", "asked for"]) == 0
    found = where_named(mirror(gcs, tmp_path / "after"), words)
    assert found == {"file": set(), "title": set(), "older": set(), "id": {"runs"}}
    assert not any(video_id in name for name in gcs.names())
    assert f"{SETS}report.html" not in gcs
    for name in TABLES:
        assert sorted(map(repr, read_table(URI, name).to_pylist())) == others[name]
    assert audit(URI).breaches == []
    check_plain_readers(URI)
    assert main(["takedown", URI, "--video", video_id]) == 0
    assert f"{video_id} was taken down before" in capsys.readouterr().out
    assert curate(folder, URI, tmp_path, teachers=("lite-frame", "lite-text")) == 0
    assert video_id not in current_videos(URI)


def test_a_second_writer_is_told_in_a_line_and_writes_nothing(gcs, uploads, tmp_path, capsys):
    with WriterLease(URI, "first"):
        before = generations(gcs)
        assert curate(uploads, URI, tmp_path) == 1
        assert generations(gcs) == before
        told = capsys.readouterr().err
    assert re.fullmatch(
        rf"reelscribe: {URI} is being written by first \(pid {os.getpid()} on \S+\) since .*\n", told
    ), told
    assert list(before) == [f"{SETS}.lease"]


def test_a_writer_that_was_taken_for_dead_stops_and_leaves_the_dataset_to_the_other(gcs, uploads, tmp_path, capsys):
    theirs = LeaseRecord("other", "host", "another machine", 1, None, time.time(), time.time() + 3600, "token")
    content = json.dumps(dataclasses.asdict(theirs))
    written: list[str] = []
    one_by_one = threading.Lock()  # Reels of two videos may come at once.

    def take_over(name: str) -> None:
        with one_by_one:
            if "/reels/" in name and not written:
                written.append(gcs.put(f"{SETS}.lease", content))
            elif written:
                written.append(name)

    gcs.after_write = take_over
    assert curate(uploads, URI, tmp_path) == 1
    gcs.after_write = None
    told = capsys.readouterr().err
    assert "LeaseLost: " in one_line(told)
    assert gcs.generation(f"{SETS}.lease") == written[0], "the other's lease stays"
    assert [name for name in written[1:] if not re.search(r"/reels/|/runs/", name)] == []
    assert audit(URI).breaches == []
    assert current_videos(URI) == {}
    gcs.remove(f"{SETS}.lease")
    assert curate(uploads, URI, tmp_path) == 0
    assert audit(URI).breaches == []


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("gs://nobucket/x", "there is no bucket gs://nobucket"),
        ("gs://bucket/a b", "a dataset can't stand in .*; write gs://BUCKET/FOLDER in letters, digits"),
        ("s3://bucket/a", "s3://bucket/a is neither a directory nor gs://BUCKET/FOLDER"),
        ("gs://b/a", "'gs://b/a/' names no bucket; write gs://BUCKET/NAME"),
    ],
)
@pytest.mark.parametrize("command", ["curate", "verify", "report", "takedown", "redrive"])
def test_a_place_where_no_dataset_can_stand_is_bad_usage(gcs, uploads, tmp_path, capsys, output, told, command):
    given = {
        "curate": lambda: arguments(uploads, output, tmp_path),
        "takedown": lambda: ["takedown", output, "--video", "a-1"],
    }.get(command, lambda: [command, output])()
    assert main(given) == 2
    assert re.match(told, one_line(capsys.readouterr().err))
    assert gcs.names() == []


def test_inputs_among_the_dataset_s_own_objects_are_refused(gcs, videos, tmp_path, capsys):
    gcs.put("in/clips/red.mp4", videos["red"])
    assert curate("gs://bucket/in/clips/", "gs://bucket/in", tmp_path) == 2
    assert one_line(capsys.readouterr().err) == (
        "the input gs://bucket/in/clips/red.mp4 stands in gs://bucket/in/clips, which is the dataset's own; "
        "take another --output"
    )
    assert curate("gs://bucket/in/clips/", "gs://bucket/in/", tmp_path) == 2
    gcs.put("in2/reels/a.txt", "somebody's")
    gcs.put("other/red.mp4", videos["red"])
    capsys.readouterr()
    assert curate("gs://bucket/other/", "gs://bucket/in2", tmp_path) == 2
    assert one_line(capsys.readouterr().err) == (
        "gs://bucket/in2/reels holds something that is no dataset's; take another --output"
    )
    assert gcs.names() == ["in/clips/red.mp4", "in2/reels/a.txt", "other/red.mp4"]


@pytest.mark.parametrize("command", ["curate", "verify", "report", "takedown", "redrive"])
def test_a_service_that_is_down_is_told_in_a_line_and_soon(gcs, uploads, tmp_path, capsys, monkeypatch, command):
    monkeypatch.setattr(objects, "_RETRY_S", 0.3)
    monkeypatch.setattr(parquet_files, "_PATIENCE", {"max_retries": "2", "retry_timeout": "1s"})
    gcs.refuse = 503
    given = {
        "curate": lambda: arguments(uploads, URI, tmp_path),
        "takedown": lambda: ["takedown", URI, "--video", "a-1"],
    }.get(command, lambda: [command, URI])()
    began = time.monotonic()
    assert main(given) == 1
    assert "cannot be read now: " in one_line(capsys.readouterr().err)
    assert time.monotonic() - began < 20
