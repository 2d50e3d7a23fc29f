"""The sections of a configuration: each read, checked, and told in one line what is wrong with it.

chosen, rules = measured({"measures": {"blur": True}, "filters": {"blur": {"max": 0.6}}})
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from beam_pipeline.choosing import Choice, check_word, choose
from beam_pipeline.filters import rules_of
from beam_pipeline.hygiene import HygieneSettings
from beam_pipeline.placement import Placement
from model_handlers import catalogue
from model_handlers.catalogue import Entry
from model_handlers.measures import catalogue as known_measures
from model_handlers.measures.catalogue import Chosen
from model_handlers.trained import FILE as RECORD
from model_handlers.trained import is_out_of_sight
from transforms.clip_settings import MODES, ClipFileSettings
from transforms.duplicates import check_threshold
from transforms.filtering import Rule
from transforms.measure_columns import BY_NAME

#: What a configuration can say of the dataset's card.
CARD = ("title", "license", "license_name", "license_link")


class ConfigError(ValueError):
    """A configuration that cannot be meant; the message says which key and what would be right."""


def measured(values: Mapping[str, Any]) -> tuple[Chosen, tuple[Rule, ...]]:
    """What is measured, and the rules: a rule on something that needs nothing to be measured has it measured."""
    asked, rules = dict(section(values, "measures")), rules_of(section(values, "filters"))
    for rule in rules:
        if name := known_measures.measure_of(rule.column):
            asked[name] = asked.get(name) or True
    chosen = known_measures.choose(asked)
    for rule in rules:
        if rule.column in BY_NAME and rule.column not in chosen.columns:
            raise ConfigError(f"filters.{rule.column} needs a measure that fills it; see reelscribe profiles")
        labels = chosen.labels_of(rule.column)
        for word in (*rule.only, *rule.without) if labels else ():
            choose_word(f"label of {rule.column}", word, labels)
    return chosen, rules


def check_needs(rules: Iterable[Rule], hygiene: HygieneSettings | None) -> None:
    """Refuse rules about what only a hygiene tells that nobody asked for."""
    for rule in rules:
        part = {"harmful_text": "harmful", "caption_language": "language"}.get(rule.column)
        if part and not (hygiene and getattr(hygiene, part)):
            raise ConfigError(f"filters.{rule.column} needs hygiene: {{{part}: true}}")


def clip_files(asked: Any) -> ClipFileSettings | None:
    """Of `write_clips: encode`, or of a mapping with its settings; null and false ask for no files."""
    if asked is None or asked is False:
        return None
    settings = {"mode": asked} if isinstance(asked, str) else asked
    if not isinstance(settings, Mapping):
        raise ConfigError(f"write_clips must be copy, encode or a mapping with its settings, not {asked!r}")
    if "mode" in settings:
        choose_word("mode of write_clips", settings["mode"], MODES)
    return fill(ClipFileSettings, settings)


def duplicates(asked: Any, embedder: Entry) -> float | None:
    """Of `duplicates: true`, or of a mapping with a threshold if any; null and false ask for nothing."""
    if asked is None or asked is False:
        return None
    settings = {} if asked is True else asked
    if not isinstance(settings, Mapping):
        raise ConfigError(f"duplicates must be true, false or {{threshold: NUMBER}}, not {asked!r}")
    for key in settings:
        choose_word("key of duplicates", key, ["threshold"])
    threshold = settings.get("threshold", embedder.thresholds.duplicate if embedder.thresholds else None)
    if threshold is None:
        raise ConfigError(
            f"nobody has measured how near duplicates are for the embedder {embedder.name}: "
            "benchmarks/duplicates.py does; write duplicates: {threshold: ...}"
        )
    return check_threshold(threshold)


def card(asked: Mapping[str, Any]) -> dict[str, str]:
    """What the dataset's card is to say, in the words of the Hub's front matter."""
    for key, value in asked.items():
        choose_word("key of card", key, CARD)
        if value is not None and not (isinstance(value, str) and value.strip() and value.isprintable()):
            raise ConfigError(f"card.{key} must be a line of text, not {value!r}")
    license_id = asked.get("license")
    if license_id and not re.fullmatch(r"[a-z0-9.+-]+", license_id):
        raise ConfigError(f"card.license must be an identifier of the Hub, like cc-by-4.0 or other, not {license_id!r}")
    return {key: value for key, value in asked.items() if value}


def section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A section that is a mapping; an absent one is empty."""
    found = values.get(name) or {}
    if not isinstance(found, Mapping):
        raise ConfigError(f"{name} must be a mapping of keys to values")
    return found


def teachers(values: Any, all_known: bool, placement: Placement) -> list[Choice]:
    """The teachers of a list; `all_known` refuses those whose weights nobody has named."""
    if not isinstance(values, list) or not values:
        raise ConfigError("teachers must be a list of names or mappings, at least one")
    chosen = [choose("teacher", value, all_known) for value in values]
    names = [teacher.entry.name for teacher in chosen]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"there are two teachers {twice!r}; give each a name: of its own")
    if placement.teachers == "together" and (own := next((one for one in chosen if one.hints), None)):
        raise ConfigError(f"{own.entry.name} has workers of its own, but placement: {{teachers: together}}; drop one")
    return chosen


def check_licences(entries: Sequence[Entry], commercial_only: bool) -> None:
    """Refuse models whose licence restricts what they may be used for, where that was asked for."""
    told = catalogue.restrictions(entries)
    if commercial_only and told:
        raise ConfigError(f"--commercial-only refuses {told}")


def check_abstention(values: Mapping[str, Any], selector: Entry) -> None:
    """Refuse a selector whose directory only the workers hold, unless somebody says what it would have told here."""
    if "abstain_below" not in values and selector.settings and is_out_of_sight(selector.settings.weights):
        told = f"{selector.settings.weights} is not on this machine, so its {RECORD} can't say when to abstain"
        raise ConfigError(f"{told}; write abstain_below: the number that stands there, or null to abstain never")


#: What the stitching rules call the thresholds of an embedder.
_DISTANCES = {
    "transition_distance": "transition",
    "stitch_distance": "stitch",
    "still_distance": "still",
    "redundant_distance": "redundant",
}


def distances(embedder: Entry) -> dict[str, float]:
    """What the stitching rules start from with this embedder: nothing, where nobody has calibrated it."""
    limits = embedder.thresholds
    return {} if limits is None else {key: getattr(limits, name) for key, name in _DISTANCES.items()}


def complete(stitching: Mapping[str, Any], embedder: Entry) -> Mapping[str, Any]:
    """The stitching rules, refused if a distance is missing."""
    missing = [key for key in _DISTANCES if key not in stitching]
    if missing:
        how = f"reelscribe calibrate finds them; write stitching: {{{': ..., '.join(missing)}: ...}}"
        raise ConfigError(f"nobody has calibrated the distances of the embedder {embedder.name}: {how}")
    return stitching


def fill(kind: type, values: Mapping[str, Any]) -> Any:
    """A settings class with these values; a key that it has not is refused with the nearest right one."""
    names = [field.name for field in dataclasses.fields(kind)]
    for key in values:
        choose_word("key", key, names)
    return kind(**values)


def choose_word(what: str, name: Any, known: Iterable[str]) -> None:
    """Raise a `ConfigError` with the nearest right word unless `name` is one of those known."""
    try:
        check_word(what, name, known)
    except ValueError as error:
        raise ConfigError(str(error)) from error
