"""An estimate told for people and for programs: stages, pools, money, and all that has to be believed for it.

print("\\n".join(describe(told))); json.dumps(as_json(told))
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from beam_pipeline.estimate import MOST_WORKERS, Estimate
from beam_pipeline.estimate_rates import TEACHER, Measured
from beam_pipeline.estimate_stages import Amounts

#: Characters of a line of text.
WIDTH = 110

#: Of what is stored, by what it is told as.
KINDS = {"reels": "reels", "clips": "rows of clips", "media": "clip files"}


@dataclasses.dataclass(frozen=True)
class Told:
    """What there is to tell.

    Attributes:
      config: of the job, as the record of a run would have it.
      found: the estimate. amounts: of what the job goes through. utilisation: that it was made with.
      within_h: the deadline, where one was given.
      stored: bytes by kind. storage_price: of a GB a month, where one was given.
      measured: the runs that rates are from. densities: where the amounts are from, by what they count.
    """

    config: Mapping[str, Any]
    found: Estimate
    amounts: Amounts
    utilisation: float
    within_h: float | None
    stored: Mapping[str, float]
    storage_price: float | None
    measured: Sequence[Measured]
    densities: Mapping[str, str]

    @property
    def hours(self) -> float:
        """Of video."""
        return self.amounts.video_s / 3600

    @property
    def a_month(self) -> float | None:
        """What is stored costs so much a month."""
        return None if self.storage_price is None else sum(self.stored.values()) / 1e9 * self.storage_price

    @property
    def per_1000_clips(self) -> float | None:
        """The cost of a thousand clips."""
        return 1000 * self.found.cost / self.amounts.clips if self.amounts.clips else None

    @property
    def per_hour(self) -> float:
        """The cost of an hour of video."""
        return self.found.cost / self.hours


def describe(told: Told) -> list[str]:
    """The tables, the sums, and the assumptions."""
    found, amounts = told.found, told.amounts
    counted = [f"{_short(value)} {name}" for name in ("videos", "shots", "clips") if (value := getattr(amounts, name))]
    lines = [f"{told.hours:,.6g} hours of video: {', '.join(counted) or 'nothing else is known of it'}", ""]
    titles = ("stage", "amount", "", "seconds each", "vCPU hours", "GPU hours", "pool")
    rows = [
        (
            task.stage.removeprefix(TEACHER),
            _short(task.amount),
            _plural(task.unit),
            f"{task.seconds:.3g} {'vCPU' if task.on == 'cpu' else 'GPU'}",
            _hours(task.hours) if task.on == "cpu" else "-",
            _hours(task.hours) if task.on == "gpu" else "-",
            task.pool,
        )
        for task in found.tasks
    ]
    rows.append(("sum", "", "", "", _hours(found.cpu_hours), _hours(found.gpu_hours), ""))
    lines += [*_aligned([titles, *rows], left=(0, 2, 6)), ""]
    titles = ("pool", "machine", "workers", "hours", "worker hours", "price", "cost")
    rows = [
        (
            pool.worker.pool,
            pool.worker.machine,
            f"{pool.workers:,}",
            _hours(pool.hours),
            _hours(pool.workers * pool.hours),
            f"{pool.worker.price:g}",
            _money(pool.cost),
        )
        for pool in found.pools
    ]
    lines += [*_aligned([titles, *rows], left=(0, 1)), ""]
    overlap = f" (no less than {_hours(found.overlapped_h)}, were the pools to overlap wholly)"
    lines.append(f"wall hours  {_hours(found.wall_h)}{overlap if len(found.pools) > 1 else ''}")
    each = [f"{_money(told.per_hour)} an hour of video"]
    if told.per_1000_clips is not None:
        each.insert(0, f"{_money(told.per_1000_clips)} per 1,000 clips")
    lines.append(f"cost        {_money(found.cost)}: {', '.join(each)}")
    if told.stored:
        sizes = ", ".join(f"{_bytes(size)} of {KINDS[kind]}" for kind, size in told.stored.items())
        lines.append(f"storage     {sizes}" + ("" if told.a_month is None else f": {_money(told.a_month)} a month"))
    if weak := weaknesses(told):
        lines += ["", "a weak basis:", *_listed(weak)]
    return [*lines, "", "assumed:", *_listed(assumptions(told))]


def weaknesses(told: Told) -> list[str]:
    """Why the runs that rates are from tell little."""
    lines = []
    for run in told.measured:
        used = [task.stage for task in told.found.tasks if task.source == f"run {run.run_id}"]
        lines += [f"run {run.run_id}: {one}" for one in run.weak]
        lines += [
            f"run {run.run_id}: {stage.removeprefix(TEACHER)} {why}"
            for stage, why in run.weak_stages.items()
            if stage in used
        ]
    return lines


def assumptions(told: Told) -> list[str]:
    """All that has to be believed for the estimate to hold."""
    found = told.found
    by_source: dict[str, list[str]] = {}
    for task in found.tasks:
        by_source.setdefault(task.source, []).append(task.stage.removeprefix(TEACHER))
    lines = [f"rates of {', '.join(stages)}: {source}" for source, stages in by_source.items()]
    lines += [f"{what} an hour of video: {source}" for what, source in told.densities.items()]
    lines += [one for run in told.measured for one in run.assumed]
    lines.append(
        f"utilisation {told.utilisation:g}: of the time that workers are paid for, stages work so much; the rest goes "
        "to the shuffle, to what Beam does between stages, to work done twice, and to waiting for the last worker"
    )
    lines += [
        f"in run {run.run_id} it was {run.busy:.2f}, start included, on one machine"
        for run in told.measured
        if run.busy is not None
    ]
    lines.append("a vCPU is as fast as a core of the machine that was measured, a GPU of the same kind")
    if len(found.pools) > 1:
        lines.append("pools work one after another, and each is paid for only while its own stages work")
    if at_once := (told.config.get("placement") or {}).get("models_at_once"):
        lines.append(
            f"not counted: teachers take turns, {at_once} in memory at once; loading them again takes its time"
        )
    for pool in found.pools:
        if pool.worker.start_min:
            lines.append(
                f"each worker of {pool.worker.pool} is paid for {pool.worker.start_min:g} minutes before it works"
            )
        else:
            lines.append(f"workers of {pool.worker.pool} start in no time; add start_min=MINUTES to say otherwise")
    lines.append("prices are of a worker's hour with everything: vCPUs, memory, disk, GPUs")
    lines.append(
        "not counted: the service's shuffle and requests to the bucket, the launcher, traffic out of the region"
    )
    finish_s = sum(run.finish_s for run in told.measured)
    if finish_s:
        lines.append(
            "not counted: compacting tables and marking duplicates at the end, on one worker "
            f"({finish_s:.3g} s where it was measured)"
        )
    for pool in found.pools:
        if pool.workers > MOST_WORKERS:
            lines.append(
                f"{pool.workers:,} workers of {pool.worker.pool} are more than the {MOST_WORKERS:,} of one Dataflow job"
            )
    if told.amounts.videos:
        slots = max((pool.workers * max(pool.worker.vcpus, pool.worker.gpus) for pool in found.pools), default=0)
        if slots > told.amounts.videos:
            lines.append(
                f"a video is decoded on one core: {_short(told.amounts.videos)} videos cannot occupy {slots:,} vCPUs"
            )
    return lines


def as_json(told: Told) -> dict[str, Any]:
    """All figures, unrounded, with the assumptions."""
    found = told.found
    return {
        "hours_of_video": told.hours,
        "amounts": dataclasses.asdict(told.amounts),
        "utilisation": told.utilisation,
        "within_h": told.within_h,
        "stages": [dataclasses.asdict(task) | {"hours": task.hours} for task in found.tasks],
        "pools": [dataclasses.asdict(pool) | {"cost": pool.cost} for pool in found.pools],
        "cpu_hours": found.cpu_hours,
        "gpu_hours": found.gpu_hours,
        "wall_h": found.wall_h,
        "overlapped_h": found.overlapped_h,
        "cost": found.cost,
        "cost_per_1000_clips": told.per_1000_clips,
        "cost_per_hour_of_video": told.per_hour,
        "stored_bytes": dict(told.stored),
        "storage_cost_a_month": told.a_month,
        "runs": [run.run_id for run in told.measured],
        "weak": weaknesses(told),
        "assumptions": assumptions(told),
    }


def _aligned(rows: Sequence[Sequence[str]], left: Iterable[int]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    to_the_left = set(left)
    return [
        "  ".join(
            cell.ljust(width) if number in to_the_left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _listed(lines: Sequence[str]) -> list[str]:
    """Lines of a list, as wide as the tables."""
    return [
        part
        for line in lines
        for part in textwrap.wrap(
            line, WIDTH, initial_indent="  - ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        )
    ]


def _plural(unit: str) -> str:
    first, _, rest = unit.partition(" ")
    return f"{first}s {rest}".rstrip()


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _hours(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _money(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:,.2f}" if value >= 0.1 else f"{value:.2g}"


def _bytes(value: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} PB"
