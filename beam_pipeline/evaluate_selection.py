"""Selectors beside people: do they choose the same captions, the same teachers, and see when all captions are bad?

    study = evaluate_selection("dataset", read_judgements("annotations.jsonl"), scorers)
    print(study.text())

The paper's agreement (R@1 of eight: pretrained 21.82 %, finetuned 35.90 %, another person 44.9 %) and its Figure 3.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from beam_pipeline import evaluate_plots as plots
from beam_pipeline.evaluate_bars import Bars, Side, bars
from beam_pipeline.evaluate_bootstrap import Interval, bootstrap, mean_of, ratio
from beam_pipeline.evaluate_gallery import clip_of_row
from beam_pipeline.evaluate_judgements import Judged, Judgement, gather
from beam_pipeline.evaluate_references import BadInput
from beam_pipeline.evaluate_reliability import Worth, worth, worth_lines, worth_parts
from beam_pipeline.evaluate_scoring import Scorer, answers, candidate
from beam_pipeline.evaluate_tables import left_out, table
from transforms.files import Directory
from transforms.published import Published, reread
from transforms.records import CaptionedClip, Clip
from transforms.scoring import choose

#: The selection as the dataset has it. With a blank, which no selector has in its name.
STORED = "the dataset's"
PEOPLE = "people"
#: Section 3.3: agreement of the paper's selectors and of another person with its annotators.
PUBLISHED = {"published: pretrained": 21.82, "published: finetuned": 35.90, "published: another person": 44.9}
_KINDS = ("own", "detector", "subtitles", "step")


@dataclasses.dataclass(frozen=True)
class JudgedClip:
    """A clip with its candidates by teacher, what people made of it, and who was chosen by whom.

    Attributes:
      chosen: by selector, the teacher whose caption won, and whether it abstained.
      scores: by selector, what each teacher's caption was said to be worth.
    """

    clip: Clip
    captions: Mapping[str, str]
    people: Judged
    chosen: Mapping[str, tuple[str, bool]]
    scores: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)

    def alike(self, teacher: str) -> frozenset[str]:
        """The teachers who said the very same as this one."""
        return frozenset(other for other, text in self.captions.items() if text == self.captions[teacher])

    def is_good(self, teacher: str) -> bool:
        """Whether people found this caption good: none is better, or more than half of them chose it."""
        alike, people = self.alike(teacher), self.people.by_annotator
        chose = sum(bool(alike & teachers) for teachers in people)
        return not self.people.all_bad and bool(alike & self.people.best or 2 * chose > len(people))


@dataclasses.dataclass(frozen=True)
class Agreement:
    """One selector beside people.

    Attributes:
      recall_at_1: of clips that people found a good caption of, the share where the selector chose it.
      abstained: the share of clips where it found none good. precision, recall: of that, against "all bad".
    """

    recall_at_1: Interval
    abstained: Interval
    precision: Interval
    recall: Interval

    def as_json(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name).as_json() for field in dataclasses.fields(self)}


@dataclasses.dataclass(frozen=True)
class SelectionStudy:
    """Agreement by selector, and the shares of teachers by selector and by people.

    Attributes:
      gains: of each further selector over the first, in agreement on the same clips, with paired intervals.
      worth: by selector, how far scores are from what people found; of those whose scores are probabilities.
      notes: what a reader has to know.
    """

    clips: int
    all_bad: int
    rows: Mapping[str, Agreement]
    gains: Mapping[str, Interval]
    chance: Interval
    another_person: Interval
    shares: Mapping[str, Mapping[str, Interval]]
    worth: Mapping[str, Worth]
    notes: tuple[str, ...]

    @property
    def measured(self) -> bool:
        return self.clips > 0

    def as_json(self) -> dict[str, Any]:
        return {
            "clips": self.clips,
            "all_bad": self.all_bad,
            "rows": {name: row.as_json() for name, row in self.rows.items()},
            "gains": {name: gain.as_json() for name, gain in self.gains.items()},
            "chance": self.chance.as_json(),
            "another_person": self.another_person.as_json(),
            "selective_rates": {
                teacher: {who: share.as_json() for who, share in by.items()} for teacher, by in self.shares.items()
            },
            "calibration": {name: one.as_json() for name, one in self.worth.items()},
            "published": PUBLISHED,
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """The tables, as they are printed."""
        lines = table(_AGREEMENT, list(self._agreement()))
        lines += ["", "share of clips whose caption was chosen, by teacher"]
        lines += table(self._who, list(self._shares()))
        lines += worth_lines(self.worth)
        return "\n".join([*lines, "", *self.notes])

    def html(self) -> str:
        """All of it in one page."""
        drawn = [
            Bars(teacher, tuple(Side(who, kind, by[who]) for who, kind in zip(self._who[1:], _KINDS, strict=False)))
            for teacher, by in self.shares.items()
        ]
        who = ", ".join(plots.shortened(name, 26) for name in self._who[1 : 1 + len(_KINDS)])
        parts = [
            plots.html_table(_AGREEMENT, self._agreement()),
            plots.heading("Share of clips whose caption was chosen, by teacher"),
            bars(drawn, title=f"From above: {who}"),
            plots.html_table(self._who, self._shares()),
        ]
        # A selector has one colour on the whole page; people have the first.
        parts += worth_parts(self.worth, dict(zip(self.rows, _KINDS[1:], strict=False)))
        parts += [plots.heading("Notes"), plots.html_list(self.notes)]
        return plots.page("Selection beside people", parts)

    @property
    def _who(self) -> list[str]:
        return ["teacher", PEOPLE, *self.rows]

    def _agreement(self) -> Iterator[list[str]]:
        for name, row in self.rows.items():
            yield [name, *(one.told(scale=100) for one in (row.recall_at_1, row.abstained, row.precision, row.recall))]
        for name, gain in self.gains.items():
            yield [name, gain.told("+.1f", scale=100), "", "", ""]
        yield ["another person", self.another_person.told(scale=100), "", "", ""]
        yield ["chance", self.chance.told(scale=100), "", "", ""]
        yield from ([name, f"{share:.1f}", "", "", ""] for name, share in PUBLISHED.items())

    def _shares(self) -> Iterator[list[str]]:
        for teacher, by in self.shares.items():
            yield [teacher, *(by[who].told(scale=100) for who in self._who[1:])]


_AGREEMENT = ["selector", "R@1 with people", "abstained", "all-bad precision", "all-bad recall"]


def evaluate_selection(
    dataset: Directory, judgements: Sequence[Judgement], scorers: Sequence[Scorer], about: Sequence[str] = ()
) -> SelectionStudy:
    """Compare the dataset's selection, and what other selectors choose among the same captions, with people's.

    Args:
      about: notes on which clips these are.

    Raises:
      NoDataset: there is none. BadInput: people judged none of its clips.
    """
    clips, notes = reread(dataset, lambda published: judged_clips(published, dataset, judgements))
    notes = [*about, *notes]
    if not clips:
        told = f" ({'; '.join(notes)})" if notes else ""
        raise BadInput(f"people judged none of the clips as they stand in the dataset{told}")
    for scorer in scorers:
        clips, failed = choose_anew(clips, scorer)
        notes += left_out({clip_id: f"{scorer.entry.name}: {why}" for clip_id, why in failed.items()})
    return study_selection(clips, notes)


def judged_clips(
    published: Published, dataset: Directory, judgements: Sequence[Judgement]
) -> tuple[list[JudgedClip], list[str]]:
    """The clips that people judged as they stand in the dataset, by clip_id, and notes on what else they judged."""
    by_clip: dict[str, list[Judgement]] = collections.defaultdict(list)
    for judgement in judgements:
        by_clip[judgement.clip_id].append(judgement)
    columns = ["clip_id", "video_id", "uri", "start_s", "end_s", "duration_s", "width", "height", "fps"]
    found, known, outdated, extras = [], 0, 0, 0
    for batch in published.scan("clips", [*columns, "teacher", "abstained", "captions"]):
        for row in batch.to_pylist():
            theirs = by_clip.get(row["clip_id"])
            if theirs is None:
                continue
            known += 1
            captions = {one["teacher"]: one["caption"] for one in row["captions"]}
            alone = [one for one in theirs if not one.has_extras]
            current = [one for one in alone if one.is_of(captions.values())]
            extras += len(theirs) - len(alone)
            outdated += len(alone) - len(current)
            for people in gather(current).values():
                stored = {STORED: (row["teacher"], row["abstained"])}
                scores = {STORED: {one["teacher"]: one["matching_score"] for one in row["captions"]}}
                found.append(JudgedClip(clip_of_row(row, dataset), captions, people, stored, scores))
    notes = {
        "judged clips are not in the dataset": len(by_clip) - known,
        "judgements are of captions that their clips have no more": outdated,
        "judgements had captions of others among them, which a selector cannot choose; they are left out": extras,
    }
    # The order of a table's files is that of its commits; the draws of the bootstrap must not depend on it.
    found.sort(key=lambda one: one.clip.clip_id)
    return found, [f"{count:,} {what}" for what, count in notes.items() if count]


def choose_anew(clips: Sequence[JudgedClip], scorer: Scorer) -> tuple[list[JudgedClip], dict[str, str]]:
    """The clips with what this selector chooses, and by clip_id why it can't see others."""
    asked = [
        CaptionedClip(one.clip, tuple(candidate(text, name) for name, text in one.captions.items()), (), ())
        for one in clips
    ]
    kept, failed = [], {}
    for one, answer in zip(clips, answers(scorer, asked), strict=True):
        if isinstance(answer, str):
            failed[one.clip.clip_id] = answer
            continue
        choice = choose(answer, scorer.abstain_below)
        chosen = (list(one.captions)[choice.chosen], choice.abstained)
        scores = dict(zip(one.captions, answer, strict=True))
        name = scorer.entry.name
        kept.append(dataclasses.replace(one, chosen={**one.chosen, name: chosen}, scores={**one.scores, name: scores}))
    return kept, failed


