"""A stream on a runner far away that does not answer for a while, or is cut short: who may write until when."""

from __future__ import annotations

import functools
import pathlib
import shutil
import threading
from typing import Any

import pytest
from apache_beam.metrics.execution import MetricKey, MetricResult
from apache_beam.metrics.metric import MetricResults
from apache_beam.metrics.metricbase import MetricName
from apache_beam.runners.runner import PipelineResult, PipelineState

from beam_pipeline import streaming
from beam_pipeline.config import load_config
from beam_pipeline.job import JobOptions, running
from transforms.one_version import UnderWay

HAPPENED: list[str] = []


def note(happened: str) -> None:
    HAPPENED.append(happened)


class Counts(MetricResults):
    """What a runner counted: so many sources came, so many were committed."""

    def __init__(self, sources: int, committed: int):
        self._counted = {("reelscribe/watch", "sources"): sources, ("reelscribe/commit", "committed"): committed}

    def query(self, filter: Any = None) -> dict[str, list[MetricResult]]:
        counters = [MetricResult(MetricKey("s", MetricName(*name)), n, n) for name, n in self._counted.items()]
        return {"counters": counters, "distributions": []}


class Elsewhere(PipelineResult):
    """A pipeline on a runner far away. It takes a while to end after it was cancelled; what it is asked is noted."""

    def __init__(self, *counts: Counts | Exception, running_for: int = 1000):
        super().__init__(PipelineState.RUNNING)
        self.counts, self.looks_left = list(counts), running_for
        self.state_errors: list[Exception] = []

    @property
    def state(self) -> str:
        if self.state_errors:
            raise self.state_errors.pop()
        self.looks_left -= 1
        if self.looks_left == 0:
            self._state = PipelineState.CANCELLED if self._state == PipelineState.CANCELLING else PipelineState.DONE
            note(self._state)
        return self._state

    def metrics(self) -> MetricResults:
        now = self.counts.pop(0) if len(self.counts) > 1 else self.counts[0]
        if isinstance(now, Exception):
            raise now
        return now

    def cancel(self) -> None:
        note("asked to cancel")
        self._state, self.looks_left = PipelineState.CANCELLING, 3


def follow(result: Elsewhere, output: pathlib.Path, stop: threading.Event, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Follow a pipeline that has begun; return the run's tally."""
    HAPPENED.clear()
    monkeypatch.setattr(streaming, "_NOTE_EVERY_S", 0.001)
    with (
        running("watch", ["uploads"], str(output), load_config("lite"), JobOptions()) as job,
        UnderWay(str(output)) as here,
    ):
        try:
            streaming._Run(result, job, here, note).follow(stop, None)
        finally:
            note("left")
        return job.tally


def test_a_runner_that_does_not_answer_for_a_while_goes_on_and_what_it_told_last_counts(tmp_path, monkeypatch, caplog):
    away = [ConnectionError("503"), ConnectionError("503")]
    result = Elsewhere(Counts(2, 1), *away, running_for=12)
    result.state_errors = [ConnectionError("504")]
    tally = follow(result, tmp_path, threading.Event(), monkeypatch)
    assert HAPPENED == ["1 videos under way", "DONE", "left"]
    assert (tally.counts["watch sources"], tally.counts["commit committed"]) == (2, 1)
    told = [record.getMessage() for record in caplog.records if record.name == streaming.__name__]
    assert told[0] == "cannot ask how the pipeline is: ConnectionError: 504"
    assert set(told[1:]) == {"cannot ask what was counted: ConnectionError: 503"}


class Breaks(Counts):
    """Takes the folder away in which the run keeps its record, as soon as it is asked."""

    def __init__(self, folder: pathlib.Path):
        super().__init__(1, 0)
        self._folder = folder

    def query(self, filter: Any = None) -> dict[str, list[MetricResult]]:
        shutil.rmtree(self._folder)
        self._folder.write_text("")
        return super().query(filter)


def test_an_error_while_it_is_followed_lets_it_finish_and_nobody_sweeps_up_before_it_has_ended(tmp_path, monkeypatch):
    result = Elsewhere(Breaks(tmp_path / "runs"), Counts(1, 0), Counts(1, 0), Counts(1, 1))
    with pytest.raises(FileExistsError):
        follow(result, tmp_path, threading.Event(), monkeypatch)
    assert HAPPENED == ["asked to cancel", "CANCELLED", "left"]
    assert result.counts[0].query()["counters"][1].result == 1, "it was asked to cancel when all was committed"


def test_a_second_interrupt_cancels_what_runs_elsewhere_and_keeps_the_lease_until_it_has_ended(tmp_path, monkeypatch):
    class Interrupting(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            raise KeyboardInterrupt

    result = Elsewhere(Counts(1, 0))
    monkeypatch.setattr(result, "cancel", functools.partial(_cancel_when_heard, result, [ConnectionError("503")]))
    with pytest.raises(KeyboardInterrupt):
        follow(result, tmp_path, Interrupting(), monkeypatch)
    cancelling = "cancelling the pipeline; this ends when it has ended"
    told = [one for one in HAPPENED if "under way" not in one]
    assert told == [cancelling, "not heard", "asked to cancel", "CANCELLED", "left"]


def _cancel_when_heard(result: Elsewhere, errors: list[Exception]) -> None:
    if errors:
        note("not heard")
        raise errors.pop()
    Elsewhere.cancel(result)
