"""What the report counts: totals, the teacher leaderboard, rejects, failures and distributions, from Arrow tables.

    rows = leaderboard(read_table(directory, "clips"), read_table(directory, "failures"))

Everything here works column by column, because a dataset has millions of clips and each of them eight captions.
"""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

EXAMPLES_PER_FAILURE = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Totals:
    """The dataset in a few numbers. `videos_by_status` keeps the order ok, partial, failed, whatever else there is."""

    videos: int
    videos_by_status: dict[str, int]
    source_s: float
    clips: int
    clips_s: float
    abstained: int
    rejected: int
    rejected_s: float
    failures: int


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """One teacher on the leaderboard.

    Attributes:
      selective_rate: the share of all clips for which this teacher's caption was chosen (the paper's measure).
      mean_score: over all its captions; mean_margin: over the clips where it was chosen. None without any.
      failures: dead letters that carry its name.
    """

    teacher: str
    model: str
    captions: int
    chosen: int
    selective_rate: float
    mean_score: float | None
    mean_margin: float | None
    words: float | None
    failures: int


@dataclasses.dataclass(frozen=True, slots=True)
class Rejects:
    """The spans that one rule dropped; `quantiles` are the 10th, 50th and 90th percentile of what it measured."""

    stage: str
    reason: str
    spans: int
    seconds: float
    quantiles: tuple[float, float, float] | None
    thresholds: tuple[float, ...]


@dataclasses.dataclass
class Failures:
    """The dead letters of one stage and error class, with the first few that say different things."""

    stage: str
    error_class: str
    letters: int = 0
    videos: set[str] = dataclasses.field(default_factory=set)
    teachers: set[str] = dataclasses.field(default_factory=set)
    examples: list[dict[str, Any]] = dataclasses.field(default_factory=list)


def totals(clips: pa.Table, videos: pa.Table, rejected: pa.Table, failures: pa.Table) -> Totals:
    """Count the four tables."""
    found = dict(zip(*(column.to_pylist() for column in _value_counts(videos["status"])), strict=True))
    known = ("ok", "partial", "failed")
    return Totals(
        videos=videos.num_rows,
        videos_by_status={status: found.get(status, 0) for status in (*known, *sorted(set(found) - set(known)))},
        source_s=_total(videos["duration_s"]),
        clips=clips.num_rows,
        clips_s=_total(clips["duration_s"]),
        abstained=int(pc.sum(clips["abstained"]).as_py() or 0),
        rejected=rejected.num_rows,
        rejected_s=_total(rejected["end_s"]) - _total(rejected["start_s"]),
        failures=failures.num_rows,
    )


def leaderboard(clips: pa.Table, failures: pa.Table) -> list[Standing]:
    """Rank the teachers by how often they were chosen; one that only ever failed stands there too."""
    candidates = _candidates(clips)
    everything = pc.CountOptions(mode="all")
    counted = [("caption", "count", everything), ("model", "min"), ("score", "mean"), ("words", "mean")]
    made = _by_teacher(candidates, counted)
    chosen_clips = pa.table({"teacher": clips["teacher"], "margin": _finite(clips["margin"])})
    chosen = _by_teacher(chosen_clips, [([], "count_all"), ("margin", "mean")])
    failed = _by_teacher(failures.select(["teacher"]), [([], "count_all")])
    standings = [
        Standing(
            teacher=teacher,
            model=made.get(teacher, {}).get("model_min") or "",
            captions=made.get(teacher, {}).get("caption_count", 0),
            chosen=chosen.get(teacher, {}).get("count_all", 0),
            selective_rate=chosen.get(teacher, {}).get("count_all", 0) / max(1, clips.num_rows),
            mean_score=made.get(teacher, {}).get("score_mean"),
            mean_margin=chosen.get(teacher, {}).get("margin_mean"),
            words=made.get(teacher, {}).get("words_mean"),
            failures=failed.get(teacher, {}).get("count_all", 0),
        )
        for teacher in made.keys() | chosen.keys() | failed.keys()
    ]
    return sorted(standings, key=lambda row: (-row.chosen, -row.captions, row.teacher))


