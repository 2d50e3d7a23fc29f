"""Rules of the user's: which clips stay, by their columns; what goes stands in `rejected` with its value.

    rule = Rule("blur", high=0.6)
    rule.broken_by({"blur": 0.7})        # -> Broken("blur", "blur is above 0.6", 0.7, 0.6)
    measured | FilterClips((rule,))      # -> .kept, Clips for the captioners; .dropped, FilteredClips

Rules on measures are applied before any teacher is asked, all others where a clip's row is made. What is not known
breaks no rule: a measure that failed costs its columns, never the clip.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np

from transforms.counting import count
from transforms.records import Clip, FilteredClip, MeasuredClip, RejectedSpan
from transforms.schemas import FILTER_STAGE

_DROPPED, _KEPT = "dropped", "kept"


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """What a column of a clip must be for the clip to stay.

    Attributes:
      column: of `clips`. low, high: the least and the greatest number allowed.
      only: the values allowed; without: the values refused. Of texts and booleans.
    """

    column: str
    low: float | None = None
    high: float | None = None
    only: tuple[str | bool, ...] = ()
    without: tuple[str | bool, ...] = ()

    def __post_init__(self) -> None:
        bounds = [bound for bound in (self.low, self.high) if bound is not None]
        if any(not math.isfinite(bound) for bound in bounds):
            raise ValueError(f"a bound of {self.column} must be a finite number")
        if len(bounds) == 2 and bounds[0] > bounds[1]:
            raise ValueError(f"no {self.column} is both {bounds[0]:g} or more and {bounds[1]:g} or less")
        if not bounds and not self.only and not self.without:
            raise ValueError(f"the rule on {self.column} says nothing; give it min, max, only or without")
        if bounds and (self.only or self.without):
            raise ValueError(f"the rule on {self.column} has bounds and values; keep one of them")

    def broken_by(self, row: Mapping[str, Any]) -> Broken | None:
        """How a clip's columns break the rule; None if they don't, or the column is not known."""
        value = row.get(self.column)
        if value is None:
            return None
        # As numbers are stored: a value at the bound stays there when it is read again.
        if self.low is not None and np.float32(value) < np.float32(self.low):
            return Broken(self.column, f"{self.column} is below {self.low:g}", value, self.low)
        if self.high is not None and np.float32(value) > np.float32(self.high):
            return Broken(self.column, f"{self.column} is above {self.high:g}", value, self.high)
        if (self.only and value not in self.only) or value in self.without:
            return Broken(self.column, f"{self.column} is {str(value)[:80]}", None, None)
        return None


class Broken(NamedTuple):
    """A rule that a clip breaks: its column, the reason, and, of a number, what it is and what is allowed."""

    column: str
    reason: str
    value: float | None
    threshold: float | None


def first_broken(rules: Sequence[Rule], row: Mapping[str, Any]) -> Broken | None:
    """The first rule that a clip's columns break, in the order in which the rules are given."""
    return next((broken for rule in rules if (broken := rule.broken_by(row))), None)


def rejected_by(clip: Clip, broken: Broken) -> RejectedSpan:
    """The span of a clip that a rule drops."""
    return RejectedSpan(clip.video_id, clip.span, FILTER_STAGE, broken.reason, broken.value, broken.threshold)


@dataclasses.dataclass
class FilterClips(beam.PTransform):
    """Drop the clips whose measures break a rule.

    MeasuredClip in; out, for each, either its Clip under `.kept` or a FilteredClip under `.dropped`; bounded or
    unbounded. Nothing fails here.
    """

    rules: tuple[Rule, ...]

    def expand(self, measured: beam.PCollection[MeasuredClip]) -> Any:
        return measured | beam.FlatMap(_sort, self.rules).with_outputs(_DROPPED, _KEPT)


def _sort(measured: MeasuredClip, rules: Sequence[Rule]) -> Iterator[Any]:
    broken = first_broken(rules, measured.values)
    count("filter", in_=1, **{"rejected" if broken else "out": 1})
    if broken is None:
        yield beam.pvalue.TaggedOutput(_KEPT, measured.clip)
    else:
        dropped = FilteredClip(measured.clip, rejected_by(measured.clip, broken))
        yield beam.pvalue.TaggedOutput(_DROPPED, dropped)
