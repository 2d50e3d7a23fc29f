"""Weights that lie in a bucket: fetched once into a cache on this machine.

    path = fetch("gs://models/lpips_alex.safetensors")

A copy is kept for each version of the object, so that weights which are replaced are fetched anew.
"""

from __future__ import annotations

import hashlib
import os
import tempfile

from model_handlers.vision import WeightsError

#: For each request; a download may be many.
_TIMEOUT_S = 60.0


def fetch(uri: str) -> str:
    """The path of a local copy of `gs://BUCKET/OBJECT`.

    Raises:
      WeightsError: the client library is not installed, or the object is missing, out of reach or unreadable.
    """
    try:
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError
        from google.cloud import storage  # type: ignore[attr-defined]
    except ImportError as error:
        raise WeightsError(f"to read {uri}, run: pip install 'reelscribe[gcp]'") from error
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    if not bucket or not name:
        raise WeightsError(f"{uri} names no object; write gs://BUCKET/OBJECT")
    try:
        blob = storage.Client().bucket(bucket).get_blob(name, timeout=_TIMEOUT_S)
        if blob is None:
            raise WeightsError(f"there is no {uri}")
        version = hashlib.sha256(f"{uri}#{blob.generation}".encode()).hexdigest()[:16]
        path = os.path.join(_cache(), version, os.path.basename(name))
        if not os.path.exists(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as aside:
                part = os.path.join(aside, "part")
                blob.download_to_filename(part, timeout=_TIMEOUT_S)
                os.replace(part, path)
    except GoogleAuthError as error:
        told = "gcloud auth application-default login"
        raise WeightsError(f"there are no credentials to read {uri} with; run: {told}") from error
    except (GoogleAPIError, OSError) as error:
        raise WeightsError(f"{uri} can't be fetched: {' '.join(str(error).split())}") from error
    return path


def _cache() -> str:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(home, "reelscribe", "weights")
