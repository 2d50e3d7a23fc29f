"""Caption every clip with every teacher: the cross-modality ensemble of Panda-70M, section 3.2.

    clips | CaptionClips([Teacher("lite-frame", handler, ...), ...])     # -> CaptionedClip

Teachers do not know of each other: each is one RunInference of its own, so that a slow one can have its own workers; or
several of them take turns on one GPU (`together`). A teacher that fails costs its caption; one whose inputs are absent
(no text) is skipped and counted; one that answered the same request in an earlier run is not asked again.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler

from transforms.counting import count
from transforms.inference import infer
from transforms.joining import JoinByCount, Joined, Part, Whole
from transforms.records import Candidate, CaptionedClip, Clip, DeadLetter, Failure, Outcome

NOT_APPLICABLE = "not_applicable"
_SPARED = "spared"
LOST = Failure("LostResult", "the teacher returned nothing for this clip", "")


class EmptyCaption(ValueError):
    """A teacher answered with no words."""


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A captioning model with its prompt and its inputs.

    Attributes:
      name: what `captions.teacher` says.
      handler: answers a `Clip` with its caption, one plain sentence or a few.
      model, revision, prompt_id: provenance, which every candidate carries.
      needs_text: skip clips that have neither subtitles nor title nor description.
      hints: resource hints of its stage, as Beam has them.
    """

    name: str
    handler: ModelHandler
    model: str = ""
    revision: str = ""
    prompt_id: str = ""
    needs_text: bool = False
    hints: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        # Files that are known by their digest are the same wherever they lie.
        place = "" if self.revision.startswith("sha256 ") else self.model
        shaped_by = "\n".join([self.name, place, self.revision, self.prompt_id])
        return hashlib.sha256(shaped_by.encode()).hexdigest()[:16]

    def request_fingerprint(self, clip: Clip) -> str:
        """Stands for all that shapes this teacher's caption of the clip."""
        return hashlib.sha256(f"{clip.fingerprint}\n{self.fingerprint}".encode()).hexdigest()[:16]

    def applies_to(self, clip: Clip) -> bool:
        return not self.needs_text or bool(clip.subtitles or clip.title or clip.description)


@dataclasses.dataclass(frozen=True)
class Together:
    """Teachers that take turns on one GPU.

    Attributes:
      names: theirs. handler: answers (name, Clip) with (name, Outcome). hints: resource hints of their stage.
    """

    names: frozenset[str]
    handler: ModelHandler
    hints: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class _Skipped:
    teacher: str


def candidate_of(teacher: Teacher, outcome: Outcome[Clip, str]) -> Candidate | DeadLetter:
    """What came of one request to one teacher."""
    clip, failure = outcome.request, outcome.failure
    text = " ".join((outcome.answer or "").split())
    if failure is None and not text:
        failure = Failure.of(EmptyCaption(f"{teacher.name} answered with no words"))
    if failure is not None:
        return _teacher_failure(clip, teacher.name, failure, teacher.request_fingerprint(clip))
    return Candidate(
        teacher=teacher.name,
        model=teacher.model,
        revision=teacher.revision,
        prompt_id=teacher.prompt_id,
        text=text,
        fingerprint=teacher.request_fingerprint(clip),
    )


def answered_before(teacher: Teacher, clip: Clip) -> Candidate | DeadLetter | None:
    """What an earlier run made of this very request, if anything: a caption, or a failure that stands."""
    if clip.earlier is None:
        return None
    asked = teacher.request_fingerprint(clip)
    known: tuple[Candidate | DeadLetter, ...] = (*clip.earlier.candidates, *clip.earlier.failures)
    return next((one for one in known if one.teacher == teacher.name and one.fingerprint == asked), None)


def gather(joined: Joined, order: Sequence[str]) -> CaptionedClip:
    """Sort a clip's parts into candidates (in the teachers' order), skips and failures."""
    clip: Clip = joined.whole
    rank = {name: place for place, name in enumerate(order)}
    heard = {part.teacher for part in joined.parts}
    lost = [_teacher_failure(clip, name, LOST) for name in order if name not in heard]
    parts = sorted([*joined.parts, *lost], key=lambda part: rank[part.teacher])
    return CaptionedClip(
        clip=clip,
        candidates=tuple(part for part in parts if isinstance(part, Candidate)),
        not_applicable=tuple(part.teacher for part in parts if isinstance(part, _Skipped)),
        dead_letters=tuple(part for part in parts if isinstance(part, DeadLetter)),
    )


def _teacher_failure(clip: Clip, teacher: str, failure: Failure, fingerprint: str | None = None) -> DeadLetter:
    where = {"clip_id": clip.clip_id, "teacher": teacher, "span": clip.span, "fingerprint": fingerprint}
    return failure.letter("caption", clip.video_id, clip.uri, **where)


