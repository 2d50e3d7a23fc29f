"""How much a clip moves, and how much of that is the camera: optical flow between neighbouring frames of its reel.

MEASURE.load()(view)     # {"motion": 0.09, "camera_motion": 0.08, "subject_motion": 0.02}

All in short sides of the picture per second. Dense inverse search (Kroeger et al., "Fast optical flow using dense
inverse search", ECCV 2016) finds where each pixel went; the camera is the one similarity (shift, turn, zoom) that most
of them follow (RANSAC), the subject is what is left. A camera that comes nearer moves near things more than far ones:
of that parallax, too, the part that no similarity explains counts for the subject.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from model_handlers.frames import exactly
from model_handlers.measures.content import WHOLE, Box, content_box, size_at
from model_handlers.measures.view import ClipView, Measure

#: Pairs of frames that are compared, evenly over the clip; one in so many is left out as an outlier.
PAIRS, OUTLIERS = 8, 8
#: Frames that are nearer to each other (seconds), as in a short shot's reel, differ by less than the flow can tell.
GAP_S = 0.25
#: Short side of the pictures between which the flow is found.
SHORT_SIDE = 112
#: The flow is looked at in every so many pixels, each way.
GRID = 4
#: Mean slope (grey values a pixel) round a point from which there is something there to follow.
SLOPE = 2.0
MIN_POINTS = 48
#: How far (pixels, and share of the flow's own length) a point may stray from the camera's motion and still follow it.
STRAY, STRAY_SHARE = 0.6, 0.04
#: Flow that differs from the camera's by less (pixels) is the flow's own error: nothing moves there.
ERROR = 0.35
#: Mean grey value (of 255) that a flow may leave unexplained before another is tried, and the shift (pixels) from which
#: one that begins there differs.
UNEXPLAINED, FAR = 4.0, 4.0


@dataclasses.dataclass(frozen=True)
class Moves:
    """How far the picture moves between two frames, as the mean over the picture in its short sides."""

    motion: float
    camera: float
    subject: float


def grey_of(jpeg: bytes) -> np.ndarray:
    """A reel's frame as grey, (height, width), at half its size: a fifth of what a whole frame in colour costs.

    Raises:
      ValueError: it is no picture.
    """
    import cv2

    grey = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_2)
    if grey is None:
        raise ValueError("a frame of the reel is no picture; run curate again to split the video anew")
    return grey


def small(grey: np.ndarray, box: Box = WHOLE) -> np.ndarray:
    """The content of a grey picture at the size at which motion is measured."""
    import cv2

    content = box.cut(grey)
    return cv2.resize(content, size_at(content, SHORT_SIDE), interpolation=cv2.INTER_AREA)


def flow_between(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Where each pixel of `before` went: float32, (height, width, 2), right and down, in pixels.

    Args:
      before, after: grey, uint8, of one size.
    """
    import cv2

    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    found = search.calc(before, after, np.zeros((*before.shape, 2), np.float32))
    left = _unexplained(before, after, found)
    if left < UNEXPLAINED:
        return found
    # A fast pan is beyond the search unless it is told where to begin.
    window = cv2.createHanningWindow((before.shape[1], before.shape[0]), cv2.CV_32F)
    (right, down), _ = cv2.phaseCorrelate(before.astype(np.float32), after.astype(np.float32), window)
    if np.hypot(right, down) < FAR:
        return found
    begin = np.empty_like(found)
    begin[...] = (right, down)
    other = search.calc(before, after, begin)
    return other if _unexplained(before, after, other) < left else found


