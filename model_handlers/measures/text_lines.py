"""Lines of text in frames, and which of them are subtitles, by their habits.

    subtitled(frames, elsewhere=lambda: [])             # [True, True, False]: which frames have a burnt-in subtitle

A burnt-in subtitle stands in the lower part, centred, still for half a second, and is another one, or gone, at another
time. Text that is there all the time is a title or a shop's sign.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

#: Of the picture's height: subtitles stand below, and are between so and so high.
BELOW, LOWEST, HIGHEST = 0.55, 0.02, 0.14
#: Of the picture's width: how far a line's middle is from the picture's.
OFF_CENTRE = 0.06
#: Widths of a line in heights, from which it is a line; degrees by which it leans at most.
LONG, LEANS = 1.5, 4.0
#: Correlation of the edges within a line's box, from which two frames show the same text there.
SAME = 0.55
#: Of the picture's height: by how much the middles of two subtitles of one video differ, and of their height.
BASELINE, HEIGHT = 0.02, 0.4


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of text: its middle, width and height in pixels, and by how many degrees it leans (-45 to 45)."""

    x: float
    y: float
    width: float
    height: float
    leans: float = 0.0

    @property
    def corners(self) -> np.ndarray:
        """The four corners in turn, float32 (4, 2)."""
        turn = math.radians(self.leans)
        along = np.array([math.cos(turn), math.sin(turn)]) * self.width / 2
        across = np.array([-math.sin(turn), math.cos(turn)]) * self.height / 2
        middle = np.array([self.x, self.y])
        return np.array(
            [middle - along - across, middle + along - across, middle + along + across, middle - along + across],
            np.float32,
        )


def joined(lines: Sequence[Line]) -> list[Line]:
    """Words that stand side by side as one line: on one height, of one size, not farther apart than they are high."""
    rows: list[Line] = []
    for line in sorted(lines, key=lambda one: one.x):
        beside = next((row for row in rows if _beside(row, line)), None)
        if beside is None:
            rows.append(line)
            continue
        left = min(beside.x - beside.width / 2, line.x - line.width / 2)
        right = max(beside.x + beside.width / 2, line.x + line.width / 2)
        height = max(beside.height, line.height)
        rows[rows.index(beside)] = Line((left + right) / 2, (beside.y + line.y) / 2, right - left, height, beside.leans)
    return rows


def _beside(row: Line, line: Line) -> bool:
    gap = (line.x - line.width / 2) - (row.x + row.width / 2)
    lower = min(row.height, line.height)
    return abs(row.y - line.y) < 0.5 * lower and gap < 1.5 * lower and max(row.height, line.height) < 2 * lower


def like_subtitles(lines: Sequence[Line], shape: tuple[int, int]) -> list[Line]:
    """Those of a frame's lines that stand where subtitles do: level, in the lower part, centred, of a usual size."""
    height, width = shape
    return [
        line
        for line in joined(lines)
        if abs(line.leans) <= LEANS
        and line.y > BELOW * height
        and LOWEST * height <= line.height <= HIGHEST * height
        and line.width >= LONG * line.height
        and abs(line.x - width / 2) <= OFF_CENTRE * width
    ]


def likeness(line: Line, first: np.ndarray, second: np.ndarray) -> float:
    """How alike two frames are within a line, -1 to 1: the correlation of the strengths of their edges.

    What stands beneath the text may change; the text's own edges are the strongest there.

    Args:
      first, second: grey pictures of one size, uint8.
    """
    import cv2

    height, width = first.shape
    left, right = max(0, int(line.x - line.width / 2)), min(width, math.ceil(line.x + line.width / 2))
    top, bottom = max(0, int(line.y - line.height / 2)), min(height, math.ceil(line.y + line.height / 2))
    edges = []
    for picture in (first, second):
        patch = picture[top:bottom, left:right].astype(np.float32)
        strength = cv2.magnitude(cv2.Sobel(patch, cv2.CV_32F, 1, 0), cv2.Sobel(patch, cv2.CV_32F, 0, 1))
        edges.append(strength - strength.mean())
    both = math.sqrt(float((edges[0] ** 2).sum() * (edges[1] ** 2).sum()))
    return float((edges[0] * edges[1]).sum()) / both if both > 0 else 0.0


@dataclasses.dataclass(frozen=True)
class Seen:
    """A frame with its lines of text: grey, uint8; `beside` are its neighbours in time, likewise; of which shot."""

    grey: np.ndarray
    lines: tuple[Line, ...]
    beside: tuple[np.ndarray, ...] = ()
    shot: int = 0

    @property
    def candidates(self) -> list[Line]:
        return like_subtitles(self.lines, self.grey.shape)

    def standing(self) -> list[Line]:
        """Its candidates that a neighbouring frame shows, too; without a neighbour nothing is known to stand."""
        return [
            line for line in self.candidates if any(likeness(line, self.grey, other) >= SAME for other in self.beside)
        ]


def gives_way(line: Line, frame: Seen, other: Seen, *, same_film: bool = True) -> bool:
    """Whether another frame shows another subtitle instead of this one, or, in one shot, none.

    Args:
      same_film: the other frame is of the same clip. One from elsewhere tells only by another subtitle: that a sign of
        this scene is not there says nothing.
    """
    if other.grey.shape != frame.grey.shape or likeness(line, frame.grey, other.grey) >= SAME:
        return False
    height = frame.grey.shape[0]
    for one in other.candidates:
        level = abs(one.y - line.y) <= BASELINE * height
        if level and abs(one.height - line.height) <= HEIGHT * line.height:
            return True
    return same_film and other.shot == frame.shot and not any(_covers(line, one) for one in other.lines)


def _covers(line: Line, other: Line) -> bool:
    return (
        abs(line.x - other.x) < (line.width + other.width) / 2
        and abs(line.y - other.y) < (line.height + other.height) / 2
    )


def subtitled(frames: Sequence[Seen], elsewhere: Callable[[], Sequence[Seen]]) -> list[bool]:
    """Which of a clip's frames have a burnt-in subtitle.

    Args:
      elsewhere: gives frames of the rest of the video; asked for only where the clip does not settle it.
    """
    standing = [frame.standing() for frame in frames]
    told = [
        any(gives_way(line, frame, other) for line in lines for other in frames if other is not frame)
        for frame, lines in zip(frames, standing, strict=True)
    ]
    if all(told) or not any(lines for lines, known in zip(standing, told, strict=True) if not known):
        return told
    rest = elsewhere()
    return [
        known or any(gives_way(line, frame, other, same_film=False) for line in lines for other in rest)
        for frame, lines, known in zip(frames, standing, told, strict=True)
    ]
