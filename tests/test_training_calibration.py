"""Scores made probabilities, and the score below which all captions are bad: fits, figures, and what is not learned."""

import dataclasses
import json

import numpy as np
import pytest
from fakes import make_clip

from beam_pipeline.evaluate_reliability import Bin, Reliability, diagram, reliability
from beam_pipeline.training.calibration import MIN_ALL_BAD, Seen, calibrate, finish, threshold
from beam_pipeline.training.trainable import Example
from model_handlers.trained import Calibration, Trained, logit
from transforms.records import Clip

CAPTIONS = ("a dog", "a cat", "a boat", "rain")


def clip_of(number: int, source: int) -> Clip:
    return dataclasses.replace(make_clip(number), video_id=f"v{source}")


def example(number: int, chosen: int | None, source: int | None = None) -> Example:
    good = frozenset() if chosen is None else frozenset({chosen})
    return Example(clip_of(number, number // 4 if source is None else source), CAPTIONS, chosen, good)


def drawn(clips: int, scale: float = 40.0, shift: float = -14.0, seed: int = 0):
    """Scores like CLIP's cosines, of which a known logistic curve makes what people find; at most one is chosen."""
    dice = np.random.default_rng(seed)
    scores, examples = [], []
    for number in range(clips):
        mine = dice.normal(0.28, 0.04, len(CAPTIONS))
        good = np.flatnonzero(dice.random(len(CAPTIONS)) < 1 / (1 + np.exp(-(scale * mine + shift))))
        scores.append(tuple(map(float, mine)))
        examples.append(
            Example(
                clip_of(number, number // 4), CAPTIONS, int(good[0]) if len(good) else None, frozenset(map(int, good))
            )
        )
    return scores, examples


def test_a_temperature_finds_the_curve_that_made_the_judgements():
    scores, examples = drawn(1500)
    found = calibrate(scores, examples)
    assert (found.kind, found.of) == ("temperature", "score")
    assert (found.scale, found.shift) == (pytest.approx(40.0, abs=5.0), pytest.approx(-14.0, abs=1.5))
    assert found.probability(0.35) == pytest.approx(0.5, abs=0.05)


def test_a_score_that_is_an_overconfident_probability_is_calibrated_on_its_logit():
    dice = np.random.default_rng(1)
    true = dice.normal(-1.0, 1.5, (1500, 4))
    told = 1 / (1 + np.exp(-3 * true))
    good = dice.random(true.shape) < 1 / (1 + np.exp(-true))
    examples = [
        Example(
            clip_of(n, n // 4),
            CAPTIONS,
            int(row.argmax()) if row.any() else None,
            frozenset(np.flatnonzero(row).tolist()),
        )
        for n, row in enumerate(good)
    ]
    found = calibrate([tuple(map(float, row)) for row in told], examples)
    assert found.of == "logit"
    assert (found.scale, found.shift) == (pytest.approx(1 / 3, abs=0.04), pytest.approx(0.0, abs=0.1))


@pytest.mark.parametrize("kind", ["temperature", "isotonic"])
def test_no_choice_changes_and_the_order_of_close_scores_stays(kind):
    scores, examples = drawn(300)
    found = calibrate(scores, examples, kind)
    for row in scores:
        said = [found.probability(score) for score in row]
        assert np.argsort(said).tolist() == np.argsort(row).tolist()
    line = np.linspace(-1.0, 1.0, 4001)
    assert found.of == "score"
    said = np.array([found.probability(float(score)) for score in line])
    assert (np.diff(said) > 0).all() and said.min() >= 0 and said.max() <= 1


def test_clips_that_could_not_be_read_are_left_out():
    scores, examples = drawn(60)
    whole = calibrate(scores[:40], examples[:40])
    assert calibrate([*scores[:40], *[None] * 20], examples) == whole


def test_the_best_of_several_good_captions_is_not_the_only_one_that_counts():
    scores, every = drawn(800)
    single = [Example(one.clip, one.captions, one.chosen, frozenset()) for one in every]
    shares = [calibrate(scores, examples).probability(0.32) for examples in (every, single)]
    assert shares[0] > shares[1] + 0.03


def test_figures_of_held_out_sources_show_what_calibration_mends():
    scores, examples = drawn(800)
    told = finish(scores, examples)["metrics"]["calibration"]["captions"]
    assert told["after"]["ece"] < 0.03 < 0.1 < told["before"]["ece"]
    assert told["after"]["brier"] < told["before"]["brier"]


def test_a_curve_is_judged_by_sources_that_it_was_not_fitted_to():
    # Each source's clips are copies: an isotonic curve knows them by heart, and is no good for others.
    dice = np.random.default_rng(4)
    scores, examples = [], []
    for source in range(40):
        mine, chosen = tuple(map(float, dice.random(4))), int(dice.integers(4))
        for copy in range(3):
            scores.append(mine)
            examples.append(example(source * 3 + copy, chosen, source))
    seen = Seen.of(scores, examples)
    curve = calibrate(scores, examples, "isotonic")
    flattering = reliability(np.array([curve.probability(one) for one in seen.scores]), seen.good)
    told = finish(scores, examples, "isotonic")["metrics"]["calibration"]["captions"]["after"]
    assert flattering.brier < 0.1875 < told["brier"]


def test_the_threshold_has_the_highest_f1_and_of_equals_is_the_lowest():
    best, bad = np.array([0.1, 0.2, 0.3, 0.4, 0.5]), np.array([True, True, False, True, False])
    # Below .2: F1 2/4, below .3: 4/5, below .4: 4/6, below .5: 6/7.
    assert threshold(best, bad) == pytest.approx(0.45)
    # One of two, or one of one: below .15 2 * 1 / (1 + 2), below .35 2 * 2 / (4 + 2), the same.
    assert threshold(np.array([0.1, 0.2, 0.3, 0.4, 0.5]), np.array([True, False, False, True, False])) == pytest.approx(
        0.15
    )
    assert threshold(np.array([0.5, 0.5]), np.array([True, False])) is None
    assert threshold(np.array([0.1, 0.5]), np.array([False, False])) is None


def bad_and_good(bad: int, good: int, overlap: float = 0.0):
    """Clips whose best caption scores 0.2 where all are bad and 0.6 where one is good, less or more by the overlap."""
    dice = np.random.default_rng(2)
    scores, examples = [], []
    for number in range(bad + good):
        is_bad = number % (bad + good) < bad
        top = (0.2 if is_bad else 0.6) + overlap * float(dice.normal())
        scores.append((top, 0.1, 0.05, 0.0))
        examples.append(example(number, None if is_bad else 0, number % 10))
    return scores, examples


def test_the_threshold_parts_all_bad_clips_from_others_and_is_of_calibrated_scores():
    scores, examples = bad_and_good(30, 90, 0.05)
    told = finish(scores, examples)
    curve = Calibration.of_json(told["calibration"])
    assert curve.probability(0.3) < told["abstain_below"] < curve.probability(0.5)
    assert told["metrics"]["all_bad"]["precision"] > 0.9 and told["metrics"]["all_bad"]["recall"] > 0.9
    assert (told["metrics"]["all_bad"]["clips"], told["metrics"]["all_bad"]["of"]) == (30, 120)
    raw = finish(scores, examples, "none")
    assert raw["calibration"] is None and 0.3 < raw["abstain_below"] < 0.5


def test_with_few_all_bad_clips_no_threshold_is_learned_and_that_is_said():
    told = finish(*bad_and_good(MIN_ALL_BAD - 1, 90))
    assert told["abstain_below"] is None
    assert told["metrics"]["notes"] == [
        "abstain_below was not learned: people found all captions bad of 19 validation clips; 20 are needed"
    ]


def test_a_threshold_that_is_no_better_than_calling_all_clips_bad_is_not_kept():
    dice = np.random.default_rng(5)
    chosen = [None if number % 2 else 0 for number in range(200)]
    scores = [tuple(map(float, dice.random(4))) for _ in chosen]
    examples = [example(number, one) for number, one in enumerate(chosen)]
    told = finish(scores, examples, "none")
    assert told["abstain_below"] is None
    assert told["metrics"]["all_bad"]["f1"] == pytest.approx(2 * 100 / 300, abs=0.02)
    assert told["metrics"]["notes"][-1].endswith("no score tells all-bad clips better than calling all so")


@pytest.mark.parametrize("kind", ["temperature", "isotonic"])
def test_scores_that_fall_where_people_choose_are_left_as_they_are(kind):
    scores = [(0.1, 0.5, 0.6, 0.7)] * 30
    told = finish(scores, [example(number, 0) for number in range(30)], kind)
    assert told["calibration"] is None
    assert "scores were not calibrated: captions that people found good do not score higher" in told["metrics"]["notes"]


def test_many_sources_that_hardly_teach_a_curve_are_not_said_to_be_few():
    dice = np.random.default_rng(0)
    chosen = [None if number % 2 else int(dice.integers(4)) for number in range(60)]
    scores = [tuple(map(float, dice.random(4))) for _ in chosen]
    told = finish(scores, [example(number, one, source=number) for number, one in enumerate(chosen)])
    why = "without one of the fifths of their sources captions that people found good do not score higher"
    assert told["metrics"]["notes"] == [
        f"nothing is told of clips that were held out: {why}",
        f"abstain_below was not learned: {why}",
    ]


@pytest.mark.parametrize(
    ("scores", "chosen"), [([(0.1, 0.1, 0.1, 0.1)], 0), ([(0.1, 0.2, 0.3, 0.4)], None), ([], None)]
)
def test_what_cannot_be_told_apart_is_not_calibrated(scores, chosen):
    examples = [example(number, chosen) for number in range(len(scores))]
    told = finish(scores, examples)
    assert (told["calibration"], told["abstain_below"]) == (None, None)
    assert (
        "nothing is told of clips that were held out: the validation clips are of too few sources"
        in told["metrics"]["notes"]
    )


def test_what_is_learned_is_the_same_each_time_and_read_by_the_handlers():
    scores, examples = drawn(200)
    for kind in ("temperature", "isotonic"):
        first, second = (json.dumps(finish(scores, examples, kind)) for _ in range(2))
        assert first == second
        told = json.loads(first)
        read = Trained.of_json({"schema_version": 1, "selector": "clip-vit-h", **told})
        assert read.calibration == calibrate(scores, examples, kind)


@pytest.mark.parametrize(
    ("scores", "kind", "told"),
    [
        ([(0.1, 0.2)], "temperature", "a score for each caption"),
        ([(0.1, 0.2, 0.3, float("nan"))], "temperature", "the training has diverged"),
        (
            [(0.1, 0.2, 0.3, 0.4)],
            "isotone",
            "there is no calibration 'isotone'; take one of temperature, isotonic, none",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(scores, kind, told):
    with pytest.raises(ValueError, match=told):
        calibrate(scores, [example(0, 1)], kind)


def test_calibration_error_and_brier_score_are_those_of_scikit_learn():
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import brier_score_loss

    dice = np.random.default_rng(3)
    said = dice.random(5000)
    good = (dice.random(5000) < said**2).astype(float)
    found = reliability(said, good)
    shares, means = calibration_curve(good, said, n_bins=10, strategy="quantile")
    assert [one.found for one in found.bins] == pytest.approx(shares.tolist())
    assert [one.said for one in found.bins] == pytest.approx(means.tolist())
    assert found.ece == pytest.approx(np.mean(np.abs(shares - means)))
    assert found.brier == pytest.approx(brier_score_loss(good, said))


def test_equal_scores_share_a_bin_and_scores_beyond_probabilities_have_no_figures():
    assert reliability(np.full(4, 0.25), np.array([1, 0, 0, 0])) == Reliability(4, 0.0, 0.1875, (Bin(4, 0.25, 0.25),))
    assert reliability(np.array([0.5, 1.5]), np.array([1, 0])) is None
    assert reliability(np.array([]), np.array([])) is None


def test_a_diagram_draws_each_bin_and_escapes_names():
    found = Reliability(20, 0.1, 0.2, (Bin(10, 0.2, 0.1), Bin(10, 0.8, 0.9)))
    drawing = str(diagram({"<b>": found}, ["own"], title="Reliability"))
    assert drawing.count('class="mark own"') == 3 and "<b>" not in drawing
    # The line has the colour of its marks.
    assert drawing.count('class="path own"') == 1
    # A fifth of the square to the right, a tenth of it up.
    assert 'cx="128.0" cy="312.0"' in drawing


def test_the_logit_of_certainty_is_finite_and_what_is_no_probability_keeps_its_order():
    assert (logit(1.0), logit(0.0)) == (pytest.approx(27.63, abs=0.01), pytest.approx(-27.63, abs=0.01))
    curve = Calibration("temperature", "logit", 2.0, 1.0)
    said = [curve.probability(score) for score in (-0.3, -0.1, 0.0, 1e-9, 0.5)]
    assert said == sorted(set(said))
