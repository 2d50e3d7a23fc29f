"""The measures that a configuration can ask for, by name.

chosen = choose({"blur": True, "lpips": "lpips_alex.safetensors"})      # -> Chosen(measures=(...), derived=())
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from model_handlers import perceptual
from model_handlers.measures import (
    aesthetics,
    blur,
    borders,
    category,
    desirability,
    exposure,
    motion,
    nsfw,
    overlay_text,
    quality,
    screens,
    two_towers,
    watermark,
)
from model_handlers.measures.view import Derived, Measure
from model_handlers.nearest import nearest


def _told(name: str, module: Any, asked: Any) -> Measure:
    """A measure with settings, of what a configuration says of it.

    Args:
      module: with its `Settings`, and its `measure` of these.
    """
    settings = _settings(name, module.Settings, asked)
    return _with_weights(module.measure(settings), settings.weights)


def _aesthetic(asked: Any) -> Measure:
    return _told("aesthetic", aesthetics, {"head": asked} if isinstance(asked, str) else asked)


def _settings(name: str, kind: type, asked: Any) -> Any:
    """Settings of a measure, of what a configuration says: true for those it has, or a mapping that changes some."""
    said = {} if asked is True else asked
    if not isinstance(said, Mapping):
        raise ValueError(f"measures.{name} must be true, false or a mapping with its settings, not {asked!r}")
    known = [field.name for field in dataclasses.fields(kind)]
    if wrong := [key for key in said if key not in known]:
        raise ValueError(f"there is no key of measures.{name} {wrong[0]!r}; {nearest(wrong[0], known)}")
    required = [field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING]
    if absent := [key for key in required if key not in said]:
        raise ValueError(f"measures.{name} needs {absent[0]}: write {name}: {{{absent[0]}: ...}}")
    return kind(**said)


def _with_weights(measure: Measure, weights: str) -> Measure:
    """The measure with what is known of its weights' licence."""
    licence = LICENCES.get(weights, "unknown")
    unknown = "nothing says what the licence of its weights allows"
    restricted = "" if weights in LICENCES or not weights else unknown
    return dataclasses.replace(measure, model=weights, licence=licence if weights else "", restricted=restricted)


#: What the licences of weights that measures use unasked are.
LICENCES = {two_towers.CLIP_VIT_L: "MIT", nsfw.FALCONSAI: "Apache-2.0"}

#: Measures that need nothing but the pictures, in the order in which they look.
PLAIN: tuple[Measure, ...] = (
    *(borders.MEASURE, motion.MEASURE, exposure.MEASURE, blur.MEASURE),
    *(overlay_text.MEASURE, watermark.MEASURE, screens.MEASURE),
)
#: Measures made of the values of others.
DERIVED: tuple[Derived, ...] = (desirability.MEASURE,)
#: Measures that can be told something: how each is made of that, and what it measures.
ASKED: Mapping[str, tuple[Callable[[Any], Measure], str]] = {
    "category": (
        functools.partial(_told, "category", category),
        "the likeliest of some labels, by the lite models or by CLIP",
    ),
    "quality": (
        functools.partial(_told, "quality", quality),
        "technical quality by CLIP-IQA; downloads CLIP, or weights: names it",
    ),
    "aesthetic": (_aesthetic, "a LAION aesthetic predictor over CLIP; head: names its file"),
    "nsfw": (
        functools.partial(_told, "nsfw", nsfw),
        "how unsafe for work its worst frame is, by a classifier; downloads it, or weights: names it",
    ),
    "lpips": (perceptual.lpips_measure, perceptual.SUMMARY),
}
#: Those of them that need no weights but what is installed.
_WITHOUT_WEIGHTS = ("category",)

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

    def labels_of(self, column: str) -> tuple[str, ...]:
        """The words that a column may hold; none where these are not known."""
        known = {one.column: one.labels for one in self.derived}
        known |= {name: one.labels for one in self.measures for name in one.columns}
        return known.get(column, ())


def choose(asked: Mapping[str, Any]) -> Chosen:
    """The measures that are asked for.

    Args:
      asked: by name, what they are told; true where nothing is to be told. Null and false ask for none. `all` asks for
        every one that needs no weights but what is installed.

    Raises:
      ValueError: one cannot be meant; the message names the nearest right word. WeightsError: no such weights.
      ModuleNotFoundError: a package is missing.
    """
    every = dict.fromkeys((*_PLAIN, *_DERIVED, *_WITHOUT_WEIGHTS), True) if asked.get("all") else {}
    said = {name: value for name, value in {**every, **asked}.items() if name != "all"}
    wanted = {name: value for name, value in said.items() if value is not None and value is not False}
    for name in wanted:
        if name not in SUMMARIES:
            raise ValueError(f"there is no measure {name!r}; {nearest(name, sorted(SUMMARIES))}")
    for one in DERIVED:
        if one.name in wanted:
            if refused := [name for name in one.needs if said.get(name, True) is not wanted.get(name, True)]:
                raise ValueError(f"measures.{one.name} needs {refused[0]}, which is {said[refused[0]]!r}")
            wanted = {**dict.fromkeys(one.needs, True), **wanted}
    for name in (*_PLAIN, *_DERIVED):
        if wanted.get(name, True) is not True:
            raise ValueError(f"measures.{name} is true or false, not {wanted[name]!r}")
    measures = [one for one in PLAIN if one.name in wanted]
    measures += [make(wanted[name]) for name, (make, _) in ASKED.items() if name in wanted]
    for measure in measures:
        if measure.check:
            measure.check()
    return Chosen(tuple(measures), tuple(one for one in DERIVED if one.name in wanted))


def measure_of(column: str) -> str | None:
    """The measure that fills a column, of those that need nothing."""
    filled = {name: one.name for one in PLAIN for name in one.columns} | {one.column: one.name for one in DERIVED}
    filled |= dict.fromkeys(("category", "category_score"), "category")
    return filled.get(column)
