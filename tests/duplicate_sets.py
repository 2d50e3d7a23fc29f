"""Datasets with embeddings of one's choice, for the tests of de-duplication; and a process that may be killed.

    python tests/duplicate_sets.py DIR RUN_ID N_VIDEOS

commits videos of which every third looks like the one before, marks the duplicates, finishes. Says "ready" first.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import sys
from typing import Any

from dataset_rows import clip_row, whole

from beam_pipeline.duplicates import mark_duplicates
from transforms.committing import Committer, finalise
from transforms.lease import WriterLease
from transforms.schemas import CLIPS, VIDEOS, VideoRows
from transforms.tables import current_videos

THRESHOLD = 0.2


@dataclasses.dataclass(frozen=True)
class Look:
    """A clip: the direction of its embedding in degrees, how long it is and how large."""

    degrees: float
    length_s: float = 8.0
    width: int = 1280


def distance(one: Look, other: Look) -> float:
    """Between the unit embeddings of two."""
    return 2 * abs(math.sin(math.radians(one.degrees - other.degrees) / 2))


def video(video_id: str, looks: list[Look], run_id: str = "r1", **columns: Any) -> VideoRows:
    """A video with a clip of each look, which tile it."""
    clips, at = [], 0.0
    for look in looks:
        angle = math.radians(look.degrees)
        row = clip_row(video_id, run_id, at, at + look.length_s, "a dog runs")
        embedding = [math.cos(angle), math.sin(angle)]
        clips.append({**dict.fromkeys(CLIPS.names), **row, "embedding": embedding, "width": look.width})
        at += look.length_s
    made = {name: columns.pop(name) for name in tuple(columns) if name in ("content_hash", "duplicate_of")}
    rows = whole(video_id, run_id, clips=clips, duration_s=at or 1.0, **columns)
    return dataclasses.replace(rows, video={**dict.fromkeys(VIDEOS.names), **rows.video, **made})


def plan(number: int, run_id: str) -> VideoRows:
    """The number-th video of the process below."""
    degrees = 40.0 * (number if number % 3 else max(number - 1, 0))
    return video(f"v{number:03d}", [Look(degrees % 360), Look((degrees + 13) % 360, 8 + number % 2)], run_id)


def main(directory: str, run_id: str, n_videos: str) -> None:
    print("ready", flush=True)
    with WriterLease(directory, run_id):
        standing = current_videos(directory)
        missing = [n for n in range(int(n_videos)) if f"v{n:03d}" not in standing]
        committer = Committer(directory)
        for start in range(0, len(missing), 4):
            committer.commit([plan(number, run_id) for number in missing[start : start + 4]])
            mark_duplicates(directory, THRESHOLD)
        mark_duplicates(directory, THRESHOLD)
        finalise(pathlib.Path(directory))


if __name__ == "__main__":
    main(*sys.argv[1:])
