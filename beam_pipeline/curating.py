"""Run the recipe over a list of videos: plan what is left to do, run it in chunks, finish the dataset, say what became.

    summary = curate(["uploads/"], "dataset", load_config("lite"))

The embedded runner works stage by stage: one pipeline over 100,000 videos would commit nothing until its end. So on one
machine the recipe runs over chunks of videos, each committed before the next begins; models stay loaded in between. On
a distributed runner it is one pipeline.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import io
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence

import apache_beam as beam
from apache_beam.metrics.metric import MetricResults
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

from beam_pipeline.config import Config
from beam_pipeline.datasetcard import write_card
from beam_pipeline.pipeline import CurateVideos, reels_of
from beam_pipeline.progress import Progress
from beam_pipeline.runs import RunRecord, new_run_id
from transforms.committing import finalise
from transforms.lease import WriterLease
from transforms.reading import Found, Source, find_sources
from transforms.rows import COUNTS
from transforms.tables import check_output, create_tables, current_videos

_log = logging.getLogger(__name__)

#: Beam's own name for the runner inside this process. DirectRunner may download another one and behave differently.
EMBEDDED_RUNNER = "FnApiRunner"
LOCAL_RUNNERS = frozenset([None, "DirectRunner", EMBEDDED_RUNNER])

#: The stage that a model's handler belongs to, by the place of its step in the recipe.
STAGES = {"Embed shots": "embed", "Measure clips": "measure", "Caption clips": "caption", "Judge captions": "score"}


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a run did. Counts are of this run; `outcomes` has one entry an input."""

    run_id: str
    output: str
    outcomes: Mapping[str, str]
    skipped: int
    counts: Mapping[str, int]
    seconds: Mapping[str, float]
    bytes: Mapping[str, int]
    wall_s: float

    @property
    def failed_fraction(self) -> float:
        """Of the videos that this run worked on, how many ended 'failed'; one that is partial doesn't count."""
        done = [outcome for outcome in self.outcomes.values() if outcome != "unchanged"]
        return done.count("failed") / len(done) if done else 0.0


@dataclasses.dataclass(frozen=True)
class CurateOptions:
    """How a job runs; nothing in here changes a row of the dataset.

    Attributes:
      chunk_videos: videos that are committed together on one machine.
      limit: take only so many inputs.
      keep_reels: leave the reels in the dataset; without them a report has no pictures.
      beam_flags: any option of Beam's.
    """

    chunk_videos: int = 32
    limit: int | None = None
    keep_reels: bool = True
    beam_flags: tuple[str, ...] = ()


def pipeline_options(flags: Sequence[str]) -> PipelineOptions:
    """Beam's options, with the embedded runner pinned and all cores at work unless the flags say otherwise."""
    options = PipelineOptions(list(flags), save_main_session=False)
    standard, direct = options.view_as(StandardOptions), options.view_as(DirectOptions)
    if standard.runner in LOCAL_RUNNERS:
        standard.runner = EMBEDDED_RUNNER
        if not any(flag.startswith("--direct_num_workers") for flag in flags):
            direct.direct_num_workers = os.cpu_count() or 1
        if not any(flag.startswith("--direct_running_mode") for flag in flags):
            # Threads: decoding runs in processes of its own and models release the interpreter lock.
            direct.direct_running_mode = "multi_threading" if direct.direct_num_workers > 1 else "in_memory"
    return options


def is_embedded(options: CurateOptions) -> bool:
    """Whether the job runs on this machine, and so with what is installed here."""
    return pipeline_options(options.beam_flags).view_as(StandardOptions).runner == EMBEDDED_RUNNER


def curate(inputs: Sequence[str], output: str, config: Config, options: CurateOptions | None = None) -> Summary:
    """Turn videos into a dataset; do only what is missing or whose fingerprint changed.

    Args:
      inputs: files, directories, patterns, manifests. output: the dataset's directory, made if absent.
      config: what changes the output. options: how it runs.

    Returns:
      What became of every input. Failures of single videos are in there, not raised.

    Raises:
      InputError: an input names nothing. OutputError: a dataset cannot stand at `output`.
      LeaseHeld: another run is writing to this dataset.
      Exception: whatever stops the job as a whole; the dataset stands, and the same call finishes it.
    """
    options = options or CurateOptions()
    found = find_sources(inputs, options.limit)
    check_output(output, [source.uri for source in found.sources])
    began = time.monotonic()
    os.makedirs(output, exist_ok=True)
    run_id = new_run_id()
    with WriterLease(output, owner=run_id):
        how = {**dataclasses.asdict(options), "beam_flags": list(options.beam_flags)}
        # Before the tables, so that a run which is cut short while they are widened shows as unfinished.
        record = RunRecord.begin(output, run_id, config, inputs, how)
        create_tables(output)
        job = _Job(output, record, found, left_to_do(found, output, config), options, began)
        try:
            job.run(config)
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
        return job.finish("done")


