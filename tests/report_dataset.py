"""A dataset written by hand for the tests of the report: real Delta tables, and reels of pictures drawn here."""

from __future__ import annotations

import datetime
import io
import json
import pathlib
from typing import Any

from deltalake import write_deltalake
from PIL import Image, ImageDraw

from transforms.measure_columns import measured_row
from transforms.reel import ReelFrame, ReelWriter
from transforms.schemas import TABLES, rows_to_table
from transforms.tables import create_tables

RUN = "run-1"
HOSTILE = "</script><img src=x onerror=\"document.title='hacked'\">\u2028<b>bold</b> & 'quoted'"

Row = dict[str, Any]


def candidate(teacher: str, caption: str, score: float | None) -> Row:
    return {
        "teacher": teacher,
        "model": f"models/{teacher}",
        "revision": "r1",
        "prompt_id": "p1",
        "caption": caption,
        "matching_score": score,
        "fingerprint": "f",
    }


def clip(video_id: str, start_s: float, end_s: float, candidates: list[Row], **more: Any) -> Row:
    """A clip whose best candidate by score is chosen, as the selector would."""
    ranked = sorted(candidates, key=lambda one: -one["matching_score"])
    runner_up = ranked[1]["matching_score"] if len(ranked) > 1 else None
    return {
        "clip_id": f"{video_id}-{round(start_s * 1000)}-{round(end_s * 1000)}",
        "video_id": video_id,
        "uri": f"videos/{video_id}.mp4",
        "title": None,
        "start_s": start_s,
        "end_s": end_s,
        "duration_s": end_s - start_s,
        "timestamp": ["0:00:00.000", "0:00:01.000"],
        "width": 1280,
        "height": 720,
        "fps": 25.0,
        "caption": ranked[0]["caption"],
        "teacher": ranked[0]["teacher"],
        "matching_score": ranked[0]["matching_score"],
        "margin": None if runner_up is None else ranked[0]["matching_score"] - runner_up,
        "abstained": False,
        "captions": candidates,
        "subtitles": None,
        "embedding": [1.0, 0.0],
        "shots": [{"start_s": start_s, "end_s": end_s}],
        "run_id": RUN,
        "fingerprint": "f",
        "schema_version": 1,
        "clip_file": None,
        "made_with": None,
        **measured_row({}),
        "caption_language": None,
        "harmful_text": None,
        "duplicate_of": None,
        "duplicate_distance": None,
    } | more


def rejected(
    video_id: str, start_s: float, end_s: float, stage: str, reason: str, value: float | None, threshold: float | None
) -> Row:
    return {
        "video_id": video_id,
        "start_s": start_s,
        "end_s": end_s,
        "stage": stage,
        "reason": reason,
        "value": value,
        "threshold": threshold,
        "run_id": RUN,
        **dict.fromkeys(("clip_id", "shots", "embedding", "captions", "made_with")),
        **measured_row({}),
    }


def failure(stage: str, video_id: str, error_class: str, message: str, **more: Any) -> Row:
    return {
        "stage": stage,
        "video_id": video_id,
        "clip_id": None,
        "teacher": None,
        "uri": f"videos/{video_id}.mp4",
        "start_s": None,
        "end_s": None,
        "error_class": error_class,
        "message": message,
        "detail": "Traceback: here",
        "attempt": 1,
        "failed_at": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
        "run_id": RUN,
        **dict.fromkeys(["fingerprint", "shots", "embedding", "captions"]),
    } | more


def video(video_id: str, duration_s: float | None, status: str = "ok", **more: Any) -> Row:
    known = duration_s is not None
    return {
        "video_id": video_id,
        "uri": f"videos/{video_id}.mp4",
        "title": None,
        "description": None,
        "size_bytes": 1000,
        "etag": "e",
        "duration_s": duration_s,
        "width": 1280 if known else None,
        "height": 720 if known else None,
        "fps": 25.0 if known else None,
        "codec": "h264" if known else None,
        "n_shots": 0,
        "n_clips": 0,
        "n_rejected": 0,
        "n_failures": 0,
        "status": status,
        "fingerprints": {"split": "a", "embed": "b", "captions": "c", "select": "d"},
        "run_id": RUN,
        "content_hash": None,
        "duplicate_of": None,
    } | more


def write_dataset(directory: pathlib.Path, **rows: list[Row]) -> pathlib.Path:
    """Write the four tables; the counts of a `videos` row are those of the rows given."""
    directory.mkdir(parents=True, exist_ok=True)
    create_tables(directory)
    for row in rows.get("videos", []):
        for name in ("clips", "rejected", "failures"):
            row[f"n_{name}"] = sum(one["video_id"] == row["video_id"] for one in rows.get(name, []))
    for name, schema in TABLES.items():
        if rows.get(name):
            write_deltalake(str(directory / name), rows_to_table(rows[name], schema), mode="append")
    return directory


def write_reel(directory: pathlib.Path, video_id: str, duration_s: float, size: tuple[int, int] = (796, 448)) -> None:
    """A reel of two frames a second; each frame has a colour of its own and says its time."""
    with ReelWriter(str(directory / "reels" / f"{video_id}.arrow"), etag="e", settings="s") as reel:
        for number in range(int(duration_s * 2)):
            reel.add(ReelFrame(number / 2, number * 12, 0, _picture(number, size)))
        reel.finish({})


def write_run(directory: pathlib.Path, name: str = RUN, **record: Any) -> None:
    (directory / "runs").mkdir(exist_ok=True)
    (directory / "runs" / f"{name}.json").write_text(json.dumps({"run_id": name, **record}), encoding="utf-8")


def _picture(number: int, size: tuple[int, int]) -> bytes:
    picture = Image.new("RGB", size, ((number * 37) % 256, (number * 71 + 90) % 256, (number * 13 + 160) % 256))
    draw = ImageDraw.Draw(picture)
    for ring in range(0, min(size) // 2, 40):
        draw.ellipse((ring, ring, size[0] - ring, size[1] - ring), outline=(255 - ring % 200, 200, ring % 256), width=6)
    draw.text((20, 20), f"{number / 2:.1f} s", fill=(255, 255, 255), font_size=60)
    sink = io.BytesIO()
    picture.save(sink, "JPEG", quality=85)
    return sink.getvalue()
