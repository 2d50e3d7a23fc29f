"""The pictures that go along with an exported clip: its own file where it has one, else frames out of the reel.

found = Pictures("out", frames=8).of_source("holiday-23e39a1fb50c", etag); found.frames(1.5, 9.0)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from transforms.clip_places import path_of
from transforms.files import Directory, read
from transforms.reel import Reel, ReelError
from transforms.reels import readable_reel


class Pictures:
    """Finds the pictures of a dataset's clips.

    Args:
      frames: how many to take of a clip that has no file; 0 for none.
    """

    def __init__(self, dataset_dir: Directory, frames: int):
        self._dataset_dir, self._frames = dataset_dir, frames

    def of_source(self, video_id: str, etag: str) -> SourcePictures:
        """The pictures of one source.

        Args:
          etag: of the version that is committed; a reel of another one shows something else.
        """
        reel = readable_reel(self._dataset_dir, video_id) if self._frames else None
        return SourcePictures(self._dataset_dir, reel if reel and reel.etag == etag else None, self._frames)


class SourcePictures:
    """The pictures of one source's clips."""

    def __init__(self, dataset_dir: Directory, reel: Reel | None, count: int):
        self._dataset_dir, self._reel, self._count = dataset_dir, reel, count

    def file(self, row: Mapping[str, Any]) -> tuple[str, bytes] | None:
        """A clip's own file as (kind, contents); None where it has none, or it has gone."""
        path = path_of(self._dataset_dir, row)
        if path is None:
            return None
        try:
            return path.rpartition(".")[2], read(path)
        except FileNotFoundError:
            return None

    def frames(self, start_s: float, end_s: float) -> tuple[bytes, ...]:
        """JPEG files of up to as many frames as were asked for, evenly spread; none where there is no reel."""
        if self._reel is None:
            return ()
        try:
            return tuple(self._reel.jpegs(self._reel.uniform(start_s, end_s, self._count)))
        except (ReelError, pa.ArrowInvalid, OSError):
            return ()
