"""The part of the audit that looks at spans: every clip by itself, and all spans of a video together.

for breach in check_tiling(row, group_spans(snapshot)[video_id], extent=(0.0, 60.0)): ...
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from transforms.measure_columns import MEASURED
from transforms.schemas import CLEAN_STAGE, SOURCE_STAGE, spares_the_span
from transforms.tables import Snapshot

#: Times agree when they are within this of each other.
TOLERANCE_S = 0.001

#: Stages whose failure loses a span. The splitter's own lie outside what it found.
_LOSING_STAGES = frozenset({"embed", "stitch", "caption", "score", "select", "join"})

Spans = list[tuple[float, float]]


@dataclasses.dataclass
class VideoSpans:
    """The spans of one video.

    Attributes:
      failed: those that a failure lost. costly: dead letters of the video or its spans, neither one teacher's nor a
        measurement's. gated: a rule dropped the video as a whole, before it was split.
    """

    accepted: Spans = dataclasses.field(default_factory=list)
    rejected: Spans = dataclasses.field(default_factory=list)
    failed: Spans = dataclasses.field(default_factory=list)
    n_failures: int = 0
    costly: int = 0
    gated: bool = False

    def check_status(self, row: Mapping[str, Any]) -> Iterator[str]:
        video_id, status = row["video_id"], row["status"]
        if status == "failed" and self.accepted:
            yield f"{video_id}: it failed, yet it has {len(self.accepted)} clips"
        if status == "failed" and not self.n_failures:
            yield f"{video_id}: it failed, and no dead letter says why"
        if status == "ok" and self.costly:
            yield f"{video_id}: status ok, yet {self.costly} dead letters are of the video or of its spans"
        if status == "partial" and not self.costly:
            yield f"{video_id}: status partial, and no dead letter says what is missing"
        if status not in ("ok", "partial", "failed"):
            yield f"{video_id}: its status is {status!r}"


def group_spans(snapshot: Snapshot) -> dict[str, VideoSpans]:
    """The spans of every committed video, by video_id."""
    videos: dict[str, VideoSpans] = {}
    clips: dict[str, str] = {}
    gated: set[str] = set()
    for name in ("clips", "rejected"):
        columns = ["video_id", "start_s", "end_s", "clip_id" if name == "clips" else "stage"]
        for batch in snapshot.scan(name, columns):
            rows = batch.to_pydict()
            gated.update(
                video_id
                for video_id, stage in zip(rows["video_id"], rows.get("stage", ()), strict=False)
                if stage == SOURCE_STAGE
            )
            clips.update(dict.fromkeys(rows.get("clip_id", ()), ""))
            for video_id, start_s, end_s in zip(rows["video_id"], rows["start_s"], rows["end_s"], strict=True):
                video = videos.setdefault(video_id, VideoSpans())
                (video.accepted if name == "clips" else video.rejected).append((start_s, end_s))
    for batch in snapshot.scan("failures", ["video_id", "clip_id", "teacher", "stage", "start_s", "end_s"]):
        for row in batch.to_pylist():
            video = videos.setdefault(row["video_id"], VideoSpans())
            video.n_failures += 1
            if spares_the_span(row["stage"], row["teacher"]):
                continue
            video.costly += 1
            has_span = row["start_s"] is not None and row["end_s"] is not None
            loses = row["clip_id"] is not None or row["stage"] in _LOSING_STAGES
            # A clip that stands all the same lost nothing; two letters of one span lost it once.
            if has_span and loses and row["clip_id"] not in clips:
                span = (row["start_s"], row["end_s"])
                if span not in video.failed:
                    video.failed.append(span)
    for video_id in gated:
        videos[video_id].gated = True
    return videos


def check_tiling(row: Mapping[str, Any], spans: VideoSpans, extent: tuple[float, float] | None) -> Iterator[str]:
    """Accepted, rejected and failed spans together leave no gap and do not overlap; clips are inside the video.

    Args:
      row: of `videos`.
      extent: from where to where the splitter found shots, if its reel tells.
    """
    video_id = row["video_id"]
    together = sorted(spans.accepted + spans.rejected + spans.failed)
    if not together:
        if row["n_shots"]:
            yield f"{video_id}: of its {row['n_shots']} shots no span is left, neither accepted nor rejected nor failed"
        return
    if spans.gated and (len(together) > 1 or row["n_shots"]):
        yield f"{video_id}: it was dropped as a whole, yet it has {len(together)} spans and {row['n_shots']} shots"
    if not row["n_shots"] and not spans.gated:
        yield f"{video_id}: it has {len(together)} spans, but n_shots is 0"
    until = together[0][0]
    for start_s, end_s in together:
        if not end_s > start_s:
            yield f"{video_id}: the span {start_s:.3f}-{end_s:.3f} s has no length"
        if start_s > until + TOLERANCE_S:
            yield f"{video_id}: nobody says what became of {until:.3f}-{start_s:.3f} s"
        elif start_s < until - TOLERANCE_S:
            yield f"{video_id}: the span {start_s:.3f}-{end_s:.3f} s overlaps the one that ends at {until:.3f} s"
        until = max(until, end_s)
    if (
        extent
        and not spans.gated
        and (abs(together[0][0] - extent[0]) > TOLERANCE_S or abs(until - extent[1]) > TOLERANCE_S)
    ):
        yield (
            f"{video_id}: its spans reach from {together[0][0]:.3f} to {until:.3f} s, "
            f"but the splitter found shots from {extent[0]:.3f} to {extent[1]:.3f} s"
        )
    yield from _check_inside(row, spans.accepted, extent)


def _check_inside(row: Mapping[str, Any], accepted: Spans, extent: tuple[float, float] | None) -> Iterator[str]:
    # What a container calls its duration may leave out how long the last frame is shown; the shots' extent never does.
    frame_s = 1 / row["fps"] if row["fps"] else 0.0
    first_s, last_s = extent or (None, None if row["duration_s"] is None else row["duration_s"] + frame_s)
    for start_s, end_s in accepted:
        early = first_s is not None and start_s < first_s - TOLERANCE_S
        late = last_s is not None and end_s > last_s + TOLERANCE_S
        if early or late:
            yield f"{row['video_id']}: the clip {start_s:.3f}-{end_s:.3f} s is not inside its video"


def check_clip(clip: Mapping[str, Any]) -> Iterator[str]:
    """One row of `clips` by itself."""
    clip_id = clip["clip_id"]
    if not clip["end_s"] > clip["start_s"]:
        yield f"{clip_id}: it ends at {clip['end_s']} s, before it starts"
    span_s = clip["end_s"] - clip["start_s"]
    if not math.isclose(clip["duration_s"], span_s, abs_tol=TOLERANCE_S):
        yield f"{clip_id}: duration_s is {clip['duration_s']}, but its span is {span_s:.3f} s long"
    for text, time_s in zip(clip["timestamp"], (clip["start_s"], clip["end_s"]), strict=False):
        told_s = _seconds(text)
        if told_s is None or abs(told_s - time_s) > TOLERANCE_S:
            yield f"{clip_id}: its timestamp says {text!r}, its span {time_s:.3f} s"
    if len(clip["timestamp"]) != 2:
        yield f"{clip_id}: its timestamp has {len(clip['timestamp'])} entries, not 2"
    if not clip["caption"].strip():
        yield f"{clip_id}: its caption is empty"
    if any(not (candidate["caption"] or "").strip() for candidate in clip["captions"]):
        yield f"{clip_id}: one of its candidate captions is empty"
    # Where the caption was cleaned the words may be no candidate's.
    cleaned = CLEAN_STAGE in (one["name"] for one in clip["made_with"] or ())
    if not cleaned and not any(
        (candidate["teacher"], candidate["caption"]) == (clip["teacher"], clip["caption"])
        for candidate in clip["captions"]
    ):
        yield f"{clip_id}: its caption is none of {clip['teacher']}'s candidates"
    if clip["margin"] is not None and not clip["margin"] >= 0:
        yield f"{clip_id}: its margin is {clip['margin']}, so another candidate was better"
    for column in MEASURED:
        if not column.fits(clip[column.name]):
            yield f"{clip_id}: its {column.name} cannot be {clip[column.name]}"


def _seconds(timecode: str) -> float | None:
    """The seconds of "H:MM:SS.mmm", None if it is no such thing."""
    hours, colon, rest = timecode.partition(":")
    minutes, second_colon, seconds = rest.partition(":")
    try:
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds) if colon and second_colon else None
    except ValueError:
        return None
