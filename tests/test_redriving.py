"""A redrive runs again what failed and nothing else, and counts the attempts."""

import contextlib
import json
import os
import pathlib
import shutil
import threading
from collections.abc import Iterator

import pytest
import yaml
from fake_pubsub import FakePubSub
from run_records import newest_run, records
from synthetic import make_video
from test_notifications import attributes_of

from beam_pipeline import redriving
from beam_pipeline.cli import main
from beam_pipeline.config import load_config
from beam_pipeline.job import JobOptions
from beam_pipeline.redriving import last_config
from beam_pipeline.subscription_feed import SubscriptionFeed
from beam_pipeline.verify import verify
from beam_pipeline.watching import WatchOptions, watch
from model_handlers.base import ElementwiseHandler
from transforms.reading import video_id_of
from transforms.recalling import Retry
from transforms.tables import read_table

TEACHERS = ["lite-frame", "lite-motion"]
SELECTOR = "conse"
EMBEDDER = "efficientnet-lite0"
VTT = "WEBVTT\n\n00:00.500 --> 00:02.500\nRed.\n"


@contextlib.contextmanager
def failing(*names: str, error: BaseException | None = None) -> Iterator[list[str]]:
    """Let these models fail, with this error if it matters; list every model that is asked, once a request."""
    asked: list[str] = []
    run = ElementwiseHandler._answer_all

    def answer_all(self, batch, model):
        if self.name in names:
            raise error or ConnectionError(f"{self.name} is away")
        asked.extend([self.name] * len(batch))
        return run(self, batch, model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ElementwiseHandler, "_answer_all", answer_all)
        yield asked


def prepare(folder: pathlib.Path) -> pathlib.Path:
    """One little video in `in`, and a configuration of few models."""
    (folder / "in").mkdir()
    make_video(folder / "in" / "a.mp4", shots=[(3.0, "red"), (3.0, "blue")], drift_px=3)
    stitching = {"still_distance": None, "redundant_distance": None, "min_event_s": 1.0}
    config = {"extends": "lite", "teachers": TEACHERS, "stitching": stitching}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture
def folder(tmp_path):
    return prepare(tmp_path)


@pytest.fixture(scope="module")
def one_failed(tmp_path_factory) -> pathlib.Path:
    """A dataset in which `lite-motion` failed, and whose configuration's file has gone since."""
    folder = prepare(tmp_path_factory.mktemp("one_failed"))
    with failing("lite-motion"):
        curate(folder)
    (folder / "config.yaml").rename(folder / "moved.yaml")
    return folder


@pytest.fixture
def failed(one_failed, tmp_path):
    """A copy of that dataset. Its video is not copied: leave it alone."""
    shutil.copytree(one_failed / "out", tmp_path / "out")
    return tmp_path


def curate(folder: pathlib.Path) -> None:
    places = ["--input", str(folder / "in"), "--output", str(folder / "out")]
    assert main(["curate", *places, "--config", str(folder / "config.yaml"), "--max-failed-fraction", "1"]) == 0


def redrive(folder: pathlib.Path, *flags: str) -> None:
    assert main(["redrive", str(folder / "out"), "--max-failed-fraction", "1", *flags]) == 0


def failures(folder: pathlib.Path) -> list[tuple]:
    rows = read_table(str(folder / "out"), "failures").to_pylist()
    return sorted((row["stage"], row["teacher"] or "", row["error_class"], row["attempt"]) for row in rows)


def captions(folder: pathlib.Path) -> list[list[str]]:
    rows = read_table(str(folder / "out"), "clips").to_pylist()
    return [[one["teacher"] for one in row["captions"]] for row in rows]


def test_a_teacher_that_failed_is_asked_again_and_nobody_else(failed):
    assert failures(failed) == [("caption", "lite-motion", "ConnectionError", 1)] * 2
    with failing("lite-motion") as asked:
        redrive(failed)
    assert (asked, failures(failed)) == ([], [("caption", "lite-motion", "ConnectionError", 2)] * 2)
    with failing() as asked:
        redrive(failed)
    assert sorted(asked) == [SELECTOR, SELECTOR, "lite-motion", "lite-motion"]
    assert (failures(failed), captions(failed)) == ([], [TEACHERS] * 2)
    run = newest_run(failed / "out")
    assert (run["command"], run["counts"]["committed"]) == ("redrive", 1)
    assert verify(failed / "out") == []


def test_clips_that_could_not_be_scored_go_on_with_the_captions_they_have(folder):
    with failing(SELECTOR):
        curate(folder)
    assert failures(folder) == [("score", "", "ConnectionError", 1)] * 2
    assert captions(folder) == []
    with failing() as asked:
        redrive(folder)
    assert asked == [SELECTOR, SELECTOR]
    assert (failures(folder), captions(folder)) == ([], [TEACHERS] * 2)
    assert verify(folder / "out") == []


