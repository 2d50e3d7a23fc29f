"""The recipe without an end, on a runner that can stream: one pipeline that goes on until it is stopped.

    stream(Uploads("projects/p/subscriptions/uploads"), "dataset", config, options, stop=threading.Event())
    pipeline | CurateUploads(Uploads(patterns=("gs://uploads/",)), config, "dataset", run_id)

Everything is in the global window and nothing has a trigger: the joins of the recipe complete by counting, so no result
waits for a window to close, and an upload of any age belongs to the same dataset as the others. The watermark gives up
parts that got lost, and that when the stream ends: batches for models are of the end of time. So the rows of a video
are visible when its models are done and its batch is committed: within `COMMIT_WITHIN_S` seconds, and the models' time.

Of two versions of a video the later one is held back until the dataset shows the earlier one (see
`transforms.one_version`). Should both be under way all the same, joins keep them apart.

What a bucket tells beside uploads, deletes and archives, is logged and counted (`reelscribe/watch gone`, `refused`): it
is not for the dataset, whose rows go by `takedown` alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.direct.direct_runner import DirectPipelineResult
from apache_beam.runners.runner import PipelineResult, PipelineState

from beam_pipeline.config import Config
from beam_pipeline.finishing import committed_by, rows_of
from beam_pipeline.job import Job, JobOptions, Summary, pipeline_options, quiet_workers, running
from beam_pipeline.pipeline import CurateVideos, fingerprints_of
from beam_pipeline.progress import standard_error
from beam_pipeline.tally import Tally
from beam_pipeline.usage import UsageError
from transforms.allowed import named_by
from transforms.arrivals import DropTakenDown, RefusedMessage, WatchPattern, WatchSubscription
from transforms.notifications import Notification
from transforms.objects import is_object
from transforms.one_version import OneVersionAtATime, UnderWay, as_it_is_now
from transforms.reading import Source
from transforms.tables import check_output

_log = logging.getLogger(__name__)

#: How long a finished video waits for others to be committed with.
COMMIT_WITHIN_S = 30.0
#: How long a stop waits for what is under way, on a runner that cannot drain.
DRAIN_S = 300.0
#: Beam's local runner for streams. It has one thread, acknowledges what it pulls at once, and knows no Watch.
LOCAL_STREAMING_RUNNER = "BundleBasedDirectRunner"

_NOTE_EVERY_S = 10.0
_TICK_S = 0.5
_LOOKS = 5


@dataclasses.dataclass(frozen=True)
class Uploads:
    """Where uploads are told: by a subscription of a bucket's notifications, or by listings of gs:// patterns.

    `allowed` are the buckets that may be told of beside those that the patterns name (see `transforms.allowed`).
    """

    subscription: str | None = None
    patterns: tuple[str, ...] = ()
    poll_s: float = 30.0
    allowed: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.subscription,) if self.subscription else self.patterns

    def check(self, runner: str) -> None:
        """Raise a `UsageError` if this runner cannot watch them."""
        local = [one for one in self.patterns if not is_object(one)]
        if local:
            raise UsageError(f"{runner} watches buckets; for {local[0]} leave --runner out, or write gs://BUCKET/...")
        if self.patterns and runner == LOCAL_STREAMING_RUNNER:
            raise UsageError(f"{runner} cannot list again and again; leave --runner out, or use --subscription")


@dataclasses.dataclass
class CurateUploads(beam.PTransform):
    """Turn uploads into rows of the dataset, as they come.

    Unbounded. Out come the committed videos (see `CommitVideos`).
    """

    uploads: Uploads
    config: Config
    output: str
    run_id: str
    commit_within_s: float = COMMIT_WITHIN_S

    def expand(self, pipeline: pvalue.PBegin) -> beam.PCollection:
        versions = functools.partial(fingerprints_of, config=self.config)
        allowed = self._sources(pipeline) | "Taken down" >> DropTakenDown(self.output)
        # A listing of the moment tells which of two texts is the newer one; what a manifest said it cannot tell.
        again = as_it_is_now if self.uploads.subscription else None
        apart = allowed | "One version" >> OneVersionAtATime("uploads", self.output, versions, again)
        recipe = CurateVideos(self.config, self.output, self.run_id, commit_within_s=self.commit_within_s)
        return apart | "Curate" >> recipe

    def _sources(self, pipeline: pvalue.PBegin) -> beam.PCollection[Source]:
        if self.uploads.subscription:
            watched = pipeline | "Watch" >> WatchSubscription(self.uploads.subscription, allowed=self.uploads.allowed)
            _ = watched.gone | "Log gone" >> beam.Map(_log_gone)
            _ = watched.refused | "Log refused" >> beam.Map(_log_refused)
            return watched.sources
        allowed = tuple(sorted(named_by(self.uploads.patterns, self.uploads.allowed)))
        found = [
            pipeline | f"Watch {one}" >> WatchPattern(one, every_s=self.uploads.poll_s, allowed=allowed)
            for one in self.uploads.patterns
        ]
        return found | "All" >> beam.Flatten()


def _log_gone(told: Notification) -> None:
    _count("gone")
    told_of = {"uri": told.uri, "stage": "watch"}
    _log.info("gone: %s of %s, generation %s", told.kind, told.uri, told.generation, extra=told_of)


def _log_refused(message: RefusedMessage) -> None:
    _count("refused")
    _log.warning("refused: message %s: %s", message.message_id, message.problem, extra={"stage": "watch"})


def _count(name: str) -> None:
    Metrics.counter("reelscribe/watch", name).inc()


def stream(
    uploads: Uploads,
    output: str,
    config: Config,
    options: JobOptions,
    stop: threading.Event,
    *,
    commit_within_s: float = COMMIT_WITHIN_S,
    idle_exit_s: float | None = None,
    say: Callable[[str], None] | None = None,
) -> Summary:
    """Run the endless recipe until `stop` is set or the runner ends it; hold the writer's lease all the while.

    Workers elsewhere hold no lease: this process holds it for them, so it must live as long as the pipeline does.

    Args:
      options: their Beam flags name a runner other than the embedded one.
      idle_exit_s: end it when nothing came and nothing was under way for so long; None: never.
      say: is told a line now and then; default: standard error.

    Raises:
      UsageError: the runner cannot watch this. LeaseHeld: another run is writing to this dataset.
      Exception: what stopped the pipeline; the dataset stands, and the same call goes on.
    """
    flags = streaming_options(options.beam_flags)
    runner = str(flags.view_as(StandardOptions).runner)
    uploads.check(runner)
    check_output(output, [])
    say = say or standard_error()
    if runner == LOCAL_STREAMING_RUNNER:
        say(
            f"{runner} acknowledges what it pulls at once: after a kill, and after a stop, run "
            f"`reelscribe curate --input gs://BUCKET/ --output {output}` for what it had not committed"
        )
    with running("watch", uploads.inputs, output, config, options) as job:
        try:
            with quiet_workers():
                pipeline = beam.Pipeline(options=flags)
                _ = pipeline | "Stream" >> CurateUploads(uploads, config, output, job.run_id, commit_within_s)
                with UnderWay(output) as under_way:
                    _Run(pipeline.run(), job, under_way, say).follow(stop, idle_exit_s)
        finally:
            came = committed_by(job)
            job.take(came, came)
            job.tally.counts.update(rows_of(job))
        return job.finish("done")


def streaming_options(flags: Iterable[str]) -> PipelineOptions:
    """Beam's options, of a pipeline that streams."""
    options = pipeline_options(list(flags))
    options.view_as(StandardOptions).streaming = True
    return options


