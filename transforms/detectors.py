"""Detectors of cuts, fed picture by picture.

    detector = cut_detector(config, media.nominal_rate, media.fps)
    for picture in media.pictures():
        cuts, scores = detector.add(picture)
    cuts, scores = detector.finish(picture)

Cuts are decode indices at which shots are now known to begin; scores are (decode index, value) of frames whose value,
the one that is compared with the threshold, is known by now.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np
from scenedetect import FrameTimecode
from scenedetect.common import Timecode, framerate_to_fraction
from scenedetect.detector import SceneDetector
from scenedetect.detectors import AdaptiveDetector, ContentDetector, HashDetector, HistogramDetector
from scenedetect.scene_manager import compute_downscale_factor

from transforms.media import Picture
from transforms.transnet import TransNetDetector

if TYPE_CHECKING:
    from transforms.detection import SplittingConfig

Found = tuple[list[int], list[tuple[int, float]]]


class CutDetector(Protocol):
    """What `cut_detector` makes. A cut is reported at most `delay_s` and `delay_frames` later than it is."""

    delay_s: float
    delay_frames: int

    def add(self, picture: Picture) -> Found:
        """Look at the next picture."""

    def finish(self, last: Picture) -> Found:
        """What is known only once the video has ended with the picture `last`."""


def cut_detector(config: SplittingConfig, nominal_rate: float, fps: float) -> CutDetector:
    """Make the detector that `config` names.

    Args:
      nominal_rate: the rate as OpenCV's reader reports it (`Media.nominal_rate`), 0 where the header tells none.
      fps: what to count with then.

    Raises:
      ModuleNotFoundError: the detector needs a package that is not installed.
    """
    assert config.threshold is not None
    rate = framerate_to_fraction(nominal_rate if nominal_rate > 1e-3 else fps)
    if config.detector == "transnet":
        return _TransNet(TransNetDetector(config.threshold, config.min_scene_len))
    makers = {"content": _Content, "adaptive": _Adaptive, "hash": HashDetector, "histogram": HistogramDetector}
    detector = makers[config.detector](config.threshold, min_scene_len=config.min_scene_len)
    return _Library(detector, config.min_scene_len, rate)


class _Position(FrameTimecode):
    """PySceneDetect's clock reading for a frame, which remembers the frame's decode index.

    The detectors hand back the very objects they were given, so a cut is never looked up by a rounded time.
    """

    index: int


class _Library:
    """Feeds one of PySceneDetect's detectors as its own scene manager with the OpenCV reader would."""

    def __init__(self, detector: SceneDetector, min_scene_len: int, rate: Fraction):
        self._detector = detector
        self._rate = rate
        self._small: tuple[int, int] | None = None
        self._scores = _Scores(detector)
        self.delay_s, self.delay_frames = (min_scene_len + 1) / float(rate), 2

    def add(self, picture: Picture) -> Found:
        if self._small is None:
            width, height = picture.size
            factor = compute_downscale_factor(max(width, height))
            self._small = (max(1, round(width / factor)), max(1, round(height / factor)))
        # OpenCV's reader scales all pictures to the size of the first; from whichever size, they are compared in one.
        cuts = self._detector.process_frame(self._position(picture), picture.shrunk(self._small))
        return _indices(cuts), self._scores.after(picture.index)

    def finish(self, last: Picture) -> Found:
        return _indices(self._detector.post_process(self._position(last))), []

    def _position(self, picture: Picture) -> _Position:
        # OpenCV tells milliseconds from the stream's start as a double, which PySceneDetect rounds to microseconds.
        since = picture.since_start
        code = Timecode(round(float(since) * 1000.0 * 1000) if since is not None else 0, Fraction(1, 1_000_000))
        if code.pts <= 0 and picture.index > 0:
            code = Timecode(picture.index * self._rate.denominator, Fraction(1, self._rate.numerator))
        position = _Position(code, self._rate)
        position.index = picture.index
        return position


def _indices(cuts: Iterable[FrameTimecode]) -> list[int]:
    return sorted({_index(cut) for cut in cuts})


def _index(cut: FrameTimecode) -> int:
    assert isinstance(cut, _Position)  # should a release make its own, no cut is to be lost without a word
    return cut.index


class _QuickScore:
    """The frame score of PySceneDetect's content detectors, but for rounding in its last place, in a third of the time.

    OpenCV sums the absolute differences of bytes; the library widens them to 32 bits first. Should a release of the
    library not ask for this any more, its own score is used.
    """

    _last: Any = None

    def _calculate_frame_score(self, _timecode: FrameTimecode, frame_img: np.ndarray) -> float:
        last, self._last = self._last, cv2.cvtColor(frame_img, cv2.COLOR_BGR2HSV)
        # Hue, saturation and value weigh the same, so that one sum over all three will do.
        return 0.0 if last is None else cv2.norm(last, self._last, cv2.NORM_L1) / self._last.size


class _Content(_QuickScore, ContentDetector):
    pass


class _Adaptive(_QuickScore, AdaptiveDetector):
    pass


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


class _TransNet:
    """Feeds TransNetV2 with pictures as ffmpeg scales them."""

    def __init__(self, detector: TransNetDetector):
        self._detector = detector
        self.delay_s, self.delay_frames = 0.0, detector.delay_frames

    def add(self, picture: Picture) -> Found:
        return self._detector.add(picture.index, picture.scaled_rgb(self._detector.size))

    def finish(self, last: Picture) -> Found:
        return self._detector.finish()
