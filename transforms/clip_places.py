"""Where the files of clips stand below a dataset, which of them are whole, and which belong to no clip any more.

standing_file("out", "a-1000-9000", wanted)      # "media/a-1000-9000.mp4", or None
sweep_media("out")                               # removes files of clips that stand no more
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import Any

from transforms.clip_boxes import BrokenClip, read_clip
from transforms.files import Directory, join, list_files, name_of, reading, remove
from transforms.schemas import SAFE_ID
from transforms.tables import scan_table

MEDIA = "media"
SUFFIXES = ("mp4", "webm")
#: Files of ours, whole or begun: whatever else somebody put there is theirs.
_OURS = re.compile(r"[A-Za-z0-9_-]{1,128}\.(mp4|webm)|\.[A-Za-z0-9_-]{1,128}\.\d+\.tmp")


def media_of(dataset_dir: Directory) -> str:
    """The folder of a dataset's clip files."""
    return join(dataset_dir, MEDIA)


def is_own_name(clip_id: str, clip_file: str) -> bool:
    """Whether a `clip_file` is what the file of this clip may be called, and no other file of the machine."""
    # The id may be a stranger's, too.
    return bool(SAFE_ID.fullmatch(clip_id)) and clip_file in [f"{MEDIA}/{clip_id}.{suffix}" for suffix in SUFFIXES]


def path_of(dataset_dir: Directory, row: Mapping[str, Any]) -> str | None:
    """Where the file of a clip is, by its row's `clip_id` and `clip_file`; None where it has none of its own."""
    named = row["clip_file"]
    return join(dataset_dir, named) if named and is_own_name(row["clip_id"], named) else None


def standing_file(dataset_dir: Directory, clip_id: str, wanted: str) -> str | None:
    """The `clip_file` of a clip that is there already, made of what is wanted."""
    name = whole_file(media_of(dataset_dir), clip_id, wanted)
    return f"{MEDIA}/{name}" if name else None


def whole_file(folder: str, clip_id: str, wanted: str) -> str | None:
    """The name of a clip's file in a folder, if it is whole and made of what is wanted."""
    for suffix in SUFFIXES:
        name = f"{clip_id}.{suffix}"
        with contextlib.suppress(FileNotFoundError, BrokenClip), reading(join(folder, name)) as file:
            if read_clip(file).made_as == wanted:
                return name
    return None


def sweep_media(dataset_dir: Directory) -> int:
    """Remove the files that no clip names any more: superseded, or left by a killed run. Returns how many.

    Call it when nobody writes to the dataset and what is committed is final.
    """
    there = {path for path in list_files(media_of(dataset_dir)) if _OURS.fullmatch(name_of(path))}
    if not there:
        return 0
    named: set[str] = set()
    for batch in scan_table(dataset_dir, "clips", ["clip_file"]):
        named.update(join(dataset_dir, one) for one in batch.column("clip_file").drop_null().to_pylist())
    for path in there - named:
        remove(path)
    return len(there - named)
