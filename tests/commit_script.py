"""Commit made-up videos from a process of its own, which a test may kill at any instant.

    python tests/commit_script.py DIR RUN_ID ETAG N_VIDEOS [--no-lease]

Does what a job does: plans what is missing, commits it in batches, finishes. Says "ready" before it begins.
"""

from __future__ import annotations

import contextlib
import sys

from dataset_rows import failed_rows, video_rows

from transforms.committing import Committer, finalise
from transforms.lease import WriterLease
from transforms.schemas import VideoRows
from transforms.tables import current_videos

BATCH = 4


def rows_of(number: int, run_id: str, etag: str) -> VideoRows:
    """The rows of the number-th video: every seventh fails in its first version, the others gain a clip in the next."""
    video_id = f"video-{number}"
    if number % 7 == 0 and etag == "1":
        return failed_rows(video_id, run_id)
    return video_rows(video_id, run_id, n_clips=number % 3 + int(etag), caption=f"version {etag}", etag=etag)


def commit_missing(directory: str, run_id: str, etag: str, n_videos: int) -> None:
    standing = current_videos(directory)
    missing = [n for n in range(n_videos) if getattr(standing.get(f"video-{n}"), "etag", None) != etag]
    committer = Committer(directory)
    for start in range(0, len(missing), BATCH):
        committer.commit([rows_of(number, run_id, etag) for number in missing[start : start + BATCH]])


def main(directory: str, run_id: str, etag: str, n_videos: str, *flags: str) -> None:
    alone = "--no-lease" in flags
    print("ready", flush=True)
    with contextlib.nullcontext() if alone else WriterLease(directory, run_id):
        commit_missing(directory, run_id, etag, int(n_videos))
        if not alone:
            finalise(directory)


if __name__ == "__main__":
    main(*sys.argv[1:])
