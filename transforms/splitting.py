"""The one decode pass of a video: cuts, shots, and the reel that everything after it looks at.

    summary = split_video("/videos/a.mp4", "/out/reels/a.arrow", SplittingConfig(), etag="1024-17", progress=print)
    split = split_of(video, "/out/reels/a.arrow", summary)

The summary is plain JSON; it travels from the decoding process to its parent, and stands in the reel, so that a reel of
the same source version and settings is used again without decoding.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from transforms.boundaries import Piece, ShotWindow
from transforms.detection import Progress, SplittingConfig
from transforms.detectors import Found, cut_detector
from transforms.media import Media, open_media, steadily
from transforms.records import Cue, MediaFacts, Shot, Span, SplitVideo, Video
from transforms.reel import Reel, ReelError, ReelWriter


def split_video(
    path: str,
    reel_path: str,
    config: SplittingConfig,
    *,
    etag: str,
    sharing: int = 1,
    progress: Progress = lambda frames, time_s: None,
) -> dict[str, Any]:
    """Decode a local video once; write its reel and return the summary.

    Args:
      sharing: how many videos are being decoded at once.
      progress: told the count of frames and the presentation time now and then.

    Raises:
      MediaError: there is no video to decode; no reel is left.
    """
    began = time.monotonic()

    def split(threads: int) -> dict[str, Any]:
        with (
            open_media(path, fast=config.fast, threads=threads) as media,
            ReelWriter(reel_path, etag=etag, settings=config.fingerprint()) as reel,
        ):
            summary = _split(media, reel, config, progress)
            summary["decode_s"] = round(time.monotonic() - began, 3)
            reel.finish(summary)
        return summary

    return steadily(split, sharing)


def _split(media: Media, reel: ReelWriter, config: SplittingConfig, progress: Progress) -> dict[str, Any]:
    pictures = media.pictures()
    first = next(pictures)
    displayed = (media.facts().width, media.facts().height)
    detector = cut_detector(config, media.nominal_rate, media.fps)
    window = ShotWindow(config, media.fps, detector.delay_s, detector.delay_frames)
    shots: list[Shot] = []
    # Another thread makes the JPEG files, so that the decoder never waits for them.
    with ThreadPoolExecutor(1) as encoder:
        encoding: deque[Future] = deque()

        def write(found: Found, end_s: float | None = None, waiting: int = 2) -> None:
            cuts, scores = found
            window.score(scores)
            window.cut_at(cuts)
            for piece in window.settled(end_s):
                shots.append(piece.shot)
                encoding.append(encoder.submit(_encode, piece, reel))
            while len(encoding) > waiting:
                encoding.popleft().result()

        for picture in itertools.chain([first], pictures):
            window.add(picture, displayed)
            write(detector.add(picture))
            progress(media.frames, picture.time_s)
        write(detector.finish(picture), media.end_s, waiting=0)
    damage = media.damage()
    return {
        "media": dataclasses.asdict(media.facts()),
        "frames": media.frames,
        "shots": [dataclasses.asdict(shot) for shot in shots],
        "embedded_cues": [dataclasses.asdict(cue) for cue in media.cues],
        "damage": damage[0] if damage else None,
        "damage_span": dataclasses.asdict(damage[1]) if damage and damage[1] else None,
        "corrupt_packets": media.corrupt_packets,
        "first_corrupt_s": media.first_corrupt_s,
    }


def _encode(piece: Piece, reel: ReelWriter) -> None:
    for chosen in piece.frames:
        reel.add(chosen.encoded())


def split_of(video: Video, reel_path: str, summary: dict[str, Any]) -> SplitVideo:
    """Rebuild the record that a summary stands for."""
    span = summary["damage_span"]
    return SplitVideo(
        video=video,
        media=MediaFacts(**summary["media"]),
        shots=tuple(Shot(**shot) for shot in summary["shots"]),
        reel=reel_path,
        embedded_cues=tuple(Cue(**cue) for cue in summary["embedded_cues"]),
        damage=summary["damage"],
        damage_span=Span(**span) if span else None,
        decode_s=summary["decode_s"],
    )


def probe(path: str) -> dict[str, Any] | None:
    """What a local video says of itself, from its header and its first picture; None if it hides how long it is.

    Raises:
      MediaError: there is no video to decode.
    """
    with open_media(path) as media:
        next(media.pictures())
        stated_s = media.stated_end_s()
        return {**dataclasses.asdict(media.facts()), "duration_s": stated_s} if stated_s else None


def reusable_split(video: Video, reel_path: str, config: SplittingConfig) -> SplitVideo | None:
    """What an earlier run found, if its reel is of the same source version and settings; else None."""
    try:
        reel = Reel.open(reel_path)
        if reel.etag == video.etag and reel.settings == config.fingerprint():
            return split_of(video, reel.path, reel.summary)
    except (ReelError, KeyError, TypeError):
        pass  # missing, or not one of ours: it will be written anew
    return None
