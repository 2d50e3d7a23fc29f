"""The records that travel between stages: one frozen dataclass a boundary.

    Video -> SplitVideo -> StitchedVideo -> Clip -> Candidate x teacher -> JudgedClip -> rows

A stage never fills in a field of somebody else's record; it makes a new one. Elements carry URIs, spans, text,
scores and small vectors. Pixels stay in the reel (see `transforms.reel`).
"""

from __future__ import annotations

import dataclasses
import datetime
import traceback
from collections.abc import Mapping
from typing import Any, Generic, Self, TypeVar

Vector = tuple[float, ...]
AnswerT = TypeVar("AnswerT")
RequestT = TypeVar("RequestT")


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """A half-open stretch of presentation time, [start_s, end_s), in seconds from the file's zero."""

    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s


@dataclasses.dataclass(frozen=True, slots=True)
class Cue:
    """One subtitle: plain text, no markup, shown during [start_s, end_s)."""

    start_s: float
    end_s: float
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Video:
    """A source file as it was found, before anything was decoded.

    `video_id` is safe as a file name and in a table predicate (`[A-Za-z0-9_-]{1,128}`); `etag` is the version of the
    source: whatever changes when its bytes do. `text_version` likewise for all text that stands beside the video
    (manifest columns, side-cars). `text_failures` are side-cars that could not be read: they cost the text, not the
    video. `earlier` is what the dataset already holds of this version of it.
    """

    video_id: str
    uri: str
    etag: str
    size_bytes: int
    title: str | None = None
    description: str | None = None
    language: str | None = None
    cues: tuple[Cue, ...] = ()
    text_version: str = ""
    text_failures: tuple[DeadLetter, ...] = ()
    earlier: Earlier | None = None

    @property
    def version(self) -> str:
        """Tells the versions of a video apart: what is made of one must not be joined to what is made of another."""
        return f"{self.etag} {self.text_version}"


@dataclasses.dataclass(frozen=True, slots=True)
class MediaFacts:
    """What the decoder found out about a video. Sizes are as displayed (after rotation and aspect)."""

    duration_s: float
    width: int
    height: int
    fps: float
    codec: str


@dataclasses.dataclass(frozen=True, slots=True)
class Shot:
    """A stretch between cuts, or a slice of a long one.

    Frames are decode indices, `end_frame` and `end_s` exclusive. `first_s` and `last_s` are the presentation times of
    the shot's two boundary frames, which stand in the reel at exactly these times.
    """

    index: int
    start_frame: int
    end_frame: int
    start_s: float
    end_s: float
    first_s: float
    last_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class SplitVideo:
    """A video after its one decode pass: its shots, in order and touching, and the reel they can be seen in.

    `damage` says in plain words what could not be decoded, with the span that is missing; None when all was read.
    `dropped` is the whole of it where a rule of the user's dropped it: it has no shots then, and no reel of its own.
    `heard` is what is said in it, where nobody wrote that down and a model was asked; `heard_with` is its fingerprint,
    and `unheard` says why it could not tell.
    """

    video: Video
    media: MediaFacts
    shots: tuple[Shot, ...]
    reel: str
    embedded_cues: tuple[Cue, ...] = ()
    damage: str | None = None
    damage_span: Span | None = None
    decode_s: float = 0.0
    dropped: RejectedSpan | None = None
    heard: tuple[Cue, ...] = ()
    heard_with: str = ""
    unheard: DeadLetter | None = None

    @property
    def known(self) -> Earlier | None:
        """What an earlier run made of these very shots; None when they have to be embedded and stitched."""
        earlier = self.video.earlier
        # A decoder of another version may find more of a damaged video.
        is_known = earlier is not None and earlier.clips is not None and earlier.n_shots == len(self.shots)
        return earlier if is_known else None


@dataclasses.dataclass(frozen=True, slots=True)
class ShotFeatures:
    """A shot's two boundary frames as unit vectors of the embedder."""

    shot: Shot
    first: Vector
    last: Vector


