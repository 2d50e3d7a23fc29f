"""What people see of a clip that has no file of its own: frames of its reel in rows, from left to right.

open("clip.jpg", "wb").write(sheet(jpegs))
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

COLUMNS = 4
WIDTH = 320
GAP = 4
QUALITY = 80


def sheet(jpegs: Sequence[bytes]) -> bytes:
    """Put frames into rows of four, as a JPEG file some 1,300 pixels wide: large enough to judge details by.

    Raises:
      OSError: a frame is no picture. ValueError: there is none.
    """
    if not jpegs:
        raise ValueError("there are no frames")
    frames = [_small(jpeg) for jpeg in jpegs]
    width, height = frames[0].size
    columns = min(COLUMNS, len(frames))
    rows = -(-len(frames) // columns)
    # Grey between the frames sits well on a light page and on a dark one.
    page = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP), (128, 128, 128))
    for at, frame in enumerate(frames):
        page.paste(frame, (at % columns * (width + GAP), at // columns * (height + GAP)))
    sink = io.BytesIO()
    page.save(sink, "JPEG", quality=QUALITY, optimize=True)
    return sink.getvalue()


def _small(jpeg: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(jpeg))
    size = (WIDTH, max(24, min(2 * WIDTH, round(picture.height * WIDTH / picture.width))))
    picture.draft("RGB", size)
    return picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
