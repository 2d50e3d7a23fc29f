"""What people chose, as examples to train a selector on, to watch it by, and to judge it by.

    examples = examples_of(["out"], SplitShares(validation=0.1, test=0.1, seed=0))
    examples.train, examples.validation, examples.test
    print(examples.describe())

On which side a source falls depends on the seed and its video_id alone, as in `reelscribe split`; sources that are
duplicates of each other fall together.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from beam_pipeline.evaluate_gallery import clip_of_row
from beam_pipeline.split import clusters, duplicate_sources, part_of
from beam_pipeline.training.trainable import Example
from transforms.annotations import Label, annotations_of
from transforms.files import Directory, list_files, name_of
from transforms.judgements import same_words
from transforms.published import Published, reread
from transforms.records import Clip
from transforms.reels import reels_of

PARTS = ("train", "validation", "test")
#: Why judged clips can't be learned from, and what to do when that is so of all.
_ADVICE = {
    "clips have no reel": "run curate again without --reels drop",
    "clips have no majority": "have more people judge them",
    "judged clips are gone": "have clips judged that are in the dataset (`reelscribe annotate export`)",
}
#: What `clip_of_row` looks at.
_COLUMNS = ("clip_id", "video_id", "uri", "start_s", "end_s", "duration_s", "width", "height", "fps")


class ExamplesError(ValueError):
    """There is nothing to train on; the message says what to do."""


@dataclasses.dataclass(frozen=True, slots=True)
class SplitShares:
    """The shares of the sources to watch training by, and to judge it by at the end; the rest is trained on."""

    validation: float = 0.1
    test: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.validation:
            raise ExamplesError("--validation must be above 0: by these clips the best epoch is known")
        if self.validation + self.test >= 1:
            raise ExamplesError(
                f"--validation {self.validation:g} and --test {self.test:g} leave nothing to train on; "
                "together they are below 1"
            )


@dataclasses.dataclass(frozen=True)
class Examples:
    """Examples in three parts that share no source, each in the order of their clips' ids.

    Attributes:
      left_out: how many labels could not be used, by the reason.
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def parts(self) -> dict[str, tuple[Example, ...]]:
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def fingerprint(self) -> str:
        """A digest of which captions there were, what was chosen and what was good, whatever the order of telling."""
        told = sorted(
            [one.clip.clip_id, list(one.captions), one.chosen, sorted(one.right)]
            for part in self.parts.values()
            for one in part
        )
        return hashlib.sha256(json.dumps(told, ensure_ascii=False).encode()).hexdigest()

    def counts(self) -> dict[str, dict[str, int]]:
        """Of each part: clips, sources, and clips whose captions are all bad."""
        return {name: counts_of(part) for name, part in self.parts.items()}

    def describe(self) -> str:
        """The counts, as lines for people."""
        lines = [
            f"{name:10}  {count['clips']:>9,} clips of {count['sources']:,} sources, {count['all_bad']:,} all bad"
            for name, count in self.counts().items()
        ]
        return "\n".join([*lines, *(f"left out: {count:,} {why}" for why, count in self.left_out.items() if count)])


def counts_of(examples: Sequence[Example]) -> dict[str, int]:
    """How many clips, sources, and clips whose captions are all bad."""
    return {
        "clips": len(examples),
        "sources": len({one.clip.video_id for one in examples}),
        "all_bad": sum(one.chosen is None for one in examples),
    }


def example_of(label: Label, clip: Clip) -> Example:
    """What a label says of a clip; captions that differ in nothing but case, blanks or a full stop are one."""
    words = [same_words(choice.caption) for choice in label.choices]
    distinct = list(dict.fromkeys(words))
    captions = tuple(label.choices[words.index(one)].caption for one in distinct)
    chosen = None if label.chosen is None else distinct.index(words[label.chosen])
    return Example(clip, captions, chosen, frozenset(distinct.index(words[place]) for place in label.good))


