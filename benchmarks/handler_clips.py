"""The clips of `benchmarks/handlers.py`, of films or drawn, and what a model is asked about one.

samples = clips(256, pathlib.Path("scratch/reels"), pathlib.Path("../shared/videos/panda70m"))
request("umt-l16", samples[0])          # a CaptionedClip with eight candidates
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import sys
from typing import Any

import numpy as np

from transforms.detection import SplittingConfig
from transforms.records import Candidate, CaptionedClip, Clip, EmbedRequest, MediaFacts, Shot, Span, Video
from transforms.splitting import split_of, split_video

#: As many reels stay open at a time (see `model_handlers.frames`).
MOST_REELS = 16
#: What is drawn: wide films, two frames a second as in every reel, and clips of the paper's mean length.
WIDTH, HEIGHT, FRAMES, STEP_S, CLIP_S = 796, 448, 64, 0.5, 8.0
#: Of a film's shots, those that are worth a caption.
MIN_SHOT_S = 1.0

#: What eight teachers might say of a clip; a selector reads all of it.
SAID = (
    "A man in a red jacket walks along the shore with his dog.",
    "The dog runs after a ball on the beach while waves come in.",
    "Two people talk about the weather in front of an old house.",
    "A woman cuts onions in a bright kitchen and puts them into a pan.",
    "A car drives along a wet street at night between tall buildings.",
    "Close-up of hands that fold a sheet of blue paper into a boat.",
    "Several cyclists ride up a mountain road as a crowd cheers them on.",
    "A cat sleeps on a sofa next to a window, and it rains outside.",
)

# Reels are drawn by what the tests draw theirs with.
sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "tests"))


@dataclasses.dataclass(frozen=True)
class Sample:
    """A clip, and the shot that it was made of."""

    clip: Clip
    shot: Shot


def clips(count: int, folder: pathlib.Path, videos: pathlib.Path | None) -> list[Sample]:
    """So many clips, over reels that are written to `folder`.

    Args:
      videos: a folder of films, of which the first few are split; a short list of shots is gone through again. Where
        there are none, reels are drawn.
    """
    reels = min(MOST_REELS, -(-count // 8))
    films = sorted(videos.rglob("*.mp4"))[:reels] if videos else []
    found = [sample for film in films for sample in _of_film(film, folder)]
    if not found:
        return list(itertools.islice(_drawn(folder, reels), count))
    turns = ((turn, sample) for turn in itertools.count() for sample in found)
    return [_named(sample, turn) for turn, sample in itertools.islice(turns, count)]


def request(model: str, sample: Sample) -> Any:
    """What a model of `handler_checkpoints` is asked about a clip."""
    clip = sample.clip
    if model == "clip-vit-h":
        return EmbedRequest(clip.video_id, sample.shot, clip.reel)
    if model == "umt-l16":
        said = tuple(Candidate(f"teacher-{n}", "", "", "", text, "") for n, text in enumerate(SAID))
        return CaptionedClip(clip, said, (), ())
    return clip


def _of_film(path: pathlib.Path, folder: pathlib.Path) -> list[Sample]:
    """A sample a shot."""
    reel = str(folder / f"{path.stem}.arrow")
    video = Video(path.stem, str(path), "benchmark", path.stat().st_size)
    split = split_of(video, reel, split_video(str(path), reel, SplittingConfig(), etag="benchmark"))
    spans = [(shot, Span(shot.start_s, shot.end_s)) for shot in split.shots]
    return [
        Sample(_clip(f"{path.stem}-{shot.index}", video, span, split.media, reel), shot)
        for shot, span in spans
        if span.duration_s >= MIN_SHOT_S
    ]


def _drawn(folder: pathlib.Path, reels: int) -> Any:
    """Samples of patterns that move sideways: the first clip of each reel, then the second, half a second later."""
    from lite_media import texture, write_reel

    paths = []
    for number in range(reels):
        picture = texture(WIDTH, HEIGHT, seed=number)
        frames = [np.roll(picture, 8 * step, axis=1) for step in range(FRAMES)]
        paths.append(write_reel(folder / f"drawn-{number}.arrow", frames))
    media = MediaFacts(FRAMES * STEP_S, WIDTH, HEIGHT, 25.0, "h264")
    starts = np.arange(0.0, FRAMES * STEP_S - CLIP_S, STEP_S).tolist()
    for turn, start_s, path in (
        (turn, start, path) for turn in itertools.count() for start in starts for path in paths
    ):
        video = Video(pathlib.Path(path).stem, "", "benchmark", 0)
        span = Span(start_s, start_s + CLIP_S)
        shot = Shot(0, 0, 1, span.start_s, span.end_s, span.start_s, span.end_s - STEP_S)
        yield _named(Sample(_clip(f"{video.video_id}-{start_s}", video, span, media, path), shot), turn)


def _clip(name: str, video: Video, span: Span, media: MediaFacts, reel: str) -> Clip:
    return Clip(name, video.video_id, video.uri, span, (span,), media, reel, "benchmark")


def _named(sample: Sample, turn: int) -> Sample:
    """The sample under another id, which also draws another frame of its middle."""
    return dataclasses.replace(sample, clip=dataclasses.replace(sample.clip, clip_id=f"{sample.clip.clip_id}-{turn}"))
