"""Set videos aside that stop the whole pipeline, each one alone: dead letters of stage `run`, until somebody redrives.

    set_aside(job, committer, source, error)      # -> Committed("a-1b2c...", status="failed", ...)

Such an error is the environment's by its kind, out of memory say; but when others go through, it is the video's.
"""

from __future__ import annotations

import dataclasses
import re

from beam_pipeline.job import Job
from beam_pipeline.pipeline import fingerprints_of
from beam_pipeline.runs import root_cause
from transforms.committing import Committed, Committer
from transforms.reading import Source, unread_video
from transforms.recalling import Memory
from transforms.records import FailedVideo, Failure
from transforms.rows import failed_video_rows

#: The stage of these dead letters.
RUN_STAGE = "run"
#: So many such videos, and none that went through in between, are no fault of the videos.
POISONED_IN_A_ROW = 3


def set_aside(job: Job, committer: Committer, source: Source, error: BaseException) -> Committed:
    """Commit a dead letter of stage `run` for a video; one that this version of it has counts an attempt more.

    Args:
      job: that the video stopped. error: with which.
      committer: of this job and its dataset, made while the job held the lease, so that it notices when that is lost.

    Raises:
      LeaseLost: the dataset is another writer's now.
    """
    video = unread_video(source)
    letter = failure_of(error).letter(
        RUN_STAGE, source.video_id, source.uri, attempt=_tried_before(job.output, source) + 1
    )
    rows = failed_video_rows(FailedVideo(video, letter), job.run_id, fingerprints_of(video, job.config))
    (committed,) = committer.commit([rows])
    return committed


def _tried_before(output: str, source: Source) -> int:
    rows = Memory(output).rows_of([source.video_id]).get(source.video_id)
    if rows is None or rows["videos"][0]["etag"] != source.etag:
        return 0
    return max((row["attempt"] for row in rows["failures"] if row["stage"] == RUN_STAGE), default=0)


def failure_of(error: BaseException) -> Failure:
    """What stopped a pipeline, in a line, without the steps that the runner says it was in."""
    cause = re.sub(r" \[while running .*", "", root_cause(error))
    kind, _, message = cause.partition(": ")
    return dataclasses.replace(Failure.of(error), error_class=kind.rpartition(".")[2], message=message or cause)
