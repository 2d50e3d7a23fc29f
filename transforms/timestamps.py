"""When a frame is shown, from the two time stamps that it bears.

clock = Clock()
times = [clock.guess(frame.pts, frame.dts) for frame in frames]
"""

from __future__ import annotations

import math


class Clock:
    """ffmpeg's own guess at when a frame is shown (its `guess_correct_pts`; what `ffprobe -show_frames` tells).

    AVI keeps decoding times alone, and the demuxer makes the others up: once these have stood out of order more often
    than the decoding times have, the latter count.
    """

    def __init__(self) -> None:
        self._last_shown = self._last_decoded = -math.inf
        self._faulty_shown = self._faulty_decoded = 0

    def guess(self, shown: int | None, decoded: int | None) -> int | None:
        """When the next frame is shown, given its two time stamps."""
        if decoded is not None:
            self._faulty_decoded += decoded <= self._last_decoded
            self._last_decoded = decoded
        elif shown is not None:
            self._last_decoded = shown
        if shown is not None:
            self._faulty_shown += shown <= self._last_shown
            self._last_shown = shown
        elif decoded is not None:
            self._last_shown = decoded
        trusted = self._faulty_shown <= self._faulty_decoded or decoded is None
        return shown if trusted and shown is not None else decoded
