"""The columns that measures of a clip fill: their types, what they may hold, and what they mean.

    BY_NAME["blur"].fits(1.5)        # -> False

They stand at the end of `clips`, null where the measure was not asked for, and of `rejected`, for clips that a rule of
the user's dropped: whoever moves a threshold sees on both sides of it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa


@dataclasses.dataclass(frozen=True, slots=True)
class MeasureColumn:
    """A column that a measure fills.

    `low` and `high` bound its numbers, both inclusive; None: open. `title` is a heading for people.
    """

    name: str
    kind: pa.DataType
    title: str
    meaning: str
    low: float | None = None
    high: float | None = None

    @property
    def is_number(self) -> bool:
        """Whether a threshold makes sense of it."""
        return pa.types.is_floating(self.kind)

    def fits(self, value: Any) -> bool:
        """Whether the column may hold this; None it always may."""
        if value is None or not self.is_number:
            return True
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return math.isfinite(value) and low <= value <= high


def _share(name: str, title: str, meaning: str) -> MeasureColumn:
    return MeasureColumn(name, pa.float32(), title, meaning, 0.0, 1.0)


_SPEED = "short sides of the picture a second"

MEASURED: tuple[MeasureColumn, ...] = (
    MeasureColumn(
        "max_running_lpips",
        pa.float32(),
        "Max Running LPIPS",
        "the greatest LPIPS between key frames at 1 fps, 0 for none; null if there is but one frame",
        0.0,
    ),
    MeasureColumn("motion", pa.float32(), "Motion", f"how fast the picture moves, {_SPEED}", 0.0),
    MeasureColumn("camera_motion", pa.float32(), "Camera motion", f"what of it the camera does, {_SPEED}", 0.0),
    MeasureColumn("subject_motion", pa.float32(), "Subject motion", f"what moves by itself, {_SPEED}", 0.0),
    _share("brightness", "Brightness", "mean luma, 0 black to 1 white"),
    _share("contrast", "Contrast", "standard deviation of luma, at most 0.5"),
    _share("underexposed", "Underexposed", "share of the picture that is crushed to black"),
    _share("overexposed", "Overexposed", "share of the picture that is blown to white"),
    _share("blur", "Blur", "0 sharp to 1 blurred (Crete et al. 2007)"),
    _share("border_share", "Borders", "share of the picture that letterbox, pillarbox or other flat borders take"),
    MeasureColumn(
        "crop",
        pa.list_(pa.int32()),
        "Crop",
        "the picture without its borders: x, y, width, height, in pixels of the video as shown",
    ),
    _share("text_share", "Text on the picture", "share of the picture that text covers, on average"),
    _share("subtitle_share", "Burnt-in subtitles", "share of the frames that show burnt-in subtitles"),
    _share("watermark", "Watermark", "how sure it is that a mark stands on the whole video"),
    _share("screen_in_screen", "Screen in screen", "how sure it is that a picture stands in the picture"),
    _share("screen_recording", "Screen recording", "how sure it is that a computer's screen was recorded"),
    MeasureColumn("category", pa.string(), "Category", "the likeliest of the labels that were asked for"),
    _share("category_score", "Category's score", "the probability of that label among those asked for"),
    MeasureColumn("aesthetic", pa.float32(), "Aesthetic score", "as people would rate its pictures, about 1 to 10"),
    _share("technical_quality", "Technical quality", "CLIP-IQA: a good photo rather than a bad one"),
    _share("nsfw", "Not safe for work", "the greatest probability of an unsafe picture"),
    MeasureColumn(
        "desirable_filtering", pa.string(), "Desirability", "Panda-70M's label: desirable, or the first reason why not"
    ),
)

BY_NAME: Mapping[str, MeasureColumn] = {column.name: column for column in MEASURED}


def measured_row(values: Mapping[str, Any]) -> dict[str, Any]:
    """All columns of measures, None where nothing was measured."""
    return {name: values.get(name) for name in BY_NAME}
