"""Joins that complete by count, on the runner that the product uses."""

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing import test_pipeline, test_stream
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import TimestampedValue
from fakes import MEDIA, EchoTeacher, Model, make_clip

from model_handlers.base import ElementwiseHandler
from transforms.captioning import CaptionClips, Teacher
from transforms.embedding import EmbedShots
from transforms.joining import JoinByCount, Joined, Part, Whole
from transforms.records import (
    Candidate,
    CaptionedClip,
    JudgedClip,
    MeasuredClip,
    Shot,
    SplitVideo,
    StitchedVideo,
    Video,
)
from transforms.rows import AssembleVideos

EMBEDDED = ["--runner=FnApiRunner"]
THREADS = [*EMBEDDED, "--direct_running_mode=multi_threading", "--direct_num_workers=2"]


def expected_parts(whole: tuple[str, int]) -> int:
    return whole[1]


def as_plain(joined: Joined) -> tuple:
    return joined.whole[0], sorted(joined.parts), joined.missing


@pytest.mark.parametrize("flags", [EMBEDDED, THREADS])
def test_every_whole_meets_its_parts_in_whatever_order_they_come(flags):
    keyed = [(f"k{i}", Part(n)) for n in range(3) for i in range(20)]
    keyed += [(f"k{i}", Whole((f"w{i}", 3))) for i in range(20)]
    with beam.Pipeline(options=PipelineOptions(flags)) as pipeline:
        joined = pipeline | beam.Create(keyed) | JoinByCount("test", expected_parts) | beam.Map(as_plain)
        assert_that(joined, equal_to([(f"w{i}", [0, 1, 2], 0) for i in range(20)]))


def test_a_whole_without_parts_is_complete_at_once():
    with beam.Pipeline(options=PipelineOptions(EMBEDDED)) as pipeline:
        joined = (
            pipeline | beam.Create([("k", Whole(("w", 0)))]) | JoinByCount("test", expected_parts) | beam.Map(as_plain)
        )
        assert_that(joined, equal_to([("w", [], 0)]))


def test_parts_that_got_lost_are_counted_and_hold_back_nothing():
    keyed = [("a", Whole(("a", 2))), ("a", Part(1)), ("b", Whole(("b", 1))), ("b", Part(5))]
    with beam.Pipeline(options=PipelineOptions(EMBEDDED)) as pipeline:
        joined = pipeline | beam.Create(keyed) | JoinByCount("test", expected_parts) | beam.Map(as_plain)
        assert_that(joined, equal_to([("a", [1], 1), ("b", [5], 0)]))


def test_joins_of_one_pipeline_do_not_read_each_others_timers():
    """Keys of different kinds and lengths: with one timer name they end in each other's decoder."""
    first = [(f"video-{i}", Whole((f"video-{i}", 1))) for i in range(5)] + [(f"video-{i}", Part(i)) for i in range(5)]
    with beam.Pipeline(options=PipelineOptions(EMBEDDED)) as pipeline:
        videos = pipeline | beam.Create(first) | "Videos" >> JoinByCount("videos", expected_parts)
        clips = videos | "Clips" >> beam.FlatMap(lambda joined: [("c", Whole(("c", 6))), ("c", Part(joined.parts[0]))])
        joined = clips | "Join clips" >> JoinByCount("clips", expected_parts) | beam.Map(as_plain)
        assert_that(joined, equal_to([("c", [0, 1, 2, 3, 4], 1)]))


EMITTED: list[str] = []


def note(joined: Joined) -> tuple:
    EMITTED.append(joined.whole[0])
    return as_plain(joined)


def test_in_a_stream_a_complete_group_comes_out_at_once_and_waits_for_no_slow_one():
    EMITTED.clear()
    stream = (
        test_stream.TestStream()
        .advance_watermark_to(0)
        .add_elements([TimestampedValue(("slow", Whole(("slow", 1))), 100)])
        .add_elements([TimestampedValue(("fast", Whole(("fast", 1))), 10)])
        .add_elements([TimestampedValue(("fast", Part(1)), 10)])
        .advance_watermark_to(50)
        .add_elements([TimestampedValue(("later", Whole(("later", 0))), 60)])
        .advance_watermark_to(90)
        .add_elements([TimestampedValue(("slow", Part(2)), 100)])
        .advance_watermark_to_infinity()
    )
    with test_pipeline.TestPipeline(options=PipelineOptions(["--streaming"])) as pipeline:
        joined = pipeline | stream | JoinByCount("test", expected_parts) | beam.Map(note)
        assert_that(joined, equal_to([("fast", [1], 0), ("later", [], 0), ("slow", [2], 0)]))
    assert EMITTED == ["fast", "later", "slow"]


