"""Mark the duplicates of a dataset: copies of videos by their content, clips that look the same by their embeddings.

    with WriterLease("out", owner=run_id):
        print(mark_duplicates("out", 0.2).describe())

A pass over what stands, between the commits of a run and the end of it: so two runs over the same videos agree,
whatever the order in which these came. What a killed pass left undone the next one does. Who marks again and again (a
watch) keeps one `Duplicates`, which looks only at what came and what went since.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_pipeline.runs import records_of
from transforms.by_source import place_of
from transforms.duplicates import (
    MARKS,
    RANKED,
    VIDEO_MARKS,
    File,
    check_marks,
    check_threshold,
    decide,
    decide_videos,
    same_size,
)
from transforms.files import Directory, reading
from transforms.lease import require_lease
from transforms.marking import change_columns, has_marks
from transforms.neighbours import Clusters
from transforms.objects import is_object, stat
from transforms.parquet_files import scan_files
from transforms.schemas import CLIPS
from transforms.sources import version_of
from transforms.tables import Snapshot

if TYPE_CHECKING:
    from beam_pipeline.config import Config
    from transforms.detection import SplittingConfig

#: Of a video's version and its fingerprint of the embeddings: are they of the embedder that the threshold is for?
IsComparable = Callable[[str, str], bool]

_READ_BYTES = 1 << 20
_FILE = [field.name for field in dataclasses.fields(File)]


@dataclasses.dataclass(frozen=True)
class Marked:
    """What a pass found, and how many rows it changed for that.

    Attributes:
      clips: that were compared. duplicate_clips: of them. clusters: those that have duplicates.
      hashed: files whose content was read. duplicate_videos: whose content another video's file has, too.
      changed: rows of `clips` and `videos` that say something else than before.
    """

    clips: int
    duplicate_clips: int
    clusters: int
    hashed: int
    duplicate_videos: int
    changed: int

    def describe(self) -> str:
        """The same as a line for people."""
        return (
            f"{self.duplicate_clips} of {self.clips} clips are duplicates, in {self.clusters} clusters; "
            f"{self.duplicate_videos} videos are copies"
        )


def mark_duplicates(dataset_dir: Directory, threshold: float, is_comparable: IsComparable | None = None) -> Marked:
    """Decide anew which clips and videos of a dataset are duplicates, and write it into their rows.

    This process must hold the writer's lease, and nothing may be committed meanwhile.

    Args:
      threshold: Euclidean distance between unit embeddings; it belongs to one embedder.
      is_comparable: of which videos the embeddings are that embedder's (see `made_by`); other clips are duplicates of
        none. None: of all.

    Raises:
      ValueError: the threshold is none. NoDataset: there is none.
      LeaseLost: this process does not hold the lease, or not any more.
    """
    marker = Duplicates(dataset_dir, threshold)
    try:
        return marker.mark(is_comparable)
    finally:
        marker.close()


@functools.lru_cache(maxsize=1)
def duplicates_of(dataset_dir: str, threshold: float, embedder: tuple[str, ...]) -> Duplicates:
    """One for all passes of this process over a dataset with an embedder, by its identity."""
    return Duplicates(dataset_dir, threshold)


def made_by(config: Config, dataset_dir: Directory) -> IsComparable:
    """Tell whether a video's embeddings are those of this configuration's embedder.

    Fingerprints tell no embedder's name, so they are made anew for each way of cutting videos that a run was given.
    """
    from beam_pipeline.config import fingerprint  # All that makes models, which a pass needs nothing of.

    cutting = {json.dumps([dataclasses.asdict(config.splitting), dataclasses.asdict(config.stitching)], sort_keys=True)}
    for _, record in records_of(dataset_dir):
        recorded = record.get("config") or {}
        if recorded.get("embedder") == config.embedder.name:
            cutting.add(json.dumps([recorded.get("splitting"), recorded.get("stitching")], sort_keys=True))
    ways = [(split.fingerprint(), stitching) for split, stitching in map(_way, sorted(cutting)) if split]

    def is_comparable(etag: str, embedded: str) -> bool:
        identity = config.embedder.identity
        return any(fingerprint(fingerprint(etag, split), identity, rules) == embedded for split, rules in ways)

    return is_comparable


def _way(written: str) -> tuple[SplittingConfig | None, Any]:
    from transforms.detection import SplittingConfig

    splitting, stitching = json.loads(written)
    try:
        return SplittingConfig(**splitting), stitching
    except (TypeError, ValueError):
        return None, None  # Another version's, whose fingerprints nobody can make any more.


class Duplicates:
    """Marks the duplicates of one dataset again and again; what it compared once it need not compare again.

    Its memory is some 500 bytes a clip; the embeddings themselves wait on the disk (`TMPDIR`).
    """

    def __init__(self, dataset_dir: Directory, threshold: float):
        self._dir, self._threshold = dataset_dir, check_threshold(threshold)
        self._clusters = Clusters(self._threshold)
        #: Of each row of the clusters the "clip_id run_id"; null when that is gone.
        self._known = pa.array([], pa.string())

    def close(self) -> None:
        """Give the disk back what waits there."""
        self._clusters.close()

    def mark(self, is_comparable: IsComparable | None = None) -> Marked:
        """Decide and write, as `mark_duplicates` does."""
        require_lease(self._dir)
        snapshot = Snapshot.open(self._dir)
        clips, rows = self._compare(snapshot, is_comparable)
        marks = decide(clips, self._clusters, rows)
        hashed = 0

        def digest_of(file: File) -> str | None:
            nonlocal hashed
            hashed += 1
            return content_hash(file)

        copies = decide_videos(same_size(snapshot.scan("videos", _FILE)), digest_of)
        changed = change_columns(self._dir, "clips", marks) + change_columns(self._dir, "videos", copies)
        return Marked(
            clips=len(clips),
            duplicate_clips=len(marks),
            clusters=len(pc.unique(marks["duplicate_of"])),
            hashed=hashed,
            duplicate_videos=len(copies) - copies["duplicate_of"].null_count,
            changed=changed,
        )

    def _compare(self, snapshot: Snapshot, is_comparable: IsComparable | None) -> tuple[pa.Table, np.ndarray]:
        """The clips that can be compared, and where each stands in the clusters, which are joined."""
        clips = _comparable(snapshot, is_comparable)
        keys = _keys(clips)
        gone = pc.and_not(pc.is_valid(self._known), pc.is_in(self._known, keys))
        if 2 * (gone.true_count + self._known.null_count) > len(self._known):
            # What is gone keeps its place: begin anew rather than carry it along.
            self.close()
            self._clusters, self._known = Clusters(self._threshold), pa.array([], pa.string())
        elif gone.true_count:
            self._clusters.remove(np.flatnonzero(gone.to_numpy(zero_copy_only=False)))
            self._known = pc.if_else(gone, pa.scalar(None, pa.string()), self._known)
        self._add(snapshot, keys.filter(pc.invert(pc.is_in(keys, self._known))))
        self._clusters.join()
        return clips, pc.index_in(keys, self._known).to_numpy(zero_copy_only=False).astype(np.int64)

    def _add(self, snapshot: Snapshot, news: pa.Array) -> None:
        """Read the embeddings of clips that are new, from those files alone that hold some."""
        ids = ["clip_id", "video_id", "run_id"]
        for uri in snapshot.files["clips"]:
            if not any(pc.any(pc.is_in(_keys(batch), news)).as_py() for batch in scan_files([uri], CLIPS, ids)):
                continue
            for batch in scan_files([uri], CLIPS, [*ids, "embedding"]):
                found = batch.filter(pc.is_in(_keys(batch), news))
                if found.num_rows:
                    self._clusters.add(_vectors(found.column("embedding")), _owners(found.column("video_id")))
                    self._known = pa.concat_arrays([self._known, _keys(found)])


def _comparable(snapshot: Snapshot, is_comparable: IsComparable | None) -> pa.Table:
    """The clips of videos whose embeddings may be compared, with what their rank depends on."""
    clips = snapshot.read("clips", ["run_id", "video_id", *RANKED])
    if is_comparable is None:
        return clips
    chosen: list[str] = []
    for batch in snapshot.scan("videos", ["video_id", "etag", "fingerprints"]):
        embedded = pc.struct_field(batch.column("fingerprints"), "embed").to_pylist()
        about = zip(batch["video_id"].to_pylist(), batch["etag"].to_pylist(), embedded, strict=True)
        chosen += [video_id for video_id, etag, made_with in about if is_comparable(etag, made_with)]
    return clips.filter(pc.is_in(clips["video_id"], pa.array(chosen, pa.string())))


def _keys(rows: pa.Table | pa.RecordBatch) -> pa.Array:
    """One "clip_id run_id" a row: a row that was written anew may have another embedding."""
    keys = pc.binary_join_element_wise(rows.column("clip_id"), rows.column("run_id"), " ")
    return keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys


def _vectors(embeddings: pa.Array) -> np.ndarray:
    lengths = pc.unique(pc.list_value_length(embeddings)).to_pylist()
    if len(lengths) != 1:
        raise ValueError(f"embeddings of {' and '.join(map(str, lengths))} numbers cannot be compared")
    return embeddings.flatten().to_numpy(zero_copy_only=False).reshape(-1, lengths[0])


def _owners(video_ids: pa.Array) -> np.ndarray:
    """A number a video, the same whenever it is asked for."""
    encoded = video_ids.dictionary_encode()
    places = np.array([place_of("", one) for one in encoded.dictionary.to_pylist()], np.uint64).view(np.int64)
    return places[encoded.indices.to_numpy()]


def content_hash(file: File) -> str | None:
    """The SHA-256 of a file's bytes; None where it is gone, of another version by now, or cannot be read."""
    if _version(file.uri) != file.etag:
        return None
    digest = hashlib.sha256()
    try:
        with reading(file.uri) as opened:
            while part := opened.read(_READ_BYTES):
                digest.update(part)
    except (OSError, ValueError):
        return None
    return digest.hexdigest() if _version(file.uri) == file.etag else None


