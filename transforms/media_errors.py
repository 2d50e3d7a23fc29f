"""Why a file cannot be decoded, in plain sentences: one error class a kind.

check_file(path)                      # NotAVideo("a.mp4 is empty (0 bytes); fetch it again")
raise why_unopened(path, error)       # TruncatedVideo("a.mp4 breaks off before its index (moov) ...")
"""

from __future__ import annotations

import os
import stat
import struct
import urllib.parse
from collections.abc import Iterator
from typing import Any

_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"<MPD", b"[playlist]", b"v=0")
_SNIFF = 4096


class MediaError(ValueError):
    """A source that yields no video; the message says what is wrong and what to do."""


class NotAFile(MediaError):
    """Missing, a folder, a device, or not on this machine."""


class SourceChanged(MediaError):
    """The file is not, or no longer, the version that was listed."""


class NotAVideo(MediaError):
    """Bytes that are no known video container: empty, text, a playlist, a picture, noise."""


class TruncatedVideo(MediaError):
    """A container that was cut off before its index."""


class EncryptedVideo(MediaError):
    """A video that needs a key."""


class NoVideoStream(MediaError):
    """A container without a video stream: audio or text only."""


class UndecodableVideo(MediaError):
    """A video stream of which not one frame could be decoded."""


class UndecodableSound(MediaError):
    """A stream of sound of which nothing could be decoded."""


def local_path(uri: str) -> str:
    """The path of a local source: a plain path as it is, a `file:///...` URI decoded."""
    if uri.startswith("file:"):
        parts = urllib.parse.urlsplit(uri)
        if parts.netloc not in ("", "localhost"):
            raise NotAFile(f"{uri} names a file on another machine; copy it here first")
        return urllib.parse.unquote(parts.path)
    if "://" in uri:
        raise NotAFile(f"{uri} is not a local file; it has to be fetched before it can be decoded")
    return uri


def source_version(path: str) -> str:
    """What changes when the bytes of a local file do: its size and its time of modification."""
    status = os.stat(path)
    return f"{status.st_size}-{status.st_mtime_ns}"


def check_file(path: str) -> None:
    """Raise if `path` is no regular file with something in it."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise NotAFile(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise NotAFile(f"{path!r} is no path: {error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise NotAFile(f"{path} is not a regular file")
    if status.st_size == 0:
        raise NotAVideo(f"{path} is empty (0 bytes); fetch it again")
    if not os.access(path, os.R_OK):
        raise NotAFile(f"{path} cannot be read: permission denied")


def why_unopened(path: str, error: Exception) -> MediaError:
    """The error for a file that no demuxer on the list takes."""
    with open(path, "rb") as file:
        head = file.read(_SNIFF)
        boxes = list(_top_boxes(file)) if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide") else []
    start = head.lstrip(b"\xef\xbb\xbf \r\n\t")
    if start.startswith(_PLAYLISTS) or (start.startswith(b"<?xml") and b"<MPD" in head):
        return NotAVideo(f"{path} is a playlist, not a video; give the files it names as inputs")
    if boxes and "moov" not in boxes:
        return TruncatedVideo(f"{path} breaks off before its index (moov), so nothing can be decoded; get it whole")
    if b"pssh" in head or b"encv" in head:
        return EncryptedVideo(f"{path} is encrypted; decrypt it first")
    if boxes:
        return UndecodableVideo(f"{path} has a broken index: {_reason(error)}; repair it or get it again")
    if b"\0" not in head and start[:1] in b"<{[#":
        return NotAVideo(f"{path} is a text file (a web page?), not a video")
    return NotAVideo(f"{path} is no video of a known container: {_reason(error)}")


def why_no_video(path: str, container: Any) -> NoVideoStream:
    """The error for a container without a video stream."""
    kinds = sorted({stream.type for stream in container.streams}) or ["no stream"]
    return NoVideoStream(f"{path} has no video stream, only {' and '.join(map(str, kinds))}")


def why_undecodable(path: str, stream: Any, corrupt_packets: int) -> MediaError:
    """The error for a video stream that gave not one frame."""
    with open(path, "rb") as file:
        head = file.read(1 << 20)
    encrypted = (b"encv", b"pssh", b"sinf") if head[4:8] == b"ftyp" else (b"\x50\x35",)  # Matroska's ContentEncryption
    if stream.codec_context.codec_tag == "encv" or any(mark in head for mark in encrypted):
        return EncryptedVideo(f"{path} is encrypted; decrypt it first")
    if corrupt_packets:
        codec = stream.codec_context.name
        return UndecodableVideo(
            f"{path} has a {codec} stream of which no frame can be decoded ({corrupt_packets} corrupt packets)"
        )
    return UndecodableVideo(f"{path} has a video stream without a single frame")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _top_boxes(file: Any) -> Iterator[str]:
    """The types of the top-level boxes of an MP4 file, as far as they can be followed."""
    # A length may claim anything, and a seek to beyond what the file system knows is an error of its own.
    end = file.seek(0, os.SEEK_END)
    offset = 0
    for _ in range(10_000):
        if offset >= end:
            return
        file.seek(offset)
        header = file.read(16)
        if len(header) < 8:
            return
        size = struct.unpack(">I", header[:4])[0]
        yield header[4:8].decode("latin-1")
        if size == 1 and len(header) == 16:
            size = struct.unpack(">Q", header[8:])[0]
        if size < 8:
            return
        offset += size
