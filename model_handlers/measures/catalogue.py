"""The measures that a configuration can ask for, by name.

chosen = choose({"blur": True, "lpips": "lpips_alex.safetensors"})      # -> Chosen(measures=(...), derived=())
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from model_handlers import perceptual
from model_handlers.measures import blur, exposure, motion
from model_handlers.measures.view import Derived, Measure
from model_handlers.nearest import nearest

#: Measures that need nothing but the pictures, in the order in which they look.
PLAIN: tuple[Measure, ...] = (motion.MEASURE, exposure.MEASURE, blur.MEASURE)
#: Measures made of the values of others.
DERIVED: tuple[Derived, ...] = ()
#: Measures that need to be told something: how each is made of that, and what it measures.
ASKED: Mapping[str, tuple[Callable[[Any], Measure], str]] = {"lpips": (perceptual.lpips_measure, perceptual.SUMMARY)}

_PLAIN = {one.name: one for one in PLAIN}
_DERIVED = {one.name: one for one in DERIVED}

#: What each measures, by name.
SUMMARIES: Mapping[str, str] = {
    **{one.name: one.summary for one in PLAIN},
    **{one.name: one.summary for one in DERIVED},
    **{name: summary for name, (_, summary) in ASKED.items()},
}


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The measures of a job, and the columns that are made of theirs."""

    measures: tuple[Measure, ...] = ()
    derived: tuple[Derived, ...] = ()

    @property
    def columns(self) -> frozenset[str]:
        """All columns that they fill."""
        measured = (column for one in self.measures for column in one.columns)
        return frozenset((*measured, *(one.column for one in self.derived)))


def choose(asked: Mapping[str, Any]) -> Chosen:
    """The measures that are asked for.

    Args:
      asked: by name, what they need to be told; true for those that need nothing. Null and false ask for none. `all`
        asks for every one that needs nothing.

    Raises:
      ValueError: one cannot be meant; the message names the nearest right word. WeightsError: no such weights.
    """
    wanted = {name: value for name, value in asked.items() if value is not None and value is not False}
    if wanted.pop("all", None):
        wanted = {**dict.fromkeys((*_PLAIN, *_DERIVED), True), **wanted}
    for name in wanted:
        if name not in SUMMARIES:
            raise ValueError(f"there is no measure {name!r}; {nearest(name, sorted(SUMMARIES))}")
    for one in DERIVED:
        if one.name in wanted:
            wanted = {**dict.fromkeys(one.needs, True), **wanted}
    for name in (*_PLAIN, *_DERIVED):
        if wanted.get(name, True) is not True:
            raise ValueError(f"measures.{name} is true or false, not {wanted[name]!r}")
    measures = [one for one in PLAIN if one.name in wanted]
    measures += [make(wanted[name]) for name, (make, _) in ASKED.items() if name in wanted]
    return Chosen(tuple(measures), tuple(one for one in DERIVED if one.name in wanted))


def measure_of(column: str) -> str | None:
    """The measure that fills a column, of those that need nothing."""
    filled = {name: one.name for one in PLAIN for name in one.columns} | {one.column: one.name for one in DERIVED}
    return filled.get(column)
