"""Pictures that may go into the reel, waiting in bounded memory until it is known which of them do.

    stills = Stills(short_side_px=448, quality=90)
    stills.add(picture, displayed_size)
    stills.drop(7); stills.take(8).jpeg()

A decoded frame is kept as it is, which costs no time, as most are never asked for. When too many wait, the oldest are
made small, and when even that is not enough, they become JPEG files.
"""

from __future__ import annotations

from collections import deque

from transforms.media import Picture
from transforms.pixels import Planes, Size

#: What may wait altogether before the oldest pictures are made smaller.
_BYTES = 160 << 20


class Still:
    """One picture: a decoded frame, its planes at their final size, or a JPEG file."""

    def __init__(self, picture: Picture, size: Size, quality: int):
        self._form: Picture | Planes | bytes = picture
        self._size, self._quality = size, quality
        self.nbytes = picture.nbytes

    def jpeg(self) -> bytes:
        """The JPEG file."""
        while not isinstance(self._form, bytes):
            self.reduce()
        return self._form

    def reduce(self) -> None:
        """Make it one step smaller."""
        if isinstance(self._form, Picture):
            self._form = self._form.planes(self._size)
            self.nbytes = self._form.nbytes
        elif isinstance(self._form, Planes):
            self._form = self._form.jpeg(self._quality)
            self.nbytes = len(self._form)


class Stills:
    """The pictures that wait, by decode index.

    Args:
      short_side_px: of a picture in the reel, at most; the long side is at most four times that.
      quality: of its JPEG file, 1 to 100.
    """

    def __init__(self, short_side_px: int, quality: int):
        self._short_side_px = short_side_px
        self._quality = quality
        self._waiting: dict[int, Still] = {}
        self._frames: deque[int] = deque()
        self._planes: deque[int] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, picture: Picture, size: Size) -> None:
        """Take a picture in; `size` is (width, height) as displayed."""
        still = Still(picture, self._small(size), self._quality)
        self._waiting[picture.index] = still
        self._frames.append(picture.index)
        self._bytes += still.nbytes
        while self._bytes > _BYTES and (self._frames or self._planes):
            self._reduce()

    def take(self, index: int) -> Still:
        """Hand a picture out; it waits here no longer."""
        still = self._waiting.pop(index)
        self._bytes -= still.nbytes
        return still

    def drop(self, index: int) -> None:
        """Forget a picture."""
        self.take(index)

    def _reduce(self) -> None:
        """Reduce the oldest picture that is not small yet; if all are, the oldest that is no JPEG file."""
        small = not self._frames
        index = (self._planes if small else self._frames).popleft()
        still = self._waiting.get(index)
        if still is None:
            return
        self._bytes -= still.nbytes
        still.reduce()
        self._bytes += still.nbytes
        if not small:
            self._planes.append(index)

    def _small(self, size: Size) -> Size:
        """The displayed shape, its short side at most `short_side_px`, the long one at most 4 times that."""
        width, height = size
        limit = self._short_side_px
        scale = min(1.0, limit / min(width, height), 4 * limit / max(width, height))
        return max(1, round(width * scale)), max(1, round(height * scale))
