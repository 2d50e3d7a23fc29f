"""How the picture moves between neighbouring frames of a reel, in words that claim no more than two frames can tell.

    phrase(measure(frames, times, shots))     # "while the camera turns to the left"

A reel's frames lie a third to half a second apart: enough for a camera's pan and zoom, too little for gestures. Corners
are tracked from frame to frame and one similarity (shift, scale, turn) is fitted to them: what follows it is the
camera, what does not moves by itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

WIDTH = 240
CORNERS = 150
#: Below this many tracked corners a frame pair is not measured.
MIN_CORNERS = 12
#: A shift of a fiftieth of the picture a second is a camera that moves; a third of it is one that moves fast.
MOVES, FAST = 0.02, 0.33
#: Growth a second from which the camera comes nearer: over two seconds the picture grows by a twelfth.
ZOOMS = 0.04
#: Mean change of a grey value (of 255) under which nothing moves: half of what re-encoding a still picture changes.
STILL = 2.5
#: Share of corners that go their own way, from which something in front of the camera moves.
OWN_WAY = 0.12
#: Share of frame pairs that can't be followed, from which the picture changes too fast to say how.
LOST = 0.5


@dataclasses.dataclass(frozen=True)
class Motion:
    """What was measured over all frame pairs of a clip.

    Attributes:
      right, down: median speed of the picture, in picture widths a second (a camera that turns left moves it right).
      speed: median length of the shift, in picture widths a second.
      growth: median growth of the picture a second.
      change: median mean change of a grey value between two frames, of 255.
      own_way: median share of corners that do not follow the camera.
      lost: share of the frame pairs that could not be followed.
      pairs: how many pairs there were; 0 when the clip has a single frame.
    """

    right: float
    down: float
    speed: float
    growth: float
    change: float
    own_way: float
    lost: float
    pairs: int


def measure(frames: Sequence[np.ndarray], times: Sequence[float], shots: Sequence[int]) -> Motion:
    """Follow the picture through neighbouring frames of one shot.

    Args:
      frames: RGB, (height, width, 3), uint8. times: their presentation times. shots: the shot each belongs to; a pair
        across two shots says nothing.
    """
    grey = [_grey(frame) for frame in frames]
    pairs, found = 0, []
    changes = []
    for at in range(len(grey) - 1):
        seconds = times[at + 1] - times[at]
        if shots[at] != shots[at + 1] or seconds <= 0 or grey[at].shape != grey[at + 1].shape:
            continue
        pairs += 1
        changes.append(float(np.abs(grey[at + 1].astype(np.int16) - grey[at]).mean()))
        followed = _follow(grey[at], grey[at + 1])
        if followed is not None:
            x, y, scale, own_way = followed
            found.append((x / seconds, y / seconds, np.hypot(x, y) / seconds, (scale - 1) / seconds, own_way))
    middle = np.median(found, axis=0).tolist() if found else [0.0] * 5
    change = float(np.median(changes)) if changes else 0.0
    right, down, speed, growth, own_way = middle
    lost = 1 - len(found) / pairs if pairs else 0.0
    return Motion(right, down, speed, growth, change, own_way, lost, pairs)


def _grey(frame: np.ndarray) -> np.ndarray:
    import cv2

    height = max(16, round(frame.shape[0] * WIDTH / frame.shape[1]))
    return cv2.cvtColor(cv2.resize(frame, (WIDTH, height), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)


def _follow(before: np.ndarray, after: np.ndarray) -> tuple[float, float, float, float] | None:
    """(shift right, shift down, scale, share of corners on their own way), shifts in widths; None when lost."""
    import cv2

    corners = cv2.goodFeaturesToTrack(before, CORNERS, 0.01, 6)
    if corners is None or len(corners) < MIN_CORNERS:
        return None
    moved, ok, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, corners.copy(), winSize=(21, 21), maxLevel=4)
    back, ok_back, _ = cv2.calcOpticalFlowPyrLK(after, before, moved, moved.copy(), winSize=(21, 21), maxLevel=4)
    # A corner that does not come back to where it started was not followed but confused with another.
    kept = (ok.ravel() == 1) & (ok_back.ravel() == 1) & (np.linalg.norm((back - corners).reshape(-1, 2), axis=1) < 1.0)
    if kept.sum() < MIN_CORNERS:
        return None
    source, target = corners.reshape(-1, 2)[kept], moved.reshape(-1, 2)[kept]
    cv2.setRNGSeed(0)
    matrix, inliers = cv2.estimateAffinePartial2D(source, target, method=cv2.RANSAC, ransacReprojThreshold=1.5)
    if matrix is None or inliers.mean() < 0.4:
        return None
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    centre = np.array([before.shape[1] / 2, before.shape[0] / 2])
    shift = (matrix[:, :2] @ centre + matrix[:, 2] - centre) / before.shape[1]
    return float(shift[0]), float(shift[1]), scale, 1 - float(inliers.mean())


def phrase(motion: Motion) -> str:
    """What to append to a sentence; empty when there was nothing to measure."""
    if motion.pairs == 0:
        return ""
    if motion.change < STILL and motion.speed < MOVES and motion.lost <= LOST:
        return "in a picture that hardly moves"
    if motion.lost > LOST:
        return "while much of the picture moves" if motion.change >= STILL else "in a picture that hardly moves"
    fast = " fast" if motion.speed >= FAST else ""
    if abs(motion.growth) >= ZOOMS and abs(motion.growth) >= motion.speed / 2:
        return f"while the camera comes nearer{fast}" if motion.growth > 0 else f"while the camera draws back{fast}"
    if motion.speed >= MOVES:
        if abs(motion.right) >= 0.7 * motion.speed:
            return f"while the camera moves{fast} to the {'left' if motion.right > 0 else 'right'}"
        if abs(motion.down) >= 0.7 * motion.speed:
            return f"while the camera moves{fast} {'up' if motion.down > 0 else 'down'}"
        return f"while the camera moves{fast}"
    if motion.own_way >= OWN_WAY or motion.change >= 2 * STILL:
        return "while something moves in front of a still camera"
    return "while the camera stays still"
