"""Finding cuts, frame by frame, with PySceneDetect's own detectors.

    detect_shots("/videos/a.mp4", SplittingConfig(detector="adaptive"))
    # {"fps": 25.0, "frames": 250, "shots": [[0, 30, 0.0, 1.2], [30, 250, 1.2, 10.0]]}

Cuts are those of `scenedetect.detect(path, detector)` with its default OpenCV reader: the same pictures, downscaled
alike, and the same clock go into the same detector.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import itertools
import json
import re
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
from scenedetect import FrameTimecode
from scenedetect.common import Timecode, framerate_to_fraction
from scenedetect.detector import SceneDetector
from scenedetect.detectors import AdaptiveDetector, ContentDetector, HashDetector, HistogramDetector
from scenedetect.scene_manager import compute_downscale_factor

from transforms.media import Picture, open_media

#: Changes whenever the same video and settings would give other shots or another reel.
_REVISION = 1

#: The paper's code takes 25 for content; the others are PySceneDetect's command-line defaults.
_THRESHOLDS = {"content": 25.0, "adaptive": 3.0, "hash": 0.395, "histogram": 0.05}

#: Clock readings are rounded and corrected here and there: frame times are held this much longer than they need be.
_SLACK_S = 1.0


@dataclasses.dataclass(frozen=True)
class SplittingConfig:
    """How a video is cut into shots, and which of its frames go into the reel.

    Attributes:
      detector: content, adaptive, hash or histogram (`ContentDetector` and `detect-content` mean the first, too).
      threshold: the detector's own default where None (content: 25, METHOD of Panda-70M).
      min_scene_len: frames that have to pass between cuts (Panda-70M's code: 15).
      max_shot_s, slice_s: while a shot is longer than `max_shot_s`, `int(slice_s * fps)` frames come off its front
        (Panda-70M's code: 7 and 5).
      first_fraction, last_fraction: where in a shot its two boundary frames are (code: 5 % and 95 %; paper: 10, 90).
      reel_fps, reel_min_frames: frames a second in the reel, and at the least in a shot, or all that it has.
      reel_short_side_px, jpeg_quality: how large and how good the reel's pictures are.
    """

    detector: str = "content"
    threshold: float | None = None
    min_scene_len: int = 15
    max_shot_s: float = 7.0
    slice_s: float = 5.0
    first_fraction: float = 0.05
    last_fraction: float = 0.95
    reel_fps: float = 2.0
    reel_min_frames: int = 16
    reel_short_side_px: int = 448
    jpeg_quality: int = 90

    def __post_init__(self) -> None:
        name = _detector_name(self.detector)
        object.__setattr__(self, "detector", name)
        threshold = _THRESHOLDS[name] if self.threshold is None else self.threshold
        try:
            object.__setattr__(self, "threshold", float(threshold))
        except (TypeError, ValueError):
            raise ValueError(f"threshold must be a number, not {threshold!r}") from None
        bounds = {
            "threshold": (0, 765),
            "min_scene_len": (0, 100_000),
            "max_shot_s": (0.1, 3600),
            "slice_s": (0.1, self.max_shot_s),
            "first_fraction": (0, self.last_fraction),
            "last_fraction": (0, 1),
            "reel_fps": (0.01, 60),
            "reel_min_frames": (2, 256),
            "reel_short_side_px": (32, 2160),
            "jpeg_quality": (1, 100),
        }
        for field, (least, most) in bounds.items():
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                raise ValueError(f"{field} must be from {least} to {most}, not {value!r}")
        for field in ("min_scene_len", "reel_min_frames", "reel_short_side_px", "jpeg_quality"):
            if int(getattr(self, field)) != getattr(self, field):
                raise ValueError(f"{field} must be a whole number, not {getattr(self, field)!r}")
            object.__setattr__(self, field, int(getattr(self, field)))

    def fingerprint(self) -> str:
        """Name everything that shapes shots and reel, in 16 hexadecimal digits."""
        settings = {"revision": _REVISION, **dataclasses.asdict(self)}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]

    def build(self) -> SceneDetector:
        """Make the detector of PySceneDetect that is meant."""
        assert self.threshold is not None
        makers: dict[str, Callable[..., SceneDetector]] = {
            "content": ContentDetector,
            "adaptive": AdaptiveDetector,
            "hash": HashDetector,
            "histogram": HistogramDetector,
        }
        return makers[self.detector](self.threshold, min_scene_len=self.min_scene_len)


def _detector_name(given: str) -> str:
    """The detector that `given` means, whatever its spelling: `ContentDetector`, `detect-content`, `content`."""
    bare = re.sub(r"^detect[-_]?|[-_]?detector$", "", str(given).strip().lower())
    bare = {"hist": "histogram"}.get(bare, bare)
    if bare not in _THRESHOLDS:
        near = difflib.get_close_matches(bare, _THRESHOLDS, n=1, cutoff=0.0)[0]
        raise ValueError(f"there is no detector {given!r}; did you mean {near!r}? Known: {', '.join(_THRESHOLDS)}")
    return bare


class _Position(FrameTimecode):
    """PySceneDetect's clock reading for a frame, which remembers the frame's decode index.

    The detectors hand back the very objects they were given, so a cut is never looked up by a rounded time.
    """

    index: int


class CutDetector:
    """Feeds one detector picture by picture, and tells the cuts and scores it gives.

    Args:
      config: which detector, and how.
      nominal_rate: the rate as OpenCV's reader reports it (`Media.nominal_rate`), 0 where the header tells none.
      fps: what to count with then.
    """

    def __init__(self, config: SplittingConfig, nominal_rate: float, fps: float):
        self._detector = config.build()
        self._rate = framerate_to_fraction(nominal_rate if nominal_rate > 1e-9 else fps)
        self._size: tuple[int, int] | None = None
        self._small = (1, 1)
        self._scores = _Scores(self._detector)
        #: A cut is reported at most this much later than it is, in seconds and (two frames more) in frames.
        self.delay_s = (config.min_scene_len + 1) / float(self._rate)
        self.delay_frames = 2

    def add(self, picture: Picture, bgr: np.ndarray) -> tuple[list[int], list[tuple[int, float]]]:
        """Look at the next picture.

        Returns:
          The decode indices at which shots are now known to begin, and (index, score) of frames whose score is known.
        """
        size = (bgr.shape[1], bgr.shape[0])
        if self._size is None:
            self._size = size
            factor = compute_downscale_factor(max(size))
            self._small = (max(1, round(size[0] / factor)), max(1, round(size[1] / factor)))
        if size != self._size:
            # PySceneDetect passes over frames that change size; so does the clock that it keeps.
            return [], [(picture.index, 0.0)]
        if self._small != size:
            bgr = cv2.resize(bgr, self._small, interpolation=cv2.INTER_LINEAR)
        cuts = self._detector.process_frame(self._position(picture), bgr)
        return sorted({_index(cut) for cut in cuts}), self._scores.after(picture.index)

    def finish(self, last: Picture) -> list[int]:
        """Cuts that are known only once the video has ended."""
        return sorted({_index(cut) for cut in self._detector.post_process(self._position(last))})

    def _position(self, picture: Picture) -> _Position:
        # OpenCV tells milliseconds from the stream's start as a double, which PySceneDetect rounds to microseconds.
        since = picture.since_start
        code = Timecode(round(float(since) * 1000.0 * 1000) if since is not None else 0, Fraction(1, 1_000_000))
        if code.pts <= 0 and picture.index > 0:
            code = Timecode(picture.index * self._rate.denominator, Fraction(1, self._rate.numerator))
        position = _Position(code, self._rate)
        position.index = picture.index
        return position


def _index(cut: FrameTimecode) -> int:
    assert isinstance(cut, _Position)
    return cut.index


class _Scores:
    """The value that the detector compares with its threshold, for each frame.

    PySceneDetect would keep these in a StatsManager, for ever and with an edge map that it never uses.
    """

    def __init__(self, detector: SceneDetector):
        self._detector = detector
        self._recent: deque[tuple[int, float]] = deque(maxlen=5)
        self._latest = 0.0
        if isinstance(detector, HashDetector | HistogramDetector):
            detector.stats_manager = self

    def set_metrics(self, _timecode: FrameTimecode, metrics: dict[str, Any]) -> None:
        self._latest = float(next(iter(metrics.values())))

    def after(self, index: int) -> list[tuple[int, float]]:
        """The scores known after frame `index`; adaptive ones are known two frames late."""
        detector = self._detector
        if not isinstance(detector, ContentDetector):
            score = self._latest
            if isinstance(detector, HistogramDetector):
                score = 1.0 - score if index else 0.0  # it measures likeness
            return [(index, score)]
        score = float(detector._frame_score or 0.0)
        if not isinstance(detector, AdaptiveDetector):
            return [(index, score)]
        self._recent.append((index, score))
        if len(self._recent) < 5:
            return []
        values = [value for _, value in self._recent]
        at, middle = self._recent[2]
        around = (sum(values) - middle) / 4
        if around < 1e-5:
            return [(at, 255.0 if middle >= detector.min_content_val else 0.0)]
        return [(at, min(middle / around, 255.0))]


def detect_shots(
    path: str,
    config: SplittingConfig | None = None,
    progress: Callable[[int, float], None] = lambda frames, time_s: None,
) -> dict[str, Any]:
    """Find the shots of a local video in one decode pass, without slicing long ones.

    Returns:
      `{"fps", "frames", "shots": [[start_frame, end_frame, start_s, end_s], ...]}`, ends exclusive, frames counted as
      they are decoded, times as they are presented.

    Raises:
      MediaError: there is no video to decode.
    """
    config = config or SplittingConfig()
    starts: dict[int, float] = {}
    # A cut may lie a few frames back: the times of the last frames are kept until no cut can name them.
    times: deque[tuple[int, float]] = deque()
    with open_media(path) as media:
        detector: CutDetector | None = None

        def note(cuts: list[int]) -> None:
            if cuts:
                known = dict(times)
                starts.update({cut: known[cut] for cut in cuts if cut > 0})

        for picture in media.pictures():
            if detector is None:
                detector = CutDetector(config, media.nominal_rate, media.fps)
            times.append((picture.index, picture.time_s))
            while len(times) > 8 and picture.time_s - times[0][1] > detector.delay_s + _SLACK_S:
                times.popleft()
            note(detector.add(picture, picture.bgr())[0])
            progress(picture.index + 1, picture.time_s)
        if detector is not None:
            note(detector.finish(picture))
        bounds = [(0, media.start_s), *sorted(starts.items()), (media.frames, media.end_s)]
        pairs = itertools.pairwise(bounds)
        shots = [[first, last, round(start, 6), round(end, 6)] for (first, start), (last, end) in pairs]
        return {"fps": media.fps, "frames": media.frames, "shots": shots}
