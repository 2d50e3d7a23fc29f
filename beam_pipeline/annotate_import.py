"""Take what people answered into the dataset's table `annotations`.

    print(import_answers("out", ["project-3.json"]).describe())

Each problem is told in one line with its count; what has one is left out. But captions that the clip has no more, since
the dataset was captioned anew, are kept: they are judged, and a selector learns from them as well (see
`transforms.annotations.Label.is_current`).
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from beam_pipeline.annotate_agreement import Agreement, agreement_of
from beam_pipeline.annotate_answers import Answers, read_answers
from beam_pipeline.runs import new_run_id
from transforms.annotations import ClipCaptions, annotations_of, clip_captions, is_current
from transforms.judgements import (
    Judgement,
    Stored,
    annotator_digest,
    create_annotations,
    is_later,
    judgements_of,
    store,
)
from transforms.lease import WriterLease
from transforms.tables import Snapshot


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong with answers, how many have it, and the clip of one of them."""

    what: str
    count: int
    example: str

    def __str__(self) -> str:
        return f"{self.what}: {self.count:,} (such as {self.example})"


@dataclasses.dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
      stored: None where --strict kept everything out.
      agreement: on the best caption. agreement_on_captions: on which are good, where that was asked.
      clips, annotators: of all that stands now. labels: clips of a majority, of which `all_bad` say so.
      beside: judgements with another model's caption among them (--extra), which make no labels.
    """

    stored: Stored | None
    problems: tuple[Problem, ...]
    cancelled: int
    unanswered: int
    clips: int = 0
    annotators: int = 0
    agreement: Agreement | None = None
    agreement_on_captions: Agreement | None = None
    labels: int = 0
    all_bad: int = 0
    ties: int = 0
    beside: int = 0

    def describe(self) -> str:
        """The same as lines for people."""
        lines = []
        if self.stored:
            told = ", ".join(f"{count:,} {name}" for name, count in dataclasses.asdict(self.stored).items() if count)
            lines.append(f"judgements  {told or 'none'}")
            lines.append(f"in all      {self.clips:,} clips, by {self.annotators:,} annotators")
            for found, units in (
                (self.agreement, "clips"),
                (self.agreement_on_captions, "captions, each good or bad,"),
            ):
                if found:
                    alpha = "unknown, as all said the same" if math.isnan(found.alpha) else f"{found.alpha:.3f}"
                    lines.append(
                        f"agreement   {found.observed:.1%} of pairs, Krippendorff's alpha {alpha}, on "
                        f"{found.units:,} {units} that two or more judged"
                    )
            lines.append(
                f"labels      {self.labels:,} by majority, {self.all_bad:,} of them `all bad`; ties {self.ties:,}"
            )
            if self.beside:
                lines.append(
                    f"beside      {self.beside:,} judgements with another model's caption, which make no labels"
                )
        for name, count in (("skipped", self.cancelled), ("unanswered", self.unanswered)):
            if count:
                lines.append(f"{name:10}  {count:,}")
        lines += [f"problem     {one}" for one in self.problems]
        return "\n".join(lines)


def import_answers(dataset_dir: str, paths: Sequence[str], *, origin: str = "", strict: bool = False) -> Imported:
    """Check the answers in files, and store them; the same file again changes nothing.

    Args:
      origin: tells people apart whom two servers call by the same number.
      strict: store nothing if there is any problem.

    Raises:
      AnswerError: a file is none of answers. NoDataset: there is none. LeaseHeld: a run is writing to it.
      TombstoneError: the record of a takedown can't be read.
    """
    read = [read_answers(path) for path in paths]
    Snapshot.open(dataset_dir)  # Before the lease, which would make the directory.
    with WriterLease(dataset_dir, owner=f"annotate-{new_run_id()}") as lease:
        clips = clip_captions(dataset_dir, {one.task.clip_id for answers in read for one in answers.answers})
        create_annotations(dataset_dir)
        found, faults = judged(dataset_dir, read, clips, origin)
        problems = [*_broken(read), *faults]
        cancelled, unanswered = sum(one.cancelled for one in read), sum(one.unanswered for one in read)
        if strict and problems:
            return Imported(None, tuple(problems), cancelled, unanswered)
        lease.ensure_held()
        stored = store(dataset_dir, found)
    clips_judged, annotators, beside = set(), set(), 0

    def standing() -> Iterator[Judgement]:
        nonlocal beside
        for one in judgements_of(dataset_dir):
            beside += bool(one.extras)
            clips_judged.add(one.clip_id)
            annotators.add(one.annotator)
            yield one

    (on_clips, on_captions), labels = agreement_of(standing()), annotations_of(dataset_dir)
    return Imported(
        stored=stored,
        problems=tuple(problems),
        cancelled=cancelled,
        unanswered=unanswered,
        clips=len(clips_judged),
        annotators=len(annotators),
        agreement=on_clips,
        agreement_on_captions=on_captions,
        labels=len(labels.labels),
        all_bad=sum(label.chosen is None for label in labels.labels),
        ties=labels.ties,
        beside=beside,
    )


def _broken(read: Iterable[Answers]) -> list[Problem]:
    read = list(read)
    kinds = {
        "answers that do not go with their key, changed or none of ours, left out": [one.broken for one in read],
        "answers that all captions are bad, and that some are good, left out": [one.contradictory for one in read],
    }
    clips = {what: [clip_id for found in theirs for clip_id in found] for what, theirs in kinds.items()}
    return [Problem(what, len(found), found[0]) for what, found in clips.items() if found]


def judged(
    dataset_dir: str, read: Sequence[Answers], clips: Mapping[str, ClipCaptions], origin: str = ""
) -> tuple[list[Judgement], list[Problem]]:
    """The judgements that may be stored, at most one of each `annotation_id`, and what is wrong with the rest."""
    latest: dict[str, Judgement] = {}
    faults: dict[str, list[str]] = collections.defaultdict(list)
    names: dict[str, str] = {}
    for answers in read:
        for answer in answers.answers:
            clip_id = answer.task.clip_id
            clip = clips.get(clip_id)
            if clip is None:
                faults["answers about clips that the dataset has not, left out"].append(clip_id)
                continue
            if answer.annotator not in names:
                names[answer.annotator] = annotator_digest(dataset_dir, f"{origin} {answer.annotator}".strip())
            one = Judgement(
                clip_id=clip_id,
                video_id=clip.video_id,
                annotator=names[answer.annotator],
                choices=answer.task.choices,
                chosen=answer.chosen,
                better_caption=answer.better_caption,
                extras=answer.task.extras,
                lead_time_s=answer.lead_time_s,
                annotated_at=answer.annotated_at,
                source=answers.source,
                good=answer.good,
            )
            before = latest.get(one.annotation_id)
            if before and not before.says_the_same(one):
                faults["answers given again by the same annotator, the last one counts"].append(one.clip_id)
            if before is None or not is_later(before, one):
                latest[one.annotation_id] = one
    for one in latest.values():
        if not is_current(one, clips[one.clip_id]):
            faults["answers about captions that the clip has no more, since it was captioned anew, kept"].append(
                one.clip_id
            )
    return list(latest.values()), [Problem(what, len(found), found[0]) for what, found in faults.items()]
