"""Commit the rows of videos to the dataset, a batch at a time, exactly once.

    rows | CommitVideos("out", run_id)      # -> Committed(video_id, ...), one a video

A video becomes visible in one instant. Its rows are appended to `clips`, `rejected` and `failures` under the new
run_id, one commit a table; then its row in `videos`, new or in place of the old one, is the point of commit. Readers
count a row only if its (video_id, run_id) stands in `videos`, so they see the old video whole until then, and the new
one whole afterwards. Superseded rows, and those of a commit that was killed, stay unseen until `finalise` sweeps them.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
import random
import re
import threading
import time
from collections.abc import Iterator, Sequence

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.metrics import Metrics
from deltalake import CommitProperties, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from transforms.counting import count
from transforms.files import Directory
from transforms.finalising import drop_rows, finalise
from transforms.keeping import keep_standing
from transforms.lease import LeaseLost, read_lease
from transforms.schemas import TABLES, VIDEOS, RowError, VideoRows, require_safe, rows_to_table
from transforms.sources import is_overtaken
from transforms.standing import Standing, rows_by_video
from transforms.tables import (
    create_tables,
    pair_keys,
    table_uri,
    writer_properties,
)

__all__ = ["CommitVideos", "Committed", "Committer", "committer_of", "finalise"]

_log = logging.getLogger(__name__)

#: How long a commit is tried again while others write. Beam's own retry comes after that.
DEADLINE_S = 120.0

#: Bundles of one worker process commit one after the other; Delta would make them retry each other's commits.
_one_at_a_time = threading.Lock()


@dataclasses.dataclass(frozen=True, slots=True)
class Committed:
    """A video that stands in the dataset. `repeated`: it did before, this was a retry and wrote nothing."""

    video_id: str
    run_id: str
    status: str
    n_clips: int
    n_rejected: int
    n_failures: int
    repeated: bool = False


class Committer:
    """Commits batches to one dataset. There is one at a time (see `transforms.lease`).

    Args:
      owner: the run that writes; one that holds the lease now stops when it does not any more.
      deadline_s: how long a commit is tried again while others write.
    """

    def __init__(self, dataset_dir: Directory, *, owner: str | None = None, deadline_s: float = DEADLINE_S):
        create_tables(dataset_dir)
        self._dir = dataset_dir
        held = self._lease_owner()
        if owner and held not in (None, owner):
            raise LeaseLost(f"{owner} lost its lease on {dataset_dir} to {held}; run the same command again")
        self._owner = held and owner
        self._deadline_s = deadline_s
        self._standing = {name: Standing(dataset_dir, name) for name in TABLES}

    def commit(self, batch: Sequence[VideoRows]) -> list[Committed]:
        """Commit videos; those that stand already, just as they are here, are left alone.

        A second version of a video in one run (an upload that was replaced while `watch` ran) is committed as run
        "RUN--2", so that no reader can mix the two. A failure takes no clips of the same version away: these stay, with
        its dead letter.

        Raises:
          RowError: rows that do not fit, unsafe ids: nothing was written.
          LeaseLost: the dataset is another writer's now.
          TimeoutError: other writers kept interfering.
        """
        newest: dict[str, VideoRows] = {}
        for rows in batch:
            rows.check()
            seen = newest.get(rows.video_id)
            if seen is None or not is_overtaken(rows.video["etag"], seen.video["etag"]):
                newest[rows.video_id] = rows
        with _one_at_a_time:
            return self._until_deadline(list(newest.values()))

    def _until_deadline(self, batch: Sequence[VideoRows]) -> list[Committed]:
        started, pause_s = time.monotonic(), 0.05
        while True:
            try:
                return list(self._attempt(batch))
            except CommitFailedError as error:
                # Another writer changed the table under us. What stands is read anew, so what went through stays.
                if time.monotonic() - started > self._deadline_s:
                    raise TimeoutError(f"no commit to {self._dir} within {self._deadline_s:g} s: {error}") from error
                time.sleep(random.uniform(0.0, pause_s))
                pause_s = min(2 * pause_s, 5.0)

    def _attempt(self, batch: Sequence[VideoRows]) -> Iterator[Committed]:
        videos = self._standing["videos"]
        videos.refresh()
        standing = self._standing_rows(batch)
        fresh = []
        for rows in batch:
            before = standing.get(rows.video_id)
            version = self._unseen(rows, before) if before else rows
            if version is None:
                yield _committed(rows, repeated=True)
            else:
                fresh.append(version)
        if fresh:
            self._check_lease()
            for name in TABLES:
                if name != "videos":
                    self._append(name, fresh)
            self._check_lease()
            self._publish(fresh, replacing=any(videos.run_of(rows.video_id) for rows in fresh))
        yield from (_committed(rows) for rows in fresh)

    def _standing_rows(self, batch: Sequence[VideoRows]) -> dict[str, VideoRows]:
        """What stands of these videos: the row of `videos`, and of one that failed now all of them."""
        videos = self._standing["videos"]
        pairs = {(rows.video_id, run_id) for rows in batch if (run_id := videos.run_of(rows.video_id))}
        if not pairs:
            return {}
        found = {row["video_id"]: row for row in videos.rows(pairs)}
        failed = {rows.video_id for rows in batch if rows.video["status"] == "failed"}
        whole = {pair for pair in pairs if pair[0] in failed and found[pair[0]]["n_clips"]}
        others = [self._standing[name] for name in TABLES if name != "videos"]
        for table in others if whole else ():
            table.refresh()
        parts = rows_by_video(others, whole)
        return {
            video_id: VideoRows(
                video_id, video, **{name: tuple(rows) for name, rows in parts.get(video_id, {}).items()}
            )
            for video_id, video in found.items()
        }

    def _unseen(self, rows: VideoRows, before: VideoRows) -> VideoRows | None:
        """The rows under a run_id that is free for them; None if they stand already, or a newer version does."""
        if is_overtaken(rows.video["etag"], before.video["etag"]):
            return None
        rows = keep_standing(before, rows) or rows
        again = re.fullmatch(f"{re.escape(rows.run_id)}(?:--([0-9]+))?", before.run_id)
        if not again:
            return rows
        # Marks of duplicates come later than the rows, from a pass over the whole dataset.
        standing = rows_to_table([{**before.video, "content_hash": None, "duplicate_of": None}], VIDEOS)
        if standing.equals(rows_to_table([{**rows.video, "run_id": before.run_id}], VIDEOS)):
            return None
        anew = rows.in_run(f"{rows.run_id}--{int(again[1] or 1) + 1}")
        anew.check()
        return anew

    def _check_lease(self) -> None:
        """Stop a writer that was taken for dead, asleep for long say, while another one writes."""
        if self._owner and self._lease_owner() != self._owner:
            raise LeaseLost(f"{self._owner} lost its lease on {self._dir}; run the same command again")

    def _lease_owner(self) -> str | None:
        held = read_lease(self._dir)
        return held.owner if held else None

    def _append(self, name: str, batch: Sequence[VideoRows]) -> None:
        standing, schema = self._standing[name], TABLES[name]
        rows = rows_to_table([row for video in batch for row in video.of(name)], schema)
        application = _application(name, rows)
        standing.refresh()
        recorded = standing.table.transaction_version(application)
        left = standing.among({(video.video_id, video.run_id) for video in batch})
        if left:
            if recorded is not None and len(left) == len(pc.unique(pair_keys(rows))):
                return  # This very batch got as far as here before.
            # An attempt that died with other contents: not committed, so nobody has seen it.
            drop_rows(self._dir, name, drop=pa.array([f"{video} {run}" for video, run in left]))
            standing.refresh()
        if rows.num_rows:
            write_deltalake(
                standing.table,
                rows,
                mode="append",
                writer_properties=writer_properties(),
                commit_properties=_once(application, recorded),
            )

    def _publish(self, batch: Sequence[VideoRows], *, replacing: bool) -> None:
        standing = self._standing["videos"]
        rows = rows_to_table([video.video for video in batch], VIDEOS)
        application = _application("videos", rows)
        properties = _once(application, standing.table.transaction_version(application))
        if not replacing:
            write_deltalake(
                standing.table,
                rows,
                mode="append",
                writer_properties=writer_properties(),
                commit_properties=properties,
            )
            return
        # Costs time in proportion to the table's files, hence only for batches with known videos.
        write_deltalake(
            standing.table,
            rows,
            mode="overwrite",
            predicate=among_ids("video_id", [video.video_id for video in batch]),
            writer_properties=writer_properties(),
            commit_properties=properties,
        )


def among_ids(column: str, ids: Sequence[str]) -> str:
    """A predicate for these ids; an unsafe one raises a `RowError`, since a quote in it could empty the table."""
    if not ids:
        raise RowError("a predicate for no ids at all would be a mistake")
    require_safe(*ids)
    return f"{column} IN ({', '.join(repr(one) for one in ids)})"


def _application(name: str, rows: pa.Table) -> str:
    """Name a batch by its contents: the same in every retry, since these come from behind a Reshuffle."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows.combine_chunks())
    return f"{name}-{hashlib.sha256(sink.getvalue()).hexdigest()[:32]}"


