"""When two datasets are the same: all but the runs that made them and the moments of failures, floats within 1e-4.

assert differences("one", "other") == []
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from typing import Any

from transforms.tables import TABLES, read_table

TOLERANCE = 1e-4
_OF_A_RUN = frozenset(["run_id", "failed_at", "detail"])
#: Of two captions as good as each other either may be chosen.
_CHOICE = frozenset(["caption", "teacher", "matching_score", "margin", "abstained"])


def differences(
    one: str | os.PathLike[str], other: str | os.PathLike[str], ignoring: frozenset[str] = frozenset()
) -> list[str]:
    """Where two datasets differ, each difference as a line; `ignoring` names columns, such as `etag`."""
    skipped = _OF_A_RUN | ignoring
    found: list[str] = []
    for table in TABLES:
        rows, others = (_rows(directory, table) for directory in (one, other))
        if len(rows) != len(others):
            found.append(f"{table}: {len(rows)} rows and {len(others)}")
            continue
        for row, its_twin in zip(rows, others, strict=True):
            close = table == "clips" and min(row["margin"] or 1.0, its_twin["margin"] or 1.0) <= TOLERANCE
            left_out = skipped | (_CHOICE if close else frozenset())
            found += (f"{table} {_name(row)} {told}" for told in _compare(row, its_twin, "", left_out))
    return found


def _rows(directory: str | os.PathLike[str], table: str) -> list[dict[str, Any]]:
    return sorted(read_table(directory, table).to_pylist(), key=_name)


def _name(row: dict[str, Any]) -> str:
    keys = ("video_id", "clip_id", "stage", "teacher", "start_s", "end_s")
    return json.dumps([_key(row.get(key)) for key in keys])


def _key(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value or ""


def _compare(one: Any, other: Any, where: str, skipped: frozenset[str]) -> Iterator[str]:
    if isinstance(one, float) and isinstance(other, float):
        if not math.isclose(one, other, rel_tol=0.0, abs_tol=TOLERANCE):
            yield f"{where}: {one!r}, {other!r}"
    elif isinstance(one, dict) and isinstance(other, dict):
        for name in one.keys() - skipped:
            yield from _compare(one[name], other.get(name), f"{where}.{name}", skipped if not where else frozenset())
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for place, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from _compare(a, b, f"{where}[{place}]", skipped)
    elif one != other:
        yield f"{where}: {one!r}, {other!r}"
