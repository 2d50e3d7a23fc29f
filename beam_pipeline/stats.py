"""A dataset in the figures of the paper's Table 1, with its captions' words and what the rules dropped.

    print(describe(dataset_stats("out")))

One pass over a few columns, batch by batch; what is kept grows with the words that there are, up to a limit, and not
with the clips.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from transforms.files import Directory
from transforms.published import Published, reread

#: How many different words are kept apart. English captions have some 100,000; beyond this it is noise.
MOST_WORDS = 1_000_000

_TOP = 20
_LONGEST_WORD = 64

#: Letters and digits of any script, with apostrophes and hyphens inside a word.
_NO_WORD = r"[^\p{L}\p{M}\p{N}'’-]+"

#: Said in every caption whatever it shows, so the list of frequent words leaves them out.
_STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be been being by for from has have he her his i in into is it its of on or she that the "
        "their there they this to was were while who with",
    )
)

#: Table 1 of the paper, and its section 3.
_PANDA70M = {
    "source videos": "3,790,459",
    "clips": "70,817,169",
    "mean length of a clip": "8.48 s",
    "hours of clips": "166,800",
    "words a caption": "13.20",
    "resolution": "720p",
}


@dataclasses.dataclass(frozen=True)
class Rejected:
    """The spans that one rule dropped."""

    stage: str
    reason: str
    spans: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Stats:
    """The figures of a dataset. Means are None where there is nothing to average.

    Attributes:
      videos: by status. resolutions: clips by short side, such as "720p", the most frequent first.
      teachers: clips by the teacher whose caption was chosen, the most frequent first.
      vocabulary: different words of the chosen captions; `vocabulary_is_capped` where there are more than are counted.
      top_words: the most frequent with their counts, without articles and the like.
      versions: of the tables that were read.
    """

    videos: dict[str, int]
    clips: int
    clip_h: float
    mean_clip_s: float | None
    mean_words: float | None
    resolutions: dict[str, int]
    teachers: dict[str, int]
    vocabulary: int
    vocabulary_is_capped: bool
    top_words: dict[str, int]
    rejected: tuple[Rejected, ...]
    versions: dict[str, int]

    @property
    def resolution(self) -> tuple[str, float] | None:
        """The most frequent resolution, and its share of the clips."""
        return next(((name, count / self.clips) for name, count in self.resolutions.items()), None)

    def as_json(self) -> dict[str, Any]:
        """The same as plain values, the paper's row first."""
        named = self.resolution
        row = {
            "videos": sum(self.videos.values()),
            "clips": self.clips,
            "mean_clip_s": self.mean_clip_s,
            "clip_h": self.clip_h,
            "mean_words": self.mean_words,
            "resolution": named[0] if named else None,
            "resolution_share": named[1] if named else None,
        }
        return {"table_1": row, **dataclasses.asdict(self)}


class Vocabulary:
    """Counts words, up to so many different ones.

    >>> words = Vocabulary(); words.add(pa.array(["A dog's ball. A BALL!"])); words.counts["ball"]
    2
    """

    def __init__(self, most: int = MOST_WORDS):
        self.counts: collections.Counter[str] = collections.Counter()
        self.is_capped = False
        self._most = most

    def add(self, captions: pa.Array) -> None:
        """Count the words of some captions, whatever their case."""
        words = pc.list_flatten(pc.split_pattern_regex(pc.utf8_lower(captions), _NO_WORD))
        words = pc.utf8_slice_codeunits(pc.utf8_trim(words, "'’-"), 0, _LONGEST_WORD)
        for word, count in _counted(words):
            if word in self.counts or len(self.counts) < self._most:
                self.counts[word] += count
            elif word:
                self.is_capped = True
        self.counts.pop("", None)

    def top(self, number: int = _TOP) -> dict[str, int]:
        """The most frequent words that say something, equally frequent ones by the alphabet."""
        telling = ((word, count) for word, count in self.counts.items() if word not in _STOP_WORDS)
        return dict(sorted(telling, key=_by_count)[:number])


def dataset_stats(dataset_dir: Directory) -> Stats:
    """Count a dataset, exactly as of one moment.

    Raises:
      NoDataset: there is none. TombstoneError: the record of a takedown can't be read.
    """
    return reread(dataset_dir, _count)