@dataclasses.dataclass(frozen=True, slots=True)
class Clip:
    """An accepted, trimmed event: the sample that gets captioned.

    `shots` are the stitched shots, cut to the clip. `subtitles` is the text that overlaps the clip, None when there is
    none. `fingerprint` stands for all that shaped the clip and its text: source, splitting, embedding, subtitles.
    `heard_with` is the fingerprint of the model that heard that text, empty where it was written. `earlier` is what
    models answered about it in an earlier run, `version` that of its video.
    """

    clip_id: str
    video_id: str
    uri: str
    span: Span
    shots: tuple[Span, ...]
    media: MediaFacts
    reel: str
    fingerprint: str
    title: str | None = None
    description: str | None = None
    subtitles: str | None = None
    language: str | None = None
    earlier: Answers | None = None
    version: str = ""
    heard_with: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class RejectedSpan:
    """A span that a rule dropped: which rule, what it measured, and what it allows."""

    video_id: str
    span: Span
    stage: str
    reason: str
    value: float | None = None
    threshold: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class DeadLetter:
    """A failure of one element, with what is needed to understand it and to run it again.

    `attempt` counts from 1. `fingerprint` stands for what was asked of a teacher: a request that reads otherwise is
    another one.
    """

    stage: str
    video_id: str
    uri: str
    error_class: str
    message: str
    detail: str = ""
    clip_id: str | None = None
    teacher: str | None = None
    span: Span | None = None
    attempt: int = 1
    failed_at: datetime.datetime = dataclasses.field(default_factory=lambda: datetime.datetime.now(datetime.UTC))
    fingerprint: str | None = None

    @property
    def place(self) -> tuple[object, ...]:
        """What failed, whenever that was: of one place a video has one dead letter."""
        span = self.span if self.clip_id is None and self.stage not in ("read", "split") else None
        return self.stage, self.clip_id, self.teacher, span, self.fingerprint


@dataclasses.dataclass(frozen=True, slots=True)
class FailedVideo:
    """A video of which nothing came, and why."""

    video: Video
    dead_letter: DeadLetter


