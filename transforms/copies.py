"""A video's file on this machine, wherever its source is: decoders are given local paths only.

with local_copy(video, deadline_s=3600) as path: ...       # an object's copy is gone afterwards, whatever happens
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import posixpath
import re
import shutil
import tempfile
import time
from collections.abc import Iterator

from transforms.child import DecoderFailed
from transforms.media_errors import MediaError, NotAFile, SourceChanged, check_file, local_path, source_version
from transforms.objects import ObjectChanged, Refused, Version, download, is_object
from transforms.records import Video

_PREFIX = "reelscribe-copy-"
#: A folder this young may not be locked yet by who made it.
_YOUNG_S = 60.0


@contextlib.contextmanager
def local_copy(video: Video, deadline_s: float) -> Iterator[str]:
    """The path of a video's file: a local file itself, or a copy of an object in the version that was listed.

    Messages of `MediaError` that leave the block name the object, not its copy.

    Raises:
      NotAFile, SourceChanged: the object is gone or may not be read, or it is of another version.
      OSError: the disk for temporary files is full. StorageError: Cloud Storage cannot be asked, or is too slow.
    """
    if not is_object(video.uri):
        yield local_path(video.uri)
        return
    with own_folder() as folder:
        path = os.path.join(folder, "video" + _suffix(video.uri))
        try:
            if not video.etag:
                raise FileNotFoundError
            download(video.uri, Version(video.etag, video.size_bytes), path, deadline_s)
        except FileNotFoundError as error:
            raise NotAFile(f"{video.uri} is not there any more (removed since it was listed)") from error
        except Refused as error:
            raise NotAFile(str(error)) from error
        except ObjectChanged as error:
            raise SourceChanged(f"{video.uri} changed since it was listed; run the command again") from error
        try:
            yield path
        except MediaError as error:
            error.args = tuple(str(told).replace(path, video.uri) for told in error.args)
            if isinstance(error, DecoderFailed):
                error.detail = error.detail.replace(path, video.uri)
            raise


def check_version(video: Video, path: str) -> None:
    """Raise a `MediaError` unless there is a file and, where its version is of the local kind, the listed one."""
    check_file(path)
    if re.fullmatch(r"\d+-\d+", video.etag) and source_version(path) != video.etag:
        raise SourceChanged(f"{path} changed since it was listed; run the command again")


def _suffix(uri: str) -> str:
    """The suffix of an object's name, which helps demuxers to guess; only where it is a plain one."""
    suffix = posixpath.splitext(uri)[1]
    return suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,8}", suffix) else ""


@contextlib.contextmanager
def own_folder() -> Iterator[str]:
    """A new folder for temporary files, locked while it is in use; removes those whose owners were killed."""
    _sweep(tempfile.gettempdir())
    folder = tempfile.mkdtemp(prefix=_PREFIX)
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _sweep(where: str) -> None:
    """Remove what a killed process left: the kernel has released its lock."""
    with os.scandir(where) as entries:
        left = [entry.path for entry in entries if entry.name.startswith(_PREFIX)]
    for folder in left:
        with contextlib.suppress(OSError):
            if time.time() - os.stat(folder).st_mtime < _YOUNG_S:
                continue
            lock = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
