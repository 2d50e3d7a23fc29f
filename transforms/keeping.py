"""Keep what stands when something newer of the same video failed: a failure never takes good rows away.

rows = keep_standing(standing, failed)      # the standing rows with the dead letter, or None when nothing is worth it
"""

from __future__ import annotations

from typing import Any

from transforms.schemas import VideoRows

#: Of one of these a video has a dead letter once.
_PLACE = ("stage", "clip_id", "teacher", "fingerprint")


def keep_standing(standing: VideoRows, failed: VideoRows) -> VideoRows | None:
    """The rows that stand, as those of the run in which the video failed, with a dead letter that says so.

    They keep the fingerprints that they were made with, so that the next run tries again whatever was asked for.

    Args:
      standing: what the dataset holds. failed: what would take its place.

    Returns:
      None where the failed rows are right: clips came, nothing stood, or it was of another version of the source.
    """
    of_one_version = standing.video["etag"] == failed.video["etag"]
    if failed.video["status"] != "failed" or not standing.clips or not of_one_version:
        return None
    letter = _told_once(failed.failures)
    others = [row for row in standing.failures if any(row[name] != letter[name] for name in _PLACE)]
    video = {**standing.video, "n_failures": len(others) + 1, "status": "partial"}
    return VideoRows(standing.video_id, video, standing.clips, standing.rejected, (*others, letter)).in_run(
        failed.run_id
    )


def _told_once(failures: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """One dead letter for all, of the whole video: the spans of the failed attempt are those of clips that stand."""
    first = failures[0]
    more = f" (and {len(failures) - 1} more failures)" if len(failures) > 1 else ""
    nowhere = dict.fromkeys(["clip_id", "teacher", "start_s", "end_s", "fingerprint", "shots", "embedding", "captions"])
    return {**first, **nowhere, "message": first["message"] + more}
