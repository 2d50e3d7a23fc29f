"""Shots as they become certain, and the few pictures of each that go into the reel.

    window = ShotWindow(config, fps, detector.delay_s, detector.delay_frames)
    window.add(picture, displayed_size); window.cut_at(cuts); window.score(scores)
    for piece in window.settled(): ...

A detector reports a cut some frames late, and the 95 % frame of a shot is known only when it ends. Long shots are cut
into slices, though, so that all that is undecided lies in the last few seconds. Of these it keeps pictures: all of the
very last ones, and before that just those that can still be chosen, on a grid in time that gets coarser by doubling.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator

from transforms.detection import SplittingConfig
from transforms.media import Picture
from transforms.pixels import Size
from transforms.records import Shot
from transforms.reel import ReelFrame
from transforms.stills import Still, Stills

#: Pictures from so far back are thinned out, however late a detector may be (a header with an absurd frame rate).
_MAX_DELAY_S = 5.0
#: How far time stamps of one steady rate may stray, in frames: containers round them, Matroska to milliseconds.
_JITTER = 0.25
#: A shot whose frames stay this near to an even rhythm is measured by counting them, another by the clock.
_STEADY = 1.0


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A picture that goes into the reel, not encoded yet; see `ReelFrame`."""

    time_s: float
    frame: int
    shot: int
    still: Still
    stat_times: tuple[float, ...]
    stat_scores: tuple[float, ...]

    def encoded(self) -> ReelFrame:
        """The reel's row; this is the work of a millisecond or two, and may be done by another thread."""
        return ReelFrame(self.time_s, self.frame, self.shot, self.still.jpeg(), self.stat_times, self.stat_scores)


@dataclasses.dataclass(frozen=True)
class Piece:
    """A shot that nothing can change any more, with its reel frames in time order."""

    shot: Shot
    frames: list[Chosen]