def test_clips_that_nobody_could_caption_are_captioned(folder):
    with failing(*TEACHERS):
        curate(folder)
    assert [one[:2] for one in failures(folder)] == [("caption", "")] * 2 + [
        ("caption", teacher) for teacher in TEACHERS for _ in range(2)
    ]
    with failing("lite-motion") as asked:
        redrive(folder)
    assert sorted(asked) == [SELECTOR, SELECTOR, "lite-frame", "lite-frame"]
    assert failures(folder) == [("caption", "lite-motion", "ConnectionError", 2)] * 2
    assert captions(folder) == [["lite-frame"]] * 2
    assert verify(folder / "out") == []


def test_shots_that_could_not_be_embedded_are_embedded_from_the_reel(folder):
    with failing(EMBEDDER):
        curate(folder)
    assert failures(folder) == [("embed", "", "ConnectionError", 1)] * 2
    with failing() as asked:
        redrive(folder)
    assert asked.count(EMBEDDER) == 2
    assert newest_run(folder / "out")["counts"]["split reels_reused"] == 1
    assert (failures(folder), captions(folder)) == ([], [TEACHERS] * 2)
    assert verify(folder / "out") == []


def test_a_broken_file_counts_its_attempts_until_it_is_mended(folder):
    good = (folder / "in" / "a.mp4").read_bytes()
    (folder / "in" / "a.mp4").write_bytes(b"no video" * 100)
    curate(folder)
    ((stage, _, kind, attempt),) = failures(folder)
    assert (stage, attempt) == ("split", 1)
    redrive(folder, "--stage", "split", "--class", kind)
    assert [one[3] for one in failures(folder)] == [2]
    redrive(folder, "--max-attempts", "2")
    assert [one[3] for one in failures(folder)] == [2]
    (folder / "in" / "a.mp4").write_bytes(good)
    redrive(folder)
    assert (failures(folder), len(captions(folder))) == ([], 2)
    assert verify(folder / "out") == []


@pytest.mark.parametrize("flags", [["--stage", "score"], ["--class", "ValueError"], ["--older-than", "1h"]])
def test_what_is_not_covered_stays_as_it_is(failed, flags):
    before = read_table(str(failed / "out"), "failures").to_pylist()
    with failing() as asked:
        redrive(failed, *flags)
    assert asked == []
    assert read_table(str(failed / "out"), "failures").to_pylist() == before


def test_a_dry_run_says_what_would_be_done_and_does_nothing(failed, capsys):
    runs = len(list((failed / "out" / "runs").iterdir()))
    redrive(failed, "--dry-run")
    assert capsys.readouterr().out.splitlines() == [
        "     2 caption  ConnectionError (attempt 1)",
        "2 dead letters of 1 videos",
    ]
    assert len(list((failed / "out" / "runs").iterdir())) == runs


def test_a_video_whose_source_is_gone_is_mended_from_its_reel_or_left_alone(one_failed, failed, capsys):
    shutil.copytree(failed / "out", failed / "without_reel" / "out")
    (reel,) = (failed / "without_reel" / "out" / "reels").iterdir()
    reel.unlink()
    video = one_failed / "in" / "a.mp4"
    video.rename(one_failed / "elsewhere.mp4")
    try:
        redrive(failed)
        assert (failures(failed), captions(failed)) == ([], [TEACHERS] * 2)
        capsys.readouterr()
        redrive(failed / "without_reel")
    finally:
        (one_failed / "elsewhere.mp4").rename(video)
    assert "1 videos are left as they are, since their source is gone" in capsys.readouterr().out
    assert failures(failed / "without_reel") == [("caption", "lite-motion", "ConnectionError", 1)] * 2
    assert captions(failed / "without_reel") == [["lite-frame"]] * 2


def titles(folder: pathlib.Path) -> dict[str, tuple]:
    rows = read_table(str(folder / "out"), "videos").to_pylist()
    return {row["video_id"]: (row["title"], row["description"], row["n_failures"]) for row in rows}


