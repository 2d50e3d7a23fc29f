"""Panda-70M's own CSV: a row a source, whose lists are written as Python's literals.

    for source in read_csv("export/clips.csv"): print(source["videoID"], source["caption"][0])

Columns: `videoID`, `url`, `timestamp` ([["H:MM:SS.mmm", "H:MM:SS.mmm"], ...]), `caption`, `matching_score`,
`desirable_filtering`, `shot_boundary_detection` (for each clip its shots, in times from the clip's start).
`desirable_filtering` holds None where desirability was not measured, and so does `matching_score` where there is none.

A spreadsheet takes a cell that begins with = + - @, a tab or a carriage return for a formula, and an id or a URI may.
Such cells, and those that begin with an apostrophe, get an apostrophe in front, which `read_csv` takes away. Cells of
lists begin with a bracket and never need one.
"""

from __future__ import annotations

import ast
import contextlib
import csv
import io
import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from transforms.by_source import Source, Sources
from transforms.files import reading
from transforms.new_folders import NewFolder
from transforms.timecodes import timecode

LISTS = ("timestamp", "caption", "matching_score", "desirable_filtering", "shot_boundary_detection")
COLUMNS = ("videoID", "url", *LISTS)

_BEGINS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


def neutral(text: str) -> str:
    """Text that no spreadsheet takes for a formula.

    >>> neutral("=1+1"), neutral("a=1"), neutral("'quoted'")
    ("'=1+1", 'a=1', "''quoted'")
    """
    return f"'{text}" if text.startswith(_BEGINS_A_FORMULA) else text


def as_was(cell: str) -> str:
    """The text that `neutral` made a cell of."""
    return cell.removeprefix("'")


def source_row(source: Source) -> list[str]:
    """The cells of a source."""
    columns = ["start_s", "end_s", "timestamp", "caption", "matching_score", "shots", "desirable_filtering"]
    clips = source.clips.select(columns).to_pylist()
    lists = (
        [clip["timestamp"] for clip in clips],
        [clip["caption"] for clip in clips],
        [_score(clip["matching_score"]) for clip in clips],
        [clip["desirable_filtering"] for clip in clips],
        [_shots(clip) for clip in clips],
    )
    return [neutral(source.video["video_id"]), neutral(source.video["uri"]), *map(repr, lists)]


def _score(score: float | None) -> float | None:
    """A float32 in as few digits as tell it from its neighbours; what is no literal of Python's becomes None."""
    return float(str(np.float32(score))) if score is not None and math.isfinite(score) else None


def _shots(clip: dict[str, Any]) -> list[list[str]]:
    start_s, end_s = clip["start_s"], clip["end_s"]
    within = ((max(shot["start_s"], start_s), min(shot["end_s"], end_s)) for shot in clip["shots"])
    return [[timecode(first - start_s), timecode(last - start_s)] for first, last in within if first < last]


def write_csv(folder: NewFolder, name: str, sources: Sources, counts: dict[str, int]) -> None:
    """Write all sources into one file; add to the counts of `sources` and `clips`."""
    with folder.writing(name) as (file, entry):
        writer = csv.writer(_Encoded(file), lineterminator="\n")
        writer.writerow(COLUMNS)
        for source in sources:
            writer.writerow(source_row(source))
            counts["sources"] += 1
            counts["clips"] += source.clips.num_rows
        entry["clips"] = counts["clips"]


class _Encoded:
    """What `csv` writes to: a `TextIOWrapper` would close the file under its owner."""

    def __init__(self, file: io.RawIOBase):
        self._file = file

    def write(self, text: str) -> None:
        self._file.write(text.encode())


def read_csv(path: str) -> Iterator[dict[str, Any]]:
    """The sources of such a file, ours or Panda-70M's, with lists for lists."""
    with reading(path) as file, contextlib.closing(io.TextIOWrapper(file, "utf-8", newline="")) as text:
        csv.field_size_limit(sys.maxsize)  # A long video's captions are more than the 131,072 characters allowed.
        for row in csv.DictReader(text):
            yield {name: ast.literal_eval(cell) if name in LISTS else as_was(cell) for name, cell in row.items()}
