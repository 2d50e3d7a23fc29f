"""Which buckets are read: those that somebody named on the command line, whatever a manifest or a notification says."""

import argparse
import json
import pathlib

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to
from fake_pubsub import FakePubSub
from gcs_emulator import Bucket
from run_records import newest_run
from test_notifications import attributes_of

from beam_pipeline.config import load_config
from beam_pipeline.curating import curate
from beam_pipeline.feeds import FolderFeed
from beam_pipeline.job import JobOptions
from beam_pipeline.redriving import find_failed
from beam_pipeline.streaming import Uploads
from beam_pipeline.subscription_feed import SubscriptionFeed
from beam_pipeline.usage import Parser, UsageError, add_allow_bucket
from transforms.allowed import bucket_of, named_by, told_by, why_not
from transforms.arrivals import WatchPattern
from transforms.reading import find_sources, read_video
from transforms.recalling import Retry
from transforms.sources import InputError
from transforms.tables import read_table

ELSEWHERE = "gs://private/secret.mp4"
REFUSED = f"{ELSEWHERE} is in a bucket that no --input names; if you trust who named it, add --allow-bucket private"
FLAGS = ("--runner=FnApiRunner", "--direct_running_mode=in_memory", "--direct_num_workers=1")


@pytest.mark.parametrize(
    ("inputs", "allowed", "expected"),
    [
        (["gs://aaa/talks/*.mp4", "gs://bbb", "gs://ccc/list.jsonl"], [], {"aaa", "bbb", "ccc"}),
        (["list.jsonl", "/videos", "projects/p-test/subscriptions/s"], [], set()),
        (["gs://aaa/x.mp4"], ["bbb", "gs://ccc/"], {"aaa", "bbb", "ccc"}),
        (["gs://aaa*/x.mp4"], ["*"], {"*"}),
    ],
)
def test_a_bucket_is_named_by_an_input_in_it_or_by_a_flag(inputs, allowed, expected):
    assert named_by(inputs, allowed) == expected


def test_a_subscription_may_tell_of_any_bucket_until_some_are_named():
    assert (told_by(()), told_by(["aaa"])) == ({"*"}, {"aaa"})


@pytest.mark.parametrize(
    ("uri", "buckets", "expected"),
    [
        (ELSEWHERE, {"uploads"}, REFUSED),
        (ELSEWHERE, set(), REFUSED),
        (ELSEWHERE, {"private"}, None),
        (ELSEWHERE, {"*"}, None),
        ("/videos/a.mp4", set(), None),
        ("gs://privat/a.mp4", {"private"}, REFUSED.replace("private/secret", "privat/a").replace("private", "privat")),
        ("gs://../a.mp4", {"private"}, "'gs://../a.mp4' names no bucket; write gs://BUCKET/NAME"),
    ],
)
def test_an_object_of_another_bucket_is_refused_with_the_flag_that_would_allow_it(uri, buckets, expected):
    assert why_not(uri, buckets) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("gs://aaa/talks", "'gs://aaa/talks' names more than a bucket; a bucket is allowed as a whole: aaa"),
        ("No Bucket", "'No Bucket' is no bucket's name; write it like my-bucket, or * for any"),
        ("", "'' is no bucket's name; write it like my-bucket, or * for any"),
    ],
)
def test_what_is_no_buckets_name_is_bad_usage(text, told):
    with pytest.raises(ValueError) as caught:
        bucket_of(text)
    assert str(caught.value) == told
    parser = Parser()
    add_allow_bucket(parser)
    with pytest.raises(UsageError, match="argument --allow-bucket: "):
        parser.parse_args([f"--allow-bucket={text}"])


def test_the_flag_is_repeatable_and_takes_a_bucket_with_and_without_its_scheme():
    parser = argparse.ArgumentParser()
    add_allow_bucket(parser)
    given = parser.parse_args(["--allow-bucket", "aaa", "--allow-bucket=gs://bbb/", "--allow-bucket", "*"])
    assert (given.allow_bucket, parser.parse_args([]).allow_bucket) == (["aaa", "bbb", "*"], None)


ROWS = [
    {"uri": "gs://bucket/up/a.mp4", "video_id": "ours"},
    {"uri": ELSEWHERE, "video_id": "theirs", "title": "Not yours"},
    {"uri": "gs://bucket/up/a.mp4", "video_id": "words", "subtitles": "gs://private/minutes.vtt"},
]


