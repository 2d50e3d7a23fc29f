"""The reels of a dataset: where a video's stands, and how a new one gets there.

    with reel_aside(reel) as aside: ...; path = publish_reel(aside, reel, replacing)

A reel in Cloud Storage is written on this machine, and uploaded if nobody else was faster: of two attempts at a video,
as a runner may make, the one that comes late takes the other's reel, which clips may refer to already.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from transforms.files import Directory, join
from transforms.kept_copies import keep, new_copy
from transforms.objects import ABSENT, is_object, stat, upload
from transforms.reel import Reel, ReelError, pinned
from transforms.schemas import SAFE_ID


def reels_of(dataset_dir: Directory) -> str:
    """The folder of a dataset's reels."""
    return join(dataset_dir, "reels")


def reel_of(reels_dir: str, video_id: str) -> str:
    """Where the reel of a video stands."""
    return join(reels_dir, f"{video_id}.arrow")


def readable_reel(dataset_dir: Directory, video_id: str) -> Reel | None:
    """A dataset's reel of a video; None where it is missing or unreadable, or the id is no name of a file."""
    if not SAFE_ID.fullmatch(video_id):
        return None
    try:
        return Reel.open(reel_of(reels_of(dataset_dir), video_id))
    except ReelError:
        return None


def standing_reel(reel: str) -> str:
    """The generation of a reel in Cloud Storage, `ABSENT` where there is none, or where files have no generation."""
    version = stat(reel) if is_object(reel) else None
    return version.generation if version else ABSENT


@contextlib.contextmanager
def reel_aside(reel: str) -> Iterator[str]:
    """Where a `ReelWriter` should write what shall stand at `reel`."""
    if is_object(reel):
        with new_copy() as aside:
            yield aside
    else:
        os.makedirs(os.path.dirname(reel), exist_ok=True)
        yield reel


def publish_reel(aside: str, reel: str, replacing: str) -> str:
    """Give a reel that was written its place, and return the path by which its clips find it.

    Args:
      replacing: what `standing_reel` said before.

    Raises:
      ObjectChanged: another one stands there by now.
    """
    if not is_object(reel):
        return reel
    generation = upload(aside, reel, replacing)
    keep(aside, reel, generation)
    return pinned(reel, generation)
