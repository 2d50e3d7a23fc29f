"""The dataset's four tables: their Arrow schemas, and the rows of one video that enter them together.

    rows_to_table(rows.clips, CLIPS)

`clips`, `videos`, `rejected` and `failures` are Delta Lake tables under the dataset's directory. A `?` in the contract
is a nullable column here, and so are those columns of `videos` that nobody knows of a video that could not be opened,
or that its uploader left out; fields inside lists and structs are nullable, as Arrow's own default is.

Columns that come later are added at the end, nullable, and named in `ADDED`: a dataset that was made before them is
widened by its next writer and reads with nulls until then. `schema_version` counts the changes that such a reader or
writer could not live with, so it stays as it is.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from transforms.measure_columns import BY_NAME, MEASURED

SCHEMA_VERSION = 1

SAFE_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")

#: The stage whose dead letter costs a video the text of what is said in it, which nobody wrote down. It is also what
#: hearing is called among what a clip was made with.
HEAR_STAGE = "hear"

#: The stage whose dead letter costs a clip one number, as one that names a teacher costs it one caption.
MEASURE_STAGE = "measure"

#: The stage whose dead letter costs a clip what was to be done to its caption: the teacher's own words stand. It is
#: also what that is called among what a clip was made with.
CLEAN_STAGE = "clean"

#: The stage whose dead letter costs a clip its file: the clip stands, and its video is 'partial'.
MEDIA_STAGE = "media"

#: The stages of spans that rules of the user's dropped: a clip by its columns, a whole video by what it is.
FILTER_STAGE = "filter"
SOURCE_STAGE = "source"

#: What `videos.status` may say.
STATUSES = ("ok", "partial", "failed")

CANDIDATE = pa.struct(
    [
        ("teacher", pa.string()),
        ("model", pa.string()),
        ("revision", pa.string()),
        ("prompt_id", pa.string()),
        ("caption", pa.string()),
        ("matching_score", pa.float32()),
        ("fingerprint", pa.string()),
    ]
)

_SPAN = pa.struct([("start_s", pa.float64()), ("end_s", pa.float64())])

#: With which fingerprint the selector ("select") and each measure answered about a clip.
_MADE_WITH = pa.list_(pa.struct([("name", pa.string()), ("fingerprint", pa.string())]))

#: What a clip had come to when a rule of the user's dropped it, so that it can go on from there.
_CLIP_SO_FAR = (
    ("clip_id", pa.string()),
    ("shots", pa.list_(_SPAN)),
    ("embedding", pa.list_(pa.float32())),
    ("captions", pa.list_(CANDIDATE)),
    ("made_with", _MADE_WITH),
    *((column.name, column.kind) for column in MEASURED),
)


def _schema(columns: Sequence[tuple[str, pa.DataType]], nullable: frozenset[str] = frozenset()) -> pa.Schema:
    return pa.schema([pa.field(name, kind, nullable=name in nullable) for name, kind in columns])


CLIPS = _schema(
    [
        ("clip_id", pa.string()),
        ("video_id", pa.string()),
        ("uri", pa.string()),
        ("title", pa.string()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("duration_s", pa.float64()),
        ("timestamp", pa.list_(pa.string())),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("fps", pa.float64()),
        ("caption", pa.string()),
        ("teacher", pa.string()),
        ("matching_score", pa.float32()),
        ("margin", pa.float32()),
        ("abstained", pa.bool_()),
        ("captions", pa.list_(CANDIDATE)),
        ("subtitles", pa.string()),
        ("embedding", pa.list_(pa.float32())),
        ("shots", pa.list_(_SPAN)),
        ("run_id", pa.string()),
        ("fingerprint", pa.string()),
        ("schema_version", pa.int32()),
        ("max_running_lpips", pa.float32()),
        ("clip_file", pa.string()),
        ("made_with", _MADE_WITH),
        *((column.name, column.kind) for column in MEASURED[1:]),
        ("caption_language", pa.string()),
        ("harmful_text", pa.bool_()),
        ("duplicate_of", pa.string()),
        ("duplicate_distance", pa.float32()),
    ],
    nullable=frozenset({"title", "matching_score", "margin", "subtitles", "clip_file", "made_with", *BY_NAME})
    | {"caption_language", "harmful_text", "duplicate_of", "duplicate_distance"},
)

VIDEOS = _schema(
    [
        ("video_id", pa.string()),
        ("uri", pa.string()),
        ("title", pa.string()),
        ("description", pa.string()),
        ("size_bytes", pa.int64()),
        ("etag", pa.string()),
        ("duration_s", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("fps", pa.float64()),
        ("codec", pa.string()),
        ("n_shots", pa.int32()),
        ("n_clips", pa.int32()),
        ("n_rejected", pa.int32()),
        ("n_failures", pa.int32()),
        ("status", pa.string()),
        ("fingerprints", pa.struct([(stage, pa.string()) for stage in ("split", "embed", "captions", "select")])),
        ("run_id", pa.string()),
        ("content_hash", pa.string()),
        ("duplicate_of", pa.string()),
    ],
    nullable=frozenset({"title", "description", "duration_s", "width", "height", "fps", "codec"})
    | {"content_hash", "duplicate_of"},
)

REJECTED = _schema(
    [
        ("video_id", pa.string()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("value", pa.float64()),
        ("threshold", pa.float64()),
        ("run_id", pa.string()),
        *_CLIP_SO_FAR,
    ],
    nullable=frozenset({"value", "threshold", *(name for name, _ in _CLIP_SO_FAR)}),
)

FAILURES = _schema(
    [
        ("stage", pa.string()),
        ("video_id", pa.string()),
        ("clip_id", pa.string()),
        ("teacher", pa.string()),
        ("uri", pa.string()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("error_class", pa.string()),
        ("message", pa.string()),
        ("detail", pa.string()),
        ("attempt", pa.int32()),
        ("failed_at", pa.timestamp("us", tz="UTC")),
        ("run_id", pa.string()),
        # What a failed clip had come to, so that it can go on from there; and what a teacher was asked.
        ("fingerprint", pa.string()),
        ("shots", pa.list_(_SPAN)),
        ("embedding", pa.list_(pa.float32())),
        ("captions", pa.list_(CANDIDATE)),
    ],
    nullable=frozenset({"clip_id", "teacher", "start_s", "end_s", "fingerprint", "shots", "embedding", "captions"}),
)

#: In the order in which a video enters them: `videos` last, it is the point of commit.
TABLES: Mapping[str, pa.Schema] = {"clips": CLIPS, "rejected": REJECTED, "failures": FAILURES, "videos": VIDEOS}

#: Columns that came after the first release, in order; files from before end without some of them.
ADDED: Mapping[str, tuple[str, ...]] = {
    "clips": (
        *("max_running_lpips", "clip_file", "made_with", *list(BY_NAME)[1:]),
        *("caption_language", "harmful_text", "duplicate_of", "duplicate_distance"),
    ),
    "videos": ("content_hash", "duplicate_of"),
    "rejected": tuple(name for name, _ in _CLIP_SO_FAR),
    "failures": ("fingerprint", "shots", "embedding", "captions"),
}

#: The log keeps the least and the greatest value of these columns; never of titles or captions, which are other
#: people's words and would outlive their removal there.
STATISTICS: Mapping[str, tuple[str, ...]] = {
    "clips": ("clip_id", "video_id", "start_s", "end_s", "run_id"),
    "rejected": ("video_id", "start_s", "end_s", "run_id"),
    "failures": ("video_id", "failed_at", "run_id"),
    "videos": ("video_id", "run_id"),
}


class RowError(ValueError):
    """Rows that do not fit their table: a fault of the code that made them, never of a video."""


def earlier_schemas(name: str) -> list[pa.Schema]:
    """The schemas that a table had before, the latest first: without the last of its added columns, the last two ..."""
    schema, count = TABLES[name], len(ADDED.get(name, ()))
    return [pa.schema(list(schema)[: len(schema) - left_out]) for left_out in range(1, count + 1)]


def spares_the_span(stage: str, teacher: str | None) -> bool:
    """Whether a dead letter costs no part of its video: of speech, one teacher's caption, a measure, a cleaning."""
    return teacher is not None or stage in (HEAR_STAGE, MEASURE_STAGE, CLEAN_STAGE)


