"""Which clips people are asked about: a sample in strata of how alike the candidates are and of the selector's margin.

    drawn = draw(candidates, limit=1000); drawn.positions      # -> where the clips stand, in the order of their lots

Every stratum gives as many clips as the others, as far as it has them: those whose lots, digests of the seed and the
clip_id, are lowest. So the same dataset and seed give the same sample; a larger sample holds the smaller one; and in a
dataset that has grown a clip leaves the sample only for one that came with a lower lot, or as the bounds of the strata,
terciles rounded to two digits, move over it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from beam_pipeline.split import quotas

_LEVELS = ("low", "middle", "high")


@dataclasses.dataclass(frozen=True, slots=True)
class Candidates:
    """The clips that can be drawn, an entry each.

    Attributes:
      lots: from 0 to 2**64 - 1. alikeness: of the captions, 0 to 1. margins: not-a-number where there is none.
    """

    lots: np.ndarray
    alikeness: np.ndarray
    margins: np.ndarray


@dataclasses.dataclass(frozen=True, slots=True)
class Stratum:
    """A part of the clips, and how many of it there are and were drawn."""

    alikeness: str
    margin: str
    clips: int
    drawn: int


@dataclasses.dataclass(frozen=True, slots=True)
class Drawn:
    """A sample.

    Attributes:
      positions: of the clips among the candidates, the lowest lot first.
      alikeness_bounds, margin_bounds: between low, middle and high.
    """

    positions: tuple[int, ...]
    strata: tuple[Stratum, ...]
    alikeness_bounds: tuple[float, ...]
    margin_bounds: tuple[float, ...]


def draw(candidates: Candidates, limit: int) -> Drawn:
    """Draw up to `limit` clips."""
    alike, margins = bounds(candidates.alikeness), bounds(candidates.margins)
    by_alikeness = np.searchsorted(alike, candidates.alikeness, side="right")
    by_margin = np.where(
        np.isnan(candidates.margins), len(_LEVELS), np.searchsorted(margins, candidates.margins, side="right")
    )
    numbers = by_alikeness * (len(_LEVELS) + 1) + by_margin
    order = np.argsort(candidates.lots, kind="stable")
    members = {f"{number:02d}": order[numbers[order] == number] for number in np.unique(numbers).tolist()}
    shares = quotas({name: len(found) for name, found in members.items()}, limit)
    drawn = [int(at) for name, found in members.items() for at in found[: shares[name]]]
    return Drawn(
        positions=tuple(sorted(drawn, key=lambda at: (int(candidates.lots[at]), at))),
        strata=tuple(_stratum(int(name), len(found), shares[name]) for name, found in members.items()),
        alikeness_bounds=alike,
        margin_bounds=margins,
    )


def _stratum(number: int, clips: int, drawn: int) -> Stratum:
    alike, margin = divmod(number, len(_LEVELS) + 1)
    return Stratum(_LEVELS[alike], [*_LEVELS, "none"][margin], clips, drawn)


def bounds(values: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    """The terciles of those values that are numbers, to two digits: these stand still while a dataset grows.

    >>> bounds([0.1, 0.2, 0.3, math.nan])
    (0.17, 0.23)
    """
    known = np.asarray(values, float)
    known = known[~np.isnan(known)]
    return tuple(_rounded(value) for value in np.quantile(known, [1 / 3, 2 / 3])) if len(known) else (0.0, 0.0)


def _rounded(value: float) -> float:
    return float(f"{value:.2g}") if math.isfinite(value) else 0.0
