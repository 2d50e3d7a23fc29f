"""Embed the two boundary frames of every shot, and bring the shots of a video together again.

split_videos | EmbedShots(handler)     # -> (SplitVideo, {shot index: ShotFeatures | Failure})
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import apache_beam as beam
from apache_beam.ml.inference.base import ModelHandler

from transforms.counting import count
from transforms.inference import infer
from transforms.joining import JoinByCount, Joined, Part, Whole
from transforms.records import EmbedRequest, Failure, Outcome, Shot, ShotFeatures, SplitVideo, Vector

Embedding = Outcome[EmbedRequest, tuple[Vector, Vector]]

LOST = Failure("LostResult", "the embedder returned nothing for this shot", "")


def requests_of(split: SplitVideo) -> Iterable[EmbedRequest]:
    """One request a shot; none where an earlier run stitched the same shots."""
    for shot in split.shots[: n_requests(split)]:
        yield EmbedRequest(split.video.video_id, shot, split.reel, split.video.version)


def features_of(embedding: Embedding) -> tuple[Shot, ShotFeatures | Failure]:
    """What came of one request: the shot's features, or why there are none."""
    shot = embedding.request.shot
    if embedding.failure or embedding.answer is None:
        return shot, embedding.failure or LOST
    first, last = embedding.answer
    return shot, ShotFeatures(shot, first, last)


def gather(joined: Joined) -> tuple[SplitVideo, dict[int, ShotFeatures | Failure]]:
    """Order a video's shots by index; shots whose result got lost count as failures."""
    split: SplitVideo = joined.whole
    found = {shot.index: features for shot, features in joined.parts}
    return split, {shot.index: found.get(shot.index, LOST) for shot in split.shots}


def n_requests(split: SplitVideo) -> int:
    return 0 if split.known else len(split.shots)


@dataclasses.dataclass
class EmbedShots(beam.PTransform):
    """Embed the shots of each video.

    SplitVideo in, one (SplitVideo, {shot index: ShotFeatures | Failure}) out for each; bounded or unbounded. A shot
    that cannot be embedded costs that shot.

    Args:
      handler: answers an `EmbedRequest` with the unit vectors of the shot's (first, last) boundary frames.
      hints: resource hints, as Beam has them.
    """

    handler: ModelHandler
    hints: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def expand(self, videos: beam.PCollection[SplitVideo]) -> beam.PCollection:
        wholes = videos | "Wholes" >> beam.Map(_whole)
        parts = (
            videos
            | "Requests" >> beam.FlatMap(requests_of)
            | "Spread" >> beam.Reshuffle()
            | "Embed" >> infer(self.handler, self.hints)
            | "Parts" >> beam.Map(_part)
        )
        joined = (wholes, parts) | "Both" >> beam.Flatten() | "Join" >> JoinByCount("shots", n_requests)
        return joined | "Gather" >> beam.Map(_gathered)


def _whole(split: SplitVideo) -> tuple[str, Whole]:
    count("embed", in_=len(split.shots))
    return f"{split.video.video_id} {split.video.version}", Whole(split)


def _part(embedding: Embedding) -> tuple[str, Part]:
    request = embedding.request
    return f"{request.video_id} {request.version}", Part(features_of(embedding))


def _gathered(joined: Joined) -> tuple[SplitVideo, dict[int, ShotFeatures | Failure]]:
    split, features = gather(joined)
    earlier = split.video.earlier
    if earlier is not None and not n_requests(split):
        # What it found then is not looked at: the clips that were made of it are.
        failed, reused = sum(letter.stage == "embed" for letter in earlier.settled), len(split.shots)
    else:
        failed, reused = sum(isinstance(one, Failure) for one in features.values()), 0
    count("embed", out=len(split.shots) - failed, failed=failed, reused=reused)
    return split, features
