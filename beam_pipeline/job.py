"""One run over a dataset: it holds the writer's lease, runs the recipe over lists of sources, and keeps a record.

with running("curate", inputs, "dataset", config, options) as job:
    job.take(sources); job.work(sources)
    summary = job.finish("done")
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

from beam_pipeline import logs, score_statistics
from beam_pipeline.config import Config
from beam_pipeline.datasetcard import write_card
from beam_pipeline.duplicates import clear_marks, duplicates_of, made_by
from beam_pipeline.pipeline import CurateVideos
from beam_pipeline.runs import RunRecord, new_run_id
from beam_pipeline.tally import Tally
from transforms.clip_places import media_of, sweep_media
from transforms.committing import finalise
from transforms.files import join, list_files, remove
from transforms.lease import WriterLease
from transforms.reading import Source
from transforms.recalling import Retry
from transforms.reels import reels_of
from transforms.schemas import base_run
from transforms.sources import is_overtaken
from transforms.tables import Snapshot, create_tables, current_videos

_log = logging.getLogger(__name__)

#: Beam's own name for the runner inside this process. DirectRunner may download another one and behave differently.
#: Beam takes names of runners in any case.
EMBEDDED_RUNNER = "FnApiRunner"
LOCAL_RUNNERS = frozenset(["", "direct", "directrunner", EMBEDDED_RUNNER.lower()])

OUTCOMES = ("committed", "unchanged", "failed")


@dataclasses.dataclass(frozen=True)
class JobOptions:
    """How a job runs; nothing in here changes a row of the dataset.

    Attributes:
      chunk_videos: videos that are committed together on one machine.
      limit: take only so many inputs.
      keep_reels: leave the reels in the dataset; without them a report has no pictures.
      beam_flags: any option of Beam's.
      allow_buckets: buckets that manifests may name objects of, beside those that the inputs name; "*" for any.
      observer: is told each job as it begins; no part of the record.
    """

    chunk_videos: int = 32
    limit: int | None = None
    keep_reels: bool = True
    beam_flags: tuple[str, ...] = ()
    allow_buckets: tuple[str, ...] = ()
    observer: Callable[[Job], None] | None = None

    def as_json(self) -> dict[str, Any]:
        """What the record of a run says of them."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del values["observer"]
        return {**values, "beam_flags": list(self.beam_flags), "allow_buckets": list(self.allow_buckets)}


def pipeline_options(flags: Sequence[str]) -> PipelineOptions:
    """Beam's options, with the embedded runner pinned and all cores at work unless the flags say otherwise."""
    options = PipelineOptions(list(flags), save_main_session=False)
    standard, direct = options.view_as(StandardOptions), options.view_as(DirectOptions)
    if (standard.runner or "").lower() in LOCAL_RUNNERS:
        standard.runner = EMBEDDED_RUNNER
        if not any(flag.startswith("--direct_num_workers") for flag in flags):
            direct.direct_num_workers = os.cpu_count() or 1
        if not any(flag.startswith("--direct_running_mode") for flag in flags):
            # Threads: decoding runs in processes of its own and models release the interpreter lock.
            direct.direct_running_mode = "multi_threading" if direct.direct_num_workers > 1 else "in_memory"
    return options


def is_dataflow(options: PipelineOptions) -> bool:
    """Whether these options name Dataflow's runner, in whatever way Beam lets it be spelled."""
    return "dataflow" in str(options.view_as(StandardOptions).runner).lower()


def is_embedded(options: JobOptions) -> bool:
    """Whether the job runs on this machine, and so with what is installed here."""
    return pipeline_options(options.beam_flags).view_as(StandardOptions).runner == EMBEDDED_RUNNER


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a run did. Counts are of this run; `outcomes` has one entry an input.

    `scores` tell how the measures are distributed over the whole dataset, in lines for people.
    """

    run_id: str
    output: str
    outcomes: Mapping[str, str]
    skipped: int
    counts: Mapping[str, int]
    seconds: Mapping[str, float]
    bytes: Mapping[str, int]
    wall_s: float
    scores: tuple[str, ...] = ()

    @property
    def failed_fraction(self) -> float:
        """Of the videos that this run worked on, how many ended 'failed'; one that is partial doesn't count."""
        done = [outcome for outcome in self.outcomes.values() if outcome != "unchanged"]
        return done.count("failed") / len(done) if done else 0.0


