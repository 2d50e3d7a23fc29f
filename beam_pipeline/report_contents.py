"""What a report shows, gathered from a dataset directory: which clips, which videos, and how the newest run went.

    tables = load(dataset_dir); run = newest_run(dataset_dir, tables.videos); shown = sample_clips(tables.clips, 500)

The tables are read without embeddings, and only what is committed.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import json
import unicodedata
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipeline.runs import records_of
from transforms.files import name_of
from transforms.measure_columns import BY_NAME
from transforms.schemas import CLEAN_STAGE, HEAR_STAGE, MEASURE_STAGE, MEDIA_STAGE
from transforms.tables import Snapshot

CLIP_COLUMNS = [
    *("clip_id", "video_id", "uri", "title", "start_s", "end_s", "duration_s", "width", "height"),
    *("caption", "teacher", "matching_score", "margin", "abstained", "captions", "subtitles"),
    *BY_NAME,
    *("harmful_text", "duplicate_of", "clip_file"),
]
VIDEO_COLUMNS = [
    *("video_id", "uri", "title", "duration_s", "width", "height", "fps", "codec", "size_bytes"),
    *("n_shots", "n_clips", "n_rejected", "n_failures", "status", "run_id"),
]
#: What a dropped clip had come to, embedding and captions, is no part of a report.
REJECTED_COLUMNS = ["video_id", "start_s", "end_s", "stage", "reason", "value", "threshold", *BY_NAME]
STATUS_ORDER = {"failed": 0, "partial": 1, "ok": 2}


@dataclasses.dataclass(frozen=True, slots=True)
class Tables:
    """The four tables as of one moment."""

    clips: pa.Table
    videos: pa.Table
    rejected: pa.Table
    failures: pa.Table


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a run: what it counted, how long it took, what it read or wrote. None where the run doesn't say."""

    name: str
    seconds: float | None
    counted: str
    size_bytes: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """A run as its JSON tells it.

    Attributes:
      status: 'running', 'done' and so on, as the run says.
      wall_s: from start to end. video_s: footage that this run committed.
      counts: plain numbers that belong to no stage. record: the whole JSON, indented.
    """

    run_id: str
    status: str
    started: str
    finished: str
    wall_s: float | None
    video_s: float
    stages: tuple[Stage, ...]
    counts: tuple[tuple[str, str], ...]
    record: str
    n_runs: int

    @property
    def rate(self) -> float | None:
        """Seconds of footage a second of the run."""
        return self.video_s / self.wall_s if self.wall_s and self.video_s else None


def load(dataset_dir: str) -> Tables:
    """Read what a report needs of the four tables, all as of the same moment."""
    while True:
        snapshot = Snapshot.open(dataset_dir)
        try:
            return Tables(
                clips=snapshot.read("clips", CLIP_COLUMNS),
                videos=snapshot.read("videos", VIDEO_COLUMNS),
                rejected=snapshot.read("rejected", REJECTED_COLUMNS),
                failures=snapshot.read("failures"),
            )
        except FileNotFoundError:
            # A finishing run removed superseded files meanwhile; what replaced them stands in the next snapshot.
            continue


def sample_clips(clips: pa.Table, most: int) -> pa.Table:
    """At most `most` clips: in turn one of each video, so that all videos are seen, spread over each video's length.

    The rows come video by video, each in time order, so that one reel at a time is open.
    """
    order = pc.sort_indices(clips, [("video_id", "ascending"), ("start_s", "ascending")])
    if clips.num_rows <= most:
        return clips.take(order)
    of_video: dict[str, list[int]] = collections.defaultdict(list)
    for row, video_id in zip(order.to_pylist(), clips["video_id"].take(order).to_pylist(), strict=True):
        of_video[video_id].append(row)
    share = _shares([len(rows) for rows in of_video.values()], most)
    taken = []
    for rows, number in zip(of_video.values(), share, strict=True):
        taken += [rows[int((turn + 0.5) * len(rows) / number)] for turn in range(number)]
    return clips.take(pa.array(taken, pa.int64()))


def sample_videos(videos: pa.Table, most: int) -> list[dict[str, Any]]:
    """At most `most` videos, those that need a look first: failed, partial, then the rest, by URI."""
    keyed = videos.append_column(
        "order", pa.array([STATUS_ORDER.get(s, 3) for s in videos["status"].to_pylist()], pa.int32())
    )
    order = pc.sort_indices(keyed, [("order", "ascending"), ("uri", "ascending")])
    return videos.take(order[:most]).to_pylist()


def spans_by_video(tables: Tables, video_ids: list[str]) -> dict[str, list[tuple[str, float, float]]]:
    """For each video its (kind, start_s, end_s): rejected, accepted, failed, in the order of painting."""
    wanted = pa.array(video_ids, pa.string())
    spans: dict[str, list[tuple[str, float, float]]] = collections.defaultdict(list)
    # A teacher's failure costs a caption, a measurement's a number and a file's the file, so only other letters mark a
    # span as failed.
    letters = tables.failures
    spared = pc.is_in(letters["stage"], pa.array([HEAR_STAGE, MEASURE_STAGE, CLEAN_STAGE, MEDIA_STAGE]))
    costly = pc.and_(pc.is_null(letters["teacher"]), pc.invert(spared))
    lost = letters.filter(pc.and_(costly, pc.is_valid(letters["start_s"])))
    for kind, table in (("rejected", tables.rejected), ("accepted", tables.clips), ("failed", lost)):
        rows = table.filter(pc.is_in(table["video_id"], wanted)).select(["video_id", "start_s", "end_s"])
        for row in rows.to_pylist():
            if row["start_s"] is not None and row["end_s"] is not None:
                spans[row["video_id"]].append((kind, row["start_s"], row["end_s"]))
    return spans


