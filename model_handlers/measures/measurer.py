"""One handler for any number of measures: the frames of a clip are decoded once, and each measure looks at them.

requests | RunInference(Measurer("pixels", (blur.MEASURE, borders.MEASURE)))    # -> {"blur": {"blur": 0.3}, ...}
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

from apache_beam.metrics import Metrics

from model_handlers.base import ENVIRONMENT_ERRORS, ElementwiseHandler
from model_handlers.measures.view import ClipView, Look, Measure
from transforms.records import Failure, MeasureRequest

Answers = Mapping[str, Mapping[str, Any] | Failure]


@dataclasses.dataclass(frozen=True)
class Looks:
    """The measures of a handler, loaded: by name."""

    by_name: Mapping[str, Look]


class Measurer(ElementwiseHandler[MeasureRequest, Answers, Looks]):
    """Answers a request with the columns of each measure that was asked for, or why there are none.

    Args:
      name: of the handler. measures: by their names a request asks for them.
    """

    def __init__(self, name: str, measures: Sequence[Measure]):
        super().__init__(name, max_batch=4)
        self.measures = tuple(measures)

    @property
    def model_key(self) -> str:
        return "measures:" + ",".join(f"{one.name}:{one.fingerprint}" for one in self.measures)

    def load(self) -> Looks:
        return Looks({one.name: one.load() for one in self.measures})

    def answer(self, requests: Sequence[MeasureRequest], model: Looks) -> list[Answers]:
        return [_look(request, model) for request in requests]


def _look(request: MeasureRequest, looks: Looks) -> Answers:
    view = ClipView(request.measured.clip)
    found: dict[str, Mapping[str, Any] | Failure] = {}
    for name in request.names:
        began = time.perf_counter()
        try:
            found[name] = looks.by_name[name](view)
        except ENVIRONMENT_ERRORS:
            raise
        except Exception as error:
            found[name] = Failure.of(error)
        # They share the frames: the first to ask for one is the one that decodes it.
        Metrics.counter(f"reelscribe/stages/measure/{name}", "clips").inc()
        Metrics.counter(f"reelscribe/stages/measure/{name}", "seconds_us").inc(
            round(1e6 * (time.perf_counter() - began))
        )
    return found
