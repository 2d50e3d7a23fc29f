"""Pictures out of decoded frames, converting no more pixels than are looked at.

    bgr(frame, turns)                          # the whole frame, as OpenCV's reader gives it
    shrunk_bgr(frame, turns, (256, 144))       # the same, resized by OpenCV: bit for bit, at half the cost for 720p
    planes(frame, turns, (796, 448)).jpeg(90)  # for the reel; never becomes RGB

Detectors look at small pictures: for 1280x720 at every fifth pixel of every fifth line, as OpenCV's linear resize by an
odd whole factor reads the middle pixel only. So just these are gathered, each with the chroma that belongs to it, into
a small frame that swscale then converts, with its own arithmetic, whatever that is on this processor. Whether this
gives the same bytes is tried with noise before the first use; where it does not, the whole frame is converted.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable
from typing import Any

import av
import cv2
import numpy as np
import simplejpeg
from av.video.reformatter import VideoReformatter

#: (width, height) in pixels, upright.
Size = tuple[int, int]

_GATHERED_FORMATS = ("yuv420p", "yuvj420p")
#: swscale converts so many pixels of a line at once; what is left over takes another path, with other rounding.
_ALIGNED = 16

#: What ffmpeg calls the range of JPEG files.
_FULL_RANGE = 2

_own = threading.local()


def size_of(frame: Any, turns: int) -> Size:
    """The frame's stored size once it is upright."""
    return (frame.height, frame.width) if turns % 2 else (frame.width, frame.height)


def bgr(frame: Any, turns: int) -> np.ndarray:
    """The frame upright, in its stored size: uint8, (height, width, 3), as OpenCV's reader gives it."""
    return _upright(_bgr24(frame, _reformatter("whole")).to_ndarray(), turns)


def shrunk_bgr(frame: Any, turns: int, size: Size) -> np.ndarray:
    """The frame upright and resized: uint8, (height, width, 3).

    The same bytes as `cv2.resize(bgr(frame, turns), size, interpolation=cv2.INTER_LINEAR)`.
    """
    layout = (frame.format.name, frame.width, frame.height, int(frame.colorspace), int(frame.color_range))
    gather = _gather_for(*layout, turns, size)
    return gather(frame) if gather else _resized(bgr(frame, turns), size)


def scaled_rgb(frame: Any, turns: int, size: Size) -> np.ndarray:
    """The frame upright and scaled as ffmpeg's `-s` does it, bicubic over all its pixels: uint8, (height, width, 3)."""
    width, height = size[::-1] if turns % 2 else size
    scaled = _reformatter("scaled").reformat(frame, width, height, "rgb24", interpolation="BICUBIC", threads=1)
    return _upright(scaled.to_ndarray(), turns)


@dataclasses.dataclass(frozen=True, slots=True)
class Planes:
    """A picture as full-range Y'CbCr 4:2:0: uint8 planes, chroma half as wide and high, rounded up."""

    y: np.ndarray
    u: np.ndarray
    v: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.y.nbytes + self.u.nbytes + self.v.nbytes

    def jpeg(self, quality: int) -> bytes:
        return simplejpeg.encode_jpeg_yuv_planes(self.y, self.u, self.v, quality=quality)


