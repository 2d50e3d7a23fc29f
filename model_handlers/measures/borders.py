"""Letterbox, pillarbox and windowbox: how much of the picture they take, and where the content stands.

MEASURE.load()(view)     # {"border_share": 0.25, "crop": [0, 90, 1280, 540]}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from model_handlers.measures.content import SLACK, Box, content_box
from model_handlers.measures.view import ClipView, Measure


def crop_of(box: Box, width: int, height: int) -> list[int]:
    """The content box in pixels of the source as displayed: [x, y, width, height], for FFmpeg's crop=width:height:x:y.

    Sides with a bar are rounded inwards, so that no line of the bar stays, and to even numbers, as encoders of 4:2:0
    want them; a side without one stays as it is.
    """
    left, right = _inwards(box.left, box.right, width)
    top, bottom = _inwards(box.top, box.bottom, height)
    return [left, top, right - left, bottom - top]


def _inwards(first: float, last: float, length: int) -> tuple[int, int]:
    start = 2 * math.ceil(first * length / 2 - SLACK) if first > 0 else 0
    end = start + 2 * math.floor((last * length - start) / 2 + SLACK) if last < 1 or first > 0 else length
    return start, max(end, start + 1)


def measure_borders(view: ClipView) -> Mapping[str, Any]:
    """Share of the frame that is border, and the content box."""
    box = content_box(view)
    media = view.clip.media
    return {"border_share": 1 - box.area, "crop": crop_of(box, media.width, media.height)}


MEASURE = Measure(
    name="borders",
    columns=("border_share", "crop"),
    summary="letterbox, pillarbox and windowbox of one flat colour: their share of the picture, and the content box",
    load=lambda: measure_borders,
)
