"""How a job goes, for Prometheus to scrape: totals by stage and teacher, and what a watch has before it.

    with exposed(port=9464) as board:
        curate(inputs, "dataset", config, JobOptions(observer=board.follow))      # meanwhile: http://127.0.0.1:9464/metrics

Totals grow over all runs of the process, as counters should; a stream's arrive as it goes, a batch's chunk by chunk.
Needs the extra `metrics` (prometheus-client), which is imported here alone.
"""

from __future__ import annotations

import collections
import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from beam_pipeline.usage import UsageError

if TYPE_CHECKING:
    from beam_pipeline.job import Job

LOCAL = "127.0.0.1"

#: Counters (without the ending `_total`): what each says, and its labels.
COUNTERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "reelscribe_runs": ("runs that began", ()),
    "reelscribe_stage_in": ("what went into a stage (see runs/*.json, stages)", ("stage",)),
    "reelscribe_stage_out": ("what came out of it", ("stage",)),
    "reelscribe_stage_failed": ("what failed in it", ("stage",)),
    "reelscribe_stage_rejected": ("spans that its rules dropped", ("stage",)),
    "reelscribe_stage_reused": ("what an earlier run had made", ("stage",)),
    "reelscribe_stage_seconds": ("seconds of work, summed over workers", ("stage",)),
    "reelscribe_stage_bytes": ("bytes of the sources", ("stage",)),
    "reelscribe_teacher_clips": ("clips by what became of them at a teacher", ("teacher", "outcome")),
    "reelscribe_teacher_seconds": ("seconds that a teacher worked", ("teacher",)),
    "reelscribe_videos": ("videos by how they ended", ("status",)),
    "reelscribe_clips": ("clips, the rows of the dataset", ()),
    "reelscribe_rejected_spans": ("spans by the rule that dropped them", ("rule",)),
    "reelscribe_dead_letters": ("dead letters by the stage that failed", ("stage",)),
}

#: Gauges: what each says, and where the record of a watch has it.
GAUGES: Mapping[str, tuple[str, str]] = {
    "reelscribe_backlog_videos": ("videos that wait or are under way", "backlog"),
    "reelscribe_oldest_waiting_seconds": ("how long the video that waits longest has been there", "oldest_s"),
    "reelscribe_commit_lag_seconds": ("from arrival to commit, of the round committed last", "lag_s"),
    "reelscribe_commit_lag_max_seconds": ("the same, the most of this run", "max_lag_s"),
}

_OF_A_STAGE = ("in", "out", "failed", "rejected", "reused", "seconds", "bytes")
_OF_A_TEACHER = ("captions", "failed", "not_applicable", "reused")
#: What the counts of a run begin with, and the counter that goes by the rest of the name.
_BY_KIND = {
    "videos": "reelscribe_videos",
    "rejected": "reelscribe_rejected_spans",
    "failures": "reelscribe_dead_letters",
}

Totals = collections.Counter[tuple[str, tuple[str, ...]]]


def totals_of(counts: Mapping[str, int], stages: Mapping[str, Mapping[str, Any]]) -> Totals:
    """What was counted, by the counter's name and the values of its labels."""
    found: Totals = collections.Counter()
    for stage, told in stages.items():
        for name in _OF_A_STAGE:
            if name in told:
                found[f"reelscribe_stage_{name}", (stage,)] = told[name]
        for teacher, answered in told.get("teachers", {}).items():
            for outcome in _OF_A_TEACHER:
                found["reelscribe_teacher_clips", (teacher, outcome)] = answered[outcome]
            found["reelscribe_teacher_seconds", (teacher,)] = answered["seconds"]
    for name, number in counts.items():
        kind, _, rest = name.partition(" ")
        if kind in _BY_KIND and rest:
            found[_BY_KIND[kind], (rest,)] = number
    found["reelscribe_clips", ()] = counts.get("clips", 0)
    return found


class Board:
    """What a scrape is told; a collector of prometheus-client.

    Attributes:
      url: where it is served.
    """

    def __init__(self) -> None:
        self.url = ""
        self._before: Totals = collections.Counter()
        self._job: Job | None = None
        self._runs = 0
        self._lock = threading.Lock()

    def follow(self, job: Job) -> None:
        """Tell of this run from now on, and go on counting from where the one before it ended."""
        with self._lock:
            self._before = self._totals()
            self._job = job
            self._runs += 1

    def collect(self) -> Iterator[Any]:
        """The metrics as they stand, family by family."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        with self._lock:
            totals, watched = self._totals(), self._watched()
            totals["reelscribe_runs", ()] = self._runs
            run_id = self._job.run_id if self._job and self._is_under_way() else None
        for name, (says, labels) in COUNTERS.items():
            counter = CounterMetricFamily(name, says, labels=labels)
            for (which, values), total in totals.items():
                if which == name:
                    counter.add_metric(values, total)
            yield counter
        running = GaugeMetricFamily("reelscribe_run", "1 for the run that is under way", labels=["run_id"])
        if run_id is not None:
            running.add_metric([run_id], 1)
        yield running
        for name, (says, key) in GAUGES.items():
            if isinstance(watched.get(key), int | float):
                yield GaugeMetricFamily(name, says, value=watched[key])

    def _totals(self) -> Totals:
        totals = collections.Counter(self._before)
        if self._job is not None:
            tally = self._job.tally
            # Not `+`, which would drop what is still at zero.
            totals.update(totals_of(dict(tally.counts), tally.stages()))
        return totals

    def _is_under_way(self) -> bool:
        return self._job is not None and self._job.record.values.get("status") == "running"

    def _watched(self) -> Mapping[str, Any]:
        """What the watch noted last; nothing while no run is under way, since nobody looks then."""
        return self._job.record.values.get("watch", {}) if self._job and self._is_under_way() else {}


@contextlib.contextmanager
def exposed(port: int, host: str = LOCAL) -> Iterator[Board]:
    """Serve metrics over HTTP meanwhile.

    Args:
      port: 0 takes any that is free (see `Board.url`).
      host: an address of this machine; the default is seen by it alone.

    Raises:
      ModuleNotFoundError: prometheus-client is not installed. UsageError: the address cannot be had.
    """
    from prometheus_client import CollectorRegistry, start_http_server

    board, registry = Board(), CollectorRegistry()
    registry.register(board)
    try:
        server, _ = start_http_server(port, host, registry)
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError(f"cannot serve metrics at {host}:{port} ({why}); take another --metrics-port") from error
    shown = f"[{host}]" if ":" in host else host
    board.url = f"http://{shown}:{server.server_port}/metrics"
    try:
        yield board
    finally:
        server.shutdown()
        server.server_close()
