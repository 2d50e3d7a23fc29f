"""The selector's choice, and what becomes of clips that cannot be scored."""

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to
from fakes import LengthSelector, make_clip

from transforms.records import Candidate, CaptionedClip, JudgedClip, Outcome
from transforms.scoring import Choice, JudgeCaptions, choose, judge


def captioned(number: int, *texts: str) -> CaptionedClip:
    candidates = tuple(Candidate(f"t{n}", "m", "r", "p", text, "f") for n, text in enumerate(texts))
    return CaptionedClip(make_clip(number), candidates, (), ())


@pytest.mark.parametrize(
    ("scores", "abstain_below", "expected"),
    [
        ([0.2, 0.5, 0.1], None, Choice(1, pytest.approx(0.3), False)),
        ([0.4], None, Choice(0, None, False)),
        ([0.4, 0.4], None, Choice(0, 0.0, False)),
        ([0.4, 0.6], 0.6, Choice(1, pytest.approx(0.2), False)),
        ([0.4, 0.5], 0.6, Choice(1, pytest.approx(0.1), True)),
        ([-0.3, -0.1], 0.0, Choice(1, pytest.approx(0.2), True)),
    ],
)
def test_the_highest_score_wins_and_the_first_of_equals(scores, abstain_below, expected):
    assert choose(scores, abstain_below) == expected


def told(judged: JudgedClip) -> tuple:
    letters = [(one.stage, one.teacher, one.error_class, one.message, one.span) for one in judged.dead_letters]
    return judged.captioned.clip.clip_id, judged.scores, judged.chosen, letters


def test_each_clip_comes_out_judged_or_failed_with_its_span():
    clips = [captioned(0, "short", "a longer one"), captioned(1, "x"), captioned(2)]
    expected = [
        ("v-0", (0.05, 0.12), 1, []),
        ("v-1", (), None, [("score", None, "ValueError", "cannot score v-1", clips[1].clip.span)]),
        ("v-2", (), None, [("caption", None, "NoCaption", "no teacher could caption this clip", clips[2].clip.span)]),
    ]
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
        judged = pipeline | beam.Create(clips) | JudgeCaptions(LengthSelector(fails_on=["v-1"])) | beam.Map(told)
        assert_that(judged, equal_to(expected))


@pytest.mark.parametrize("answer", [(0.1,), (0.1, float("nan")), None])
def test_scores_that_cannot_be_meant_fail_the_clip(answer):
    judged = judge(Outcome(captioned(0, "a", "b"), answer=answer))
    assert judged.chosen is None
    assert [letter.error_class for letter in judged.dead_letters] == ["BadScores"]


def test_the_same_words_of_two_teachers_score_the_same_and_the_first_teacher_has_them():
    judged = judge(Outcome(captioned(0, "a cat", "a dog", "a dog"), answer=[0.1, 0.5, 0.5 + 1e-7]))
    assert (judged.scores, judged.chosen, judged.margin) == ((0.1, 0.5, 0.5), 1, 0.0)