@pytest.fixture
def buckets(gcs: Bucket, tmp_path: pathlib.Path) -> Bucket:
    """A bucket with a video and a manifest, and the same manifest on this machine; gs://private is not there at all."""
    gcs.put("up/a.mp4", b"a")
    manifest = "\n".join(map(json.dumps, ROWS))
    gcs.put("up/list.jsonl", manifest)
    (tmp_path / "list.jsonl").write_text(manifest)
    return gcs


def problems(inputs: list[str], *allowed: str) -> list[tuple[str, str | None]]:
    return [(source.video_id, source.problem) for source in find_sources(inputs, allowed=allowed).sources]


def private_ones(gcs: Bucket) -> list[str]:
    return [path for _, path in gcs.asked if "private" in path]


def test_a_manifests_row_of_another_bucket_is_refused_row_by_row_and_that_bucket_is_never_asked(buckets):
    rows = [{"uri": "a.mp4", "video_id": "ours"}, *ROWS[1:]]
    rows[2] = {**rows[2], "uri": "gs://bucket/up/b.mp4"}
    buckets.put("up/list.jsonl", "\n".join(map(json.dumps, rows)))
    found = find_sources(["gs://bucket/up/list.jsonl"]).sources
    refused = REFUSED.replace(ELSEWHERE, "gs://private/minutes.vtt")
    assert [(one.video_id, one.problem) for one in found] == [("ours", None), ("theirs", REFUSED), ("words", refused)]
    assert (found[1].uri, found[1].etag, private_ones(buckets)) == (ELSEWHERE, "", [])
    with pytest.raises(InputError) as caught:
        read_video(found[1])
    assert (str(caught.value), private_ones(buckets)) == (REFUSED, [])


def test_a_manifest_on_this_machine_names_no_bucket_but_an_input_beside_it_does(buckets, tmp_path):
    manifest, refused = str(tmp_path / "list.jsonl"), REFUSED.replace(ELSEWHERE, "gs://bucket/up/a.mp4")
    assert problems([manifest])[0] == ("ours", refused.replace("allow-bucket private", "allow-bucket bucket"))
    assert problems([manifest, "gs://bucket/up/a.mp4"])[0] == ("ours", None)
    assert problems([manifest], "bucket")[:2] == [("ours", None), ("theirs", REFUSED)]
    assert private_ones(buckets) == []


def test_what_is_allowed_is_read_as_ever(buckets, tmp_path):
    manifest = str(tmp_path / "list.jsonl")
    for allowed in (("bucket", "private"), ("*",)):
        assert problems([manifest], *allowed)[:2] == [("ours", None), ("theirs", None)]
    assert private_ones(buckets) != []


def test_a_watched_folder_keeps_to_the_buckets_of_all_its_inputs(buckets, tmp_path):
    inputs = [str(tmp_path / "list.jsonl"), "gs://bucket/up/a.mp4"]
    feed = FolderFeed(inputs, poll_s=0.0, settle_s=0.0)
    assert [(one.source.video_id, one.source.problem) for one in feed.arrivals(0)][:2] == [
        ("ours", None),
        ("theirs", REFUSED),
    ]
    allowing = FolderFeed(inputs, poll_s=0.0, settle_s=0.0, allowed=["private"])
    assert [one.source.problem for one in allowing.arrivals(0)][:2] == [None, None]


@pytest.mark.parametrize(("allowed", "expected"), [((), ("theirs", REFUSED)), (("private",), ("theirs", None))])
def test_a_watched_manifest_on_a_runner_that_streams_keeps_to_them_too(buckets, allowed, expected):
    options = beam.options.pipeline_options.PipelineOptions(["--runner=FnApiRunner", "--streaming"])
    with beam.Pipeline(options=options) as pipeline:
        watched = pipeline | WatchPattern("gs://bucket/up/list.jsonl", 0.1, stop_after_s=0.2, allowed=allowed)
        told = watched | beam.Map(lambda one: (one.video_id, one.problem)) | beam.Filter(lambda one: one[0] == "theirs")
        assert_that(told, equal_to([expected]))


def test_every_pattern_of_a_stream_may_name_the_buckets_of_the_others():
    uploads = Uploads(None, ("gs://bucket/up/", "gs://second/"), allowed=("third",))
    assert named_by(uploads.patterns, uploads.allowed) == {"bucket", "second", "third"}


