"""Sources that go on coming: notifications through a streaming pipeline, and listings again and again."""

import dataclasses
import datetime
import pathlib
import pickle
import threading
import time
import types

import apache_beam as beam
import fake_pubsub
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing import test_stream
from apache_beam.testing.util import assert_that, equal_to
from fake_pubsub import FakePubSub
from test_notifications import attributes_of

from transforms.arrivals import KeepNewest, RefusedMessage, WatchPattern, WatchSubscription, supersedes
from transforms.notifications import Notification
from transforms.reading import Source, find_sources
from transforms.subscriptions import SubscriptionError

VIDEO = Source("a", "gs://bucket/up/a.mp4", etag="100", text_version="t1")
NEWER = dataclasses.replace(VIDEO, etag="101")
REWORDED = dataclasses.replace(VIDEO, text_version="t2")
GONE = dataclasses.replace(VIDEO, etag="", text_version="")


@pytest.mark.parametrize(
    ("source", "seen", "news"),
    [
        (VIDEO, ("100", "t1"), False),
        (VIDEO, ("100", "t2"), True),
        (VIDEO, ("99", "t9"), True),
        (VIDEO, ("101", "t1"), False),
        (dataclasses.replace(VIDEO, etag="1000"), ("999", "t1"), True),
        (GONE, ("100", "t1"), False),
        (GONE, ("", ""), False),
        (VIDEO, ("", ""), True),
    ],
)
def test_news_is_a_newer_version_or_another_text(source, seen, news):
    assert supersedes(source, *seen) == news


def test_each_version_goes_through_once_until_it_is_forgotten():
    other = dataclasses.replace(VIDEO, video_id="b")
    stream = (
        test_stream.TestStream()
        .advance_watermark_to(0)
        .add_elements([VIDEO, VIDEO, other, REWORDED, REWORDED])
        .add_elements([NEWER, VIDEO, GONE, other])
        .advance_watermark_to(3599)
        .add_elements([NEWER, other])
        .advance_watermark_to(3700)
        .add_elements([NEWER, NEWER])
        .advance_watermark_to_infinity()
    )
    options = PipelineOptions(["--runner=BundleBasedDirectRunner", "--streaming"])
    with beam.Pipeline(options=options) as pipeline:
        sources = pipeline | stream
        # Two of them in a pipeline don't mix up what they remember.
        for name in ("one", "two"):
            news = sources | f"Keep {name}" >> KeepNewest(name, 3600)
            assert_that(news, equal_to([VIDEO, other, REWORDED, NEWER, NEWER]), f"news {name}")


def _keep(record: object, folder: str, kind: str) -> None:
    path = pathlib.Path(folder) / f"{kind}-{time.time_ns()}-{id(record)}"
    path.with_name(f".{path.name}").write_bytes(pickle.dumps(record))
    path.with_name(f".{path.name}").rename(path)


def kept(folder: pathlib.Path, kind: str) -> list:
    return [pickle.loads(path.read_bytes()) for path in sorted(folder.glob(f"{kind}-*"))]