def study_selection(clips: Sequence[JudgedClip], notes: Sequence[str] = ()) -> SelectionStudy:
    """Count agreement, abstention and shares over clips that all selectors have chosen of."""
    good = [one for one in clips if not one.people.all_bad]
    foreign = sum(not set(one.people.best) & set(one.captions) for one in good)
    selectors = list(dict.fromkeys(name for one in clips for name in one.chosen))
    shares: dict[str, dict[str, Interval]] = {}
    teachers = sorted({teacher for one in good for teacher in (*one.captions, *one.people.votes)})
    for teacher in teachers:
        shares[teacher] = {PEOPLE: mean_of(np.array([one.people.votes.get(teacher, 0.0) for one in good]))}
        for name in selectors:
            shares[teacher][name] = mean_of(np.array([_share(one, name, teacher) for one in good]))
    found = {name: _worth(clips, name) for name in selectors}
    known = {name: one for name, one in found.items() if one is not None}
    return SelectionStudy(
        clips=len(clips),
        all_bad=len(clips) - len(good),
        rows={name: _agreement(clips, good, name) for name in selectors},
        gains={
            f"{name} - {selectors[0]}": mean_of(_hits(good, name) - _hits(good, selectors[0])) for name in selectors[1:]
        },
        chance=mean_of(np.array([_by_chance(one) for one in good])),
        another_person=_another_person(good),
        shares=shares,
        worth=known,
        notes=(
            f"{len(clips):,} judged clips, {len(clips) - len(good):,} of them all bad; agreement and shares are "
            "hundredths, with 95 % bootstrap intervals over clips",
            "agreement and shares are over clips that people found a good caption of; the same words of several "
            "teachers are one caption",
            *([f"of {foreign:,} clips people chose a teacher that the dataset has no caption of"] if foreign else []),
            *(f"{name}: scores that are no probabilities have no calibration" for name in found if name not in known),
            *notes,
        ),
    )


