"""Copies of objects that are looked at again and again, kept on this machine as long as there is room for them.

    path = kept_copy("gs://sets/talks/reels/a.arrow", Version("1712", 1024))

One folder for all processes of a user, so that a machine's workers fetch an object once. A copy may be swept away at
any time to make room; who has it open keeps it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator

from transforms.objects import Version, download

#: What the copies may take of the disk for temporary files (TMPDIR).
KEPT_BYTES = 4 << 30

#: What was not touched for so long and has no name yet is a killed process's.
_ABANDONED_S = 3600.0


def kept_copy(uri: str, version: Version) -> str:
    """The path of a copy of one version of an object.

    Raises:
      FileNotFoundError, ObjectChanged, Refused, StorageError, OSError: see `transforms.objects.download`.
    """
    path = _path_of(uri, version.generation)
    with contextlib.suppress(FileNotFoundError):
        os.utime(path)
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


def _sweep(newest: str) -> None:
    copies = []
    with os.scandir(os.path.dirname(newest)) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                found = entry.stat(follow_symlinks=False)
                if not entry.name.endswith(".tmp"):
                    copies.append((found.st_mtime, found.st_size, entry.path))
                elif time.time() - found.st_mtime > _ABANDONED_S:
                    os.unlink(entry.path)
    over = sum(size for _, size, _ in copies) - KEPT_BYTES
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
    os.makedirs(folder, mode=0o700, exist_ok=True)
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} must be a directory that is yours alone; remove it, or set TMPDIR")
    return folder


def _path_of(uri: str, generation: str) -> str:
    return os.path.join(_folder(), f"{hashlib.sha256(uri.encode()).hexdigest()[:32]}-{generation}")
