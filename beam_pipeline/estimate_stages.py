"""Which stages a job has, the rate of each, and how much there is to do.

    amounts = amounts_of(hours=1000, videos=None, densities)
    tasks = tasks_of(config, rates, amounts, workers)

Every stage that the configuration asks for has a rate, or the job is refused: none counts as nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from beam_pipeline.estimate import NotPossible, Task, Worker, pool_of
from beam_pipeline.estimate_rates import TEACHER, UNITS, Measured, Rate, settings_of

#: Stages that a job has only where its configuration asks for them, by the key of the configuration.
_OPTIONAL = {"hear": "speech", "measure": "measures", "clean": "hygiene", "media": "write_clips"}

#: What an hour of video holds.
DENSITIES = {"clips_per_hour": "clips", "shots_per_hour": "shots", "videos_per_hour": "videos"}


@dataclasses.dataclass(frozen=True)
class Amounts:
    """How much a job has to do. None: nobody told, and a stage that is counted in it is refused."""

    video_s: float
    videos: float | None
    shots: float | None
    clips: float | None

    def of(self, unit: str) -> float | None:
        """How many of a rate's units."""
        counted = {"video": self.videos, "second of video": self.video_s, "shot": self.shots, "clip": self.clips}
        return counted[unit]


def amounts_of(hours: float, videos: float | None, densities: Mapping[str, float]) -> Amounts:
    """The units in so many hours of video.

    Args:
      videos: how many there are; None: as dense as told. densities: by the keys of `DENSITIES`.
    """
    found = {name: hours * densities[key] for key, name in DENSITIES.items() if key in densities}
    return Amounts(hours * 3600, videos or found.get("videos"), found.get("shots"), found.get("clips"))


def densities_of(measured: Measured) -> dict[str, float]:
    """What an hour of a run's video held."""
    hours = measured.video_s / 3600
    return {key: getattr(measured, name) / hours for key, name in DENSITIES.items()}


def stages_of(config: Mapping[str, Any]) -> list[str]:
    """The stages that a job of this configuration has, "caption/TEACHER" for each teacher."""
    stages: list[str] = []
    for stage in UNITS:
        if stage == "caption":
            stages += [TEACHER + name for name in config.get("teachers") or []]
        elif stage not in _OPTIONAL or config.get(_OPTIONAL[stage]):
            stages.append(stage)
    return stages


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The rate of each stage, and why those that have none are without."""

    rates: Mapping[str, Rate]
    missing: Mapping[str, str]


def choose_rates(
    config: Mapping[str, Any],
    measured: Sequence[Measured],
    entered: Mapping[str, Rate],
    benchmarked: Mapping[str, Rate],
) -> Chosen:
    """Choose a rate for every stage of a configuration.

    What is entered goes before what a benchmark measured, and that before runs, of which the first that measured the
    stage with the same settings counts. A teacher's share of clips is a run's, unless one is entered.
    """
    rates: dict[str, Rate] = {}
    missing: dict[str, str] = {}
    for stage in stages_of(config):
        settings = settings_of(stage, config)
        of_runs = [run.rates[stage] for run in measured if stage in run.rates]
        same = [rate for rate in of_runs if rate.settings == settings]
        benchmark = benchmarked.get(stage)
        if benchmark is not None and benchmark.settings not in (None, settings):
            benchmark = None
        rate = entered.get(stage) or benchmark or next(iter(same), None)
        if rate is None:
            missing[stage] = _why(stage, measured)
            continue
        if stage.startswith(TEACHER) and rate.share is None:
            rate = dataclasses.replace(rate, share=same[0].share if same else 1.0)
        rates[stage] = rate
    return Chosen(rates, missing)


def _why(stage: str, measured: Sequence[Measured]) -> str:
    """Why runs have no rate for a stage."""
    if not measured:
        return "no run was named"
    for run in measured:
        if stage in run.unmeasured:
            return run.unmeasured[stage]
        if stage in run.rates:
            settings = run.rates[stage].settings
            return f"run {run.run_id} had {settings if isinstance(settings, str) else 'other settings'}"
    return f"run {measured[0].run_id} had none"


def tasks_of(rates: Mapping[str, Rate], amounts: Amounts, workers: Sequence[Worker]) -> list[Task]:
    """The work of each stage, and whose it is.

    Raises:
      NotPossible: nobody told how much there is of it, or no worker can do it.
    """
    tasks = []
    for stage, rate in rates.items():
        unit = UNITS[stage.partition("/")[0]]
        amount = amounts.of(unit)
        if amount is None:
            flag = {"video": "--videos N", "clip": "--clips-per-hour N", "shot": "shots_per_hour: N in --rates"}[unit]
            raise NotPossible(f"{stage} is told for a {unit}, and nobody said how many there are: add {flag}")
        share = rate.share if rate.share is not None else 1.0
        pool = pool_of(stage, rate.on, rate.pool, workers)
        tasks.append(Task(stage, unit, amount * share, rate.seconds, rate.on, pool, rate.source))
    return tasks


def advice(missing: Mapping[str, str]) -> str:
    """Say in a line which stages have no rate, why, and how to get one."""
    by_reason: dict[str, list[str]] = {}
    for stage, reason in missing.items():
        by_reason.setdefault(reason, []).append(stage)
    told = "; ".join(f"{', '.join(stages)} ({reason})" for reason, stages in by_reason.items())
    return (
        f"no rate for {told}. Measure it: reelscribe curate over ten videos that need it, then --from its dataset; or "
        "benchmarks/handlers.py --size full --json FILE on the GPU, then --handlers FILE; or enter it in --rates FILE"
    )
