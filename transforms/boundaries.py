"""Shots as they become certain, and the few pictures of each that go into the reel.

    window = ShotWindow(config, fps, detector.delay_s)
    window.add(picture, bgr); window.cut_at(cuts); window.score(scores)
    for piece in window.settled(): ...

A detector reports a cut some frames late, and the 95 % frame of a shot is known only when it ends. Long shots are cut
into slices, though, so that all that is undecided lies in the last few seconds. Of these it keeps small pictures:
all of the very last ones, and before that just those that can still be chosen, thinned by doubling their stride.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from transforms.detection import SplittingConfig
from transforms.records import Shot
from transforms.reel import ReelFrame

#: Raw pictures held at once; older ones are held as JPEG files.
_RAW_BYTES = 160 << 20
#: Pictures from so far back are thinned out, however late a detector may be (a header with an absurd frame rate).
_MAX_DELAY_S = 5.0
#: How far time stamps of one steady rate may stray, in frames: containers round them, Matroska to milliseconds.
_JITTER = 0.25
#: A shot whose frames stay this near to an even rhythm is measured by counting them, another by the clock.
_STEADY = 1.0


@dataclasses.dataclass(frozen=True)
class Piece:
    """A shot that nothing can change any more, with its reel frames in time order."""

    shot: Shot
    frames: list[ReelFrame]


class _Still:
    """A small picture that may go into the reel: raw at first, a JPEG file when it has to wait for long."""

    def __init__(self, pixels: np.ndarray, quality: int):
        self._pixels: np.ndarray | None = pixels
        self._quality = quality
        self._jpeg = b""

    @property
    def raw_bytes(self) -> int:
        return 0 if self._pixels is None else self._pixels.nbytes

    def jpeg(self) -> bytes:
        if self._pixels is not None:
            written, encoded = cv2.imencode(".jpg", self._pixels, [cv2.IMWRITE_JPEG_QUALITY, self._quality])
            if not written:
                raise ValueError("OpenCV could not encode a picture as JPEG")
            self._jpeg, self._pixels = encoded.tobytes(), None
        return self._jpeg


class ShotWindow:
    """The end of a video that is not decided yet.

    Args:
      fps: frames a second, for counting slices. delay_s: how late a cut may be reported.
    """

    def __init__(self, config: SplittingConfig, fps: float, delay_s: float):
        self._config = config
        self._fps = fps
        self._delay_s = delay_s
        self._slice_s = max(1, int(config.slice_s * fps)) / fps
        self._start = 0  # the decode index at which the undecided begins; always the start of a shot or slice
        self._times: list[float] = []  # of every frame from there on
        self._scores: list[float] = []
        self._cuts: list[int] = []
        self._stills: dict[int, _Still] = {}
        self._stride = 1
        self._size: tuple[int, int] | None = None
        self._shots = 0
        # Below are the reasons to keep a picture that is not among the very last.
        self._zone_s = config.first_fraction * config.max_shot_s + 2 / fps
        tail_s = (1 - config.last_fraction) * config.max_shot_s
        self._recent_s = min(delay_s, _MAX_DELAY_S) + tail_s + 4 / fps
        # What is left when slices came off is longer than this; it, too, shall have all its reel frames.
        shortest_s = max(config.max_shot_s - config.slice_s, self._recent_s)
        wanted = max(config.reel_min_frames, config.reel_fps * config.slice_s)
        span_s = config.max_shot_s + self._recent_s
        self._most = min(512, 2 * math.ceil(wanted * span_s / min(shortest_s, config.slice_s)))

    def add(self, index: int, time_s: float, bgr: np.ndarray, size: tuple[int, int]) -> None:
        """Take the next picture; `size` is (width, height) as displayed."""
        self._times.append(time_s)
        self._scores.append(0.0)
        self._stills[index] = _Still(_shrink(bgr, size, self._config.reel_short_side_px), self._config.jpeg_quality)
        self._thin(time_s)

    def score(self, scores: Iterable[tuple[int, float]]) -> None:
        """Note the detector's value of frames that are still here."""
        for index, value in scores:
            if 0 <= index - self._start < len(self._scores):
                self._scores[index - self._start] = value

    def cut_at(self, cuts: Iterable[int]) -> None:
        """Note frames at which a new shot begins."""
        self._cuts = sorted({*self._cuts, *(cut for cut in cuts if cut > self._start)})

    def settled(self, end_s: float | None = None) -> Iterator[Piece]:
        """Yield the shots and slices that are certain by now; with `end_s`, where the video ends, all that is left."""
        while self._times:
            if self._cuts:
                until, until_s = self._cuts[0], self._times[self._cuts[0] - self._start]
            elif end_s is not None:
                until, until_s = self._start + len(self._times), end_s
            else:
                # The shot goes on at least to the last frame at which no cut can be reported any more.
                until = self._start + bisect.bisect_right(self._times, self._times[-1] - self._delay_s) - 3
                if until <= self._start:
                    return
                until_s = self._times[until - self._start]
            at = self._slice_end(until, until_s)
            if at is not None:
                yield self._take(at, self._times[at - self._start])
            elif self._cuts or end_s is not None:
                yield self._take(until, until_s)
            else:
                return

    def _slice_end(self, until: int, until_s: float) -> int | None:
        """Where the next slice of a shot that reaches `until` ends; None if it is short enough."""
        first_s, slack_s = self._times[0], _JITTER / self._fps
        if until_s - first_s <= self._config.max_shot_s + slack_s:
            return None
        at = self._start + max(1, bisect.bisect_left(self._times, first_s + self._slice_s - slack_s))
        return at if at < until else None

    def _take(self, end: int, end_s: float) -> Piece:
        """Take the shot [start, end) out of the window."""
        start, length = self._start, end - self._start
        times, scores = self._times[:length], self._scores[:length]
        kept = sorted(index for index in self._stills if index < end)
        first, last = (
            _nearest(kept, start + _place(times, end_s, fraction, self._fps))
            for fraction in (self._config.first_fraction, self._config.last_fraction)
        )
        chosen = sorted({start, first, last, *self._spread(kept, times, end_s)})
        shot = Shot(self._shots, start, end, times[0], end_s, times[first - start], times[last - start])
        frames = []
        for index, following in itertools.pairwise([*chosen, end]):
            part = slice(index - start, following - start)
            values = (tuple(times[part]), tuple(scores[part]))
            frames.append(ReelFrame(times[part][0], index, shot.index, self._stills[index].jpeg(), *values))
        for index in kept:
            del self._stills[index]
        self._start, self._shots = end, self._shots + 1
        del self._times[:length], self._scores[:length]
        self._cuts = [cut for cut in self._cuts if cut > end]
        if len(self._stills) == len(self._times):
            self._stride = 1
        return Piece(shot, frames)

    def _spread(self, kept: list[int], times: list[float], end_s: float) -> list[int]:
        """Pictures at even distances in time: as many as the settings ask for, or all there are."""
        duration_s = end_s - times[0]
        wanted = max(self._config.reel_min_frames, math.ceil(self._config.reel_fps * duration_s - 1e-6))
        if len(kept) <= wanted:
            return kept
        kept_s = [times[index - self._start] for index in kept]
        free = set(range(len(kept)))
        for part in range(wanted):
            target_s = times[0] + part * duration_s / wanted
            at = bisect.bisect_left(kept_s, target_s)
            near = [i for i in range(max(0, at - 3), min(len(kept), at + 3)) if i in free] or sorted(free)
            free.discard(min(near, key=lambda i: abs(kept_s[i] - target_s)))
        return [index for i, index in enumerate(kept) if i not in free]

    def _thin(self, now_s: float) -> None:
        """Drop pictures that can no longer be chosen; hold what waits for long as JPEG files."""
        oldest = self._start + bisect.bisect_left(self._times, now_s - self._recent_s)
        optional = [index for index in self._stills if index < oldest and not self._may_bound(index)]
        kept = [index for index in optional if index % self._stride == 0]
        while len(kept) > self._most:
            self._stride *= 2
            kept = [index for index in kept if index % self._stride == 0]
        for index in set(optional).difference(kept):
            del self._stills[index]
        raw = sum(still.raw_bytes for still in self._stills.values())
        for still in self._stills.values():
            if raw <= _RAW_BYTES:
                break
            raw -= still.raw_bytes
            still.jpeg()

    def _may_bound(self, index: int) -> bool:
        """Whether the picture may become the first, the 5 % or the 95 % frame of a shot or slice that begins here."""
        into_s = (self._times[index - self._start] - self._times[0]) % self._slice_s
        frame_s = 1 / self._fps
        if into_s <= self._zone_s or into_s >= self._slice_s - frame_s:
            return True
        return abs(into_s - self._config.last_fraction * self._slice_s) <= 2 * frame_s


