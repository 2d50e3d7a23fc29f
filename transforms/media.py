"""Opening and decoding a local video. Only this, `pixels`, `sound_track` and `clip_*` touch PyAV.

    with open_media("/videos/a.mp4") as media:
        for picture in media.pictures():
            small = picture.shrunk((256, 144))
    media.facts(), media.cues, media.damage()

Only regular files and containers on a list are opened, so that a playlist or a device name reaches nothing else.
Everything is read in one pass and bounded memory; subtitles are gathered on the way.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from typing import Any, TypeVar

import av
import av.error
import numpy as np

from transforms.embedded import cue_of, tagged_duration_s, text_track
from transforms.media_errors import (
    MediaError,
    check_file,
    local_path,
    source_version,
    why_no_video,
    why_undecodable,
    why_unopened,
)
from transforms.pictures import Picture
from transforms.records import Cue, MediaFacts, Span
from transforms.timestamps import Clock

__all__ = ["Media", "MediaError", "Picture", "local_path", "open_media", "source_version"]

#: Containers that hold one video by themselves: no playlists (hls, dash, concat), image sequences or devices.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska,webm",
    *("avi", "flv", "live_flv", "mpegts", "mpegtsraw", "mpeg", "mpegvideo", "m4v", "h264", "hevc", "ivf", "obu"),
    *("ogg", "asf", "asf_o", "mxf", "nut", "gif", "wtv", "dv", "rm", "gxf", "nsv", "yuv4mpegpipe"),
)
#: Containers whose header states how long they are; the others are measured or guessed by the demuxer.
_STATES_DURATION = ("mov", "matroska", "avi", "flv", "asf", "mxf", "nut", "ivf")
#: A rate outside of this is a header's clock (1000 for milliseconds, 90000 for MPEG-TS), not a frame rate.
_SANE_FPS = (0.1, 300.0)
_FALLBACK_FPS = 25.0
_PEEK = 9
_MAX_CUES = 100_000
_MAX_THREADS = 8
_PROBE_BYTES = 32 << 20
#: A step back in time by more than this is a new clock (a wrap, a splice), not frames in disorder.
_NEW_CLOCK_S = 1.0
#: Colour matrices that swscale converts: RGB, BT.709, unspecified, FCC, BT.601 (two names), SMPTE 240M, BT.2020.
_COLOUR_MATRICES = frozenset((0, 1, 2, 4, 5, 6, 7, 9))
_UNSPECIFIED = 2
#: What is missing counts as damage from here on: over a second and over 5 % of the video.
_DAMAGE_S, _DAMAGE_FRACTION = 1.0, 0.05


Answer = TypeVar("Answer")


class Unsteady(Exception):
    """The stream is broken, and what several decoding threads make of that differs from one time to the next."""


def steadily(decode: Callable[[int], Answer], sharing: int = 1) -> Answer:
    """Call `decode` with a number of threads, and once more with a single one if the stream turns out to be broken.

    Args:
      sharing: how many videos are being decoded at once; they share the cores.
    """
    threads = len(os.sched_getaffinity(0)) // sharing
    try:
        # One more than cores, so that all have work while the picture before is looked at; one alone is cheapest.
        return decode(threads + 1 if threads > 1 else 1)
    except Unsteady:
        return decode(1)


@contextlib.contextmanager
def open_container(path: str) -> Iterator[Any]:
    """Open a local file of one of `CONTAINERS`, whatever streams it has. Raises `MediaError` if it is none."""
    check_file(path)
    try:
        container = av.open(
            # The prefix keeps a file called `concat:a|b` or `http:...` from being read as an address.
            "file:" + os.path.abspath(path),
            metadata_errors="replace",
            container_options={"protocol_whitelist": "file", "format_whitelist": ",".join(CONTAINERS)},
        )
    except (av.error.FFmpegError, UnicodeDecodeError) as error:
        raise why_unopened(path, error) from error
    with container:
        yield container


@contextlib.contextmanager
def open_media(path: str, *, fast: bool = False, threads: int = 1) -> Iterator[Media]:
    """Open a local video.

    Args:
      fast: decode without the codec's loop filter.
      threads: of the decoder. With more than one `pictures` raises `Unsteady` on a broken stream; see `steadily`.

    Raises:
      MediaError: one of its subclasses, if there is no video in it to decode.
    """
    with open_container(path) as container:
        yield Media(container, path, fast, threads)


class Media:
    """An open video: its pictures in one pass, then what was found out on the way.

    Attributes:
      video, sound: the streams that count, as PyAV has them; `sound` is None where there is none.
      hear: is called with each packet of sound and its time, if `pictures` or `packets` comes across it.
      cues: of the first (or default) text subtitle track, complete once `pictures` is exhausted.
      corrupt_packets, first_corrupt_s: packets the decoder refused, and the time of the first.
    """

    def __init__(self, container: Any, path: str, fast: bool, threads: int):
        self._container = container
        self._path = path
        self._threads = threads
        # As OpenCV's reader takes it: the first video, whatever its size. Cover art is not a video.
        videos = [s for s in container.streams.video if not _is_cover(s) and s.codec_context is not None]
        if not videos:
            raise why_no_video(path, container)
        self._stream = self.video = stream = videos[0]
        if stream.codec_context.width <= 0 and not stream.codec_context.codec_tag.strip("\0"):
            raise why_no_video(path, container)
        stream.thread_type = "AUTO"
        pixels = stream.codec_context.width * stream.codec_context.height
        # Each decoding thread holds frames of its own; at 8K eight threads alone would fill a gigabyte.
        stream.codec_context.thread_count = min(threads, 2 if pixels > 16e6 else _MAX_THREADS)
        if fast:
            stream.codec_context.options = {"skip_loop_filter": "all"}
        self.sound = container.streams.best("audio")
        self.hear: Callable[[Any, float], None] | None = None
        self._shift = 0.0
        self._subtitles = text_track(container)
        self._read = [stream, *container.streams.audio, *([self._subtitles] if self._subtitles else [])]
        #: The rate as OpenCV's reader reports it, absurd or not, 0 if none: what PySceneDetect counts frames with.
        self.nominal_rate = float(stream.average_rate or stream.guessed_rate or 0)
        self.fps = next((r for r in map(float, _rates(stream)) if _SANE_FPS[0] <= r <= _SANE_FPS[1]), 0.0)
        self.cues: list[Cue] = []
        self.corrupt_packets = 0
        self._patched = False
        self.first_corrupt_s: float | None = None
        self.frames = 0
        self.start_s = self.end_s = self._last_s = 0.0
        self._size: tuple[int, int] | None = None
        self._others_end_s = 0.0
        self._gap: Span | None = None

    def pictures(self) -> Generator[Picture, None, None]:
        """Decode every frame, in presentation order; afterwards `facts`, `cues` and `damage` are complete.

        Raises:
          EncryptedVideo, UndecodableVideo: not one frame could be decoded.
          Unsteady: after the last frame: something is broken, and there is more than one thread.
        """
        frames = self._frames()
        if not self.fps:
            first = [frame for frame, _ in zip(frames, range(_PEEK), strict=False)]
            self.fps = _rate_of([frame.time for frame in first if frame.time is not None])
            frames = _chain(first, frames)
        origin = Fraction(self._stream.start_time or 0) * self._stream.time_base
        step = 1 / self.fps
        stored, nbytes = (0, 0), 0
        clock = Clock()
        for frame in frames:
            shown = clock.guess(frame.pts, frame.dts)
            exact = None if shown is None else shown * Fraction(frame.time_base)
            time_s = self.end_s if exact is None else float(exact) + self._shift
            if self.frames:
                if time_s < self._last_s - _NEW_CLOCK_S:
                    self._shift += self._last_s + step - time_s
                    time_s = self._last_s + step
                elif time_s <= self._last_s:
                    time_s = self._last_s + step / 2
                self._note_gap(time_s)
            else:
                self.start_s = time_s
            self._patched |= frame.is_corrupt
            if frame.colorspace not in _COLOUR_MATRICES:
                # swscale refuses all others, known (YCgCo, ICtCp) or not: better colours that are off than no picture.
                frame.colorspace = _UNSPECIFIED
            turns = _quarter_turns(frame)
            duration_s = float(frame.duration * frame.time_base) if frame.duration else step
            self._last_s, self.end_s = time_s, time_s + duration_s
            if (frame.width, frame.height) != stored:
                stored, nbytes = (frame.width, frame.height), sum(plane.buffer_size for plane in frame.planes)
            if self._size is None:
                self._size = _displayed_size(frame, self._stream, turns)
            since = None if exact is None else exact - origin
            yield Picture(self.frames, time_s, duration_s, since, nbytes, frame, turns)
            self.frames += 1
        broken = self._patched or self.corrupt_packets or not self.frames or self.damage()
        if broken and self._threads > 1:
            raise Unsteady
        if not self.frames:
            raise why_undecodable(self._path, self._stream, self.corrupt_packets)

    def _frames(self) -> Iterator[Any]:
        """Decoded frames; packets that cannot be read or decoded are counted and passed over, as ffmpeg does."""
        packets = self._container.demux(self._read)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except IndexError:
                # PyAV knows the streams that were there at first; one that begins later (MPEG-TS) is not ours to read.
                packets = self._container.demux(self._read)
                continue
            except av.error.FFmpegError as error:
                _raise_for_memory(error)
                # The container itself breaks off here; what follows cannot be found.
                self._note_corrupt()
                packets = iter([])
                yield from self._drain()
                return
            if packet.stream is self._stream:
                try:
                    frames = packet.decode()
                except av.error.EOFError:
                    return
                except av.error.FFmpegError as error:
                    _raise_for_memory(error)
                    self._note_corrupt()
                    continue
                yield from frames
            elif packet.stream is self._subtitles:
                if len(self.cues) < _MAX_CUES:
                    self.cues.extend(cue_of(packet))
            elif packet.pts is not None:
                end = (packet.pts + (packet.duration or 0)) * packet.time_base
                self._others_end_s = max(self._others_end_s, float(end))
                self._tell_of_sound(packet)

    def packets(self) -> Iterator[Any]:
        """Every packet of the video, undecoded, in the file's order; where the container breaks off they end."""
        packets = self._container.demux([self._stream, *([self.sound] if self.sound else [])])
        while True:
            try:
                packet = next(packets, None)
            except (IndexError, av.error.FFmpegError) as error:
                if isinstance(error, av.error.FFmpegError):
                    _raise_for_memory(error)
                return
            if packet is None:
                return
            if packet.stream is not self._stream:
                self._tell_of_sound(packet)
            elif packet.size:
                yield packet

    def _tell_of_sound(self, packet: Any) -> None:
        if self.hear and packet.stream is self.sound and packet.pts is not None and packet.size:
            self.hear(packet, float(packet.pts * packet.time_base) + self._shift)

    def _drain(self) -> Iterator[Any]:
        try:
            for frame in self._stream.codec_context.decode(None):
                # Only frames that come by way of a packet are given their clock.
                frame.time_base = frame.time_base or self._stream.time_base
                yield frame
        except av.error.FFmpegError:
            return

    def _note_corrupt(self) -> None:
        # Decoders call a packet corrupt, too, when they got no memory for its frame. Under a memory limit this shows:
        # it asks for as much as a few frames take, touches nothing of it, and raises MemoryError.
        context = self._stream.codec_context
        np.empty(max(_PROBE_BYTES, 8 * context.width * context.height), np.uint8)
        self.corrupt_packets += 1
        if self.first_corrupt_s is None:
            self.first_corrupt_s = self.end_s

    def _note_gap(self, time_s: float) -> None:
        """Remember the widest hole that opened after a packet was refused."""
        hole = time_s - self.end_s
        if self.corrupt_packets and hole > _DAMAGE_S and (self._gap is None or hole > self._gap.duration_s):
            self._gap = Span(self.end_s, time_s)

    def facts(self) -> MediaFacts:
        """What is known now; after the last picture `duration_s` is where the last frame ends, from the file's zero."""
        width, height = self._size or (0, 0)
        return MediaFacts(self.end_s, width, height, self.fps, self._stream.codec_context.name)

    @property
    def format_name(self) -> str:
        """The names of the container's kind, between commas."""
        return self._container.format.name

    @property
    def aspect(self) -> Fraction:
        """How wide a pixel is for its height, as stored; 1 where nothing sane is said."""
        return _aspect(self._stream)

    def stated_end_s(self) -> float | None:
        """Where the file says that its video ends; None where it does not say."""
        if not self._container.format.name.startswith(_STATES_DURATION):
            return None
        stream = self._stream
        if self._container.format.name == "avi" and stream.frames and stream.average_rate:
            # ffmpeg shortens the duration of an AVI file by as much as is missing of it, but not its count of frames.
            return float((stream.start_time or 0) * stream.time_base + stream.frames / stream.average_rate)
        if stream.duration:
            return float((stream.duration + (stream.start_time or 0)) * stream.time_base)
        if not self._container.duration:
            return None
        end_s = (self._container.duration + (self._container.start_time or 0)) / av.time_base
        tagged = tagged_duration_s(stream)
        if tagged is not None:
            return tagged
        # The container is as long as its longest stream: if another one reaches the end, nothing is known of the video.
        return None if self._others_end_s > end_s - _DAMAGE_S else end_s

    def damage(self) -> tuple[str, Span | None] | None:
        """What could not be decoded, in words, and the span that is missing; None when all was read."""
        stated = self.stated_end_s()
        total = max(stated or 0.0, self.end_s) - self.start_s
        allowed = max(_DAMAGE_S, _DAMAGE_FRACTION * total)
        if stated is not None and stated - self.end_s > allowed:
            missing = Span(self.end_s, stated)
            text = f"the video should last until {stated:.2f} s, but nothing after {self.end_s:.2f} s could be decoded"
            return f"{text}: it is truncated or damaged", missing
        if self._gap is not None and self._gap.duration_s > allowed:
            return f"nothing could be decoded from {self._gap.start_s:.2f} s to {self._gap.end_s:.2f} s", self._gap
        if self.corrupt_packets:
            some = "a packet" if self.corrupt_packets == 1 else f"{self.corrupt_packets} packets, the first"
            text = f"{some} at {self.first_corrupt_s or 0.0:.2f} s could not be decoded: frames are missing or patched"
            return text, None
        return None