@contextlib.contextmanager
def running(
    command: str,
    inputs: Sequence[str],
    output: str,
    config: Config,
    options: JobOptions,
    retry: Retry | None = None,
) -> Iterator[Job]:
    """A job that is the only writer of its dataset; whatever stops it is recorded and raised.

    Args:
      command: that the user gave. inputs: as the user named them.
      retry: dead letters to work on again (see `transforms.recalling`).

    Raises:
      LeaseHeld: another run is writing to this dataset.
    """
    began = time.monotonic()
    run_id = new_run_id()
    with WriterLease(output, owner=run_id) as lease, logs.bound(run_id=run_id):
        # Before the tables, so that a run which is cut short while they are widened shows as unfinished.
        record = RunRecord.begin(output, run_id, config, inputs, options.as_json(), command)
        create_tables(output)
        job = Job(output, config, options, record, began, retry, lease=lease)
        _log.info("run %s begins: %s", run_id, command, extra={"command": command, "status": "running"})
        if options.observer:
            options.observer(job)
        try:
            yield job
        except BaseException as error:
            # What stopped the job must not be hidden by what it makes impossible now, on a full disk say.
            with contextlib.suppress(Exception):
                job.record.fail(error)
                if isinstance(error, KeyboardInterrupt):
                    # The runner's threads may be committing still: the next run sweeps up after them.
                    job.note("interrupted")
                else:
                    job.finish("failed")
            raise


@dataclasses.dataclass
class Job:
    """One run of the recipe.

    Attributes:
      sources: all that it was given, by video_id; planned: those of them that there was something to do for.
      skipped: files that were no media by their name.
      counts_stages: whether the runner's counters come back to this process.
    """

    output: str
    config: Config
    options: JobOptions
    record: RunRecord
    began: float
    retry: Retry | None = None
    tally: Tally = dataclasses.field(default_factory=Tally)
    sources: dict[str, Source] = dataclasses.field(default_factory=dict)
    planned: set[str] = dataclasses.field(default_factory=set)
    skipped: int = 0
    lease: WriterLease | None = None
    counts_stages: bool = True

    @property
    def run_id(self) -> str:
        return self.record.values["run_id"]

    def take(self, sources: Sequence[Source], plan: Sequence[Source], skipped: int = 0) -> None:
        """Answer for these sources from now on: each ends as committed, unchanged or failed."""
        self.sources |= {source.video_id: source for source in sources}
        self.planned |= {source.video_id for source in plan}
        self.skipped += skipped

    def work(self, chunk: Sequence[Source]) -> None:
        """Run the recipe over some sources; when this returns they are committed. May run in several threads."""
        if self.lease:
            self.lease.ensure_held()
        pipeline = beam.Pipeline(options=pipeline_options(self.options.beam_flags))
        recipe = CurateVideos(self.config, self.output, self.run_id, self.retry)
        _ = pipeline | "Sources" >> beam.Create(chunk) | "Curate" >> recipe
        result = pipeline.run()
        result.wait_until_finish()
        self.tally.add(result.metrics())

    def finish(self, status: str) -> Summary:
        """Sweep and compact the tables, note how the run ended, and write the dataset's card."""
        began = time.monotonic()
        if not self.options.keep_reels:
            drop_reels(self.output)
        if status == "done":
            self._mark_duplicates()
        finalise(self.output)
        if status == "done":
            # Of a run that was cut short the next one finds what it has written.
            sweep_media(self.output)
        self.tally.seconds["finish"] += time.monotonic() - began
        outcomes = self.note(status)
        scores = score_statistics.gather(Snapshot.open(self.output).scan)
        write_card(self.output, scores=scores)
        asked = self.config.measures.columns or self.config.filters
        return Summary(
            run_id=self.run_id,
            output=self.output,
            outcomes=outcomes,
            skipped=self.skipped,
            counts=self.tally.counts,
            seconds=self.tally.seconds,
            bytes=self.tally.bytes,
            wall_s=time.monotonic() - self.began,
            scores=tuple(score_statistics.describe(scores)) if asked else (),
        )

    def _mark_duplicates(self) -> None:
        """Decide anew what is a duplicate; where nobody asked for it, see that no mark names what is gone."""
        config, began = self.config, time.monotonic()
        if config.duplicates is None:
            clear_marks(self.output)
            return
        marker = duplicates_of(self.output, config.duplicates, tuple(config.embedder.identity))
        marked = marker.mark(made_by(config, self.output))
        self.tally.seconds["duplicates"] += time.monotonic() - began
        self.tally.counts["duplicate clips"] = marked.duplicate_clips
        self.tally.counts["duplicate videos"] = marked.duplicate_videos
        _log.info("%s", marked.describe())

    def note(self, status: str) -> dict[str, str]:
        """Write down how the run ended, and return what became of every input."""
        tally, output = self.tally, self.output
        outcomes = self._outcomes(finished=status == "done")
        tally.bytes |= {"reels": _size(reels_of(output)), "clips": _size(join(output, "clips"))}
        if self.config.write_clips:
            tally.bytes["media"] = _size(media_of(output))
        became = collections.Counter(dict.fromkeys(OUTCOMES, 0))
        became.update(outcomes.values())
        counts = {"inputs": len(self.sources), "skipped": self.skipped, **became, **tally.counts}
        sources = list(self.sources.values())
        stages = tally.stages() if self.counts_stages else None
        totals = {"counts": counts, "seconds": dict(tally.seconds), "bytes": tally.bytes, "stages": stages}
        self.record.finish(status, outcomes, sources, **totals)
        told = ", ".join(f"{number} {outcome}" for outcome, number in sorted(became.items()))
        _log.info("run %s ends: %s", self.run_id, told, extra={"status": status})
        return outcomes

    def go_on_record(self, **watched: Any) -> None:
        """Write down how it goes while it goes: what was counted so far, and what a watch has to say."""
        tally = self.tally
        self.record.values |= {"counts": dict(tally.counts), "seconds": dict(tally.seconds), "bytes": dict(tally.bytes)}
        self.record.values |= {"stages": tally.stages(), "watch": watched}
        self.record.write()

    def _outcomes(self, finished: bool) -> dict[str, str]:
        """What became of every input: committed, failed or unchanged; in a run that was cut short also pending."""
        standing = current_videos(self.output)
        outcomes = {}
        for video_id, source in self.sources.items():
            video = standing.get(video_id)
            if video_id not in self.planned:
                outcomes[video_id] = "unchanged"
            elif video is not None and base_run(video.run_id) == self.run_id:
                outcomes[video_id] = "failed" if video.status == "failed" else "committed"
            elif video is not None and is_overtaken(source.etag, video.etag):
                outcomes[video_id] = "unchanged"
            elif finished:
                raise RuntimeError(
                    f"the pipeline finished without a result for {source.uri}; this is a bug, please report it"
                )
            else:
                outcomes[video_id] = "pending"
        return outcomes


