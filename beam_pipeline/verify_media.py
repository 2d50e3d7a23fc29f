"""The part of the audit that looks at clip files: each is there, whole and as long as its clip, and no others are.

for breach in check_media("out", snapshot, counts, orderly=True): ...
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping
from typing import Any

from transforms.clip_boxes import BrokenClip, read_clip
from transforms.clip_places import is_own_name, media_of
from transforms.clip_settings import MOST_EARLY_S, allowed_s
from transforms.files import Directory, join, list_files, name_of, reading
from transforms.tables import Snapshot

_COLUMNS = ["clip_id", "clip_file", "duration_s", "fps"]


def check_media(
    dataset_dir: Directory, snapshot: Snapshot, counts: collections.Counter[str], *, orderly: bool
) -> Iterator[str]:
    """Every `clip_file` is there, can be read and has its clip's length; `media/` holds nothing else.

    Args:
      counts: gets "clip_files", and the files that no clip names as "stray_files".
      orderly: whether the last writer left in good order: then files that no clip names are a breach.
    """
    stray = set(list_files(media_of(dataset_dir), below=True))
    for batch in snapshot.scan("clips", _COLUMNS):
        for clip in batch.to_pylist():
            if clip["clip_file"] is not None:
                counts["clip_files"] += 1
                stray.discard(join(dataset_dir, clip["clip_file"]))
                yield from check_clip_file(dataset_dir, clip)
    counts["stray_files"] += len(stray)
    for path in sorted(stray) if orderly else ():
        yield f"media: {name_of(path)} is no clip's file"


def check_clip_file(dataset_dir: Directory, clip: Mapping[str, Any]) -> Iterator[str]:
    """One clip's file is where it says, and whole.

    Args:
      clip: its clip_id, clip_file, duration_s and fps.
    """
    clip_id, told = clip["clip_id"], clip["clip_file"]
    if not is_own_name(clip_id, told):
        yield f"{clip_id}: its clip_file is {told!r}, which is no name of its own"
        return
    try:
        with reading(join(dataset_dir, told)) as file:
            length_s = read_clip(file).length_s
    except FileNotFoundError:
        yield f"{clip_id}: its file {told} is missing"
        return
    except (BrokenClip, OSError) as error:
        yield f"{clip_id}: its file {told} can't be read: {error}"
        return
    longer_s = length_s - clip["duration_s"]
    # A copied WebM file begins with a key frame, and so may be longer.
    most_s = allowed_s(clip["fps"]) + (MOST_EARLY_S if told.endswith("webm") else 0.0)
    if not -allowed_s(clip["fps"]) <= longer_s <= most_s:
        yield f"{clip_id}: its file {told} is {length_s:.3f} s long, the clip {clip['duration_s']:.3f} s"
