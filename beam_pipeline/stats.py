"""A dataset in the figures of the paper's Table 1, with its captions' words and what the rules dropped.

    print(describe(dataset_stats("out")))

One pass over a few columns, batch by batch; what is kept grows with the words and captions that there are, up to a
limit, and not with the clips.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from beam_pipeline.caption_words import Repeats, Vocabulary, by_count, counted
from transforms.files import Directory
from transforms.published import Published, reread

#: So many teachers and categories are printed.
_TOP = 20

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
      categories: clips by the label of the measure `category`, the most frequent first; empty without that measure.
      words: all words of the chosen captions, as the vocabulary counts them.
      vocabulary: different ones; `vocabulary_is_capped` where there are more than are counted.
      top_words: the most frequent with their counts, without articles and the like.
      repeated: the share of the clips whose caption another clip has, too; `repeated_is_estimated` where it is that of
        some captions drawn from all.
      versions: of the tables that were read.
    """

    videos: dict[str, int]
    clips: int
    clip_h: float
    mean_clip_s: float | None
    mean_words: float | None
    resolutions: dict[str, int]
    teachers: dict[str, int]
    categories: dict[str, int]
    words: int
    vocabulary: int
    vocabulary_is_capped: bool
    top_words: dict[str, int]
    repeated: float | None
    repeated_is_estimated: bool
    rejected: tuple[Rejected, ...]
    versions: dict[str, int]

    @property
    def resolution(self) -> tuple[str, float] | None:
        """The most frequent resolution, and its share of the clips."""
        return next(((name, count / self.clips) for name, count in self.resolutions.items()), None)

    @property
    def type_token(self) -> float | None:
        """Different words by all words: it falls as captions repeat each other, and as there are more of them."""
        return self.vocabulary / self.words if self.words else None

    @property
    def table_1(self) -> list[tuple[str, str, str]]:
        """The paper's Table 1: what is told, here, and of Panda-70M."""
        named = self.resolution
        row = {
            "source videos": f"{sum(self.videos.values()):,}",
            "clips": f"{self.clips:,}",
            "mean length of a clip": _number(self.mean_clip_s, " s"),
            "hours of clips": f"{self.clip_h:,.2f}",
            "words a caption": _number(self.mean_words),
            "resolution": f"{named[0]} ({named[1]:.0%})" if named else "none",
        }
        return [(name, row[name], _PANDA70M[name]) for name in row]

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
        return {"table_1": row, **dataclasses.asdict(self), "type_token": self.type_token}


def dataset_stats(dataset_dir: Directory) -> Stats:
    """Count a dataset, exactly as of one moment.

    Raises:
      NoDataset: there is none. TombstoneError: the record of a takedown can't be read.
    """

    def read(published: Published) -> Stats:
        return count(published.scan, published.versions)

    return reread(dataset_dir, read)


def count(scan: Callable[[str, list[str]], Iterable[pa.RecordBatch]], versions: Mapping[str, int]) -> Stats:
    """Count the rows of tables.

    Args:
      scan: a table's rows with these columns, batch by batch. versions: of the tables, to be told.
    """
    statuses: collections.Counter[str] = collections.Counter()
    teachers: collections.Counter[str] = collections.Counter()
    resolutions: collections.Counter[str] = collections.Counter()
    spans: collections.Counter[tuple[str, str]] = collections.Counter()
    seconds: dict[tuple[str, str], float] = collections.defaultdict(float)
    categories: collections.Counter[str] = collections.Counter()
    words, repeats = Vocabulary(), Repeats()
    clips, clip_s, word_count = 0, 0.0, 0
    for batch in scan("videos", ["status"]):
        statuses.update(dict(counted(batch["status"])))
    for batch in scan("clips", ["duration_s", "width", "height", "caption", "teacher", "category"]):
        clips += batch.num_rows
        clip_s += pc.sum(batch["duration_s"]).as_py() or 0.0
        word_count += pc.sum(pc.count_substring_regex(batch["caption"], r"\S+")).as_py() or 0
        teachers.update(dict(counted(batch["teacher"])))
        categories.update(dict(counted(batch["category"])))
        short_sides = pc.min_element_wise(batch["width"], batch["height"])
        resolutions.update({f"{side}p": count for side, count in counted(short_sides)})
        words.add(batch["caption"])
        repeats.add(batch["caption"])
    for batch in scan("rejected", ["stage", "reason", "start_s", "end_s"]):
        lasting = pc.subtract(batch["end_s"], batch["start_s"])
        keyed = pa.table([batch["stage"], batch["reason"], lasting], ["stage", "reason", "lasting"])
        for row in keyed.group_by(["stage", "reason"]).aggregate([("lasting", "sum"), ([], "count_all")]).to_pylist():
            rule = (row["stage"], row["reason"])
            spans[rule] += row["count_all"]
            seconds[rule] += row["lasting_sum"] or 0.0
    return Stats(
        videos=dict(sorted(statuses.items(), key=by_count)),
        clips=clips,
        clip_h=clip_s / 3600,
        mean_clip_s=clip_s / clips if clips else None,
        mean_words=word_count / clips if clips else None,
        resolutions=dict(sorted(resolutions.items(), key=by_count)),
        teachers=dict(sorted(teachers.items(), key=by_count)),
        categories=dict(sorted(categories.items(), key=by_count)),
        words=words.total,
        vocabulary=len(words.counts),
        vocabulary_is_capped=words.is_capped,
        top_words=words.top(),
        repeated=repeats.share,
        repeated_is_estimated=repeats.is_estimated,
        rejected=tuple(Rejected(*rule, count, seconds[rule]) for rule, count in sorted(spans.items(), key=by_count)),
        versions=dict(versions),
    )


def describe(stats: Stats) -> str:
    """The figures as lines for people, beside those of Panda-70M."""
    lines = list(_aligned([("", "here", "Panda-70M"), *stats.table_1]))
    lines += ["", "videos: " + (", ".join(f"{count:,} {status}" for status, count in stats.videos.items()) or "none")]
    told = "more than " if stats.vocabulary_is_capped else ""
    ratio = f", of {stats.words:,} in all (type-token ratio {stats.type_token:.3f})" if stats.type_token else ""
    lines.append(f"vocabulary: {told}{stats.vocabulary:,} words{ratio}")
    if stats.top_words:
        lines.append("frequent: " + ", ".join(f"{word} {count:,}" for word, count in stats.top_words.items()))
    if stats.repeated is not None:
        about = "about " if stats.repeated_is_estimated else ""
        lines.append(f"repeated: {about}{stats.repeated:.1%} of the clips have a caption that another clip has, too")
    for head, counts in (("chosen captions of", stats.teachers), ("category", stats.categories)):
        total = sum(counts.values())
        shares = [(name, f"{count:,}", f"{count / total:.1%}") for name, count in [*counts.items()][:_TOP]]
        if shares:
            lines += ["", *_aligned([(head, "clips", "share"), *shares])]
        if len(counts) > _TOP:
            lines.append(f"and {len(counts) - _TOP:,} more")
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
