"""YAML that a user brings, read as plain values: no objects, and no more of it than somebody would write.

    values = read_inert(pathlib.Path("mine.yaml").read_text("utf-8"))

Aliases let a few lines stand for a thousand million values, and every message that shows one would be written for ever.
"""

from __future__ import annotations

from typing import Any

import yaml

MAX_CHARACTERS = 1 << 20
MAX_VALUES = 100_000


def read_inert(text: str) -> Any:
    """Read one document.

    Raises:
      yaml.YAMLError: it is no YAML, names objects, or is larger than anybody means, its aliases written out.
    """
    if len(text) > MAX_CHARACTERS:
        raise yaml.YAMLError(f"it has more than {MAX_CHARACTERS:,} characters")
    try:
        values = yaml.safe_load(text)
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
    waiting, count = [values], 0
    while waiting:
        one = waiting.pop()
        count += 1
        if isinstance(one, dict):
            waiting.extend((*one.keys(), *one.values()))
        elif isinstance(one, list | set):
            waiting.extend(one)
        if count + len(waiting) > MAX_VALUES:
            raise yaml.YAMLError(f"it stands for more than {MAX_VALUES:,} values, or for itself")
    return values