@dataclasses.dataclass(frozen=True, slots=True)
class VideoRows:
    """All that one run says of one video, as rows: they enter the dataset together or not at all.

    `video` is the row of `videos`; the keys of every row are exactly the columns of its table. `retried` are dead
    letters of clip files that an earlier run left: attempts at them are counted on. They enter no table.
    """

    video_id: str
    video: dict[str, Any]
    clips: tuple[dict[str, Any], ...] = ()
    rejected: tuple[dict[str, Any], ...] = ()
    failures: tuple[dict[str, Any], ...] = ()
    retried: tuple[dict[str, Any], ...] = ()

    @property
    def run_id(self) -> str:
        return self.video["run_id"]

    def of(self, table: str) -> tuple[dict[str, Any], ...]:
        """The rows that enter `table`."""
        return (self.video,) if table == "videos" else getattr(self, table)

    def check(self) -> None:
        """Raise a `RowError` unless ids are safe, every row is of this video and run, and the counts add up."""
        dropped = [row["clip_id"] for row in self.rejected if row.get("clip_id")]
        require_safe(self.video_id, self.run_id, *(clip["clip_id"] for clip in self.clips), *dropped)
        for table in TABLES:
            for row in self.of(table):
                if (row["video_id"], row["run_id"]) != (self.video_id, self.run_id):
                    raise RowError(f"a row of {table} says {row['video_id']!r}, {row['run_id']!r}, not {self.video_id}")
            if table != "videos" and self.video[f"n_{table}"] != len(self.of(table)):
                raise RowError(f"{self.video_id}: n_{table} is {self.video[f'n_{table}']}, rows {len(self.of(table))}")
        if self.video["status"] not in STATUSES:
            raise RowError(f"{self.video_id}: status {self.video['status']!r} is none of {', '.join(STATUSES)}")
        if self.video["status"] == "failed" and self.clips:
            raise RowError(f"{self.video_id}: a failed video has no clips, this has {len(self.clips)}")

    def in_run(self, run_id: str) -> VideoRows:
        """The same rows as another run's."""
        tables = {name: tuple({**row, "run_id": run_id} for row in self.of(name)) for name in TABLES}
        (video,) = tables.pop("videos")
        return VideoRows(self.video_id, video, **tables)