def _count(published: Published) -> Stats:
    statuses: collections.Counter[str] = collections.Counter()
    teachers: collections.Counter[str] = collections.Counter()
    resolutions: collections.Counter[str] = collections.Counter()
    spans: collections.Counter[tuple[str, str]] = collections.Counter()
    seconds: dict[tuple[str, str], float] = collections.defaultdict(float)
    words = Vocabulary()
    clips, clip_s, word_count = 0, 0.0, 0
    for batch in published.scan("videos", ["status"]):
        statuses.update(dict(_counted(batch["status"])))
    for batch in published.scan("clips", ["duration_s", "width", "height", "caption", "teacher"]):
        clips += batch.num_rows
        clip_s += pc.sum(batch["duration_s"]).as_py() or 0.0
        word_count += pc.sum(pc.count_substring_regex(batch["caption"], r"\S+")).as_py() or 0
        teachers.update(dict(_counted(batch["teacher"])))
        short_sides = pc.min_element_wise(batch["width"], batch["height"])
        resolutions.update({f"{side}p": count for side, count in _counted(short_sides)})
        words.add(batch["caption"])
    for batch in published.scan("rejected", ["stage", "reason", "start_s", "end_s"]):
        lasting = pc.subtract(batch["end_s"], batch["start_s"])
        keyed = pa.table([batch["stage"], batch["reason"], lasting], ["stage", "reason", "lasting"])
        for row in keyed.group_by(["stage", "reason"]).aggregate([("lasting", "sum"), ([], "count_all")]).to_pylist():
            rule = (row["stage"], row["reason"])
            spans[rule] += row["count_all"]
            seconds[rule] += row["lasting_sum"] or 0.0
    return Stats(
        videos=dict(sorted(statuses.items(), key=_by_count)),
        clips=clips,
        clip_h=clip_s / 3600,
        mean_clip_s=clip_s / clips if clips else None,
        mean_words=word_count / clips if clips else None,
        resolutions=dict(sorted(resolutions.items(), key=_by_count)),
        teachers=dict(sorted(teachers.items(), key=_by_count)),
        vocabulary=len(words.counts),
        vocabulary_is_capped=words.is_capped,
        top_words=words.top(),
        rejected=tuple(Rejected(*rule, count, seconds[rule]) for rule, count in sorted(spans.items(), key=_by_count)),
        versions=published.versions,
    )


def describe(stats: Stats) -> str:
    """The figures as lines for people, beside those of Panda-70M."""
    named = stats.resolution
    row = {
        "source videos": f"{sum(stats.videos.values()):,}",
        "clips": f"{stats.clips:,}",
        "mean length of a clip": _number(stats.mean_clip_s, " s"),
        "hours of clips": f"{stats.clip_h:,.2f}",
        "words a caption": _number(stats.mean_words),
        "resolution": f"{named[0]} ({named[1]:.0%})" if named else "none",
    }
    lines = list(_aligned([("", "here", "Panda-70M"), *((name, row[name], _PANDA70M[name]) for name in row)]))
    lines += ["", "videos: " + (", ".join(f"{count:,} {status}" for status, count in stats.videos.items()) or "none")]
    told = "more than " if stats.vocabulary_is_capped else ""
    lines.append(f"vocabulary: {told}{stats.vocabulary:,} words")
    if stats.top_words:
        lines.append("frequent: " + ", ".join(f"{word} {count:,}" for word, count in stats.top_words.items()))
    shares = [(name, f"{count:,}", f"{count / stats.clips:.1%}") for name, count in stats.teachers.items()]
    if shares:
        lines += ["", *_aligned([("chosen captions of", "clips", "share"), *shares])]
    rules = [(f"{one.stage}: {one.reason}", f"{one.spans:,}", f"{one.seconds:,.1f}") for one in stats.rejected]
    if rules:
        lines += ["", *_aligned([("rejected by", "spans", "seconds"), *rules])]
    return "\n".join(lines)


def _aligned(rows: list[tuple[str, str, str]]) -> Iterator[str]:
    widths = [max(len(row[at]) for row in rows) for at in range(3)]
    for name, *numbers in rows:
        yield "  ".join(
            [name.ljust(widths[0]), *(number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True))]
        ).rstrip()


def _number(mean: float | None, unit: str = "") -> str:
    return "none" if mean is None else f"{mean:.2f}{unit}"


def _counted(values: pa.Array) -> Iterable[tuple[Any, int]]:
    counted = pc.drop_null(values).value_counts()
    return zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True)


def _by_count(pair: tuple[Any, int]) -> tuple[int, Any]:
    return -pair[1], pair[0]
