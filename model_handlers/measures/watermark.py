"""A mark on the picture: a logo or a watermark that stays through the whole video while the picture changes.

    MEASURE.load()(view)             # {"watermark": 0.93}; the same for all clips of a video

The gradients of a scene differ from frame to frame, those of a mark do not: the median over many frames keeps the mark
alone (Dekel et al., "On the Effectiveness of Visible Watermarks", CVPR 2017, section 3.1). A mark can be told from a
scene that rests only where the picture round it changes, so that is asked for at every pixel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from model_handlers.frames import OpenReel, Recent
from model_handlers.measures.view import ClipView, Measure

#: Frames over the whole video; fewer than `FEWEST` say nothing.
FRAMES, FEWEST = 32, 6
SHORT_SIDE = 288
#: The share of the frames in which an edge of a mark is seen, and in which what surrounds it looks otherwise: a scene
#: that rests for less than this is no mark.
PRESENT = 0.75
#: Grey levels a pixel: the faintest edge of a mark, in the median and in the frames where it is fainter; the share of
#: the median that is left in these.
FAINT, FAINTEST, LEFT = 3.0, 1.2, 0.4
#: Grey levels a pixel from which an edge counts in full.
STRONG = 12.0
#: Grey levels between the quartiles of a place's brightness over time, from which it changes, and pixels over which
#: brightness is averaged.
CHANGES, AVERAGED = 8.0, 5
#: Pixels (of 288) between the strokes of one mark, and how wide the ring round it is that has to change.
TOGETHER, RING = 7, 5
#: Of the ring: the share that changes, up to which nothing can be told, and from which all is sure.
UNSURE, SURE = 0.5, 0.8
#: Of the picture: a mark is no wider and no higher than this.
WIDEST, HIGHEST = 0.4, 0.35
#: Edge pixels of full strength, in short sides of the picture, at which a mark scores a half: a line of 24 pixels of
#: text at 2.5 % of the picture's height has some 1.5.
HALF, NEGLIGIBLE = 1.0, 0.1
#: The share of a frame's edges that stay, from which the scene itself rests: what is not found then may still be there.
RESTS = 0.2
#: Of the picture, that has to change for the absence of a mark to be told.
OBSERVED = 0.3


@dataclasses.dataclass(frozen=True)
class Mark:
    """What stays through a video.

    Attributes:
      score: 0 to 1: how much of an edge the strongest mark has, times how surely the picture changes round it.
      observed: the share of the picture that changes. rests: the share of a frame's edges that stay.
      box: of the strongest mark: left, top, width and height as shares of the picture; None where there is none.
    """

    score: float
    observed: float
    rests: float
    box: tuple[float, float, float, float] | None

    @property
    def told(self) -> bool:
        """Whether the score says something: a mark was found, or would have been."""
        return self.score >= 0.5 or (self.observed >= OBSERVED and self.rests < RESTS)


def find_mark(frames: Sequence[np.ndarray]) -> Mark:
    """Look for edges that stay while the picture round them changes.

    Args:
      frames: grey, uint8, of one size, over the whole video; at least `FEWEST`.
    """
    import cv2

    height, width = frames[0].shape
    slopes = np.empty((2, len(frames), height, width), np.int16)
    levels = np.empty((len(frames), height, width), np.uint8)
    for number, frame in enumerate(frames):
        slopes[0, number] = cv2.Sobel(frame, cv2.CV_16S, 1, 0)
        slopes[1, number] = cv2.Sobel(frame, cv2.CV_16S, 0, 1)
        levels[number] = cv2.blur(frame, (AVERAGED, AVERAGED))
    low, high = _quantiles(levels, 1 - PRESENT, PRESENT)
    changing = (high.astype(np.float32) - low) >= CHANGES
    strength, edges = _staying(slopes)
    usual = np.median([(np.abs(slopes[:, at]).sum(axis=0) >= 8 * FAINT).sum() for at in range(0, len(frames), 4)])
    found = max(_marks(strength, edges, changing), default=(0.0, None), key=lambda mark: mark[0])
    return Mark(found[0], float(changing.mean()), float(edges.sum() / max(usual, 1)), found[1])


def _staying(slopes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How strong the median edge is at each pixel, in grey levels, and where it is there nearly always."""
    # Sobel's weights sum up to 8 a step.
    right, down = (_quantiles(slope, 0.5)[0].astype(np.float32) / 8 for slope in slopes)
    strength = np.hypot(right, down)
    edges = np.zeros(strength.shape, bool)
    ys, xs = np.nonzero(strength >= FAINT)
    toward = np.stack([right[ys, xs], down[ys, xs]]) / strength[ys, xs]
    along = (slopes[0][:, ys, xs] * toward[0] + slopes[1][:, ys, xs] * toward[1]) / 8
    often = np.quantile(along, 1 - PRESENT, axis=0) >= np.maximum(FAINTEST, LEFT * strength[ys, xs])
    edges[ys[often], xs[often]] = True
    return strength, edges


