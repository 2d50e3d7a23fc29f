"""Audit a dataset: do its tables, files, reels and run records agree with each other?

    audit("out").breaches      # -> [] or one plain sentence a breach

What a killed run left is no breach: rows whose video was never committed, and files that never got into a table, are
counted ("uncommitted", "stray_files") and go away with the next run. They are breaches only when the last writer left
in good order, because then readers of the bare Parquet files would see them.

What it needs to know of a run, and in which form, stands in `beam_pipeline.verify_runs`.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from beam_pipeline.duplicates import check_duplicates
from beam_pipeline.verify_media import check_media
from beam_pipeline.verify_runs import (
    RunRecord,
    check_runs,
    check_takedowns,
    needing_reels,
    newest_run,
    read_runs,
    run_of,
    taken_down,
)
from beam_pipeline.verify_spans import VideoSpans, check_clip, check_tiling, group_spans
from transforms.files import Directory, list_files, name_of, reading
from transforms.judgements import check_annotations
from transforms.lease import read_lease
from transforms.reel import Reel, ReelError
from transforms.reels import reels_of
from transforms.schemas import SAFE_ID, STATUSES, TABLES, earlier_schemas
from transforms.tables import Snapshot, scan_files, table_uri

#: Of a dataset that is badly wrong the first breaches tell as much as the millionth.
MOST_BREACHES = 1000

#: A breach in a dataset that changed meanwhile may only be a file that is gone; so it is looked at again.
_LOOKS = 5


@dataclasses.dataclass(frozen=True)
class Audit:
    """What an audit found: breaches in plain sentences, and how many there are of what was looked at."""

    breaches: list[str]
    counts: dict[str, int]

    def describe(self) -> str:
        """The counts and the verdict, as lines for people."""
        lines = [f"{name.replace('_', ' '):20} {number}" for name, number in self.counts.items()]
        verdict = f"{len(self.breaches)} breaches" if self.breaches else "no breach"
        return "\n".join([*lines, verdict])


def verify(dataset_dir: Directory) -> list[str]:
    """The breaches of `audit`."""
    return audit(dataset_dir).breaches


def audit(dataset_dir: Directory) -> Audit:
    """Check a dataset; it may be written to meanwhile.

    Raises:
      NoDataset: there is none.
    """
    for _ in range(_LOOKS):
        # Before the snapshot: a writer that has left by now can't have left anything that the snapshot misses.
        orderly = read_lease(dataset_dir) is None
        snapshot = Snapshot.open(dataset_dir)
        try:
            found = _audit(dataset_dir, snapshot, orderly)
        except FileNotFoundError:
            found = None
        if found is not None and (not found.breaches or not snapshot.is_outdated()):
            return found
    if found is None:
        raise TimeoutError(f"files of {dataset_dir} keep vanishing; verify it again when the run has finished")
    return found


def _audit(dataset_dir: Directory, snapshot: Snapshot, orderly: bool) -> Audit:
    runs, breaches = read_runs(dataset_dir)
    newest = newest_run(runs)
    counts: collections.Counter[str] = collections.Counter()
    auditor = _Auditor(dataset_dir, snapshot, counts, orderly and (newest is None or newest.finished))
    for found in auditor.run(runs):
        breaches.append(found)
        if len(breaches) >= MOST_BREACHES:
            breaches.append(f"and perhaps more: stopped after {MOST_BREACHES} breaches")
            break
    return Audit(breaches, dict(sorted(counts.items())))


class _Auditor:
    def __init__(self, dataset_dir: Directory, snapshot: Snapshot, counts: collections.Counter[str], orderly: bool):
        self._dir = dataset_dir
        self._snapshot = snapshot
        self._counts = counts
        self._orderly = orderly

    def run(self, runs: list[RunRecord]) -> Iterator[str]:
        unreadable = list(self._files())
        yield from unreadable
        if unreadable:
            return
        yield from self._folders()
        videos = self._snapshot.read("videos")
        self._counts["videos"] = videos.num_rows
        for status in STATUSES:
            self._counts[f"videos_{status}"] = pc.sum(pc.equal(videos["status"], status)).as_py() or 0
        yield from _ids("videos", "video_id", videos["video_id"])
        yield from self._leftovers()
        spans = group_spans(self._snapshot)
        yield from self._clips()
        yield from check_duplicates(self._snapshot, self._counts, orderly=self._orderly)
        yield from check_media(self._dir, self._snapshot, self._counts, orderly=self._orderly)
        yield from self._videos(videos, spans, needing_reels(runs))
        yield from check_annotations(self._dir)
        yield from check_runs(runs, {row["video_id"]: row for row in _brief(videos)})
        yield from check_takedowns(runs, self._snapshot, orderly=self._orderly)
        self._counts["taken_down"] = len(taken_down(runs))
        self._counts["runs"] = len(runs)

    def _files(self) -> Iterator[str]:
        """Every file of the tables can be read and has its table's columns, now or before some were added."""
        for name, schema in TABLES.items():
            for path in self._snapshot.files[name]:
                yield from _check_file(path, schema, name)

    def _folders(self) -> Iterator[str]:
        """The folders hold the tables' files and no others, so that whoever reads a folder sees the table."""
        for name in TABLES:
            known = self._snapshot.files[name]
            stray = set(list_files(table_uri(self._dir, name))) - set(known)
            self._counts["stray_files"] += len(stray)
            if self._orderly:
                for path in sorted(stray):
                    yield f"{name}: {name_of(path)} is no file of the table, but readers of the folder see it"
                if not known:
                    yield f"{name}: no file at all, so that readers of the folder find no columns"

    def _leftovers(self) -> Iterator[str]:
        """Rows of videos that never got committed, or were superseded."""
        for name in ("clips", "rejected", "failures"):
            rows = sum(batch.num_rows for batch in scan_files(self._snapshot.files[name], TABLES[name], ["video_id"]))
            committed = sum(batch.num_rows for batch in self._snapshot.scan(name, ["video_id"]))
            self._counts[name] = committed
            self._counts["uncommitted"] += rows - committed
            if self._orderly and rows > committed:
                yield f"{name}: {rows - committed} rows of no committed video, which readers of the files see"

    def _clips(self) -> Iterator[str]:
        ids: list[pa.Array] = []
        lengths: set[int] = set()
        for batch in self._snapshot.scan("clips"):
            ids.append(batch.column("clip_id"))
            lengths.update(pc.unique(pc.list_value_length(batch.column("embedding"))).to_pylist())
            light = batch.drop_columns(["embedding", "subtitles", "title", "uri"])
            for clip in light.to_pylist():
                yield from check_clip(clip)
        if len(lengths) > 1:
            yield f"clips: embeddings of different lengths: {', '.join(map(str, sorted(lengths)))}"
        yield from _ids("clips", "clip_id", pa.chunked_array(ids, pa.string()))

    def _videos(self, videos: pa.Table, spans: dict[str, VideoSpans], with_reels: set[str]) -> Iterator[str]:
        reels = self._reels()
        nothing = VideoSpans()
        for row in videos.to_pylist():
            video_id, found = row["video_id"], spans.get(row["video_id"], nothing)
            for name, number in (
                ("n_clips", len(found.accepted)),
                ("n_rejected", len(found.rejected)),
                ("n_failures", found.n_failures),
            ):
                if row[name] != number:
                    yield f"{video_id}: {name} is {row[name]}, but there are {number}"
            yield from found.check_status(row)
            if row["status"] == "failed":
                continue
            extent = None
            if video_id in reels:
                self._counts["reels"] += 1
                try:
                    reel = Reel.open(reels[video_id])
                    # A run that was cut short may have split a newer version already, and committed nothing of it.
                    extent = _extent(reel) if self._orderly and reel.etag == row["etag"] else None
                except ReelError as error:
                    yield f"{video_id}: {error}"
            elif self._orderly and row["n_shots"] and run_of(row) in with_reels:
                yield f"{video_id}: its reel is missing from reels/"
            yield from check_tiling(row, found, extent)

    def _reels(self) -> dict[str, str]:
        """Reels by video_id: a file's name up to its first dot, which no id has."""
        paths = {name_of(path): path for path in list_files(reels_of(self._dir))}
        return {name.partition(".")[0]: path for name, path in paths.items() if name[0] != "."}