def _unexplained(before: np.ndarray, after: np.ndarray, flow: np.ndarray) -> float:
    """Mean difference of grey values that is left when `after` is moved back by the flow."""
    import cv2

    height, width = before.shape
    columns, rows = np.arange(width, dtype=np.float32)[None], np.arange(height, dtype=np.float32)[:, None]
    moved = cv2.remap(after, flow[..., 0] + columns, flow[..., 1] + rows, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
    return float(cv2.absdiff(moved, before).mean())


def camera_of(points: np.ndarray, went: np.ndarray, clear: np.ndarray) -> np.ndarray:
    """The camera's part of a flow: the similarity that most of the points follow.

    Args:
      points: float32, (count, 2). went: their flow, of the same shape. clear: (count,), where the flow can be trusted.

    Returns:
      Of the same shape; zeros where there is too little to follow.
    """
    import cv2

    if clear.sum() < MIN_POINTS:
        return np.zeros_like(went)
    stray = max(STRAY, STRAY_SHARE * float(np.median(np.linalg.norm(went[clear], axis=1))))
    fit, _ = cv2.estimateAffinePartial2D(
        points[clear], points[clear] + went[clear], method=cv2.RANSAC, ransacReprojThreshold=stray
    )
    return np.zeros_like(went) if fit is None else (points @ fit[:, :2].T + fit[:, 2] - points).astype(np.float32)


def moves_between(before: np.ndarray, after: np.ndarray) -> Moves:
    """How far the picture, its camera and its subject move between two small grey pictures of one size."""
    height, width = before.shape
    rows, columns = (axis.ravel() for axis in np.mgrid[GRID // 2 : height : GRID, GRID // 2 : width : GRID])
    points = np.stack([columns, rows], axis=1).astype(np.float32)
    went = flow_between(before, after)[rows, columns]
    clear = _slope(before)[rows, columns] > SLOPE
    camera = camera_of(points, went, clear)
    # On a plain wall the flow is a guess: it goes with the camera.
    went = np.where(clear[:, None], went, camera)
    own = np.linalg.norm(went - camera, axis=1)
    own[own < ERROR] = 0
    # Of what the camera moves out of the picture the flow knows nothing.
    there = points + camera
    seen = ((there >= 0) & (there <= (width - 1, height - 1))).all(axis=1)
    parts = (np.linalg.norm(went, axis=1)[seen], np.linalg.norm(camera, axis=1), own[seen])
    return Moves(*(float(part.mean()) / min(height, width) if part.size else 0.0 for part in parts))


def _slope(grey: np.ndarray) -> np.ndarray:
    import cv2

    across, along = (cv2.Sobel(grey, cv2.CV_32F, *order, scale=0.125) for order in ((1, 0), (0, 1)))
    return cv2.boxFilter(np.abs(across) + np.abs(along), -1, (9, 9))


def mean_speed(moves: Sequence[Moves], seconds: Sequence[float]) -> dict[str, float | None]:
    """The means over pairs of frames without the eighth that is highest, in short sides a second; None without a pair.

    A median would not see a car that passes within a third of the clip, a plain mean takes a flash or a cut that was
    not found for motion.
    """
    if not moves:
        return dict.fromkeys(MEASURE.columns)
    speeds = np.array([dataclasses.astuple(one) for one in moves]) / np.array(seconds)[:, None]
    kept = len(moves) - len(moves) // OUTLIERS
    return dict(zip(MEASURE.columns, map(float, np.sort(speeds, axis=0)[:kept].mean(axis=0)), strict=True))


def apart(rows: Sequence[int], times: Sequence[float], shots: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of rows of one shot: each row with the first that is `GAP_S` later, in a shorter shot with its last.

    Args:
      rows: of a reel, in time order. times, shots: of the whole reel.
    """
    found = []
    for shot in dict.fromkeys(shots[row] for row in rows):
        within = [row for row in rows if shots[row] == shot]
        later = [next((other for other in within if times[other] - times[row] >= GAP_S), None) for row in within]
        pairs = [(row, other) for row, other in zip(within, later, strict=True) if other is not None]
        found += pairs or [(within[0], within[-1])] * (times[within[-1]] > times[within[0]])
    return found


def measure_motion(view: ClipView) -> Mapping[str, float | None]:
    """The motion inside the clip's content box."""
    times = view.reel.times
    pairs = apart(view.rows, times, view.reel.shots)
    if not pairs:
        return mean_speed([], [])
    pairs = pairs if len(pairs) <= PAIRS else exactly(pairs, PAIRS)
    box, rows = content_box(view), sorted({row for pair in pairs for row in pair})
    seen = {row: small(grey_of(jpeg), box) for row, jpeg in zip(rows, view.reel.jpegs(rows), strict=True)}
    pairs = [(first, second) for first, second in pairs if seen[first].shape == seen[second].shape]
    moves = [moves_between(seen[first], seen[second]) for first, second in pairs]
    return mean_speed(moves, [times[second] - times[first] for first, second in pairs])


MEASURE = Measure(
    name="motion",
    columns=("motion", "camera_motion", "subject_motion"),
    summary="how fast the picture moves, and how much of that is the camera and how much what stands before it",
    load=lambda: measure_motion,
)
