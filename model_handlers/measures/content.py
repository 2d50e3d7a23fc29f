"""The content box of a clip: the picture without the flat bars that were put round it.

box = content_box(view)              # found once a view, whoever asks
pictures = inside(view)              # frames cut to it

A bar is flat, stands in all frames alike, reaches the side of the frame, and ends in a straight edge: within a few
pixels most of a line changes. Dark scenes and white backgrounds end gradually, along whatever stands before them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from model_handlers.measures.view import ClipView

#: How many frames of a clip are looked at; exposure and blur look at the same ones, so that these are decoded once.
FRAMES = 8
#: Every so many lines of a frame are enough to tell a bar.
THIN = 4
#: Grey values (of 255) by which a pixel may differ from a bar's colour: what a JPEG's ringing at the edge reaches.
TOLERANCE = 12
#: A bar on one side alone is at most this bright (of 255): video black where it was taken for full range, and noise.
BLACK = 24
#: Share of a line that may differ where a bar is plain, and where text or a logo stands on it.
PLAIN, LETTERED = 0.03, 0.45
#: By how much that share has to rise within `RISE` pixels for an edge to be straight, and reach on behind it.
STEP, RISE, FILLED = 0.4, 4, 0.3
#: A picture that fades into black differs from it just before the edge by more than this share of what it does behind.
FADES = 0.4
#: Share of a bar that must be plain.
PLAIN_SHARE = 0.5
#: No bar is thinner than this many pixels of the reel, nor wider than this share of the frame.
MIN_WIDTH, MAX_SHARE = 2, 0.45
#: A picture is measured with its long side at most so many times its usual short one, and no side below this (pixels).
MAX_ELONGATION, MIN_SIDE = 8, 16
#: How far an edge that was found may be off, in pixels, before one more is given up for it.
SLACK = 0.1


@dataclasses.dataclass(frozen=True)
class Box:
    """A rectangle in shares of the frame: 0 is its left or upper side, 1 its right or lower one."""

    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0

    @property
    def area(self) -> float:
        return (self.right - self.left) * (self.bottom - self.top)

    def cut(self, frame: np.ndarray) -> np.ndarray:
        """The part of a frame, (height, width, ...), that lies wholly inside; a view, not a copy."""
        height, width = frame.shape[:2]
        rows = slice(_whole(self.top * height), max(1, math.floor(self.bottom * height + SLACK)))
        columns = slice(_whole(self.left * width), max(1, math.floor(self.right * width + SLACK)))
        return frame[rows, columns]


WHOLE = Box()


def size_at(frame: np.ndarray, short_side: int) -> tuple[int, int]:
    """Width and height of a frame whose short side is so long; of a very elongated one the long side is bounded."""
    height, width = frame.shape[:2]
    scale = min(short_side / min(height, width), MAX_ELONGATION * short_side / max(height, width))
    return max(MIN_SIDE, round(width * scale)), max(MIN_SIDE, round(height * scale))


def _whole(edge: float) -> int:
    return math.ceil(edge - SLACK)


def content_box(view: ClipView) -> Box:
    """The content box of a clip, by up to `FRAMES` of its frames."""
    return view.once(_box_of)


def _box_of(view: ClipView) -> Box:
    return find_box(view.frames(view.uniform(FRAMES)))


def inside(view: ClipView) -> list[np.ndarray]:
    """Up to `FRAMES` frames of the clip, evenly over it, cut to its content box: uint8 RGB, views."""
    box = content_box(view)
    return [box.cut(frame) for frame in view.frames(view.uniform(FRAMES))]


def find_box(frames: Sequence[np.ndarray]) -> Box:
    """The content box that all these frames share; the whole frame where there is no border.

    Args:
      frames: uint8 RGB, (height, width, 3); those of another size than the first are left out.
    """
    import cv2

    grey = np.stack([cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in frames if f.shape == frames[0].shape])
    height, width = grey.shape[1:]
    upright = np.ascontiguousarray(grey[:, :, ::THIN].transpose(0, 2, 1))
    level = np.ascontiguousarray(grey[:, ::THIN])
    columns = _extent(level.reshape(-1, width))
    # The bars above and below are looked for between those at the sides and the other way round, as in a windowbox.
    for _ in range(2):
        top, bottom = bars(upright[:, _thinned(*columns)].reshape(-1, height))
        left, right = bars(level[:, _thinned(top, height - bottom)].reshape(-1, width))
        columns = _whole(left), width - _whole(right)
    return Box(left / width, top / height, 1 - right / width, 1 - bottom / height)


def _thinned(first: float, last: float) -> slice:
    start = int(first) // THIN
    return slice(start, max(start + 1, int(last) // THIN))


def bars(lines: np.ndarray) -> tuple[float, float]:
    """How wide the bars at both ends of these lines of pixels are, in pixels; 0.0 where there is none.

    A bar on one side alone is black: a coloured one may as well be a floor, a wall or the sky.

    Args:
      lines: grey, uint8, (lines of all frames, pixels).
    """
    ends = lines, np.ascontiguousarray(lines[:, ::-1])
    colours = [_colour(end) for end in ends]
    found = [_bar(end, colour) for end, colour in zip(ends, colours, strict=True)]
    if all(found) and abs(colours[0] - colours[1]) <= TOLERANCE:
        return found[0], found[1]
    found = [width if colour <= BLACK else 0.0 for width, colour in zip(found, colours, strict=True)]
    for one, other in ((0, 1), (1, 0)):
        # In a dark scene one edge can't be seen. Bars come in pairs: what is plain as far as the other bar is one.
        if found[one] and not found[other]:
            share = _differing(ends[other][:, : _whole(found[one])], colours[one])
            found[other] = found[one] if share.max() <= PLAIN else 0.0
    return found[0], found[1]


def _colour(lines: np.ndarray) -> float:
    return float(np.median(lines[:, :MIN_WIDTH]))


def _differing(lines: np.ndarray, colour: float) -> np.ndarray:
    """Share of the pixels in each column that differ from the colour."""
    import cv2

    least, most = max(0, round(colour) - TOLERANCE), min(255, round(colour) + TOLERANCE)
    # What is darker than `least` wraps round and is more than allowed, too: one comparison instead of two.
    differs = (lines - np.uint8(least)) > np.uint8(most - least)
    return cv2.reduce(differs.view(np.uint8), 0, cv2.REDUCE_AVG, dtype=cv2.CV_32F)[0]


def _extent(lines: np.ndarray) -> tuple[int, int]:
    """First and last column between which there is something else than at the frame's sides, roughly."""
    width = lines.shape[1]
    first, last = (int(np.argmax(_differing(end, _colour(end)) > LETTERED / 2)) for end in (lines, lines[:, ::-1]))
    return (first, width - last) if width - first - last > width * (1 - 2 * MAX_SHARE) else (0, width)


