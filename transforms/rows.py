"""Bring the clips of a video together and write its rows as the tables want them.

    (stitched, judged, measured) | AssembleVideos(run)     # -> VideoRows, one a video, ready to be committed

Every video leaves here as rows, be it one row that says why it failed.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from transforms import measuring
from transforms.cleaning import CleanedClip
from transforms.filtering import Rule, first_broken, rejected_by
from transforms.joining import JoinByCount, Joined, Part, Whole
from transforms.records import (
    Clip,
    DeadLetter,
    FailedVideo,
    Failure,
    FilteredClip,
    JudgedClip,
    MeasuredClip,
    SplitVideo,
    StitchedVideo,
    Video,
)
from transforms.schemas import MEDIA_STAGE, VideoRows, spares_the_span
from transforms.single_rows import (
    ClipSoFar,
    Fingerprints,
    clip_row,
    dropped_clip,
    failure_row,
    judged_clip,
    rejected_row,
    source_columns,
)

_log = logging.getLogger(__name__)

COUNTS = "reelscribe/rows"
LOST = Failure("LostResult", "the clip got lost between captioning and writing", "")


def costs_the_clip(letter: DeadLetter) -> bool:
    """Whether a dead letter cost a clip, rather than one caption, one number, its file, or a stretch of no clip."""
    spared = spares_the_span(letter.stage, letter.teacher) or letter.stage == MEDIA_STAGE
    return letter.clip_id is not None and not spared


def damage_letter(split: SplitVideo) -> DeadLetter:
    """The dead letter of the part of a video that could not be decoded."""
    video = split.video
    failure = Failure("PartlyDecoded", split.damage or "", "")
    return failure.letter("split", video.video_id, video.uri, span=split.damage_span)


#: What became of a clip.
Verdict = JudgedClip | CleanedClip | FilteredClip


def video_rows(
    stitched: StitchedVideo,
    verdicts: Iterable[Verdict],
    run_id: str,
    fingerprints: Fingerprints,
    measured: Iterable[MeasuredClip] | None = None,
    *,
    rules: Sequence[Rule] = (),
    writes_files: bool = False,
) -> VideoRows:
    """All rows of a video that was split.

    The video is 'ok', 'partial' when part of it could not be read or decoded or a span failed, 'failed' when spans
    failed and no clip stands. Speech, a teacher or a measurement that fails changes nothing.

    Args:
      verdicts: one a clip.
      measured: one a clip, None where nothing is measured.
      rules: what every row of `clips` must keep to.
      writes_files: clip files are written next; what earlier runs failed to write travels on to there.
    """
    split, video = stitched.split, stitched.split.video
    by_clip = {clip_of(found).clip_id: found for found in verdicts}
    by_measure = None if measured is None else {found.clip.clip_id: found for found in measured}
    clips: list[dict[str, Any]] = []
    rejected = [rejected_row(row, run_id) for row in stitched.rejected]
    lost: dict[str, ClipSoFar] = {}
    letters: list[DeadLetter] = [*video.text_failures, *stitched.dead_letters]
    if split.damage:
        letters.append(damage_letter(split))
    if split.unheard:
        letters.append(split.unheard)
    for clip, embedding in zip(stitched.clips, stitched.embeddings, strict=True):
        found = by_clip.get(clip.clip_id)
        if found is None:
            letters.append(_lost(clip))
            lost[clip.clip_id] = ClipSoFar(clip, embedding)
            continue
        own = MeasuredClip(clip) if by_measure is None else by_measure.get(clip.clip_id) or measuring.lost(clip)
        letters += own.dead_letters
        if isinstance(found, FilteredClip):
            # What teachers failed at stands, should the clip come back.
            letters += (one for one in clip.earlier.failures if one.teacher) if clip.earlier else ()
            rejected.append(rejected_row(found.rejected, run_id, dropped_clip(found, embedding, own)))
            continue
        cleaned = found if isinstance(found, CleanedClip) else CleanedClip(found)
        judged = cleaned.judged
        letters += (*judged.dead_letters, *cleaned.dead_letters)
        if judged.chosen is None:
            lost[clip.clip_id] = ClipSoFar(clip, embedding, judged.captioned.candidates)
            continue
        row = clip_row(cleaned, embedding, run_id, fingerprints["select"], own)
        if broken := first_broken(rules, row):
            rejected.append(rejected_row(rejected_by(clip, broken), run_id, judged_clip(judged, embedding, own)))
        else:
            clips.append(row)
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
            **source_columns(video, run_id, fingerprints),
            "duration_s": split.media.duration_s,
            "width": split.media.width,
            "height": split.media.height,
            "fps": split.media.fps,
            "codec": split.media.codec,
            "n_shots": len(split.shots),
            "n_clips": len(clips),
            "n_rejected": len(rejected),
            "n_failures": len(letters),
            "status": status,
        },
        clips=tuple(clips),
        rejected=tuple(sorted(rejected, key=lambda row: row["start_s"])),
        failures=tuple(
            failure_row(letter, run_id, lost.get(letter.clip_id or "") if costs_the_clip(letter) else None)
            for letter in letters
        ),
        retried=tuple(failure_row(letter, run_id) for letter in retried),
    )


def clip_of(verdict: Verdict) -> Clip:
    """The clip that it is about."""
    if isinstance(verdict, FilteredClip):
        return verdict.clip
    return (verdict.judged if isinstance(verdict, CleanedClip) else verdict).captioned.clip


def failed_video_rows(failed: FailedVideo, run_id: str, fingerprints: Fingerprints) -> VideoRows:
    """The rows of a video of which nothing could be read."""
    video = failed.video
    (letter,) = _kept([failed.dead_letter], video)
    nothing = {"duration_s": None, "width": None, "height": None, "fps": None, "codec": None}
    counts = {"n_shots": 0, "n_clips": 0, "n_rejected": 0, "n_failures": 1, "status": "failed"}
    return VideoRows(
        video_id=video.video_id,
        video={**source_columns(video, run_id, fingerprints), **nothing, **counts},
        clips=(),
        rejected=(),
        failures=(failure_row(letter, run_id),),
    )


def _lost(clip: Clip) -> DeadLetter:
    return LOST.letter("select", clip.video_id, clip.uri, clip_id=clip.clip_id, span=clip.span)


def _of_files(letters: Iterable[DeadLetter], clip_ids: Collection[str]) -> list[DeadLetter]:
    return [one for one in letters if one.stage == MEDIA_STAGE and one.clip_id in clip_ids]


def _kept(letters: Iterable[DeadLetter], video: Video) -> list[DeadLetter]:
    """The dead letters with their attempts counted."""
    return [video.earlier.numbered(letter) if video.earlier else letter for letter in letters]


@dataclasses.dataclass
class AssembleVideos(beam.PTransform):
    """Bring each video's clips together, with what became and was measured of them, and make its rows.

    PCollections of StitchedVideo, of what became of each clip (JudgedClip or CleanedClip, or FilteredClip where a rule
    dropped it before), and, if clips are measured, MeasuredClip in; one VideoRows out a stitched video; bounded or
    unbounded.

    Args:
      run_id: goes into every row.
      fingerprints: of a video, stage by stage.
      rules: what every clip must keep to.
      writes_files: whether clip files are written next (see `video_rows`).
    """

    run_id: str
    fingerprints: Callable[[Video], Fingerprints]
    rules: tuple[Rule, ...] = ()
    writes_files: bool = False

    def expand(self, parts: tuple[beam.PCollection, ...]) -> beam.PCollection[VideoRows]:
        stitched, verdicts, *measured = parts
        kinds = 1 + len(measured)
        wholes = stitched | "Wholes" >> beam.Map(lambda whole: (_key(whole.split.video), Whole(whole)))
        clips = verdicts | "Parts" >> beam.Map(lambda found: (_key(clip_of(found)), Part(found)))
        numbers = [one | "Measured" >> beam.Map(lambda found: (_key(found.clip), Part(found))) for one in measured]
        keyed = (wholes, clips, *numbers) | beam.Flatten()
        joined = keyed | "Join" >> JoinByCount("clips", lambda video: kinds * len(video.clips))
        how = {"rules": self.rules, "writes_files": self.writes_files}
        return joined | "Rows" >> beam.Map(_assemble, self.run_id, self.fingerprints, bool(measured), how)


def _key(one: Video | Clip) -> str:
    """Of a version of a video, and of what is made of it."""
    return f"{one.video_id} {one.version}"


def _assemble(
    joined: Joined,
    run_id: str,
    fingerprints: Callable[[Video], Fingerprints],
    measures: bool,
    how: Mapping[str, Any],
) -> VideoRows:
    verdicts = [part for part in joined.parts if isinstance(part, Verdict)]
    measured = [part for part in joined.parts if isinstance(part, MeasuredClip)] if measures else None
    made_with = fingerprints(joined.whole.split.video)
    return video_rows(joined.whole, verdicts, run_id, made_with, measured, **how)


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
