"""The rows of a video, exactly, for good output and for everything that can go wrong."""

import dataclasses
import datetime

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to
from fakes import MEDIA, make_clip

from transforms.measure_columns import measured_row
from transforms.records import (
    Candidate,
    CaptionedClip,
    DeadLetter,
    FailedVideo,
    JudgedClip,
    RejectedSpan,
    Shot,
    Span,
    SplitVideo,
    StitchedVideo,
    Video,
)
from transforms.rows import AssembleVideos, failed_video_rows, video_rows
from transforms.schemas import CLIPS, FAILURES, REJECTED, VIDEOS, rows_to_table
from transforms.timecodes import timecode

FINGERPRINTS = {"split": "s", "embed": "e", "captions": "c", "select": "x"}
WHEN = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
VIDEO = Video("v", "/videos/v.mp4", "10-1", 10, title="A title", description="About.")
SHOTS = (Shot(0, 0, 100, 0.0, 4.0, 0.2, 3.8), Shot(1, 100, 200, 4.0, 8.0, 4.2, 7.8))


def letter(stage: str, **changes: object) -> DeadLetter:
    return DeadLetter(stage, "v", "/videos/v.mp4", "ValueError", "wrong", failed_at=WHEN, **changes)


def stitched(clips=(), rejected=(), letters=(), video=VIDEO, **split: object) -> StitchedVideo:
    whole = SplitVideo(video, MEDIA, SHOTS, "/reels/v.arrow", **split)
    return StitchedVideo(whole, tuple(clips), tuple((1.0, 0.0) for _ in clips), tuple(rejected), tuple(letters))


def judged(clip, letters=(), failed=False) -> JudgedClip:
    candidates = (Candidate("a", "m", "r", "p", "One.", "fa"), Candidate("b", "m", "r", "p", "Two.", "fb"))
    captioned = CaptionedClip(clip, candidates, (), ())
    if failed:
        return JudgedClip(captioned, (), None, None, False, tuple(letters))
    return JudgedClip(captioned, (0.25, 0.75), 1, 0.5, False, tuple(letters), made_with="s")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.0, "0:00:00.000"), (15.982, "0:00:15.982"), (3723.5, "1:02:03.500"), (90_061.0005, "25:01:01.000")],
)
def test_timecodes_have_milliseconds_and_go_past_24_hours(seconds, expected):
    assert timecode(seconds) == expected


def test_a_clip_becomes_the_row_that_the_contract_names():
    clip = make_clip(0, title="A title", subtitles="Hello.")
    rows = video_rows(stitched([clip]), [judged(clip)], "run", FINGERPRINTS)
    assert rows.clips == (
        {
            "clip_id": "v-0",
            "video_id": "v",
            "uri": "/videos/v.mp4",
            "title": "A title",
            "start_s": 0.0,
            "end_s": 4.0,
            "duration_s": 4.0,
            "timestamp": ["0:00:00.000", "0:00:04.000"],
            "width": 320,
            "height": 180,
            "fps": 25.0,
            "caption": "Two.",
            "teacher": "b",
            "matching_score": 0.75,
            "margin": 0.5,
            "abstained": False,
            "captions": [
                {
                    "teacher": name,
                    "model": "m",
                    "revision": "r",
                    "prompt_id": "p",
                    "caption": text,
                    "matching_score": score,
                    "fingerprint": f"f{name}",
                }
                for name, text, score in (("a", "One.", 0.25), ("b", "Two.", 0.75))
            ],
            "subtitles": "Hello.",
            "embedding": [1.0, 0.0],
            "shots": [{"start_s": 0.0, "end_s": 4.0}],
            "run_id": "run",
            "fingerprint": "x",
            "schema_version": 1,
            "clip_file": None,
            "made_with": [{"name": "select", "fingerprint": "s"}],
            **measured_row({}),
            "caption_language": None,
            "harmful_text": None,
            "duplicate_of": None,
            "duplicate_distance": None,
        },
    )
    assert rows_to_table(rows.clips, CLIPS).num_rows == 1