def test_notifications_of_a_bucket_that_was_not_allowed_are_refused_where_some_were_named(gcs):
    gcs.put("up/a.mp4", b"a")
    theirs = {**attributes_of("secret.mp4"), "bucketId": "private"}
    with FakePubSub() as pubsub:
        feed = SubscriptionFeed(pubsub.subscribe("uploads"), allowed=["bucket"])
        pubsub.publish(theirs)
        pubsub.publish(attributes_of("up/a.mp4"))
        came = []
        while not came or not feed.events:
            came += feed.arrivals(0.2)
    assert [one.source.uri for one in came] == ["gs://bucket/up/a.mp4"]
    assert [(event["event"], event["problem"]) for event in feed.events] == [("refused", REFUSED)]
    assert private_ones(gcs) == []


def test_without_any_bucket_named_who_may_publish_decides(gcs):
    gcs.put("up/a.mp4", b"a")
    with FakePubSub() as pubsub:
        feed, came = SubscriptionFeed(pubsub.subscribe("uploads")), []
        pubsub.publish(attributes_of("up/a.mp4"))
        while not came:
            came += feed.arrivals(0.2)
    assert ([one.source.uri for one in came], feed.events) == (["gs://bucket/up/a.mp4"], [])


def test_a_refused_row_is_a_dead_letter_that_stays_one_until_its_bucket_is_allowed(gcs, tmp_path):
    """Of a curate, of a redrive, and of the same curate with the flag: the record of the run says what was allowed."""
    gcs.put("up/a.mp4", b"<html></html>")
    (tmp_path / "list.jsonl").write_text(json.dumps({"uri": "gs://bucket/up/a.mp4", "video_id": "mine"}))
    refused = REFUSED.replace(ELSEWHERE, "gs://bucket/up/a.mp4").replace("bucket private", "bucket bucket")
    output, config = str(tmp_path / "out"), load_config("lite")

    def run(*allowed: str) -> list[tuple[str, str]]:
        curate([str(tmp_path / "list.jsonl")], output, config, JobOptions(beam_flags=FLAGS, allow_buckets=allowed))
        return [(row["stage"], row["message"]) for row in read_table(output, "failures").to_pylist()]

    assert run() == [("read", refused)]
    assert gcs.asked == []
    assert [one.problem for one in find_failed(output, Retry()).sources] == [refused]
    (tmp_path / "list.jsonl").rename(tmp_path / "moved.jsonl")
    assert [one.problem for one in find_failed(output, Retry()).sources] == [refused], "its row alone allows nothing"
    (tmp_path / "moved.jsonl").rename(tmp_path / "list.jsonl")
    assert [one.problem for one in find_failed(output, Retry(), ["bucket"]).sources] == [None]
    assert run("bucket") == [("split", "gs://bucket/up/a.mp4 is a text file (a web page?), not a video")]
    assert newest_run(pathlib.Path(output))["options"]["allow_buckets"] == ["bucket"]
    assert [row["video_id"] for row in read_table(output, "videos").to_pylist()] == ["mine"]


TOLD = {"video_id": "told", "uri": "gs://told/a.mp4", "outcome": "failed"}
OTHERS = [
    {"command": "watch", "input": ["pubsub://projects/p-test/subscriptions/uploads"]},
    {"command": "watch", "input": ["projects/p-test/subscriptions/uploads"], "inputs": [TOLD]},
    {"command": "curate", "input": ["/home/me/subscriptions/list.jsonl"]},
    {"command": "redrive", "input": ["gs://private/dataset"]},
]


def test_a_redrive_reads_no_more_of_a_manifest_for_what_another_run_was_told_or_wrote_to(gcs, tmp_path):
    (tmp_path / "list.jsonl").write_text(json.dumps(ROWS[1]))
    output = tmp_path / "out"
    curate([str(tmp_path / "list.jsonl")], str(output), load_config("lite"), JobOptions(beam_flags=FLAGS))
    for record in OTHERS:
        (output / "runs" / "20990101T000000-ffffff.json").write_text(json.dumps({"run_id": "2099", **record}))
        assert [one.problem for one in find_failed(str(output), Retry()).sources] == [REFUSED], record
    assert private_ones(gcs) == []
