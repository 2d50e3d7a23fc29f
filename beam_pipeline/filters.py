"""The rules by which a user keeps clips or drops them, as a configuration or a flag says them.

rules_of({"blur": {"max": 0.6}, "category": {"only": ["sports", "food"]}})
parsed("blur=..0.6")        # -> ("blur", {"max": 0.6})
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from beam_pipeline.choosing import check_word
from transforms import gates
from transforms.filtering import Rule
from transforms.schemas import CLIPS

_BOUNDS = {"min": "low", "max": "high"}
_VALUES = ("only", "without")


#: Columns and their types: of clips, as their table has them, and of sources.
OF_CLIPS: Mapping[str, pa.DataType] = {field.name: field.type for field in CLIPS}
OF_SOURCES: Mapping[str, pa.DataType] = {name: pa.string() if name == "codec" else pa.float64() for name in gates.GATES}


def gates_of(asked: Mapping[str, Any]) -> tuple[Rule, ...]:
    """The rules on sources of a configuration, as `rules_of`."""
    return _rules("video_filters", asked, OF_SOURCES)


def rules_of(filters: Mapping[str, Any]) -> tuple[Rule, ...]:
    """The rules of a configuration on clips; null and false ask for none.

    Raises:
      ValueError: one cannot be meant; the message says which, and names the nearest right word.
    """
    return _rules("filters", filters, {name: OF_CLIPS[name] for name in filterable()})


def _rules(section: str, asked: Mapping[str, Any], kinds: Mapping[str, pa.DataType]) -> tuple[Rule, ...]:
    wanted = {column: said for column, said in asked.items() if said is not None and said is not False}
    for column in wanted:
        check_word("column to filter by", column, kinds)
    return tuple(_rule(section, column, said, kinds[column]) for column, said in wanted.items())


def _rule(section: str, column: str, asked: Any, kind: pa.DataType) -> Rule:
    is_number = pa.types.is_floating(kind) or pa.types.is_integer(kind)
    if not isinstance(asked, Mapping):
        example = "{min: 0.1} or {max: 0.9}" if is_number else "{only: [...]} or {without: [...]}"
        raise ValueError(f"{section}.{column} must be a mapping like {example}, not {asked!r}")
    said: dict[str, Any] = {}
    for key, value in asked.items():
        check_word(f"key of {section}.{column}", key, tuple(_BOUNDS) if is_number else _VALUES)
        if key in _BOUNDS:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{section}.{column}.{key} must be a number, not {value!r}")
            said[_BOUNDS[key]] = float(value)
        else:
            said[key] = _values(f"{section}.{column}.{key}", value, bool if pa.types.is_boolean(kind) else str)
    return Rule(column, **said)


def _values(where: str, value: Any, kind: type) -> tuple[str | bool, ...]:
    values = value if isinstance(value, list) else [value]
    if wrong := [one for one in values if type(one) is not kind]:
        raise ValueError(f"{where} must be {'true or false' if kind is bool else 'words'}, not {wrong[0]!r}")
    return tuple(values)


def filterable() -> list[str]:
    """The columns of `clips` that a rule can be about: numbers, texts and booleans that tell of the clip itself.

    Not what is decided when its row stands already: its file, and whether another clip shows the same.
    """
    ids = {"clip_id", "video_id", "run_id", "fingerprint", "schema_version", "uri"}
    ids |= {"clip_file", "duplicate_of", "duplicate_distance"}
    scalar = (pa.types.is_floating, pa.types.is_integer, pa.types.is_boolean, pa.types.is_string)
    return [name for name, kind in OF_CLIPS.items() if name not in ids and any(is_(kind) for is_ in scalar)]


def together(rules: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """What several flags say of each column.

    >>> together([("blur", {"min": 0.1}), ("blur", {"max": 0.6}), ("category", {"without": ["a"]})])
    {'blur': {'min': 0.1, 'max': 0.6}, 'category': {'without': ['a']}}

    Raises:
      ValueError: two of them say the same of one column, each in its way.
    """
    found: dict[str, dict[str, Any]] = {}
    for column, said in rules:
        known = found.setdefault(column, {})
        for key, value in said.items():
            if key in _VALUES:
                known[key] = [*known.get(key, []), *value]
            elif known.setdefault(key, value) != value:
                raise ValueError(f"two rules say the {key} of {column}: {known[key]:g} and {value:g}; keep one of them")
    return found


def parsed(text: str) -> tuple[str, dict[str, Any]]:
    """What a flag says: COLUMN=MIN..MAX with one of them left out or none, COLUMN=A,B or COLUMN=!A,B.

    >>> parsed("blur=..0.6"), parsed("category=!sports")
    (('blur', {'max': 0.6}), ('category', {'without': ['sports']}))

    Raises:
      ValueError: it is none of these.
    """
    column, sign, said = (part.strip() for part in text.partition("="))
    if not (column and sign and said):
        raise ValueError(f"{text!r} is no rule; write COLUMN=MIN..MAX, COLUMN=MIN.., COLUMN=..MAX or COLUMN=A,B")
    low, dots, high = said.partition("..")
    if dots:
        try:
            return column, {key: float(bound) for key, bound in (("min", low), ("max", high)) if bound.strip()}
        except ValueError:
            raise ValueError(f"{text!r}: the bounds must be numbers, like {column}=0.1..0.9") from None
    words = [word.strip() for word in said.removeprefix("!").split(",") if word.strip()]
    key = "without" if said.startswith("!") else "only"
    truths = {"true": True, "false": False}
    return column, {key: [truths.get(word, word) for word in words]}
