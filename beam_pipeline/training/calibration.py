"""Calibration of a trained selector and the score below which it says "all bad", both learned on validation examples.

    told = finish(scores, examples)                       # scores: of each example's captions, before calibration
    selector |= {name: told[name] for name in ("calibration", "abstain_below")}

A calibrated score is the probability that people find the caption good; where each chose one, that they choose it among
its clip's captions. The figures in `metrics` are of clips that no fit saw: five times one fifth of the sources.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from beam_pipeline.evaluate_bootstrap import bootstrap
from beam_pipeline.evaluate_reliability import reliability
from beam_pipeline.training.trainable import Example
from model_handlers.trained import Calibration, calibrated, logit

KINDS = ("temperature", "isotonic", "none")
FOLDS = 5
#: With fewer clips whose captions are all bad nobody can say from which score on they are.
MIN_ALL_BAD = 20
#: Of fewer clips a curve would say of the next ones what was chance in these.
MIN_CLIPS = 20
#: The likelihood by which the logit must tell more, as a logarithm.
_CLEARLY = 10.0
#: An isotonic curve is thinned to so many points.
_MOST_POINTS = 1000
#: So many digits of a fit are kept: the next ones depend on the machine's arithmetic.
_DIGITS = 6


#: Of an example's captions, before calibration; None: its clip could not be read.
Scores = Sequence[float] | None


@dataclasses.dataclass(frozen=True)
class Seen:
    """Validation examples with their scores.

    Attributes:
      scores, good: (captions,): how well each fits its clip, and 1 for those that people found good.
      owners: (captions,), the example of each. sources: (examples,), as numbers.
    """

    scores: np.ndarray
    good: np.ndarray
    owners: np.ndarray
    sources: np.ndarray

    @classmethod
    def of(cls, scores: Sequence[Scores], examples: Sequence[Example]) -> Seen:
        """Bring together the scores and the examples that have some.

        Raises:
          ValueError: they are not of each other, or a score is no finite number.
        """
        both = [(one, example) for one, example in zip(scores, examples, strict=True) if one is not None]
        if any(len(one) != len(example.captions) or not len(one) for one, example in both):
            raise ValueError("there must be a score for each caption of each example, and a caption at least")
        kept = [example for _, example in both]
        flat = np.array([score for one, _ in both for score in one], float)
        if not np.isfinite(flat).all():
            raise ValueError("a score of the validation examples is not finite; the training has diverged")
        videos = {video_id: number for number, video_id in enumerate(sorted({one.clip.video_id for one in kept}))}
        return cls(
            flat,
            np.array([number in one.right for one in kept for number in range(len(one.captions))], float),
            np.repeat(np.arange(len(kept)), [len(one.captions) for one in kept]),
            np.array([videos[one.clip.video_id] for one in kept], int),
        )

    def best(self, values: np.ndarray) -> np.ndarray:
        """(examples,), the place of each example's highest value; of equal ones the first."""
        order = np.lexsort((-np.arange(len(values)), values, self.owners))
        return order[np.flatnonzero(np.diff(np.append(self.owners[order], len(self.sources))))]

    @property
    def all_bad(self) -> np.ndarray:
        """(examples,), whether people found none of its captions good."""
        return np.bincount(self.owners, weights=self.good, minlength=len(self.sources)) == 0

    def folds(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Which examples are learned from and which are held out, as masks; every source is held out once."""
        from sklearn.model_selection import GroupKFold

        places = np.arange(len(self.sources))
        for _, held in GroupKFold(min(FOLDS, int(self.sources.max()) + 1)).split(places, groups=self.sources):
            mask = np.isin(places, held)
            yield ~mask, mask


def calibrate(scores: Sequence[Scores], examples: Sequence[Example], kind: str = "temperature") -> Calibration | None:
    """Learn what a selector's scores are worth.

    Args:
      scores: of each example's captions, before calibration.
      kind: "temperature", a logistic curve of two numbers; "isotonic", any rising curve, of thousands of clips; "none".

    Returns:
      A rising curve, so that no choice changes; None where captions that people found good do not score higher.

    Raises:
      ValueError: there is no such kind, or the scores do not fit the examples.
    """
    seen = Seen.of(scores, examples)
    return _fit(seen.scores, seen.good, kind)


def finish(scores: Sequence[Scores], examples: Sequence[Example], kind: str = "temperature") -> dict[str, Any]:
    """Learn calibration and threshold; what both are worth is measured on sources that they were not learned from.

    Args:
      scores, examples, kind: see `calibrate`.

    Returns:
      Plain values for `selector.json`, the same for the same scores: `calibration`, `abstain_below` and `metrics`.

    Raises:
      ValueError: see `calibrate`.
    """
    seen = Seen.of(scores, examples)
    enough = len(seen.sources) >= MIN_CLIPS
    kind = kind if enough else "none"
    curve = _fit(seen.scores, seen.good, kind)
    held = _held_out(seen, kind if curve else "none")
    notes = list(_about_curve(seen, kind, curve, held))
    if not enough:
        few = f"scores were not calibrated: there are {len(seen.sources)} validation clips"
        notes.insert(0, f"{few}, and {MIN_CLIPS} are needed")
    abstain_below, judged, why = _abstention(seen, curve, held)
    after = held.scores if held and curve else None
    before = seen.scores if reliability(seen.scores, seen.good) else None
    return {
        "calibration": curve.as_json() if curve else None,
        "abstain_below": abstain_below,
        "metrics": {
            "calibration": {
                name: {"before": _figures(seen, before, chosen), "after": _figures(seen, after, chosen)}
                for name, chosen in (("captions", False), ("chosen", True))
            },
            "all_bad": {"clips": int(seen.all_bad.sum()), "of": len(seen.sources), **(judged or {})},
            "notes": [*notes, *why],
        },
    }


def _fit(scores: np.ndarray, good: np.ndarray, kind: str) -> Calibration | None:
    if kind not in KINDS:
        raise ValueError(f"there is no calibration {kind!r}; take one of {', '.join(KINDS)}")
    # With one outcome, or one score, there is nothing to tell apart.
    if kind == "none" or len(np.unique(good)) < 2 or not np.ptp(scores):
        return None
    return _temperature(scores, good) if kind == "temperature" else _isotonic(scores, good)


def _temperature(scores: np.ndarray, good: np.ndarray) -> Calibration | None:
    """Platt's curve: of the score, or of its logit where that clearly tells more of what people found."""
    loss, scale, shift = _logistic(scores, good)
    of = "score"
    if scores.min() >= 0 and scores.max() <= 1:
        of_logit = _logistic(np.array([logit(score) for score in scores]), good)
        # Cosines may lie between 0 and 1, too; only probabilities are far from a straight line.
        if of_logit[0] < loss - _CLEARLY:
            of, (_, scale, shift) = "logit", of_logit
    return Calibration("temperature", of, scale, shift) if scale > 0 else None


def _logistic(x: np.ndarray, good: np.ndarray) -> tuple[float, float, float]:
    """The negative log-likelihood, scale and shift of the curve."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    middle, spread = x.mean(), x.std()
    # Its slight pull to nought, at C = 1, keeps the curve finite where good and bad part without a rest.
    line = LogisticRegression(C=1.0).fit((x - middle)[:, None] / spread, good)
    slope, rest = float(line.coef_[0, 0]), float(line.intercept_[0])
    loss = log_loss(good, line.predict_proba((x - middle)[:, None] / spread)[:, 1], normalize=False)
    return float(loss), _short(slope / spread), _short(rest - slope * middle / spread)


def _isotonic(scores: np.ndarray, good: np.ndarray) -> Calibration | None:
    from sklearn.isotonic import IsotonicRegression

    line = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(scores, good)
    points = dict(zip(map(_short, line.X_thresholds_), map(_short, line.y_thresholds_), strict=True))
    x = sorted(points)
    if len(x) > _MOST_POINTS:
        x = [x[place] for place in np.unique(np.linspace(0, len(x) - 1, _MOST_POINTS).astype(int))]
    y = np.maximum.accumulate([points[place] for place in x])
    if len(x) < 2 or y[0] == y[-1]:
        return None
    return Calibration("isotonic", x=tuple(x), y=tuple(float(one) for one in y))


def _short(number: float) -> float:
    return float(f"{number:.{_DIGITS}g}")


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """What was said of clips by curves and thresholds that had not seen them.

    Attributes:
      scores: (captions,), calibrated. abstained: (examples,).
    """

    scores: np.ndarray
    abstained: np.ndarray


def _held_out(seen: Seen, kind: str) -> HeldOut | None:
    """Cross-fitted by source; None where a part without one fifth of the sources teaches nothing."""
    if len(seen.sources) == 0 or seen.sources.max() < 1:
        return None
    scores, abstained = seen.scores.copy(), np.zeros(len(seen.sources), bool)
    for learned, held in seen.folds():
        inside, outside = learned[seen.owners], held[seen.owners]
        curve = _fit(seen.scores[inside], seen.good[inside], kind)
        if curve is None and kind != "none":
            return None
        said = np.array(calibrated(seen.scores, curve))
        scores[outside] = said[outside]
        best = said[seen.best(said)]
        limit = threshold(best[learned], seen.all_bad[learned])
        abstained[held] = best[held] < (-np.inf if limit is None else limit)
    return HeldOut(scores, abstained)


def _why_not_held_out(seen: Seen) -> str:
    """Why `_held_out` has nothing to tell."""
    if len(seen.sources) == 0 or seen.sources.max() < 1:
        return "the validation clips are of too few sources"
    return "without one of the fifths of their sources captions that people found good do not score higher"


def threshold(best: np.ndarray, all_bad: np.ndarray) -> float | None:
    """The score below which the best caption's clip is called all bad, for the highest F1; of equals the lowest.

    Args:
      best: (examples,), each one's highest score. all_bad: (examples,), what people say.

    Returns:
      Half-way between two scores; None where no score parts any clips.
    """
    order = np.argsort(best, kind="stable")
    ranked, hits = best[order], np.cumsum(all_bad[order])
    cuts = np.flatnonzero(np.diff(ranked) > 0)
    if not len(cuts) or not hits[-1]:
        return None
    cut = cuts[np.argmax(2 * hits[cuts] / (cuts + 1 + hits[-1]))]
    return float((ranked[cut] + ranked[cut + 1]) / 2)


def _abstention(
    seen: Seen, curve: Calibration | None, held: HeldOut | None
) -> tuple[float | None, dict[str, float] | None, list[str]]:
    """The threshold, how well such ones did on clips that they were not learned from, and why there is none."""
    bad = seen.all_bad
    if bad.sum() < MIN_ALL_BAD:
        told = f"abstain_below was not learned: people found all captions bad of {int(bad.sum())} validation clips"
        return None, None, [f"{told}; {MIN_ALL_BAD} are needed"]
    if held is None:
        return None, None, [f"abstain_below was not learned: {_why_not_held_out(seen)}"]
    sums = np.column_stack([held.abstained & bad, held.abstained, bad, np.ones(len(bad))]).astype(float)
    hits, said, all_bad, _ = map(float, sums.sum(axis=0))
    judged = {
        "precision": round(hits / said, 6) if said else 0.0,
        "recall": round(hits / all_bad, 6),
        "f1": round(2 * hits / (said + all_bad), 6),
    }
    gain = bootstrap(sums, _gain)
    if gain.low is None or gain.low <= 0:
        return None, judged, ["abstain_below was not learned: no score tells all-bad clips better than calling all so"]
    scores = np.array(calibrated(seen.scores, curve))
    return threshold(scores[seen.best(scores)], bad), judged, []


def _gain(sums: np.ndarray) -> np.ndarray:
    """F1 less that of calling every clip all bad, of sums of hits, clips so called, clips that are, and clips."""
    hits, said, bad, clips = sums.T
    return 2 * hits / (said + bad) - 2 * bad / (clips + bad)


def _figures(seen: Seen, scores: np.ndarray | None, chosen: bool) -> dict[str, float] | None:
    """Calibration error and Brier score, of all captions or each clip's best; None where these are no probabilities."""
    if scores is None:
        return None
    places = seen.best(scores) if chosen else np.arange(len(scores))
    found = reliability(scores[places], seen.good[places])
    return found.figures() if found else None


def _about_curve(seen: Seen, kind: str, curve: Calibration | None, held: HeldOut | None) -> Iterator[str]:
    if curve is None and kind != "none":
        yield "scores were not calibrated: captions that people found good do not score higher"
    if held is None:
        yield f"nothing is told of clips that were held out: {_why_not_held_out(seen)}"
    if len(np.unique(seen.good)) > 1 and reliability(seen.scores, seen.good) is None:
        yield "before calibration the scores are no probabilities"
