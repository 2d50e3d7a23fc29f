"""Screens: pictures inside the picture, and recordings of a computer's or a phone's screen.

    MEASURE.load()(view)             # {"screen_in_screen": 0.0, "screen_recording": 0.92}

Both are told by what no camera makes. A picture laid into another has borders that stay on one row or column of pixels
while what is on both sides changes. A screen's recording has areas of exactly one colour, edges that are level or
upright, and rests for long. Classical features, ours; Panda-70M names the two kinds and publishes no way to tell them.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from model_handlers.measures.view import ClipView, Measure

#: Frames in which borders are looked for, and pairs of neighbours that are looked at for flatness and rest.
FRAMES, PAIRS = 10, 4
SHORT_SIDE = 288
#: Grey levels over a border, times what there is beside it, and the share of the frames in which it is there.
STEP, STANDS_OUT, PRESENT = 5.0, 1.6, 0.6
#: Of the picture's height or width: the shortest border, and how much of a border has to be there.
SHORTEST, COVERED = 0.15, 0.7
#: Columns and rows that are tried as borders, the longest ones; pixels between two of them.
TRIED, APART = 8, 4
#: Of the picture: the smallest and the largest picture in it.
SMALLEST, LARGEST = 0.03, 0.9
#: Pixels beside a border, in which something has to change, by so many grey levels; and below which it is but a colour.
BESIDE, CHANGES, FLAT = 8, 6.0, 3.0


#: Pixels in a block, and by how much they may differ in each colour in one of exactly one colour, as JPEG leaves it.
BLOCK, ONE_COLOUR = 8, 8
#: The brightest that a black bar is.
BLACK = 40
#: Mean change of a block between neighbouring frames, in grey levels, under which it rests.
REST = 1.5
#: Grey levels a pixel: the faint slopes that a lens makes, from and to, and strong edges.
FAINT, STRONG = (2.0, 10.0), 20.0
#: Of each trait of a screen's recording the value up to which a clip is none, and from which it speaks for one: between
#: camera footage and drawn screens.
FLATNESS, SHARPNESS, RESTING, DETAIL = (0.2, 0.5), (0.25, 0.5), (0.1, 0.4), (0.01, 0.03)


@dataclasses.dataclass(frozen=True)
class Side:
    """One side of a rectangle: how much of it is a border, and what changes on both sides of it.

    Attributes:
      covered: the share of its length where a border is. inside, outside, both: the share where something changes
        within the rectangle, without, and on both sides.
    """

    covered: float
    inside: float
    outside: float
    both: float


class Seams:
    """Straight borders in the frames of a clip.

    Args:
      frames: grey, uint8, of one size; at least two.
    """

    def __init__(self, frames: Sequence[np.ndarray]):
        self.stack = np.stack(frames)
        self.shape = frames[0].shape
        self._changes = np.abs(np.diff(self.stack.astype(np.int16), axis=0)).mean(axis=0)
        #: By axis: where a row (0) or a column (1) is a border towards the next, in most of the frames.
        self._there = (
            np.mean([_steps(frame.T).T for frame in frames], axis=0) >= PRESENT,
            np.mean([_steps(frame) for frame in frames], axis=0) >= PRESENT,
        )

    def places(self, axis: int) -> list[int]:
        """The rows (axis 0) or columns (1) with the most of a border, and the picture's own two sides."""
        there = self._there[axis]
        along = there.shape[1 - axis]
        lengths = there.sum(axis=1 - axis).astype(np.int64)
        found: list[int] = []
        for place in np.argsort(-lengths, kind="stable"):
            if len(found) == TRIED or lengths[place] < SHORTEST * along:
                break
            if all(abs(int(place) - other) >= APART for other in found):
                found.append(int(place))
        inner = [place + 1 for place in found if APART <= place + 1 <= there.shape[axis] - APART]
        return sorted({0, there.shape[axis], *inner})

    def side(self, axis: int, place: int, low: int, high: int, inward: int) -> Side | None:
        """The border before row (axis 0) or column (1) `place`, from `low` to `high` on the other axis.

        Args:
          inward: 1 where the rectangle lies after it, -1 where before.

        Returns:
          None where too little of it is a border, or there is but one colour outside: a letterbox.
        """
        there = self._there[axis] if axis == 0 else self._there[axis].T
        changes = self._changes if axis == 0 else self._changes.T
        stack = self.stack if axis == 0 else self.stack.transpose(0, 2, 1)
        covered = float(there[max(0, place - 2) : place + 1, low:high].any(axis=0).mean())
        if covered < COVERED:
            return None
        # The column or two at the border itself are mixed from both sides.
        after, before = np.s_[place + 1 : place + 1 + BESIDE], np.s_[max(0, place - 1 - BESIDE) : max(1, place - 1)]
        within, without = (after, before) if inward > 0 else (before, after)
        inside, outside = (changes[part, low:high].mean(axis=0) >= CHANGES for part in (within, without))
        strip = stack[:, without, low:high]
        if np.median(strip.reshape(len(strip), -1).std(axis=1)) < FLAT:
            return None
        return Side(covered, float(inside.mean()), float(outside.mean()), float((inside & outside).mean()))


def _steps(frame: np.ndarray) -> np.ndarray:
    """Where a column differs from the next by more than its neighbours do: bool (height, width)."""
    import cv2

    step = np.zeros(frame.shape, np.float32)
    step[:, :-1] = np.abs(np.diff(frame.astype(np.int16), axis=1))
    wide, near = cv2.blur(step, (11, 1)) * 11, cv2.blur(step, (3, 1)) * 3
    # A border that was resampled is spread over two steps or three.
    return (step >= STEP) & (near >= STANDS_OUT * 3 * (wide - near) / 8)


