"""A decoded frame and what is asked of it: its time, and its pixels in whatever form somebody looks at.

for picture in media.pictures(): small = picture.shrunk((256, 144))
"""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any

import numpy as np

from transforms import pixels


@dataclasses.dataclass(slots=True)
class Picture:
    """One decoded frame. Whoever keeps it keeps `nbytes` of memory; its pixels are converted when they are asked for.

    `index` counts decoded frames; `time_s` is its presentation time, always later than the frame's before;
    `since_start` is its time stamp counted from the stream's start, exact, None where the file has none.
    """

    index: int
    time_s: float
    duration_s: float
    since_start: Fraction | None
    nbytes: int
    _frame: Any
    _turns: int

    @property
    def size(self) -> pixels.Size:
        """(width, height) as stored, upright."""
        return pixels.size_of(self._frame, self._turns)

    @property
    def is_turned(self) -> bool:
        """Whether its stored width is its height when it is upright."""
        return bool(self._turns % 2)

    def encodable(self, size: pixels.Size) -> Any:
        """The picture as a frame that any encoder takes: upright, at `size` (even), 8 bits, 4:2:0."""
        return pixels.encodable(self._frame, self._turns, size)

    def bgr(self) -> np.ndarray:
        """The picture upright, in its stored size: uint8, (height, width, 3), as OpenCV's reader gives it."""
        return pixels.bgr(self._frame, self._turns)

    def shrunk(self, size: pixels.Size) -> np.ndarray:
        """`bgr()` resized as OpenCV's linear interpolation does it, bit for bit."""
        return pixels.shrunk_bgr(self._frame, self._turns, size)

    def scaled_rgb(self, size: pixels.Size) -> np.ndarray:
        """The picture as ffmpeg would scale it: uint8 RGB, (height, width, 3)."""
        return pixels.scaled_rgb(self._frame, self._turns, size)

    def planes(self, size: pixels.Size) -> pixels.Planes:
        """The picture at `size`, ready to become a JPEG file."""
        return pixels.planes(self._frame, self._turns, size)
