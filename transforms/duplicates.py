"""Which clips and which videos of a dataset are duplicates of others, and which one of each stands for the rest.

    marks = decide(clips, clusters)      # a table of clip_id, duplicate_of, duplicate_distance: the duplicates alone

Clips of different videos whose embeddings are nearer than a threshold are neighbours; all that a chain of neighbours
joins is a cluster (semantic de-duplication as SemDeDup has it, Abbas et al. 2023, but by connected components). The
longest clip stands for its cluster, of equally long ones that with the larger picture, then the one whose clip_id comes
first; the others are its duplicates, but those of its own video, which are none. Nothing of this depends on the order
in which clips came, so that a longer copy that comes late takes the place of the one that stood until then.

Videos are duplicates when their files are, byte by byte.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.neighbours import Clusters

#: What is asked of a clip to decide: and in which order these choose the one that stands for others.
RANKED = ("duration_s", "width", "height", "clip_id")

MARKS = pa.schema([("clip_id", pa.string()), ("duplicate_of", pa.string()), ("duplicate_distance", pa.float32())])
VIDEO_MARKS = pa.schema([("video_id", pa.string()), ("content_hash", pa.string()), ("duplicate_of", pa.string())])

#: Of copies of a file, that which came through best stands for the others.
_STANDING = {"ok": 0, "partial": 1, "failed": 2}


def check_threshold(threshold: Any) -> float:
    """A distance at which unit vectors may count as duplicates.

    Raises:
      ValueError: it is none.
    """
    is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool) and math.isfinite(threshold)
    if not is_number or not 0 < threshold < 2:
        raise ValueError(f"duplicates are told by a distance between unit vectors, above 0 and below 2: {threshold!r}")
    return float(threshold)


def ranks(clips: pa.Table) -> np.ndarray:
    """The place of each clip in the order in which clips stand for others: 0 goes before all.

    Args:
      clips: with the columns `RANKED`.
    """
    # Whole milliseconds: two runs agree in times to 1e-4 only.
    length_ms = pc.round(pc.multiply(clips["duration_s"], 1000.0))
    area = pc.multiply(clips["width"].cast(pa.int64()), clips["height"].cast(pa.int64()))
    keys = pa.table({"length": length_ms, "area": area, "clip_id": clips["clip_id"]})
    order = pc.sort_indices(keys, [("length", "descending"), ("area", "descending"), ("clip_id", "ascending")])
    places = np.empty(len(keys), np.int64)
    places[order.to_numpy()] = np.arange(len(keys))
    return places


def twins(labels: np.ndarray, places: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """The row that stands for each, -1 for those that stand themselves.

    >>> twins(np.array([0, 0, 0, 3]), np.array([2, 0, 1, 3]), np.array([7, 8, 8, 9])).tolist()
    [1, -1, -1, -1]
    """
    order = np.lexsort((places, labels))
    is_first = np.r_[True, np.diff(labels[order]) != 0] if len(order) else np.empty(0, bool)
    first = order[is_first]
    stands = np.empty(len(labels), np.int64)
    stands[order] = first[np.cumsum(is_first) - 1]
    return np.where(owners[stands] == owners, -1, stands)


def decide(clips: pa.Table, clusters: Clusters, rows: np.ndarray) -> pa.Table:
    """The duplicates among clips, with what stands for each, and how far that is: a table of the schema `MARKS`.

    Args:
      clips: with the columns `RANKED` and `video_id`. clusters: of their embeddings, joined.
      rows: where each clip stands in there.
    """
    videos = clips["video_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    found = twins(clusters.labels[rows], ranks(clips), videos)
    repeated = np.flatnonzero(found >= 0)
    distances = clusters.distances(rows[repeated], rows[found[repeated]])
    ids = clips["clip_id"].combine_chunks()
    columns = [ids.take(pa.array(repeated)), ids.take(pa.array(found[repeated])), pa.array(distances, pa.float32())]
    return pa.Table.from_arrays(columns, schema=MARKS)


@dataclasses.dataclass(frozen=True, slots=True)
class File:
    """A video's file, of which another one may be a copy."""

    video_id: str
    uri: str
    etag: str
    size_bytes: int
    status: str
    n_clips: int
    content_hash: str | None = None


def same_size(videos: Iterable[pa.RecordBatch]) -> list[File]:
    """The files that another one is as large as: no others can have a copy.

    Args:
      videos: batches with the columns of `File`, all of them the videos of one dataset.
    """
    table = pa.Table.from_batches(list(videos))
    counted = pc.value_counts(table["size_bytes"])
    several = counted.filter(pc.greater(counted.field("counts"), 1)).field("values")
    found = table.filter(pc.and_(pc.is_in(table["size_bytes"], several), pc.greater(table["size_bytes"], 0)))
    return [File(**row) for row in found.select([field.name for field in dataclasses.fields(File)]).to_pylist()]


def decide_videos(files: Iterable[File], digest_of: Callable[[File], str | None]) -> pa.Table:
    """The content of files that may have a copy, and whose copy each is: a table of the schema `VIDEO_MARKS`.

    Args:
      files: as `same_size` finds them. digest_of: of a file's content; None where it cannot be read any more.
    """
    digests: dict[str, str] = {}
    by_digest: dict[str, list[File]] = {}
    for file in files:
        digest = file.content_hash or digest_of(file)
        if digest is not None:
            digests[file.video_id] = digest
            by_digest.setdefault(digest, []).append(file)
    best = {digest: min(copies, key=_standing).video_id for digest, copies in by_digest.items()}
    rows = [
        {
            "video_id": video_id,
            "content_hash": digest,
            "duplicate_of": None if best[digest] == video_id else best[digest],
        }
        for video_id, digest in digests.items()
    ]
    return pa.Table.from_pylist(rows, schema=VIDEO_MARKS)


def _standing(file: File) -> tuple[int, int, str]:
    # As ids of clips are compared: a video's id and an underscore begin them.
    return _STANDING[file.status], -file.n_clips, f"{file.video_id}_"


def check_marks(rows: Mapping[str, Any], key: str, *, orderly: bool) -> list[str]:
    """What is wrong with the marks of a table, one plain sentence a breach.

    Args:
      rows: columns by name: `key` (clip_id or video_id), video_id and duplicate_of, of all rows that count.
      orderly: whether the last writer left in good order; until then a mark may name what was replaced meanwhile.
    """
    owners = dict(zip(rows[key], rows["video_id"], strict=True))
    marked = {one: other for one, other in zip(rows[key], rows["duplicate_of"], strict=True) if other is not None}
    breaches = []
    for one, other in marked.items():
        if other not in owners:
            if orderly:
                breaches.append(f"{one}: it is called a duplicate of {other}, which does not stand")
        elif owners[other] == owners[one]:
            breaches.append(f"{one}: it is called a duplicate of {other}, which is of the same video")
        elif other in marked:
            breaches.append(f"{one}: it is called a duplicate of {other}, which is one itself")
    return breaches