def _once(application: str, recorded: int | None) -> CommitProperties:
    """Let Delta refuse the second of two racing commits of one batch (it does nothing against a later one)."""
    return CommitProperties(app_transactions=[Transaction(application, (recorded or 0) + 1)])


def _committed(rows: VideoRows, *, repeated: bool = False) -> Committed:
    counts = {name: rows.video[name] for name in ("status", "n_clips", "n_rejected", "n_failures")}
    return Committed(rows.video_id, rows.run_id, **counts, repeated=repeated)


@functools.lru_cache(maxsize=1)
def committer_of(dataset_dir: str, run_id: str) -> Committer:
    """One committer a run and process: what stands is read once, however many pipelines the run is made of.

    Made while the run holds the lease, it notices when that is lost.
    """
    return Committer(dataset_dir, owner=run_id)


class _CommitBatch(beam.DoFn):
    def __init__(self, dataset_dir: str, run_id: str):
        self._dir, self._run_id = dataset_dir, run_id

    def setup(self) -> None:
        self._committer = committer_of(self._dir, self._run_id)

    def process(self, keyed: tuple[str, Sequence[VideoRows]]) -> Iterator[Committed]:
        batch = list(keyed[1])
        for rows in batch:
            if rows.run_id != self._run_id:
                raise RowError(f"{rows.video_id}: rows of run {rows.run_id!r} in run {self._run_id!r}")
        began = time.monotonic()
        done = self._committer.commit(batch)
        Metrics.counter("reelscribe/commit", "commit_ms").inc(round(1000 * (time.monotonic() - began)))
        count("commit", superseded=len(batch) - len(done))
        for committed in done:
            Metrics.counter("reelscribe/commit", "repeated" if committed.repeated else "committed").inc()
            count("commit", out=1, repeated=int(committed.repeated))
            _tell(committed)
            yield committed


