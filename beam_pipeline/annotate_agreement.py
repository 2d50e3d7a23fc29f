"""How far people agree who judge the same clips.

    agreement([["a", "a", "b"], ["b", "b"]])      # -> Agreement(units=2, observed=0.667, alpha=...)

Krippendorff's alpha for names (nominal categories) and any number of judges a clip; Fleiss' kappa wants the same number
for all. It takes from the observed agreement what chance would give, by how often each name is chosen in all: a name
is the teachers of the chosen caption, since captions themselves are chosen for one clip only.

Sets of good captions are compared caption by caption, each good or bad to a judge: it needs no measure of how far two
sets are from each other, weighs every mark alike, and grows with the judgements, not with pairs of them.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Hashable, Iterable, Sequence

from transforms.judgements import Judgement, same_words


@dataclasses.dataclass(frozen=True, slots=True)
class Agreement:
    """How far people agree.

    Attributes:
      units: that two people or more judged.
      observed: the share of pairs of judges of one unit who agree, each unit weighing by its judges, 0 to 1.
      alpha: Krippendorff's; 1 for no disagreement, 0 for that of chance; not-a-number where all chose the same name.
    """

    units: int
    observed: float
    alpha: float


def agreement(units: Iterable[Sequence[Hashable]]) -> Agreement | None:
    """The agreement on these units, each given by what its judges chose; None where no two judged the same.

    Source: K. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section C.
    """
    shared = [unit for unit in units if len(unit) > 1]
    if not shared:
        return None
    totals: collections.Counter[Hashable] = collections.Counter(name for unit in shared for name in unit)
    n = totals.total()
    # Coincidences: ordered pairs within a unit of m judges, each counting 1 / (m - 1), are n in all.
    agreeing = sum(
        count * (count - 1) / (len(unit) - 1) for unit in shared for count in collections.Counter(unit).values()
    )
    by_chance = sum(count * (count - 1) for count in totals.values()) / (n - 1)
    observed = agreeing / n
    alpha = math.nan if by_chance == n else (agreeing - by_chance) / (n - by_chance)
    return Agreement(len(shared), observed, alpha)


def agreement_of(judgements: Iterable[Judgement]) -> tuple[Agreement | None, Agreement | None]:
    """How far people agree.

    Returns:
      About clips: on whose caption is the best, or that all are bad. About captions, where every good one was asked
      for: on whether each is good. A unit is then a caption of a clip, with the names good and bad.
    """
    clips: dict[str, list[Hashable]] = collections.defaultdict(list)
    captions: dict[tuple[str, str], list[Hashable]] = collections.defaultdict(list)
    for one in judgements:
        if one.good is None:
            clips[one.question_id].append(tuple(sorted(one.chosen_teachers)))
            continue
        for at, choice in enumerate(one.choices):
            captions[one.question_id, same_words(choice.caption)].append(at in one.good)
    return agreement(clips.values()), agreement(captions.values())
