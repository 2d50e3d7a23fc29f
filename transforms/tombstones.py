"""Videos that were taken down: which, so that nobody ingests them again, and which files are theirs.

    found = without_taken_down(find_sources(inputs), "out")

The tombstone of a video is the record of its takedown, `runs/takedown-*.json`; it holds from the moment it is written.
To lift it, delete the record.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from transforms.files import Directory, join, list_files, name_of, read
from transforms.sources import Source, video_id_of

if TYPE_CHECKING:
    from transforms.reading import Found  # Needs Beam, and who audits a dataset may not have it.

#: How the name of a takedown's record begins; no other run's does.
PREFIX = "takedown-"

_SPAN = re.compile(r"(.+)-\d+-\d+")


class TombstoneError(ValueError):
    """The record of a takedown that can't be read, so that nobody knows what must not be ingested."""


@dataclasses.dataclass(frozen=True, slots=True)
class Tombstone:
    """The record of one takedown.

    Attributes:
      finished: whether all that came of its videos is gone. videos: their ids.
      sources: digests of their URIs, by which a source is known that comes back under another id.
    """

    run_id: str
    finished: bool
    videos: frozenset[str]
    sources: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> Tombstone:
        """Read a record; a missing key raises a `KeyError`, a value of another type a `TypeError`."""
        videos, sources = record["videos"], record.get("sources", [])
        if not isinstance(videos, list) or not isinstance(sources, list):
            raise TypeError("its videos and sources must be lists")
        return cls(
            run_id=str(record["run_id"]),
            finished=record["status"] == "done",
            videos=frozenset(map(str, videos)),
            sources=frozenset(map(str, sources)),
        )


def read_tombstones(dataset_dir: Directory) -> list[Tombstone]:
    """All tombstones, the oldest first; none where there is no dataset.

    Raises:
      TombstoneError: one can't be read.
    """
    return [Tombstone.parse(record) for record in _records(dataset_dir)]


def _records(dataset_dir: Directory) -> Iterator[Mapping[str, Any]]:
    for path in list_files(join(dataset_dir, "runs")):
        if not re.fullmatch(rf"{PREFIX}.*\.json", name_of(path)):
            continue
        try:
            record = json.loads(read(path))
            Tombstone.parse(record)
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise TombstoneError(
                f"the takedown {path} can't be read ({type(error).__name__}: {error}); "
                "mend it, or delete it to let its videos in again"
            ) from error
        yield record


def taken_down(dataset_dir: Directory) -> frozenset[str]:
    """The video_ids that must not be ingested.

    Raises:
      TombstoneError: a record of a takedown can't be read.
    """
    return frozenset().union(*(stone.videos for stone in read_tombstones(dataset_dir)))


def source_digest(uri: str) -> str:
    """What a tombstone keeps of a URI: the digest that ends the id which is derived from it."""
    return video_id_of(uri).rpartition("-")[2]


def barred(dataset_dir: Directory) -> Callable[[Source], bool]:
    """Whether a source was taken down, by its id or by its URI under another id, as the tombstones say by now.

    Raises:
      TombstoneError: a record of a takedown can't be read.
    """
    stones = read_tombstones(dataset_dir)
    videos = frozenset().union(*(stone.videos for stone in stones))
    digests = frozenset().union(*(stone.sources for stone in stones))
    return lambda source: source.video_id in videos or source_digest(source.uri) in digests


def without_taken_down(found: Found, dataset_dir: Directory) -> Found:
    """Leave out the sources that were taken down, and count them as skipped.

    Raises:
      TombstoneError: a record of a takedown can't be read.
    """
    is_barred = barred(dataset_dir)
    kept = tuple(source for source in found.sources if not is_barred(source))
    return dataclasses.replace(found, sources=kept, skipped=found.skipped + len(found.sources) - len(kept))


def files_of(
    dataset_dir: Directory, video_ids: Iterable[str], clips: Mapping[str, str] | None = None
) -> dict[str, dict[str, str]]:
    """The files beside the tables that came of these videos: for `reels`, `speech` and `media`, the video_id by path.

    A file is its video's or clip's by its name up to the first dot, which no id has; what a killed process had begun
    to write has a dot before that.

    Args:
      clips: the video_id by clip_id, where rows tell it; else a clip is known by the form of its id.
    """
    videos = {video_id: video_id for video_id in video_ids}
    beginnings = {one: video_id for video_id in videos for one in _clip_beginnings(video_id)}
    found: dict[str, dict[str, str]] = {"reels": {}, "speech": {}, "media": {}}
    for folder, owners in (("reels", videos), ("speech", videos), ("media", clips or {})):
        for path in list_files(join(dataset_dir, folder), below=True):
            name = name_of(path).lstrip(".").partition(".")[0]
            span = _SPAN.fullmatch(name) if folder == "media" else None
            owner = owners.get(name) or (beginnings.get(span[1]) if span else None)
            if owner is not None:
                found[folder][path] = owner
    return found


def _clip_beginnings(video_id: str) -> tuple[str, str]:
    """What stands before the span in the clip_ids of a video (see `stitching.clip_id`): of a long id only a part."""
    return video_id, video_id[:64] + hashlib.sha256(video_id.encode()).hexdigest()[:16]
