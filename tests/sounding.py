"""Little videos with bursts of a tone at known times.

    make_sounding(tmp_path / "a.mp4", [Stretch(0.7, 2.0, burst_s=0.5)])        # a tone from 1.2 s to 1.7 s

The pictures last from 0 s on, whenever the sound begins.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np

BURST_S = 0.5


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Sound from `start_s` on, with a burst `burst_s` after its beginning; `left`, `right` are its peaks."""

    start_s: float
    duration_s: float
    burst_s: float
    left: float = 0.5
    right: float = 0.5


def make_sounding(
    path: pathlib.Path,
    stretches: Sequence[Stretch],
    *,
    codec: str = "aac",
    rate: int = 48_000,
    layout: str = "stereo",
    video_s: float = 6.0,
) -> pathlib.Path:
    """Write a video of `video_s` seconds with this sound."""
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as out:
        video = out.add_stream("libvpx" if path.suffix == ".webm" else "mpeg4", rate=25)
        (video.width, video.height), video.pix_fmt = (64, 36), "yuv420p"
        sound = out.add_stream(codec, rate=rate, layout=layout)
        # By turns, as muxers want them.
        for number in range(round(video_s * 25)):
            frame = av.VideoFrame.from_ndarray(np.full((36, 64, 3), 40 + number % 60, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        for stretch in stretches:
            for begin, part in _frames(stretch, rate, 2 if layout == "stereo" else 1):
                frame = av.AudioFrame.from_ndarray(*_laid_out(part, sound.codec_context.format), layout=layout)
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = round(stretch.start_s * rate) + begin
                out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    return path


def _frames(stretch: Stretch, rate: int, channels: int):
    times = np.arange(round(stretch.duration_s * rate)) / rate - stretch.burst_s
    wave = np.where((times >= 0) & (times < BURST_S), np.sin(2 * np.pi * 1000 * times), 0.0)
    both = np.stack([stretch.left * wave, stretch.right * wave][:channels]).astype(np.float32)
    # 960 samples: what Opus takes; other encoders gather their own.
    yield from ((begin, both[:, begin : begin + 960]) for begin in range(0, both.shape[1], 960))


def _laid_out(part: np.ndarray, kind: av.AudioFormat) -> tuple[np.ndarray, str]:
    """The samples as the encoder wants them, and what that is called."""
    if kind.name.startswith("s"):
        whole = np.int16 if kind.name.startswith("s16") else np.int32
        part = np.round(part.astype(np.float64) * np.iinfo(whole).max).astype(whole)
    return np.ascontiguousarray(part if kind.is_planar else part.T.reshape(1, -1)), kind.name


def bursts(sound: np.ndarray, rate: int = 16_000) -> list[float]:
    """Where bursts begin in a sound, in seconds."""
    loud = np.flatnonzero(np.abs(sound) > 0.08)
    first = loud[np.diff(loud, prepend=-rate) > rate // 10] if len(loud) else loud
    return [float(one / rate) for one in first]
