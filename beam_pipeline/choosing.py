"""The models that a profile chooses: a name of the catalogue, or a mapping that changes what it names.

choose("teacher", "lite-scene")
choose("teacher", {"like": "qwen2.5-vl-7b", "name": "mine", "weights": "/models/mine", "inputs": "V-S-M"})
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from beam_pipeline.placement import check_hints
from model_handlers import catalogue
from model_handlers.catalogue import Entry
from model_handlers.checkpoints import is_hub_id
from model_handlers.nearest import nearest
from model_handlers.settings import Settings

_FIND = {"embedder": catalogue.embedder, "teacher": catalogue.teacher, "selector": catalogue.selector}
#: Names stand in metrics and in files that Beam makes.
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")
#: What a mapping may say beside settings of the model.
HINTS = ("accelerator", "min_ram")
_OF_ENTRY = ("name", "like", "licence", "commercial", *HINTS)


@dataclasses.dataclass(frozen=True)
class Choice:
    """A model, and the resource hints of its own workers, if it has any."""

    entry: Entry
    hints: Mapping[str, str] = dataclasses.field(default_factory=dict)


def choose(kind: str, value: Any, complete: bool = True) -> Choice:
    """The model that a profile's value means.

    Args:
      kind: "embedder", "teacher" or "selector".
      value: a name, or a mapping with `name` and/or `like` (the entry it starts from), and what is different.
      complete: refuse a model whose weights nobody has named yet.

    Raises:
      ValueError: it can't be meant; the message names the nearest right word. WeightsError: no such weights.
    """
    if isinstance(value, str):
        return _ready(Choice(_FIND[kind](value)), complete)
    if not isinstance(value, Mapping):
        raise ValueError(f"{kind} must be a name of the catalogue or a mapping with like:, not {value!r}")
    name, like = value.get("name"), value.get("like")
    base = like if like is not None else name
    if not isinstance(base, str):
        raise ValueError(f"{kind} needs a name, or like: with one of the catalogue")
    if name is not None and not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise ValueError(f"{kind} needs a name of letters, digits, dots and dashes, not {name!r}")
    try:
        entry = _FIND[kind](base)
    except ValueError as error:
        unknown = str(error).rstrip(".")
        raise ValueError(f"{unknown}. A {kind} of your own says like: which of them it resembles") from error
    try:
        return _ready(_changed(kind, entry, name or base, value), complete)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name or base}: {error}") from error


def _changed(kind: str, entry: Entry, name: str, value: Mapping[str, Any]) -> Choice:
    own = ("words", "seen")  # Written down when a job is configured.
    known = [field.name for field in dataclasses.fields(entry.settings or Settings) if field.name not in own]
    for key in value:
        check_word("key", key, [*_OF_ENTRY, *known])
    settings = {key: asked for key, asked in value.items() if key in known}
    hints = hints_of(value)
    if settings or name != entry.name:
        changed = entry.changed(name, **settings)
        if kind == "selector":
            changed = changed.with_training(entry.name)
        # A trained version is under the licence of what it was trained from, whatever it is called.
        origin = str(changed.trained.base.get("model", "")) if changed.trained else changed.model
        named_anew = name != entry.name and not changed.trained
        if origin != entry.model and (named_anew or is_hub_id(origin)):
            # Other weights have another licence, and other distances; a copy of the same keeps its name.
            unknown = "nothing says what its licence allows; add licence: and commercial: true or false"
            changed = dataclasses.replace(changed, licence="unknown", restricted=unknown, thresholds=None)
        entry = changed
    if "licence" in value or "commercial" in value:
        licence, restricted = licence_of(entry.name, value, entry.licence)
        entry = dataclasses.replace(entry, licence=licence, restricted=restricted)
    return Choice(entry, hints)


def _ready(choice: Choice, complete: bool) -> Choice:
    entry = choice.entry
    if complete and entry.settings is not None:
        if not entry.settings.weights:
            first = f"train one: {entry.made_by}; then " if entry.made_by else ""
            told = f"{first}write {{name: {entry.name}, weights: ...}} in a --config file"
            raise ValueError(f"{entry.name} needs weights: {told}")
        # Loads nothing, but refuses what the model can't do.
        entry.build()
    return choice


def licence_of(where: str, said: Mapping[str, Any], known: str = "unknown") -> tuple[str, str]:
    """The licence of weights that somebody names, and why it restricts their use; "" where that is said to be allowed.

    Raises:
      ValueError: what is said of it is of the wrong kind.
    """
    licence, commercial = said.get("licence", known), said.get("commercial", False)
    if not isinstance(licence, str) or not isinstance(commercial, bool):
        raise ValueError(f"{where}: licence is a text and commercial is true or false")
    return licence, "" if commercial else f"{licence}; the configuration doesn't say that it allows commercial use"


def hints_of(said: Mapping[str, Any]) -> dict[str, Any]:
    """The resource hints among what is said of a model."""
    hints = {key: said[key] for key in HINTS if key in said}
    check_hints(hints)
    return hints


def check_word(what: str, name: Any, known: Iterable[str]) -> None:
    """Raise `ValueError` with the nearest right word unless `name` is one of those known."""
    known = list(known)
    if name not in known:
        raise ValueError(f"there is no {what} {name!r}; {nearest(name, known)}")
