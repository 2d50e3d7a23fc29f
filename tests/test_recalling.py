"""What of an earlier run still counts, and that a second run asks only for the rest."""

import dataclasses
import datetime
import json
import pathlib

import pytest
import yaml
from dataset_rows import FAILED_AT, failed_rows, failure_row, rejected_row, video_rows
from run_records import newest_run
from sameness import differences
from synthetic import make_video

from beam_pipeline.cli import main
from beam_pipeline.verify import verify
from transforms.committing import Committer
from transforms.reading import Source
from transforms.recalling import Memory, Retry, earlier_of, recall
from transforms.records import Answers, Candidate, DeadLetter, Earlier, EarlierClip, RejectedSpan, Span
from transforms.schemas import TABLES, VideoRows
from transforms.tables import read_table

AS_MADE = {"split": "s", "embed": "e", "captions": "c", "select": "l"}
SOURCE = Source("v", "/videos/v.mp4", etag="1")
CAPTIONS = (Candidate("lite-frame", "m", "1", "p", "a dog runs", "f"),)


def stood(rows: VideoRows) -> dict:
    return {name: list(rows.of(name)) for name in TABLES}


def letter(stage: str, **changes) -> DeadLetter:
    return DeadLetter(stage, "v", "/videos/v.mp4", "ValueError", "no", failed_at=FAILED_AT, **changes)


def lost_clip(stage: str = "score", **columns) -> VideoRows:
    """A video of two clips of which the first failed, having got a caption."""
    rows = video_rows("v")
    kept, lost = rows.clips[1], rows.clips[0]
    failure = failure_row(
        "v",
        "r1",
        stage,
        **{
            "clip_id": lost["clip_id"],
            "start_s": lost["start_s"],
            "end_s": lost["end_s"],
            "shots": lost["shots"],
            "embedding": lost["embedding"],
            "captions": [{**lost["captions"][0], "matching_score": None}],
            **columns,
        },
    )
    return dataclasses.replace(rows, clips=(kept,), failures=(failure,))


def test_an_unseen_video_and_one_of_another_version_are_taken_as_they_are():
    assert recall(SOURCE, None, AS_MADE, None) == SOURCE
    newer = dataclasses.replace(SOURCE, etag="2")
    assert recall(newer, stood(video_rows("v")), AS_MADE, None) == newer


def test_an_unchanged_video_is_dropped_whatever_failed_in_it():
    assert recall(SOURCE, stood(video_rows("v")), AS_MADE, None) is None
    assert recall(SOURCE, stood(failed_rows("v")), AS_MADE, None) is None


def test_a_changed_selection_keeps_clips_captions_and_what_they_measured_nothing_of():
    found = earlier_of(stood(video_rows("v", n_clips=1)), {**AS_MADE, "select": "new"})
    both = (CAPTIONS[0], dataclasses.replace(CAPTIONS[0], teacher="lite-text", text="not a dog runs"))
    teacher_failed = letter("caption", teacher="lite-text", span=Span(1.0, 9.0))
    clip = EarlierClip(Span(1.0, 9.0), (Span(1.0, 9.0),), (0.0, 1.0), Answers(both))
    trimmed = tuple(RejectedSpan("v", span, "trim", "trimmed", None, 0.1) for span in (Span(0.0, 1.0), Span(9.0, 10.0)))
    assert found == Earlier(clips=(clip,), rejected=trimmed, settled=(teacher_failed,), n_shots=1)


def test_a_video_of_which_every_span_was_rejected_keeps_what_rejected_them():
    rows = video_rows("v", n_clips=1)
    video = {**rows.video, "n_clips": 0, "n_failures": 0}
    rejected_only = VideoRows("v", video, rejected=rows.rejected)
    found = earlier_of(stood(rejected_only), {**AS_MADE, "captions": "new", "select": "new"})
    assert (found.clips, len(found.rejected)) == ((), 2)


def test_scores_and_measures_travel_with_what_they_were_made_with():
    made = video_rows("v", n_clips=1)
    (clip,) = made.clips
    noted = [{"name": "blur", "fingerprint": "b1"}, {"name": "select", "fingerprint": "s1"}]
    rows = stood(dataclasses.replace(made, clips=({**clip, "blur": 0.5, "made_with": noted},)))
    answers = earlier_of(rows, {**AS_MADE, "select": "new"}).clips[0].answers
    assert (answers.scores, answers.values["blur"]) == ((0.75, 0.25), 0.5)
    assert answers.made_with == {"blur": "b1", "select": "s1"}


