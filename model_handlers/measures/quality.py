"""How good a clip's pictures are technically, by CLIP-IQA (Wang et al., AAAI 2023, arXiv 2207.12396).

    measure(Settings()).load()(view)            # -> {"technical_quality": 0.62}

The probability that "Good photo." fits a frame when "Bad photo." is the other choice, by the model's own scale; the
mean over the clip's frames. The paper took CLIP's ResNet-50 without position embeddings at full size; here any
two-tower checkpoint looks at a reel's frame in its own size: the values order clips of one job and are not the paper's.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from model_handlers.measures.two_towers import CLIP_VIT_L, TwoTowers, check_frames, checkpoint, load_towers
from model_handlers.measures.view import ClipView, Look, Measure
from model_handlers.settings import Settings as Checkpoint

#: The paper's antonyms, the good one first.
PROMPTS = ("Good photo.", "Bad photo.")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which two-tower model.

    Attributes:
      weights, revision: see `two_towers.checkpoint`.
      frames: uniform ones of the clip. dtype: what the model computes in; see `devices.choose_device`.

    Raises:
      ValueError: a setting that cannot be meant.
    """

    weights: str = CLIP_VIT_L
    revision: str = ""
    frames: int = 4
    dtype: str = "auto-float16"

    def __post_init__(self) -> None:
        check_frames(self.frames)
        self.checkpoint()

    def checkpoint(self) -> Checkpoint:
        """How the model is loaded."""
        return checkpoint(self.weights, self.revision, self.dtype)


def measure(settings: Settings) -> Measure:
    """The measure `quality`.

    Raises:
      WeightsError: there are no such weights.
    """
    return Measure(
        name="quality",
        columns=("technical_quality",),
        summary="whether the frames look like good or like bad photographs: 0 to 1, by CLIP-IQA",
        load=functools.partial(_load, settings),
        identity=(settings.checkpoint().version(), PROMPTS, settings.frames, settings.dtype),
    )


def _load(settings: Settings) -> Look:
    towers = load_towers(settings.checkpoint())
    return functools.partial(look, towers, towers.read(PROMPTS), settings.frames)


def look(towers: TwoTowers, prompts: np.ndarray, frames: int, view: ClipView) -> dict[str, float]:
    """The quality of a clip. prompts: the unit vectors of `PROMPTS`, (2, width)."""
    cosines = towers.see(view, view.uniform(frames)) @ prompts.T
    return {"technical_quality": float(goodness(cosines, towers.scale).mean())}


def goodness(cosines: np.ndarray, scale: float) -> np.ndarray:
    """The softmax of the first of two cosines (n, 2) at a scale: (n,), in [0, 1]."""
    # As a hyperbolic tangent the logistic function overflows at neither end.
    return 0.5 + 0.5 * np.tanh(scale * (cosines[:, 0] - cosines[:, 1]) / 2)