class ShotWindow:
    """The end of a video that is not decided yet.

    Args:
      fps: frames a second, for counting slices.
      delay_s, delay_frames: how late a cut may be reported.
    """

    def __init__(self, config: SplittingConfig, fps: float, delay_s: float, delay_frames: int = 2):
        self._config = config
        self._fps = fps
        self._delay_s, self._delay_frames = delay_s, delay_frames
        self._slice_s = max(1, int(config.slice_s * fps)) / fps
        self._start = 0  # the decode index at which the undecided begins; always the start of a shot or slice
        self._times: list[float] = []  # of every frame from there on
        self._scores: list[float] = []
        self._cuts: list[int] = []
        self._shots = 0
        self._stills = Stills(config.reel_short_side_px, config.jpeg_quality)
        self._recent = 0  # the decode index from which on all pictures are kept
        self._bounding: list[int] = []  # before it: those that may become a boundary frame
        self._others: list[int] = []  # and those that may fill the reel between
        # Reasons to keep a picture that is not among the very last.
        self._zone_s = config.first_fraction * config.max_shot_s + 2 / fps
        self._tail_s = (1 - config.last_fraction) * config.max_shot_s + 4 / fps
        # What is left when slices came off is longer than this; it, too, shall have all its reel frames.
        self._shortest_s = max(config.max_shot_s - config.slice_s, self._tail_s)
        self._grid_s = 0.0

    def add(self, picture: Picture, size: Size) -> None:
        """Take the next picture; `size` is (width, height) as displayed."""
        self._times.append(picture.time_s)
        self._scores.append(0.0)
        self._stills.add(picture, size)
        self._thin()

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
                shown = bisect.bisect_right(self._times, self._times[-1] - self._delay_s)
                until = self._start + shown - 1 - self._delay_frames
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
        # A steady rate is counted: seven seconds and a fifth of a frame are too long, rounded time stamps are not.
        frames = (until_s - first_s) * self._fps
        counted = round(frames) if abs(round(frames) - frames) <= _JITTER else frames
        if counted / self._fps <= self._config.max_shot_s + 1e-9:
            return None
        at = self._start + max(1, bisect.bisect_left(self._times, first_s + self._slice_s - slack_s))
        return at if at < until else None

    def _take(self, end: int, end_s: float) -> Piece:
        """Take the shot [start, end) out of the window."""
        start, length = self._start, end - self._start
        times, scores = self._times[:length], self._scores[:length]
        kept = [index for index in sorted([*self._bounding, *self._others]) if index < end]
        kept += range(max(start, self._recent), end)
        first, last = (
            _nearest(kept, start + _place(times, end_s, fraction, self._fps))
            for fraction in (self._config.first_fraction, self._config.last_fraction)
        )
        chosen = self._spread(kept, {start, first, last}, times, end_s)
        shot = Shot(self._shots, start, end, times[0], end_s, times[first - start], times[last - start])
        frames = []
        for index, following in itertools.pairwise([*chosen, end]):
            part = slice(index - start, following - start)
            values = (tuple(times[part]), tuple(scores[part]))
            frames.append(Chosen(times[part][0], index, shot.index, self._stills.take(index), *values))
        for index in set(kept).difference(chosen):
            self._stills.drop(index)
        self._bounding = [index for index in self._bounding if index >= end]
        self._others = [index for index in self._others if index >= end]
        self._start, self._recent, self._shots = end, max(self._recent, end), self._shots + 1
        del self._times[:length], self._scores[:length]
        self._cuts = [cut for cut in self._cuts if cut > end]
        self._grid_s = 0.0
        return Piece(shot, frames)

    def _spread(self, kept: list[int], bounds: set[int], times: list[float], end_s: float) -> list[int]:
        """Pictures at even distances in time, `bounds` among them: as many as are wanted, or all there are."""
        duration_s = end_s - times[0]
        wanted = self._wanted(duration_s)
        if len(kept) <= wanted:
            return kept
        kept_s = [times[index - self._start] for index in kept]
        free = {place for place, index in enumerate(kept) if index not in bounds}
        # Each bound stands for the place that is nearest to it.
        places = [times[0] + part * duration_s / wanted for part in range(wanted)]
        for index in itertools.islice(bounds, wanted):
            places.remove(min(places, key=lambda place_s: abs(place_s - times[index - self._start])))
        for place_s in places:
            at = bisect.bisect_left(kept_s, place_s)
            near = [i for i in range(max(0, at - 3), min(len(kept), at + 3)) if i in free] or sorted(free)
            free.discard(min(near, key=lambda i: abs(kept_s[i] - place_s)))
        return [index for place, index in enumerate(kept) if place not in free]

    def _thin(self) -> None:
        """Drop pictures that can no longer be chosen."""
        now_s, behind_s = self._times[-1], self._times[max(0, len(self._times) - 1 - self._delay_frames)]
        # No cut can be reported before this any more.
        certain_s = min(now_s - self._delay_s, behind_s)
        oldest_s = min(now_s - min(self._delay_s, _MAX_DELAY_S), behind_s) - self._tail_s
        grid_s = self._grid(certain_s - self._times[0], self._slice_s)
        if grid_s > self._grid_s:
            self._grid_s, others, self._others = grid_s, self._others, []
            for index in others:
                self._keep_on_grid(index)
        while self._times[self._recent - self._start] < oldest_s:
            if self._may_bound(self._recent):
                self._bounding.append(self._recent)
            else:
                self._keep_on_grid(self._recent)
            self._recent += 1

    def _grid(self, certain_s: float, longest_s: float) -> float:
        """How far apart pictures may be so that the reel gets as many as it wants, in seconds; 0: keep all.

        The shot lasts at least `certain_s`; slices come off it at `longest_s`.
        """
        if certain_s <= 0:
            return 0.0
        spans_s = longest_s, min(certain_s, longest_s)
        # Twice as many as it wants, so that they can be spread evenly.
        coarsest_s, enough_s = (span_s / (2 * self._wanted(span_s)) for span_s in spans_s)
        return coarsest_s / 2 ** math.ceil(math.log2(coarsest_s / enough_s))

    def _keep_on_grid(self, index: int) -> None:
        """Keep one picture of each cell of the grid, and all while there are very few."""
        start_s = self._times[0]
        into_s = self._times[index - self._start] - start_s
        first, grid_s = self._start, self._grid_s
        if into_s >= self._slice_s:
            # This may be all that is left when a slice has come off.
            first += bisect.bisect_left(self._times, start_s + self._slice_s)
            grid_s = self._grid(self._shortest_s, self._shortest_s)
        if grid_s and len(self._others) - bisect.bisect_left(self._others, first) >= self._config.reel_min_frames:
            before_s = self._times[self._others[-1] - self._start] - start_s
            if into_s // grid_s == before_s // grid_s:
                self._stills.drop(index)
                return
        self._others.append(index)

    def _wanted(self, duration_s: float) -> int:
        """How many pictures a shot shall have in the reel."""
        return max(self._config.reel_min_frames, math.ceil(self._config.reel_fps * duration_s - 1e-6))

    def _may_bound(self, index: int) -> bool:
        """Whether the picture may become the first, the 5 % or the 95 % frame of a shot or slice that begins here."""
        at = index - self._start
        into_s, until_s = ((time_s - self._times[0]) % self._slice_s for time_s in self._times[at : at + 2])
        frame_s = 1 / self._fps
        if into_s <= self._zone_s or into_s >= self._slice_s - frame_s or until_s < into_s:
            return True
        last_s = self._config.last_fraction * self._slice_s
        return into_s - 2 * frame_s <= last_s <= until_s + 2 * frame_s


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