@pytest.mark.parametrize(("select", "scores"), [(AS_MADE["select"], (0.75, 0.25)), ("new", ())])
def test_scores_of_before_there_was_such_a_note_count_while_nothing_has_changed(select, scores):
    rows = stood(video_rows("v", n_clips=1))
    answers = earlier_of(rows, {**AS_MADE, "select": select}, Retry(stages=frozenset({"caption"}))).clips[0].answers
    assert (answers.scores, answers.made_with) == (scores, {})


def test_a_clip_that_a_filter_dropped_is_a_clip_again_and_no_rejected_span():
    made = video_rows("v", n_clips=2)
    clip = made.clips[1]
    so_far = {name: clip[name] for name in ("clip_id", "shots", "embedding", "captions")}
    span = rejected_row("v", "r1", clip["start_s"], clip["end_s"], "filter")
    noted = [{"name": "blur", "fingerprint": "b1"}]
    dropped = {**span, **so_far, "blur": 0.75, "made_with": noted}
    video = {**made.video, "n_clips": 1, "n_rejected": 5}
    rows = stood(dataclasses.replace(made, video=video, clips=made.clips[:1], rejected=(*made.rejected, dropped)))
    found = earlier_of(rows, {**AS_MADE, "select": "new"})
    assert [one.span for one in found.clips] == [Span(1.0, 9.0), Span(11.0, 19.0)]
    assert len(found.rejected) == 4
    answers = found.clips[1].answers
    assert ([one.text for one in answers.candidates], answers.scores) == (["a dog runs", "not a dog runs"], ())
    assert (answers.values["blur"], answers.made_with) == (0.75, {"blur": "b1"})


@pytest.mark.parametrize("stage", ["split", "embed"])
def test_a_changed_stage_leaves_nothing_of_the_stages_after_it(stage):
    later = {"split": AS_MADE.keys(), "embed": AS_MADE.keys() - {"split"}}[stage]
    found = earlier_of(stood(video_rows("v")), {**AS_MADE, **dict.fromkeys(later, "new")})
    assert (found.clips, found.rejected) == (None, ())


def test_a_failed_clip_goes_on_from_what_it_had_come_to():
    found = earlier_of(stood(lost_clip()), AS_MADE, Retry(stages=frozenset({"score"})))
    assert [clip.span for clip in found.clips] == [Span(1.0, 9.0), Span(11.0, 19.0)]
    assert found.clips[0].answers == Answers(CAPTIONS)  # None is measured.
    assert found.clips[1].answers.scores == (0.75, 0.25)
    assert [(one.stage, one.attempt) for one in found.retried] == [("score", 1)]


def test_a_failed_clip_that_nobody_retries_stays_failed():
    found = earlier_of(stood(lost_clip()), AS_MADE, Retry(stages=frozenset({"measure"})))
    assert [one.stage for one in found.clips[0].answers.failures] == ["score"]
    assert found.retried == ()


def test_a_failed_clip_of_before_there_were_such_columns_is_embedded_again():
    old = lost_clip(shots=None, embedding=None, captions=None)
    assert earlier_of(stood(old), AS_MADE, Retry()).clips is None


def test_work_that_failed_before_there_were_clips_is_done_from_there():
    rows = video_rows("v")
    damaged = dataclasses.replace(rows, failures=(failure_row("v", "r1", "split", start_s=1.0, end_s=2.0),))
    found = earlier_of(stood(damaged), AS_MADE, Retry())
    assert (found.clips, found.split_again) == (None, True)
    untouched = earlier_of(stood(damaged), {**AS_MADE, "captions": "new", "select": "new"})
    assert (len(untouched.clips), untouched.split_again) == (2, False)


def test_attempts_are_counted_and_letters_that_stand_stay_as_they_were():
    before = letter("score", clip_id="v_1000_9000", attempt=3)
    again = dataclasses.replace(before, attempt=1, message="still no", failed_at=FAILED_AT + datetime.timedelta(1))
    assert Earlier(retried=(before,)).numbered(again) == dataclasses.replace(again, attempt=4)
    assert Earlier(settled=(before,)).numbered(dataclasses.replace(again, message="no")) == before
    assert Earlier(settled=(before,)).numbered(again) == dataclasses.replace(again, attempt=3)
    assert Earlier(settled=(before,)).numbered(letter("score", clip_id="other")) == letter("score", clip_id="other")