def _version(uri: str) -> str | None:
    if not is_object(uri):
        return version_of(uri)[0]
    try:
        found = stat(uri)
    except OSError:
        return None
    return found.generation if found else None


def clear_marks(dataset_dir: Directory) -> int:
    """Clear the marks that name what does not stand any more. Returns how many rows changed.

    For a takedown, and for a run that is not to look for duplicates: what a mark named may be gone or made anew. Costs
    a look at the files' footers where nothing is marked. This process must hold the writer's lease.
    """
    snapshot, changed = Snapshot.open(dataset_dir), 0
    for name, schema in (("clips", MARKS), ("videos", VIDEO_MARKS)):
        if any(has_marks(uri, schema.names[1:]) for uri in snapshot.files[name]):
            columns = list(dict.fromkeys([*schema.names, "video_id"]))
            changed += change_columns(dataset_dir, name, valid_marks(snapshot.read(name, columns), schema))
    return changed


def valid_marks(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The marks that hold, of rows with the columns of the schema and `video_id`.

    A duplicate of what is gone, of a clip of its own video or of another duplicate is marked no more; the next pass
    looks for what stands for it now.
    """
    key = schema.names[0]
    marked = rows.filter(pc.is_valid(rows["duplicate_of"]))
    at = pc.index_in(marked["duplicate_of"], rows[key])
    stands = rows.take(at)
    others = pc.not_equal(stands["video_id"], marked["video_id"])
    holds = pc.fill_null(pc.and_(others, pc.is_null(stands["duplicate_of"])), False)
    holds = pc.and_(holds, pc.is_valid(at))
    kept = marked.filter(holds).select(schema.names)
    if "content_hash" not in schema.names:
        return kept.cast(schema)
    hashed = rows.filter(pc.is_valid(rows["content_hash"]))
    copied_of = kept["duplicate_of"].take(pc.index_in(hashed["video_id"], kept["video_id"]))
    return pa.Table.from_arrays([hashed["video_id"], hashed["content_hash"], copied_of], schema=schema)


def check_duplicates(snapshot: Snapshot, counts: collections.Counter[str], *, orderly: bool) -> Iterator[str]:
    """The part of the audit that looks at duplicates: each names one that stands, of another video.

    Args:
      counts: gets "duplicate_clips" and "duplicate_videos".
      orderly: whether the last writer left in good order; else a mark may name what was replaced since.
    """
    for name, key in (("clips", "clip_id"), ("videos", "video_id")):
        rows = snapshot.read(name, list(dict.fromkeys([key, "video_id", "duplicate_of"])))
        counts[f"duplicate_{name}"] = len(rows) - rows["duplicate_of"].null_count
        yield from check_marks(rows.to_pydict(), key, orderly=orderly)