def rejects(rejected: pa.Table) -> list[Rejects]:
    """Group the rejected spans by stage and reason, the rule that dropped most seconds first."""
    if rejected.num_rows == 0:
        return []
    seconds = pc.subtract(rejected["end_s"], rejected["start_s"])
    keyed = rejected.select(["stage", "reason", "value", "threshold"]).append_column("seconds", seconds)
    groups = keyed.group_by(["stage", "reason"]).aggregate(
        [("seconds", "sum"), ([], "count_all"), ("value", "list"), ("threshold", "distinct")]
    )
    found: list[Rejects] = []
    for row in groups.select(["stage", "reason", "seconds_sum", "count_all"]).to_pylist():
        at = len(found)
        measured = finite_values(groups["value_list"][at].values)
        allowed = finite_values(groups["threshold_distinct"][at].values)
        low, middle, high = np.quantile(measured, [0.1, 0.5, 0.9]) if len(measured) else (0.0, 0.0, 0.0)
        found.append(
            Rejects(
                stage=row["stage"],
                reason=row["reason"],
                spans=row["count_all"],
                seconds=row["seconds_sum"] or 0.0,
                quantiles=(float(low), float(middle), float(high)) if len(measured) else None,
                thresholds=tuple(sorted(float(value) for value in allowed)),
            )
        )
    return sorted(found, key=lambda row: (-row.seconds, row.stage, row.reason))


def failure_groups(failures: pa.Table) -> list[Failures]:
    """Group the dead letters by stage and error class, the most frequent first."""
    groups: dict[tuple[str, str], Failures] = {}
    told: dict[tuple[str, str], set[str]] = collections.defaultdict(set)
    for batch in failures.to_batches(max_chunksize=1024):
        for letter in batch.to_pylist():
            key = (letter["stage"] or "", letter["error_class"] or "")
            group = groups.setdefault(key, Failures(*key))
            group.letters += 1
            if letter["video_id"]:
                group.videos.add(letter["video_id"])
            if letter["teacher"]:
                group.teachers.add(letter["teacher"])
            if len(group.examples) < EXAMPLES_PER_FAILURE and letter["message"] not in told[key]:
                told[key].add(letter["message"])
                group.examples.append(letter)
    return sorted(groups.values(), key=lambda group: (-group.letters, group.stage, group.error_class))


def distributions(clips: pa.Table) -> dict[str, np.ndarray]:
    """The values to draw: clip length in seconds, words of the chosen caption, its matching score and its margin."""
    words = pc.list_value_length(pc.utf8_split_whitespace(pc.utf8_trim_whitespace(clips["caption"])))
    return {
        "length": finite_values(clips["duration_s"]),
        "words": finite_values(words),
        "score": finite_values(clips["matching_score"]),
        "margin": finite_values(clips["margin"]),
    }


def finite_values(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """The numbers of a column that are there and finite, as doubles."""
    found = column.drop_null().cast(pa.float64()).to_numpy(zero_copy_only=False) if len(column) else np.empty(0)
    return found[np.isfinite(found)]


def _candidates(clips: pa.Table) -> pa.Table:
    flat = pc.list_flatten(clips["captions"])
    text = pc.struct_field(flat, "caption")
    return pa.table(
        {
            "teacher": pc.struct_field(flat, "teacher"),
            "model": pc.struct_field(flat, "model"),
            "caption": text,
            "score": _finite(pc.struct_field(flat, "matching_score")),
            "words": pc.list_value_length(pc.utf8_split_whitespace(pc.utf8_trim_whitespace(text))),
        }
    )


def _by_teacher(rows: pa.Table, aggregations: list[Any]) -> dict[str, dict[str, Any]]:
    if rows.num_rows == 0:
        return {}
    grouped = rows.group_by("teacher").aggregate(aggregations)
    return {row["teacher"]: row for row in grouped.to_pylist() if row["teacher"]}


def _finite(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """`column` in double precision with null in place of NaN and infinities, which would spoil every mean."""
    column = column.cast(pa.float64())
    return pc.if_else(pc.is_finite(column), column, pa.scalar(None, pa.float64()))


def _value_counts(column: pa.ChunkedArray) -> tuple[pa.Array, pa.Array]:
    counted = column.value_counts()
    return counted.field("values"), counted.field("counts")


def _total(column: pa.ChunkedArray) -> float:
    return float(pc.sum(column).as_py() or 0.0)