def screen_in_screen(frames: Sequence[np.ndarray]) -> float:
    """How surely there is a picture in the picture, beside it, or before a blurred copy of itself: 0 to 1.

    Args:
      frames: of one clip in time order, grey, uint8, of one size; at least two.
    """
    seams = Seams(frames)
    height, width = seams.shape
    rows, columns = seams.places(0), seams.places(1)
    best = 0.0
    for (top, bottom), (left, right) in itertools.product(
        itertools.combinations(rows, 2), itertools.combinations(columns, 2)
    ):
        if SMALLEST <= (bottom - top) * (right - left) / (height * width) <= LARGEST:
            sides: list[Side] = []
            for axis, place, end, low, high, inward in (
                (0, top, height, left, right, 1),
                (0, bottom, height, left, right, -1),
                (1, left, width, top, bottom, 1),
                (1, right, width, top, bottom, -1),
            ):
                if 0 < place < end:
                    side = seams.side(axis, place, low, high, inward)
                    if side is None:
                        break
                    sides.append(side)
            else:
                best = max(best, _inner_picture(sides))
    return best


def _inner_picture(sides: Sequence[Side]) -> float:
    """The score of a rectangle by those of its sides that are not the picture's own."""
    covered = min(side.covered for side in sides)
    moves = float(np.mean([side.both for side in sides]))
    alone = float(np.mean([max(side.inside, side.outside) for side in sides]))
    # Where one side of the border rests, as a studio's graphics do, a window frame before a tripod is alike: only all
    # four borders of a rectangle tell the one from the other.
    return _ramp(covered, 0.5, 0.9) * max(_ramp(moves, 0.1, 0.5), _ramp(alone, 0.2, 0.7) * (len(sides) == 4))


def _ramp(value: float, zero: float, one: float) -> float:
    return min(max((value - zero) / (one - zero), 0.0), 1.0)


@dataclasses.dataclass(frozen=True)
class Traits:
    """What tells a screen's recording, each a share of 0 to 1.

    Attributes:
      flat: of the blocks that have one colour.
      sharp: of the strong edges among these and the faint: a camera's lens and focus make slopes of all strengths, a
        screen has strokes and nothing between.
      rests: of the blocks that do not change until the next frame.
      detail: of the pixels at a strong edge.
    """

    flat: float
    sharp: float
    rests: float
    detail: float


def traits(frame: np.ndarray, following: np.ndarray) -> Traits:
    """The traits of two neighbouring frames, uint8 RGB of one size of at least a block, black bars left out."""
    import cv2

    # Black bars are flat and rest, and say nothing of what stands between them.
    lit = np.maximum(frame, following).max(axis=2) > BLACK
    down, along = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    if len(down) >= BLOCK and len(along) >= BLOCK:
        inside = np.s_[down[0] : down[-1] + 1, along[0] : along[-1] + 1]
        frame, following = np.ascontiguousarray(frame[inside]), np.ascontiguousarray(following[inside])
    rows, columns = frame.shape[0] // BLOCK, frame.shape[1] // BLOCK
    # First down, then along: the other way round numpy takes ten times as long.
    bands = frame[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns * BLOCK * 3)
    highest, lowest = (found.reshape(rows, columns, BLOCK, 3) for found in (bands.max(axis=1), bands.min(axis=1)))
    spread = highest.max(axis=2).astype(np.int16) - lowest.min(axis=2)
    changed = cv2.absdiff(frame, following)[: rows * BLOCK, : columns * BLOCK]
    rests = cv2.resize(changed, (columns, rows), interpolation=cv2.INTER_AREA).max(axis=2) < REST
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    slope = cv2.magnitude(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)) / 8
    strong, faint = float((slope >= STRONG).mean()), float(((slope > FAINT[0]) & (slope < FAINT[1])).mean())
    flat = float((spread.max(axis=2) <= ONE_COLOUR).mean())
    return Traits(flat, strong / (strong + faint) if strong else 0.0, float(rests.mean()), strong)


def screen_recording(seen: Sequence[Traits]) -> float:
    """How surely frames with these traits show a screen's recording, 0 to 1: as much as the weakest of its traits."""
    middle = [float(np.median([getattr(one, field.name) for one in seen])) for field in dataclasses.fields(Traits)]
    limits = (FLATNESS, SHARPNESS, RESTING, DETAIL)
    return min(_ramp(value, *between) for value, between in zip(middle, limits, strict=True))


def look(view: ClipView) -> Mapping[str, float | None]:
    """The scores of a clip; None where it has a single frame, as neither can be told without change."""
    frames = view.frames(view.uniform(FRAMES))
    grey = [_small(frame) for frame in frames if frame.shape == frames[0].shape]
    pairs = [view.frames(pair) for pair in view.pairs(PAIRS)]
    seen = [traits(*pair) for pair in pairs if pair[0].shape == pair[1].shape and min(pair[0].shape[:2]) >= BLOCK]
    return {
        "screen_in_screen": screen_in_screen(grey) if len(grey) > 1 else None,
        "screen_recording": screen_recording(seen) if seen else None,
    }


def _small(frame: np.ndarray) -> np.ndarray:
    import cv2

    scale = min(1.0, SHORT_SIDE / min(frame.shape[:2]))
    size = (max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale)))
    return cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)


MEASURE = Measure(
    name="screens",
    columns=("screen_in_screen", "screen_recording"),
    summary="how surely the clip shows a picture in the picture, and the recording of a computer's or phone's screen",
    load=lambda: look,
)
