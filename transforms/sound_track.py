"""The sound of a video as a speech model hears it, written by the decoding process: mono, 16 kHz, 16 bits, from zero.

    write_sound("/videos/a.mp4", "/tmp/sound.s16", until_s=60.0)      # {"samples": 960000, "frames": 2813, "broken": 0}

Sample n of the file is what is heard n / 16000 s after the file's zero, as the times of pictures and subtitles count:
a stretch without sound is a hole in the file, which reads as silence and takes no room.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import av
import av.error
from av.audio.resampler import AudioResampler

from transforms.media import open_container
from transforms.media_errors import UndecodableSound

#: What Whisper was trained on, and most other models of speech.
RATE = 16_000
_SAMPLE_BYTES = 2
#: Frames are placed anew where they are this far from where the ones before end. Containers round times to a
#: millisecond or two; to this Whisper rounds its own.
_TOLERANCE_S = 0.02
#: A step back in time by more than this is a new clock (a wrap, a splice), as for pictures.
_NEW_CLOCK_S = 1.0


def write_sound(
    path: str, out: str, until_s: float, progress: Callable[[int, float], None] | None = None
) -> dict[str, int]:
    """Decode the sound of a file: of the best stream, as far as it decodes; a file without any gives an empty one.

    Args:
      path: of a local file. out: raw samples, 16 bits, of the machine's byte order. until_s: where to end.
      progress: called with the frames so far and the time of the last, in seconds.

    Returns:
      How many samples there are, decoded frames, and packets that could not be decoded.

    Raises:
      MediaError: no media, or there is sound, and nothing of it could be decoded.
    """
    with open_container(path) as container, open(out, "wb") as file:
        source = container.streams.best("audio")
        if source is None or source.codec_context is None:
            return {"samples": 0, "frames": 0, "broken": 0}
        packets, track = _Packets(container, source), _Track(file, round(until_s * RATE))
        frames = 0
        for frames, frame in enumerate(packets.frames(), 1):
            track.add(frame, frame.time_base or source.time_base)
            if progress:
                progress(frames, track.end_s)
            if track.is_full:
                break
        track.finish()
        broken = packets.broken + track.refused
        if broken and not frames - track.refused:
            raise UndecodableSound(f"{path}: none of its sound ({source.codec_context.name}) could be decoded")
        return {"samples": track.samples, "frames": frames, "broken": broken}


class _Packets:
    """Decodes the packets of one stream, and counts those that are broken."""

    def __init__(self, container: Any, source: Any):
        self._container, self._source = container, source
        self.broken = 0

    def frames(self) -> Iterator[Any]:
        packets = self._container.demux(self._source)
        while True:
            try:
                packet = next(packets, None)
            except IndexError:
                # PyAV knows the streams that were there at first; one that begins later (MPEG-TS) is not ours to read.
                packets = self._container.demux(self._source)
                continue
            except av.error.FFmpegError as error:
                # The container itself breaks off here; what follows cannot be found.
                self._note(error)
                yield from self._decoded(None)
                return
            if packet is None:
                return
            yield from self._decoded(packet)

    def _decoded(self, packet: Any) -> list[Any]:
        try:
            return packet.decode() if packet is not None else self._source.codec_context.decode(None)
        except av.error.EOFError:
            return []
        except av.error.FFmpegError as error:
            self._note(error)
            return []

    def _note(self, error: av.error.FFmpegError) -> None:
        _raise_for_memory(error)
        self.broken += 1


class _Track:
    """Writes decoded frames to where they belong, stretch by stretch; within one, samples follow each other.

    Attributes:
      end_s: where the last frame ends, in seconds from the file's zero. samples: the file's length so far.
      refused: frames that could not be converted.
    """

    def __init__(self, file: BinaryIO, most: int):
        self._file, self._most = file, most
        self._resampler: AudioResampler | None = None
        self._kind: tuple[str, str, int] | None = None
        self._next = self.samples = self.refused = 0
        self._shift_s = self.end_s = 0.0

    @property
    def is_full(self) -> bool:
        """Whether all that comes is beyond the end."""
        return self._next >= self._most

    def add(self, frame: Any, time_base: Any) -> None:
        time_s = self.end_s
        if frame.pts is not None:
            time_s = float(frame.pts * time_base) + self._shift_s
            if self._kind and time_s < self.end_s - _NEW_CLOCK_S:
                self._shift_s += self.end_s - time_s
                time_s = self.end_s
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self._kind or abs(time_s - self.end_s) > _TOLERANCE_S:
            self.finish()
            self._kind, self.end_s = kind, time_s
            self._resampler, self._next = AudioResampler("s16", "mono", RATE), round(time_s * RATE)
        self.end_s += frame.samples / frame.sample_rate
        # Placed here: what the resampler would make of steps in these times is its own.
        frame.pts = None
        try:
            self._write(self._resampler.resample(frame) if self._resampler else [])
        except (av.error.FFmpegError, ValueError) as error:
            _raise_for_memory(error)
            self.refused += 1
            self._resampler = self._kind = None

    def finish(self) -> None:
        """Write what the resampler still holds of a stretch."""
        resampler, self._resampler = self._resampler, None
        try:
            self._write(resampler.resample(None) if resampler else [])
        except (av.error.FFmpegError, ValueError) as error:
            _raise_for_memory(error)

    def _write(self, frames: list[Any]) -> None:
        for frame in frames:
            sound = frame.to_ndarray().reshape(-1)
            begin, self._next = self._next, self._next + len(sound)
            # What is before the file's zero is heard by nobody.
            heard = sound[max(0, -begin) : max(0, self._most - begin)]
            if len(heard):
                self._file.seek(max(0, begin) * _SAMPLE_BYTES)
                self._file.write(heard.tobytes())
                self.samples = max(self.samples, max(0, begin) + len(heard))


def _raise_for_memory(error: Exception) -> None:
    """Running out of memory says nothing of the packet; it is not to be passed over."""
    if getattr(error, "errno", None) == errno.ENOMEM:
        raise MemoryError("the decoder ran out of memory") from error
