"""Stitch shots into events and clips: the rules of Panda-70M, section 3.1, as pure functions.

    stitched = stitch(split, features, config)            # one video
    shots | StitchShots(config)                           # a PCollection of (SplitVideo, features) -> StitchedVideo

Whatever a rule drops becomes a `RejectedSpan` with the value it measured, so that the clips, the rejected spans and
the failed spans of a video tile exactly what the splitter found.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import apache_beam as beam
import numpy as np
from apache_beam.metrics import Metrics

from transforms.counting import count, micros, timed
from transforms.records import (
    Answers,
    Clip,
    DeadLetter,
    Earlier,
    Failure,
    RejectedSpan,
    Shot,
    ShotFeatures,
    Span,
    SplitVideo,
    StitchedVideo,
    Vector,
)
from transforms.subtitles import align


@dataclasses.dataclass(frozen=True, slots=True)
class StitchingConfig:
    """The numbers of the stitching rules. Distances are Euclidean between unit vectors and belong to one embedder.

    Attributes:
      transition_distance: rule 1 drops a shot whose boundary frames are farther apart (paper: 1.0, ImageBind).
      stitch_distance: rule 2 joins neighbours at most this far apart (paper: 0.6).
      min_event_s: rule 3 drops shorter events (paper 2.0; the published dataset 2.5).
      still_distance: rule 4 drops events whose first and last frame are nearer (paper: 0.15); None keeps them.
      redundant_distance: rule 5 drops events whose mean is this near to an earlier one's (paper: 0.3); None keeps them.
      max_clip_s: rule 6 keeps at most the first so many seconds (paper: 60).
      trim_fraction: rule 7 trims so much of the length off each end (paper: 0.1).
    """

    transition_distance: float = 1.0
    stitch_distance: float = 0.6
    min_event_s: float = 2.5
    still_distance: float | None = 0.15
    redundant_distance: float | None = 0.3
    max_clip_s: float = 60.0
    trim_fraction: float = 0.1

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not is_number and not (value is None and field.name in ("still_distance", "redundant_distance")):
                raise ValueError(f"{field.name} must be a number, not {value!r}")
        for name in ("transition_distance", "stitch_distance", "still_distance", "redundant_distance"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 2:
                raise ValueError(f"{name} is a distance between unit vectors, so 0 to 2; got {value}")
        if self.min_event_s < 0 or self.max_clip_s <= 0:
            raise ValueError(f"min_event_s must be >= 0 and max_clip_s > 0; got {self.min_event_s}, {self.max_clip_s}")
        if not 0 <= self.trim_fraction < 0.5:
            raise ValueError(f"trim_fraction goes off each end, so 0 to just under 0.5; got {self.trim_fraction}")


@dataclasses.dataclass(frozen=True)
class Event:
    """A run of shots that touch and look alike, not yet judged."""

    shots: tuple[ShotFeatures, ...]

    @property
    def span(self) -> Span:
        return Span(self.shots[0].shot.start_s, self.shots[-1].shot.end_s)

    @property
    def mean(self) -> np.ndarray:
        """The normalised mean of all boundary features of its shots."""
        total = np.sum([np.add(shot.first, shot.last) for shot in self.shots], axis=0)
        length = float(np.linalg.norm(total))
        return total / length if length else total


def distance(a: Vector | np.ndarray, b: Vector | np.ndarray) -> float:
    """Euclidean distance; between unit vectors 0 (same) to 2 (opposite)."""
    return float(np.linalg.norm(np.subtract(a, b)))


def drop_transitions(
    shots: Sequence[ShotFeatures], limit: float
) -> tuple[list[ShotFeatures | None], list[tuple[Span, float]]]:
    """Rule 1. Return the shots with None for each dropped one (it breaks the chain), and what was dropped."""
    kept: list[ShotFeatures | None] = []
    dropped = []
    for features in shots:
        change = distance(features.first, features.last)
        if change > limit:
            dropped.append((Span(features.shot.start_s, features.shot.end_s), change))
            kept.append(None)
        else:
            kept.append(features)
    return kept, dropped


def join_neighbours(shots: Sequence[ShotFeatures | None], limit: float) -> list[Event]:
    """Rule 2. Join shots that follow each other and meet within `limit`; a gap ends an event."""
    runs: list[list[ShotFeatures]] = []
    previous: ShotFeatures | None = None
    for this in shots:
        if this is not None:
            touches = previous is not None and distance(previous.last, this.first) <= limit
            if touches:
                runs[-1].append(this)
            else:
                runs.append([this])
        previous = this
    return [Event(tuple(run)) for run in runs]


def trim(span: Span, fraction: float) -> Span:
    """Rule 7. Take `fraction` of the length off each end, to the millisecond."""
    cut = round(span.duration_s * fraction, 3)
    return Span(span.start_s + cut, span.end_s - cut)


def clip_id(video_id: str, span: Span) -> str:
    """The clip's name: of its video and its span in milliseconds; at most 128 characters."""
    suffix = f"-{round(span.start_s * 1000)}-{round(span.end_s * 1000)}"
    if len(video_id) + len(suffix) > 128:
        video_id = video_id[:64] + hashlib.sha256(video_id.encode()).hexdigest()[:16]
    return video_id + suffix


