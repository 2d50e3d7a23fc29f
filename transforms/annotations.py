"""One label a clip out of what several people said of it, for training a selector and for judging one.

found = annotations_of("out"); print(len(found.labels), found.ties)
positives = [label.choices[label.chosen].caption for label in found.labels if label.chosen is not None]

People say either which caption is the best, or which are good (see docs/annotation.md). Of the latter a caption is good
that more than half of them marked; the best is the one that most marked, and of equals one by lot.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from transforms.by_source import place_of
from transforms.files import Directory
from transforms.judgements import Choice, Judgement, judgements_of, same_words
from transforms.published import Published, reread


@dataclasses.dataclass(frozen=True, slots=True)
class Label:
    """What most people said of a clip.

    Attributes:
      choices: the captions that could be chosen.
      chosen: which of them is the best; None where all are bad.
      votes: for each choice, and at the end for "all bad"; of one person several where every good one was asked for.
      is_current: whether each of the captions by the dataset's teachers is still among the clip's candidates; if not,
        the clip was captioned anew: the label still says which of `choices` is best, not which candidate is.
      better_captions: that people wrote themselves.
      good: those that are good, `chosen` among them; where the best was asked for, it alone.
      is_every_good: every good one was asked for, so that what is not in `good` is bad.
    """

    clip_id: str
    video_id: str
    choices: tuple[Choice, ...]
    chosen: int | None
    votes: tuple[int, ...]
    is_current: bool = True
    better_captions: tuple[str, ...] = ()
    good: frozenset[int] = frozenset()
    is_every_good: bool = False

    @property
    def best(self) -> frozenset[int]:
        """The captions with most votes: several where people found them equally good; none where all are bad."""
        votes = self.votes[:-1]
        return frozenset(at for at in self.good if votes[at] == max(votes))

    @property
    def chosen_teachers(self) -> tuple[str, ...]:
        """Who said the best caption; nobody where all are bad."""
        return () if self.chosen is None else self.choices[self.chosen].teachers


@dataclasses.dataclass(frozen=True, slots=True)
class Labels:
    """The labels of a dataset, by clip_id.

    Attributes:
      ties: clips on which people do not agree so far; they have no label.
      gone: judged clips that the dataset has no more, or that were taken down.
    """

    labels: tuple[Label, ...]
    ties: int = 0
    gone: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class ClipCaptions:
    """A clip's video, and its candidates' words as `same_words` gives them."""

    video_id: str
    words: frozenset[str]


def annotations_of(dataset_dir: Directory, *, extra: str | None = None) -> Labels:
    """Read one majority label a clip.

    Of a clip about which several questions were asked, about other sets of captions or in the other form, the one that
    most people answered counts, and of equals the last one.

    Args:
      extra: only judgements among whose choices stood the captions of this name (see `annotate export --extra`);
        without it, only those of the dataset's own teachers alone.

    Raises:
      NoDataset: there is none. TombstoneError: the record of a takedown can't be read.
    """

    def read(_: Published) -> Labels:
        wanted = [one for one in judgements_of(dataset_dir) if (extra in one.extras if extra else not one.extras)]
        return labels_of(wanted, clip_captions(dataset_dir, {one.clip_id for one in wanted}))

    # Anew where an import or a takedown removes files meanwhile.
    return reread(dataset_dir, read)


def clip_captions(dataset_dir: Directory, clip_ids: Iterable[str]) -> dict[str, ClipCaptions]:
    """What stands of these clips, by clip_id, as far as it may be shown."""
    wanted = pa.array(sorted(clip_ids), pa.string())

    def read(published: Published) -> dict[str, ClipCaptions]:
        found = {}
        for batch in published.scan("clips", ["clip_id", "video_id", "captions"]) if len(wanted) else ():
            for row in batch.filter(pc.is_in(batch["clip_id"], wanted)).to_pylist():
                words = frozenset(same_words(one["caption"]) for one in row["captions"])
                found[row["clip_id"]] = ClipCaptions(row["video_id"], words)
        return found

    return reread(dataset_dir, read)


def labels_of(
    judgements: Iterable[Judgement], clips: Mapping[str, ClipCaptions], *, every_good_first: bool = False
) -> Labels:
    """The labels of the clips that were judged.

    Args:
      every_good_first: of a clip that was judged in both forms, by those who were asked for every good caption.
    """
    by_clip: dict[str, list[Judgement]] = collections.defaultdict(list)
    for one in judgements:
        by_clip[one.clip_id].append(one)
    labels, ties, gone = [], 0, 0
    for clip_id, theirs in sorted(by_clip.items()):
        if clip_id not in clips:
            gone += 1
            continue
        if every_good_first:
            theirs = [one for one in theirs if one.good is not None] or theirs
        label = majority(_of_one_set(theirs), clips[clip_id])
        if label is None:
            ties += 1
        else:
            labels.append(label)
    return Labels(tuple(labels), ties, gone)


def majority(judgements: Sequence[Judgement], clip: ClipCaptions) -> Label | None:
    """The label that one clip's answers to one question make; None where people do not agree."""
    first = judgements[0]
    places = {same_words(choice.caption): at for at, choice in enumerate(first.choices)}
    votes = [0] * (len(first.choices) + 1)
    for one in judgements:
        for at in one.marked:
            votes[places[same_words(one.choices[at].caption)]] += 1
        votes[-1] += not one.marked
    good = _good(votes, len(judgements), is_every_good=first.good is not None)
    if good is None:
        return None
    return Label(
        clip_id=first.clip_id,
        video_id=first.video_id,
        choices=first.choices,
        chosen=_chosen(first, votes, good),
        votes=tuple(votes),
        is_current=is_current(first, clip),
        better_captions=tuple(sorted({one.better_caption for one in judgements if one.better_caption})),
        good=good,
        is_every_good=first.good is not None,
    )