@contextlib.contextmanager
def quiet_workers() -> Iterator[None]:
    """Keep what Beam's workers print of an exception, hundreds of lines each time, off the terminal.

    The exception itself is raised, told in a line, and recorded with its traceback. What is logged is not touched.
    Where one worker has ended the job others may still fail, so from then on this thread alone is heard.
    """
    if logs.tells_everything():
        yield
        return
    stream = sys.stderr
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):
            yield
    except BaseException:
        sys.stderr = logs.OwnWords(stream)
        raise


def drop_reels(output: str) -> None:
    """Remove the reels; the report then has no pictures."""
    for path in list_files(reels_of(output)):
        if path.endswith(".arrow"):
            remove(path)


def _size(folder: str) -> int:
    return sum(list_files(folder).values())


def describe(summary: Summary) -> list[str]:
    """The summary as lines for people."""
    counts, outcomes = summary.counts, collections.Counter(summary.outcomes.values())
    lines = [
        f"run {summary.run_id} -> {summary.output}",
        f"videos    {len(summary.outcomes)} in: {outcomes['committed']} committed, {outcomes['unchanged']} unchanged, "
        f"{outcomes['failed']} failed; {counts.get('videos partial', 0)} partial, {summary.skipped} files skipped",
        f"clips     {counts.get('clips', 0)}, {counts.get('clip_ms', 0) / 1000:.0f} s of "
        f"{counts.get('video_ms', 0) / 1000:.0f} s of video",
    ]
    for title, prefix in (("rejected", "rejected "), ("failures", "failures ")):
        found = {name.removeprefix(prefix): n for name, n in sorted(counts.items()) if name.startswith(prefix)}
        told = ", ".join(f"{n} {name}" for name, n in found.items()) or "none"
        lines.append(f"{title:9} {told}")
    kept = [(counts.get(f"{stage} reused", 0), what) for stage, what in (("caption", "captions"), ("score", "scores"))]
    if any(number for number, _ in kept):
        lines.append("reused    " + ", ".join(f"{number} {what}" for number, what in kept if number))
    if "duplicate clips" in counts:
        told = f"{counts['duplicate clips']} clips, {counts['duplicate videos']} videos"
        lines.append(f"duplicates {told} of the whole dataset are marked")
    if summary.seconds:
        told = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in summary.seconds.items())
        lines.append(f"seconds   {told}; {summary.wall_s:.1f} by the clock")
    if counts.get("video_ms") and summary.wall_s:
        lines.append(f"speed     {counts['video_ms'] / 1000 / summary.wall_s:.1f} video-seconds per second")
    return [*lines, *summary.scores]
