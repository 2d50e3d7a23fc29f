"""Write the clips of each video to files below the dataset, and name these in its rows.

    rows | WriteClips("out", ClipFileSettings("encode"))      # `clip_file` of every clip: "media/CLIP_ID.mp4"

A file is written once: it says itself what it was made of (see `clip_settings.made_as`), and stands as long as that is
what a run would make. Encoding runs in the decoding process: a codec that crashes costs that video's files only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from transforms.child import DecoderFailed, Limits, decode
from transforms.clip_places import MEDIA, media_of, standing_file, whole_file
from transforms.clip_settings import ClipFileSettings, made_as
from transforms.copies import check_version, local_copy
from transforms.counting import count, timed
from transforms.files import join
from transforms.media_errors import MediaError
from transforms.objects import is_object, upload
from transforms.records import DeadLetter, Failure, Span, Video
from transforms.schemas import MEDIA_STAGE, VideoRows
from transforms.single_rows import failure_row

_log = logging.getLogger(__name__)


def with_files(rows: VideoRows, files: Mapping[str, str], failures: Mapping[str, Failure]) -> VideoRows:
    """The rows of a video with the files of its clips, and a dead letter for each that could not be written.

    Args:
      files: `clip_file` by clip_id. failures: why there is none, by clip_id; attempts before are counted on.
    """
    before = {row["clip_id"]: row for row in rows.retried}
    letters = []
    for clip in rows.clips:
        failure = failures.get(clip["clip_id"])
        if failure is not None:
            span = Span(clip["start_s"], clip["end_s"])
            tried = before.get(clip["clip_id"], {"attempt": 0})["attempt"]
            where: dict[str, Any] = {"clip_id": clip["clip_id"], "span": span, "attempt": tried + 1}
            letter: DeadLetter = failure.letter(MEDIA_STAGE, rows.video_id, clip["uri"], **where)
            letters.append(failure_row(letter, rows.run_id))
    clips = tuple({**clip, "clip_file": files.get(clip["clip_id"])} for clip in rows.clips)
    status = "partial" if letters and rows.video["status"] == "ok" else rows.video["status"]
    all_failures = (*rows.failures, *letters)
    video = {**rows.video, "n_failures": len(all_failures), "status": status}
    return VideoRows(rows.video_id, video, clips, rows.rejected, all_failures)


def write_files(rows: VideoRows, dataset_dir: str, settings: ClipFileSettings, limits: Limits) -> VideoRows:
    """Write the files that a video's clips lack, and return its rows with them.

    Raises:
      RowError: an id that is not safe as a file's name.
      OSError, RuntimeError, StorageError: the environment's fault: a full disk, or Cloud Storage that cannot be asked.
    """
    rows.check()  # Ids become names of files here.
    # Of a redrive that is about other stages.
    settled = {row["clip_id"] for row in rows.failures if row["stage"] == MEDIA_STAGE}
    files: dict[str, str] = {}
    missing: dict[str, dict[str, Any]] = {}
    for clip in rows.clips:
        clip_id = clip["clip_id"]
        of = made_as(rows.video["etag"], Span(clip["start_s"], clip["end_s"]), settings)
        if (found := standing_file(dataset_dir, clip_id, of)) is not None:
            files[clip_id] = found
        elif clip_id not in settled:
            missing[clip_id] = {
                "clip_id": clip_id, "start_s": clip["start_s"], "end_s": clip["end_s"], "made_as": of
            }  # fmt: skip
    count(MEDIA_STAGE, in_=len(rows.clips), reused=len(files), out=len(files))
    failures: dict[str, Failure] = {}
    if missing:
        with timed(MEDIA_STAGE):
            written, failures = _write(rows, dataset_dir, missing, settings, limits)
        files |= written
        count(MEDIA_STAGE, out=len(written), failed=len(failures))
    count(MEDIA_STAGE, failed=len(settled - files.keys()))
    if stale := settled & files.keys():
        rows = dataclasses.replace(rows, failures=tuple(
            row for row in rows.failures if not (row["stage"] == MEDIA_STAGE and row["clip_id"] in stale)
        ))  # fmt: skip
    return with_files(rows, files, failures)


def _write(
    rows: VideoRows,
    dataset_dir: str,
    missing: Mapping[str, dict[str, Any]],
    settings: ClipFileSettings,
    limits: Limits,
) -> tuple[dict[str, str], dict[str, Failure]]:
    """Write files; those written by clip_id, and why the others are not."""
    files: dict[str, str] = {}
    failures: dict[str, Failure] = {}
    with _folder(dataset_dir) as folder:
        try:
            told = _ask(rows, folder, missing, settings, limits)
        except MediaError as error:
            detail = error.detail if isinstance(error, DecoderFailed) else ""
            failure = Failure(type(error).__name__, str(error), detail)
            # What was finished before the process ended is whole.
            for clip_id, one in missing.items():
                name = whole_file(folder, clip_id, one["made_as"])
                if name:
                    files[clip_id] = _publish(folder, name, dataset_dir)
                else:
                    failures[clip_id] = failure
            return files, failures
        for one in told:
            clip_id = one["clip_id"]
            if one["failure"] is None:
                files[clip_id] = _publish(folder, one["file"], dataset_dir)
                _log.info("%s %s, sound %s", one["how"], files[clip_id], one["sound"], extra={"clip_id": clip_id})
                Metrics.counter(f"reelscribe/{MEDIA_STAGE}", one["how"]).inc()
                sound = one["sound"].partition(":")[0]
                Metrics.counter(f"reelscribe/{MEDIA_STAGE}", f"sound_{sound}").inc()
            else:
                failures[clip_id] = Failure("ClipNotWritten", one["failure"], "")
    for clip_id in missing.keys() - files.keys() - failures.keys():
        failures[clip_id] = Failure("ClipNotWritten", "nothing became of it", "")
    return files, failures


def _ask(
    rows: VideoRows,
    folder: str,
    missing: Mapping[str, dict[str, Any]],
    settings: ClipFileSettings,
    limits: Limits,
) -> list[dict[str, Any]]:
    """Have the decoding process write files into a folder on this machine."""
    source = rows.video
    video = Video(rows.video_id, source["uri"], source["etag"], source["size_bytes"])
    with local_copy(video, limits.deadline_s) as path:
        check_version(video, path)
        request = {
            "path": path,
            "folder": folder,
            "clips": list(missing.values()),
            "settings": dataclasses.asdict(settings),
        }
        return decode("clips", request, limits)


@contextlib.contextmanager
def _folder(dataset_dir: str) -> Iterator[str]:
    """Where files are written: in place, or on this machine for as long as it takes to upload them."""
    if is_object(dataset_dir):
        with tempfile.TemporaryDirectory(prefix="reelscribe-clips-") as folder:
            yield folder
    else:
        yield media_of(dataset_dir)


def _publish(folder: str, name: str, dataset_dir: str) -> str:
    if is_object(dataset_dir):
        upload(join(folder, name), join(dataset_dir, MEDIA, name))
    return f"{MEDIA}/{name}"


@dataclasses.dataclass
class WriteClips(beam.PTransform):
    """Write each clip to a file of its own.

    VideoRows in, one VideoRows out for each, with `clip_file` set; bounded or unbounded. A clip whose file cannot be
    written stays, with a dead letter of stage 'media'. Breaks fusion first: the join before it may keep to one worker.

    Attributes:
      limits: what one video may cost. hints: resource hints, as Beam has them.
    """

    dataset_dir: str
    settings: ClipFileSettings
    limits: Limits = dataclasses.field(default_factory=Limits)
    hints: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, rows: beam.PCollection[VideoRows]) -> beam.PCollection[VideoRows]:
        spread = rows | "Spread" >> beam.Reshuffle()
        write = beam.Map(write_files, self.dataset_dir, self.settings, self.limits).with_resource_hints(**self.hints)
        return spread | "Write" >> write.with_output_types(VideoRows)
