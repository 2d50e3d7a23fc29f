"""Clips for training a student: chosen out of datasets once, kept in files that are read row by row.

    found = select(["out"], Rules(min_score=0.43), SplitShares(seed=0), "/tmp/rows")
    rows = StudentRows(found.path("train")); rows[7].caption

A dataset is read once, source by source and in bounded memory; what is wanted of each clip goes into an Arrow file a
part, some 0.4 KB a clip without its texts. Loading processes map these files into memory: any row is there at once,
and none is held. So the order of an epoch may be any, and a training that goes on finds its place without reading.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import heapq
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipeline.evaluate_gallery import clip_of_row
from beam_pipeline.split import clusters
from beam_pipeline.training.examples import PARTS, ExamplesError, SplitShares, duplicate_pairs, part_of_source
from model_handlers.student_inputs import Texts
from transforms.by_source import Source, clips_by_source, place_of
from transforms.files import Directory, list_files, name_of
from transforms.published import reread
from transforms.records import Clip
from transforms.reels import reels_of
from transforms.schemas import CLIPS

_CLIP = ("clip_id", "video_id", "uri", "start_s", "end_s", "duration_s", "width", "height", "fps")
_RULED = ("matching_score", "abstained", "duplicate_of")
_SCHEMA = pa.schema(
    [
        *(CLIPS.field(name) for name in (*_CLIP, "caption", "title", "subtitles")),
        pa.field("description", pa.string()),
        pa.field("dataset", pa.int16()),
    ]
)
#: What the caption learns from; a change of any of these is another training.
_TOLD = ("clip_id", "start_s", "end_s", "caption", "title", "description", "subtitles")
_ROWS_A_BATCH = 256
_ABSTAINED, _SCORE = "clips of which the selector found no caption good", "clips whose score is not above"


@dataclasses.dataclass(frozen=True)
class Rules:
    """Which clips are learned from.

    Attributes:
      min_score: only clips whose matching score is greater. The scale is the selector's: 0.43 is the paper's, of its
        own. None asks nothing of the score, as the selector's own threshold speaks through `abstained`.
      keep_abstained: also clips of which the selector found no caption good.
      subset: a Parquet file with `clip_id` and `video_id`; only these clips.
    """

    min_score: float | None = None
    keep_abstained: bool = False
    subset: str | None = None


@dataclasses.dataclass(frozen=True)
class StudentExample:
    """A clip with its texts and the caption that the student shall say."""

    clip: Clip
    texts: Texts
    caption: str


@dataclasses.dataclass(frozen=True)
class Selection:
    """What was chosen.

    Attributes:
      folder: where the parts' files stand. fingerprint: a digest of all that is learned from, in order.
      clips, sources: how many, by part. left_out: how many clips, by the reason.
    """

    folder: str
    fingerprint: str
    clips: Mapping[str, int]
    sources: Mapping[str, int]
    left_out: Mapping[str, int]

    def path(self, part: str) -> str:
        return os.path.join(self.folder, f"{part}.arrow")

    def describe(self) -> str:
        """The counts, as lines for people."""
        lines = [f"{name:10}  {self.clips[name]:>9,} clips of {self.sources[name]:,} sources" for name in PARTS]
        return "\n".join([*lines, *(f"left out: {count:,} {why}" for why, count in self.left_out.items() if count)])


class StudentRows(Sequence[StudentExample]):
    """The clips of a part, mapped into memory; may be sent to other processes of this machine."""

    def __init__(self, path: str):
        self._path = path
        self._reader: Any = None
        self._count = sum(self._batch(at).num_rows for at in range(self._open().num_record_batches))
        self._datasets = json.loads(self._open().schema.metadata[b"datasets"])

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[one] for one in range(*at.indices(len(self)))]
        if not 0 <= at < len(self):
            raise IndexError(at)
        number, row = divmod(at, _ROWS_A_BATCH)
        return self._example(self._batch(number).slice(row, 1).to_pylist()[0])

    def owners(self) -> np.ndarray:
        """(clips,), the number of each clip's source: rows of one stand together."""
        told = [self._batch(at)["video_id"].to_numpy(zero_copy_only=False) for at in range(self._batches())]
        names = np.concatenate(told) if told else np.empty(0, object)
        return np.cumsum(np.r_[0, (names[1:] != names[:-1]).astype(np.int64)])[: len(names)]

    def drawn(self, count: int, seed: int) -> list[StudentExample]:
        """Up to `count` clips by lot, in order; which ones depends on the seed and their ids alone."""
        ids = (one for at in range(self._batches()) for one in self._batch(at)["clip_id"].to_pylist())
        lots = heapq.nsmallest(count, ((place_of(f"drawn {seed}", one), at) for at, one in enumerate(ids)))
        return [self[at] for at in sorted(at for _, at in lots)]

    def clip_ids(self) -> Iterator[str]:
        for at in range(self._batches()):
            yield from self._batch(at)["clip_id"].to_pylist()

    def _example(self, row: dict[str, Any]) -> StudentExample:
        texts = Texts(*(row[name] or None for name in ("title", "description", "subtitles")))
        return StudentExample(clip_of_row(row, self._datasets[row["dataset"]]), texts, row["caption"])

    def _batches(self) -> int:
        return self._open().num_record_batches

    def _batch(self, number: int) -> pa.RecordBatch:
        return self._open().get_batch(number)

    def _open(self) -> Any:
        if self._reader is None:
            self._reader = pa.ipc.open_file(pa.memory_map(self._path))
        return self._reader

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_reader": None}


