"""Clean the chosen caption of each clip: text hygiene, as in section 3.3 of the Panda-70M paper.

    judged | CleanCaptions(Hygiene(tidy=tidied, names=Step(names), language=Step(language)))     # -> CleanedClip

What teachers said stays in the list `captions` as it was; this makes what the column `caption` says of it, and flags.
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
from transforms.records import DeadLetter, Failure, JudgedClip, Outcome
from transforms.schemas import CLEAN_STAGE
from transforms.tidying import without_names

_SETTLED = "settled"


@dataclasses.dataclass(frozen=True, slots=True)
class CleanedClip:
    """A judged clip, and what its caption is to say.

    `caption` is the cleaned text of the chosen candidate, None where the clip failed; the candidate's own words where
    cleaning failed, and then `dead_letters` says why. `language` is an ISO 639-1 code, None where it can't be told or
    nobody asked. `harmful` says whether a harmful word stands in what is written or said of the clip, None where nobody
    asked. `dead_letters` are those of cleaning alone. `made_with` stands for what was done to the caption.
    """

    judged: JudgedClip
    caption: str | None = None
    language: str | None = None
    harmful: bool | None = None
    dead_letters: tuple[DeadLetter, ...] = ()
    made_with: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """A text that a model is to read; `draft` is what becomes of the clip so far."""

    draft: CleanedClip
    text: str


@dataclasses.dataclass(frozen=True)
class Step:
    """A model that reads captions, and the resource hints of its stage.

    Attributes:
      handler: answers a request by its `text`.
    """

    handler: ModelHandler
    hints: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Hygiene:
    """What is done to the chosen captions; what is None is left out.

    Attributes:
      tidy: makes a text tell things once, and without stock openings.
      names: answers a text with the spans of persons' names in it, [start, end) in characters.
      harmful: answers a text with whether a harmful word stands in it.
      language: answers a text with its ISO 639-1 code, or None.
      made_with: the fingerprint of it all.
    """

    tidy: Callable[[str], str] | None = None
    names: Step | None = None
    harmful: Step | None = None
    language: Step | None = None
    made_with: str = ""


def drafted(judged: JudgedClip, tidy: Callable[[str], str] | None = None, made_with: str = "") -> CleanedClip:
    """The first draft: the chosen candidate's words, tidied; nothing where the clip failed."""
    if judged.chosen is None:
        return CleanedClip(judged)
    said = judged.captioned.candidates[judged.chosen].text
    return CleanedClip(judged, tidy(said) if tidy else said, made_with=made_with)


def read_caption(draft: CleanedClip) -> Reading:
    """What is asked about the caption alone."""
    return Reading(draft, draft.caption or "")


def read_all(draft: CleanedClip) -> Reading:
    """What is asked about all that is written or said of the clip: the candidate's own words, title and subtitles."""
    judged, clip = draft.judged, draft.judged.captioned.clip
    said = judged.captioned.candidates[judged.chosen].text if judged.chosen is not None else None
    return Reading(draft, "\n".join(text for text in (said, clip.title, clip.subtitles) if text))


def with_names_replaced(outcome: Outcome[Reading, Sequence[tuple[int, int]]]) -> CleanedClip:
    """The draft without the names that were found in its caption.

    Where they could not be looked for, the caption is the candidate's own, for nobody to take it for a cleaned one.
    """
    reading = outcome.request
    if outcome.failure is not None:
        raw = drafted(reading.draft.judged).caption
        return dataclasses.replace(_failed(reading.draft, "names", outcome.failure), caption=raw)
    return dataclasses.replace(reading.draft, caption=without_names(reading.text, outcome.answer or ()))


def with_harm_told(outcome: Outcome[Reading, bool]) -> CleanedClip:
    """The draft with its flag; null where the text could not be judged."""
    if outcome.failure is not None:
        return _failed(outcome.request.draft, "harmful text", outcome.failure)
    return dataclasses.replace(outcome.request.draft, harmful=bool(outcome.answer))


