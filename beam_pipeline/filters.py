"""The rules by which a user keeps clips or drops them, as a configuration or a flag says them.

rules_of({"blur": {"max": 0.6}, "category": {"only": ["sports", "food"]}})
parsed("blur=..0.6")        # -> ("blur", {"max": 0.6})
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from beam_pipeline.choosing import check_word
from transforms.filtering import Rule
from transforms.schemas import CLIPS

_BOUNDS = {"min": "low", "max": "high"}
_VALUES = ("only", "without")


def rules_of(filters: Mapping[str, Any]) -> tuple[Rule, ...]:
    """The rules of a configuration; null and false ask for none.

    Raises:
      ValueError: one cannot be meant; the message says which, and names the nearest right word.
    """
    return tuple(_rule(column, asked) for column, asked in filters.items() if asked is not None and asked is not False)


def _rule(column: str, asked: Any) -> Rule:
    check_word("column to filter by", column, filterable())
    if not isinstance(asked, Mapping):
        raise ValueError(f"filters.{column} must be a mapping like {_example(column)}, not {asked!r}")
    said: dict[str, Any] = {}
    for key, value in asked.items():
        check_word(f"key of filters.{column}", key, _keys(column))
        if key in _BOUNDS:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"filters.{column}.{key} must be a number, not {value!r}")
            said[_BOUNDS[key]] = float(value)
        else:
            said[key] = _values(column, key, value)
    return Rule(column, **said)


def _values(column: str, key: str, value: Any) -> tuple[str | bool, ...]:
    values = value if isinstance(value, list) else [value]
    kind = bool if pa.types.is_boolean(CLIPS.field(column).type) else str
    if wrong := [one for one in values if type(one) is not kind]:
        what = "true or false" if kind is bool else "words"
        raise ValueError(f"filters.{column}.{key} must be {what}, not {wrong[0]!r}")
    return tuple(values)


def _keys(column: str) -> tuple[str, ...]:
    return tuple(_BOUNDS) if _is_number(column) else _VALUES


def _is_number(column: str) -> bool:
    kind = CLIPS.field(column).type
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)


def _example(column: str) -> str:
    if _is_number(column):
        return "{min: 0.1} or {max: 0.9}"
    return "{only: [false]}" if pa.types.is_boolean(CLIPS.field(column).type) else "{only: [a, b]} or {without: [c]}"


def filterable() -> list[str]:
    """The columns of `clips` that a rule can be about: numbers, texts and booleans that tell of the clip itself."""
    ids = {"clip_id", "video_id", "run_id", "fingerprint", "schema_version", "clip_file", "uri"}
    scalar = (pa.types.is_floating, pa.types.is_integer, pa.types.is_boolean, pa.types.is_string)
    return [field.name for field in CLIPS if field.name not in ids and any(is_(field.type) for is_ in scalar)]


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
