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
#: What two runs need not agree in: which of them it was, when something failed, and where in the code.
OF_A_RUN = frozenset(["run_id", "failed_at", "detail"])
_CHOICE = frozenset(["caption", "teacher", "matching_score", "margin", "abstained"])

Directory = str | os.PathLike[str]


def differences(
    one: Directory,
    other: Directory,
    *,
    but: str = "",
    ignoring: frozenset[str] = OF_A_RUN,
    either_of_a_tie: bool = False,
) -> list[str]:
    """Where two datasets differ, each difference as a line.

    Args:
      but: leave out the videos whose id begins so, as their file's name does. ignoring: columns.
      either_of_a_tie: of two captions as good as each other either may have been chosen.
    """
    found: list[str] = []
    for table in TABLES:
        rows, others = (_rows(directory, table, but) for directory in (one, other))
        if len(rows) != len(others):
            found.append(f"{table}: {len(rows)} rows and {len(others)}")
            continue
        for row, its_twin in zip(rows, others, strict=True):
            is_tie = table == "clips" and min(row["margin"] or 1.0, its_twin["margin"] or 1.0) <= TOLERANCE
            left_out = ignoring | (_CHOICE if is_tie and either_of_a_tie else frozenset())
            columns = sorted((row.keys() | its_twin.keys()) - left_out)
            told = (line for name in columns for line in _compare(row.get(name), its_twin.get(name), name))
            found += (f"{table} {_name(row)} {line}" for line in told)
    return found


def _rows(directory: Directory, table: str, but: str) -> list[dict[str, Any]]:
    rows = read_table(directory, table).to_pylist()
    return sorted((row for row in rows if not but or not row["video_id"].startswith(but)), key=_name)


def _name(row: dict[str, Any]) -> str:
    keys = ("video_id", "clip_id", "stage", "teacher", "start_s", "end_s")
    return json.dumps([_key(row.get(key)) for key in keys])


def _key(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value or ""


def _compare(one: Any, other: Any, where: str) -> Iterator[str]:
    if isinstance(one, float) and isinstance(other, float):
        if not math.isclose(one, other, rel_tol=0.0, abs_tol=TOLERANCE):
            yield f"{where}: {one!r}, {other!r}"
    elif isinstance(one, dict) and isinstance(other, dict):
        for name in sorted(one.keys() | other.keys()):
            yield from _compare(one.get(name), other.get(name), f"{where}.{name}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for place, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from _compare(a, b, f"{where}[{place}]")
    elif one != other:
        yield f"{where}: {one!r}, {other!r}"
