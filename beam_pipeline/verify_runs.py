"""The part of the audit that looks at the records of runs: each accounts for all of its inputs.

runs, breaches = read_runs("out")
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from transforms.tables import Directory

OUTCOMES = ("committed", "unchanged", "failed")


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """One `runs/*.json`. `inputs` is None when the run did not live to list them."""

    run_id: str
    started: str
    finished: bool
    keeps_reels: bool
    inputs: list[dict[str, Any]] | None
    counts: Mapping[str, Any]


def read_runs(dataset_dir: Directory) -> tuple[list[RunRecord], list[str]]:
    """The run records that can be read, and a breach for each that can't."""
    runs, breaches = [], []
    for path in sorted(pathlib.Path(os.fspath(dataset_dir)).glob("runs/*.json")):
        try:
            runs.append(_parse(json.loads(path.read_text(encoding="utf-8")), path.stem))
        except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            breaches.append(f"runs/{path.name}: it can't be read: {type(error).__name__}: {error}")
    return runs, breaches


def _parse(record: Mapping[str, Any], stem: str) -> RunRecord:
    inputs = record.get("inputs")
    if inputs is not None:
        inputs = [{"video_id": str(one["video_id"]), "outcome": one.get("outcome")} for one in inputs]
    counts = record.get("counts") or {}
    return RunRecord(
        run_id=str(record.get("run_id", stem)),
        started=str(record.get("started_at") or ""),
        finished=record.get("status") == "done",
        keeps_reels=bool((record.get("options") or {}).get("keep_reels", True)),
        inputs=inputs,
        counts=dict(counts),
    )


def run_of(row: Mapping[str, Any]) -> str:
    """The run that a row is of; the second version of a video in one run says "RUN--2"."""
    return row["run_id"].partition("--")[0]


def needing_reels(runs: list[RunRecord]) -> set[str]:
    """The runs whose videos must have a reel: those that kept reels, unless a later one dropped all."""
    last_drop = max((run.started for run in runs if not run.keeps_reels), default="")
    return {run.run_id for run in runs if run.keeps_reels and run.started > last_drop}


def check_runs(runs: list[RunRecord], videos: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Each finished run's inputs = committed + unchanged + failed, and the videos it speaks of stand.

    Args:
      videos: `run_id` and `status` by video_id.
    """
    for run in runs:
        if not run.finished or run.inputs is None:
            continue
        where = f"runs/{run.run_id}"
        outcomes = collections.Counter(one["outcome"] for one in run.inputs)
        for unknown in sorted(str(outcome) for outcome in outcomes.keys() - set(OUTCOMES)):
            yield f"{where}: inputs have the outcome {unknown!r}"
        told = {"inputs": len(run.inputs), **{outcome: outcomes[outcome] for outcome in OUTCOMES}}
        for name, number in told.items():
            if run.counts.get(name, number) != number:
                yield f"{where}: it counts {run.counts[name]} {name}, but lists {number}"
        for video_id, times in collections.Counter(one["video_id"] for one in run.inputs).items():
            if times > 1:
                yield f"{where}: the input {video_id} is listed {times} times"
        for one in run.inputs:
            yield from _check_input(where, run.run_id, one, videos.get(one["video_id"]))


def _check_input(where: str, run_id: str, one: Mapping[str, Any], video: Mapping[str, str] | None) -> Iterator[str]:
    if video is None:
        yield f"{where}: the input {one['video_id']} has no row in videos"
    elif run_of(video) == run_id and (one["outcome"] == "failed") != (video["status"] == "failed"):
        yield f"{where}: {one['video_id']} is listed as {one['outcome']}, its status is {video['status']}"