def examples_of(datasets: Sequence[Directory], shares: SplitShares) -> Examples:
    """Read the labels of one or several datasets, of whose clips the reels stand.

    Raises:
      NoDataset: there is none. ExamplesError: too few labels, or a part that nothing falls into.
    """
    found: dict[str, Example] = {}
    pairs: list[tuple[str, str]] = []
    left_out = dict.fromkeys([*_ADVICE, "clips stand twice"], 0)
    for dataset in datasets:
        read = _of_dataset(dataset)
        pairs += read.duplicates
        left_out["clips have no reel"] += read.without_reel
        left_out["clips have no majority"] += read.ties
        left_out["judged clips are gone"] += read.gone
        for one in read.examples:
            left_out["clips stand twice"] += one.clip.clip_id in found
            found.setdefault(one.clip.clip_id, one)
    parts = split_examples(found.values(), pairs, shares)
    _check(parts, datasets, shares, left_out)
    return Examples(tuple(parts["train"]), tuple(parts["validation"]), tuple(parts["test"]), left_out)


@dataclasses.dataclass(frozen=True)
class _Read:
    examples: list[Example]
    duplicates: list[tuple[str, str]]
    without_reel: int
    ties: int
    gone: int


def _of_dataset(dataset: Directory) -> _Read:
    told = annotations_of(dataset)
    labels = {label.clip_id: label for label in told.labels}
    reels = {name_of(path) for path in list_files(reels_of(dataset))} if labels else set()

    def read(published: Published) -> _Read:
        wanted, clips, without = pa.array(sorted(labels), pa.string()), [], 0
        for batch in published.scan("clips", list(_COLUMNS)) if labels else ():
            for row in batch.filter(pc.is_in(batch["clip_id"], wanted)).to_pylist():
                if f"{row['video_id']}.arrow" in reels:
                    clips.append(clip_of_row(row, dataset))
                else:
                    without += 1
        made = [example_of(labels[clip.clip_id], clip) for clip in clips]
        return _Read(made, duplicate_pairs(published) if labels else [], without, told.ties, told.gone)

    return reread(dataset, read)


def duplicate_pairs(published: Published) -> list[tuple[str, str]]:
    """Pairs of sources that show the same: by a clip of either, or as whole files."""
    pairs = duplicate_sources(lambda: published.scan("clips", ["clip_id", "video_id", "duplicate_of"]))
    for batch in published.scan("videos", ["video_id", "duplicate_of"]):
        copies = batch.filter(pc.is_valid(batch["duplicate_of"]))
        pairs += zip(*(copies[name].to_pylist() for name in ("video_id", "duplicate_of")), strict=True)
    return pairs


def split_examples(
    examples: Iterable[Example], duplicates: Iterable[tuple[str, str]], shares: SplitShares
) -> dict[str, list[Example]]:
    """The examples of each part, by clip_id; a cluster of duplicate sources falls where its lowest source does."""
    together = clusters(duplicates)
    parts: dict[str, list[Example]] = {name: [] for name in PARTS}
    for one in sorted(examples, key=lambda one: one.clip.clip_id):
        parts[part_of_source(one.clip.video_id, together, shares)].append(one)
    return parts


def part_of_source(video_id: str, together: Mapping[str, frozenset[str]], shares: SplitShares) -> str:
    """The part that a source falls into; `together` are the sources that show the same, by each of them."""
    cluster = together.get(video_id, frozenset([video_id]))
    part = part_of(shares.seed, cluster, shares.validation, shares.test)
    return "validation" if part == "val" else part


def _check(
    parts: dict[str, list[Example]], datasets: Sequence[Directory], shares: SplitShares, left_out: dict[str, int]
) -> None:
    where = " and ".join(map(str, datasets))
    total = sum(map(len, parts.values()))
    if not total:
        if judged := sum(left_out[why] for why in _ADVICE):
            why = max(_ADVICE, key=left_out.__getitem__)
            raise ExamplesError(
                f"none of the {judged:,} judged clips of {where} is left: {left_out[why]:,} {why}; {_ADVICE[why]}"
            )
        raise ExamplesError(
            f"nobody has judged clips of {where}; ask people with `reelscribe annotate export`, then `annotate import`"
        )
    good = {name: sum(one.chosen is not None for one in part) for name, part in parts.items()}
    asked = {"train": 1.0, "validation": shares.validation, "test": shares.test}

    for name, share in asked.items():
        if share and not good[name]:
            raise ExamplesError(
                f"{total:,} judged clips are too few: none whose caption people chose falls to {name}; have more "
                f"judged (`reelscribe annotate export`), or take another --seed, --validation or --test"
            )
