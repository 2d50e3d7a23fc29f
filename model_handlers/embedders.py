"""Embedders: a shot's two boundary frames as unit vectors, for the stitching rules.

    requests | RunInference(catalogue.embedder("efficientnet-lite0").build())     # answers (first, last)

The frames come out of the reel; a reel that is missing costs its own request.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model_handlers.base import ElementwiseHandler
from model_handlers.frames import open_reel
from model_handlers.vision import Vision, load_vision
from transforms.records import EmbedRequest, Vector


class EfficientNetEmbedder(ElementwiseHandler[EmbedRequest, tuple[Vector, Vector], Vision]):
    """EfficientNet-Lite0's pooled features, 1280-d, L2-normalised."""

    @property
    def model_key(self) -> str:
        return "efficientnet-lite0"

    def load(self) -> Vision:
        return load_vision()

    def answer(self, requests: Sequence[EmbedRequest], model: Vision) -> list[tuple[Vector, Vector]]:
        return [self._boundaries(request, model) for request in requests]

    def _boundaries(self, request: EmbedRequest, model: Vision) -> tuple[Vector, Vector]:
        reel = open_reel(request.reel)
        rows = [reel.nearest(request.shot.first_s), reel.nearest(request.shot.last_s)]
        first, last = (unit_vector(features) for features in model.look(reel, rows).features)
        return first, last


def unit_vector(features: np.ndarray) -> Vector:
    """The features at length 1, as a tuple of floats. A vector of zeros has no direction, and is an error."""
    length = float(np.linalg.norm(features))
    if not np.isfinite(length) or length == 0.0:
        raise ValueError("the network gave a frame no usable features")
    return tuple((features / length).tolist())
