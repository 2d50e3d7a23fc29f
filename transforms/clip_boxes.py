"""What a clip's file says of itself, read and mended without a decoder: MP4 boxes and Matroska elements.

    with reading("out/media/a-1000-9000.mp4") as file:
        facts = read_clip(file)              # ClipFacts(length_s=8.0, made_as="3f9a1c2b4d5e6f70")
    show_only("a.mp4", 8.0)                  # has the video of an MP4 file end after 8 s

Only the head of a file is read: MP4 files have their index in front, WebM files their lengths and tags.
"""

from __future__ import annotations

import dataclasses
import os
import re
import struct
from collections.abc import Iterator
from typing import BinaryIO

#: The comment that a clip's file bears, and what it is looked for with.
COMMENT = "reelscribe clip {}"
_COMMENT = re.compile(rb"reelscribe clip ([0-9a-f]{16})")

_MOST_INDEX_BYTES = 64 << 20
_WEBM_HEAD_BYTES = 64 << 10
_MATROSKA = b"\x1a\x45\xdf\xa3"
_SEGMENT, _INFO, _SCALE, _DURATION = 0x18538067, 0x1549A966, 0x2AD7B1, 0x4489


class BrokenClip(ValueError):
    """A clip's file that is cut off, or none at all; the message says what is wrong."""


@dataclasses.dataclass(frozen=True, slots=True)
class ClipFacts:
    """How long a clip's file is, in seconds, and what it was made of (see `clip_settings.made_as`), if it says so."""

    length_s: float
    made_as: str | None


def read_clip(file: BinaryIO) -> ClipFacts:
    """What a clip's file says of itself.

    Raises:
      BrokenClip: it is cut off, or no MP4 or WebM file with a video.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    try:
        head, length_s = _webm(file, size) if file.read(4) == _MATROSKA else _mp4(file, size)
    except (struct.error, IndexError) as error:
        raise BrokenClip("its index cannot be read") from error
    found = _COMMENT.search(head)
    return ClipFacts(length_s, found[1].decode() if found else None)


def show_only(path: str, length_s: float) -> None:
    """Have the video of an MP4 file end after `length_s`: what follows is there for the decoder and is not shown.

    Raises:
      BrokenClip: it has no edit list, or one of several parts.
    """
    with open(path, "r+b") as file:
        start, end = _index(file, os.path.getsize(path))
        file.seek(start)
        index = bytearray(file.read(end - start))
        movie = _only(index, 0, len(index), b"mvhd")
        scale, duration = _times(index, movie[0])
        lengths = []
        for track in _found(index, 0, len(index), b"trak"):
            header = _only(index, *track, b"tkhd")
            length = _track_length(index, header[0])
            if _is_video(index, track):
                length = min(length, round(length_s * scale))
                _shorten(index, track, length)
                _put(index, header[0], 28 if index[header[0]] else 20, length)
            lengths.append(length)
        _put(index, movie[0], 24 if index[movie[0]] else 16, max(lengths, default=duration))
        file.seek(start)
        file.write(index)


def _mp4(file: BinaryIO, size: int) -> tuple[bytes, float]:
    start, end = _index(file, size)
    file.seek(start)
    index = file.read(end - start)
    scale, _ = _times(index, _only(index, 0, len(index), b"mvhd")[0])
    for track in _found(index, 0, len(index), b"trak"):
        if _is_video(index, track):
            return index, _track_length(index, _only(index, *track, b"tkhd")[0]) / scale
    raise BrokenClip("it has no video")


def _index(file: BinaryIO, size: int) -> tuple[int, int]:
    """Where the contents of the index stand; all boxes must end where the file does."""
    at, index, has_media = 0, None, False
    while at < size:
        file.seek(at)
        header = file.read(16)
        if len(header) < 8:
            raise BrokenClip("it is cut off")
        length, kind, offset = struct.unpack(">I", header[:4])[0], header[4:8], 8
        if length == 1:
            length, offset = struct.unpack(">Q", header[8:])[0], 16
        if length < offset or at + length > size:
            raise BrokenClip("it is cut off, or no video")
        has_media |= kind == b"mdat"
        if kind == b"moov":
            index = (at + offset, at + length)
        at += length
    if index is None or not has_media:
        raise BrokenClip("it holds no video" if size else "it is empty")
    if index[1] - index[0] > _MOST_INDEX_BYTES:
        raise BrokenClip("its index is larger than that of any clip")
    return index


def _found(index: bytes | bytearray, start: int, end: int, wanted: bytes) -> Iterator[tuple[int, int]]:
    """The contents of the boxes of one kind, side by side in [start, end)."""
    at = start
    while at + 8 <= end:
        length = struct.unpack_from(">I", index, at)[0]
        if length < 8 or at + length > end:
            raise BrokenClip("its index cannot be read")
        if index[at + 4 : at + 8] == wanted:
            yield at + 8, at + length
        at += length


def _only(index: bytes | bytearray, start: int, end: int, *path: bytes) -> tuple[int, int]:
    """The contents of the first box on a path."""
    for kind in path:
        found = next(_found(index, start, end, kind), None)
        if found is None:
            raise BrokenClip(f"its index has no {kind.decode()}")
        start, end = found
    return start, end


def _is_video(index: bytes | bytearray, track: tuple[int, int]) -> bool:
    start, _ = _only(index, *track, b"mdia", b"hdlr")
    return index[start + 8 : start + 12] == b"vide"


def _times(index: bytes | bytearray, start: int) -> tuple[int, int]:
    """The ticks a second of a movie's header, and its duration."""
    if index[start]:
        scale, duration = struct.unpack_from(">IQ", index, start + 20)
    else:
        scale, duration = struct.unpack_from(">II", index, start + 12)
    if not scale:
        raise BrokenClip("its clock stands still")
    return scale, duration