def _check_file(path: str, schema: pa.Schema, name: str) -> Iterator[str]:
    try:
        with reading(path) as opened, pq.ParquetFile(opened) as file:
            columns = file.schema_arrow
            # Reads every page of the narrowest column; a truncated file has lost its footer already.
            file.read(columns=["run_id"])
    except FileNotFoundError:
        yield f"{name}: the table's file {name_of(path)} is missing"
        return
    except (OSError, pa.ArrowException) as error:
        yield f"{name}: {name_of(path)} can't be read: {error}"
        return
    if not any(columns.equals(known) for known in (schema, *earlier_schemas(name))):
        wrong = [field.name for field in columns if field.name not in schema.names or schema.field(field.name) != field]
        yield f"{name}: {name_of(path)} has not the table's columns and types: {', '.join(wrong) or 'order'}"


def _ids(table: str, column: str, ids: pa.ChunkedArray) -> Iterator[str]:
    counted = pc.value_counts(ids)
    for one in counted.filter(pc.greater(counted.field("counts"), 1)).to_pylist():
        yield f"{table}: {column} {one['values']} stands {one['counts']} times"
    unsafe = pc.invert(pc.match_substring_regex(ids, f"^(?:{SAFE_ID.pattern})$"))
    for one in ids.filter(unsafe).to_pylist():
        yield f"{table}: {column} {one!r} is not safe as a file name and in predicates"


def _brief(videos: pa.Table) -> list[dict[str, str]]:
    return videos.select(["video_id", "run_id", "status"]).to_pylist()


def _extent(reel: Reel) -> tuple[float, float] | None:
    """Where the splitter's shots begin and end; None if the reel does not tell."""
    shots = reel.summary.get("shots")
    if not shots:
        return None
    return min(shot["start_s"] for shot in shots), max(shot["end_s"] for shot in shots)
