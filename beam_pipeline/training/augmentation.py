"""What a clip looks like in training: frames drawn anew each time, and one crop for all of them.

    frames = drawn_frames(clip, 12, example.captions, rng, mirror=True)

`rng` is the loading process's: the same numbers give the same clip.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import re
from collections.abc import Sequence

import numpy as np

from model_handlers.frames import open_reel
from transforms.records import Clip

#: How much of a frame is seen (section 3.3), and how wide that may be for its height (torchvision's RandomResizedCrop).
AREA, RATIO = (0.5, 1.0), (3 / 4, 4 / 3)
TRIES = 10
_SIDES = re.compile(r"\b(?:left|right)(?:most|wards?|-hand(?:ed)?)?\b", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """A part of a frame, in shares of its height and width, so that it suits frames of any size."""

    top: float
    left: float
    height: float
    width: float
    mirrored: bool = False

    def of(self, frame: np.ndarray) -> np.ndarray:
        """This part of a frame, (height, width, 3)."""
        rows, columns = frame.shape[:2]
        top, left = min(round(self.top * rows), rows - 1), min(round(self.left * columns), columns - 1)
        bottom = max(top + 1, round((self.top + self.height) * rows))
        right = max(left + 1, round((self.left + self.width) * columns))
        part = frame[top:bottom, left:right]
        return np.ascontiguousarray(part[:, ::-1] if self.mirrored else part)


def draw_view(aspect: float, rng: random.Random, *, mirror: bool = False) -> View:
    """A part of frames that are `aspect` times as wide as high, as torchvision's RandomResizedCrop draws it.

    Args:
      mirror: half of the views are mirrored.
    """
    mirrored = mirror and rng.random() < 0.5
    for _ in range(TRIES):
        area = rng.uniform(*AREA)
        ratio = math.exp(rng.uniform(*map(math.log, RATIO)))
        height, width = math.sqrt(area * aspect / ratio), math.sqrt(area * ratio / aspect)
        if height <= 1 and width <= 1:
            return View(rng.uniform(0, 1 - height), rng.uniform(0, 1 - width), height, width, mirrored)
    # A strip or a tower: the middle, as much of it as the ratio allows.
    ratio = min(max(aspect, RATIO[0]), RATIO[1])
    height, width = min(1.0, aspect / ratio), min(1.0, ratio / aspect)
    return View((1 - height) / 2, (1 - width) / 2, height, width, mirrored)


def draw_rows(rows: Sequence[int], count: int, rng: random.Random) -> list[int]:
    """One of each of `count` equal parts of the rows, in order; all of them where there are no more."""
    if len(rows) <= count:
        return list(rows)
    edges = [part * len(rows) // count for part in range(count + 1)]
    return [rows[rng.randrange(start, end)] for start, end in itertools.pairwise(edges)]


def tell_sides(captions: Sequence[str]) -> bool:
    """Whether a caption would be wrong of the mirrored clip, since it says left or right."""
    return any(_SIDES.search(caption) for caption in captions)


def drawn_frames(
    clip: Clip, count: int, captions: Sequence[str], rng: random.Random, *, mirror: bool = False
) -> list[np.ndarray]:
    """Up to `count` frames of a clip for training, uint8 RGB, all cut alike.

    Args:
      captions: what is said of the clip. mirror: half of the clips are mirrored, but for those whose captions tell
        left from right.

    Raises:
      ReelError: the clip's reel is missing or unreadable.
    """
    reel = open_reel(clip.reel)
    frames = reel.frames(draw_rows(reel.within(clip.span.start_s, clip.span.end_s), count, rng))
    height, width = frames[0].shape[:2]
    view = draw_view(width / height, rng, mirror=mirror and not tell_sides(captions))
    return [view.of(frame) for frame in frames]