def stitch(
    split: SplitVideo,
    features: Mapping[int, ShotFeatures | Failure],
    config: StitchingConfig,
    fingerprint: str = "",
) -> StitchedVideo:
    """Apply rules 1 to 7 to one video.

    Args:
      split: the video and its shots.
      features: by shot index; a failure stands for a shot whose frames could not be read or embedded. Such a shot
        becomes a failed span and breaks the chain, as a dropped one does.
      config: the rules' numbers.
      fingerprint: of all that shaped the video up to here; goes into the clips'.
    """
    video_id = split.video.video_id
    rejected: list[RejectedSpan] = []
    dead_letters: list[DeadLetter] = []

    def reject(span: Span, stage: str, reason: str, value: float, threshold: float) -> None:
        if span.duration_s > 0:
            rejected.append(RejectedSpan(video_id, span, stage, reason, value, threshold))

    runs: list[list[ShotFeatures]] = [[]]
    for shot in split.shots:
        found = features[shot.index]
        if isinstance(found, Failure):
            dead_letters.append(_shot_failure(split, shot, found))
            runs.append([])
        else:
            runs[-1].append(found)

    events: list[Event] = []
    for run in runs:
        kept, dropped = drop_transitions(run, config.transition_distance)
        for span, change in dropped:
            reject(
                span, "transition", "boundary frames differ: a transition or fade", change, config.transition_distance
            )
        events.extend(join_neighbours(kept, config.stitch_distance))

    accepted: list[tuple[Event, np.ndarray]] = []
    for event in events:
        span, mean = event.span, event.mean
        if span.duration_s < config.min_event_s:
            reject(span, "min_length", "too short", span.duration_s, config.min_event_s)
            continue
        change = distance(event.shots[0].first, event.shots[-1].last)
        if config.still_distance is not None and change < config.still_distance:
            reject(span, "still", "nothing changes", change, config.still_distance)
            continue
        nearest = min((distance(mean, earlier) for _, earlier in accepted), default=math.inf)
        if config.redundant_distance is not None and nearest <= config.redundant_distance:
            reject(span, "redundant", "repeats an earlier event", nearest, config.redundant_distance)
            continue
        accepted.append((event, mean))

    clips = []
    for event, _ in accepted:
        span = event.span
        kept_span = Span(span.start_s, min(span.end_s, span.start_s + config.max_clip_s))
        reject(
            Span(kept_span.end_s, span.end_s),
            "max_length",
            "beyond the longest clip",
            span.duration_s,
            config.max_clip_s,
        )
        trimmed = trim(kept_span, config.trim_fraction)
        for end in (Span(kept_span.start_s, trimmed.start_s), Span(trimmed.end_s, kept_span.end_s)):
            reject(end, "trim", "trimmed off the end", end.duration_s, config.trim_fraction)
        shots = (Span(max(s.shot.start_s, trimmed.start_s), min(s.shot.end_s, trimmed.end_s)) for s in event.shots)
        clips.append(_clip(split, trimmed, tuple(shot for shot in shots if shot.duration_s > 0), fingerprint))

    if split.dropped:
        rejected.append(split.dropped)
    return StitchedVideo(
        split=split,
        clips=tuple(clips),
        embeddings=tuple(tuple(float(x) for x in mean) for _, mean in accepted),
        rejected=tuple(sorted(rejected, key=lambda row: row.span.start_s)),
        dead_letters=tuple(dead_letters),
    )