def _tell(committed: Committed) -> None:
    told = (committed.video_id, committed.status, committed.n_clips, committed.n_rejected, committed.n_failures)
    fields = {"run_id": committed.run_id, "video_id": committed.video_id, "stage": "commit", "status": committed.status}
    _log.info("committed %s, %s: %d clips, %d rejected spans, %d dead letters", *told, extra=fields)


@dataclasses.dataclass
class CommitVideos(beam.PTransform):
    """Commit the rows of videos to the dataset.

    VideoRows in, one Committed a video out; bounded or unbounded. A failed commit raises, and a retry of its bundle
    commits what is missing. All videos go to one committer, because Delta writers only get in each other's way.

    Args:
      dataset_dir: where the four tables stand; they are created if absent.
      run_id: of all rows.
      batch_size: videos a commit.
      max_wait_s: of an unbounded input, how long a video may wait for its batch to fill; None waits until it is full
        or the input ends.
    """

    dataset_dir: str
    run_id: str
    batch_size: int = 64
    max_wait_s: float | None = None

    def __post_init__(self) -> None:
        super().__init__()
        require_safe(self.run_id)
        table_uri(self.dataset_dir, "videos")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {self.batch_size}")
        if self.max_wait_s is not None and self.max_wait_s <= 0:
            raise ValueError(f"max_wait_s must be above 0, not {self.max_wait_s}")

    def expand(self, rows: beam.PCollection[VideoRows]) -> beam.PCollection[Committed]:
        batches = (
            rows
            | "ToOneCommitter" >> beam.Map(_keyed).with_output_types(tuple[str, VideoRows])
            | "Batch" >> beam.GroupIntoBatches(self.batch_size, max_buffering_duration_secs=self.max_wait_s)
        )
        # A retried commit must see the very batch that may have been committed in part.
        stable = batches | "FixBatches" >> beam.Reshuffle()
        return stable | "Commit" >> beam.ParDo(_CommitBatch(self.dataset_dir, self.run_id)).with_output_types(Committed)


def _keyed(rows: VideoRows) -> tuple[str, VideoRows]:
    count("commit", in_=1)
    return "all", rows
