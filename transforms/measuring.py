"""Measure each clip by its pictures, beside its captions: motion, blur, borders, and whatever else was asked for.

    stages = (Measuring(Asked("Pixels", {"blur": "5a0c91d2"}, {"blur": ["blur"]}), Measurer("pixels", measures)),)
    clips | MeasureClips(stages)                 # -> MeasuredClip, with values={"blur": 0.31}

A measure fills columns of its own and has a fingerprint of its own, so that one that is added later is all that is
measured then. Its failure costs a clip these columns and nothing else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler

from transforms.counting import count
from transforms.inference import infer
from transforms.measure_columns import BY_NAME
from transforms.records import Clip, Failure, MeasuredClip, MeasureRequest, Outcome
from transforms.schemas import MEASURE_STAGE

_SETTLED = "settled"

LOST = Failure("LostResult", "what was measured of this clip got lost", "")

#: What measures answer: by the measure's name, its columns, or why there are none.
Answers = Mapping[str, Mapping[str, Any] | Failure]


@dataclasses.dataclass(frozen=True)
class Asked:
    """Measures that are asked for together.

    Attributes:
      name: of the step. fingerprints: by measure, changes when its values would. columns: by measure, what it fills.
    """

    name: str
    fingerprints: Mapping[str, str]
    columns: Mapping[str, Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Measuring:
    """Measures that one handler answers, on workers of one kind.

    Attributes:
      asked: which. handler: answers a `MeasureRequest` with `Answers`. hints: resource hints, as Beam has them.
    """

    asked: Asked
    handler: ModelHandler
    hints: Mapping[str, str] = dataclasses.field(default_factory=dict)


def begun(clip: Clip, stages: Sequence[Asked]) -> MeasuredClip:
    """A clip with what an earlier run measured of it, and with what failed then and is not tried again."""
    known = clip.earlier
    if known is None:
        return MeasuredClip(clip)
    values: dict[str, Any] = {}
    made_with: dict[str, str] = {}
    letters = []
    for stage in stages:
        for name, fingerprint in stage.fingerprints.items():
            if known.made_with.get(name) == fingerprint:
                made_with[name] = fingerprint
                values.update({column: known.values.get(column) for column in stage.columns[name]})
            elif letter := known.failure(MEASURE_STAGE, fingerprint=_place(name, fingerprint)):
                letters.append(letter)
    return MeasuredClip(clip, values, made_with, tuple(letters))


def missing(measured: MeasuredClip, stage: Asked) -> tuple[str, ...]:
    """The measures of a stage that a clip still lacks."""
    failed = {letter.fingerprint for letter in measured.dead_letters}
    return tuple(
        name
        for name, fingerprint in stage.fingerprints.items()
        if name not in measured.made_with and _place(name, fingerprint) not in failed
    )


def with_answers(outcome: Outcome[MeasureRequest, Answers], stage: Asked) -> MeasuredClip:
    """The clip with what came of measuring it; a number that cannot be is a failure."""
    measured, names = outcome.request.measured, outcome.request.names
    values, made_with, letters = dict(measured.values), dict(measured.made_with), list(measured.dead_letters)
    answers = outcome.answer or {}
    for name in names:
        answer = outcome.failure or answers.get(name, LOST)
        found = answer if isinstance(answer, Failure) else _checked(name, answer, stage.columns[name])
        if isinstance(found, Failure):
            letters.append(_letter(measured.clip, name, stage.fingerprints[name], found))
        else:
            values.update(found)
            made_with[name] = stage.fingerprints[name]
    return MeasuredClip(measured.clip, values, made_with, tuple(letters))


def lost(clip: Clip) -> MeasuredClip:
    """Stands for what never came back."""
    return MeasuredClip(clip, dead_letters=(_letter(clip, "measures", "", LOST),))


def _checked(name: str, found: Mapping[str, Any], columns: Sequence[str]) -> Mapping[str, Any] | Failure:
    if set(found) != set(columns):
        return Failure("BadMeasurement", f"it filled {', '.join(sorted(found))}, not {', '.join(columns)}", "")
    for column, value in found.items():
        if not BY_NAME[column].fits(value):
            return Failure("BadMeasurement", f"{column} cannot be {value}", "")
    return found


def _letter(clip: Clip, name: str, fingerprint: str, failure: Failure) -> Any:
    told = dataclasses.replace(failure, message=f"{name}: {failure.message}")
    place = _place(name, fingerprint)
    return told.letter(MEASURE_STAGE, clip.video_id, clip.uri, clip_id=clip.clip_id, span=clip.span, fingerprint=place)


def _place(name: str, fingerprint: str) -> str:
    """What a dead letter says was asked: several measures of one clip may fail."""
    return f"{name}:{fingerprint}"


@dataclasses.dataclass
class MeasureClips(beam.PTransform):
    """Measure each clip.

    Clip in, one MeasuredClip out for each; bounded or unbounded. A failure costs the columns of its measure, not the
    clip.

    Args:
      stages: one after the other; what an earlier run measured with the same fingerprint is not measured again.
      derive: columns made of the others, by name: each a function of the values of a clip.
    """

    stages: Sequence[Measuring]
    derive: Mapping[str, Callable[[Mapping[str, Any]], Any]] = dataclasses.field(default_factory=dict)

    def expand(self, clips: beam.PCollection[Clip]) -> beam.PCollection[MeasuredClip]:
        asked = [stage.asked for stage in self.stages]
        measured = clips | "Recall" >> beam.Map(begun, asked).with_output_types(MeasuredClip)
        for stage in self.stages:
            measured = measured | stage.asked.name >> _Measure(stage)
        if self.derive:
            measured = measured | "Derive" >> beam.Map(_derived, dict(self.derive)).with_output_types(MeasuredClip)
        return measured


@dataclasses.dataclass
class _Measure(beam.PTransform):
    stage: Measuring

    def expand(self, measured: beam.PCollection[MeasuredClip]) -> beam.PCollection[MeasuredClip]:
        stage = self.stage
        sorted_clips = measured | "Settle" >> beam.FlatMap(_settle, stage.asked).with_outputs(_SETTLED, main="open")
        answered = (
            sorted_clips["open"]
            | "Spread" >> beam.Reshuffle()
            | "Measure" >> infer(stage.handler, stage.hints)
            | "Answers" >> beam.Map(_answered, stage.asked).with_output_types(MeasuredClip)
        )
        return (answered, sorted_clips[_SETTLED]) | beam.Flatten()


def _settle(measured: MeasuredClip, stage: Asked) -> Iterator[Any]:
    """Pass a clip on to be measured, unless nothing of this stage is missing."""
    names = missing(measured, stage)
    settled = len(stage.fingerprints) - len(names)
    # What is settled went well then, or failed and stands.
    well = len(stage.fingerprints.keys() & measured.made_with.keys())
    count("measure", in_=len(stage.fingerprints), reused=settled, out=well, failed=settled - well)
    if names:
        yield MeasureRequest(measured, names)
        return
    Metrics.counter("reelscribe/measure", "reused").inc()
    yield beam.pvalue.TaggedOutput(_SETTLED, measured)


def _answered(outcome: Outcome[MeasureRequest, Answers], stage: Asked) -> MeasuredClip:
    before, measured = outcome.request.measured, with_answers(outcome, stage)
    failed = len(measured.dead_letters) - len(before.dead_letters)
    count("measure", out=len(outcome.request.names) - failed, failed=failed)
    Metrics.counter("reelscribe/measure", "failed" if failed else "clips").inc()
    return measured


def _derived(measured: MeasuredClip, derive: Mapping[str, Callable[[Mapping[str, Any]], Any]]) -> MeasuredClip:
    found = {column: make(measured.values) for column, make in derive.items()}
    return dataclasses.replace(measured, values={**measured.values, **found})
