"""One record, one row: how clips, rejected spans and dead letters are written down.

clip_row(cleaned, embedding, run_id, fingerprint, measured)        # -> {"clip_id": ..., "caption": ..., ...}
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from transforms.cleaning import CleanedClip
from transforms.measure_columns import measured_row
from transforms.records import (
    Candidate,
    Clip,
    DeadLetter,
    FilteredClip,
    JudgedClip,
    MeasuredClip,
    RejectedSpan,
    Span,
    Vector,
    Video,
)
from transforms.schemas import CLEAN_STAGE, HEAR_STAGE, SCHEMA_VERSION
from transforms.scoring import SELECTOR
from transforms.timecodes import timecode

Fingerprints = Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class ClipSoFar:
    """A clip that failed or was dropped, and what it had come to; `scores` are the selector's, or none."""

    clip: Clip
    embedding: Vector
    candidates: tuple[Candidate, ...] = ()
    scores: tuple[float, ...] = ()
    made_with: Mapping[str, str] = dataclasses.field(default_factory=dict)
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def captions(self) -> list[dict[str, Any]]:
        """The candidates, as rows have them."""
        scores = self.scores or (None,) * len(self.candidates)
        return [_candidate(*scored) for scored in zip(self.candidates, scores, strict=True)]


def clip_row(
    cleaned: CleanedClip, embedding: Vector, run_id: str, fingerprint: str, measured: MeasuredClip
) -> dict[str, Any]:
    """The `clips` row of a clip whose caption was chosen; `captions` has what teachers said, cleaned or not."""
    judged = cleaned.judged
    clip, captioned = judged.captioned.clip, judged.captioned
    assert judged.chosen is not None, "a failed clip has no row"
    best = captioned.candidates[judged.chosen]
    return {
        "clip_id": clip.clip_id,
        "video_id": clip.video_id,
        "uri": clip.uri,
        "title": clip.title,
        "start_s": clip.span.start_s,
        "end_s": clip.span.end_s,
        "duration_s": clip.span.duration_s,
        "timestamp": [timecode(clip.span.start_s), timecode(clip.span.end_s)],
        "width": clip.media.width,
        "height": clip.media.height,
        "fps": clip.media.fps,
        "caption": cleaned.caption or best.text,
        "teacher": best.teacher,
        "matching_score": judged.scores[judged.chosen],
        "margin": judged.margin,
        "abstained": judged.abstained,
        "captions": [_candidate(*scored) for scored in zip(captioned.candidates, judged.scores, strict=True)],
        "subtitles": clip.subtitles,
        "embedding": list(embedding),
        "shots": _spans(clip.shots),
        "run_id": run_id,
        "fingerprint": fingerprint,
        "schema_version": SCHEMA_VERSION,
        "clip_file": None,
        "made_with": _named(_made_with(judged, measured, cleaned.made_with)),
        **measured_row(measured.values),
        "caption_language": cleaned.language,
        "harmful_text": cleaned.harmful,
        # Decided over the whole dataset, when its videos stand (see `transforms.duplicates`).
        "duplicate_of": None,
        "duplicate_distance": None,
    }


def _made_with(judged: JudgedClip, measured: MeasuredClip, cleaning: str = "") -> dict[str, str]:
    by_name = {**measured.made_with, SELECTOR: judged.made_with, CLEAN_STAGE: cleaning}
    by_name[HEAR_STAGE] = judged.captioned.clip.heard_with
    return {name: fingerprint for name, fingerprint in by_name.items() if fingerprint}


def _named(made_with: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "fingerprint": fingerprint} for name, fingerprint in sorted(made_with.items())]


def _candidate(candidate: Candidate, score: float | None) -> dict[str, Any]:
    return {
        "teacher": candidate.teacher,
        "model": candidate.model,
        "revision": candidate.revision,
        "prompt_id": candidate.prompt_id,
        "caption": candidate.text,
        "matching_score": score,
        "fingerprint": candidate.fingerprint,
    }


def rejected_row(rejected: RejectedSpan, run_id: str, dropped: ClipSoFar | None = None) -> dict[str, Any]:
    """The `rejected` row of a span; of a clip that a rule of the user's dropped it says what the clip had come to."""
    return {
        "video_id": rejected.video_id,
        "start_s": rejected.span.start_s,
        "end_s": rejected.span.end_s,
        "stage": rejected.stage,
        "reason": rejected.reason,
        "value": rejected.value,
        "threshold": rejected.threshold,
        "run_id": run_id,
        "clip_id": dropped.clip.clip_id if dropped else None,
        "shots": _spans(dropped.clip.shots) if dropped else None,
        "embedding": list(dropped.embedding) if dropped else None,
        "captions": dropped.captions if dropped else None,
        "made_with": _named(dropped.made_with) if dropped else None,
        **measured_row(dropped.values if dropped else {}),
    }


def _spans(spans: Iterable[Span]) -> list[dict[str, float]]:
    return [dataclasses.asdict(span) for span in spans]


def failure_row(letter: DeadLetter, run_id: str, lost: ClipSoFar | None = None) -> dict[str, Any]:
    """The `failures` row of a dead letter; of one that cost a clip it says what the clip had come to."""
    return {
        "stage": letter.stage,
        "video_id": letter.video_id,
        "clip_id": letter.clip_id,
        "teacher": letter.teacher,
        "uri": letter.uri,
        "start_s": letter.span.start_s if letter.span else None,
        "end_s": letter.span.end_s if letter.span else None,
        "error_class": letter.error_class,
        "message": letter.message,
        "detail": letter.detail,
        "attempt": letter.attempt,
        "failed_at": letter.failed_at,
        "run_id": run_id,
        "fingerprint": letter.fingerprint,
        "shots": _spans(lost.clip.shots) if lost else None,
        "embedding": list(lost.embedding) if lost else None,
        "captions": lost.captions if lost else None,
    }


def dropped_clip(filtered: FilteredClip, embedding: Vector, measured: MeasuredClip) -> ClipSoFar:
    """A clip that was dropped before anybody was asked about it keeps what an earlier run asked."""
    clip, made_with, values = filtered.clip, dict(measured.made_with), measured.values
    earlier = clip.earlier
    if earlier is None:
        return ClipSoFar(clip, embedding, made_with=made_with, values=values)
    if earlier.scores and SELECTOR in earlier.made_with:
        made_with[SELECTOR] = earlier.made_with[SELECTOR]
    scores = earlier.scores if SELECTOR in made_with else ()
    return ClipSoFar(clip, embedding, earlier.candidates, scores, made_with, values)


def judged_clip(judged: JudgedClip, embedding: Vector, measured: MeasuredClip) -> ClipSoFar:
    """A clip that was dropped for its row: captions, scores and measures stand."""
    captioned, made_with = judged.captioned, _made_with(judged, measured)
    return ClipSoFar(captioned.clip, embedding, captioned.candidates, judged.scores, made_with, measured.values)


def source_columns(video: Video, run_id: str, fingerprints: Fingerprints) -> dict[str, Any]:
    """The columns of `videos` that tell of the source."""
    return {
        "video_id": video.video_id,
        "uri": video.uri,
        "title": video.title,
        "description": video.description,
        "size_bytes": video.size_bytes,
        "etag": video.etag,
        "fingerprints": dict(fingerprints),
        "run_id": run_id,
        "content_hash": None,
        "duplicate_of": None,
    }