def _track_length(index: bytes | bytearray, start: int) -> int:
    return struct.unpack_from(">Q" if index[start] else ">I", index, start + (28 if index[start] else 20))[0]


def _put(index: bytearray, start: int, offset: int, value: int) -> None:
    struct.pack_into(">Q" if index[start] else ">I", index, start + offset, value)


def _shorten(index: bytearray, track: tuple[int, int], length: int) -> None:
    """Set what a track's edit list shows, which may begin with a pause."""
    start, _ = _only(index, *track, b"edts", b"elst")
    is_wide, count = bool(index[start]), struct.unpack_from(">I", index, start + 4)[0]
    step, form = (20, ">Qq") if is_wide else (12, ">Ii")
    paused = 0
    for at in (start + 8 + number * step for number in range(count)):
        shown, begin = struct.unpack_from(form, index, at)
        if begin == -1:
            paused += shown
        elif at == start + 8 + (count - 1) * step:
            struct.pack_into(form[:2], index, at, length - paused)
            return
    raise BrokenClip("its edit list has several parts")


def _webm(file: BinaryIO, size: int) -> tuple[bytes, float]:
    file.seek(0)
    head = file.read(_WEBM_HEAD_BYTES)
    at = 0
    while True:
        kind, length, begin = _element(head, at)
        if begin + length > size:
            raise BrokenClip("it is cut off")
        if kind == _SEGMENT:
            break
        at = begin + length
    scale, duration = 1_000_000, None
    at, end = begin, begin + length
    while at < min(end, len(head)):
        kind, length, begin = _element(head, at)
        if kind == _INFO:
            at = begin
            while at < begin + length:
                inner, size_of, where = _element(head, at)
                if inner == _SCALE:
                    scale = int.from_bytes(head[where : where + size_of], "big")
                elif inner == _DURATION:
                    duration = struct.unpack(">d" if size_of == 8 else ">f", head[where : where + size_of])[0]
                at = where + size_of
            break
        at = begin + length
    if duration is None:
        raise BrokenClip("it does not say how long it is: it was not finished")
    return head, duration * scale / 1e9


def _element(head: bytes, at: int) -> tuple[int, int, int]:
    """The id of the element at `at`, its length, and where its contents begin."""
    kind_size = 9 - head[at].bit_length()
    kind = int.from_bytes(head[at : at + kind_size], "big")
    at += kind_size
    length_size = 9 - head[at].bit_length()
    length = int.from_bytes(head[at : at + length_size], "big") & ((1 << (7 * length_size)) - 1)
    return kind, length, at + length_size
