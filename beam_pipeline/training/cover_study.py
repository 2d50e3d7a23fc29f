"""What a greedy choice of teachers reaches, step by step: the table, the curve, and the line for a profile.

study = study_cover(judged, costs); print(study.text()); study.profile_line
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from beam_pipeline import evaluate_plots as plots
from beam_pipeline.evaluate_bars import Bars, Side, bars
from beam_pipeline.evaluate_bootstrap import RESAMPLES, SEED, Interval, draws, interval_of
from beam_pipeline.evaluate_tables import table
from beam_pipeline.training.cover import MOST_TRIED, Cost, JudgedClip, covering, greedy, optimum, pool_of

#: The share of 1,000 clips that so many of the paper's teachers cover, the best ones of 31.
PUBLISHED = {1: 30.8, 8: 76.8, 31: 84.7}
#: A teacher that adds less than this share of the clips is left out unless the user says how many.
WORTH = 0.01

_HEADER = ("teacher", "alone", "so far", "gain", "best possible", "s a clip", "s so far")


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """A teacher that is added to those before it.

    Attributes:
      alone, covered, gain: the share of clips that it covers, that all so far cover, and that it adds.
      best: the share that the best set of as many teachers covers; None where there were too many to try.
      best_set: that set, by name.
      cost, cost_so_far: None where nobody measured or told it.
    """

    teacher: str
    alone: Interval
    covered: Interval
    gain: Interval
    best: float | None
    best_set: tuple[str, ...]
    cost: Cost | None
    cost_so_far: Cost | None


@dataclasses.dataclass(frozen=True)
class CoverStudy:
    """A choice of teachers.

    Attributes:
      steps: all teachers, in the order in which they are chosen.
      wanted: how many are taken. why: what decided that, for people.
      notes: what a reader has to know.
    """

    clips: int
    all_bad: int
    steps: tuple[Step, ...]
    wanted: int
    why: str
    notes: tuple[str, ...] = ()

    @property
    def measured(self) -> bool:
        return self.wanted > 0

    @property
    def chosen(self) -> tuple[str, ...]:
        """The teachers that are taken, in order."""
        return tuple(step.teacher for step in self.steps[: self.wanted])

    @property
    def profile_line(self) -> str:
        """They, as a configuration names them."""
        return f"teachers: {yaml.safe_dump(list(self.chosen), default_flow_style=True, width=10**6).strip()}"

    def as_json(self) -> dict[str, Any]:
        return {
            "clips": self.clips,
            "all_bad": self.all_bad,
            "teachers": list(self.chosen),
            "why": self.why,
            "steps": [
                {
                    "teacher": step.teacher,
                    **{name: getattr(step, name).as_json() for name in ("alone", "covered", "gain")},
                    "best_possible": step.best,
                    "best_set": list(step.best_set),
                    **{
                        name: None if cost is None else dataclasses.asdict(cost)
                        for name, cost in (("cost", step.cost), ("cost_so_far", step.cost_so_far))
                    },
                }
                for step in self.steps
            ],
            "published": {str(number): share for number, share in PUBLISHED.items()},
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """The table, as it is printed."""
        lines = [*table(_HEADER, list(self._rows())), "", self.why]
        if self.wanted:
            lines.append(self.profile_line)
        return "\n".join([*lines, "", *self.notes])

    def html(self) -> str:
        """All of it in one page."""
        parts = [plots.paragraph(self.why)]
        if self.wanted:
            parts.append(plots.paragraph(self.profile_line))
        parts += [
            plots.heading("Coverage by number of teachers"),
            self._curve(),
            plots.html_table(_HEADER, self._rows()),
            plots.heading("Each teacher alone"),
            bars(
                [Bars(step.teacher, (Side("alone", "own", step.alone),)) for step in self.steps],
                title="Share of clips, with 95 % intervals",
            ),
            plots.heading("Notes"),
            plots.html_list(self.notes),
        ]
        return plots.page("Which teachers cover the clips", parts)

    def _curve(self) -> Any:
        shares = [(number, 100 * (step.covered.value or 0.0)) for number, step in enumerate(self.steps, 1)]
        points = [
            plots.Point(step.teacher if number <= self.wanted else "", number, share, "chosen" if number <= self.wanted
                        else "step")
            for step, (number, share) in zip(self.steps, shares, strict=True)
        ]  # fmt: skip
        points += [plots.Point(f"published: {told:g} %", at, told, "published") for at, told in PUBLISHED.items()]
        return plots.scatter(
            points, title="Coverage", x_name="teachers", y_name="clips covered, in hundredths", path=shares
        )

    def _rows(self) -> Iterator[list[str]]:
        for number, step in enumerate(self.steps, 1):
            yield [
                f"{number:>2} {step.teacher}",
                step.alone.told(scale=100),
                step.covered.told(scale=100),
                step.gain.told("+.1f", scale=100),
                "-" if step.best is None else f"{100 * step.best:.1f}",
                *("-" if cost is None else cost.told() for cost in (step.cost, step.cost_so_far)),
            ]


def study_cover(
    judged: Sequence[JudgedClip], costs: Mapping[str, Cost], *, wanted: int | None = None, notes: Sequence[str] = ()
) -> CoverStudy:
    """Choose teachers greedily, and tell what each step reaches and costs.

    Args:
      wanted: how many to take, at most as many as there are; None: those before the first that adds less than `WORTH`.
      notes: are told after ours.
    """
    pool = pool_of(judged)
    covers = covering(judged, pool)
    order = greedy(covers, pool, costs)
    best = optimum(covers)
    alone = covers[:, order]
    so_far = np.logical_or.accumulate(alone, axis=1)
    gained = np.diff(so_far.astype(int), axis=1, prepend=0)
    intervals = means_of(np.hstack([alone, so_far, gained]))
    steps: list[Step] = []
    total: Cost | None = Cost()
    for number, place in enumerate(order):
        cost = costs.get(pool[place])
        total = None if total is None or cost is None else total + cost
        reached = best[number] if best else None
        steps.append(
            Step(
                teacher=pool[place],
                alone=intervals[number],
                covered=intervals[len(pool) + number],
                gain=intervals[2 * len(pool) + number],
                best=None if reached is None else reached[0] / len(judged),
                best_set=() if reached is None else tuple(pool[at] for at in reached[1]),
                cost=cost,
                cost_so_far=total,
            )
        )
    number, why = _enough(steps, wanted)
    all_bad = sum(not one.good for one in judged)
    own = (
        f"{len(judged):,} judged clips, {all_bad:,} of them without a good caption; coverage is in hundredths of all "
        "of them, with 95 % bootstrap intervals over clips",
        "teachers are chosen on the same clips on which they are measured: others are covered a little less",
    )
    return CoverStudy(len(judged), all_bad, tuple(steps), number, why, (*own, *_notes(judged, pool), *notes))


def means_of(values: np.ndarray) -> list[Interval]:
    """The mean of each column over clips, with intervals: the same draws as of each alone, drawn once.

    Args:
      values: (clips, k).
    """
    if not len(values):
        return [Interval(None)] * values.shape[1]
    values = values.astype(float)
    drawn = np.array([counts @ values for counts in draws(len(values), RESAMPLES, SEED)]).reshape(-1, values.shape[1])
    means = values.mean(axis=0)
    return [
        interval_of(float(mean), column / len(values), len(values)) for mean, column in zip(means, drawn.T, strict=True)
    ]


def _enough(steps: Sequence[Step], wanted: int | None) -> tuple[int, str]:
    """How many teachers to take, and why so many."""
    gains = [step.gain.value or 0.0 for step in steps]
    if not gains or not gains[0]:
        return 0, "people found no teacher's caption good, so there is none to take"
    if wanted is not None:
        number, why = wanted, "as --teachers says"
    else:
        number = next((at for at, gain in enumerate(gains) if gain < WORTH and at), len(gains))
        why = "all that there are"
        if number < len(gains):
            why = f"the next one, {steps[number].teacher}, adds {100 * gains[number]:.1f} points, less than 1"
    covered = 100 * (steps[number - 1].covered.value or 0.0)
    return number, f"{number} of {len(steps)} teachers cover {covered:.1f} % of the clips: {why}"


def _notes(judged: Sequence[JudgedClip], pool: Sequence[str]) -> Iterator[str]:
    """What the judgements cannot tell."""
    single = sum(one.is_every_good is False for one in judged)
    if single:
        yield (
            f"of {single:,} clips people said only which caption is the best: others may be good as well, so coverage "
            "is a lower bound; `reelscribe annotate export --choose every-good` asks for all"
        )
    if any(one.is_every_good is None for one in judged):
        yield "the file does not say whether every good caption was asked for; if not, coverage is a lower bound"
    for teacher in pool:
        stood = sum(one.asked is None or teacher in one.asked for one in judged)
        if stood < len(judged):
            yield f"{teacher} stood to be chosen of {stood:,} of the {len(judged):,} clips, and covers no other"
    if len(pool) > MOST_TRIED:
        yield f"the best possible is not told: of {len(pool)} teachers there are too many sets to try"
