"""The clips that people can be asked about, with what they may choose between, in an order of their ids alone.

for one in askable(sources, options, extras, counts): one.task.choices
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import io
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow.compute as pc

from beam_pipeline.annotate_choices import Task, alikeness, choices_of, shuffled
from beam_pipeline.annotate_sample import Candidates
from transforms.by_source import Sources, place_of
from transforms.files import reading

#: What is needed of a clip.
COLUMNS = ("clip_id", "video_id", "start_s", "end_s", "captions", "margin", "matching_score", "clip_file")


class AskError(ValueError):
    """Questions that cannot be asked so; the message says why and what to do."""


@dataclasses.dataclass(frozen=True)
class AskOptions:
    """What to ask, and how.

    Attributes:
      form: one of `annotate_forms.FORMS`. clips: how many at most.
      choose: one of `annotate_choices.CHOOSE`: the best caption, or every good one.
      extras: CSV files with `clip_id` and `caption` of other models, by a name for each.
      link: leave clip files where they are, and name their addresses.
      frames: of a clip that has no file, out of its video's reel.
      subset, min_score, max_clips_per_source: which clips (see `split`).
      skip_judged: none of which the dataset knows what somebody said who was asked the same.
    """

    form: str
    clips: int
    seed: int = 0
    extras: Mapping[str, str] = dataclasses.field(default_factory=dict)
    link: bool = False
    frames: int = 8
    subset: str | None = None
    min_score: float | None = None
    max_clips_per_source: int | None = None
    skip_judged: bool = False
    choose: str = "best"


@dataclasses.dataclass(frozen=True, slots=True)
class Askable:
    """A clip that can be asked about: its row, its video's, and the task."""

    row: Mapping[str, Any]
    video: Mapping[str, Any]
    task: Task


def askable(
    sources: Sources,
    options: AskOptions,
    extras: Mapping[str, Mapping[str, str]],
    counts: collections.Counter[str],
    judged: frozenset[str] = frozenset(),
) -> Iterator[Askable]:
    """The clips that can be asked about; counts those that cannot.

    Args:
      extras: captions of other models by clip_id, by their names; clips that one of them lacks are left out, so that
        all models stand to be chosen equally often.
      judged: clips to be left out.

    Raises:
      AskError: an extra is called as a teacher is.
    """
    for source in sources:
        clips = source.clips
        if options.min_score is not None:
            clips = clips.filter(pc.greater(clips["matching_score"], options.min_score))
        found = []
        for row in clips.to_pylist():
            if row["clip_id"] in judged:
                counts["judged"] += 1
                continue
            others = {name: captions[row["clip_id"]] for name, captions in extras.items() if row["clip_id"] in captions}
            if len(others) < len(extras):
                counts["without_extra"] += 1
                continue
            if taken := sorted({one["teacher"] for one in row["captions"]} & extras.keys()):
                raise AskError(f"--extra: {taken[0]} is a teacher of the dataset; rename the file after its own model")
            choices = choices_of(row["captions"], others)
            if len(choices) < 2:
                counts["of_one_caption"] += 1
                continue
            order = shuffled(choices, seed=options.seed, clip_id=row["clip_id"])
            task = Task(row["clip_id"], order, tuple(others), options.choose)
            found.append(Askable(row, source.video, task))
        most = options.max_clips_per_source
        if most is not None and len(found) > most:
            lots = sorted((place_of(f"clip {options.seed}", one.task.clip_id), at) for at, one in enumerate(found))
            found = [found[at] for at in sorted(at for _, at in lots[:most])]
        yield from found


def candidates_of(clips: Iterable[Askable], seed: int) -> tuple[Candidates, np.ndarray]:
    """What a sample is drawn by, and which of the clips have files of their own."""
    entries = [
        (
            place_of(f"annotate {seed}", one.task.clip_id),
            alikeness([caption["caption"] for caption in one.row["captions"]]),
            math.nan if one.row["margin"] is None else one.row["margin"],
            one.row["clip_file"] is not None,
        )
        for one in clips
    ]
    lots, alike, margins, films = zip(*entries, strict=True) if entries else ((), (), (), ())
    found = Candidates(np.array(lots, np.uint64), np.array(alike, float), np.array(margins, float))
    return found, np.array(films, bool)


def why_none(counts: Mapping[str, int]) -> str:
    """Why there is no clip to ask about."""
    if counts.get("judged"):
        return f"--skip-judged: there is no other clip to ask about than the {counts['judged']} that were judged"
    if counts.get("without_extra"):
        return f"--extra: none of its clips is in the dataset; {counts['without_extra']} clips have no caption there"
    if counts.get("of_one_caption"):
        return f"there is nothing to choose: all {counts['of_one_caption']} clips have but one caption"
    return "there are no clips to ask about; see --subset and --min-score, or `reelscribe stats`"


def read_extra(path: str) -> dict[str, str]:
    """The captions of another model, by clip_id.

    Raises:
      AskError: the file is no CSV with the columns `clip_id` and `caption`, or names a clip twice.
    """
    captions: dict[str, str] = {}
    try:
        with reading(path) as file:
            rows = csv.DictReader(io.StringIO(file.read().decode("utf-8-sig"), newline=""))
            if not {"clip_id", "caption"} <= set(rows.fieldnames or ()):
                raise AskError(f"{path} has not the columns clip_id and caption")
            for row in rows:
                if row["clip_id"] in captions:
                    raise AskError(f"{path} has two captions of {row['clip_id']}")
                captions[row["clip_id"]] = row["caption"] or ""
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AskError(f"{path} is no CSV file that can be read: {error}") from error
    return {clip_id: caption for clip_id, caption in captions.items() if caption.strip()}
