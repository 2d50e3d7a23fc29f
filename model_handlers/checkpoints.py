"""Where a model's files are: a directory, a folder of a bucket, or the hub at a pinned commit.

    place = locate("gs://models/blip2", "")                    # copied here once a worker
    AutoProcessor.from_pretrained(place.path, **place.hub)

What is loaded is `.safetensors`, and never code that came with it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from typing import Any

from model_handlers import bucket
from model_handlers.weights import WeightsError, digest

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")

#: What a checkpoint consists of. Other formats of the same weights are neither copied nor counted.
FILES = (".safetensors", ".json", ".txt", ".model", ".jinja")
#: Originals that some repositories keep beside the files that Transformers reads.
_ASIDE = re.compile(r"(^|/)(original|consolidated|onnx|openvino)")


#: What the version of files in a bucket begins with.
OBJECTS = "objects "


@dataclasses.dataclass(frozen=True)
class Place:
    """A checkpoint that can be loaded.

    Attributes:
      path: a directory, or the hub's id. revision: the commit, of the hub alone.
    """

    path: str
    revision: str = ""

    @property
    def hub(self) -> dict[str, Any]:
        """What every `from_pretrained` is told beside the path."""
        return {"trust_remote_code": False} | ({"revision": self.revision} if self.revision else {})


def is_hub_id(weights: str) -> bool:
    """Whether `weights` names a repository of the hub, and no directory that stands here."""
    return bool(_HUB_ID.fullmatch(weights)) and not os.path.isdir(weights)


def check(weights: str, revision: str) -> None:
    """See that the weights could be meant, without a network.

    A directory with a revision (but a commit's, which is the hub's) may be one that only the workers' image holds.

    Raises:
      WeightsError: no such directory, or a hub id without a commit.
    """
    if weights.startswith("gs://"):
        return
    if is_hub_id(weights):
        if not _COMMIT.fullmatch(revision):
            how = "a commit's 40 digits; the model's page on the hub lists them under Files, History"
            raise WeightsError(f"{weights} needs a pinned revision: {how}. There is no directory of this name here")
        return
    folder = os.path.expanduser(weights)
    if not os.path.isdir(folder):
        if _is_named(revision):
            return
        how = "name a checkpoint's directory, gs://, or a hub id; for a directory of the workers' image add a revision"
        raise WeightsError(f"there is no directory {weights}; {how}")
    if not os.path.isfile(os.path.join(folder, "config.json")):
        raise WeightsError(f"{weights} holds no config.json; name a directory that save_pretrained wrote")


def locate(weights: str, revision: str = "", seen: str = "") -> Place:
    """Find a checkpoint, copying it from its bucket where it is in one.

    Args:
      seen: the version that the bucket must hold (see `version_of`); empty: any.

    Raises:
      WeightsError: see `check`; or the bucket is out of reach, or holds another version by now.
    """
    check(weights, revision)
    if weights.startswith("gs://"):
        folder = bucket.fetch_folder(weights, _is_part)
        if seen and seen != f"{OBJECTS}{os.path.basename(folder)}":
            told = "run the same command again, and upload the next one to a folder of its own"
            raise WeightsError(f"{weights} was written to after this job had begun; {told}")
        return Place(folder)
    if is_hub_id(weights):
        return Place(weights, revision)
    folder = os.path.expanduser(weights)
    if not os.path.isdir(folder):
        raise WeightsError(f"there is no directory {weights} on this machine; the image must hold it under this name")
    return Place(folder)


def version_of(weights: str, revision: str = "") -> str:
    """What stands in `captions.revision`: the hub's commit, what the user calls a directory, or a digest of its files.

    Raises:
      WeightsError: see `locate`.
    """
    check(weights, revision)
    if weights.startswith("gs://"):
        return f"{OBJECTS}{bucket.version_of_folder(weights, _is_part)}"
    if is_hub_id(weights):
        return revision
    if _is_named(revision):
        return f"named {revision}"
    return f"sha256 {_digest_folder(os.path.expanduser(weights))[:16]}"


def _is_named(revision: str) -> bool:
    """Whether this is what a user calls a directory's contents."""
    return bool(revision) and not _COMMIT.fullmatch(revision)


def files_of(folder: str) -> list[str]:
    """The relative paths of a checkpoint's files in a directory, sorted."""
    found = []
    for parent, _, names in os.walk(folder):
        paths = (os.path.relpath(os.path.join(parent, name), folder) for name in names)
        found += [path for path in paths if _is_part(path)]
    return sorted(found)


def _is_part(path: str) -> bool:
    return path.endswith(FILES) and not _ASIDE.search(path)


def _digest_folder(folder: str) -> str:
    total = hashlib.sha256()
    for path in files_of(folder):
        total.update(f"{path} {digest(os.path.join(folder, path))}\n".encode())
    return total.hexdigest()
