"""How much a clip moves, and how much of that is the camera: optical flow between neighbouring frames of its reel.

MEASURE.load()(view)     # {"motion": 0.09, "camera_motion": 0.08, "subject_motion": 0.02}

All in short sides of the picture per second. Dense inverse search (Kroeger et al., "Fast optical flow using dense inverse
search", ECCV 2016) finds where each pixel went; the camera is the one similarity (shift, turn, zoom) that most of them
follow (RANSAC), the subject is what is left.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from model_handlers.measures.content import Box, content_box
from model_handlers.measures.view import ClipView, Measure

PAIRS = 16
#: Short side of the pictures between which the flow is found.
SHORT_SIDE = 112
#: The camera is fitted to the flow at every so many pixels where there is something to follow.
GRID = 6
#: Mean slope (grey values a pixel) round a point from which there is.
SLOPE = 2.0
MIN_POINTS = 24
#: How far (pixels, and share of the flow's own length) a point may stray from the camera's motion and still follow it.
STRAY, STRAY_SHARE = 0.6, 0.04
#: Flow that differs from the camera's by less (pixels) is the flow's own error: nothing moves there.
ERROR = 0.35
@dataclasses.dataclass(frozen=True)
class Moves:
    """How far the picture moves between two frames, as the mean over the picture in its short sides."""

    motion: float
    camera: float
    subject: float


def grey_of(jpeg: bytes) -> np.ndarray:
    """A reel's frame as grey, (height, width), decoded no larger than needed: a quarter of the cost."""
    import cv2

    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_2)


def small(grey: np.ndarray, box: Box = Box()) -> np.ndarray:  # noqa: B008
    """The content of a grey picture at the size at which motion is measured."""
    import cv2

    content = box.cut(grey)
    height, width = content.shape
    scale = SHORT_SIDE / min(height, width)
    return cv2.resize(content, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)


def flow_between(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Where each pixel of `before` went: (height, width, 2) of (right, down), in pixels.

    Args:
      before, after: grey, uint8, of one size.
    """
    import cv2

    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    found = search.calc(before, after, None)
    # A shift of more than a few search windows is beyond the search: it is told where to begin.
    (right, down), _ = cv2.phaseCorrelate(before.astype(np.float32), after.astype(np.float32), _window(before.shape))
    if np.hypot(right, down) < 4:
        return found
    begin = np.empty_like(found)
    begin[...] = (right, down)
    other = search.calc(before, after, begin)
    return min((found, other), key=lambda flow: unexplained(before, after, flow))


def _window(shape: tuple[int, ...]) -> np.ndarray:
    import cv2

    return cv2.createHanningWindow((shape[1], shape[0]), cv2.CV_32F)


def unexplained(before: np.ndarray, after: np.ndarray, flow: np.ndarray) -> float:
    """Mean difference of grey values that is left when `after` is moved back by the flow."""
    import cv2

    height, width = before.shape
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    moved = cv2.remap(after, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
    return float(cv2.absdiff(moved, before).mean())


def camera_of(flow: np.ndarray, grey: np.ndarray) -> np.ndarray | None:
    """The camera's part of a flow, of its shape; None where there is too little to follow."""
    import cv2

    height, width = grey.shape
    across, along = (cv2.Sobel(grey, cv2.CV_32F, *order, scale=0.125) for order in ((1, 0), (0, 1)))
    slope = cv2.boxFilter(np.abs(across) + np.abs(along), -1, (9, 9))
    rows, columns = np.mgrid[GRID // 2 : height : GRID, GRID // 2 : width : GRID]
    kept = slope[rows, columns] > SLOPE
    if kept.sum() < MIN_POINTS:
        return None
    points = np.stack([columns[kept], rows[kept]], axis=1).astype(np.float32)
    went = flow[rows[kept], columns[kept]]
    stray = max(STRAY, STRAY_SHARE * float(np.median(np.linalg.norm(went, axis=1))))
    fit, _ = cv2.estimateAffinePartial2D(points, points + went, method=cv2.RANSAC, ransacReprojThreshold=stray)
    if fit is None:
        return None
    everywhere = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=2).astype(np.float32)
    return (everywhere @ fit[:, :2].T + fit[:, 2] - everywhere).astype(np.float32)


def moves_between(before: np.ndarray, after: np.ndarray) -> Moves:
    """How far the picture, its camera and its subject move between two small grey pictures of one size."""
    flow = flow_between(before, after)
    camera = camera_of(flow, before)
    if camera is None:
        camera = np.zeros_like(flow)
    left = np.linalg.norm(flow - camera, axis=2)
    left[left < ERROR] = 0
    short = min(before.shape)
    lengths = (np.linalg.norm(flow, axis=2)[_seen(camera)], np.linalg.norm(camera, axis=2), left[_seen(camera)])
    return Moves(*(float(length.mean()) / short if length.size else 0.0 for length in lengths))


def _seen(camera: np.ndarray) -> np.ndarray:
    """The pixels that the camera keeps in the picture: of those that leave it the flow knows nothing."""
    height, width = camera.shape[:2]
    columns, rows = np.arange(width)[None] + camera[..., 0], np.arange(height)[:, None] + camera[..., 1]
    return (columns >= 0) & (columns <= width - 1) & (rows >= 0) & (rows <= height - 1)


def median_speed(moves: Sequence[Moves], seconds: Sequence[float]) -> dict[str, float | None]:
    """The medians over pairs of frames, per second; None without a pair."""
    if not moves:
        return dict.fromkeys(MEASURE.columns)
    speeds = [[part / length for part in dataclasses.astuple(one)] for one, length in zip(moves, seconds, strict=True)]
    return dict(zip(MEASURE.columns, map(float, np.median(speeds, axis=0)), strict=True))


def measure_motion(view: ClipView) -> Mapping[str, float | None]:
    """The motion inside the clip's content box."""
    box = content_box(view)
    pairs = [pair for pair, length in _timed(view) if length > 0]
    rows = sorted({row for pair in pairs for row in pair})
    seen = {row: small(grey_of(jpeg), box) for row, jpeg in zip(rows, view.reel.jpegs(rows), strict=True)}
    pairs = [pair for pair in pairs if seen[pair[0]].shape == seen[pair[1]].shape]
    moves = [moves_between(seen[first], seen[second]) for first, second in pairs]
    return median_speed(moves, [view.reel.times[second] - view.reel.times[first] for first, second in pairs])


def _timed(view: ClipView) -> list[tuple[tuple[int, int], float]]:
    return [(pair, view.reel.times[pair[1]] - view.reel.times[pair[0]]) for pair in view.pairs(PAIRS)]


MEASURE = Measure(
    name="motion",
    columns=("motion", "camera_motion", "subject_motion"),
    summary="how fast the picture moves, and how much of that is the camera and how much what stands before it",
    load=lambda: measure_motion,
)
