"""The sound of a video, for whoever listens to it: decoded in a process of its own, read piece by piece.

    with sound_of(split) as chunks:
        for chunk in chunks: ...              # float32 in [-1, 1], mono, 16,000 samples a second, from the file's zero

It travels between no stages: who needs it decodes it where it is needed, and it is gone afterwards.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import numpy as np

from transforms.child import Limits, decode
from transforms.copies import check_version, local_copy, own_folder
from transforms.records import SplitVideo

#: Samples a chunk: ten seconds.
_CHUNK = 160_000
_FULL_SCALE = 32_768.0


@contextlib.contextmanager
def sound_of(split: SplitVideo, limits: Limits | None = None) -> Iterator[Iterator[np.ndarray]]:
    """What is heard in a video up to the end of its last shot, in chunks; none where it has no sound.

    An hour takes 115 MB of the disk for temporary files while the block runs; the copy of an object is gone by then.

    Args:
      limits: what decoding it may cost; by default what decoding a video may.

    Raises:
      MediaError: there is sound that can't be decoded at all, or the source is gone or changed.
      OSError, StorageError, RuntimeError: the environment's fault: see `transforms.copies.local_copy`.
    """
    limits, until_s = limits or Limits(), max((shot.end_s for shot in split.shots), default=0.0)
    with own_folder() as folder:
        out = os.path.join(folder, "sound.s16")
        with local_copy(split.video, limits.deadline_s) as path:
            check_version(split.video, path)
            decode("sound", {"path": path, "sound": out, "until_s": until_s}, limits)
            check_version(split.video, path)
        with open(out, "rb") as file:
            yield _chunks(file)


def _chunks(file: object) -> Iterator[np.ndarray]:
    while len(samples := np.fromfile(file, np.int16, _CHUNK)):  # type: ignore[call-overload]
        yield samples.astype(np.float32) / np.float32(_FULL_SCALE)
