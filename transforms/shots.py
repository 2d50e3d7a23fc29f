"""The splitting stage: videos in, shots and reels out.

split = videos | DetectShots(SplittingConfig(), "/out/reels")
split.videos      # SplitVideo, in part where `damage` says so
split.failed      # FailedVideo, stage "split": nothing of the video could be used
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.metrics import Metrics

from transforms.child import DecoderFailed, Limits, decode
from transforms.copies import check_version, local_copy
from transforms.counting import count
from transforms.detection import SplittingConfig
from transforms.filtering import Rule
from transforms.gates import dropped
from transforms.media_errors import MediaError, NotAFile, SourceChanged, source_version
from transforms.objects import ObjectChanged, StorageError
from transforms.records import DeadLetter, FailedVideo, MediaFacts, SplitVideo, Video
from transforms.reels import publish_reel, reel_aside, reel_of, standing_reel
from transforms.splitting import reusable_split, split_of

STAGE = "split"
FAILED = "failed"


class SplitVideos(NamedTuple):
    """What `DetectShots` makes: `videos` of SplitVideo, `failed` of FailedVideo."""

    videos: beam.PCollection[SplitVideo]
    failed: beam.PCollection[FailedVideo]


def split_local(
    video: Video, reels_dir: str, config: SplittingConfig, limits: Limits, gates: Sequence[Rule] = ()
) -> tuple[SplitVideo, bool]:
    """Split a video on this machine, or take what an earlier run found.

    An object in Cloud Storage is copied to this machine for as long as it is decoded. One that breaks a rule by what it
    says of itself is not decoded at all.

    Returns:
      The split video, and whether its reel was there already.

    Raises:
      MediaError: nothing of the video could be used, or it changed meanwhile.
      OSError, StorageError: the environment's fault: see `transforms.copies.local_copy`.
    """
    reel = reel_of(reels_dir, video.video_id)
    before = standing_reel(reel)
    if video.earlier is None or not video.earlier.split_again:
        known = reusable_split(video, reel, config)
        if known is not None:
            return _gated(known, gates), True
    with local_copy(video, limits.deadline_s) as path, reel_aside(reel) as aside:
        check_version(video, path)
        request = {"path": path, "reel": aside, "etag": video.etag, "config": dataclasses.asdict(config)}
        version = source_version(path)
        stated = decode("probe", {"path": path}, limits) if gates else None
        if stated and (span := dropped(video, MediaFacts(**stated), gates)):
            return SplitVideo(video, MediaFacts(**stated), (), "", dropped=span), False
        summary = decode("split", request, limits)
        try:
            changed = source_version(path) != version
        except OSError as error:
            raise NotAFile(f"{path} went away while it was read: {error.strerror}") from error
        if changed:
            os.unlink(aside)
            raise SourceChanged(f"{path} changed while it was read; run the command again")
        try:
            return _gated(split_of(video, publish_reel(aside, reel, replacing=before), summary), gates), False
        except ObjectChanged as error:
            # Another attempt at this video was faster.
            theirs = reusable_split(video, reel, config)
            if theirs is None:
                raise StorageError(f"{reel} is being replaced by another writer; try again") from error
            return _gated(theirs, gates), True


def _gated(split: SplitVideo, gates: Sequence[Rule]) -> SplitVideo:
    """The video without its shots, if what it turned out to be breaks a rule."""
    span = dropped(split.video, split.media, gates)
    return dataclasses.replace(split, shots=(), damage=None, damage_span=None, dropped=span) if span else split


@dataclasses.dataclass
class DetectShots(beam.PTransform):
    """Split each video in one decode pass, in a process of its own, and write its reel.

    One SplitVideo or one FailedVideo a video; bounded or unbounded. A video that crashes, stalls or bloats its decoder
    costs that video only. A video that decodes in part is split as far as it goes and says so in `damage`.

    Attributes:
      reels_dir: reels are written to `reels_dir/<video_id>.arrow`; a directory, or a folder in Cloud Storage.
      limits: what one video may cost.
      gates: what a video must be to be split; one that breaks a rule comes out without shots, and `dropped`.
      hints: resource hints, as Beam has them.
    """

    config: SplittingConfig
    reels_dir: str
    limits: Limits = dataclasses.field(default_factory=Limits)
    gates: tuple[Rule, ...] = ()
    hints: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, videos: beam.PCollection[Video]) -> SplitVideos:
        decode = beam.FlatMap(_split, self.reels_dir, self.config, self.limits, self.gates)
        decode = decode.with_resource_hints(**self.hints)
        split = videos | "Split" >> decode.with_outputs(FAILED, main="videos")
        return SplitVideos(split["videos"], split[FAILED])


def _split(
    video: Video, reels_dir: str, config: SplittingConfig, limits: Limits, gates: Sequence[Rule]
) -> Iterator[Any]:
    count(STAGE, in_=1)
    try:
        split, reused = split_local(video, reels_dir, config, limits, gates)
    except MediaError as error:
        _count("videos_failed")
        count(STAGE, failed=1)
        yield beam.pvalue.TaggedOutput(FAILED, FailedVideo(video, _letter(video, error)))
        return
    _count("videos_split")
    count(STAGE, out=1, reused=int(reused), bytes=0 if reused else video.size_bytes)
    if reused:
        _count("reels_reused")
    else:
        _count("split_ms", round(1000 * split.decode_s))
        _count("decoded_seconds", round(sum(shot.end_s - shot.start_s for shot in split.shots)))
    yield split


def _letter(video: Video, error: MediaError) -> DeadLetter:
    detail = error.detail if isinstance(error, DecoderFailed) else ""
    return DeadLetter(STAGE, video.video_id, video.uri, type(error).__name__, str(error), detail)


def _count(name: str, by: int = 1) -> None:
    Metrics.counter(f"reelscribe/{STAGE}", name).inc(by)