def _bar(lines: np.ndarray, colour: float) -> float:
    """How wide the bar at the left is, to a fraction of a pixel; 0.0 where there is none."""
    reach = int(lines.shape[1] * MAX_SHARE)
    live = _differing(lines[:, : reach + RISE], colour)
    picture = np.flatnonzero(live > LETTERED)
    if not picture.size or not MIN_WIDTH <= picture[0] <= reach:
        return 0.0
    edge = int(picture[0])
    # The pixel before the edge may be half bar, half picture.
    outside = live[: max(edge - 1, MIN_WIDTH)]
    plain = outside[:MIN_WIDTH].max() <= PLAIN and (outside <= PLAIN).mean() >= PLAIN_SHARE
    straight = live[edge : edge + RISE].max() - np.median(outside[-RISE:]) >= STEP
    straight = straight and _far(lines[:, max(edge - RISE, 0) : edge - 1], colour) <= FADES * _far(
        lines[:, edge + 1 : edge + RISE], colour
    )
    # Letters on black begin and end in straight lines, too, but there is little behind these.
    filled = live[edge:].mean() >= FILLED
    return _fine_edge(lines, edge, colour) if plain and straight and filled else 0.0


def _far(lines: np.ndarray, colour: float) -> float:
    """How far these pixels are from the colour on average."""
    return float(np.abs(lines.astype(np.float32) - colour).mean())


def _fine_edge(lines: np.ndarray, edge: int, colour: float) -> float:
    """The edge to a fraction of a pixel: pixels that are partly bar differ from it by that much less."""
    far = np.abs(lines[:, edge - 1 : edge + 3].astype(np.float32) - colour).mean(axis=0)
    shown = np.clip(far[:2] / max(float(far[2:].mean()), 1e-6), 0.0, 1.0).sum()
    return float(edge + 1 - shown)