def wait_for(done, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def test_notifications_stream_into_sources_once_each_and_what_is_none_is_told(gcs, tmp_path):
    first = gcs.put("up/a.mp4", b"first")
    gcs.put("up/b.mp4", b"b")
    with FakePubSub() as pubsub:
        subscription = pubsub.subscribe("uploads")
        flags = ["--runner=BundleBasedDirectRunner", "--streaming", "--project=proj-test"]
        pipeline = beam.Pipeline(options=PipelineOptions(flags))
        watched = pipeline | WatchSubscription(subscription)
        for kind, records in zip(watched._fields, watched, strict=True):
            _ = records | f"keep {kind}" >> beam.Map(_keep, str(tmp_path), kind)
        for attributes in (
            attributes_of("up/a.mp4", generation=first),
            attributes_of("up/a.mp4", generation=first),
            attributes_of("up/gone.mp4", "OBJECT_DELETE", "7"),
            attributes_of("up/notes.txt"),
            {"from": "somebody else"},
        ):
            pubsub.publish(attributes)
        result = pipeline.run()
        try:
            wait_for(lambda: kept(tmp_path, "sources") and kept(tmp_path, "gone") and kept(tmp_path, "refused"))
            # An overwritten object is news; the late notification of its first version is not.
            second = gcs.put("up/a.mp4", b"second")
            pubsub.publish(attributes_of("up/a.mp4", generation=second))
            pubsub.publish(attributes_of("up/a.mp4", generation=first))
            gcs.put("up/a.vtt", "WEBVTT\n")
            pubsub.publish(attributes_of("up/a.vtt"))
            pubsub.publish(attributes_of("up/b.mp4"))
            current = find_sources(["gs://bucket/up/"]).sources
            wait_for(lambda: set(current) <= set(kept(tmp_path, "sources")))
            pulls = pubsub.pulls
            wait_for(lambda: pubsub.pulls > pulls + 2)
        finally:
            result.cancel()
    sources = kept(tmp_path, "sources")
    assert next(source.etag for source in sources if source.uri == "gs://bucket/up/a.mp4") == first
    versions = [(source.video_id, source.etag, source.text_version) for source in sources]
    assert len(versions) == len(set(versions)) <= 4
    assert [(type(n), n.kind, n.uri, n.generation) for n in kept(tmp_path, "gone")] == [
        (Notification, "delete", "gs://bucket/up/gone.mp4", "7")
    ]
    (refused,) = kept(tmp_path, "refused")
    told = "not a notification of a bucket: it has no eventType"
    assert refused == RefusedMessage(refused.message_id, (("from", "somebody else"),), told)
    assert int(refused.message_id) > 0


def test_a_message_that_waited_for_hours_is_remembered_like_any_other(gcs, tmp_path, monkeypatch):
    """The watermark is of now; what is behind it would be forgotten at once, and its duplicates be news."""

    class HoursAgo(datetime.datetime):
        @classmethod
        def now(cls, zone=None):
            return super().now(zone) - datetime.timedelta(hours=2)

    monkeypatch.setattr(fake_pubsub, "datetime", types.SimpleNamespace(datetime=HoursAgo, UTC=datetime.UTC))
    generation = gcs.put("up/a.mp4", b"first")
    with FakePubSub() as pubsub:
        flags = ["--runner=BundleBasedDirectRunner", "--streaming", "--project=proj-test"]
        pipeline = beam.Pipeline(options=PipelineOptions(flags))
        watched = pipeline | WatchSubscription(pubsub.subscribe("uploads"))
        _ = watched.sources | "keep" >> beam.Map(_keep, str(tmp_path), "sources")
        _ = watched.gone | "keep gone" >> beam.Map(_keep, str(tmp_path), "gone")
        result = pipeline.run()
        try:
            for number in range(3):
                pulls = pubsub.pulls
                wait_for(lambda pulls=pulls: pubsub.pulls > pulls + 2)
                pubsub.publish(attributes_of("up/a.mp4", generation=generation))
                wait_for(lambda number=number: kept(tmp_path, "sources") or number)
            pubsub.publish(attributes_of("up/gone.mp4", "OBJECT_DELETE", "7"))
            wait_for(lambda: kept(tmp_path, "gone"))
        finally:
            result.cancel()
    assert [source.etag for source in kept(tmp_path, "sources")] == [generation]


def test_a_pattern_is_listed_again_and_again_and_each_version_comes_once(gcs, tmp_path):
    """On the embedded runner what stands before the first shuffle runs as it comes."""

    def upload():
        wait_for(lambda: len(gcs.asked) > 2)
        gcs.put("up/a.mp4", b"first")
        wait_for(lambda: kept(tmp_path, "sources"))
        gcs.put("up/a.vtt", "WEBVTT\n")
        wait_for(lambda: len(kept(tmp_path, "sources")) == 2)
        gcs.put("up/a.mp4", b"second")
        gcs.put("up/b.mp4", b"b")

    uploading = threading.Thread(target=upload)
    uploading.start()
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
        sources = pipeline | WatchPattern("gs://bucket/up/", every_s=0.2, stop_after_s=6)
        _ = sources | "keep" >> beam.Map(_keep, str(tmp_path), "sources")
    uploading.join()
    found = kept(tmp_path, "sources")
    assert [source.uri.rpartition("/")[2] for source in found] == ["a.mp4", "a.mp4", "a.mp4", "b.mp4"]
    assert found[0].subtitles is None and found[1].subtitles == "gs://bucket/up/a.vtt"
    assert found[0].etag == found[1].etag != found[2].etag
    assert tuple(found[2:]) == find_sources(["gs://bucket/up/"]).sources
    assert len(gcs.asked) < 60, "a listing every 0.2 s, not as fast as it goes"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: WatchSubscription("uploads"), SubscriptionError, "'uploads' is no subscription"),
        (
            lambda: WatchSubscription("projects/proj-test/subscriptions/uploads", forget_after_s=0),
            ValueError,
            "forget_after_s must be more than 0, not 0",
        ),
        (lambda: WatchPattern("uploads/"), ValueError, r"'uploads/' is not watched by listings; write gs://BUCKET/"),
        (lambda: WatchPattern("gs://bucket/", every_s=0), ValueError, "every_s must be more than 0, not 0"),
    ],
)
def test_what_cannot_be_watched_is_told_when_the_pipeline_is_built(make, error, message):
    with pytest.raises(error, match=message):
        make()
