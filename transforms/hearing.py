"""Hear what is said in videos that nobody subtitled, and keep it with the dataset.

    split.videos | HearVideos("out/speech", listener, "5a0c91d2")      # -> SplitVideo, with the cues in `heard`

What was heard stands in `speech/VIDEO_ID.json` from then on: of the same version of a video the same model is not asked
again. The words of people stand before it: a video with subtitles of its own passes as it is.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler

from transforms.counting import count
from transforms.files import Directory, join, read, write
from transforms.inference import infer
from transforms.records import Cue, DeadLetter, Outcome, SplitVideo
from transforms.schemas import HEAR_STAGE

_SETTLED = "settled"


def speech_of(dataset_dir: Directory) -> str:
    """The folder of what was heard in a dataset's videos."""
    return join(dataset_dir, "speech")


def wants_hearing(split: SplitVideo) -> bool:
    """Whether there is a use for what is said in a video: it has shots, and no subtitles."""
    return bool(split.shots) and not (split.video.cues or split.embedded_cues)


def written(split: SplitVideo, cues: tuple[Cue, ...], made_with: str) -> bytes:
    """What was heard, as it is kept: JSON."""
    told = {
        "video_id": split.video.video_id,
        "etag": split.video.etag,
        "fingerprint": made_with,
        "language": split.video.language,
        "cues": [dataclasses.asdict(cue) for cue in cues],
    }
    return json.dumps(told, ensure_ascii=False, indent=1).encode()


def heard_before(kept: bytes, split: SplitVideo, made_with: str) -> tuple[Cue, ...] | None:
    """What an earlier run heard; None where that was another version, another model, or can't be read any more."""
    try:
        told = json.loads(kept)
        asked = (told["etag"], told["fingerprint"], told["language"])
        cues = tuple(Cue(float(one["start_s"]), float(one["end_s"]), str(one["text"])) for one in told["cues"])
    except (ValueError, TypeError, KeyError):
        return None
    return cues if asked == (split.video.etag, made_with, split.video.language) else None


def failed_before(split: SplitVideo, made_with: str) -> DeadLetter | None:
    """The dead letter that stands of this model and this video, and is not to be worked on again."""
    settled = split.video.earlier.settled if split.video.earlier else ()
    return next((one for one in settled if (one.stage, one.fingerprint) == (HEAR_STAGE, made_with)), None)


@dataclasses.dataclass
class HearVideos(beam.PTransform):
    """Have a model hear what is said in each video that has shots and no subtitles.

    SplitVideo in, one SplitVideo out for each; bounded or unbounded. A video that can't be heard costs its text: a dead
    letter of stage `hear`, in `unheard`. One without sound is a video in which nothing is said.

    Args:
      speech_dir: what was heard is kept in `speech_dir/VIDEO_ID.json`; a directory, or a folder in Cloud Storage.
      handler: answers a `SplitVideo` with the cues of what is said in it.
      made_with: the model's fingerprint.
      hints: resource hints, as Beam has them.
    """

    speech_dir: str
    handler: ModelHandler
    made_with: str
    hints: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def expand(self, videos: beam.PCollection[SplitVideo]) -> beam.PCollection[SplitVideo]:
        sorted_videos = videos | "Known" >> beam.FlatMap(_sort, self.speech_dir, self.made_with).with_outputs(
            _SETTLED, main="open"
        )
        heard = (
            sorted_videos["open"]
            | "Spread" >> beam.Reshuffle()
            | "Hear" >> infer(self.handler, self.hints)
            | "Keep" >> beam.Map(_keep, self.speech_dir, self.made_with).with_output_types(SplitVideo)
        )
        return (heard, sorted_videos[_SETTLED]) | beam.Flatten()


def _sort(split: SplitVideo, speech_dir: str, made_with: str) -> Iterator[Any]:
    if not wants_hearing(split):
        yield beam.pvalue.TaggedOutput(_SETTLED, split)
        return
    count(HEAR_STAGE, in_=1)
    known = _read(split, speech_dir, made_with)
    letter = failed_before(split, made_with)
    if known is not None:
        count(HEAR_STAGE, out=1, reused=1)
        yield beam.pvalue.TaggedOutput(_SETTLED, _with_cues(split, known, made_with))
    elif letter is not None:
        count(HEAR_STAGE, failed=1, reused=1)
        yield beam.pvalue.TaggedOutput(_SETTLED, dataclasses.replace(split, unheard=letter))
    else:
        yield split


def _read(split: SplitVideo, speech_dir: str, made_with: str) -> tuple[Cue, ...] | None:
    try:
        return heard_before(read(_place(split, speech_dir)), split, made_with)
    except FileNotFoundError:
        return None


def _keep(outcome: Outcome[SplitVideo, tuple[Cue, ...]], speech_dir: str, made_with: str) -> SplitVideo:
    split, failure = outcome.request, outcome.failure
    if failure is not None:
        count(HEAR_STAGE, failed=1)
        letter = failure.letter(HEAR_STAGE, split.video.video_id, split.video.uri, fingerprint=made_with)
        return dataclasses.replace(split, unheard=letter)
    cues = outcome.answer or ()
    write(_place(split, speech_dir), written(split, cues, made_with))
    count(HEAR_STAGE, out=1)
    Metrics.counter("reelscribe/hear", "cues").inc(len(cues))
    return _with_cues(split, cues, made_with)


def _with_cues(split: SplitVideo, cues: tuple[Cue, ...], made_with: str) -> SplitVideo:
    return dataclasses.replace(split, heard=cues, heard_with=made_with)


def _place(split: SplitVideo, speech_dir: str) -> str:
    return join(speech_dir, f"{split.video.video_id}.json")
