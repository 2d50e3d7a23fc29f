"""How a video is cut, and the cuts alone.

    detect_shots("/videos/a.mp4", SplittingConfig(detector="adaptive"))
    # {"fps": 25.0, "frames": 250, "shots": [[0, 30, 0.0, 1.2], [30, 250, 1.2, 10.0]]}

Cuts are those of `scenedetect.detect(path, detector)` with its default OpenCV reader: the same pictures, downscaled
alike, and the same clock go into the same detector. `transnet` is TransNetV2, which sees dissolves and fades, too.
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
from typing import Any

from transforms.detectors import Found, cut_detector
from transforms.media import open_media, steadily
from transforms.transnet import check_available

#: Changes whenever the same video and settings would give other shots or another reel.
_REVISION = 2

#: The detectors. The paper's code takes 25 for content; the next three are PySceneDetect's command-line defaults, the
#: last is that of TransNetV2's authors.
THRESHOLDS = {"content": 25.0, "adaptive": 3.0, "hash": 0.395, "histogram": 0.05, "transnet": 0.5}

#: Clock readings are rounded and corrected here and there: frame times are held this much longer than they need be.
_SLACK_S = 1.0


#: Is told the count of frames and the presentation time now and then.
Progress = Callable[[int, float], None]


@dataclasses.dataclass(frozen=True)
class SplittingConfig:
    """How a video is cut into shots, and which of its frames go into the reel.

    Attributes:
      detector: a name of `THRESHOLDS` (`ContentDetector` and `detect-content` mean content, too).
      threshold: the detector's own default where None (content: 25, Panda-70M's).
      min_scene_len: frames that have to pass between cuts (Panda-70M's code: 15).
      max_shot_s, slice_s: while a shot is longer than `max_shot_s`, `int(slice_s * fps)` frames come off its front
        (Panda-70M's code: 7 and 5).
      first_fraction, last_fraction: where in a shot its two boundary frames are (code: 5 % and 95 %; paper: 10, 90).
      reel_fps, reel_min_frames: frames a second in the reel, and at the least in a shot, or all that it has.
      reel_short_side_px, jpeg_quality: how large and how good the reel's pictures are.
      fast: decode without the codec's loop filter: quicker, pictures are blockier, and a cut may be missed or moved.
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
    fast: bool = False

    def __post_init__(self) -> None:
        name = _detector_name(self.detector)
        object.__setattr__(self, "detector", name)
        threshold = THRESHOLDS[name] if self.threshold is None else self.threshold
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
        if not isinstance(self.fast, bool):
            raise ValueError(f"fast must be true or false, not {self.fast!r}")

    def fingerprint(self) -> str:
        """Name everything that shapes shots and reel, in 16 hexadecimal digits."""
        settings = {"revision": _REVISION, **dataclasses.asdict(self)}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def check_installed(config: SplittingConfig) -> None:
    """Raise `ModuleNotFoundError` where the package is missing that the detector needs."""
    if config.detector == "transnet":
        check_available()


def _detector_name(given: str) -> str:
    """The detector that `given` means, whatever its spelling: `ContentDetector`, `detect-content`, `content`."""
    bare = re.sub(r"^detect[-_]?|[-_]?detector$", "", str(given).strip().lower())
    bare = {"hist": "histogram"}.get(bare, bare)
    if bare not in THRESHOLDS:
        near = difflib.get_close_matches(bare, THRESHOLDS, n=1, cutoff=0.0)[0]
        raise ValueError(f"there is no detector {given!r}; did you mean {near!r}? Known: {', '.join(THRESHOLDS)}")
    return bare


def detect_shots(
    path: str,
    config: SplittingConfig | None = None,
    sharing: int = 1,
    progress: Progress = lambda frames, time_s: None,
) -> dict[str, Any]:
    """Find the shots of a local video in one decode pass, without slicing long ones.

    Args:
      sharing: how many videos are being decoded at once.
      progress: told the count of frames and the presentation time now and then.

    Returns:
      `{"fps", "frames", "shots": [[start_frame, end_frame, start_s, end_s], ...]}`, ends exclusive, frames counted as
      they are decoded, times as they are presented.

    Raises:
      MediaError: there is no video to decode.
    """
    settings = config or SplittingConfig()
    return steadily(lambda threads: _detect(path, settings, threads, progress), sharing)


def _detect(path: str, config: SplittingConfig, threads: int, progress: Progress) -> dict[str, Any]:
    starts: dict[int, float] = {}
    # A cut may lie a few frames back: the times of the last frames are kept until no cut can name them.
    times: deque[tuple[int, float]] = deque()

    def note(found: Found) -> None:
        if found[0]:
            known = dict(times)
            starts.update({cut: known[cut] for cut in found[0] if cut > 0})

    with open_media(path, fast=config.fast, threads=threads) as media:
        pictures = media.pictures()
        first = next(pictures)
        detector = cut_detector(config, media.nominal_rate, media.fps)
        for picture in itertools.chain([first], pictures):
            times.append((picture.index, picture.time_s))
            while len(times) > detector.delay_frames + 6 and picture.time_s - times[0][1] > detector.delay_s + _SLACK_S:
                times.popleft()
            note(detector.add(picture))
            progress(picture.index + 1, picture.time_s)
        note(detector.finish(picture))
        bounds = [(0, media.start_s), *sorted(starts.items()), (media.frames, media.end_s)]
    pairs = itertools.pairwise(bounds)
    shots = [[first, last, round(start, 6), round(end, 6)] for (first, start), (last, end) in pairs]
    return {"fps": media.fps, "frames": media.frames, "shots": shots}