@dataclasses.dataclass(frozen=True, slots=True)
class StitchedVideo:
    """A video after the stitching rules: its clips, and everything that did not become one.

    `embeddings` has one unit vector a clip, in the order of `clips`: the normalised mean of its boundary features.
    """

    split: SplitVideo
    clips: tuple[Clip, ...]
    embeddings: tuple[Vector, ...]
    rejected: tuple[RejectedSpan, ...]
    dead_letters: tuple[DeadLetter, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """One teacher's caption of one clip."""

    teacher: str
    model: str
    revision: str
    prompt_id: str
    text: str
    fingerprint: str


@dataclasses.dataclass(frozen=True, slots=True)
class Answers:
    """What models answered about a clip in an earlier run.

    Candidates count where their fingerprints are still those of the requests. `scores` are the selector's, one a
    candidate, empty where it has to be asked again. `values` are the columns of measures. `made_with` says with which
    fingerprint the selector ("select") and each measure answered: theirs count where it is still the same. `failures`
    are dead letters of the clip that are not tried again.
    """

    candidates: tuple[Candidate, ...] = ()
    scores: tuple[float, ...] = ()
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    made_with: Mapping[str, str] = dataclasses.field(default_factory=dict)
    failures: tuple[DeadLetter, ...] = ()

    def failure(self, stage: str, teacher: str | None = None, fingerprint: str | None = None) -> DeadLetter | None:
        """The dead letter that stands for this stage, for this teacher's caption, or for what had this fingerprint."""
        found = (one for one in self.failures if (one.stage, one.teacher) == (stage, teacher))
        return next((one for one in found if fingerprint in (None, one.fingerprint)), None)


@dataclasses.dataclass(frozen=True, slots=True)
class EarlierClip:
    """A clip of an earlier run, be it one that failed later: where it is, and what is known of it."""

    span: Span
    shots: tuple[Span, ...]
    embedding: Vector
    answers: Answers


@dataclasses.dataclass(frozen=True, slots=True)
class Earlier:
    """What the dataset holds of this very version of a video, as far as it still counts.

    `clips` is None when shots have to be embedded and stitched again. `settled` are the dead letters that stand,
    `retried` those whose work is done once more. `split_again` says that the reel must not be used again.
    """

    clips: tuple[EarlierClip, ...] | None = None
    rejected: tuple[RejectedSpan, ...] = ()
    settled: tuple[DeadLetter, ...] = ()
    retried: tuple[DeadLetter, ...] = ()
    split_again: bool = False
    n_shots: int = 0

    def numbered(self, letter: DeadLetter) -> DeadLetter:
        """The letter as it is kept: one that stands already as it stood, one of a repeated attempt with its count."""
        for before in self.settled:
            if before.place == letter.place:
                same = (before.error_class, before.message) == (letter.error_class, letter.message)
                return before if same else dataclasses.replace(letter, attempt=before.attempt)
        for before in self.retried:
            if before.place == letter.place:
                return dataclasses.replace(letter, attempt=before.attempt + 1)
        return letter


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """Why one request to a model failed; the requests beside it in the batch are unharmed."""

    error_class: str
    message: str
    detail: str

    @classmethod
    def of(cls, error: BaseException) -> Self:
        trace = "".join(traceback.format_exception(error, limit=-6))
        return cls(type(error).__name__, str(error) or type(error).__name__, trace[-4000:])

    def letter(self, stage: str, video_id: str, uri: str, **where: Any) -> DeadLetter:
        """The dead letter of this failure; `where` narrows it down to a clip, a teacher or a span."""
        return DeadLetter(stage, video_id, uri, self.error_class, self.message, self.detail, **where)


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome(Generic[RequestT, AnswerT]):
    """What a model handler returns for each request: the request itself, and an answer or a failure.

    The request travels with its answer, so that an answer can never land on another clip.
    """

    request: RequestT
    answer: AnswerT | None = None
    failure: Failure | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class CaptionedClip:
    """A clip with what every teacher made of it: candidates in the order of the teachers, and the failures."""

    clip: Clip
    candidates: tuple[Candidate, ...]
    not_applicable: tuple[str, ...]
    dead_letters: tuple[DeadLetter, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class JudgedClip:
    """A clip after the selector: one score a candidate, the best one chosen.

    `chosen` indexes `captioned.candidates`; None when the clip failed, and then a dead letter carries its span.
    `margin` is the lead over the runner-up, None with a single candidate. `abstained` says that the selector found
    none good: the best candidate stands all the same. `made_with` is the selector's fingerprint.
    """

    captioned: CaptionedClip
    scores: tuple[float, ...]
    chosen: int | None
    margin: float | None
    abstained: bool
    dead_letters: tuple[DeadLetter, ...]
    made_with: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class MeasuredClip:
    """A clip with what was measured of it, beside its captions.

    `values` are columns of `clips`; one of them may be None where the clip has nothing to measure. `made_with` has the
    fingerprint of each measure that answered. A measure that failed left a dead letter, which costs its columns only.
    """

    clip: Clip
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    made_with: Mapping[str, str] = dataclasses.field(default_factory=dict)
    dead_letters: tuple[DeadLetter, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class MeasureRequest:
    """Ask for these measures of a clip; it carries what others measured of it before."""

    measured: MeasuredClip
    names: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class FilteredClip:
    """A clip that a rule of the user's dropped before it was captioned; `rejected` is its span, with the reason."""

    clip: Clip
    rejected: RejectedSpan


@dataclasses.dataclass(frozen=True, slots=True)
class EmbedRequest:
    """Ask an embedder for the unit vectors of a shot's two boundary frames; answered by `(first, last)`.

    `version` is that of the video.
    """

    video_id: str
    shot: Shot
    reel: str
    version: str = ""
