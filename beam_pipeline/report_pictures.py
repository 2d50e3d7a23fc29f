"""Contact sheets: a few frames of a clip side by side, taken from the video's reel.

    ContactSheets(dataset_dir).sheet("video-1", 12.5, 20.0)     # -> Sheet(jpeg, width=1081, height=120, frames=5)

A sheet has at most `MAX_SHEET_BYTES`, so that the size of a report is known from its number of clips.
"""

from __future__ import annotations

import base64
import dataclasses
import io

import pyarrow as pa
from PIL import Image

from transforms.reel import Reel, ReelError
from transforms.reels import readable_reel

HEIGHT = 120
GAP = 4
WIDTH_AIMED_AT = 1100
MAX_SHEET_BYTES = 36_000
QUALITIES = (72, 60, 45, 30)


@dataclasses.dataclass(frozen=True, slots=True)
class Sheet:
    """A contact sheet as a JPEG file, its size in pixels, and how many frames it shows."""

    jpeg: bytes
    width: int
    height: int
    frames: int

    @property
    def uri(self) -> str:
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg).decode("ascii")


class ContactSheets:
    """Makes the sheets of one dataset, keeping one reel open; ask video by video."""

    def __init__(self, dataset_dir: str):
        self._dataset_dir = dataset_dir
        self._video_id: str | None = None
        self._reel: Reel | None = None

    def sheet(self, video_id: str, start_s: float, end_s: float) -> Sheet | None:
        """The sheet of a span, or None where the reel is missing (`--reels drop`) or can't be read."""
        if video_id != self._video_id:
            self._video_id, self._reel = video_id, readable_reel(self._dataset_dir, video_id)
        if self._reel is None:
            return None
        try:
            return contact_sheet(self._reel, start_s, end_s)
        except (ReelError, OSError, ValueError, SyntaxError, pa.ArrowInvalid):
            return None


def contact_sheet(reel: Reel, start_s: float, end_s: float) -> Sheet:
    """Put 4 to 6 frames of the span side by side, as many as fit the width aimed at."""
    rows = reel.uniform(start_s, end_s, 6)
    first = _thumbnail(reel.jpegs(rows[:1])[0])
    count = min(6, max(4, WIDTH_AIMED_AT // (first.width + GAP)))
    rows = reel.uniform(start_s, end_s, count)
    thumbnails = [_thumbnail(jpeg) for jpeg in reel.jpegs(rows)]
    width = sum(picture.width for picture in thumbnails) + GAP * (len(thumbnails) - 1)
    # Grey between the frames sits well on a light page and on a dark one.
    strip = Image.new("RGB", (width, HEIGHT), (128, 128, 128))
    at = 0
    for picture in thumbnails:
        strip.paste(picture, (at, 0))
        at += picture.width + GAP
    return Sheet(_encode(strip), width, HEIGHT, len(thumbnails))


def _thumbnail(jpeg: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(jpeg))
    width = max(24, min(480, round(picture.width * HEIGHT / picture.height)))
    # The decoder halves a picture for next to nothing, as often as the rest of the way stays a reduction.
    picture.draft("RGB", (width, HEIGHT))
    return picture.convert("RGB").resize((width, HEIGHT), Image.Resampling.BICUBIC)


def _encode(strip: Image.Image) -> bytes:
    for quality in QUALITIES:
        sink = io.BytesIO()
        strip.save(sink, "JPEG", quality=quality, optimize=True)
        if sink.tell() <= MAX_SHEET_BYTES:
            return sink.getvalue()
    # Noise does not compress: it loses its detail instead.
    sink = io.BytesIO()
    strip.reduce(2).save(sink, "JPEG", quality=QUALITIES[-1])
    return sink.getvalue()