@dataclasses.dataclass
class AskTeacher(beam.PTransform):
    """Ask one teacher for its caption of each clip.

    Clip in, one (key, Part(Candidate | DeadLetter | skip)) out for each; bounded or unbounded.
    """

    teacher: Teacher

    def expand(self, clips: beam.PCollection[Clip]) -> beam.PCollection:
        teacher = self.teacher
        fitting, spared = _sort(clips, [teacher])
        asked = (
            fitting
            | "Clip" >> beam.Values()
            | "Caption" >> infer(teacher.handler, teacher.hints)
            | "Candidate" >> beam.Map(_answered, teacher)
        )
        return (asked, spared) | beam.Flatten()


@dataclasses.dataclass
class AskTogether(beam.PTransform):
    """Ask several teachers that take turns on one GPU for their captions of each clip.

    Clip in, one (key, Part(Candidate | DeadLetter | skip)) out for each teacher; bounded or unbounded.
    """

    teachers: Sequence[Teacher]
    together: Together

    def expand(self, clips: beam.PCollection[Clip]) -> beam.PCollection:
        by_name = {teacher.name: teacher for teacher in self.teachers}
        fitting, spared = _sort(clips, self.teachers)
        asked = (
            fitting
            | "Caption" >> infer(self.together.handler, self.together.hints)
            | "Candidate" >> beam.MapTuple(lambda name, outcome: _answered(outcome, by_name[name]))
        )
        return (asked, spared) | beam.Flatten()


def _sort(clips: beam.PCollection[Clip], teachers: Sequence[Teacher]) -> tuple[beam.PCollection, beam.PCollection]:
    """(name, clip) for every teacher that is to be asked, and a part for every other."""
    sorted_clips = clips | "Fitting" >> beam.FlatMap(_fitting, teachers).with_outputs(_SPARED, main="fitting")
    return sorted_clips["fitting"], sorted_clips[_SPARED]


def _fitting(clip: Clip, teachers: Sequence[Teacher]) -> Iterator[Any]:
    for teacher in teachers:
        known = answered_before(teacher, clip)
        if known is None and teacher.applies_to(clip):
            count(f"caption/{teacher.name}", asked=1)
            yield teacher.name, clip
            continue
        became = NOT_APPLICABLE if known is None else "reused"
        Metrics.counter("reelscribe/caption", became).inc()
        count(f"caption/{teacher.name}", **{became: 1})
        yield beam.pvalue.TaggedOutput(_SPARED, (_key(clip), Part(known or _Skipped(teacher.name))))


def _answered(outcome: Outcome[Clip, str], teacher: Teacher) -> tuple[str, Part]:
    found = candidate_of(teacher, outcome)
    became = "failed" if isinstance(found, DeadLetter) else "captions"
    Metrics.counter("reelscribe/caption", became).inc()
    count(f"caption/{teacher.name}", **{became: 1})
    return _key(outcome.request), Part(found)


@dataclasses.dataclass
class CaptionClips(beam.PTransform):
    """Caption each clip with every teacher.

    Clip in, one CaptionedClip out for each; bounded or unbounded.

    Args:
      together: those of the teachers that take turns, and how.
    """

    teachers: Sequence[Teacher]
    together: Together | None = None

    def __post_init__(self) -> None:
        names = [teacher.name for teacher in self.teachers]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"teachers need names, each its own; got {names}")

    def expand(self, clips: beam.PCollection[Clip]) -> beam.PCollection[CaptionedClip]:
        order = tuple(teacher.name for teacher in self.teachers)
        spread = clips | "Spread" >> beam.Reshuffle()
        wholes = clips | "Wholes" >> beam.Map(_whole)
        sharing = self.together.names if self.together else frozenset()
        apart = [teacher for teacher in self.teachers if teacher.name not in sharing]
        parts = [spread | f"Ask {teacher.name}" >> AskTeacher(teacher) for teacher in apart]
        if self.together:
            turns = [teacher for teacher in self.teachers if teacher.name in sharing]
            parts.append(spread | "Ask together" >> AskTogether(turns, self.together))
        joined = [wholes, *parts] | "All" >> beam.Flatten() | "Join" >> JoinByCount("captions", lambda clip: len(order))
        return joined | "Gather" >> beam.Map(_gathered, order)


def _whole(clip: Clip) -> tuple[str, Whole]:
    count("caption", in_=1)
    return _key(clip), Whole(clip)


def _key(clip: Clip) -> str:
    """The clip's, in this version of its video: another one may have a clip of the same name and other words."""
    return f"{clip.clip_id} {clip.fingerprint} {clip.version}"


def _gathered(joined: Joined, order: Sequence[str]) -> CaptionedClip:
    captioned = gather(joined, order)
    for lost in set(order) - {part.teacher for part in joined.parts}:
        count(f"caption/{lost}", failed=1)
    count("caption", **{"out" if captioned.candidates else "failed": 1})
    return captioned