def _place(times: list[float], end_s: float, fraction: float, fps: float) -> int:
    """Which of the frames at `times` stands at `fraction` of them: by count at a steady rate, else by time."""
    length = len(times)
    steady = all(abs((time_s - times[0]) * fps - number) <= _STEADY for number, time_s in enumerate(times))
    if steady:
        return min(int(fraction * length), length - 1)
    return max(0, bisect.bisect_right(times, times[0] + fraction * (end_s - times[0]) + 1e-6) - 1)


def _nearest(ordered: list[int], wanted: int) -> int:
    at = bisect.bisect_left(ordered, wanted)
    return min(ordered[max(0, at - 1) : at + 1], key=lambda index: abs(index - wanted))


def _shrink(bgr: np.ndarray, size: tuple[int, int], short_side_px: int) -> np.ndarray:
    """The picture in its displayed shape, its short side at most `short_side_px`, the long one at most 4 times that."""
    width, height = size
    scale = min(1.0, short_side_px / min(width, height), 4 * short_side_px / max(width, height))
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    # Averaging by a whole factor, then interpolating the rest, costs a tenth of averaging by a broken one.
    factor = min(bgr.shape[1] // small[0], bgr.shape[0] // small[1])
    if factor > 1:
        height, width = bgr.shape[0] // factor, bgr.shape[1] // factor
        bgr = cv2.resize(bgr[: height * factor, : width * factor], (width, height), interpolation=cv2.INTER_AREA)
    if small == (bgr.shape[1], bgr.shape[0]):
        return bgr
    return cv2.resize(bgr, small, interpolation=cv2.INTER_LINEAR)