@dataclasses.dataclass
class _Job:
    """One run of the recipe over what is left to do."""

    output: str
    record: RunRecord
    found: Found
    plan: Sequence[Source]
    options: CurateOptions
    began: float
    tally: Tally = dataclasses.field(default_factory=lambda: Tally())

    @property
    def run_id(self) -> str:
        return self.record.values["run_id"]

    def run(self, config: Config) -> None:
        """Run the recipe, chunk by chunk where the runner is the embedded one."""
        beam_options = pipeline_options(self.options.beam_flags)
        size = self.options.chunk_videos if is_embedded(self.options) else max(len(self.plan), 1)
        recipe = CurateVideos(config, self.output, self.run_id)
        with Progress(len(self.plan)) as progress:
            for start in range(0, len(self.plan), size):
                chunk = self.plan[start : start + size]
                pipeline = beam.Pipeline(options=beam_options)
                _ = pipeline | "Sources" >> beam.Create(chunk) | "Curate" >> recipe
                with _quiet_worker():
                    result = pipeline.run()
                    result.wait_until_finish()
                self.tally.add(result.metrics())
                progress.advance(len(chunk), self.tally.counts)

    def finish(self, status: str) -> Summary:
        """Sweep and compact the tables, note how the run ended, and write the dataset's card."""
        began = time.monotonic()
        if not self.options.keep_reels:
            drop_reels(self.output)
        finalise(self.output)
        self.tally.seconds["finish"] += time.monotonic() - began
        outcomes = self.note(status)
        write_card(self.output)
        return Summary(
            run_id=self.run_id,
            output=self.output,
            outcomes=outcomes,
            skipped=self.found.skipped,
            counts=self.tally.counts,
            seconds=self.tally.seconds,
            bytes=self.tally.bytes,
            wall_s=time.monotonic() - self.began,
        )

    def note(self, status: str) -> dict[str, str]:
        """Write down how the run ended, and return what became of every input."""
        tally, output = self.tally, self.output
        outcomes = outcomes_of(self.found, self.plan, output, self.run_id, finished=status == "done")
        tally.bytes |= {"reels": _size(reels_of(output)), "clips": _size(os.path.join(output, "clips"))}
        became = collections.Counter({outcome: 0 for outcome in ("committed", "unchanged", "failed")})
        became.update(outcomes.values())
        counts = {"inputs": len(self.found.sources), "skipped": self.found.skipped, **became, **tally.counts}
        self.record.finish(
            status, outcomes, self.found.sources, counts=counts, seconds=dict(tally.seconds), bytes=tally.bytes
        )
        return outcomes


@contextlib.contextmanager
def _quiet_worker() -> Iterator[None]:
    """Keep what Beam's worker prints of an exception, hundreds of lines each time, off the terminal.

    The exception itself is raised, told in a line, and recorded with its traceback. What is logged is not touched.
    """
    if _log.isEnabledFor(logging.INFO):
        yield
    else:
        with contextlib.redirect_stderr(io.StringIO()):
            yield


def left_to_do(found: Found, output: str, config: Config) -> list[Source]:
    """The sources that the dataset lacks, or has under another version or configuration."""
    standing = current_videos(output)
    return [
        source
        for source in found.sources
        if (video := standing.get(source.video_id)) is None
        or video.etag != source.etag
        or dict(video.fingerprints) != config.fingerprints(source.etag, source.text_version)
    ]


def outcomes_of(found: Found, plan: Sequence[Source], output: str, run_id: str, finished: bool) -> dict[str, str]:
    """What became of every input: committed, failed or unchanged; in a run that was cut short also pending."""
    standing = current_videos(output)
    planned = {source.video_id for source in plan}
    outcomes = {}
    for source in found.sources:
        video = standing.get(source.video_id)
        if source.video_id not in planned:
            outcomes[source.video_id] = "unchanged"
        elif video is not None and video.run_id.partition("--")[0] == run_id:
            outcomes[source.video_id] = "failed" if video.status == "failed" else "committed"
        elif finished:
            raise RuntimeError(
                f"the pipeline finished without a result for {source.uri}; this is a bug, please report it"
            )
        else:
            outcomes[source.video_id] = "pending"
    return outcomes


class Tally:
    """Adds up what the pipelines of a run counted.

    Attributes:
      counts: of rows and reads. seconds: of work per stage, summed over workers. bytes: read from sources.
    """

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.seconds: dict[str, float] = collections.defaultdict(float)
        self.bytes: dict[str, int] = {"source": 0}

    def add(self, metrics: MetricResults) -> None:
        """Add one pipeline's metrics."""
        found = metrics.query()
        for counter in found["counters"]:
            name, space, value = counter.key.metric.name, counter.key.metric.namespace, counter.result
            if name.endswith("_ms") and space != COUNTS:
                self.seconds[name.removesuffix("_ms")] += value / 1000
            elif name == "source_bytes":
                self.bytes["source"] += value
            elif space.startswith("reelscribe/"):
                self.counts[name if space == COUNTS else f"{space.removeprefix('reelscribe/')} {name}"] += value
        for distribution in found["distributions"]:
            if distribution.key.metric.name == "inference_batch_latency_micro_secs":
                place = distribution.key.step
                stage = next((stage for step, stage in STAGES.items() if step in place), "inference")
                self.seconds[stage] += distribution.result.sum / 1e6


def drop_reels(output: str) -> None:
    """Remove the reels; the report then has no pictures."""
    reels = reels_of(output)
    if os.path.isdir(reels):
        for entry in os.scandir(reels):
            if entry.name.endswith(".arrow"):
                os.unlink(entry.path)


def _size(folder: str) -> int:
    if not os.path.isdir(folder):
        return 0
    return sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file())


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
    if summary.seconds:
        told = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in summary.seconds.items())
        lines.append(f"seconds   {told}; {summary.wall_s:.1f} by the clock")
    if counts.get("video_ms") and summary.wall_s:
        lines.append(f"speed     {counts['video_ms'] / 1000 / summary.wall_s:.1f} video-seconds per second")
    return lines
