"""Take videos down: remove them and all that came of them, and see to it that they are not ingested again.

    print(take_down("out", ["holiday-23e39a1fb50c"], reason="asked for by its uploader").describe())

The record of a takedown, `runs/takedown-*.json`, is its tombstone: written first, it holds from then on (see
`transforms.tombstones`). What must be known to go on after a kill outlives what it is needed for: the runs' records are
struck out while the rows still tell what names the video, and clip files go while the rows tell what they are called.
So the same command finishes what a killed one began.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from beam_pipeline.datasetcard import write_card
from beam_pipeline.duplicates import clear_marks
from beam_pipeline.runs import new_run_id, now, record_path, write_record
from beam_pipeline.takedown_records import Words, read_records, strike_out, uris_in_records
from beam_pipeline.usage import UsageError, dataset_folder
from transforms.files import exists, join, list_files, name_of, remove
from transforms.finalising import drop_videos, finalise, forget_history
from transforms.judgements import drop_annotations, judgements_of
from transforms.kept_copies import forget
from transforms.lease import WriterLease
from transforms.objects import is_object
from transforms.schemas import SAFE_ID, TABLES
from transforms.tables import Snapshot, create_tables, open_table, scan_files
from transforms.tombstones import PREFIX, files_of, read_tombstones, source_digest

#: The report, and what a killed process had begun to write of it.
_REPORT = re.compile(r"report\.html|\.report\.html\..*\.tmp")

#: What names a video, or one of its clips, in the tables.
_NAMING = {
    "clips": ["video_id", "clip_id", "uri", "title"],
    "rejected": ["video_id"],
    "failures": ["video_id", "uri"],
    "videos": ["video_id", "uri", "title", "description"],
}


@dataclasses.dataclass(frozen=True)
class Takedown:
    """What a takedown did.

    Attributes:
      run_ids: of the records that it wrote or finished. rows: removed, by table, and files, by folder.
      absent: ids of which the dataset had nothing. known: those that were gone already, by an earlier takedown.
    """

    dataset_dir: str
    run_ids: tuple[str, ...]
    counts: Mapping[str, int]
    absent: tuple[str, ...]
    known: tuple[str, ...]

    def describe(self) -> str:
        """The same as lines for people."""
        lines = [f"{one} was taken down before" for one in self.known]
        if self.run_ids:
            removed = {name: number for name, number in self.counts.items() if number}
            if removed.keys() - {"report"}:
                told = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in removed.items())
                lines.append(f"removed   {told}")
            lines += [f"{one} is not in the dataset; it will not be ingested" for one in self.absent]
            lines.append("left      exports, and reports written elsewhere, are not known here: remove those yourself")
            lines += [f"lift it   delete {self.dataset_dir}/runs/{run_id}.json" for run_id in self.run_ids]
        if self.counts.get("report"):
            lines.append(f"report    it showed them, so it is gone; anew: reelscribe report {self.dataset_dir}")
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class _Remains:
    """What the dataset still has of some videos: rows by table, files by folder, and what names them."""

    videos: frozenset[str]
    rows: Mapping[str, int]
    files: Mapping[str, Sequence[str]]
    words: Words


def take_down(dataset_dir: str, video_ids: Sequence[str], reason: str | None = None) -> Takedown:
    """Remove videos, their rows, reels and clip files, and all mention of them; they are not ingested again.

    It also finishes the takedowns that were cut short.

    Args:
      video_ids: those of which the dataset has nothing are only kept from being ingested.
      reason: for the record; what names the videos is struck out of it.

    Raises:
      UsageError: an id that no video can have, or no dataset's address.
      NoDataset: there is none. LeaseHeld: a run is writing to it.
      TombstoneError: the record of an earlier takedown can't be read.
    """
    for one in video_ids:
        if not SAFE_ID.fullmatch(one):
            raise UsageError(f"{one!r} is no video_id: they have letters, digits, '_' and '-', at most 128 of them")
    dataset_dir = dataset_folder(dataset_dir)
    for name in TABLES:
        open_table(dataset_dir, name)  # Before the lease, which would make the directory.
    run_id = f"{PREFIX}{new_run_id()}"
    with WriterLease(dataset_dir, owner=run_id) as lease:
        create_tables(dataset_dir)
        stones = read_tombstones(dataset_dir)
        begun = frozenset().union(*(stone.videos for stone in stones if not stone.finished))
        remains = _remains(dataset_dir, begun | set(video_ids))
        settled = frozenset().union(*(stone.videos for stone in stones)) - remains.videos - begun
        fresh = [one for one in dict.fromkeys(video_ids) if one not in begun and one not in settled]
        if fresh:
            _begin(dataset_dir, run_id, fresh, reason)
        lease.ensure_held()
        if fresh or begun:
            _remove(dataset_dir, remains, begun | set(fresh))
        finished = _finish(dataset_dir)
    totals: collections.Counter[str] = collections.Counter()
    for record in finished:
        totals.update(record["counts"])
    return Takedown(
        dataset_dir=dataset_dir,
        run_ids=tuple(record["run_id"] for record in finished),
        counts=dict(totals),
        absent=tuple(one for record in finished for one in record["absent"]),
        known=tuple(one for one in dict.fromkeys(video_ids) if one in settled),
    )


def _remains(dataset_dir: str, video_ids: frozenset[str]) -> _Remains:
    snapshot, wanted = Snapshot.open(dataset_dir), pa.array(sorted(video_ids), pa.string())
    named: dict[str, set[str]] = {column: set() for columns in _NAMING.values() for column in columns}
    rows: dict[str, int] = {}
    clips: dict[str, str] = {}
    for name, columns in _NAMING.items():
        # Not only what is committed: of a killed run's leftovers nothing may stay either.
        batches = scan_files(snapshot.files[name], TABLES[name], columns)
        theirs = [batch.filter(pc.is_in(batch.column("video_id"), wanted)) for batch in batches]
        rows[name] = sum(batch.num_rows for batch in theirs)
        for batch in theirs:
            for column in columns:
                named[column].update(pc.unique(batch.column(column)).drop_null().to_pylist())
            if name == "clips":
                clips.update(zip(batch["clip_id"].to_pylist(), batch["video_id"].to_pylist(), strict=True))
    said = [one.video_id for one in judgements_of(dataset_dir) if one.video_id in video_ids]
    rows["annotations"] = len(said)
    named["video_id"].update(said)
    files = files_of(dataset_dir, video_ids, clips)
    found = named["video_id"].union(*(owners.values() for owners in files.values()))
    uris = named["uri"] | uris_in_records(dataset_dir, video_ids)
    words = Words(video_ids, frozenset(uris), frozenset(named["title"] | named["description"]))
    return _Remains(frozenset(found), rows, {folder: list(owners) for folder, owners in files.items()}, words)


def _begin(dataset_dir: str, run_id: str, video_ids: Sequence[str], reason: str | None) -> None:
    """Write the tombstone: from here on nobody ingests these videos."""
    own = _remains(dataset_dir, frozenset(video_ids))
    record: dict[str, Any] = {
        "run_id": run_id,
        "command": "takedown",
        "status": "running",
        "started_at": now(),
        "finished_at": None,
        "videos": list(video_ids),
        "sources": sorted(map(source_digest, own.words.uris)),
        "absent": [one for one in video_ids if one not in own.videos],
        "reason": own.words.strike(reason) if reason else reason,
        "counts": {
            **{name: own.rows[name] for name in ("videos", "clips", "rejected", "failures")},
            "reels": len(own.files["reels"]),
            **({"transcripts": len(own.files["speech"])} if own.files["speech"] else {}),
            "clip_files": len(own.files["media"]),
            **({"annotations": own.rows["annotations"]} if own.rows["annotations"] else {}),
            "report": int(exists(join(dataset_dir, "report.html"))),
        },
    }
    write_record(record_path(dataset_dir, run_id), record)


def _remove(dataset_dir: str, remains: _Remains, video_ids: frozenset[str]) -> None:
    """Remove all that is left of the videos. Killed at any instant, it may be run again and finishes."""
    strike_out(dataset_dir, remains.words)
    # Nobody sees the videos from here on.
    drop_videos(dataset_dir, "videos", video_ids)
    reports = [path for path in list_files(dataset_dir) if _REPORT.fullmatch(name_of(path))]
    for path in (*reports, *remains.files["media"], *remains.files["speech"], *remains.files["reels"]):
        remove(path)
        if is_object(path):
            forget(path)
    drop_annotations(dataset_dir, video_ids)
    for name in TABLES:
        drop_videos(dataset_dir, name, video_ids)
    clear_marks(dataset_dir)
    finalise(dataset_dir)
    forget_history(dataset_dir)
    write_card(dataset_dir)


def _finish(dataset_dir: str) -> list[dict[str, Any]]:
    """Close the records of the takedowns under way, and return them."""
    finished = []
    for path, record in read_records(dataset_dir).items():
        if name_of(path).startswith(PREFIX) and record["status"] != "done":
            record |= {"status": "done", "finished_at": now()}
            write_record(path, record)
            finished.append(record)
    return finished
