"""YAML that a user brings, read as plain values: no objects, and no more of it than somebody would write.

    values = read_inert(pathlib.Path("mine.yaml").read_text("utf-8"))

Aliases let a few lines stand for a thousand million values, and every message that shows one would be written for ever.
A merge (`<<`) writes them out while the values are made, so what is counted are the nodes, before there are values.
"""

from __future__ import annotations

from typing import Any

import yaml

MAX_CHARACTERS = 1 << 20
MAX_VALUES = 100_000
#: Of a number; Python takes minutes over one of a million digits, and does not show it.
_MAX_DIGITS = 1000
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def read_inert(text: str) -> Any:
    """Read one document.

    Raises:
      yaml.YAMLError: it is no YAML, names objects, or is larger than anybody means, its aliases written out.
    """
    if len(text) > MAX_CHARACTERS:
        raise yaml.YAMLError(f"it has more than {MAX_CHARACTERS:,} characters")
    try:
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return None
            _check(root)
            return loader.construct_document(root)
        finally:
            loader.dispose()
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
    except (ValueError, ArithmeticError, LookupError, AttributeError, TypeError) as error:
        # What PyYAML's constructors raise over a day that there is not, or a tag that its text does not fit.
        raise yaml.YAMLError(f"a value is not what it looks like or its tag says: {error}") from error


def _check(root: yaml.Node) -> None:
    waiting, count = [root], 0
    while waiting:
        one = waiting.pop()
        count += 1
        if isinstance(one, yaml.MappingNode):
            waiting.extend(part for pair in one.value for part in pair)
        elif isinstance(one, yaml.SequenceNode):
            waiting.extend(one.value)
        elif one.tag in _NUMBERS and len(one.value) > _MAX_DIGITS:
            raise yaml.YAMLError(f"a number has more than {_MAX_DIGITS:,} digits; text stands in quotation marks")
        if count + len(waiting) > MAX_VALUES:
            raise yaml.YAMLError(f"it stands for more than {MAX_VALUES:,} values, or for itself")