def base_run(run_id: str) -> str:
    """The run that rows are of: the second version of a video in one run says "RUN--2" (see `transforms.committing`).

    >>> base_run("20261122T101500-3f9a1c--2")
    '20261122T101500-3f9a1c'
    """
    return run_id.partition("--")[0]


def require_safe(*ids: str) -> None:
    """Raise a `RowError` unless every id is safe in a predicate and as a file name."""
    for unsafe in (one for one in ids if not (isinstance(one, str) and SAFE_ID.fullmatch(one))):
        raise RowError(f"the id {unsafe!r} may hold only letters, digits, '_' and '-', at most 128 of them")


def rows_to_table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Convert rows to a table of exactly this schema.

    Raises:
      RowError: a column is unknown, missing, of another type, or null where it may not be. (Arrow alone drops unknown
        keys and fills missing ones with null.)
    """
    for number, row in enumerate(rows):
        _check_keys(row, schema, f"row {number}")
    try:
        table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise RowError(f"rows do not fit their table: {error}") from error
    for field in schema:
        if not field.nullable and table.column(field.name).null_count:
            raise RowError(f"column {field.name} may not be null")
    return table


def _check_keys(value: Any, kind: Any, where: str) -> None:
    """Compare the keys of a row, or of a struct in it, with the fields of a schema or a struct type."""
    if value.keys() != set(kind.names):
        unknown, missing = sorted(set(value) - set(kind.names)), sorted(set(kind.names) - set(value))
        raise RowError(f"{where}: unknown columns {unknown}, missing columns {missing}")
    for field in kind:
        if pa.types.is_nested(field.type) and value[field.name] is not None:
            inner = field.type.value_type if pa.types.is_list(field.type) else field.type
            if pa.types.is_struct(inner):
                for one in value[field.name] if inner is not field.type else [value[field.name]]:
                    _check_keys(one, inner, f"{where}.{field.name}")
