"""One clip's file under way, of packets as they are or of pictures to encode; aside, until it is whole.

clip = EncodedClip(wanted, "out/media", look, sound)
clip.show(picture, from_s, until_s); ...
clip.finish()                                # checks it and gives it its name
clip.abandon()                               # whatever happened: nothing is left behind
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from fractions import Fraction
from typing import Any

import av
import av.error

from transforms.clip_boxes import COMMENT, BrokenClip, read_clip, show_only
from transforms.clip_settings import PRESETS, ClipFileSettings, Wanted, allowed_s
from transforms.clip_sound import ClipSound, raise_for_environment
from transforms.media import Media, open_media
from transforms.media_errors import MediaError

#: Encoders by codec, with the container of each, the best first.
ENCODERS = {
    "h264": ("libx264", "mp4"),
    "vp9": ("libvpx-vp9", "webm"),
    "av1": ("libsvtav1", "mp4"),
    "mpeg4": ("mpeg4", "mp4"),
}
#: A clock fine enough for any rate; MPEG-4's may have 16 bits.
_CLOCK, _MPEG4_CLOCK = Fraction(1, 90_000), Fraction(1, 60_000)
_SVT_PRESETS = (12, 11, 10, 9, 8, 8, 6, 5, 4)
_VPX_SPEEDS = (8, 6, 5, 4, 3, 2, 1, 0, 0)
_DEFAULT_CRFS = {"vp9": 32, "av1": 35}
_MPEG4_BITS_A_PIXEL = 0.2
#: A picture that begins so shortly before a clip ends is not in it: times are rounded.
_SAME_S = 0.0005
_HEADER: dict[str, dict[str, str]] = {"mp4": {"movflags": "+faststart", "movie_timescale": "90000"}, "webm": {}}


class ClipFailed(ValueError):
    """A clip's file could not be written; the message says why. It costs this clip's file only."""


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """What encoded clips of a video are like: the encoder, and the size, shape and rate of its pictures."""

    codec: str
    size: tuple[int, int]
    aspect: Fraction
    rate: Fraction
    colours: tuple[int, int, int, int]
    settings: ClipFileSettings
    threads: int

    @property
    def container(self) -> str:
        return ENCODERS[self.codec][1]


def encoder_of(settings: ClipFileSettings) -> str:
    """The codec that clips are encoded with.

    Raises:
      ClipFailed: this build encodes none.
    """
    codecs = list(ENCODERS) if settings.codec == "auto" else [settings.codec]
    for codec in codecs:
        if ENCODERS[codec][0] in av.codecs_available:
            return codec
    raise ClipFailed(f"this build of PyAV does not encode {' or '.join(codecs)}; name another write_clips.codec")


def encoded_size(size: tuple[int, int], short_side: int | None) -> tuple[int, int]:
    """The size of encoded pictures: shrunk, if that is asked for, and even.

    >>> encoded_size((1920, 1080), 360), encoded_size((321, 241), None), encoded_size((320, 180), 360)
    ((640, 360), (320, 240), (320, 180))
    """
    width, height = size
    factor = min(Fraction(1), Fraction(short_side or min(size), min(size)))
    return max(2, 2 * int(width * factor / 2)), max(2, 2 * int(height * factor / 2))


class ClipFile:
    """What copied and encoded clips have in common: a container written aside, and its sound."""

    def __init__(self, wanted: Wanted, folder: str, container: str, sound: ClipSound):
        self.wanted, self.sound = wanted, sound
        self._container = container
        self.name = f"{wanted.clip_id}.{container}"
        self._folder = folder
        self._aside = os.path.join(folder, f".{wanted.clip_id}.{os.getpid()}.tmp")
        self._out: Any = None

    def _open(self) -> Any:
        """Open the file with its streams, write its header, and return the stream of the video."""
        os.makedirs(self._folder, exist_ok=True)
        while True:
            self._out = av.open(
                "file:" + os.path.abspath(self._aside),
                "w",
                format=self._container,
                container_options=_HEADER[self._container],
            )
            self._out.metadata["comment"] = COMMENT.format(self.wanted.made_as)
            stream = self._video(self._out)
            try:
                self.sound.attach(self._out)
                self._out.start_encoding()
            except (av.error.FFmpegError, ValueError) as error:
                raise_for_environment(error)
                self._close()
                if not self.sound.is_wanted:
                    raise ClipFailed(f"its file cannot be begun: {error}") from error
                self.sound.drop(f"{self._container} does not take it: {error}")
                continue
            self.sound.begin()
            return stream

    def _video(self, out: Any) -> Any:
        raise NotImplementedError

    def _end(self) -> None:
        """Write what is held back."""
        raise NotImplementedError

    @property
    def _length_s(self) -> float:
        """How long the file should be."""
        return self.wanted.span.duration_s

    def finish(self, fps: float) -> None:
        """Close the file, check it, and give it its name.

        Raises:
          ClipFailed: it is not what it should be. OSError: the environment's fault.
        """
        try:
            self._end()
            self.sound.finish()
            self._close()
            self._mend()
            self._check(fps)
            with open(self._aside, "rb") as file:
                os.fsync(file.fileno())
            os.replace(self._aside, os.path.join(self._folder, self.name))
        except (av.error.FFmpegError, BrokenClip, MediaError) as error:
            raise_for_environment(error)
            raise ClipFailed(f"its file came out broken: {error}") from error

    def _mend(self) -> None:
        """Change what the closed file says of itself, if need be."""

    def _check(self, fps: float) -> None:
        """Its length is right, and its first picture can be decoded."""
        with open(self._aside, "rb") as file:
            facts = read_clip(file)
        if abs(facts.length_s - self._length_s) > allowed_s(fps):
            raise ClipFailed(f"its file came out {facts.length_s:.3f} s long instead of {self._length_s:.3f} s")
        with open_media(self._aside) as media:
            pictures = media.pictures()
            next(pictures, None)
            pictures.close()
            if not media.facts().width:
                raise ClipFailed("no picture of its file can be decoded")

    def _close(self) -> None:
        out, self._out = self._out, None
        if out is not None:
            out.close()

    def abandon(self) -> None:
        """Leave nothing of it aside; what has its name stays."""
        with contextlib.suppress(av.error.FFmpegError, OSError, ValueError):
            self._close()
        with contextlib.suppress(OSError):
            os.unlink(self._aside)


class EncodedClip(ClipFile):
    """A clip of pictures that are encoded anew. Its file begins where its span does."""

    def __init__(self, wanted: Wanted, folder: str, look: Look, sound: ClipSound):
        super().__init__(wanted, folder, look.container, sound)
        self._look = look
        self._stream: Any = None
        self._lengths: dict[int, int] = {}
        self._clock = _MPEG4_CLOCK if look.codec == "mpeg4" else _CLOCK
        self._last = -1

    def show(self, frame: Any, from_s: float, until_s: float) -> None:
        """Show a frame that fits the look for a while, in seconds of the source."""
        if self._stream is None:
            self._stream = self._open()
        zero_s = self.wanted.span.start_s
        pts = max(self._last + 1, round((from_s - zero_s) / self._clock))
        self._last = pts
        self._lengths[pts] = max(1, round((until_s - zero_s) / self._clock) - pts)
        frame.pts, frame.time_base, frame.duration = pts, self._clock, self._lengths[pts]
        # Else the source's key frames are asked of the encoder, too.
        frame.pict_type = 0
        self._mux(self._stream.encode(frame))

    def _video(self, out: Any) -> Any:
        look = self._look
        name = ENCODERS[look.codec][0]
        stream = out.add_stream(name, rate=look.rate, options=self._options())
        stream.width, stream.height = look.size
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base, context.sample_aspect_ratio = self._clock, look.aspect
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = look.colours
        context.thread_count = look.threads
        if look.codec == "mpeg4":
            stream.bit_rate = round(_MPEG4_BITS_A_PIXEL * look.size[0] * look.size[1] * look.rate)
        return stream

    def _options(self) -> dict[str, str]:
        codec, settings = self._look.codec, self._look.settings
        at = PRESETS.index(settings.preset)
        crf = settings.crf if settings.crf is not None else _DEFAULT_CRFS.get(codec)
        quality = {} if crf is None else {"crf": str(min(crf, 51) if codec == "h264" else crf)}
        speed = {
            "h264": {"preset": settings.preset},
            "vp9": {"deadline": "good", "cpu-used": str(_VPX_SPEEDS[at]), "row-mt": "1"},
            "av1": {"preset": str(_SVT_PRESETS[at])},
            "mpeg4": {},
        }
        return {**speed[codec], **(quality if codec != "mpeg4" else {})}

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            if packet.pts is not None:
                # Encoders tell the length of a packet each in its own way, or not.
                ticks = round(packet.pts * packet.time_base / self._clock)
                length = self._lengths.pop(ticks, None)
                if length is not None:
                    packet.duration = round(length * self._clock / packet.time_base)
            self._out.mux(packet)

    def _end(self) -> None:
        if self._stream is None:
            raise ClipFailed("no picture of it could be decoded")
        self._mux(self._stream.encode(None))


class CopiedClip(ClipFile):
    """A clip of packets as they stand in the source, from a key frame on.

    MP4 files begin with the picture on the screen when the span begins: what the decoder needs before it, and behind
    the span, is in there and is not shown. WebM files begin with the key frame.
    """

    def __init__(self, wanted: Wanted, folder: str, media: Media, container: str, key: Any, sound: ClipSound):
        super().__init__(wanted, folder, container, sound)
        self._media, self._key = media, key
        self._zero = key.pts
        tick = key.time_base
        self._start, self._stop = (wanted.span.start_s + _SAME_S) / tick, (wanted.span.end_s - _SAME_S) / tick
        self._opening: list[Any] = []
        self._held: list[Any] = []
        self._stream: Any = None

    def add(self, packet: Any) -> bool:
        """Take a packet of the video, in the file's order; False when the clip is complete."""
        if packet.dts >= self._stop:
            return False
        if packet.pts < self._key.pts:
            return True  # Leads the key frame in and refers to what is before it.
        if self._stream is None and packet.dts <= self._start:
            self._opening.append(packet)
            return True
        self._begin()
        if packet.pts >= self._stop:
            self._held.append(packet)  # Perhaps what others refer to that are shown before it.
            return True
        for one in (*self._held, packet):
            self._mux(one)
        self._held.clear()
        return True

    def _begin(self) -> None:
        if self._stream is None and self._opening:
            if self._container == "mp4":
                self._zero = max(one.pts for one in self._opening if one.pts <= self._start)
            self.sound.zero_s = self._zero_s
            self._stream = self._open()
            for one in self._opening:
                self._mux(one)
            self._opening.clear()

    def _mux(self, packet: Any) -> None:
        packet.pts, packet.dts = packet.pts - self._zero, packet.dts - self._zero
        packet.stream = self._stream
        self._out.mux(packet)

    def _video(self, out: Any) -> Any:
        stream = out.add_stream_from_template(self._media.video, opaque=True)
        stream.codec_context.sample_aspect_ratio = self._media.aspect
        return stream

    def _end(self) -> None:
        self._begin()

    @property
    def _zero_s(self) -> float:
        return float(self._zero * self._key.time_base)

    @property
    def _length_s(self) -> float:
        return self.wanted.span.end_s - self._zero_s

    def _mend(self) -> None:
        if self._container == "mp4":
            show_only(self._aside, self._length_s)
