"""The frames of a clip, out of its reel: the random middle one of the image teachers, or uniform ones.

seen = clip_frames(clip, 8)          # .frames, uint8 RGB (height, width, 3), and .times in seconds
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import os
import threading
from collections.abc import Hashable, Sequence
from typing import Any, TypeVar

import numpy as np

from transforms.records import Clip
from transforms.reel import Reel, ReelError, local_reel

FrameT = TypeVar("FrameT")

REELS_HELD_OPEN = 16
#: The middle of a clip, of which the image teachers see one frame (section 3.2: 30-70 %).
MIDDLE = (0.3, 0.7)


class Recent:
    """A bounded memory of the most recently used entries, safe between threads."""

    def __init__(self, capacity: int):
        self._capacity = capacity
        self._kept: collections.OrderedDict[Hashable, Any] = collections.OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Any | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: Hashable, value: Any) -> None:
        with self._lock:
            self._kept[key] = value
            self._kept.move_to_end(key)
            while len(self._kept) > self._capacity:
                self._kept.popitem(last=False)

    def __len__(self) -> int:
        return len(self._kept)


class OpenReel:
    """A reel with the key that its frames are remembered under, and a lock, as its reader serves one thread at a time.

    The key holds the file's identity beside its etag and settings: a reel that was written anew is another reel.
    """

    def __init__(self, path: str, identity: tuple[int, int, int]):
        self._reel = Reel.open(path)
        self.key = (path, self._reel.etag, self._reel.settings, *identity)
        self._lock = threading.Lock()

    def frames(self, rows: Sequence[int]) -> list[np.ndarray]:
        with self._lock:
            return self._reel.frames(rows)

    def jpegs(self, rows: Sequence[int]) -> list[bytes]:
        with self._lock:
            return self._reel.jpegs(rows)

    @property
    def times(self) -> list[float]:
        return self._reel.times

    @property
    def shots(self) -> list[int]:
        return self._reel.shots

    def nearest(self, time_s: float) -> int:
        return self._reel.nearest(time_s)

    def within(self, start_s: float, end_s: float) -> list[int]:
        return self._reel.within(start_s, end_s)

    def uniform(self, start_s: float, end_s: float, count: int) -> list[int]:
        return self._reel.uniform(start_s, end_s, count)


_reels = Recent(REELS_HELD_OPEN)


def open_reel(path: str) -> OpenReel:
    """The reel at `path`, kept open for the clips and teachers that follow.

    Raises:
      ReelError: it is missing or unreadable.
    """
    file, path = local_reel(path)
    try:
        found = os.stat(file)
    except OSError as error:
        raise ReelError(f"no readable reel at {path}: {error}") from error
    identity = (found.st_ino, found.st_size, found.st_mtime_ns)
    reel = _reels.get((path, identity))
    if reel is None:
        reel = OpenReel(path, identity)
        _reels.put((path, identity), reel)
    return reel


@dataclasses.dataclass(frozen=True)
class ClipFrames:
    """Some frames of a clip, in time order.

    frames: uint8 RGB, (height, width, 3) each. times: of presentation, in seconds from the start of the clip.
    """

    frames: list[np.ndarray]
    times: list[float]


def clip_frames(clip: Clip, count: int) -> ClipFrames:
    """Uniform frames of the clip, fewer where its reel has fewer; of one frame, a random one of its middle.

    Raises:
      ReelError: its reel is missing or unreadable.
    """
    reel = open_reel(clip.reel)
    rows = clip_rows(reel, clip, count)
    # The frame nearest to a clip without any may lie outside it.
    times = [min(max(reel.times[row] - clip.span.start_s, 0.0), clip.span.duration_s) for row in rows]
    return ClipFrames(reel.frames(rows), times)


def exactly(frames: Sequence[FrameT], count: int) -> list[FrameT]:
    """`count` of the frames in order, evenly: repeated where there are fewer, left out where there are more.

    exactly("abc", 8) == list("aaabbbcc")
    """
    return [frames[place * len(frames) // count] for place in range(count)]


def clip_rows(reel: OpenReel, clip: Clip, count: int) -> list[int]:
    """The reel's rows of `clip_frames`."""
    if count == 1:
        return [random_middle_row(reel, clip)]
    return reel.uniform(clip.span.start_s, clip.span.end_s, count)


def random_middle_row(reel: OpenReel, clip: Clip) -> int:
    """One of the reel's rows in the middle of the clip, drawn by the clip's id, so that a retry draws the same."""
    low, high = (clip.span.start_s + part * clip.span.duration_s for part in MIDDLE)
    rows = reel.within(low, high)
    draw = int.from_bytes(hashlib.sha256(clip.clip_id.encode()).digest()[:8], "big")
    return rows[draw % len(rows)]