def test_videos_of_a_manifest_keep_what_it_says_of_them_also_when_it_has_moved(folder):
    shutil.copy(folder / "in" / "a.mp4", folder / "b.mp4")
    (folder / "b.vtt").write_text(VTT)
    rows = [
        {"uri": "in/a.mp4", "video_id": "my-own", "title": "Told by the manifest"},
        {"uri": "b.mp4", "title": "Also told", "description": "At length"},
    ]
    (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    places = ["--input", str(folder / "list.jsonl"), "--output", str(folder / "out")]
    told = {"my-own": ("Told by the manifest", None), video_id_of(str(folder / "b.mp4")): ("Also told", "At length")}
    with failing("lite-motion"):
        assert main(["curate", *places, "--config", str(folder / "config.yaml")]) == 0
    with failing("lite-motion") as asked:
        redrive(folder)
    assert asked == []
    assert titles(folder) == {video_id: (*texts, 2) for video_id, texts in told.items()}
    (folder / "list.jsonl").rename(folder / "moved.jsonl")
    with failing() as asked:
        redrive(folder)
    assert "lite-frame" not in asked
    assert titles(folder) == {video_id: (*texts, 0) for video_id, texts in told.items()}
    assert verify(folder / "out") == []


def test_what_stands_beside_a_link_to_a_video_is_found_again(folder):
    (folder / "store").mkdir()
    (folder / "in" / "a.mp4").rename(folder / "store" / "blob.mp4")
    (folder / "in" / "a.mp4").symlink_to(folder / "store" / "blob.mp4")
    (folder / "in" / "a.json").write_text(json.dumps({"title": "Told beside the link"}))
    (folder / "in" / "a.vtt").write_text(VTT)
    with failing("lite-motion"):
        curate(folder)
    with failing() as asked:
        redrive(folder)
    assert sorted(asked) == [SELECTOR, SELECTOR, "lite-motion", "lite-motion"]
    assert titles(folder) == {video_id_of(str(folder / "store" / "blob.mp4")): ("Told beside the link", None, 0)}


def test_inputs_are_looked_into_as_far_as_videos_are_missing_and_the_newest_run_counts(failed, monkeypatch):
    (first,) = records(failed / "out")
    (video,) = first["inputs"]
    uri, (folder,) = video["uri"], first["input"]
    for name in ("wrong", "older", "newer"):
        (failed / f"{name}.jsonl").write_text(json.dumps({"uri": uri, "title": name}))
    others = {"wrong": [{**video, "outcome": "pending"}], "older": [video], "newer": [video]}
    for day, (name, inputs) in enumerate([("older", others["older"]), ("newer", others["newer"]), ("wrong", [])], 1):
        started = f"2999-01-0{day}T00:00:00+00:00"
        listed = ["projects/p/subscriptions/s", "gs://bucket/up/", str(failed / "gone"), str(failed / f"{name}.jsonl")]
        run = {**first, "run_id": name, "started_at": started, "input": listed, "inputs": inputs}
        (failed / "out" / "runs" / f"{name}.json").write_text(json.dumps(run))
    looked: list[str] = []
    find_sources = redriving.find_sources

    def find(inputs, **how):
        looked.extend(os.path.basename(one) for one in inputs)
        return find_sources(inputs, **how)

    monkeypatch.setattr(redriving, "find_sources", find)

    def found() -> list[tuple]:
        looked.clear()
        sources = redriving.find_failed(str(failed / "out"), Retry()).sources
        return [(source.video_id, source.title) for source in sources]

    assert (found(), looked) == ([(video["video_id"], "newer")], ["gone", "newer.jsonl"])
    (failed / "newer.jsonl").write_text(json.dumps({"title": "without a uri"}))
    assert (found(), looked) == ([(video["video_id"], "older")], ["gone", "newer.jsonl", "older.jsonl"])
    (failed / "older.jsonl").unlink()
    assert found() == [(video["video_id"], None)]
    assert looked == ["gone", "newer.jsonl", "older.jsonl", os.path.basename(folder)]


def test_the_configuration_is_the_last_runs_though_its_file_has_gone(one_failed):
    config = last_config(str(one_failed / "out"))
    assert config.fingerprint() == load_config(file=str(one_failed / "moved.yaml")).fingerprint()
    assert [teacher.name for teacher in config.teachers] == TEACHERS


def test_videos_that_came_by_a_subscription_are_found_as_the_objects_that_they_are(gcs, one_failed, tmp_path):
    gcs.put("up/a.mp4", (one_failed / "in" / "a.mp4").read_bytes())
    gcs.put("up/a.json", json.dumps({"title": "Told beside the object"}))
    config = load_config(file=str(one_failed / "moved.yaml"))
    with FakePubSub() as pubsub, failing("lite-motion"):
        feed = SubscriptionFeed(pubsub.subscribe("uploads"))
        pubsub.publish(attributes_of("up/a.mp4", "OBJECT_FINALIZE", gcs.generation("up/a.mp4")))
        how = WatchOptions(quiet_s=0.1, idle_exit_s=0.1)
        list(watch(feed, str(tmp_path / "out"), config, JobOptions(), how, threading.Event(), lambda line: None))
    assert newest_run(tmp_path / "out")["input"] == ["pubsub://projects/proj-test/subscriptions/uploads"]
    assert failures(tmp_path) == [("caption", "lite-motion", "ConnectionError", 1)] * 2
    with failing() as asked:
        redrive(tmp_path)
    assert sorted(asked) == [SELECTOR, SELECTOR, "lite-motion", "lite-motion"]
    assert titles(tmp_path) == {video_id_of("gs://bucket/up/a.mp4"): ("Told beside the object", None, 0)}
    gcs.remove("up/a.mp4")
    assert verify(tmp_path / "out") == []
