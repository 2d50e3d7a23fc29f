"""How clip files are written: what a configuration says under `write_clips`, checked, and what of it shapes a file.

    ClipFileSettings("encode", short_side=360)
    made_as(etag, Span(1.0, 9.0), settings)      # stands in the file, so that it is not written again

This module imports no PyAV: a launcher builds configurations without it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from transforms.records import Span

MODES = ("copy", "encode")
CODECS = ("auto", "h264", "vp9", "av1", "mpeg4")
#: x264's names, the quickest first; other encoders are set to what takes about as long.
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")

#: A file agrees with its span when it is at most this much, or one frame, longer or shorter.
TOLERANCE_S = 0.05
#: How long before a clip a copy may begin at the most.
MOST_EARLY_S = 0.5

#: Changes when the same settings give other files.
_VERSION = 1
_SIDES = (16, 8192)
_CRFS = (0, 63)


@dataclasses.dataclass(frozen=True)
class ClipFileSettings:
    """What clip files are like.

    Attributes:
      mode: 'copy' takes the stream as it is where a clip begins at a key frame, and encodes the others; 'encode'
        encodes all.
      codec: of encoded clips; 'auto' is the first of H.264, VP9, AV1 and MPEG-4 that the build encodes.
      short_side: encoded clips are shrunk to so many pixels, never enlarged; None keeps the source's size.
      crf: constant quality, lower is better; None takes the encoder's own default (x264 23, VP9 32, AV1 35).
      preset: how long the encoder takes to make files smaller.
      copy_tolerance_s: how long before a clip the key frame may stand that its copy begins with; MP4 hides what is
        before the clip, WebM shows it.
    """

    mode: str = "copy"
    codec: str = "auto"
    short_side: int | None = None
    crf: int | None = None
    preset: str = "veryfast"
    copy_tolerance_s: float = 0.1

    def __post_init__(self) -> None:
        for name, known in (("mode", MODES), ("codec", CODECS), ("preset", PRESETS)):
            if getattr(self, name) not in known:
                told = ", ".join(known)
                raise ValueError(f"write_clips.{name} must be one of {told}, not {getattr(self, name)!r}")
        for name, (least, most) in (("short_side", _SIDES), ("crf", _CRFS)):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or not least <= value <= most):
                raise ValueError(f"write_clips.{name} must be a whole number from {least} to {most}, not {value!r}")
        tolerance = self.copy_tolerance_s
        if not isinstance(tolerance, int | float) or isinstance(tolerance, bool) or not 0 <= tolerance <= MOST_EARLY_S:
            raise ValueError(f"write_clips.copy_tolerance_s must be from 0 to {MOST_EARLY_S}, not {tolerance!r}")

    @property
    def identity(self) -> dict[str, Any]:
        """All that changes a file."""
        return {"version": _VERSION, **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """A clip whose file is wanted, and what the file will say that it was made of."""

    clip_id: str
    span: Span
    made_as: str


def made_as(etag: str, span: Span, settings: ClipFileSettings) -> str:
    """What a clip's file is made of: the version of its source, its span and the settings, as 16 hexadecimal digits."""
    parts = [etag, round(span.start_s, 4), round(span.end_s, 4), settings.identity]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def allowed_s(fps: float | None) -> float:
    """By how much a file may be longer or shorter than its span: one frame, or `TOLERANCE_S`."""
    return max(TOLERANCE_S, 1 / fps if fps else 0.0) + 0.001