def newest_run(dataset_dir: str, videos: pa.Table) -> Run | None:
    """The run that began last, or None. Runs that can't be read are passed over, and keys that are absent are blank."""
    records = [
        (_moment(record, "started"), name_of(path).removesuffix(".json"), record)
        for path, record in records_of(dataset_dir)
    ]
    if not records:
        return None
    started, stem, record = max(records, key=lambda found: found[:2])
    run_id, finished = str(record.get("run_id") or stem), _moment(record, "finished")
    own = videos.filter(pc.equal(videos["run_id"], run_id))
    committed_ms = _number(_mapping(record.get("counts")).get("video_ms"))
    return Run(
        run_id=run_id,
        status=str(record.get("status") or ""),
        started=started,
        finished=finished,
        wall_s=_wall_seconds(record, started, finished),
        video_s=committed_ms / 1000 if committed_ms else float(pc.sum(own["duration_s"]).as_py() or 0.0),
        stages=_stages(record),
        counts=_loose_counts(record),
        record=json.dumps(_abridged(record), indent=2, ensure_ascii=False),
        n_runs=len(records),
    )


def legible(text: object, most: int = 1000) -> str:
    """Text of strangers, cut to a bounded length, its control characters made visible."""
    told = "" if text is None else str(text)
    cut = told if len(told) <= most else f"{told[:most].rstrip()} … ({len(told) - most:,} more characters)"
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) == "Cc" and c not in "\n\t" else c for c in cut
    )


def _shares(sizes: list[int], most: int) -> list[int]:
    """How many of each group to take, `most` in sum: in rounds one of every group that still has some."""
    share = np.zeros(len(sizes), dtype=np.int64)
    left = np.asarray(sizes, dtype=np.int64)
    while most > 0 and left.any():
        open_groups = np.flatnonzero(left)
        each = max(1, min(int(left[open_groups].min()), most // len(open_groups)))
        # A last round that can't reach all groups goes to groups spread over the whole list.
        chosen = (
            open_groups
            if most >= len(open_groups)
            else open_groups[np.linspace(0, len(open_groups) - 1, most).astype(int)]
        )
        share[chosen] += each
        left[chosen] -= each
        most -= each * len(chosen)
    return [int(number) for number in share]


def _moment(record: Mapping[str, Any], word: str) -> str:
    return str(next((record[key] for key in (f"{word}_at", word, f"{word}_s") if record.get(key)), ""))


def _wall_seconds(record: Mapping[str, Any], started: str, finished: str) -> float | None:
    seconds = record.get("seconds")
    nested = seconds if isinstance(seconds, dict) else {}
    for value in (record.get("wall_s"), record.get("elapsed_s"), nested.get("wall"), nested.get("total"), seconds):
        if isinstance(value, int | float) and value > 0:
            return float(value)
    try:
        between = datetime.datetime.fromisoformat(finished) - datetime.datetime.fromisoformat(started)
    except (ValueError, TypeError):
        return None
    return between.total_seconds() or None


def _stages(record: Mapping[str, Any]) -> tuple[Stage, ...]:
    """The stages in the order of their seconds; what only read, wrote or counted follows."""
    seconds, sizes = _mapping(record.get("seconds")), _mapping(record.get("bytes"))
    counts, _ = _counts(record)
    names = dict.fromkeys((*(name for name in seconds if name not in ("wall", "total")), *sizes, *counts))
    stages = []
    for name in names:
        took, written = _number(seconds.get(name)), _number(sizes.get(name))
        stages.append(Stage(name, took, _counted(counts.get(name)), None if written is None else int(written)))
    return tuple(stages)


def _counts(record: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """What was counted by stage, from `{"stitch clips": 45}` as from `{"stitch": {"clips": 45}}`, and all the rest."""
    staged: dict[str, dict[str, Any]] = {}
    rest = {}
    for name, value in _mapping(record.get("counts")).items():
        stage, _, counter = name.partition(" ")
        if isinstance(value, dict):
            staged.setdefault(name, {}).update(value)
        elif counter and stage:
            staged.setdefault(stage, {})[counter] = value
        else:
            rest[name] = value
    return staged, rest


def _loose_counts(record: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    _, rest = _counts(record)
    return tuple(
        (f"{name.removesuffix('_ms')} seconds", f"{number / 1000:,.1f}")
        if name.endswith("_ms") and number is not None
        else (name, _counted(value))
        for name, value in rest.items()
        for number in [_number(value)]
    )


def _counted(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_counted(number)}" for name, number in value.items())
    return f"{value:,}" if isinstance(value, int | float) else "" if value is None else str(value)


def _number(value: object) -> float | None:
    """The number in `value`, or the sum of a mapping's numbers."""
    if isinstance(value, dict):
        return sum(_number(part) or 0.0 for part in value.values())
    return float(value) if isinstance(value, int | float) and np.isfinite(value) else None


def _abridged(value: Any, most: int = 40) -> Any:
    """A JSON value whose long lists end in a count: a run over a million videos lists them all."""
    if isinstance(value, dict):
        return {name: _abridged(part, most) for name, part in value.items()}
    if isinstance(value, list):
        rest = [f"… and {len(value) - most:,} more"] if len(value) > most else []
        return [*(_abridged(part, most) for part in value[:most]), *rest]
    return value


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
