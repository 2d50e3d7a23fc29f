"""The sound of one clip: copied where the container takes it, else encoded anew.

    sound = ClipSound(media.sound, "mp4", Span(1.0, 9.0), zero_s=1.0)
    sound.attach(container); sound.hear(packet, time_s); ...; sound.finish()
    sound.told                                   # "copied", "encoded", "none", or "dropped: ..."

Bad sound costs no clip: what cannot be decoded is left out, and `told` says so.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import av.error
from av.audio.resampler import AudioResampler

from transforms.clip_settings import Wanted
from transforms.media import Media
from transforms.records import Span

#: What the containers take as it is, by the codec's own name.
COPIED = {
    "mp4": frozenset(["aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"]),
    "webm": frozenset(["opus", "vorbis"]),
}
_ENCODERS = {"mp4": ("aac",), "webm": ("libopus", "opus")}
_OPUS_RATE = 48_000
_AAC_RATES = frozenset([96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000])
_BITS_A_CHANNEL = 64_000
#: Sound of clips that begin so long after a packet is none of theirs.
_AHEAD_S = 10.0

#: What says nothing of the media: no room, no rights, a disk that fails.
_ENVIRONMENT = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOENT])


def raise_for_environment(error: Exception) -> None:
    """Raise what is no fault of the media as a plain `OSError` or `MemoryError`; return where it may be."""
    number = getattr(error, "errno", None)
    if number == errno.ENOMEM or isinstance(error, MemoryError):
        raise MemoryError("a clip's file needs more memory than there is") from error
    if number in _ENVIRONMENT or (isinstance(error, OSError) and not isinstance(error, av.error.FFmpegError)):
        raise OSError(number, f"a clip's file cannot be written: {getattr(error, 'strerror', error)}") from error


class ClipSound:
    """The sound of one clip, from the packets of its source.

    Args:
      source: the stream, None where there is none. container: "mp4" or "webm".
      zero_s: the time in the source at which the file begins.
    """

    def __init__(self, source: Any, container: str, span: Span, zero_s: float):
        self._source, self._span, self.zero_s = source, span, zero_s
        self._waiting: list[tuple[Any, float]] = []
        self._out: Any = None
        self._stream: Any = None
        self._resampler: AudioResampler | None = None
        self._bad = self._written = 0
        self._why = ""
        codec = source.codec_context.codec.canonical_name if source is not None and source.codec_context else ""
        self.copies = codec in COPIED[container]
        self._encoder = next((name for name in _ENCODERS[container] if name in av.codecs_available), None)
        if source is not None and not codec:
            self._why = "its codec is unknown"
        elif source is not None and not self.copies and self._encoder is None:
            self._why = "nothing here encodes sound"

    @property
    def told(self) -> str:
        """What became of the sound."""
        if self._source is None:
            return "none"
        if self._why:
            return f"dropped: {self._why}"
        if not self._written:
            return f"dropped: {self._bad} broken packets" if self._bad else "none"
        return "copied" if self.copies else "encoded"

    @property
    def is_wanted(self) -> bool:
        return self._source is not None and not self._why

    def drop(self, why: str) -> None:
        """Leave the sound out of the file."""
        self._why, self._stream, self._waiting = why, None, []

    def attach(self, out: Any) -> None:
        """Add a stream to the file, before its header is written."""
        self._out = out
        if not self.is_wanted:
            return
        if self.copies:
            self._stream = out.add_stream_from_template(self._source, opaque=True)
            return
        context = self._source.codec_context
        rate = context.sample_rate
        if self._encoder != "aac":
            rate = _OPUS_RATE
        elif rate not in _AAC_RATES:
            rate = 48_000
        layout = "mono" if context.layout.nb_channels == 1 else "stereo"
        self._resampler = AudioResampler("fltp", layout, rate)
        self._stream = out.add_stream(self._encoder, rate=rate, layout=layout)
        self._stream.bit_rate = _BITS_A_CHANNEL * (1 if layout == "mono" else 2)

    def begin(self) -> None:
        """Write what was heard before there was a file."""
        waiting, self._waiting = self._waiting, []
        for heard, time_s in waiting:
            self._write(heard, time_s)

    def hear(self, heard: Any, time_s: float) -> None:
        """Take a packet (to be copied), or a frame (to be encoded), whose time in the source is `time_s`."""
        if not self.is_wanted or not self._belongs(heard, time_s):
            return
        if self._out is None:
            self._waiting.append((heard, time_s))
        else:
            self._write(heard, time_s)

    def fail(self) -> None:
        """Note a packet that could not be decoded."""
        self._bad += 1

    def finish(self) -> None:
        """Write what the encoder still holds."""
        if self._stream is not None and not self.copies:
            try:
                for frame in self._resampler.resample(None) if self._resampler and self._written else []:
                    self._encode(frame)
                self._out.mux(self._stream.encode(None))
            except (av.error.FFmpegError, ValueError) as error:
                raise_for_environment(error)

    def _belongs(self, heard: Any, time_s: float) -> bool:
        if isinstance(heard, av.Packet):
            length_s = float((heard.duration or 0) * heard.time_base)
            return self.zero_s - length_s < time_s < self._span.end_s
        return self.zero_s < time_s + heard.samples / heard.sample_rate and time_s < self._span.end_s

    def _write(self, heard: Any, time_s: float) -> None:
        if self._stream is None:
            return
        try:
            if self.copies:
                self._copy(heard, time_s)
            else:
                heard.pts = round(time_s * heard.sample_rate)
                heard.time_base = Fraction(1, heard.sample_rate)
                for frame in self._resampler.resample(heard) if self._resampler else []:
                    self._encode(frame)
        except (av.error.FFmpegError, ValueError) as error:
            raise_for_environment(error)
            self._bad += 1

    def _copy(self, packet: Any, time_s: float) -> None:
        # Another clip may be made of the same packet.
        own = av.Packet(bytes(packet))
        own.time_base, own.duration, own.is_keyframe = packet.time_base, packet.duration, packet.is_keyframe
        own.pts = own.dts = round((time_s - self.zero_s) / packet.time_base)
        if own.pts < 0 and "webm" in self._out.format.name:
            return  # MP4 hides what is before its beginning.
        own.stream = self._stream
        self._out.mux(own)
        self._written += 1

    def _encode(self, frame: Any) -> None:
        """Encode the part of a frame that belongs to the clip, to the sample."""
        rate = frame.sample_rate
        begins = round(frame.pts * frame.time_base * rate) if frame.pts is not None else 0
        first = max(0, round(self.zero_s * rate) - begins)
        last = min(frame.samples, round(self._span.end_s * rate) - begins)
        if first >= last:
            return
        part = av.AudioFrame.from_ndarray(frame.to_ndarray()[:, first:last].copy(), "fltp", frame.layout.name)
        part.sample_rate, part.time_base = rate, Fraction(1, rate)
        part.pts = begins + first - round(self.zero_s * rate)
        self._out.mux(self._stream.encode(part))
        self._written += 1


class Heard:
    """Takes the sound of a source to its clips, as packets or decoded; those in order of their beginnings.

    `until_s` is how far the sound has come.
    """

    def __init__(self, media: Media | None, sounds: Sequence[tuple[Wanted, ClipSound]]):
        self._sounds = {one.clip_id: sound for one, sound in sounds}
        self._spans = {one.clip_id: one.span for one, _ in sounds}
        self._copies = any(sound.copies for _, sound in sounds)
        self.until_s = -float("inf")
        if media is not None:
            media.hear = self._hear

    def of(self, wanted: Wanted) -> ClipSound:
        return self._sounds[wanted.clip_id]

    def replace(self, wanted: Wanted, sound: ClipSound) -> None:
        self._sounds[wanted.clip_id] = sound

    def forget(self, wanted: Wanted) -> None:
        """Nothing more is to be heard of it."""
        self._sounds.pop(wanted.clip_id, None)

    def _hear(self, packet: Any, time_s: float) -> None:
        self.until_s = max(self.until_s, time_s)
        if self._copies:
            self._take(packet, time_s)
            return
        shift_s = time_s - float(packet.pts * packet.time_base)
        try:
            for frame in packet.decode():
                if frame.pts is not None:
                    self._take(frame, float(frame.pts * frame.time_base) + shift_s)
        except av.error.FFmpegError as error:
            raise_for_environment(error)
            for clip_id, sound in self._sounds.items():
                if self._spans[clip_id].start_s <= time_s < self._spans[clip_id].end_s:
                    sound.fail()

    def _take(self, heard: Any, time_s: float) -> None:
        for clip_id, sound in self._sounds.items():
            if self._spans[clip_id].start_s > time_s + _AHEAD_S:
                return
            sound.hear(heard, time_s)