def test_in_a_stream_lost_parts_are_given_up_once_the_watermark_has_passed():
    stream = (
        test_stream.TestStream()
        .advance_watermark_to(0)
        .add_elements([TimestampedValue(("a", Whole(("a", 2))), 10)])
        .add_elements([TimestampedValue(("a", Part(1)), 10)])
        .advance_watermark_to(60)
        .add_elements([TimestampedValue(("b", Whole(("b", 0))), 70)])
        .advance_watermark_to_infinity()
    )
    with test_pipeline.TestPipeline(options=PipelineOptions(["--streaming"])) as pipeline:
        joined = pipeline | stream | JoinByCount("test", expected_parts) | beam.Map(as_plain)
        assert_that(joined, equal_to([("a", [1], 1), ("b", [], 0)]))


VERSIONS = [
    Video("v", "/videos/v.mp4", etag, 1, text_version=text) for etag, text in (("1", "a"), ("1", "b"), ("2", "b"))
]


def split_of(video: Video) -> SplitVideo:
    """As many shots as the video is old, each of its version."""
    shots = tuple(Shot(n, n, n + 1, float(n), n + 1.0, float(n), n + 0.5) for n in range(1 + int(video.etag)))
    return SplitVideo(video, MEDIA, shots, f"/reels/{video.version}.arrow")


class ReelEmbedder(ElementwiseHandler):
    """Says of which reel a shot is."""

    def load(self):
        return Model()

    def answer(self, requests, model):
        return [((float(place), 0.0),) * 2 for place in (self._place(request.reel) for request in requests)]

    def _place(self, reel):
        return [f"/reels/{video.version}.arrow" for video in VERSIONS].index(reel)


def test_versions_of_a_video_that_are_under_way_at_once_keep_their_shots_apart():
    with beam.Pipeline(options=PipelineOptions(EMBEDDED)) as pipeline:
        embedded = pipeline | beam.Create([split_of(video) for video in VERSIONS]) | EmbedShots(ReelEmbedder("reel"))
        told = embedded | "Told" >> beam.MapTuple(
            lambda split, features: (split.video.version, [features[shot.index].first[0] for shot in split.shots])
        )
        assert_that(told, equal_to([("1 a", [0.0] * 2), ("1 b", [1.0] * 2), ("2 b", [2.0] * 3)]))


def test_versions_of_a_video_that_are_under_way_at_once_keep_their_captions_apart():
    """Clips of one name: with other words beside them, or of another version that changed nothing for them."""
    clips = [
        make_clip(0, title=title, fingerprint=title, version=version)
        for title, version in (("first", "1 a"), ("second", "1 b"), ("second", "2 b"))
    ]
    teachers = [Teacher(name, EchoTeacher(name)) for name in ("one", "two", "three")]
    expected = {clip.version: [teacher.request_fingerprint(clip) for teacher in teachers] for clip in clips}
    with beam.Pipeline(options=PipelineOptions(EMBEDDED)) as pipeline:
        captioned = pipeline | beam.Create(clips) | CaptionClips(teachers)
        told = captioned | "Told" >> beam.Map(
            lambda one: (one.clip.version, [candidate.fingerprint for candidate in one.candidates])
        )
        assert_that(told, equal_to(list(expected.items())))


def test_versions_of_a_video_that_are_under_way_at_once_keep_their_clips_and_measurements_apart():
    stitched, judged, measured = [], [], []
    for place, video in enumerate(VERSIONS):
        clips = tuple(make_clip(n, version=video.version) for n in range(2))
        stitched.append(StitchedVideo(split_of(video), clips, ((1.0,),) * 2, (), ()))
        for clip in clips:
            candidate = Candidate("one", "m", "r", "p", video.version, "f")
            judged.append(JudgedClip(CaptionedClip(clip, (candidate,), (), ()), (0.5,), 0, None, False, ()))
            measured.append(MeasuredClip(clip, {"blur": place / 4}))
    prints = dict.fromkeys(("split", "embed", "captions", "select"), "x")
    with beam.Pipeline(options=PipelineOptions(EMBEDDED)) as pipeline:
        parts = [
            pipeline | f"Create {name}" >> beam.Create(records)
            for name, records in (("stitched", stitched), ("judged", judged), ("measured", measured))
        ]
        rows = tuple(parts) | AssembleVideos("run", lambda video: prints)
        told = rows | "Told" >> beam.Map(
            lambda one: (one.video["etag"], [(row["caption"], row["blur"]) for row in one.clips])
        )
        expected = [("1", [("1 a", 0.0)] * 2), ("1", [("1 b", 0.25)] * 2), ("2", [("2 b", 0.5)] * 2)]
        assert_that(told, equal_to(expected))
