"""Notifications through one endless pipeline, as a user starts and stops it; its rows are those of `curate`."""

from __future__ import annotations

import contextlib
import functools
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import yaml
from fake_pubsub import FakePubSub
from run_records import records
from sameness import OF_A_RUN, differences
from synthetic import make_video
from test_notifications import attributes_of, upload

from beam_pipeline.cli import main
from beam_pipeline.verify import audit
from transforms.reading import video_id_of
from transforms.tables import current_videos, read_table

CONFIG = {"extends": "lite", "stitching": {"still_distance": None, "redundant_distance": None, "min_event_s": 1.0}}
VTT = "WEBVTT\n\n00:00.500 --> 00:02.500\nThis is green.\n"
LOCAL = ["--runner=BundleBasedDirectRunner", "--project=proj-test"]


def wait_for(done: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.1)


@contextlib.contextmanager
def watching(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`reelscribe watch` in a process of its own, which ends with the test whatever happens."""
    command = [sys.executable, "-m", "beam_pipeline.cli", "watch", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def test_uploads_become_rows_while_the_stream_goes_on_and_end_as_curate_would_have_them(gcs, tmp_path, capsys):
    shots = {"red": [(3.0, "red"), (3.0, "blue")], "green": [(3.0, "green")], "grey": [(4.0, "grey")]}
    videos = {name: make_video(tmp_path / f"{name}.mp4", shots[name], drift_px=3).read_bytes() for name in shots}
    ids = {name: video_id_of(f"gs://bucket/up/{name}.mp4") for name in ("red", "green", "page")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    config, streamed, listed = f"--config={tmp_path}/config.yaml", tmp_path / "streamed", tmp_path / "listed"

    with FakePubSub() as pubsub:
        subscription = pubsub.subscribe("uploads")
        send = functools.partial(upload, gcs, pubsub)
        how = [f"--subscription={subscription}", f"--output={streamed}", config, "--commit-within=1", "--verbose"]
        with watching(*how, *LOCAL) as process:
            first = send("green.mp4", videos["grey"])
            pubsub.publish(attributes_of("up/green.mp4", generation=first))
            wait_for(lambda: ids["green"] in current_videos(str(streamed)), process)
            send("red.mp4", videos["red"])
            send("page.mp4", "<html></html>")
            second = send("green.mp4", videos["green"])
            pubsub.publish(attributes_of("up/green.mp4", generation=first))
            pubsub.publish(attributes_of("up/old.mp4", "OBJECT_DELETE", "7"))
            pubsub.publish({"from": "somebody else"})
            wait_for(lambda: current_videos(str(streamed)).keys() == set(ids.values()), process)
            wait_for(lambda: current_videos(str(streamed))[ids["green"]].etag == second, process)
            send("green.vtt", VTT)
            wait_for(lambda: "This is green." in read_table(streamed, "clips")["subtitles"].to_pylist(), process)
            process.send_signal(signal.SIGTERM)
            told, complaints = process.communicate(timeout=60)
    assert process.returncode == 0, complaints
    assert "videos    3 in: 2 committed, 0 unchanged, 1 failed" in told
    assert "acknowledges what it pulls at once" in complaints
    assert audit(str(streamed)).breaches == []
    (record,) = records(streamed)
    assert (record["status"], record["command"]) == ("done", "watch")
    assert {one["video_id"]: one["outcome"] for one in record["inputs"]} == {
        ids["red"]: "committed",
        ids["green"]: "committed",
        ids["page"]: "failed",
    }
    # What a bucket tells beside uploads is logged; the rows are counted where they stand.
    assert "gone: delete of gs://bucket/up/old.mp4, generation 7" in complaints
    assert "not a notification of a bucket: it has no eventType" in complaints
    told_of = ("videos ok", "videos failed", "clips", "clip_ms", "failures split")
    assert [record["counts"][name] for name in told_of] == [2, 1, 3, 7200, 1]

    assert main(["curate", "--input", "gs://bucket/up/", "--output", str(listed), config]) == 0
    assert differences(streamed, listed, ignoring=OF_A_RUN - {"detail"}) == []
    # The sweep after a stop or a kill finds what the stream has not committed, and here there is nothing.
    capsys.readouterr()
    assert main(["curate", "--input", "gs://bucket/up/", "--output", str(streamed), config]) == 0
    assert "videos    3 in: 0 committed, 3 unchanged, 0 failed" in capsys.readouterr().out