def _worth(clips: Sequence[JudgedClip], name: str) -> Worth | None:
    """What a selector's scores are worth, each clip's different captions once."""
    scores, good = [], []
    for one in clips:
        first: dict[str, str] = {}
        for teacher, text in one.captions.items():
            first.setdefault(text, teacher)
        given = [one.scores.get(name, {}).get(teacher) for teacher in first.values()]
        if any(score is None for score in given):
            return None
        scores.append([float(score) for score in given if score is not None])
        good.append([float(one.is_good(teacher)) for teacher in first.values()])
    return worth(scores, good)


def _agreement(clips: Sequence[JudgedClip], good: Sequence[JudgedClip], name: str) -> Agreement:
    abstained = np.array([one.chosen[name][1] for one in clips], dtype=float)
    bad = np.array([one.people.all_bad for one in clips], dtype=float)
    return Agreement(
        recall_at_1=mean_of(_hits(good, name)),
        abstained=mean_of(abstained),
        precision=bootstrap(np.column_stack([abstained * bad, abstained]), ratio),
        recall=bootstrap(np.column_stack([abstained * bad, bad]), ratio),
    )


def _hits(good: Sequence[JudgedClip], name: str) -> np.ndarray:
    """1 for each clip of which a selector chose what people chose, or a teacher who said the same."""
    return np.array([bool(one.alike(one.chosen[name][0]) & one.people.best) for one in good], dtype=float)


def _share(one: JudgedClip, name: str, teacher: str) -> float:
    """What of a selector's choice is this teacher's: teachers who said the same share it."""
    alike = one.alike(one.chosen[name][0])
    return (teacher in alike) / len(alike)


def _by_chance(one: JudgedClip) -> float:
    """How often a candidate drawn blindly is one that people chose, or says the same."""
    return sum(bool(one.alike(teacher) & one.people.best) for teacher in one.captions) / len(one.captions)


def _another_person(good: Sequence[JudgedClip]) -> Interval:
    """R@1 of each person who found a good caption against the rest of them, where there are two at least."""
    found = []
    for one in good:
        people = [teachers for teachers in one.people.by_annotator if teachers]
        if len(people) > 1:
            hits = [_hit(teachers, [*people[:at], *people[at + 1 :]]) for at, teachers in enumerate(people)]
            found.append(sum(hits) / len(hits))
    return mean_of(np.array(found))


def _hit(teachers: frozenset[str], others: Sequence[frozenset[str]]) -> float:
    votes = {name: sum(name in other for other in others) for name in frozenset().union(*others)}
    most = max(votes.values())
    return sum(votes.get(name, 0.0) == most for name in teachers) / len(teachers)
