"""Intervals of the evaluations' figures: what they might have been on other clips like these.

    found = bootstrap(np.column_stack([hits, np.ones(len(hits))]), lambda sums: sums[:, 0] / sums[:, 1])
    found.value, found.low, found.high

Clips are drawn with replacement, as often as there are (Efron's percentile interval, 95 %). All that belongs to a clip
is drawn with it. The draws depend on the seed and on the number of clips alone, so that two methods on the same clips
see the same ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

RESAMPLES = 1000
SEED = 0
#: The middle 95 % of what the draws give.
LOW, HIGH = 0.025, 0.975


@dataclasses.dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % interval; None where there is nothing to tell it from, or one clip alone."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def as_json(self) -> dict[str, float | None]:
        return {name: rounded(getattr(self, name)) for name in ("value", "low", "high")}

    def told(self, form: str = ".1f", scale: float = 1.0) -> str:
        """The figure with its interval, such as `25.4 [24.1, 26.8]`."""
        if self.value is None:
            return "-"
        value = format(self.value * scale, form)
        if self.low is None or self.high is None:
            return value
        return f"{value} [{format(self.low * scale, form)}, {format(self.high * scale, form)}]"


def bootstrap(
    figures: np.ndarray, fold: Callable[[np.ndarray], np.ndarray], *, resamples: int = RESAMPLES, seed: int = SEED
) -> Interval:
    """A figure that is made of sums over clips.

    Args:
      figures: (clips, k), what each clip adds.
      fold: of sums (n, k) makes n figures; not-a-number where there is nothing to divide by.
    """
    if not len(figures):
        return Interval(None)
    sums = [figures.sum(axis=0), *(counts @ figures for counts in draws(len(figures), resamples, seed))]
    with np.errstate(divide="ignore", invalid="ignore"):
        folded = np.asarray(fold(np.stack(sums)), dtype=float)
    return interval_of(folded[0], folded[1:], len(figures))


def bootstrap_counts(
    clips: int, statistic: Callable[[np.ndarray], float], *, resamples: int = RESAMPLES, seed: int = SEED
) -> Interval:
    """A figure that is made of all clips at once, such as a median.

    Args:
      statistic: of how often each clip was drawn, (clips,), makes the figure.
    """
    if not clips:
        return Interval(None)
    drawn = np.array([statistic(counts) for counts in draws(clips, resamples, seed)])
    return interval_of(statistic(np.ones(clips, np.int64)), drawn, clips)


def mean_of(values: np.ndarray, **more: Any) -> Interval:
    """The mean of one value a clip."""
    values = np.asarray(values, dtype=float)
    return bootstrap(np.column_stack([values, np.ones(len(values))]), ratio, **more)


def ratio(sums: np.ndarray) -> np.ndarray:
    """The first sum by the second."""
    return sums[:, 0] / sums[:, 1]


def weighted_median(values: np.ndarray, counts: np.ndarray) -> float:
    """The median of values of which each stands there so many times; the mean of the middle two of an even number."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(counts[order])
    if not len(reached) or not reached[-1]:
        return float("nan")
    total = int(reached[-1])
    lower, upper = (values[order[np.searchsorted(reached, place + 1)]] for place in ((total - 1) // 2, total // 2))
    return float(lower + upper) / 2


def draws(clips: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each clip is drawn, one array a resample. Of one clip nothing can be drawn but that one."""
    draw = np.random.default_rng(seed)
    for _ in range(resamples if clips > 1 else 0):
        yield np.bincount(draw.integers(0, clips, clips), minlength=clips)


def interval_of(value: float, drawn: np.ndarray, clips: int) -> Interval:
    if not np.isfinite(value):
        return Interval(None)
    told = drawn[np.isfinite(drawn)]
    if clips < 2 or not len(told):
        return Interval(float(value))
    return Interval(float(value), float(np.quantile(told, LOW)), float(np.quantile(told, HIGH)))


def rounded(value: float | None) -> float | None:
    """As it stands in a file of figures."""
    return None if value is None else round(value, 6)