def _raise_for_memory(error: av.error.FFmpegError) -> None:
    """Running out of memory says nothing of the packet; it is not to be passed over."""
    if error.errno == errno.ENOMEM:
        raise MemoryError("the decoder ran out of memory") from error


def _chain(first: list[Any], rest: Iterator[Any]) -> Iterator[Any]:
    yield from first
    yield from rest


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _rates(stream: Any) -> Iterator[Fraction]:
    yield from (rate for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate)


def _rate_of(times: list[float]) -> float:
    """The rate of frames at `times`, for files whose header tells none."""
    steps = sorted(later - earlier for earlier, later in itertools.pairwise(times) if later > earlier)
    rate = 1 / steps[len(steps) // 2] if steps else _FALLBACK_FPS
    return rate if _SANE_FPS[0] <= rate <= _SANE_FPS[1] else _FALLBACK_FPS


def _quarter_turns(frame: Any) -> int:
    """How often `np.rot90` has to turn the frame to show it upright; an absurd matrix turns nothing."""
    rotation = frame.rotation
    return round(rotation / 90) % 4 if -360 <= rotation <= 360 else 0


def _displayed_size(frame: Any, stream: Any, turns: int) -> tuple[int, int]:
    width, height = round(frame.width * _aspect(stream)), frame.height
    return (height, width) if turns % 2 else (width, height)


def _aspect(stream: Any) -> Fraction:
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    return Fraction(aspect) if aspect and Fraction(1, 20) < aspect < 20 else Fraction(1)
