"""Files of weights: whether they are the ones that are meant.

check_sha256("weights.pth", "57934424...")
"""

from __future__ import annotations

import functools
import hashlib
import os


class WeightsError(RuntimeError):
    """Weights that are missing or are not the ones that are meant; the message says what to do."""


def digest(path: str) -> str:
    """The SHA-256 of a file, computed once for as long as it stays as it is."""
    found = os.stat(path)
    return _digest(path, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _digest(path: str, size_bytes: int, changed_ns: int) -> str:
    with open(path, "rb") as weights:
        return hashlib.file_digest(weights, "sha256").hexdigest()


def check_sha256(path: str, expected: str) -> None:
    """Raise `WeightsError` unless the file at `path` is the one whose digest is pinned."""
    found = digest(path)
    if found != expected:
        raise WeightsError(f"{path} has SHA-256 {found}, but {expected} is pinned; reinstall the package it came with")