def with_language_told(outcome: Outcome[Reading, str | None]) -> CleanedClip:
    """The draft with its language; null where it could not be told."""
    if outcome.failure is not None:
        return _failed(outcome.request.draft, "language", outcome.failure)
    return dataclasses.replace(outcome.request.draft, language=outcome.answer or None)


def _failed(draft: CleanedClip, what: str, failure: Failure) -> CleanedClip:
    """The draft with one dead letter more; a clip has one of this stage, whatever failed in it."""
    clip = draft.judged.captioned.clip
    told = dataclasses.replace(failure, message=f"{what}: {failure.message}")
    if draft.dead_letters:
        (first,) = draft.dead_letters
        letter = dataclasses.replace(first, message=f"{first.message}; {told.message}")
    else:
        letter = told.letter(CLEAN_STAGE, clip.video_id, clip.uri, clip_id=clip.clip_id, span=clip.span)
    return dataclasses.replace(draft, dead_letters=(letter,))


@dataclasses.dataclass
class CleanCaptions(beam.PTransform):
    """Clean the chosen caption of each clip, and tell its language and whether it is harmful.

    JudgedClip in, one CleanedClip out for each; bounded or unbounded. A clip that failed passes as it is. A model that
    fails on a caption costs what it was asked for: a dead letter of stage `clean`, which spares the clip. Where names
    could not be looked for, the caption stays the candidate's own. Cleaning is done anew whenever a video is, as it
    needs no more than the captions.
    """

    hygiene: Hygiene

    def expand(self, judged: beam.PCollection[JudgedClip]) -> beam.PCollection[CleanedClip]:
        asked = self.hygiene
        sorted_clips = judged | "Draft" >> beam.FlatMap(_draft, asked.tidy, asked.made_with).with_outputs(
            _SETTLED, main="open"
        )
        drafts = sorted_clips["open"]
        if asked.names or asked.harmful or asked.language:
            drafts = drafts | "Spread" >> beam.Reshuffle()
        if asked.names:
            drafts = drafts | "Names" >> _Ask(asked.names, read_caption, with_names_replaced)
        if asked.harmful:
            drafts = drafts | "Harmful" >> _Ask(asked.harmful, read_all, with_harm_told)
        if asked.language:
            # Behind the names, which are of any language.
            drafts = drafts | "Language" >> _Ask(asked.language, read_caption, with_language_told)
        cleaned = drafts | "Cleaned" >> beam.Map(_count).with_output_types(CleanedClip)
        return (cleaned, sorted_clips[_SETTLED]) | beam.Flatten()


@dataclasses.dataclass
class _Ask(beam.PTransform):
    """Ask one model about each draft: CleanedClip in, CleanedClip out."""

    step: Step
    read: Callable[[CleanedClip], Reading]
    answered: Callable[[Outcome], CleanedClip]

    def expand(self, drafts: beam.PCollection[CleanedClip]) -> beam.PCollection[CleanedClip]:
        return (
            drafts
            | "Text" >> beam.Map(self.read)
            | "Ask" >> infer(self.step.handler, self.step.hints)
            | "Answer" >> beam.Map(self.answered).with_output_types(CleanedClip)
        )


def _draft(judged: JudgedClip, tidy: Callable[[str], str] | None, made_with: str) -> Iterator[Any]:
    draft = drafted(judged, tidy, made_with)
    if draft.caption is None:
        yield beam.pvalue.TaggedOutput(_SETTLED, draft)
        return
    count(CLEAN_STAGE, in_=1)
    yield draft


def _count(cleaned: CleanedClip) -> CleanedClip:
    Metrics.counter("reelscribe/clean", "failed" if cleaned.dead_letters else "clips").inc()
    count(CLEAN_STAGE, **{"failed" if cleaned.dead_letters else "out": 1})
    if cleaned.harmful:
        Metrics.counter("reelscribe/clean", "harmful").inc()
    return cleaned