def test_a_videos_row_counts_what_came_of_it():
    clip, gone = make_clip(0), RejectedSpan("v", Span(4.0, 8.0), "still", "nothing changes", 0.1, 0.2)
    rows = video_rows(stitched([clip], [gone]), [judged(clip, [letter("caption", teacher="a")])], "run", FINGERPRINTS)
    assert rows.video == {
        "video_id": "v",
        "uri": "/videos/v.mp4",
        "title": "A title",
        "description": "About.",
        "size_bytes": 10,
        "etag": "10-1",
        "duration_s": 60.0,
        "width": 320,
        "height": 180,
        "fps": 25.0,
        "codec": "h264",
        "n_shots": 2,
        "n_clips": 1,
        "n_rejected": 1,
        "n_failures": 1,
        "status": "ok",
        "fingerprints": FINGERPRINTS,
        "run_id": "run",
        "content_hash": None,
        "duplicate_of": None,
    }
    assert rows.rejected == (
        {
            "video_id": "v",
            "start_s": 4.0,
            "end_s": 8.0,
            "stage": "still",
            "reason": "nothing changes",
            "value": 0.1,
            "threshold": 0.2,
            "run_id": "run",
            **dict.fromkeys(("clip_id", "shots", "embedding", "captions", "made_with")),
            **measured_row({}),
        },
    )
    assert rows_to_table([rows.video], VIDEOS).num_rows == rows_to_table(rows.rejected, REJECTED).num_rows == 1


def test_a_dead_letter_becomes_the_row_that_the_contract_names():
    rows = failed_video_rows(
        FailedVideo(VIDEO, letter("split", span=Span(1.0, 2.0), detail="trace")), "run", FINGERPRINTS
    )
    assert rows.failures == (
        {
            "stage": "split",
            "video_id": "v",
            "clip_id": None,
            "teacher": None,
            "uri": "/videos/v.mp4",
            "start_s": 1.0,
            "end_s": 2.0,
            "error_class": "ValueError",
            "message": "wrong",
            "detail": "trace",
            "attempt": 1,
            "failed_at": WHEN,
            **dict.fromkeys(["fingerprint", "shots", "embedding", "captions"]),
            "run_id": "run",
        },
    )
    assert (rows.video["status"], rows.video["n_failures"], rows.video["duration_s"]) == ("failed", 1, None)
    assert rows_to_table(rows.failures, FAILURES).num_rows == rows_to_table([rows.video], VIDEOS).num_rows == 1


CLIP = make_clip(0)
SPAN_LETTER = letter("score", clip_id="v-0", span=CLIP.span)


@pytest.mark.parametrize(
    ("whole", "found", "status"),
    [
        (stitched([CLIP]), [judged(CLIP)], "ok"),
        (stitched([CLIP]), [judged(CLIP, [letter("caption", teacher="a", clip_id="v-0")])], "ok"),
        (stitched([CLIP], damage="stops early", damage_span=Span(8, 9)), [judged(CLIP)], "partial"),
        (stitched([CLIP], letters=[letter("embed", span=Span(4, 8))]), [judged(CLIP)], "partial"),
        (
            stitched([CLIP], video=dataclasses.replace(VIDEO, text_failures=(letter("read"),))),
            [judged(CLIP)],
            "partial",
        ),
        (stitched([CLIP]), [judged(CLIP, [SPAN_LETTER], failed=True)], "failed"),
        (stitched([]), [], "ok"),
    ],
)
def test_the_status_says_whether_anything_but_a_teacher_failed(whole, found, status):
    assert video_rows(whole, found, "run", FINGERPRINTS).video["status"] == status


def test_a_clip_that_got_lost_on_the_way_is_a_failed_span():
    rows = video_rows(stitched([make_clip(0), make_clip(1)]), [judged(make_clip(0))], "run", FINGERPRINTS)
    assert [(row["stage"], row["clip_id"], row["start_s"], row["end_s"]) for row in rows.failures] == [
        ("select", "v-1", 10.0, 14.0)
    ]
    assert rows.video["status"] == "partial"


def test_every_stitched_video_is_assembled_once_its_clips_are_in():
    made = [make_clip(n, version=VIDEO.version) for n in range(3)]
    wholes = [stitched(made), stitched(video=dataclasses.replace(VIDEO, video_id="empty"))]
    clips = [judged(made[n]) for n in (2, 0, 1)]
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
        parts = pipeline | "w" >> beam.Create(wholes), pipeline | "c" >> beam.Create(clips)
        rows = parts | AssembleVideos("run", lambda video: FINGERPRINTS)
        told = rows | beam.Map(lambda one: (one.video_id, [row["clip_id"] for row in one.clips]))
        assert_that(told, equal_to([("v", ["v-0", "v-1", "v-2"]), ("empty", [])]))
