"""Where the lease of a dataset is written down, and changed by one writer at a time.

    place = place_of("gs://sets/talks"); content, version = place.read(); place.swap(version, b"{}")

Whoever changes it says what it replaces, and is refused if that is not what stands there: in a directory under a lock,
in Cloud Storage by the object's generation.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import uuid
from typing import Protocol

from transforms import objects
from transforms.files import Directory, join

LEASE = ".lease"

_LOCK = ".lease.lock"
_MOST_BYTES = 1 << 16


class Place(Protocol):
    """Where a lease stands. What `read` gives as its version, `swap` must be given to change it."""

    def read(self) -> tuple[bytes | None, str]:
        """What is written there, None for nothing, and its version."""

    def swap(self, version: str, content: bytes | None) -> bool:
        """Write it anew, or remove it, unless it is of another version by now; tell whether."""


class _FilePlace:
    def __init__(self, dataset_dir: Directory):
        self._dir = pathlib.Path(dataset_dir)

    def read(self) -> tuple[bytes | None, str]:
        try:
            with open(self._dir / LEASE, "rb") as file:
                content = file.read(_MOST_BYTES + 1)
        except FileNotFoundError:
            return None, ""
        return content, content.decode("utf-8", "replace")

    def swap(self, version: str, content: bytes | None) -> bool:
        self._dir.mkdir(parents=True, exist_ok=True)
        # The kernel frees the lock of a dead process.
        with open(self._dir / _LOCK, "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.read()[1] != version:
                return False
            if content is None:
                (self._dir / LEASE).unlink()
                return True
            aside = self._dir / f"{LEASE}.{uuid.uuid4().hex}.tmp"
            aside.write_bytes(content)
            os.replace(aside, self._dir / LEASE)
            return True


class _ObjectPlace:
    def __init__(self, folder: str):
        self._uri = join(folder, LEASE)

    def read(self) -> tuple[bytes | None, str]:
        while (version := objects.stat(self._uri)) is not None:
            if version.size_bytes > _MOST_BYTES:
                return b"", version.generation  # No writer's.
            with contextlib.suppress(FileNotFoundError, objects.ObjectChanged):
                return objects.read_bytes(self._uri, version.generation, _MOST_BYTES), version.generation
        return None, objects.ABSENT

    def swap(self, version: str, content: bytes | None) -> bool:
        try:
            if content is None:
                objects.delete(self._uri, version)
            else:
                objects.write(self._uri, content, replacing=version)
        except objects.ObjectChanged:
            # Or it was us, and a request was repeated of which only the answer was lost.
            return self.read()[0] == content
        return True


def place_of(dataset_dir: Directory) -> Place:
    """The place of a dataset's lease."""
    where = os.fspath(dataset_dir)
    return _ObjectPlace(where) if objects.is_object(where) else _FilePlace(where)
