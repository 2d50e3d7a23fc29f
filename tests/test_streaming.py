"""The recipe without an end: what is committed when, on the runner that streams locally, with time in our hands."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import threading
import time
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.test_stream import TestStream as Stream
from dataset_rows import video_rows
from fake_pubsub import FakePubSub
from fakes import CornerEmbedder, EchoTeacher, LengthSelector, Model
from run_records import records
from synthetic import make_video

from beam_pipeline.config import Config, load_config
from beam_pipeline.job import JobOptions
from beam_pipeline.pipeline import CurateVideos
from beam_pipeline.streaming import Uploads, stream
from beam_pipeline.usage import UsageError
from beam_pipeline.verify import audit
from model_handlers.catalogue import Entry
from transforms import arrivals
from transforms.arrivals import DropTakenDown
from transforms.committing import Committer, CommitVideos
from transforms.joining import JoinByCount, Part, Whole
from transforms.lease import LeaseHeld, WriterLease
from transforms.reading import Source, find_sources
from transforms.schemas import VideoRows
from transforms.tables import current_videos, read_table

LOCAL = ["--runner=BundleBasedDirectRunner", "--project=proj-test"]

HAPPENED: list[str] = []


def note(happened: str) -> None:
    HAPPENED.append(happened)


def noted(committed: Any) -> None:
    note(f"{committed.video_id} committed{' again' if committed.repeated else ''}")


def stream_from_now() -> Stream:
    """A stream whose processing time begins now: batches ask the clock until when they may wait."""
    HAPPENED.clear()
    return Stream().advance_watermark_to(0).advance_processing_time(int(time.time()))


def local_stream() -> beam.Pipeline:
    return beam.Pipeline(options=PipelineOptions([*LOCAL, "--streaming"]))


LOADED: list[str] = []


class Counted:
    """A fake handler that notes when it is loaded. Of the module, since workers get handlers pickled."""

    name: str

    def load(self) -> Model:
        LOADED.append(self.name)
        return Model()


class CountedEmbedder(Counted, CornerEmbedder):
    pass


class CountedTeacher(Counted, EchoTeacher):
    pass


class CountedSelector(Counted, LengthSelector):
    pass


def fake_config() -> Config:
    """The lite profile with models that answer at once."""

    def entry(handler: type) -> Entry:
        name = handler.__name__
        return Entry(name, "fake", "1", "none", "a fake", functools.partial(handler, name))

    config = load_config("lite", changes={"stitching": {"still_distance": None, "min_event_s": 1.0}})
    teachers, selector = (entry(CountedTeacher),), entry(CountedSelector)
    return dataclasses.replace(config, embedder=entry(CountedEmbedder), teachers=teachers, selector=selector)


def test_each_video_is_committed_without_waiting_for_the_stream_and_models_are_loaded_once(tmp_path):
    """The local runner sets up its stages anew for every bundle, and each upload is a bundle here."""
    LOADED.clear()
    for name in ("a", "b", "c"):
        make_video(tmp_path / f"{name}.mp4", [(1.2, "red"), (1.2, "blue")], drift_px=3)
    sources = {one.uri[-5]: one for one in find_sources([str(tmp_path)]).sources}
    uploads = (
        stream_from_now()
        .add_elements([sources["a"]])
        .add_elements(["a came"])
        .add_elements([sources["b"]])
        .add_elements(["b came"])
        .advance_processing_time(400)
        .add_elements(["six minutes later"])
        .add_elements([sources["c"]])
        .add_elements(["the watermark still stands at 0"])
        .advance_watermark_to_infinity()
    )
    with local_stream() as pipeline:
        told = pipeline | uploads
        _ = told | beam.Filter(lambda one: isinstance(one, str)) | "Note" >> beam.Map(note)
        came = told | "Sources" >> beam.Filter(lambda one: isinstance(one, Source)).with_output_types(Source)
        recipe = CurateVideos(fake_config(), str(tmp_path / "out"), "r1", commit_within_s=300)
        _ = came | recipe | beam.Map(noted)
    ids = {name: source.video_id for name, source in sources.items()}
    assert [*HAPPENED[:2], *sorted(HAPPENED[2:4]), *HAPPENED[4:]] == [
        "a came",
        "b came",
        f"{ids['a']} committed",
        f"{ids['b']} committed",
        "six minutes later",
        f"{ids['c']} committed",
        "the watermark still stands at 0",
    ]
    assert sorted(LOADED) == ["CountedEmbedder", "CountedSelector", "CountedTeacher"]
    assert {row["teacher"] for row in read_table(tmp_path / "out", "clips").to_pylist()} == {"CountedTeacher"}


def test_half_a_batch_is_committed_after_its_time_and_a_video_that_never_completes_holds_back_none(tmp_path):
    rows = {name: video_rows(name) for name in ("slow", "fast", "late")}
    uploads = (
        stream_from_now()
        .add_elements([("slow", Whole(rows["slow"])), ("fast", Whole(rows["fast"])), ("fast", Part(1))])
        .advance_processing_time(60)
        .add_elements(["after a minute"])
        .advance_processing_time(300)
        .add_elements(["after six"])
        .add_elements([("late", Whole(rows["late"])), ("late", Part(1)), ("slow", Part(1))])
        .advance_processing_time(400)
        .advance_watermark_to_infinity()
    )
    with local_stream() as pipeline:
        told = pipeline | uploads
        _ = told | beam.Filter(lambda one: isinstance(one, str)) | "Note" >> beam.Map(note)
        parts = told | "Parts" >> beam.Filter(lambda one: isinstance(one, tuple)).with_output_types(tuple[str, Any])
        joined = parts | JoinByCount("parts", lambda whole: 1)
        complete = joined | beam.Map(lambda one: one.whole).with_output_types(VideoRows)
        _ = complete | CommitVideos(str(tmp_path), "r1", batch_size=8, max_wait_s=300) | beam.Map(noted)
    assert HAPPENED[:3] == ["after a minute", "fast committed", "after six"]
    assert sorted(HAPPENED[3:]) == ["late committed", "slow committed"]


class DiesAfterCommit:
    """A committer whose first commit goes through, and then dies: nobody is told."""

    def __init__(self) -> None:
        self.commit, self.died = Committer.commit, 0

    def __call__(self, committer: Committer, batch: list[VideoRows]) -> Any:
        done = self.commit(committer, batch)
        if not self.died:
            self.died += 1
            raise RuntimeError("the worker died after its commit")
        return done


def test_a_bundle_that_dies_after_its_commit_is_run_again_and_doubles_nothing(tmp_path, monkeypatch):
    dies = DiesAfterCommit()
    monkeypatch.setattr(Committer, "commit", lambda self, batch: dies(self, batch))
    uploads = (
        stream_from_now()
        .add_elements([video_rows("a"), video_rows("b")])
        .add_elements([video_rows("b"), video_rows("a")])
        .advance_watermark_to_infinity()
    )
    with local_stream() as pipeline:
        committed = pipeline | uploads.with_output_types(VideoRows) | CommitVideos(str(tmp_path), "r1", batch_size=2)
        _ = committed | beam.Map(noted)
    assert dies.died == 1
    assert sorted(HAPPENED) == ["a committed again", "a committed again", "b committed again", "b committed again"]
    rows = [(row["video_id"], row["start_s"]) for row in read_table(tmp_path, "clips").to_pylist()]
    assert sorted(rows) == [("a", 1.0), ("a", 11.0), ("b", 1.0), ("b", 11.0)]
    assert sorted(current_videos(str(tmp_path))) == ["a", "b"]


VIDEO = Source("v", "gs://bucket/up/v.mp4", etag="100", text_version="t1")


def test_a_video_that_is_taken_down_while_the_stream_goes_on_is_dropped_from_then_on(tmp_path, monkeypatch):
    monkeypatch.setattr(arrivals, "_TOMBSTONES_EVERY_S", 1e-9)
    other = dataclasses.replace(VIDEO, video_id="other", uri="gs://bucket/up/other.mp4")

    def take_down(_: str) -> None:
        (tmp_path / "runs").mkdir()
        record = {"run_id": "takedown-1", "status": "running", "videos": [VIDEO.video_id]}
        (tmp_path / "runs" / "takedown-1.json").write_text(json.dumps(record))

    events = (
        stream_from_now()
        .add_elements([VIDEO])
        .add_elements(["take it down"])
        .add_elements([VIDEO, other])
        .advance_watermark_to_infinity()
    )
    with local_stream() as pipeline:
        told = pipeline | events
        _ = told | beam.Filter(lambda one: isinstance(one, str)) | beam.Map(take_down)
        sources = told | "Sources" >> beam.Filter(lambda one: isinstance(one, Source)).with_output_types(Source)
        _ = sources | DropTakenDown(str(tmp_path)) | "Note" >> beam.Map(lambda one: note(one.video_id))
    assert HAPPENED == ["v", "other"]


@pytest.mark.parametrize(
    ("uploads", "runner", "told"),
    [
        (
            Uploads(patterns=("gs://bucket/", "uploads/")),
            "DataflowRunner",
            "DataflowRunner watches buckets; for uploads/ leave --runner out, or write gs://BUCKET/...",
        ),
        (
            Uploads(patterns=("gs://bucket/",)),
            "BundleBasedDirectRunner",
            "BundleBasedDirectRunner cannot list again and again; leave --runner out, or use --subscription",
        ),
    ],
)
def test_what_a_runner_cannot_watch_is_told_before_anything_is_written(tmp_path, uploads, runner, told):
    options = JobOptions(beam_flags=(f"--runner={runner}",))
    with pytest.raises(UsageError) as error:
        stream(uploads, str(tmp_path / "out"), load_config("lite"), options, threading.Event())
    assert str(error.value) == told
    assert os.listdir(tmp_path) == []


def stream_of(subscription: str, output: pathlib.Path, stop: threading.Event) -> Any:
    options = JobOptions(beam_flags=tuple(LOCAL))
    return stream(Uploads(subscription), str(output), fake_config(), options, stop, say=note, idle_exit_s=30)


def test_a_stream_is_the_only_writer_of_its_dataset(tmp_path):
    with (
        FakePubSub() as pubsub,
        WriterLease(tmp_path, "somebody else"),
        pytest.raises(LeaseHeld, match="somebody else"),
    ):
        stream_of(pubsub.subscribe("uploads"), tmp_path, threading.Event())


def test_a_stream_that_breaks_off_says_so_in_its_record_and_leaves_the_dataset_sound(tmp_path):
    with FakePubSub(), pytest.raises(Exception, match="there is no subscription"):
        stream_of("projects/proj-test/subscriptions/nobodys", tmp_path, threading.Event())
    (record,) = records(tmp_path)
    assert (record["status"], record["inputs"]) == ("failed", [])
    assert "there is no subscription" in record["error"]["message"]
    assert audit(str(tmp_path)).breaches == []
