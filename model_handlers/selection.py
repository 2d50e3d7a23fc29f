"""Selectors: how well each candidate caption fits its clip.

    captioned | RunInference(catalogue.selector("conse").build())     # answers one score a candidate, in [-1, 1]

The module is not called `selectors`: the standard library has one of that name.
"""

from __future__ import annotations

from collections.abc import Sequence

from model_handlers.lite import Lite, LiteHandler
from transforms.records import CaptionedClip


class ConseSelector(LiteHandler[CaptionedClip, tuple[float, ...]]):
    """ConSE between twelve frames and each sentence of a caption; see `model_handlers.conse`."""

    def answer(self, requests: Sequence[CaptionedClip], model: Lite) -> list[tuple[float, ...]]:
        return [self._scores(request, model) for request in requests]

    def _scores(self, request: CaptionedClip, model: Lite) -> tuple[float, ...]:
        picture = model.conse.recall(model.conse.picture(model.clip_sight(request.clip).probabilities))
        return tuple(model.conse.fit_captions(picture, [candidate.text for candidate in request.candidates]))