def planes(frame: Any, turns: int, size: Size) -> Planes:
    """The frame upright, at `size`; each pixel is the mean of those that it stands for."""
    width, height = size[::-1] if turns % 2 else size
    scale = functools.partial(_reformatter("planes").reformat, dst_color_range="JPEG", interpolation="AREA", threads=1)
    small = scale(frame, width, height, "yuv420p")
    half = ((width + 1) // 2, (height + 1) // 2)
    shapes = ((width, height), half, half)
    # Copied: rows are padded in the frame, and the planes outlive it.
    views = zip(_views(small), shapes, strict=True)
    found = (_upright(view[:rows, :columns], turns) for view, (columns, rows) in views)
    return Planes(*(np.ascontiguousarray(plane) for plane in found))


def encodable(frame: Any, turns: int, size: Size) -> Any:
    """The frame upright, at `size`, as video-range Y'CbCr 4:2:0 with 8 bits; the very frame where it is that already.

    Args:
      size: even.
    """
    width, height = size[::-1] if turns % 2 else size
    plain = frame.format.name == "yuv420p" and int(frame.color_range) != _FULL_RANGE
    if not plain or (frame.width, frame.height) != (width, height):
        scale = functools.partial(_reformatter("clips").reformat, dst_color_range="MPEG", threads=1)
        frame = scale(frame, width, height, "yuv420p", interpolation="BICUBIC")
    if not turns:
        return frame
    upright = av.VideoFrame(*size, "yuv420p")
    for name in ("colorspace", "color_range", "color_trc", "color_primaries"):
        setattr(upright, name, int(getattr(frame, name)))
    shapes = ((width, height), *[(width // 2, height // 2)] * 2)
    for source, target, (columns, rows) in zip(_views(frame), _views(upright), shapes, strict=True):
        turned = np.rot90(source[:rows, :columns], turns)
        target[: turned.shape[0], : turned.shape[1]] = turned
    return upright


def _reformatter(use: str) -> VideoReformatter:
    """One for each thread, as none may be used by two, and for each use: each holds tables for what it did last."""
    if not hasattr(_own, use):
        setattr(_own, use, VideoReformatter())
    return getattr(_own, use)


def _bgr24(frame: Any, reformatter: VideoReformatter) -> Any:
    # Bicubic, and one thread, because that is what OpenCV's reader does, bit for bit.
    return reformatter.reformat(frame, format="bgr24", interpolation="BICUBIC", threads=1)


def _upright(pixels: np.ndarray, turns: int) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _resized(pixels: np.ndarray, size: Size) -> np.ndarray:
    if size == (pixels.shape[1], pixels.shape[0]):
        return pixels
    return cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)


def _views(frame: Any) -> list[np.ndarray]:
    """A view of each plane with its padding: uint8, (rows, bytes a row)."""
    return [np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size) for plane in frame.planes]


@functools.lru_cache(maxsize=64)
def _gather_for(
    name: str, width: int, height: int, colorspace: int, color_range: int, turns: int, size: Size
) -> Callable[[Any], np.ndarray] | None:
    """How to resize frames of this layout without converting them whole; None where that is not to be had."""
    small = size[::-1] if turns % 2 else size
    across, down = _odd_factor(width, small[0]), _odd_factor(height, small[1])
    if name not in _GATHERED_FORMATS or (across, down) == (1, 1) or width % _ALIGNED or height % 2:
        return None
    gather = _Gather(name, width, height, across, down, turns, size)
    noise = _noise(name, width, height, colorspace, color_range)
    return gather if np.array_equal(gather(noise), _resized(bgr(noise, turns), size)) else None


def _odd_factor(length: int, small: int) -> int:
    """By what odd whole factor `length` shrinks to `small`; 1 if by none."""
    factor, rest = divmod(length, small)
    return factor if not rest and factor % 2 else 1


def _noise(name: str, width: int, height: int, colorspace: int, color_range: int) -> Any:
    frame = av.VideoFrame(width, height, name)
    frame.colorspace, frame.color_range = colorspace, color_range
    draw = np.random.default_rng(0)
    for plane in frame.planes:
        plane.update(draw.integers(0, 256, plane.buffer_size, np.uint8).tobytes())
    return frame


class _Gather:
    """Shrinks frames of one layout by odd factors: one pixel in `across` by `down` is converted, the middle one.

    Two pixels side by side share their chroma in a 4:2:0 frame, and gathered ones must not: so along an axis that
    shrinks, each has a neighbour that nobody looks at.
    """

    def __init__(self, name: str, width: int, height: int, across: int, down: int, turns: int, size: Size):
        self._turns, self._size = turns, size
        self._columns, self._rows = _Axis(width, across), _Axis(height, down)
        self._frame = av.VideoFrame(self._columns.spread, self._rows.spread, name)
        self._views = _views(self._frame)
        self._reformatter = VideoReformatter()

    def __call__(self, frame: Any) -> np.ndarray:
        columns, rows, gathered = self._columns, self._rows, self._frame
        gathered.colorspace, gathered.color_range = frame.colorspace, frame.color_range
        (luma, *chroma), (into, *chroma_into) = _views(frame), self._views
        into[rows.into, columns.into] = luma[rows.luma, columns.luma]
        for source, target in zip(chroma, chroma_into, strict=True):
            for to_row, from_row in rows.chroma:
                for to_column, from_column in columns.chroma:
                    target[to_row, to_column] = source[from_row, from_column]
        (converted,) = _views(_bgr24(gathered, self._reformatter))
        pixels = converted[: rows.spread, : 3 * columns.spread].reshape(rows.spread, columns.spread, 3)
        if (columns.spread, rows.spread) != (columns.kept, rows.kept):
            pixels = cv2.resize(pixels, (columns.kept, rows.kept), interpolation=cv2.INTER_NEAREST)
        return _resized(_upright(pixels, self._turns), self._size)


class _Axis:
    """Which positions along one axis are gathered, and where they go.

    `kept` pixels are gathered, `spread` is how many the frame has that holds them; `luma` takes them from the source
    and `into` puts them; `chroma` does both for every phase that the two rhythms of chroma and gathering have.
    """

    def __init__(self, length: int, factor: int):
        self.kept = length // factor
        if factor == 1:
            self.spread, half = length, slice(0, (length + 1) // 2)
            self.luma = self.into = slice(0, length)
            self.chroma = [(half, half)]
            return
        middle = factor // 2
        self.spread = 2 * self.kept
        self.luma, self.into = slice(middle, length, factor), slice(0, self.spread, 2)
        # Pixel n lies at factor * n + middle; its chroma at half of that, and so two steps further on by `factor`.
        self.chroma = [
            (slice(phase, self.kept, 2), slice((factor * phase + middle) // 2, length // 2, factor)) for phase in (0, 1)
        ]
