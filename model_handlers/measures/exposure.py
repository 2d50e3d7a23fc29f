"""How bright a clip is, how much its greys differ, and how much of it is lost in black or white.

MEASURE.load()(view)     # {"brightness": 0.42, "contrast": 0.21, "underexposed": 0.03, "overexposed": 0.0}
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from model_handlers.measures.content import inside
from model_handlers.measures.view import ClipView, Measure

#: Luma (of 255) up to which a pixel is crushed and from which it is blown out: 3 % from either end, as a JPEG's
#: rounding moves black and white by a few levels.
CRUSHED, BLOWN = 8, 247
_LEVELS = np.arange(256, dtype=np.float64) / 255


@dataclasses.dataclass(frozen=True)
class Exposure:
    """The exposure of pictures, each value a share from 0 to 1.

    Attributes:
      brightness: mean luma (Rec. 601, as JPEG has it), not linear light.
      contrast: standard deviation of luma (RMS contrast, Peli 1990), at most 0.5: half black, half white.
      underexposed, overexposed: share of pixels within 3 % of black and of white.
    """

    brightness: float
    contrast: float
    underexposed: float
    overexposed: float


def exposure_of(frames: Sequence[np.ndarray]) -> Exposure:
    """The median over frames, uint8 RGB (height, width, 3), of each value; at least one frame."""
    found = np.median([_of_luma(_histogram(frame)) for frame in frames], axis=0)
    return Exposure(*(float(value) for value in found))


def _histogram(frame: np.ndarray) -> np.ndarray:
    import cv2

    luma = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
    return cv2.calcHist([luma], [0], None, [256], [0, 256]).ravel().astype(np.float64)


def _of_luma(histogram: np.ndarray) -> tuple[float, float, float, float]:
    share = histogram / histogram.sum()
    brightness = float(share @ _LEVELS)
    contrast = float(np.sqrt(share @ (_LEVELS - brightness) ** 2))
    return brightness, contrast, float(share[: CRUSHED + 1].sum()), float(share[BLOWN:].sum())


def measure_exposure(view: ClipView) -> Mapping[str, float]:
    """The exposure of the clip inside its content box."""
    return dataclasses.asdict(exposure_of(inside(view)))


MEASURE = Measure(
    name="exposure",
    columns=("brightness", "contrast", "underexposed", "overexposed"),
    summary="mean and spread of luma, shares of the picture that are crushed to black or blown out to white",
    load=lambda: measure_exposure,
)
