"""Small videos with cuts at known frames, made on the spot with PyAV.

    make_video(tmp_path / "a.mp4", shots=[(1.0, "red"), (2.0, "blue")])     # a cut at frame 25 of 75

Each shot is a still texture of its colour that drifts slowly, the same at every run.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np

Shot = tuple[float, str | tuple[int, int, int] | np.ndarray]
COLOURS = {
    "red": (200, 40, 30),
    "green": (40, 170, 60),
    "blue": (30, 60, 200),
    "yellow": (220, 200, 40),
    "grey": (128, 128, 128),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
}


def make_video(
    path: pathlib.Path | str,
    shots: Sequence[Shot],
    *,
    fps: int | Fraction = 25,
    size: tuple[int, int] = (320, 180),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    times: Callable[[int], float] | None = None,
    start_s: float = 0.0,
    audio_s: float = 0.0,
    subtitles: Sequence[tuple[float, float, str]] = (),
    aspect: Fraction = Fraction(1),
    drift_px: float = 1.0,
    options: dict[str, str] | None = None,
) -> pathlib.Path:
    """Write a video and return its path; the container follows the file's suffix.

    Args:
      shots: (seconds, colour name, RGB triple or RGB picture) one after another.
      times: the presentation time of frame n, for a variable rate; else n / fps.
      start_s: added to all video times. audio_s: a tone of that length. subtitles: (start_s, end_s, text).
      aspect: of a pixel. drift_px: how far a scene moves from frame to frame.
    """
    path = pathlib.Path(path)
    width, height = size
    # MPEG-2 knows its own rates only; MPEG-4 no finer clock than 1/65535.
    base = 1 / Fraction(fps) if codec == "mpeg2video" else Fraction(1, 60_000)
    # Written in one process with one thread, so that two runs give the same bytes.
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as out:
        video = out.add_stream(codec, rate=Fraction(fps), options=options or _options(codec))
        video.width, video.height, video.pix_fmt = width, height, pix_fmt
        video.codec_context.time_base = base
        video.codec_context.thread_count = 1
        video.codec_context.sample_aspect_ratio = aspect
        sound = out.add_stream("aac", rate=16_000, layout="mono") if audio_s else None
        text = out.add_mux_stream(_subtitle_codec(path)) if subtitles else None
        if sound is not None:
            _write_tone(out, sound, audio_s)
        number = 0
        for scene, (seconds, look) in enumerate(shots):
            canvas = texture(look, size, seed=scene)
            for turn in range(round(seconds * fps)):
                pixels = _window(canvas, size, turn * drift_px)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pix_fmt)
                time_s = number / fps if times is None else times(number)
                frame.pts, frame.time_base = round((Fraction(time_s) + Fraction(start_s)) / base), base
                out.mux(video.encode(frame))
                number += 1
        out.mux(video.encode(None))
        if text is not None:
            for cue in subtitles:
                _write_cue(out, text, _subtitle_codec(path), *cue)
    return path


def repeat_video(path: pathlib.Path | str, source: pathlib.Path | str, times: int) -> pathlib.Path:
    """Write the packets of `source`, a video alone, `times` times over: a long video at the cost of a short one."""
    with av.open(str(source)) as short, av.open(str(path), "w") as out:
        video = short.streams.video[0]
        stream = out.add_stream_from_template(video)
        packets = [packet for packet in short.demux(video) if packet.dts is not None]
        length = len(packets) * round(1 / (video.average_rate * video.time_base))
        for turn in range(times):
            for packet in packets:
                copy = av.Packet(bytes(packet))
                copy.stream, copy.time_base, copy.is_keyframe = stream, packet.time_base, packet.is_keyframe
                copy.pts, copy.dts = packet.pts + turn * length, packet.dts + turn * length
                copy.duration = packet.duration
                out.mux(copy)
    return pathlib.Path(path)


def texture(look: str | tuple[int, int, int] | np.ndarray, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A scene twice as wide as `size`, RGB: blobs round the colour, or the picture given."""
    width, height = size
    if isinstance(look, np.ndarray):
        return cv2.resize(look, (2 * width, height), interpolation=cv2.INTER_AREA)
    colour = np.array(COLOURS[look] if isinstance(look, str) else look, dtype=np.float32)
    rough = np.random.default_rng(seed).normal(0, 1, (9, 17)).astype(np.float32)
    blobs = cv2.resize(rough, (2 * width, height), interpolation=cv2.INTER_CUBIC)
    strength = 0 if colour.max() == 0 else 25
    return np.clip(colour + strength * blobs[..., None], 0, 255).astype(np.uint8)


def _window(canvas: np.ndarray, size: tuple[int, int], offset_px: float) -> np.ndarray:
    offset = int(offset_px) % (canvas.shape[1] - size[0] + 1)
    return np.ascontiguousarray(canvas[:, offset : offset + size[0]])


def _options(codec: str) -> dict[str, str]:
    return {"preset": "ultrafast", "crf": "18"} if codec in ("libx264", "libx265") else {}


def _subtitle_codec(path: pathlib.Path) -> str:
    return {".mp4": "mov_text", ".mov": "mov_text", ".webm": "webvtt"}.get(path.suffix, "srt")


def _write_cue(out: av.container.OutputContainer, stream: Any, codec: str, start: float, end: float, text: str) -> None:
    raw = text.encode()
    if codec == "mov_text":
        raw = len(raw).to_bytes(2, "big") + raw
    packet = av.Packet(raw)
    # The muxer chose its own clock for the stream when it wrote the header.
    packet.stream, packet.time_base = stream, stream.time_base
    packet.pts = packet.dts = round(start / stream.time_base)
    packet.duration = round((end - start) / stream.time_base)
    out.mux(packet)


def _write_tone(out: av.container.OutputContainer, stream: av.stream.Stream, seconds: float) -> None:
    step = 1024
    for begin in range(0, round(seconds * 16_000), step):
        wave = np.sin(np.arange(begin, begin + step) * (440 * 2 * np.pi / 16_000)).astype(np.float32) * 0.2
        frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16_000, begin, Fraction(1, 16_000)
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def write_frames(
    path: pathlib.Path | str,
    frames: Iterable[np.ndarray],
    *,
    fps: int = 25,
    size: tuple[int, int] = (320, 180),
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> pathlib.Path:
    """Write RGB frames, shape (height, width, 3) of `size`, as a video whose clock ticks once a frame."""
    path = pathlib.Path(path)
    with av.open(str(path), "w", options={"fflags": "+bitexact", **(container_options or {})}) as out:
        video = out.add_stream(codec, rate=fps, options=_options(codec) if options is None else options)
        (video.width, video.height), video.pix_fmt = size, "yuv420p"
        video.codec_context.time_base = Fraction(1, fps)
        video.codec_context.thread_count = 1
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path


def scene(
    look: str | tuple[int, int, int] | np.ndarray,
    frames: int,
    *,
    size: tuple[int, int] = (320, 180),
    seed: int = 0,
    drift_px: float = 1.0,
    first: int = 0,
) -> list[np.ndarray]:
    """Frames of one scene, RGB, from its frame `first` on, so that a scene can go on after a break."""
    canvas = texture(look, size, seed)
    return [_window(canvas, size, turn * drift_px) for turn in range(first, first + frames)]


def dissolve(before: Sequence[np.ndarray], after: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Blend two scenes of one length into each other; neither end is pure."""
    count = len(before)
    shares = [(number + 1) / (count + 1) for number in range(count)]
    return [
        np.round((1 - share) * old.astype(np.float32) + share * new).astype(np.uint8)
        for share, old, new in zip(shares, before, after, strict=True)
    ]
