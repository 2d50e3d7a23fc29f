"""What people said of a dataset's clips: the table `annotations`, a row a judgement.

    with WriterLease("out", owner="annotate"): store("out", judgements)
    for one in judgements_of("out"): print(one.clip_id, one.annotator, one.chosen_teachers)

It is a Delta table beside the other four, made by the first import. Its log keeps bounds of `annotation_id` alone, a
digest, so that a video which is taken down leaves no name behind in it.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake

from transforms.files import Directory, join, reading, remove
from transforms.lease import require_lease
from transforms.parquet_files import (
    delta_table,
    is_delta_table,
    scan_files,
    storage_options,
    table_files,
    table_uri,
    writer_properties,
)
from transforms.schemas import require_safe, rows_to_table

TABLE = "annotations"
SCHEMA_VERSION = 2

_CHOICE = pa.struct([("caption", pa.string()), ("teachers", pa.list_(pa.string()))])

ANNOTATIONS = pa.schema(
    [
        pa.field("annotation_id", pa.string(), nullable=False),
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("annotator", pa.string(), nullable=False),
        # Who said what was chosen: the best caption, or every good one. Empty where all were bad.
        pa.field("chosen_teachers", pa.list_(pa.string()), nullable=False),
        # Null where all were bad, and where every good one was asked for.
        pa.field("chosen_caption", pa.string()),
        pa.field("better_caption", pa.string()),
        pa.field("choices", pa.list_(_CHOICE), nullable=False),
        pa.field("extras", pa.list_(pa.string()), nullable=False),
        pa.field("lead_time_s", pa.float64()),
        pa.field("annotated_at", pa.timestamp("us", tz="UTC")),
        pa.field("source", pa.string(), nullable=False),
        pa.field("imported_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("schema_version", pa.int32(), nullable=False),
        # Null where the best caption was asked for; empty where every good one was, and all were bad.
        pa.field("good_captions", pa.list_(pa.string())),
    ]
)

#: The columns that a table of an earlier version may have instead: without `good_captions`.
_EARLIER = (pa.schema(list(ANNOTATIONS)[:-1]),)

#: The names of Parquet files that Delta's writer gives.
_OURS = re.compile(r"part-[^/]*\.parquet")


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """A caption that people could choose, and the teachers who said it."""

    caption: str
    teachers: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Judgement:
    """What one person said of one clip.

    Attributes:
      annotator: a digest (see `annotator_digest`).
      choices: what could be chosen, in the order shown.
      chosen: which of them is the best; None where all are bad, and where every good one was asked for.
      extras: those of the names in `choices` that are no teachers of the dataset.
      annotated_at: with its time zone, where known.
      source: SHA-256 of the file that it was read from.
      good: where every good one was asked for, which are; empty where all are bad. None: the best was asked for.
    """

    clip_id: str
    video_id: str
    annotator: str
    choices: tuple[Choice, ...]
    chosen: int | None
    better_caption: str | None
    extras: tuple[str, ...]
    lead_time_s: float | None
    annotated_at: datetime.datetime | None
    source: str
    good: frozenset[int] | None = None

    @property
    def question_id(self) -> str:
        """The same for all that is ever said of these captions of this clip, in whatever order.

        Which is the best is another question than which are good.
        """
        # The blank is in no clip_id, so the two cannot be taken for each other.
        asked = () if self.good is None else ("every good",)
        return _digest(*asked, self.clip_id, *sorted(same_words(choice.caption) for choice in self.choices))

    @property
    def annotation_id(self) -> str:
        """The same for all that this person ever says of it."""
        return _digest(self.question_id, self.annotator)

    @property
    def marked(self) -> frozenset[int]:
        """The captions found good: the best one, or every one that was marked; none where all are bad."""
        if self.good is not None:
            return self.good
        return frozenset() if self.chosen is None else frozenset({self.chosen})

    @property
    def chosen_teachers(self) -> tuple[str, ...]:
        """Who said what was chosen; nobody where all are bad."""
        return tuple(dict.fromkeys(name for at in sorted(self.marked) for name in self.choices[at].teachers))

    def row(self, imported_at: datetime.datetime) -> dict[str, Any]:
        """The row of the table."""
        return {
            "annotation_id": self.annotation_id,
            "clip_id": self.clip_id,
            "video_id": self.video_id,
            "annotator": self.annotator,
            "chosen_teachers": list(self.chosen_teachers),
            "chosen_caption": None if self.chosen is None else self.choices[self.chosen].caption,
            "better_caption": self.better_caption,
            "choices": [{"caption": one.caption, "teachers": list(one.teachers)} for one in self.choices],
            "extras": list(self.extras),
            "lead_time_s": self.lead_time_s,
            "annotated_at": self.annotated_at,
            "source": self.source,
            "imported_at": imported_at,
            "schema_version": SCHEMA_VERSION,
            "good_captions": None if self.good is None else [self.choices[at].caption for at in sorted(self.good)],
        }

    @classmethod
    def of(cls, row: dict[str, Any]) -> Judgement:
        """Of a row of the table."""
        choices = tuple(Choice(one["caption"], tuple(one["teachers"])) for one in row["choices"])
        captions = [choice.caption for choice in choices]
        good = row["good_captions"]
        return cls(
            clip_id=row["clip_id"],
            video_id=row["video_id"],
            annotator=row["annotator"],
            choices=choices,
            chosen=None if row["chosen_caption"] is None else captions.index(row["chosen_caption"]),
            better_caption=row["better_caption"],
            extras=tuple(row["extras"]),
            lead_time_s=row["lead_time_s"],
            annotated_at=row["annotated_at"],
            source=row["source"],
            good=None if good is None else frozenset(map(captions.index, good)),
        )

    def says_the_same(self, other: Judgement) -> bool:
        """Whether two judgements differ at most in the file that they were read from, and in the order shown."""
        ours, theirs = (
            (set(one.chosen_teachers), one.better_caption, one.lead_time_s, one.annotated_at) for one in (self, other)
        )
        return ours == theirs


def same_words(caption: str) -> str:
    """What two captions have in common that nobody could choose between: case, blanks and a last full stop aside.

    >>> same_words(" A dog  runs.") == same_words("a dog runs")
    True
    """
    return " ".join(caption.split()).casefold().removesuffix(".").rstrip()


def annotator_digest(dataset_dir: Directory, name: str) -> str:
    """Stand for a person, within one dataset: not their name or address, and not what they are in another dataset.

    A pseudonym, no secret: who has the dataset can find out whether a name that they guess is among them.
    """
    return _digest(str(delta_table(table_uri(dataset_dir, TABLE)).metadata().id), name)


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\x00".join(parts).encode(), digest_size=12).hexdigest()


def create_annotations(dataset_dir: Directory) -> None:
    """Make the table where there is none; one of an earlier version gets the columns that it lacks.

    This process must hold the writer's lease.
    """
    uri = table_uri(dataset_dir, TABLE)
    if not is_delta_table(uri):
        configuration = {"delta.dataSkippingStatsColumns": "annotation_id", "delta.checkpointInterval": "20"}
        DeltaTable.create(
            uri,
            ANNOTATIONS,
            mode="ignore",
            name=TABLE,
            configuration=configuration,
            storage_options=storage_options(uri),
        )
        return
    table = delta_table(uri)
    if len(table.schema().fields) < len(ANNOTATIONS):
        # All files anew: whoever reads the bare ones takes the first one's columns for all, or refuses those that
        # differ.
        _rewrite(table, dataset_dir, ANNOTATIONS.empty_table(), gone=set(), widen=True)


def judgements_of(dataset_dir: Directory) -> Iterator[Judgement]:
    """All that stands in the table, also of clips that are gone since; nothing where nobody imported any."""
    uri = table_uri(dataset_dir, TABLE)
    for batch in _scan(delta_table(uri), dataset_dir) if is_delta_table(uri) else ():
        yield from map(Judgement.of, batch.to_pylist())


def _scan(table: DeltaTable, dataset_dir: Directory) -> Iterator[pa.RecordBatch]:
    return scan_files(table_files(table, dataset_dir, TABLE), ANNOTATIONS, None)


@dataclasses.dataclass(frozen=True, slots=True)
class Stored:
    """How many judgements are new, took the place of an earlier one, stood already, or are older than what stands."""

    new: int = 0
    replaced: int = 0
    unchanged: int = 0
    older: int = 0


def store(dataset_dir: Directory, judgements: Sequence[Judgement]) -> Stored:
    """Add judgements in one commit; of one person about the same captions of one clip the latest stands.

    This process must hold the writer's lease.

    Args:
      judgements: at most one of each `annotation_id`.

    Raises:
      LeaseLost: it does not hold the lease. RowError: an id that is not safe.
    """
    require_safe(*(name for one in judgements for name in (one.clip_id, one.video_id, one.annotator)))
    create_annotations(dataset_dir)
    table = delta_table(table_uri(dataset_dir, TABLE))
    wanted = {one.annotation_id: one for one in judgements}
    replaced, unchanged, older = set(), set(), set()
    for standing in judgements_of(dataset_dir):
        name = standing.annotation_id
        if name not in wanted:
            continue
        if wanted[name].says_the_same(standing):
            unchanged.add(name)
        elif is_later(standing, wanted[name]):
            older.add(name)
        else:
            replaced.add(name)
    now, settled = datetime.datetime.now(datetime.UTC), unchanged | older
    rows = rows_to_table([one.row(now) for name, one in wanted.items() if name not in settled], ANNOTATIONS)
    if rows.num_rows:
        _rewrite(table, dataset_dir, rows, gone=replaced)
    return Stored(rows.num_rows - len(replaced), len(replaced), len(unchanged), len(older))


def is_later(one: Judgement, other: Judgement) -> bool:
    """Whether a judgement is known to be later than another."""
    return one.annotated_at is not None and other.annotated_at is not None and one.annotated_at > other.annotated_at


def drop_annotations(dataset_dir: Directory, video_ids: Iterable[str]) -> int:
    """Remove all that was said of these videos, and the files that said it; returns how many rows.

    This process must hold the writer's lease. Killed half-way it may be run again.
    """
    uri, gone = table_uri(dataset_dir, TABLE), set(video_ids)
    if not is_delta_table(uri):
        return 0
    named = [one.annotation_id for one in judgements_of(dataset_dir) if one.video_id in gone]
    table = delta_table(uri)
    if named:
        _rewrite(table, dataset_dir, ANNOTATIONS.empty_table(), gone=set(named))
    _remove_unused(table, dataset_dir)
    return len(named)


def _rewrite(table: DeltaTable, dataset_dir: Directory, rows: pa.Table, gone: set[str], *, widen: bool = False) -> None:
    """Add rows; where others go, or columns come, write the table anew, so that one commit does both."""
    require_lease(dataset_dir)
    anew = bool(gone) or widen
    if anew:
        away = pa.array(sorted(gone), pa.string())
        kept = [pa.Table.from_batches([batch], ANNOTATIONS) for batch in _scan(table, dataset_dir)]
        stays = [pc.invert(pc.is_in(one["annotation_id"], away)) for one in kept]
        rows = pa.concat_tables([*(one.filter(mask) for one, mask in zip(kept, stays, strict=True)), rows])
    how: dict[str, Any] = {"mode": "overwrite", "schema_mode": "overwrite"} if anew else {"mode": "append"}
    write_deltalake(table, rows, writer_properties=writer_properties(), **how)
    table.update_incremental()
    _remove_unused(table, dataset_dir)


def _remove_unused(table: DeltaTable, dataset_dir: Directory) -> None:
    """Delete files that are no part of the table any more, or never were: plain readers would see them."""
    unused = table.vacuum(retention_hours=0, dry_run=True, enforce_retention_duration=False, full=True)
    for name in map(urllib.parse.unquote, unused):
        if _OURS.fullmatch(name):
            remove(join(table_uri(dataset_dir, TABLE), name))


def check_annotations(dataset_dir: Directory) -> Iterator[str]:
    """What is wrong with the table, a sentence each; nothing where there is none."""
    uri = table_uri(dataset_dir, TABLE)
    if not is_delta_table(uri):
        return
    table, seen = delta_table(uri), set()
    for path in table_files(table, dataset_dir, TABLE):
        try:
            with reading(path) as opened:
                columns = pq.read_schema(opened)
        except (OSError, pa.ArrowException) as error:
            yield f"{TABLE}: {path} can't be read: {error}"
            return
        if not any(columns.equals(known) for known in (ANNOTATIONS, *_EARLIER)):
            yield f"{TABLE}: {path} has not the table's columns and types"
            return
    for one in judgements_of(dataset_dir):
        name = one.annotation_id
        if name in seen:
            yield f"{TABLE}: annotation_id {name} stands twice"
        seen.add(name)
