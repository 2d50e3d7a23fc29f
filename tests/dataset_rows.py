"""Rows of made-up videos for the tests of the dataset: spans that tile, counts that add up, nothing random."""

from __future__ import annotations

import datetime
from typing import Any

from transforms.measure_columns import measured_row
from transforms.schemas import VideoRows

FAILED_AT = datetime.datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=datetime.UTC)
SHOT_S = 10.0


def clip_row(video_id: str, run_id: str, start_s: float, end_s: float, caption: str) -> dict[str, Any]:
    candidates = [("lite-frame", caption, 0.75), ("lite-text", f"not {caption}", 0.25)]
    return {
        "clip_id": f"{video_id}_{round(start_s * 1000)}_{round(end_s * 1000)}",
        "video_id": video_id,
        "uri": f"/videos/{video_id}.mp4",
        "title": None,
        "start_s": start_s,
        "end_s": end_s,
        "duration_s": end_s - start_s,
        "timestamp": [timecode(start_s), timecode(end_s)],
        "width": 1280,
        "height": 720,
        "fps": 25.0,
        "caption": caption,
        "teacher": "lite-frame",
        "matching_score": 0.75,
        "margin": 0.5,
        "abstained": False,
        "captions": [
            {
                "teacher": teacher,
                "model": "m",
                "revision": "1",
                "prompt_id": "p",
                "caption": text,
                "matching_score": score,
                "fingerprint": "f",
            }
            for teacher, text, score in candidates
        ],
        "subtitles": None,
        "embedding": [0.0, 1.0],
        "shots": [{"start_s": start_s, "end_s": end_s}],
        "run_id": run_id,
        "fingerprint": "f",
        "schema_version": 1,
        "clip_file": None,
        "made_with": None,
        **measured_row({}),
        "caption_language": None,
        "harmful_text": None,
        "duplicate_of": None,
        "duplicate_distance": None,
    }


def timecode(seconds: float) -> str:
    ms = round(seconds * 1000)
    return f"{ms // 3600000}:{ms // 60000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}"


def failure_row(video_id: str, run_id: str, stage: str, **columns: Any) -> dict[str, Any]:
    row = {
        "stage": stage,
        "video_id": video_id,
        "clip_id": None,
        "teacher": None,
        "uri": f"/videos/{video_id}.mp4",
        "start_s": None,
        "end_s": None,
        "error_class": "ValueError",
        "message": "no",
        "detail": "",
        "attempt": 1,
        "failed_at": FAILED_AT,
        "run_id": run_id,
        "fingerprint": None,
        "shots": None,
        "embedding": None,
        "captions": None,
    }
    assert columns.keys() <= row.keys()
    return {**row, **columns}


def rejected_row(video_id: str, run_id: str, start_s: float, end_s: float, stage: str = "trim") -> dict[str, Any]:
    return {
        "video_id": video_id,
        "start_s": start_s,
        "end_s": end_s,
        "stage": stage,
        "reason": "trimmed",
        "value": None,
        "threshold": 0.1,
        "run_id": run_id,
        **dict.fromkeys(("clip_id", "shots", "embedding", "captions", "made_with")),
        **measured_row({}),
    }


def video_rows(video_id: str, run_id: str = "r1", *, n_clips: int = 2, caption: str = "a dog runs", etag: str = "1"):
    """A video of `n_clips` shots of 10 s, each a clip trimmed by 1 s at both ends, and one teacher's failure."""
    spans = [(SHOT_S * number, SHOT_S * (number + 1)) for number in range(n_clips)]
    rejected = [
        rejected_row(video_id, run_id, *edge) for start, end in spans for edge in ((start, start + 1), (end - 1, end))
    ]
    failures = [failure_row(video_id, run_id, "caption", teacher="lite-text", start_s=1.0, end_s=9.0)]
    return whole(
        video_id,
        run_id,
        etag=etag,
        duration_s=SHOT_S * n_clips,
        clips=[clip_row(video_id, run_id, start + 1, end - 1, caption) for start, end in spans],
        rejected=rejected,
        failures=failures if n_clips else [],
    )


def failed_rows(video_id: str, run_id: str = "r1", **columns: Any) -> VideoRows:
    """A video that could not be opened."""
    unknown = dict.fromkeys(["duration_s", "width", "height", "fps", "codec"])
    return whole(
        video_id,
        run_id,
        status="failed",
        n_shots=0,
        failures=[failure_row(video_id, run_id, "split")],
        **{**unknown, **columns},
    )


def whole(
    video_id: str,
    run_id: str,
    *,
    clips: list[dict[str, Any]] | None = None,
    rejected: list[dict[str, Any]] | None = None,
    failures: list[dict[str, Any]] | None = None,
    **columns: Any,
) -> VideoRows:
    """These rows and the `videos` row that goes with them; `columns` replaces some of its columns."""
    clips, rejected, failures = clips or [], rejected or [], failures or []
    video = {
        "video_id": video_id,
        "uri": f"/videos/{video_id}.mp4",
        "title": "a title",
        "description": None,
        "size_bytes": 1000,
        "etag": "1",
        "duration_s": 60.0,
        "width": 1280,
        "height": 720,
        "fps": 25.0,
        "codec": "h264",
        "n_shots": max(1, len(clips)) if clips or rejected else 0,
        "n_clips": len(clips),
        "n_rejected": len(rejected),
        "n_failures": len(failures),
        "status": "ok",
        "fingerprints": {"split": "s", "embed": "e", "captions": "c", "select": "l"},
        "run_id": run_id,
        "content_hash": None,
        "duplicate_of": None,
    }
    assert columns.keys() <= video.keys()
    return VideoRows(video_id, {**video, **columns}, tuple(clips), tuple(rejected), tuple(failures))
