"""Workers, hours and money of a job to come: arithmetic alone, from rates that somebody measured or entered.

found = estimate(tasks, workers, utilisation=0.7, count=50)      # so many workers -> hours
found = estimate(tasks, workers, utilisation=0.7, within_h=24)   # so many hours -> workers
found.wall_h, found.cost
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

#: Of the workers' paid time, what the stages' seconds account for. An assumption: what Beam does between stages, the
#: shuffle, bundles that are worked on twice and the last worker of each stage take the rest. Nobody has measured it on
#: Dataflow; after a job, its own run record and bill tell it.
UTILISATION = 0.7

#: Instances of one Dataflow job, without a worker zone and with the service's shuffle (docs: Dataflow quotas).
MOST_WORKERS = 4000


class NotPossible(ValueError):
    """The job cannot be done so; told in one line, with what would do."""


@dataclasses.dataclass(frozen=True)
class Worker:
    """One kind of worker.

    Attributes:
      pool: what its pool is called. machine: its type, to be told.
      price: of an hour of one worker with all that belongs to it (vCPUs, memory, GPUs, disk), in any currency.
      start_min: minutes from paying for a worker to its first result: image, drivers, weights.
      workers: a number that is fixed, by a quota for instance; None: as many as the job gets.
    """

    pool: str
    machine: str
    vcpus: int
    gpus: int
    price: float
    start_min: float = 0.0
    workers: int | None = None


@dataclasses.dataclass(frozen=True)
class Task:
    """The work of one stage: `amount` units of `seconds` each, on one vCPU or one GPU of a pool's worker."""

    stage: str
    unit: str
    amount: float
    seconds: float
    on: str
    pool: str
    source: str = ""

    @property
    def hours(self) -> float:
        """Of one vCPU or one GPU that is always busy."""
        return self.amount * self.seconds / 3600


@dataclasses.dataclass(frozen=True)
class Pool:
    """What becomes of a pool. hours: by the clock, from the start of its workers to the end of its stages."""

    worker: Worker
    workers: int
    hours: float
    cpu_hours: float
    gpu_hours: float

    @property
    def cost(self) -> float:
        return self.workers * self.hours * self.worker.price


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a job takes.

    Attributes:
      tasks: by stage, in the order of the recipe. pools: those that have work to do.
      wall_h: hours by the clock where pools work one after another.
      overlapped_h: where they overlap wholly, which is the least it can be.
    """

    tasks: tuple[Task, ...]
    pools: tuple[Pool, ...]

    @property
    def wall_h(self) -> float:
        return sum(pool.hours for pool in self.pools)

    @property
    def overlapped_h(self) -> float:
        return max((pool.hours for pool in self.pools), default=0.0)

    @property
    def cost(self) -> float:
        return sum(pool.cost for pool in self.pools)

    @property
    def cpu_hours(self) -> float:
        return sum(pool.cpu_hours for pool in self.pools)

    @property
    def gpu_hours(self) -> float:
        return sum(pool.gpu_hours for pool in self.pools)


def estimate(
    tasks: Sequence[Task],
    workers: Sequence[Worker],
    utilisation: float,
    count: int | None = None,
    within_h: float | None = None,
) -> Estimate:
    """Tell what a job takes with so many workers in every pool, or so that it ends in time.

    For a deadline every pool gets the same number of workers, the least that will do: Dataflow knows one limit a job.
    Pools work one after another.

    Args:
      count: workers of every pool that has no number of its own. within_h: hours by the clock.

    Raises:
      NotPossible: a task has no pool that could do it, or the deadline passes whatever the workers.
    """
    if (count is None) == (within_h is None):
        raise NotPossible("say either how many workers or within how many hours")
    kinds = {worker.pool: worker for worker in workers}
    work = {pool: [task for task in tasks if task.pool == pool] for pool in kinds}
    busy = [worker for worker in workers if any(task.hours for task in work[worker.pool])]
    if count is None:
        assert within_h is not None
        count = _enough(busy, work, utilisation, within_h)
    pools = []
    for worker in busy:
        number = worker.workers or count
        alone_h = _alone_h(worker, work[worker.pool], utilisation)
        pools.append(
            Pool(
                worker=worker,
                workers=number,
                hours=worker.start_min / 60 + alone_h / number,
                cpu_hours=sum(task.hours for task in work[worker.pool] if task.on == "cpu"),
                gpu_hours=sum(task.hours for task in work[worker.pool] if task.on == "gpu"),
            )
        )
    return Estimate(tuple(tasks), tuple(pools))


def _enough(busy: Sequence[Worker], work: dict[str, list[Task]], utilisation: float, within_h: float) -> int:
    """The least number of workers in each pool that has none of its own, so that all pools end in time."""
    left_h, shared_h = within_h, 0.0
    for worker in busy:
        alone_h = _alone_h(worker, work[worker.pool], utilisation)
        left_h -= worker.start_min / 60
        if worker.workers:
            left_h -= alone_h / worker.workers
        else:
            shared_h += alone_h
    if left_h < 0 or (shared_h and left_h <= 0):
        most = "starting its workers" + (" and pools of a fixed size" if any(one.workers for one in busy) else "")
        raise NotPossible(
            f"within {within_h:g} hours no number of workers will do: {most} takes {within_h - left_h:.3g}"
        )
    # A hair less, or a job that fits exactly gets one worker more.
    return max(1, math.ceil(shared_h / left_h - 1e-9)) if shared_h else 1


def _alone_h(worker: Worker, tasks: Sequence[Task], utilisation: float) -> float:
    """Hours that one worker takes for the tasks of its pool, one stage after another."""
    total = 0.0
    for task in tasks:
        units = worker.gpus if task.on == "gpu" else worker.vcpus
        if not units:
            raise NotPossible(
                f"{task.stage} needs GPUs, and workers of the pool {worker.pool} have none; add gpus=1 to it"
            )
        total += task.hours / (units * utilisation)
    return total


def pool_of(stage: str, on: str, said: str | None, workers: Sequence[Worker]) -> str:
    """The pool that a stage's work is for: the one that was named, else the only one of its kind.

    Work of vCPUs goes to workers without GPUs, where there are any; with one kind of worker all work goes to it.

    Raises:
      NotPossible: there is none, or more than one.
    """
    pools = [worker.pool for worker in workers]
    if said is not None:
        if said not in pools:
            raise NotPossible(
                f"{stage} is for the pool {said!r}, and there is no --worker {said}=... (only {', '.join(pools)})"
            )
        return said
    fitting = [worker.pool for worker in workers if bool(worker.gpus) == (on == "gpu")]
    if not fitting and on == "cpu":
        fitting = pools
    if not fitting:
        raise NotPossible(f"{stage} needs GPUs; add a worker with some: --worker gpu=MACHINE,vcpu=N,gpus=1,price=P")
    if len(fitting) > 1:
        raise NotPossible(f"{stage} could be for {' or '.join(fitting)}; say which: pool: {fitting[0]} in --rates")
    return fitting[0]
