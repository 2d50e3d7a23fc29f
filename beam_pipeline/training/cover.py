"""Which teachers a dataset needs: greedy set cover over the clips that people judged (the paper's Figure 10).

    judged = of_labels(annotations.labels, pool)            # who said something good of each clip
    order = greedy(covering(judged, pool), pool, costs)     # the teacher that adds most comes first
    best = optimum(covering(judged, pool))                  # what any choice of as many could reach, for comparison

A teacher covers a clip where people found its caption good. Clips of which all captions are bad count as well: nobody
covers them, so coverage ends below 100 % (the paper's: one teacher 30.8 %, the eight 76.8 %, all 31 84.7 %).
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from beam_pipeline.evaluate_judgements import Judgement
from transforms.annotations import Label

#: Of so many teachers all sets are tried: a million, in less than a second.
MOST_TRIED = 20


@dataclasses.dataclass(frozen=True, slots=True)
class JudgedClip:
    """A clip that people judged.

    Attributes:
      good: the teachers whose captions they found good; none where all are bad.
      asked: the teachers whose captions they could choose; None: not known.
      is_every_good: every good caption was asked for. None: not known.
    """

    clip_id: str
    good: frozenset[str]
    asked: frozenset[str] | None = None
    is_every_good: bool | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of one device that a clip of the dataset takes: of a vCPU and of a GPU."""

    cpu_s: float = 0.0
    gpu_s: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.cpu_s + other.cpu_s, self.gpu_s + other.gpu_s)

    def told(self) -> str:
        """The seconds by device, such as `0.21 cpu + 0.05 gpu`."""
        devices = (("cpu", self.cpu_s), ("gpu", self.gpu_s))
        return " + ".join(f"{seconds:.3g} {name}" for name, seconds in devices if seconds) or "0"


def of_labels(labels: Iterable[Label], barred: Collection[str] = ()) -> list[JudgedClip]:
    """The clips of labels, by what most people found good.

    Args:
      barred: names that shall not count as teachers.
    """
    found = []
    for label in labels:
        asked = frozenset(name for choice in label.choices for name in choice.teachers).difference(barred)
        good = frozenset(name for at in label.good for name in label.choices[at].teachers)
        found.append(JudgedClip(label.clip_id, good & asked, asked, label.is_every_good))
    return found


def of_judgements(judgements: Iterable[Judgement]) -> tuple[list[JudgedClip], int]:
    """The clips of a file of judgements, by clip_id, and how many have none that most people agree on.

    A teacher's caption is good where more than half of the people chose it; of one person the last judgement counts.
    """
    by_clip: dict[str, dict[str, frozenset[str]]] = collections.defaultdict(dict)
    for number, one in enumerate(judgements):
        by_clip[one.clip_id][one.annotator or f"\0{number}"] = frozenset(one.teachers)
    found, undecided = [], 0
    for clip_id, told in sorted(by_clip.items()):
        votes = collections.Counter(name for names in told.values() for name in names)
        good = frozenset(name for name, count in votes.items() if 2 * count > len(told))
        if good or 2 * sum(not names for names in told.values()) > len(told):
            found.append(JudgedClip(clip_id, good))
        else:
            undecided += 1
    return found, undecided


def pool_of(judged: Iterable[JudgedClip]) -> tuple[str, ...]:
    """All teachers that stood to be chosen, as far as that is known, by name."""
    return tuple(sorted(frozenset().union(*(one.good | (one.asked or frozenset()) for one in judged))))


def covering(judged: Sequence[JudgedClip], pool: Sequence[str]) -> np.ndarray:
    """Which teachers cover which clips: (clips, teachers), of truth values."""
    at = {teacher: place for place, teacher in enumerate(pool)}
    found = np.zeros((len(judged), len(pool)), bool)
    for row, one in enumerate(judged):
        found[row, [at[teacher] for teacher in one.good if teacher in at]] = True
    return found


def greedy(covers: np.ndarray, pool: Sequence[str], costs: Mapping[str, Cost]) -> tuple[int, ...]:
    """The places of all teachers, each of which adds most to those before it.

    Of equals the cheaper one comes first, one that takes no GPU before one that does, and those of unknown cost last;
    then they go by name. Greedy choice reaches at least 1 - 1/e of what is possible (Nemhauser et al., 1978).

    Args:
      covers: (clips, teachers). pool: the teachers' names. costs: where they are known.
    """

    def rank(place: int) -> tuple[bool, float, float, str]:
        cost = costs.get(pool[place])
        return cost is None, cost.gpu_s if cost else 0.0, cost.cpu_s if cost else 0.0, pool[place]

    left, order = sorted(range(len(pool)), key=rank), []
    uncovered = np.ones(len(covers), bool)
    while left:
        gains = covers[uncovered].sum(axis=0)
        best = max(left, key=lambda place: gains[place])  # Of equals the first one in the order of ranks.
        left.remove(best)
        order.append(best)
        uncovered &= ~covers[:, best]
    return tuple(order)


def optimum(covers: np.ndarray) -> list[tuple[int, tuple[int, ...]]] | None:
    """The most clips that one, two ... all teachers can cover, and such a set; None where there are too many to try."""
    clips, teachers = covers.shape
    if teachers > MOST_TRIED:
        return None
    everyone = 1 << teachers
    # Clips by the set of those who cover them, a bit a teacher, then summed over all subsets of each set.
    inside = np.bincount(covers @ (1 << np.arange(teachers)), minlength=everyone)
    sizes = np.zeros(everyone, np.int8)
    for bit in range(teachers):
        halves = inside.reshape(-1, 2, 1 << bit)
        halves[:, 1] += halves[:, 0]
        sizes.reshape(-1, 2, 1 << bit)[:, 1] += 1
    # A set leaves those clips uncovered that are covered by nobody outside its complement.
    covered = clips - inside[::-1]
    found = []
    for size in range(1, teachers + 1):
        sets = np.flatnonzero(sizes == size)
        best = int(sets[np.argmax(covered[sets])])
        found.append((int(covered[best]), tuple(bit for bit in range(teachers) if best >> bit & 1)))
    return found
