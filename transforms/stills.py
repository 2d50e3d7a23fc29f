"""Pictures that may go into the reel, waiting in bounded memory until it is known which of them do.

    stills = Stills(short_side_px=448, quality=90)
    stills.add(picture, facts_size)
    stills.drop(7); stills.jpeg(8)

A decoded frame is kept as it is, which costs no time, as most are never asked for. When too many wait, the oldest are
made small, and when even that is not enough, they become JPEG files.
"""

from __future__ import annotations

from collections import deque

from transforms.media import Picture
from transforms.pixels import Planes, Size

#: What may wait altogether before the oldest pictures are made smaller.
_BYTES = 160 << 20


class Stills:
    """The pictures that wait, by decode index.

    Args:
      short_side_px: of a picture in the reel, at most; the long side is at most four times that.
      quality: of its JPEG file, 1 to 100.
    """

    def __init__(self, short_side_px: int, quality: int):
        self._short_side_px = short_side_px
        self._quality = quality
        self._waiting: dict[int, tuple[Picture | Planes | bytes, Size]] = {}
        self._frames: deque[int] = deque()
        self._planes: deque[int] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, picture: Picture, size: Size) -> None:
        """Take a picture in; `size` is (width, height) as displayed."""
        self._put(picture.index, picture, self._small(size))
        self._frames.append(picture.index)
        while self._bytes > _BYTES and (self._frames or self._planes):
            self._reduce()

    def drop(self, index: int) -> None:
        """Forget a picture."""
        picture, _ = self._waiting.pop(index)
        self._bytes -= _nbytes(picture)

    def jpeg(self, index: int) -> bytes:
        """The picture as a JPEG file."""
        picture, size = self._waiting[index]
        if isinstance(picture, bytes):
            return picture
        return (picture if isinstance(picture, Planes) else picture.planes(size)).jpeg(self._quality)

    def _put(self, index: int, picture: Picture | Planes | bytes, size: Size) -> None:
        if index in self._waiting:
            self._bytes -= _nbytes(self._waiting[index][0])
        self._waiting[index] = picture, size
        self._bytes += _nbytes(picture)

    def _reduce(self) -> None:
        """Make the oldest picture that is not small yet so; if all are, make the oldest a JPEG file."""
        index = (self._frames or self._planes).popleft()
        if index not in self._waiting:
            return
        picture, size = self._waiting[index]
        if isinstance(picture, Planes):
            self._put(index, picture.jpeg(self._quality), size)
        elif isinstance(picture, Picture):
            self._put(index, picture.planes(size), size)
            self._planes.append(index)

    def _small(self, size: Size) -> Size:
        """The displayed shape, its short side at most `short_side_px`, the long one at most 4 times that."""
        width, height = size
        limit = self._short_side_px
        scale = min(1.0, limit / min(width, height), 4 * limit / max(width, height))
        return max(1, round(width * scale)), max(1, round(height * scale))


def _nbytes(picture: Picture | Planes | bytes) -> int:
    return len(picture) if isinstance(picture, bytes) else picture.nbytes