def _quantiles(stack: np.ndarray, *parts: float) -> list[np.ndarray]:
    """Quantiles over the first axis, of the values that there are: no mean of two is made up."""
    places = [round(part * (len(stack) - 1)) for part in parts]
    ordered = np.partition(stack, places, axis=0)
    return [ordered[place] for place in places]


def _marks(
    strength: np.ndarray, edges: np.ndarray, changing: np.ndarray
) -> Iterator[tuple[float, tuple[float, float, float, float]]]:
    """Score and box of each group of edges that may be a mark."""
    import cv2

    height, width = edges.shape
    near = cv2.dilate(edges.astype(np.uint8), np.ones((TOGETHER, TOGETHER), np.uint8))
    count, groups, boxes, _ = cv2.connectedComponentsWithStats(near, connectivity=8)
    weights = np.minimum(strength[edges] / STRONG, 1)
    masses = np.bincount(groups[edges], weights, minlength=count) / min(height, width)
    for group in range(1, count):
        left, top, wide, high = (int(value) for value in boxes[group, :4])
        if masses[group] < NEGLIGIBLE or wide > WIDEST * width or high > HIGHEST * height:
            continue
        around = np.s_[max(0, top - RING) : top + high + RING, max(0, left - RING) : left + wide + RING]
        own = groups[around] == group
        ring = (cv2.dilate(own.astype(np.uint8), np.ones((2 * RING + 1,) * 2, np.uint8)) > 0) & ~own
        changes = float(changing[around][ring].mean()) if ring.any() else 0.0
        sure = min(max((changes - UNSURE) / (SURE - UNSURE), 0.0), 1.0)
        much = masses[group] ** 2 / (HALF**2 + masses[group] ** 2)
        yield float(much * sure), (left / width, top / height, wide / width, high / height)


class MarkLook:
    """Measures the mark of a clip's video, once a video."""

    def __init__(self) -> None:
        self._found = Recent(64)

    def __call__(self, view: ClipView) -> Mapping[str, float | None]:
        score = self._found.get(view.reel.key)
        if score is None:
            score = (mark_of(view.reel),)
            self._found.put(view.reel.key, score)
        return {"watermark": score[0]}


def mark_of(reel: OpenReel) -> float | None:
    """The score of a video's mark; None where too little of the picture changes to tell."""
    frames = [_grey(frame) for frame in reel.frames(reel.uniform(reel.times[0], reel.times[-1] + 1e-3, FRAMES))]
    frames = [frame for frame in frames if frame.shape == frames[0].shape]
    if len(frames) < FEWEST:
        return None
    mark = find_mark(frames)
    return mark.score if mark.told else None


def _grey(frame: np.ndarray) -> np.ndarray:
    import cv2

    scale = min(1.0, SHORT_SIDE / min(frame.shape[:2]))
    size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
    return cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)


MEASURE = Measure(
    name="watermark",
    columns=("watermark",),
    summary="a logo or watermark that stays through the whole video while the picture changes",
    load=lambda: MarkLook(),
)