def _good(votes: Sequence[int], people: int, *, is_every_good: bool) -> frozenset[int] | None:
    """The captions that are good, none where all are bad; None where people do not agree."""
    if is_every_good:
        agreed = [at for at, count in enumerate(votes) if 2 * count > people]
        # Not both: who says that all are bad marks none.
        return frozenset(agreed) - {len(votes) - 1} if agreed else None
    best = [at for at, count in enumerate(votes) if count == max(votes)]
    return frozenset(best) - {len(votes) - 1} if len(best) == 1 else None


def _chosen(judgement: Judgement, votes: Sequence[int], good: frozenset[int]) -> int | None:
    """The good caption with most votes; of equals one by a lot of its words, so that no teacher is favoured."""
    if not good:
        return None
    most = max(votes[at] for at in good)
    salt = f"choice {judgement.clip_id}"
    equal = [at for at in good if votes[at] == most]
    return min(equal, key=lambda at: place_of(salt, same_words(judgement.choices[at].caption)))


def is_current(judgement: Judgement, clip: ClipCaptions) -> bool:
    """Whether the clip still has all the captions of the dataset's teachers that stood to be chosen."""
    own = [one for one in judgement.choices if not set(one.teachers) <= set(judgement.extras)]
    return all(same_words(one.caption) in clip.words for one in own)


def _of_one_set(judgements: Sequence[Judgement]) -> list[Judgement]:
    """The answers to the question that most people answered, in an order that no file decides."""
    sets: dict[str, list[Judgement]] = collections.defaultdict(list)
    for one in judgements:
        sets[one.question_id].append(one)

    def rank(question_id: str) -> tuple[int, float, str]:
        theirs = sets[question_id]
        latest = max((one.annotated_at.timestamp() for one in theirs if one.annotated_at), default=0.0)
        return len(theirs), latest, question_id

    return sorted(sets[max(sets, key=rank)], key=lambda one: one.annotator)
