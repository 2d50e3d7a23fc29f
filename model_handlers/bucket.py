"""Weights that lie in a bucket: fetched once into a cache on this machine.

    path = fetch("gs://models/lpips_alex.safetensors")
    folder = fetch_folder("gs://models/blip2-opt-2.7b", wanted=lambda path: path.endswith((".json", ".safetensors")))

A copy is kept for each version of the object, so that weights which are replaced are fetched anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from model_handlers.weights import WeightsError

#: For each request; a download may be many.
_TIMEOUT_S = 60.0


def fetch(uri: str) -> str:
    """The path of a local copy of `gs://BUCKET/OBJECT`.

    Raises:
      WeightsError: the client library is not installed, or the object is missing, out of reach or unreadable.
    """
    bucket, name = _parts(uri)
    if not name:
        raise WeightsError(f"{uri} names no object; write gs://BUCKET/OBJECT")
    with _told(uri) as client:
        blob = client.bucket(bucket).get_blob(name, timeout=_TIMEOUT_S)
        if blob is None:
            raise WeightsError(f"there is no {uri}")
        version = hashlib.sha256(f"{uri}#{blob.generation}".encode()).hexdigest()[:16]
        path = os.path.join(_cache(), version, os.path.basename(name))
        _download(blob, path)
    return path


def fetch_folder(uri: str, wanted: Callable[[str], bool]) -> str:
    """The path of a local copy of the objects below `gs://BUCKET/FOLDER`.

    Args:
      wanted: says of an object's path below the folder whether it is copied.

    Raises:
      WeightsError: see `fetch`; or there is nothing that is wanted.
    """
    with _told(uri) as client:
        blobs = _blobs(client, uri, wanted)
        folder = os.path.join(_cache(), _version(uri, blobs))
        for path, blob in blobs.items():
            _download(blob, os.path.join(folder, path))
    return folder


def version_of_folder(uri: str, wanted: Callable[[str], bool]) -> str:
    """A digest of the objects' names and generations: it changes when any of them does. Raises as `fetch_folder`."""
    with _told(uri) as client:
        return _version(uri, _blobs(client, uri, wanted))


def _blobs(client: Any, uri: str, wanted: Callable[[str], bool]) -> dict[str, Any]:
    bucket, name = _parts(uri)
    prefix = name.rstrip("/") + "/" if name else ""
    listed = client.list_blobs(bucket, prefix=prefix, timeout=_TIMEOUT_S)
    found = {blob.name.removeprefix(prefix): blob for blob in listed if not blob.name.endswith("/")}
    # A name may hold `..`, and then its copy would stand outside the cache.
    inside = {path: blob for path, blob in found.items() if ".." not in path.split("/") and not path.startswith("/")}
    blobs = {path: blob for path, blob in sorted(inside.items()) if wanted(path)}
    if not blobs:
        raise WeightsError(f"there is no checkpoint below {uri}")
    return blobs


def _version(uri: str, blobs: Mapping[str, Any]) -> str:
    written = [uri.rstrip("/"), *(f"{path}#{blob.generation}" for path, blob in blobs.items())]
    return hashlib.sha256("\n".join(written).encode()).hexdigest()[:16]


def _parts(uri: str) -> tuple[str, str]:
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    if not bucket:
        raise WeightsError(f"{uri} names no bucket; write gs://BUCKET/...")
    return bucket, name


def _download(blob: Any, path: str) -> None:
    """Copy an object to `path`, unless it is there: aside, then renamed, so that what has its name is whole."""
    if os.path.exists(path):
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as aside:
        part = os.path.join(aside, "part")
        blob.download_to_filename(part, timeout=_TIMEOUT_S)
        os.replace(part, path)


@contextlib.contextmanager
def _told(uri: str) -> Iterator[Any]:
    """A client for `uri`, whose faults become a `WeightsError` that says what to do."""
    try:
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError
        from google.cloud import storage  # type: ignore[attr-defined]
    except ImportError as error:
        raise WeightsError(f"to read {uri}, run: pip install 'reelscribe[gcp]'") from error
    try:
        # Objects are read without a project; the client would search for one, and fail where gcloud has none set.
        yield storage.Client(project=None)
    except GoogleAuthError as error:
        told = "gcloud auth application-default login"
        raise WeightsError(f"there are no credentials to read {uri} with; run: {told}") from error
    except (GoogleAPIError, OSError) as error:
        raise WeightsError(f"{uri} can't be fetched: {' '.join(str(error).split())}") from error


def _cache() -> str:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(home, "reelscribe", "weights")
