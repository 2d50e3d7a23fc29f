"""The part of the audit that looks at the records of runs: each accounts for all of its inputs.

runs, breaches = read_runs("out")
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from beam_pipeline.runs import record_paths
from transforms.files import Directory, name_of, read
from transforms.schemas import TABLES, base_run
from transforms.tables import Snapshot, scan_files
from transforms.tombstones import PREFIX, Tombstone, files_of

OUTCOMES = ("committed", "unchanged", "failed")


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """One `runs/*.json`. `inputs` is None when the run did not live to list them; `took_down` are videos."""

    run_id: str
    started: str
    finished: bool
    keeps_reels: bool
    inputs: list[dict[str, Any]] | None
    counts: Mapping[str, Any]
    took_down: frozenset[str] = frozenset()


def read_runs(dataset_dir: Directory) -> tuple[list[RunRecord], list[str]]:
    """The run records that can be read, and a breach for each that can't."""
    runs, breaches = [], []
    for path in record_paths(dataset_dir):
        name = name_of(path)
        try:
            runs.append(_parse(json.loads(read(path)), name.removesuffix(".json")))
        except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            breaches.append(f"runs/{name}: it can't be read: {type(error).__name__}: {error}")
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
        took_down=Tombstone.parse(record).videos if stem.startswith(PREFIX) else frozenset(),
    )


def run_of(row: Mapping[str, Any]) -> str:
    """The run that a row is of."""
    return base_run(row["run_id"])


def needing_reels(runs: list[RunRecord]) -> set[str]:
    """The runs whose videos must have a reel: those that kept reels, unless a later one dropped all."""
    last_drop = max((run.started for run in runs if not run.keeps_reels), default="")
    return {run.run_id for run in runs if run.keeps_reels and run.started > last_drop}


def newest_run(runs: list[RunRecord]) -> RunRecord | None:
    """The run that began last; of those that began in one second, one that did not finish."""
    return max(runs, key=lambda run: (run.started, not run.finished), default=None)


def taken_down(runs: list[RunRecord]) -> frozenset[str]:
    """The videos that have a tombstone."""
    return frozenset().union(*(run.took_down for run in runs))


def check_runs(runs: list[RunRecord], videos: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Each finished run's inputs = committed + unchanged + failed, and the videos it speaks of stand.

    Those that were taken down later don't, and need not.

    Args:
      videos: `run_id` and `status` by video_id.
    """
    gone = taken_down(runs)
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
            if one["video_id"] in gone and one["video_id"] not in videos:
                continue
            yield from _check_input(where, run.run_id, one, videos.get(one["video_id"]))


def _check_input(where: str, run_id: str, one: Mapping[str, Any], video: Mapping[str, str] | None) -> Iterator[str]:
    if video is None:
        yield f"{where}: the input {one['video_id']} has no row in videos"
    elif run_of(video) == run_id and (one["outcome"] == "failed") != (video["status"] == "failed"):
        yield f"{where}: {one['video_id']} is listed as {one['outcome']}, its status is {video['status']}"


def check_takedowns(runs: list[RunRecord], snapshot: Snapshot, *, orderly: bool) -> Iterator[str]:
    """Of a video that was taken down nothing is left; of one that is being taken down, something may be.

    Args:
      orderly: whether the last writer left in good order; then no takedown is still at work.
    """
    begun = {run.run_id: run.took_down for run in runs if run.took_down and not run.finished}
    if orderly:
        for run_id, videos in begun.items():
            yield f"runs/{run_id}: it did not finish; {_again(snapshot, min(videos))}"
    gone = taken_down(runs).difference(*begun.values())
    if not gone:
        return
    wanted = pa.array(sorted(gone), pa.string())
    for name in TABLES:
        rows: collections.Counter[str] = collections.Counter()
        for batch in scan_files(snapshot.files[name], TABLES[name], ["video_id"]):
            ids = batch.column("video_id")
            rows.update(ids.filter(pc.is_in(ids, wanted)).to_pylist())
        for video_id, number in sorted(rows.items()):
            yield f"{video_id}: it was taken down, yet {name} has {number} rows of it; {_again(snapshot, video_id)}"
    for folder, owners in files_of(snapshot.directory, gone).items():
        for path, video_id in owners.items():
            yield f"{video_id}: it was taken down, yet {folder}/ has {name_of(path)}; {_again(snapshot, video_id)}"


def _again(snapshot: Snapshot, video_id: str) -> str:
    return f"run: reelscribe takedown {os.fspath(snapshot.directory)} --video={video_id}"