@contextlib.contextmanager
def _unheard(what: str) -> Iterator[None]:
    """Log what a runner cannot be asked just now, and go on: a service that is away for a while ends no pipeline."""
    try:
        yield
    except Exception as error:
        _log.warning("cannot ask %s: %s: %s", what, type(error).__name__, error, extra={"stage": "watch"})


class _Run:
    """A pipeline under way: watched, stopped, and counted."""

    def __init__(self, result: PipelineResult, job: Job, under_way: UnderWay, say: Callable[[str], None]):
        self._result, self._job, self._here, self._say = result, job, under_way, say
        self._error: list[BaseException] = []
        self._noted_at = self._quiet_since = time.monotonic()
        self._told, self._known = 0, Tally()
        self._is_local = isinstance(result, DirectPipelineResult)
        self._tick_s = _TICK_S if self._is_local else _NOTE_EVERY_S
        if self._is_local:
            # It tells how it is to those alone who wait for it; of a cancelled one they never hear.
            threading.Thread(target=self._wait, name="stream", daemon=True).start()

    def _wait(self) -> None:
        try:
            self._result.wait_until_finish()
        except BaseException as error:
            self._error.append(error)

    def follow(self, stop: threading.Event, idle_exit_s: float | None) -> None:
        """Watch it until it ends or is to end; see that what is under way is finished, and that nothing writes then."""
        try:
            try:
                while not self._ended() and not stop.is_set() and not self._is_idle(idle_exit_s):
                    self._note()
                    stop.wait(self._tick_s)
            except Exception:
                self._drain()
                raise
            self._drain()
        except KeyboardInterrupt:
            # It must not go on without the lease. Threads here end with the process, and may take their time.
            if not self._is_local:
                self._say("cancelling the pipeline; this ends when it has ended")
                self._until_ended(self._result.cancel)
            raise
        finally:
            self._job.tally = self._tally()
        if self._error:
            raise self._error[0]
        if self._result.state == PipelineState.FAILED:
            raise RuntimeError("the runner gave the pipeline up; its own log says why")

    def _ended(self) -> bool:
        with _unheard("how the pipeline is"):
            return bool(self._error) or PipelineState.is_terminal(self._result.state)
        return False

    def _drain(self) -> None:
        """Have what is under way finished, where the runner has a way; then end the pipeline."""
        client = getattr(getattr(self._result, "_runner", None), "dataflow_client", None)
        if client is not None and not self._ended():
            job_id: str = self._result.job_id()  # type: ignore[attr-defined]
            self._say(f"draining job {job_id}: what was pulled is finished and committed")
            self._until_ended(lambda: client.modify_job_state(job_id, "JOB_STATE_DRAINING"))
        # Others have no such way; what came meanwhile is left to a sweep, or comes again as it is not acknowledged.
        until, quiet = time.monotonic() + DRAIN_S, 0
        with _unheard("what is under way"):
            # Twice quiet: once may be between a pull and the first step that knows of it.
            while quiet < 2 and not self._ended() and time.monotonic() < until:
                quiet = 0 if self._under_way() else quiet + 1
                time.sleep(self._tick_s)
        self._until_ended(self._result.cancel)

    def _until_ended(self, ask: Callable[[], Any]) -> None:
        """Ask for the end, again if that is not heard, and wait for it: until then there are writers."""
        is_asked = False
        while not self._ended():
            with _unheard("for the end of the pipeline"):
                if not is_asked:
                    ask()
                    is_asked = True
            time.sleep(self._tick_s)
            with contextlib.suppress(OSError):  # a full disk, say, which may be why it ends
                self._note()

    def _tally(self) -> Tally:
        """Anew each time: a pipeline's metrics are totals. As last time where the runner does not tell."""
        with _unheard("what was counted"):
            for _ in range(_LOOKS):
                tally = Tally()
                with contextlib.suppress(RuntimeError):  # the local runner adds one while we look
                    tally.add(self._result.metrics())
                    self._known = tally
                    break
        return self._known

    def _under_way(self, tally: Tally | None = None) -> int:
        if self._is_local:
            return len(self._here)
        counts = (tally or self._tally()).counts
        ended = ("recall unchanged", "commit committed", "commit repeated", "watch sources_overtaken")
        return max(0, counts["watch sources"] - sum(counts[name] for name in ended))

    def _is_idle(self, idle_exit_s: float | None) -> bool:
        if idle_exit_s is None:
            return False
        if self._under_way():
            self._quiet_since = time.monotonic()
        return time.monotonic() - self._quiet_since >= idle_exit_s

    def _note(self) -> None:
        """Write down how it goes, now and then, for whoever looks at the record of the run."""
        if time.monotonic() - self._noted_at < _NOTE_EVERY_S:
            return
        self._noted_at = time.monotonic()
        tally = self._job.tally = self._tally()
        counts, under_way = tally.counts, self._under_way(tally)
        self._job.go_on_record(backlog=under_way, gone=counts["watch gone"], refused=counts["watch refused"])
        if under_way != self._told:
            self._told = under_way
            self._say(f"{under_way} videos under way")