def select(datasets: Sequence[Directory], rules: Rules, shares: SplitShares, folder: str) -> Selection:
    """Choose the clips of one or several datasets and write them to files in `folder`.

    On which side a source falls depends on the seed and its video_id alone, as in `reelscribe split`; sources that show
    the same fall together.

    Raises:
      NoDataset: there is none. SubsetError: the subset is no such file. ExamplesError: nothing falls into a part.
    """
    together = clusters(pair for dataset in datasets for pair in reread(dataset, duplicate_pairs))
    left_out: dict[str, int] = {}
    seen: set[str] = set()
    digest = hashlib.sha256()
    with contextlib.ExitStack() as files:
        parts = {name: files.enter_context(_Part(os.path.join(folder, f"{name}.arrow"), datasets)) for name in PARTS}
        for number, dataset in enumerate(datasets):
            reels = {name_of(path) for path in list_files(reels_of(dataset))}
            columns = [*_CLIP, *_RULED, "caption", "title", "subtitles"]
            with clips_by_source(
                dataset, columns, ["title", "description"], salt="student", subset=rules.subset
            ) as sources:
                for source in sources:
                    video_id = source.video["video_id"]
                    kept, dropped = _kept(source, rules, f"{video_id}.arrow" in reels, video_id in seen)
                    for why, count in dropped.items():
                        left_out[why] = left_out.get(why, 0) + count
                    if len(datasets) > 1:
                        seen.add(video_id)
                    if kept:
                        part = part_of_source(video_id, together, shares)
                        rows = [row | {"dataset": number} for row in kept]
                        parts[part].add(rows)
                        told = [[row[name] for name in _TOLD] for row in rows]
                        digest.update(json.dumps(told, ensure_ascii=False).encode())
    counts = {name: part.clips for name, part in parts.items()}
    _check(counts, left_out, datasets, shares)
    return Selection(folder, digest.hexdigest(), counts, {name: part.sources for name, part in parts.items()}, left_out)


def _kept(source: Source, rules: Rules, has_reel: bool, seen: bool) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The rows of a source that are learned from, and how many are not, by the first reason that holds."""
    clips, dropped = source.clips, {}
    never, always = np.zeros(clips.num_rows, bool), np.ones(clips.num_rows, bool)
    captions = pc.fill_null(pc.utf8_trim_whitespace(clips["caption"]), "")
    reasons = [
        ("clips are of sources that stand twice", always if seen else never),
        ("clips have no reel", never if has_reel else always),
        ("clips have no caption", pc.equal(captions, "")),
        ("near-duplicates", pc.is_valid(clips["duplicate_of"])),
        (_ABSTAINED, never if rules.keep_abstained else clips["abstained"]),
    ]
    if rules.min_score is not None:
        above = pc.fill_null(pc.greater(clips["matching_score"], rules.min_score), False)
        reasons.append((f"{_SCORE} {rules.min_score:g}", pc.invert(above)))
    left = always
    for why, holds in reasons:
        mask = np.asarray(holds).astype(bool) & left
        dropped[why] = int(mask.sum())
        left = left & ~mask
    rows = clips.filter(pa.array(left)).to_pylist() if left.any() else []
    video = source.video
    for row in rows:
        row["title"], row["description"] = row["title"] or video["title"], video["description"]
    return rows, dropped


class _Part:
    """One of the files, in batches of one size: so a row's place tells its batch."""

    def __init__(self, path: str, datasets: Sequence[Directory]):
        self.clips = self.sources = 0
        self._rows: list[dict[str, Any]] = []
        schema = _SCHEMA.with_metadata({"datasets": json.dumps([str(one) for one in datasets])})
        self._writer = pa.ipc.new_file(path, schema)

    def __enter__(self) -> _Part:
        return self

    def __exit__(self, *_: object) -> None:
        self._write(1)
        self._writer.close()

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Add the clips of a source."""
        self.sources += 1
        self.clips += len(rows)
        self._rows += rows
        self._write(_ROWS_A_BATCH)

    def _write(self, least: int) -> None:
        while len(self._rows) >= least:
            batch, self._rows = self._rows[:_ROWS_A_BATCH], self._rows[_ROWS_A_BATCH:]
            columns = [pa.array([row[field.name] for row in batch], field.type) for field in _SCHEMA]
            self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=_SCHEMA))


def _check(
    counts: Mapping[str, int], left_out: Mapping[str, int], datasets: Sequence[Directory], shares: SplitShares
) -> None:
    total, where = sum(counts.values()), " and ".join(map(str, datasets))
    if not total:
        why = max(left_out, key=left_out.__getitem__, default="")
        if not any(left_out.values()):
            raise ExamplesError(f"{where} has no clips to learn from; run reelscribe curate first")
        advice = {
            "clips have no reel": "; run curate again without --reels drop",
            "clips have no caption": "; run curate again with other teachers",
            _ABSTAINED: "; --keep-abstained takes them",
        }
        how = advice.get(why, "; lower --min-score" if _SCORE in why else "")
        raise ExamplesError(f"none of the clips of {where} is left: {left_out[why]:,} {why}{how}")
    for name, share in {"train": 1.0, "validation": shares.validation, "test": shares.test}.items():
        if share and not counts[name]:
            raise ExamplesError(
                f"{total:,} clips are of too few sources: none falls to {name}; take another --seed, --validation or "
                "--test"
            )
