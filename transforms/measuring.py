"""Measure how much each clip changes within itself: Max Running LPIPS, the paper's section 3.1 and table 2.

clips | MeasureClips(catalogue.lpips("weights.safetensors", sha256).build())     # -> Measurement
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler

from transforms.counting import count
from transforms.inference import infer
from transforms.records import Clip, DeadLetter, Failure, Measurement, Outcome
from transforms.schemas import MEASURE_STAGE

_SETTLED = "settled"

LOST = Failure("LostResult", "the measurement of this clip got lost", "")


def measurement_of(outcome: Outcome[Clip, float | None]) -> Measurement:
    """What came of measuring one clip; a number that is no distance is a failure."""
    clip, value, failure = outcome.request, outcome.answer, outcome.failure
    if failure is None and value is not None and not (math.isfinite(value) and value >= 0):
        failure = Failure("BadMeasurement", f"Max Running LPIPS cannot be {value}", "")
    if failure is not None:
        return failed(clip, failure)
    return _of(clip, None if value is None else float(value))


def failed(clip: Clip, failure: Failure) -> Measurement:
    """A measurement that could not be made: its dead letter costs the clip nothing but the number."""
    letter = failure.letter(MEASURE_STAGE, clip.video_id, clip.uri, clip_id=clip.clip_id, span=clip.span)
    return _of(clip, None, letter)


def _of(clip: Clip, value: float | None, letter: DeadLetter | None = None) -> Measurement:
    return Measurement(clip.video_id, clip.clip_id, value, letter, clip.version)


@dataclasses.dataclass
class MeasureClips(beam.PTransform):
    """Measure each clip.

    Clip in, one Measurement out for each; bounded or unbounded. A failure costs the number, not the clip.

    Args:
      handler: answers a `Clip` with its Max Running LPIPS, or None when there is nothing to compare.
      hints: resource hints, as Beam has them.
    """

    handler: ModelHandler
    hints: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def expand(self, clips: beam.PCollection[Clip]) -> beam.PCollection[Measurement]:
        sorted_clips = clips | "Settle" >> beam.FlatMap(_settle).with_outputs(_SETTLED, main="open")
        measured = (
            sorted_clips["open"]
            | "Spread" >> beam.Reshuffle()
            | "Measure" >> infer(self.handler, self.hints)
            | "Measurement" >> beam.Map(_measured).with_output_types(Measurement)
        )
        return (measured, sorted_clips[_SETTLED]) | beam.Flatten()


def _settle(clip: Clip) -> Iterator[Any]:
    """Pass a clip on to be measured, unless an earlier run did, or failed and that stands."""
    count("measure", in_=1)
    known = clip.earlier
    letter = known.failure(MEASURE_STAGE) if known else None
    if known is None or not (known.measured or letter):
        yield clip
        return
    Metrics.counter("reelscribe/measure", "reused").inc()
    count("measure", reused=1, **{"failed" if letter else "out": 1})
    yield beam.pvalue.TaggedOutput(_SETTLED, _of(clip, known.max_running_lpips, letter))


def _measured(outcome: Outcome[Clip, float | None]) -> Measurement:
    measurement = measurement_of(outcome)
    Metrics.counter("reelscribe/measure", "failed" if measurement.dead_letter else "clips").inc()
    count("measure", **{"failed" if measurement.dead_letter else "out": 1})
    return measurement
