"""Bring the clips of a video together and write its rows as the tables want them.

    (stitched, judged, measured) | AssembleVideos(run)     # -> VideoRows, one a video, ready to be committed

Every video leaves here as rows, be it one row that says why it failed.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from transforms import measuring
from transforms.joining import JoinByCount, Joined, Part, Whole
from transforms.records import (
    Candidate,
    Clip,
    DeadLetter,
    FailedVideo,
    Failure,
    JudgedClip,
    Measurement,
    RejectedSpan,
    SplitVideo,
    StitchedVideo,
    Vector,
    Video,
)
from transforms.schemas import MEDIA_STAGE, SCHEMA_VERSION, VideoRows, spares_the_span
from transforms.timecodes import timecode

_log = logging.getLogger(__name__)

COUNTS = "reelscribe/rows"
LOST = Failure("LostResult", "the clip got lost between captioning and writing", "")

Fingerprints = Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class LostClip:
    """A clip that failed, and how far it had come."""

    clip: Clip
    embedding: Vector
    candidates: tuple[Candidate, ...] = ()


def clip_row(
    judged: JudgedClip, embedding: Vector, run_id: str, fingerprint: str, measurement: Measurement | None = None
) -> dict[str, Any]:
    """The `clips` row of a clip whose caption was chosen."""
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
        "caption": best.text,
        "teacher": best.teacher,
        "matching_score": judged.scores[judged.chosen],
        "margin": judged.margin,
        "abstained": judged.abstained,
        "captions": [_candidate(*scored) for scored in zip(captioned.candidates, judged.scores, strict=True)],
        "subtitles": clip.subtitles,
        "embedding": list(embedding),
        "shots": [dataclasses.asdict(shot) for shot in clip.shots],
        "run_id": run_id,
        "fingerprint": fingerprint,
        "schema_version": SCHEMA_VERSION,
        "max_running_lpips": measurement.max_running_lpips if measurement else None,
        "clip_file": None,
    }


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


def rejected_row(rejected: RejectedSpan, run_id: str) -> dict[str, Any]:
    """The `rejected` row of a span."""
    return {
        "video_id": rejected.video_id,
        "start_s": rejected.span.start_s,
        "end_s": rejected.span.end_s,
        "stage": rejected.stage,
        "reason": rejected.reason,
        "value": rejected.value,
        "threshold": rejected.threshold,
        "run_id": run_id,
    }


def failure_row(letter: DeadLetter, run_id: str, lost: LostClip | None = None) -> dict[str, Any]:
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
        "shots": [dataclasses.asdict(shot) for shot in lost.clip.shots] if lost else None,
        "embedding": list(lost.embedding) if lost else None,
        "captions": [_candidate(one, None) for one in lost.candidates] if lost else None,
    }


def costs_the_clip(letter: DeadLetter) -> bool:
    """Whether a dead letter cost a clip, rather than one caption, one number, its file, or a stretch of no clip."""
    spared = spares_the_span(letter.stage, letter.teacher) or letter.stage == MEDIA_STAGE
    return letter.clip_id is not None and not spared


def damage_letter(split: SplitVideo) -> DeadLetter:
    """The dead letter of the part of a video that could not be decoded."""
    video = split.video
    failure = Failure("PartlyDecoded", split.damage or "", "")
    return failure.letter("split", video.video_id, video.uri, span=split.damage_span)


def video_rows(
    stitched: StitchedVideo,
    judged: Iterable[JudgedClip],
    run_id: str,
    fingerprints: Fingerprints,
    measured: Iterable[Measurement] | None = None,
    *,
    writes_files: bool = False,
) -> VideoRows:
    """All rows of a video that was split.

    The video is 'ok', 'partial' when part of it could not be read or decoded or a span failed, 'failed' when spans
    failed and no clip stands. A teacher or a measurement that fails changes nothing.

    Args:
      measured: one a clip, None where nothing is measured.
      writes_files: clip files are written next; what earlier runs failed to write travels on to there.
    """
    split, video = stitched.split, stitched.split.video
    by_clip = {found.captioned.clip.clip_id: found for found in judged}
    measurements = None if measured is None else {found.clip_id: found for found in measured}
    clips: list[dict[str, Any]] = []
    lost: dict[str, LostClip] = {}
    letters: list[DeadLetter] = [*video.text_failures, *stitched.dead_letters]
    if split.damage:
        letters.append(damage_letter(split))
    for clip, embedding in zip(stitched.clips, stitched.embeddings, strict=True):
        found = by_clip.get(clip.clip_id)
        if found is None:
            letters.append(_lost(clip))
            lost[clip.clip_id] = LostClip(clip, embedding)
            continue
        letters += found.dead_letters
        measurement = None
        if measurements is not None:
            measurement = measurements.get(clip.clip_id) or measuring.failed(clip, measuring.LOST)
            letters += [measurement.dead_letter] if measurement.dead_letter else []
        if found.chosen is not None:
            clips.append(clip_row(found, embedding, run_id, fingerprints["select"], measurement))
        else:
            lost[clip.clip_id] = LostClip(clip, embedding, found.captioned.candidates)
    retried: list[DeadLetter] = []
    if writes_files and video.earlier:
        standing = {row["clip_id"] for row in clips}
        letters += _of_files(video.earlier.settled, standing)
        retried = _of_files(video.earlier.retried, standing)
    letters = _kept(letters, video)
    costly = [letter for letter in letters if not spares_the_span(letter.stage, letter.teacher)]
    failed_spans = any(letter.stage not in ("read", "split") for letter in costly)
    status = "failed" if failed_spans and not clips else "partial" if costly else "ok"
    return VideoRows(
        video_id=video.video_id,
        video={
            **_source_columns(video, run_id, fingerprints),
            "duration_s": split.media.duration_s,
            "width": split.media.width,
            "height": split.media.height,
            "fps": split.media.fps,
            "codec": split.media.codec,
            "n_shots": len(split.shots),
            "n_clips": len(clips),
            "n_rejected": len(stitched.rejected),
            "n_failures": len(letters),
            "status": status,
        },
        clips=tuple(clips),
        rejected=tuple(rejected_row(row, run_id) for row in stitched.rejected),
        failures=tuple(
            failure_row(letter, run_id, lost.get(letter.clip_id or "") if costs_the_clip(letter) else None)
            for letter in letters
        ),
        retried=tuple(failure_row(letter, run_id) for letter in retried),
    )


def failed_video_rows(failed: FailedVideo, run_id: str, fingerprints: Fingerprints) -> VideoRows:
    """The rows of a video of which nothing could be read."""
    video = failed.video
    (letter,) = _kept([failed.dead_letter], video)
    nothing = {"duration_s": None, "width": None, "height": None, "fps": None, "codec": None}
    counts = {"n_shots": 0, "n_clips": 0, "n_rejected": 0, "n_failures": 1, "status": "failed"}
    return VideoRows(
        video_id=video.video_id,
        video={**_source_columns(video, run_id, fingerprints), **nothing, **counts},
        clips=(),
        rejected=(),
        failures=(failure_row(letter, run_id),),
    )


def _source_columns(video: Video, run_id: str, fingerprints: Fingerprints) -> dict[str, Any]:
    return {
        "video_id": video.video_id,
        "uri": video.uri,
        "title": video.title,
        "description": video.description,
        "size_bytes": video.size_bytes,
        "etag": video.etag,
        "fingerprints": dict(fingerprints),
        "run_id": run_id,
    }


def _lost(clip: Clip) -> DeadLetter:
    return LOST.letter("select", clip.video_id, clip.uri, clip_id=clip.clip_id, span=clip.span)


def _of_files(letters: Iterable[DeadLetter], clip_ids: Collection[str]) -> list[DeadLetter]:
    return [one for one in letters if one.stage == MEDIA_STAGE and one.clip_id in clip_ids]


def _kept(letters: Iterable[DeadLetter], video: Video) -> list[DeadLetter]:
    """The dead letters with their attempts counted."""
    return [video.earlier.numbered(letter) if video.earlier else letter for letter in letters]


@dataclasses.dataclass
class AssembleVideos(beam.PTransform):
    """Bring each video's judged clips together, with what was measured of them, and make its rows.

    PCollections of StitchedVideo, JudgedClip and, if clips are measured, Measurement in; one VideoRows out a stitched
    video; bounded or unbounded.

    Args:
      run_id: goes into every row.
      fingerprints: of a video, stage by stage.
      writes_files: whether clip files are written next (see `video_rows`).
    """

    run_id: str
    fingerprints: Callable[[Video], Fingerprints]
    writes_files: bool = False

    def expand(self, parts: tuple[beam.PCollection, ...]) -> beam.PCollection[VideoRows]:
        stitched, judged, *measured = parts
        kinds = 1 + len(measured)
        wholes = stitched | "Wholes" >> beam.Map(lambda whole: (_key(whole.split.video), Whole(whole)))
        clips = judged | "Parts" >> beam.Map(lambda judged: (_key(judged.captioned.clip), Part(judged)))
        numbers = [one | "Measured" >> beam.Map(lambda found: (_key(found), Part(found))) for one in measured]
        keyed = (wholes, clips, *numbers) | beam.Flatten()
        joined = keyed | "Join" >> JoinByCount("clips", lambda video: kinds * len(video.clips))
        return joined | "Rows" >> beam.Map(_assemble, self.run_id, self.fingerprints, bool(measured), self.writes_files)


def _key(one: Video | Clip | Measurement) -> str:
    """Of a version of a video, and of what is made of it."""
    return f"{one.video_id} {one.version}"


def _assemble(
    joined: Joined, run_id: str, fingerprints: Callable[[Video], Fingerprints], measures: bool, writes_files: bool
) -> VideoRows:
    judged = [part for part in joined.parts if isinstance(part, JudgedClip)]
    measured = [part for part in joined.parts if isinstance(part, Measurement)] if measures else None
    made_with = fingerprints(joined.whole.split.video)
    return video_rows(joined.whole, judged, run_id, made_with, measured, writes_files=writes_files)


@dataclasses.dataclass
class FailVideos(beam.PTransform):
    """Make the rows of videos that failed as a whole: FailedVideo in, one VideoRows out for each."""

    run_id: str
    fingerprints: Callable[[Video], Fingerprints]

    def expand(self, failed: beam.PCollection[FailedVideo]) -> beam.PCollection[VideoRows]:
        return failed | "Rows" >> beam.Map(_fail, self.run_id, self.fingerprints)


def _fail(failed: FailedVideo, run_id: str, fingerprints: Callable[[Video], Fingerprints]) -> VideoRows:
    return failed_video_rows(failed, run_id, fingerprints(failed.video))


def count_rows(rows: VideoRows) -> VideoRows:
    """Count what becomes of a video, by status, by rule, by the stage that failed; log each dead letter."""
    counted = collections.Counter({f"videos {rows.video['status']}": 1, "clips": len(rows.clips)})
    counted.update(f"rejected {row['stage']}" for row in rows.rejected)
    counted.update(f"failures {row['stage']}" for row in rows.failures)
    counted["clip_ms"] = round(1000 * sum(row["duration_s"] for row in rows.clips))
    counted["video_ms"] = round(1000 * (rows.video["duration_s"] or 0))
    counted["source_bytes"] = rows.video["size_bytes"]
    for name, count in counted.items():
        Metrics.counter(COUNTS, name).inc(count)
    _log_failures(rows)
    return rows


def _log_failures(rows: VideoRows) -> None:
    """Log each dead letter, with what it is about as fields (see `beam_pipeline.logs`)."""
    if not _log.isEnabledFor(logging.INFO):
        return
    for row in rows.failures:
        fields = {name: row[name] for name in _LOGGED if row[name] is not None}
        where = ", ".join(str(row[name]) for name in ("clip_id", "teacher") if row[name]) or row["video_id"]
        told = (row["stage"], where, row["error_class"], row["message"])
        _log.info("dead letter: %s of %s: %s: %s", *told, extra={**fields, "error": row["message"]})


#: The columns of a dead letter that its line in the log has as fields.
_LOGGED = ("run_id", "video_id", "clip_id", "teacher", "stage", "error_class", "attempt", "uri")