def stitched_before(split: SplitVideo, earlier: Earlier, fingerprint: str) -> StitchedVideo:
    """What an earlier run made of the same shots, with the text that the video has now."""
    clips = earlier.clips or ()
    return StitchedVideo(
        split=split,
        clips=tuple(_clip(split, known.span, known.shots, fingerprint, known.answers) for known in clips),
        embeddings=tuple(known.embedding for known in clips),
        rejected=earlier.rejected,
        dead_letters=tuple(letter for letter in earlier.settled if letter.stage == "embed"),
    )


def _clip(
    split: SplitVideo, span: Span, shots: tuple[Span, ...], fingerprint: str, earlier: Answers | None = None
) -> Clip:
    video = split.video
    written = video.cues or split.embedded_cues
    text = align(written or split.heard, span)
    name = clip_id(video.video_id, span)
    shaped_by = "\n".join([fingerprint, name, text or "", video.title or "", video.description or ""])
    return Clip(
        clip_id=name,
        video_id=video.video_id,
        uri=video.uri,
        span=span,
        shots=shots,
        media=split.media,
        reel=split.reel,
        fingerprint=hashlib.sha256(shaped_by.encode()).hexdigest()[:16],
        title=video.title,
        description=video.description,
        subtitles=text,
        language=video.language,
        earlier=earlier,
        version=video.version,
        heard_with=split.heard_with if text and not written else "",
    )


def _shot_failure(split: SplitVideo, shot: Shot, failure: Failure) -> DeadLetter:
    return failure.letter("embed", split.video.video_id, split.video.uri, span=Span(shot.start_s, shot.end_s))


@dataclasses.dataclass
class StitchShots(beam.PTransform):
    """Stitch the shots of each video into clips.

    (SplitVideo, {shot index: ShotFeatures | Failure}) in, one StitchedVideo out for each; bounded or unbounded. Pure:
    it cannot fail on a well-formed video. A video whose clips an earlier run found keeps them.

    Args:
      config: the rules' numbers.
      fingerprint: of a split video, up to and including its embedding; goes into its clips'.
    """

    config: StitchingConfig
    fingerprint: Callable[[SplitVideo], str]

    def expand(self, shots: beam.PCollection) -> beam.PCollection[StitchedVideo]:
        return shots | beam.Map(_stitch_counted, self.config, self.fingerprint)


def _stitch_counted(
    embedded: tuple[SplitVideo, Mapping[int, ShotFeatures | Failure]],
    config: StitchingConfig,
    fingerprint: Callable[[SplitVideo], str],
) -> StitchedVideo:
    split, features = embedded
    earlier = split.known
    if earlier is not None:
        known = stitched_before(split, earlier, fingerprint(split))
        _count(known, reused=len(known.clips))
        return known
    with timed("stitch"):
        stitched = stitch(split, features, config, fingerprint(split))
    _count(stitched)
    Metrics.counter("reelscribe/stitch", "clips").inc(len(stitched.clips))
    Metrics.counter("reelscribe/stitch", "rejected").inc(len(stitched.rejected))
    return stitched


def _count(stitched: StitchedVideo, reused: int = 0) -> None:
    """Count shots in, clips out, spans dropped; and their lengths, which alone add up, as rules join and cut."""
    shots = (Span(shot.start_s, shot.end_s) for shot in stitched.split.shots)
    failed = [letter.span for letter in stitched.dead_letters if letter.span]
    count(
        "stitch",
        in_=len(stitched.split.shots),
        out=len(stitched.clips),
        rejected=len(stitched.rejected),
        failed=len(failed),
        reused=reused,
        in_us=_length_us(shots),
        out_us=_length_us(clip.span for clip in stitched.clips),
        rejected_us=_length_us(row.span for row in stitched.rejected),
        failed_us=_length_us(failed),
    )


def _length_us(spans: Iterable[Span]) -> int:
    return micros(math.fsum(span.duration_s for span in spans))
