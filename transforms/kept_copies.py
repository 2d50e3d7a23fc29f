"""Copies of objects that are looked at again and again, kept on this machine as long as there is room for them.

    path = kept_copy("gs://sets/talks/reels/a.arrow", Version("1712", 1024))

One folder for all processes of a user, so that a machine's workers fetch an object once. A copy may be swept away at
any time to make room; who has it open keeps it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator

from transforms.objects import Version, download

#: What the copies may take of the disk for temporary files (TMPDIR).
KEPT_BYTES = 4 << 30

#: How what has no name yet is called: what is written, and what is being fetched.
_UNFINISHED = (".tmp", ".part")
#: What was not touched for so long and has no name yet is a killed process's.
_ABANDONED_S = 3600.0


def kept_copy(uri: str, version: Version) -> str:
    """The path of a copy of one version of an object.

    Raises:
      FileNotFoundError, ObjectChanged, Refused, StorageError, OSError: see `transforms.objects.download`.
    """
    path = _path_of(uri, version.generation)
    with contextlib.suppress(FileNotFoundError):
        # That of the last access alone: by the other one readers know a file again.
        os.utime(path, ns=(time.time_ns(), os.stat(path).st_mtime_ns))
        return path
    with new_copy() as aside:
        download(uri, version, aside)
        keep(aside, uri, version.generation)
    return path


@contextlib.contextmanager
def new_copy() -> Iterator[str]:
    """A path for something that may be kept; what still stands there in the end is removed."""
    aside = os.path.join(_folder(), f"{uuid.uuid4().hex}.tmp")
    try:
        yield aside
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)


def keep(path: str, uri: str, generation: str) -> None:
    """Keep a file of `new_copy` as the copy of an object, and make room for it."""
    kept = _path_of(uri, generation)
    os.replace(path, kept)
    _sweep(kept)


def forget(uri: str) -> None:
    """Remove the copies of an object, of whatever version, from this machine."""
    with os.scandir(_folder()) as entries:
        for entry in entries:
            if entry.name.startswith(f"{_digest(uri)}-"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry.path)


def _sweep(newest: str) -> None:
    copies = []
    with os.scandir(os.path.dirname(newest)) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                found = entry.stat(follow_symlinks=False)
                if not entry.name.endswith(_UNFINISHED):
                    copies.append((found.st_atime_ns, found.st_size, entry.path))
                elif time.time() - found.st_mtime > _ABANDONED_S:
                    os.unlink(entry.path)
    taken = sum(size for _, size, _ in copies)
    # The other half of a small disk is for what is written next.
    over = taken - min(KEPT_BYTES, (taken + shutil.disk_usage(os.path.dirname(newest)).free) // 2)
    for _, size, path in sorted(copies):
        if over <= 0:
            return
        if path != newest:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            over -= size


def _folder() -> str:
    """The folder, which must be this user's alone: decoders and models read what lies in it."""
    folder = os.path.join(tempfile.gettempdir(), f"reelscribe-kept-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} must be a directory that is yours alone; remove it, or set TMPDIR")
    return folder


def _path_of(uri: str, generation: str) -> str:
    return os.path.join(_folder(), f"{_digest(uri)}-{generation}")


def _digest(uri: str) -> str:
    return hashlib.sha256(uri.encode()).hexdigest()[:32]
