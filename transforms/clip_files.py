"""Write the clips of one video to files: in one pass over the source, and a second one where a copy is not to be had.

    for written in write_clips("/videos/a.mp4", "out/media", wanted, ClipFileSettings("copy"), threads=2):
        written.file, written.how, written.sound, written.failure

This runs in the decoding process (`transforms.decoder`); `transforms.clip_writing` is its caller's side.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import av
import av.error

from transforms.clip_outputs import ENCODERS, ClipFailed, CopiedClip, EncodedClip, Look, encoded_size, encoder_of
from transforms.clip_settings import ClipFileSettings, Wanted
from transforms.clip_sound import ClipSound, Heard, raise_for_environment
from transforms.media import Media, Picture, Unsteady, open_media
from transforms.records import Span

Progress = Callable[[int, float], None]

#: Containers whose packets bear the times at which they are shown, and the codecs that are copied from them.
_COPIED_FROM = ("mov", "matroska", "mpegts", "flv")
_COPIED_INTO = {"h264": "mp4", "hevc": "mp4", "av1": "mp4", "mpeg4": "mp4", "vp8": "webm", "vp9": "webm"}
#: Times agree when they are within this of each other.
_SAME_S = 0.0005
#: A step back by more is a new clock (see `transforms.media`).
_NEW_CLOCK_S = 1.0
#: How long a clip's file waits for sound that comes after the pictures.
_SOUND_LATE_S = 10.0


@dataclasses.dataclass(frozen=True, slots=True)
class Written:
    """What became of one clip.

    `file` is its name; `how` is 'copied' or 'encoded', `sound` likewise, or 'none', or why it was dropped; `failure`
    says why there is no file.
    """

    clip_id: str
    file: str | None = None
    how: str = ""
    sound: str = ""
    failure: str | None = None


def write_clips(
    path: str,
    folder: str,
    wanted: Sequence[Wanted],
    settings: ClipFileSettings,
    *,
    threads: int = 1,
    progress: Progress = lambda frames, time_s: None,
) -> Iterator[Written]:
    """Write a file for each clip of a local video; each has its name when it is told here.

    Args:
      folder: where the files go, made if absent.
      progress: told the count of frames or packets and the time in the source now and then.

    Raises:
      MediaError: there is no video to decode. OSError, MemoryError: the environment's fault; nothing is left aside.
    """
    left = sorted(wanted, key=lambda one: one.span.start_s)
    if settings.mode == "copy":
        with contextlib.closing(_Copying(path, folder, left, settings, progress)) as copying:
            yield from copying.run()
            left = copying.left
    try:
        if left:
            encoder_of(settings)
    except ClipFailed as error:
        yield from (Written(one.clip_id, failure=str(error)) for one in left)
        left = []
    if left:
        with contextlib.closing(_Encoding(path, folder, left, settings, threads, progress)) as encoding:
            yield from encoding.run()


def answer(request: Mapping[str, Any], progress: Progress) -> list[dict[str, Any]]:
    """Do what `transforms.clip_writing` asks of the decoding process, and return what became of each clip."""
    wanted = [Wanted(one["clip_id"], Span(one["start_s"], one["end_s"]), one["made_as"]) for one in request["clips"]]
    threads = max(1, len(os.sched_getaffinity(0)) // request.get("sharing", 1))
    settings = ClipFileSettings(**request["settings"])
    written = write_clips(request["path"], request["folder"], wanted, settings, threads=threads, progress=progress)
    return [dataclasses.asdict(one) for one in written]


class _Pass:
    """One pass over a source: clips that wait for it, those under way, and those that only wait for their sound."""

    def __init__(self, path: str, folder: str, wanted: Sequence[Wanted], settings: ClipFileSettings):
        self._path, self._folder, self._settings = path, folder, settings
        self._waiting = deque(wanted)
        self._open: list[Any] = []
        self._ending: list[Any] = []
        self._told: list[Written] = []
        self._heard = Heard(None, [])

    def _settle(self, media: Media, now_s: float, how: str) -> Iterator[Written]:
        """Finish the clips whose sound is complete, too; tell what became of them, and of those that failed."""
        for clip in list(self._ending):
            end_s = clip.wanted.span.end_s
            if clip.sound.is_wanted and self._heard.until_s < end_s and now_s < end_s + _SOUND_LATE_S:
                continue
            try:
                clip.finish(media.fps)
            except (ClipFailed, ValueError) as error:
                self._fail(clip, error)
            else:
                self._told.append(Written(clip.wanted.clip_id, clip.name, how, clip.sound.told))
            self._ending.remove(clip)
            self._heard.forget(clip.wanted)
        told, self._told = self._told, []
        yield from told

    def _fail(self, clip: Any, error: Exception) -> None:
        """One clip cannot be written; what is no fault of its own is raised."""
        clip.abandon()
        raise_for_environment(error)
        self._heard.forget(clip.wanted)
        self._leave(clip.wanted, " ".join(str(error).split()) or type(error).__name__)

    def _leave(self, wanted: Wanted, why: str) -> None:
        self._told.append(Written(wanted.clip_id, failure=why))

    def close(self) -> None:
        """Leave nothing aside."""
        for clip in (*self._open, *self._ending):
            clip.abandon()


class _Copying(_Pass):
    """The pass that copies packets; `left` are the clips for which that could not be."""

    def __init__(
        self, path: str, folder: str, wanted: Sequence[Wanted], settings: ClipFileSettings, progress: Progress
    ):
        super().__init__(path, folder, wanted, settings)
        self._progress = progress
        self.left = list(wanted)

    def run(self) -> Iterator[Written]:
        with open_media(self._path) as media:
            codec = media.video.codec_context.codec.canonical_name
            if not media.format_name.startswith(_COPIED_FROM) or codec not in _COPIED_INTO:
                return
            self._container = _COPIED_INTO[codec]
            self._heard = Heard(media, [(one, self._sound(media, one)) for one in self._waiting])
            yield from self._copy(media)

    def _copy(self, media: Media) -> Iterator[Written]:
        last_s = -float("inf")
        for number, packet in enumerate(media.packets()):
            if packet.pts is None:
                return  # Nobody knows when it is shown.
            time_s = float(packet.pts * packet.time_base)
            # Matroska has no decoding times; those of the first packets cannot be guessed.
            decoded_s = -float("inf") if packet.dts is None else float(packet.dts * packet.time_base)
            if time_s < last_s - _NEW_CLOCK_S:
                return
            last_s = max(last_s, time_s)
            self._progress(number, time_s)
            if packet.is_keyframe and not packet.is_discard and packet.dts is not None:
                self._begin(media, packet, time_s)
            self._give_up_before(decoded_s)
            self._add(packet)
            yield from self._finished(media, decoded_s)
            if not (self._waiting or self._open or self._ending):
                return
        self._ending += self._open
        self._open = []
        yield from self._finished(media, float("inf"))

    def _finished(self, media: Media, now_s: float) -> Iterator[Written]:
        for written in self._settle(media, now_s, "copied"):
            self.left = [one for one in self.left if one.clip_id != written.clip_id]
            yield written

    def _sound(self, media: Media, wanted: Wanted) -> ClipSound:
        # WebM shows what is before the clip, so what is heard there belongs to it.
        early_s = self._settings.copy_tolerance_s if self._container == "webm" else 0.0
        return ClipSound(media.sound, self._container, wanted.span, wanted.span.start_s - early_s)

    def _begin(self, media: Media, packet: Any, time_s: float) -> None:
        for wanted in self._waiting:
            early_s = wanted.span.start_s - time_s
            if early_s < -_SAME_S:
                return
            if early_s <= self._settings.copy_tolerance_s + _SAME_S:
                # A later key frame is a better beginning than an earlier one.
                for earlier in [clip for clip in self._open if clip.wanted is wanted]:
                    self._open.remove(earlier)
                    earlier.abandon()
                    self._heard.replace(wanted, self._sound(media, wanted))
                sound = self._heard.of(wanted)
                self._open.append(CopiedClip(wanted, self._folder, media, self._container, packet, sound))

    def _give_up_before(self, decoded_s: float) -> None:
        """Leave clips to which no key frame can come any more, as all that follows is shown later."""
        while self._waiting and self._waiting[0].span.start_s + _SAME_S < decoded_s:
            wanted = self._waiting.popleft()
            if not any(clip.wanted is wanted for clip in self._open):
                self._heard.forget(wanted)

    def _add(self, packet: Any) -> None:
        for clip in list(self._open):
            try:
                if packet.is_discard or packet.is_corrupt or packet.dts is None:
                    raise ClipFailed("its packets cannot be copied")
                if not clip.add(_own(packet)):
                    self._open.remove(clip)
                    self._ending.append(clip)
            except (av.error.FFmpegError, ClipFailed, ValueError) as error:
                self._open.remove(clip)
                self._fail(clip, error)

    def _leave(self, wanted: Wanted, why: str) -> None:
        with contextlib.suppress(ValueError):
            self._waiting.remove(wanted)


class _Encoding(_Pass):
    """The pass that decodes every picture and encodes those of the clips."""

    def __init__(
        self,
        path: str,
        folder: str,
        wanted: Sequence[Wanted],
        settings: ClipFileSettings,
        threads: int,
        progress: Progress,
    ):
        super().__init__(path, folder, wanted, settings)
        self._threads, self._progress = threads, progress
        self._codec = encoder_of(settings)

    def run(self) -> Iterator[Written]:
        with open_media(self._path, threads=self._threads) as media:
            # It is told of the whole file, after its last picture: these clips are as good as they get.
            with contextlib.suppress(Unsteady):
                yield from self._encode(media)
            self._ending += self._open
            self._open = []
            yield from self._settle(media, float("inf"), "encoded")
        for wanted in self._waiting:
            yield Written(wanted.clip_id, failure="no picture of it could be decoded")

    def _encode(self, media: Media) -> Iterator[Written]:
        container = ENCODERS[self._codec][1]
        # Before the first picture: much sound may stand before it in the file.
        self._heard = Heard(
            media, [(one, ClipSound(media.sound, container, one.span, one.span.start_s)) for one in self._waiting]
        )
        pictures = media.pictures()
        before = next(pictures)
        look = self._look(media, before)
        try:
            for picture in pictures:
                self._progress(media.frames, picture.time_s)
                self._show(before, picture.time_s, look)
                yield from self._settle(media, picture.time_s, "encoded")
                if not (self._waiting or self._open or self._ending):
                    return
                before = picture
        finally:
            pictures.close()
        self._show(before, before.time_s + before.duration_s, look)

    def _look(self, media: Media, picture: Picture) -> Look:
        frame = picture.encodable(encoded_size(picture.size, self._settings.short_side))
        return Look(
            codec=self._codec,
            size=(frame.width, frame.height),
            aspect=1 / media.aspect if picture.is_turned else media.aspect,
            rate=Fraction(media.fps).limit_denominator(1001),
            colours=(int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc), int(frame.color_range)),
            settings=self._settings,
            threads=self._threads,
        )

    def _show(self, picture: Picture, until_s: float, look: Look) -> None:
        """Show a picture in every clip during which it is on the screen."""
        while self._waiting and self._waiting[0].span.start_s < until_s - _SAME_S:
            wanted = self._waiting.popleft()
            self._open.append(EncodedClip(wanted, self._folder, look, self._heard.of(wanted)))
        frame = None
        for clip in list(self._open):
            span = clip.wanted.span
            from_s, to_s = max(picture.time_s, span.start_s), min(until_s, span.end_s)
            try:
                if to_s - from_s > _SAME_S:
                    frame = frame or picture.encodable(look.size)
                    clip.show(frame, from_s, to_s)
            except (av.error.FFmpegError, ClipFailed, ValueError) as error:
                self._open.remove(clip)
                self._fail(clip, error)
                continue
            if until_s > span.end_s - _SAME_S:
                self._open.remove(clip)
                self._ending.append(clip)


def _own(packet: Any) -> Any:
    """A packet of our own: another clip may get the same, with other times."""
    own = av.Packet(bytes(packet))
    own.time_base, own.pts, own.dts, own.duration = packet.time_base, packet.pts, packet.dts, packet.duration
    own.is_keyframe = packet.is_keyframe
    return own
