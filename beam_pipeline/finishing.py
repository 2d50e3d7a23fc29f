"""Finish a dataset as a pipeline's last step, where nobody waits for the pipeline to end.

    committed = sources | CurateVideos(config, output, run_id)
    (committed, found.sources, found.skipped) | FinishRun(config, output, run_id, options)

Whoever launched the job has left the writer's lease to it (`WriterLease.leave_to_job`); this step takes it up.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import logging
import time
from collections.abc import Iterable

import apache_beam as beam
from apache_beam.transforms import trigger, window

from beam_pipeline.config import Config
from beam_pipeline.job import Job, JobOptions, Summary, describe
from beam_pipeline.runs import RunRecord
from transforms.lease import WriterLease, read_lease
from transforms.reading import Source
from transforms.schemas import base_run
from transforms.tables import TABLES, current_videos, scan_table

_log = logging.getLogger(__name__)

#: What `count_rows` calls the seconds of a table.
_TIMED = {"clips": "clip_ms", "videos": "video_ms"}


@dataclasses.dataclass
class FinishRun(beam.PTransform):
    """Compact the tables, write the card and close the run's record when all is committed.

    Three collections in: what was committed, the sources, and how many files were skipped; the last two are absent of
    an unbounded input, which knows its sources by what it committed. Out comes the run's Summary, once: at the end of
    a bounded input, and of an unbounded one when it is drained. It is safe to be repeated. A failure raises, and the
    dataset stands: the next run finishes it.

    Args:
      config, output, run_id, options: as the run was begun with.
    """

    config: Config
    output: str
    run_id: str
    options: JobOptions

    def expand(self, ends: tuple[beam.PCollection, ...]) -> beam.PCollection[Summary]:
        committed, *listed = ends
        told = [
            # Nothing of them is needed, but that they are all there.
            committed | "Committed" >> beam.FlatMap(lambda _: ()),
            committed.pipeline | "Run" >> beam.Create([None]),
            *(one | f"Listed {number}" >> beam.Map(_told) for number, one in enumerate(listed)),
        ]
        return (
            told
            | beam.Flatten()
            | "Together" >> beam.Map(lambda one: (0, one)).with_output_types(tuple[int, object])
            | "Until the end"
            >> beam.WindowInto(
                window.GlobalWindows(),
                trigger=trigger.AfterWatermark(),
                accumulation_mode=trigger.AccumulationMode.DISCARDING,
            )
            | "All" >> beam.GroupByKey()
            | "Finish" >> beam.FlatMap(_finish, self.config, self.output, self.run_id, self.options, bool(listed))
        )


def _finish(
    keyed: tuple[int, Iterable[Source | int | None]],
    config: Config,
    output: str,
    run_id: str,
    options: JobOptions,
    bounded: bool,
) -> list[Summary]:
    record = RunRecord.read(output, run_id)
    held = read_lease(output)
    if record.values["status"] != "running" and (held is None or held.owner != run_id):
        return []  # This very step got to its end before; with the lease still there, only as far as the record.
    told = list(keyed[1])
    with WriterLease(output, run_id, adopt=True) as lease:
        # An update goes on with the run of the job before it, and a launcher has neither torch nor the workers' models.
        record.made_by(config, options.as_json())
        # What the steps counted the runner tells whoever asks it, and nobody asks.
        job = Job(output, config, options, record, _began(record), lease=lease, counts_stages=False)
        standing = current_videos(output)
        sources = [one for one in told if isinstance(one, Source)] if bounded else committed_by(job)
        mine = {video.video_id for video in standing.values() if base_run(video.run_id) == run_id}
        # What has no row at all is planned, too: the job then says that it is missing.
        planned = [one for one in sources if one.video_id in mine or one.video_id not in standing]
        job.take(sources, planned, sum(one for one in told if isinstance(one, int)))
        job.tally.counts.update(rows_of(job))
        summary = job.finish("done")
    for line in describe(summary):
        _log.info("%s", line)
    return [summary]


def _told(one: Source | int) -> Source | int:
    """What the record says of a source, and no more of it than that."""
    return Source(one.video_id, one.uri, etag=one.etag) if isinstance(one, Source) else one


def _began(record: RunRecord) -> float:
    """When the run began, by this machine's monotonic clock."""
    started = datetime.datetime.fromisoformat(record.values["started_at"])
    return time.monotonic() - (datetime.datetime.now(datetime.UTC) - started).total_seconds()


def committed_by(job: Job) -> list[Source]:
    """The inputs of a stream: known by what it committed, as nobody could list them before."""
    return [
        Source(video.video_id, video.uri, etag=video.etag)
        for _, video in sorted(current_videos(job.output).items())
        if base_run(video.run_id) == job.run_id
    ]


def rows_of(job: Job) -> dict[str, int]:
    """How many rows stand of this run, as `count_rows` names them; a runner's metrics count retries, or less."""
    found: collections.Counter[str] = collections.Counter()
    kinds = {"videos": "status", "rejected": "stage", "failures": "stage"}
    for table in TABLES:
        columns = ["run_id", *([kinds[table]] if table in kinds else []), *(["duration_s"] if table in _TIMED else [])]
        # Batch by batch: as Python's own, the rows of millions of clips take gigabytes.
        for row in (row for batch in scan_table(job.output, table, columns) for row in batch.to_pylist()):
            if base_run(row["run_id"]) == job.run_id:
                found[f"{table} {row[kinds[table]]}" if table in kinds else table] += 1
                if table in _TIMED:
                    found[_TIMED[table]] += round(1000 * (row["duration_s"] or 0))
    return dict(found)
