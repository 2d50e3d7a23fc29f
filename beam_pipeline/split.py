"""Split a dataset into train, val and test: disjoint by source, and stable while the dataset grows.

    print(describe(split_dataset("out", "parts", SplitOptions(seed=7, min_score=0.43, max_clips_per_source=3))))

On which side a source falls depends on the seed and its video_id alone; what is chosen of its clips on these and the
clips' ids. Where clips are known to be duplicates of others, their sources form a cluster, which falls where the lowest
of its sources does: test lies lowest and train highest, so a cluster that grows may leave train, but never enters it.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from beam_pipeline import __version__
from transforms.by_source import Sources, clips_by_source, place_of
from transforms.files import title_of
from transforms.new_folders import NewFolder, new_folder
from transforms.published import Published, reread
from transforms.schemas import CLIPS

PARTS = ("train", "val", "test")
MANIFEST = "split.json"

#: What a part says of a clip.
COLUMNS = ("clip_id", "video_id", "uri", "start_s", "end_s", "caption")

_SCHEMA = pa.schema([CLIPS.field(name) for name in COLUMNS])
_ROWS_A_GROUP = 65_536


@dataclasses.dataclass(frozen=True)
class SplitOptions:
    """How to split, and what to leave out.

    Attributes:
      val, test: the shares of the sources, from 0 to 1; the rest is train.
      min_score: only clips whose matching score is greater (0.43 in the paper's 10M subset).
      max_clips_per_source: at most so many clips of a source, by lot (3 in the paper's subsets).
      limit: at most so many clips in all, source by source in the seed's order.
      balance: a text column of `clips`: each of its values gets an even share of the limit, and what a rare one leaves
        goes to the others; without a limit each gets as many as the rarest has.
    """

    val: float = 0.05
    test: float = 0.05
    seed: int = 0
    min_score: float | None = None
    max_clips_per_source: int | None = None
    limit: int | None = None
    balance: str | None = None

    def __post_init__(self) -> None:
        if self.val + self.test > 1:
            raise ValueError(
                f"--val {self.val:g} and --test {self.test:g} are more than all; together they are at most 1"
            )
        texts = [field.name for field in CLIPS if pa.types.is_string(field.type)]
        if self.balance is not None and self.balance not in texts:
            told = ", ".join(name for name in texts if not name.endswith(("id", "uri", "print")))
            raise ValueError(f"clips have no text column {self.balance!r} to balance by; there are {told}")


def part_of(seed: int, video_ids: Iterable[str], val: float, test: float) -> str:
    """The part into which a cluster of sources falls.

    >>> [part_of(0, [name], 0.3, 0.3) for name in "abc"]
    ['test', 'test', 'val']
    """
    lowest = min(place_of(f"part {seed}", one) for one in video_ids) / 2**64
    return "test" if lowest < test else "val" if lowest < test + val else "train"


def clusters(pairs: Iterable[tuple[str, str]]) -> dict[str, frozenset[str]]:
    """The clusters that pairs of names make, by each name in them (union-find).

    >>> clusters([("a", "b"), ("c", "b")])["a"] == {"a", "b", "c"}
    True
    """
    parents: dict[str, str] = {}

    def root(name: str) -> str:
        while parents.setdefault(name, name) != name:
            parents[name] = name = parents[parents[name]]
        return name

    for one, other in pairs:
        parents[root(one)] = root(other)
    members: dict[str, set[str]] = collections.defaultdict(set)
    for name in list(parents):
        members[root(name)].add(name)
    return {name: together for cluster in members.values() for together in [frozenset(cluster)] for name in cluster}


def duplicate_sources(scan: Callable[[], Iterable[pa.RecordBatch]]) -> list[tuple[str, str]]:
    """The pairs of sources one of which has a duplicate of a clip of the other.

    Args:
      scan: yields batches of `clip_id`, `video_id` and `duplicate_of`, the clip_id of which a clip is a duplicate.
    """
    owners: dict[str, set[str]] = collections.defaultdict(set)
    for batch in scan():
        repeated = batch.filter(pc.is_valid(batch["duplicate_of"]))
        for original, video_id in zip(
            *(repeated[name].to_pylist() for name in ("duplicate_of", "video_id")), strict=True
        ):
            owners[original].add(video_id)
    originals, pairs = pa.array(sorted(owners), pa.string()), set()
    for batch in scan() if owners else ():
        found = batch.filter(pc.is_in(batch["clip_id"], originals))
        for clip_id, video_id in zip(*(found[name].to_pylist() for name in ("clip_id", "video_id")), strict=True):
            pairs |= {(one, video_id) for one in owners[clip_id] if one != video_id}
    return sorted(pairs)


def quotas(counts: Mapping[str, int], limit: int | None) -> dict[str, int]:
    """How many clips each value gets, when they shall be even (see `SplitOptions.balance`).

    >>> quotas({"cat": 9, "dog": 2, "eel": 5}, 10)
    {'cat': 4, 'dog': 2, 'eel': 4}
    """
    if limit is None:
        return dict.fromkeys(counts, min(counts.values(), default=0))
    shares, left = {}, limit
    for number, (name, count) in enumerate(sorted(counts.items(), key=lambda pair: (pair[1], pair[0]))):
        shares[name] = min(count, left // (len(counts) - number))
        left -= shares[name]
    return {name: shares[name] for name in counts}


def split_dataset(dataset_dir: str, output: str, options: SplitOptions) -> dict[str, Any]:
    """Write OUT/{train,val,test}.parquet and OUT/split.json; return what the latter says.

    Raises:
      NoDataset: there is none. OSError: the disk is full; nothing is left behind then.
    """
    together = clusters(reread(dataset_dir, _duplicates))
    columns = [*COLUMNS, "matching_score", *([options.balance] if options.balance else [])]
    with (
        clips_by_source(dataset_dir, columns, salt=f"split {options.seed}") as sources,
        new_folder(output, MANIFEST) as to,
    ):
        shares = quotas(_count(sources, options), options.limit) if options.balance else None
        told = {
            "reelscribe": __version__,
            "dataset": title_of(dataset_dir),
            "versions": sources.versions,
            "settings": dataclasses.asdict(options),
            "counts": _write(to, sources, options, together, shares),
        }
        to.finish(told)
    return told


def _duplicates(published: Published) -> list[tuple[str, str]]:
    if "duplicate_of" not in CLIPS.names:
        return []
    return duplicate_sources(lambda: published.scan("clips", ["clip_id", "video_id", "duplicate_of"]))


def _eligible(sources: Sources, options: SplitOptions) -> Iterator[tuple[str, pa.Table]]:
    """Each source's clips that pass the score and the number of clips a source, in order of time."""
    for source in sources:
        clips = source.clips
        if options.min_score is not None:
            clips = clips.filter(pc.greater(clips["matching_score"], options.min_score))
        if options.max_clips_per_source is not None and clips.num_rows > options.max_clips_per_source:
            lots = [(place_of(f"clip {options.seed}", one), at) for at, one in enumerate(clips["clip_id"].to_pylist())]
            clips = clips.take(sorted(at for _, at in sorted(lots)[: options.max_clips_per_source]))
        if clips.num_rows:
            yield source.video["video_id"], clips


def _count(sources: Sources, options: SplitOptions) -> dict[str, int]:
    counts: collections.Counter[str] = collections.Counter()
    for _, clips in _eligible(sources, options):
        counts.update(clips[options.balance].drop_null().to_pylist())
    return dict(sorted(counts.items()))


def _chosen(
    sources: Sources, options: SplitOptions, shares: Mapping[str, int] | None
) -> Iterator[tuple[str, pa.Table]]:
    left = options.limit
    by_value = dict(shares or {})
    for video_id, clips in _eligible(sources, options):
        if shares is not None:
            rows = []
            for at, value in enumerate(clips[options.balance].to_pylist()):
                if by_value.get(value, 0) > 0:
                    by_value[value] -= 1
                    rows.append(at)
            clips = clips.take(pa.array(rows, pa.int64()))
        elif left is not None:
            clips = clips.slice(0, left)
            left -= clips.num_rows
        if clips.num_rows:
            yield video_id, clips
        if left == 0 and shares is None:
            return


def _write(
    folder: NewFolder,
    sources: Sources,
    options: SplitOptions,
    together: Mapping[str, frozenset[str]],
    shares: Mapping[str, int] | None,
) -> dict[str, dict[str, Any]]:
    with contextlib.ExitStack() as open_files:
        parts = {part: open_files.enter_context(_part(folder, part)) for part in PARTS}
        for video_id, clips in _chosen(sources, options, shares):
            cluster = together.get(video_id, frozenset([video_id]))
            parts[part_of(options.seed, cluster, options.val, options.test)].add(clips)
    return {
        name: {"sources": part.sources, "clips": part.clips, "hours": part.s / 3600} for name, part in parts.items()
    }


class _Part:
    """One of the files, whose rows are written in groups as large as Parquet likes them."""

    def __init__(self, writer: pq.ParquetWriter):
        self.sources, self.clips, self.s = 0, 0, 0.0
        self._writer, self._waiting, self._rows = writer, [_SCHEMA.empty_table()], 0

    def add(self, clips: pa.Table) -> None:
        """Add the clips of a source."""
        self.sources += 1
        self.clips += clips.num_rows
        self.s += pc.sum(pc.subtract(clips["end_s"], clips["start_s"])).as_py()
        self._waiting.append(clips.select(COLUMNS).cast(_SCHEMA))
        self._rows += clips.num_rows
        if self._rows >= _ROWS_A_GROUP:
            self.flush()

    def flush(self) -> None:
        self._writer.write_table(pa.concat_tables(self._waiting).combine_chunks())
        self._waiting, self._rows = [_SCHEMA.empty_table()], 0


@contextlib.contextmanager
def _part(folder: NewFolder, name: str) -> Iterator[_Part]:
    with folder.writing(f"{name}.parquet") as (file, entry):
        with pq.ParquetWriter(file, _SCHEMA, compression="zstd") as writer:
            part = _Part(writer)
            yield part
            part.flush()
        entry["rows"] = part.clips


def describe(told: Mapping[str, Any], output: str) -> str:
    """What was split, as lines for people."""
    counts = told["counts"]
    lines = [
        f"{part:5}  {count['clips']:>10,} clips of {count['sources']:,} sources, {count['hours']:,.2f} h"
        for part, count in counts.items()
    ]
    return "\n".join([*lines, output])
