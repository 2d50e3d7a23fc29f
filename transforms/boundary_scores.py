"""How well found shot boundaries agree with true ones, as the field counts it.

    counts = compare(truth.transitions, found, tolerance=2)
    counts.precision, counts.recall, counts.f1

The evaluation is that of TransNetV2 and AutoShot: a transition is the time between the middles of the old shot's last
frame and of the new shot's first; a found one matches a true one when the two overlap, or are no farther apart than the
tolerance; each is matched once; counts are summed over the videos before anything is divided.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from transforms.truth import Transition

#: In frames. TransNetV2 and AutoShot publish theirs at 2.
TOLERANCES = (0, 1, 2)


@dataclasses.dataclass(frozen=True, slots=True)
class Counts:
    """Boundaries that were found and true, found and false, and missed."""

    right: int = 0
    wrong: int = 0
    missed: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.right + other.right, self.wrong + other.wrong, self.missed + other.missed)

    @property
    def precision(self) -> float | None:
        """The share of the found that is true; None when nothing was found."""
        found = self.right + self.wrong
        return self.right / found if found else None

    @property
    def recall(self) -> float | None:
        """The share of the true that was found; None when there was nothing to find."""
        true = self.right + self.missed
        return self.right / true if true else None

    @property
    def f1(self) -> float | None:
        """The harmonic mean of both; None when nothing was found and there was nothing to find."""
        weight = 2 * self.right + self.wrong + self.missed
        return 2 * self.right / weight if weight else None


def compare(true: Iterable[Transition], found: Iterable[Transition], tolerance: int) -> Counts:
    """Match the transitions of one video one to one, in order.

    Args:
      true, found: in any order.
      tolerance: how many frames may lie between a true and a found transition that match; two hard cuts match when
        their frames differ by no more than that.

    Raises:
      ValueError: the tolerance is negative.
    """
    if tolerance < 0:
        raise ValueError(f"the tolerance must be 0 frames or more, not {tolerance}")
    truths, finds = sorted(true), sorted(found)
    at_true = at_found = right = wrong = missed = 0
    while at_true < len(truths) or at_found < len(finds):
        if at_found == len(finds):
            early = True
        elif at_true == len(truths):
            early = False
        else:
            # A hard cut has no width: its two ends, the middles of neighbouring frames less half a frame, coincide.
            this, that = truths[at_true], finds[at_found]
            if that.before - (this.after - 1) <= tolerance and this.before - (that.after - 1) <= tolerance:
                right += 1
                at_true += 1
                at_found += 1
                continue
            early = this.before < that.before
        if early:
            missed += 1
            at_true += 1
        else:
            wrong += 1
            at_found += 1
    return Counts(right, wrong, missed)


def total(counts: Iterable[Counts]) -> Counts:
    """The counts of several videos together (micro-average)."""
    return sum(counts, Counts())


def transitions_of_scores(scores: Sequence[float], threshold: float) -> tuple[Transition, ...]:
    """The transitions that a detector's per-frame scores mean, as TransNetV2 reads its own.

    A run of frames above the threshold is one transition: its first frame is still the old shot's last, the frame after
    it the new shot's first. A run that reaches the last frame has no new shot behind it, and a run that begins with the
    video no old one.
    """
    transitions = []
    began: int | None = None
    for frame, score in enumerate(scores):
        if score > threshold:
            began = frame if began is None else began
        elif began is not None:
            if began > 0:
                transitions.append(Transition(began, frame))
            began = None
    return tuple(transitions)