@pytest.mark.parametrize(
    ("retry", "covered"),
    [
        (Retry(), True),
        (Retry(stages=frozenset({"caption"})), False),
        (Retry(classes=frozenset({"ValueError"})), True),
        (Retry(failed_before=FAILED_AT), True),
        (Retry(failed_before=FAILED_AT - datetime.timedelta(seconds=1)), False),
    ],
)
def test_a_retry_covers_by_stage_class_and_age(retry, covered):
    assert retry.covers(letter("score")) is covered


def test_a_memory_reads_what_stands_now_and_only_that(tmp_path):
    memory = Memory(str(tmp_path))
    assert memory.rows_of(["a"]) == {}
    committer = Committer(tmp_path)
    committer.commit([video_rows("a", "r1", caption="old"), video_rows("b", "r1")])
    assert memory.rows_of(["a", "z"])["a"]["clips"][0]["caption"] == "old"
    committer.commit([video_rows("a", "r2", n_clips=3, caption="new", etag="2")])
    found = memory.rows_of(["a", "b"])
    assert [row["caption"] for row in found["a"]["clips"]] == ["new"] * 3
    assert {name: len(rows) for name, rows in found["b"].items()} == {
        "clips": 2,
        "rejected": 4,
        "failures": 1,
        "videos": 1,
    }


def curate(folder: pathlib.Path, **config) -> dict:
    """Curate with these changes to the configuration; the record of the run."""
    path = folder / "config.yaml"
    stitching = {"still_distance": None, "redundant_distance": None, "min_event_s": 1.0}
    path.write_text(yaml.safe_dump({"extends": "lite", "stitching": stitching, **config}))
    arguments = ["--input", str(folder / "in"), "--output", str(folder / "out"), "--config", str(path)]
    assert main(["curate", *arguments]) == 0
    return newest_run(folder / "out")


def asked(run: dict) -> dict[str, int]:
    """What models were asked for in a run, and what was there already."""
    names = ["split reels_reused", "caption captions", "caption reused", "score clips", "score reused"]
    return {name: run["counts"].get(name, 0) for name in names}


@pytest.fixture
def uploads(tmp_path):
    (tmp_path / "in").mkdir()
    make_video(tmp_path / "in" / "a.mp4", shots=[(3.0, "red"), (3.0, "blue")], drift_px=3)
    make_video(tmp_path / "in" / "b.mp4", shots=[(3.0, "green")], drift_px=3)
    return tmp_path


def test_an_added_teacher_costs_that_teacher_and_the_selection(uploads):
    two, three = ["lite-frame", "lite-motion"], ["lite-frame", "lite-motion", "lite-frames"]
    assert asked(curate(uploads, teachers=two)) == {
        "split reels_reused": 0,
        "caption captions": 6,
        "caption reused": 0,
        "score clips": 3,
        "score reused": 0,
    }
    run = curate(uploads, teachers=three)
    assert asked(run) == {
        "split reels_reused": 2,
        "caption captions": 3,
        "caption reused": 6,
        "score clips": 3,
        "score reused": 0,
    }
    assert "embed" not in run["seconds"]
    assert verify(uploads / "out") == []
    (uploads / "out").rename(uploads / "grown")
    curate(uploads, teachers=three)
    assert differences(uploads / "grown", uploads / "out") == []


def test_a_title_that_comes_late_costs_the_captions_and_not_the_splitting(uploads):
    curate(uploads, teachers=["lite-frame", "lite-text"])
    (uploads / "in" / "b.json").write_text(json.dumps({"title": "A green field"}))
    assert asked(curate(uploads, teachers=["lite-frame", "lite-text"])) == {
        "split reels_reused": 1,
        "caption captions": 2,
        "caption reused": 0,
        "score clips": 1,
        "score reused": 0,
    }
    clips = read_table(uploads / "out", "clips").sort_by("clip_id")
    assert clips["title"].to_pylist() == [None, None, "A green field"]
    assert verify(uploads / "out") == []
