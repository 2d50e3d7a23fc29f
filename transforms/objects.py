"""Objects in Google Cloud Storage, by gs://BUCKET/NAME: looked at, listed, read and written, one version at a time.

    listed = list_objects("gs://uploads/talks/")          # {"gs://uploads/talks/a.mp4": Version("1712", 1024), ...}
    download("gs://uploads/talks/a.mp4", listed["gs://uploads/talks/a.mp4"], "/tmp/a.mp4")

A generation is an object's version: a number that is never given twice. Every request has a time limit and is repeated
for a while when the service stumbles. What then still fails is the environment's fault (`StorageError`), not a video's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import importlib
import io
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

SCHEME = "gs://"

#: For one request, to connect and between two bytes; and for a request with its repetitions.
_TIMEOUT_S = (10.0, 60.0)
_RETRY_S = 90.0
#: What is fetched at least of an object that is read here and there.
_READ_BYTES = 4 << 20
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_LISTED = "items(name,generation,size),nextPageToken"

#: The generation of an object that is not there.
ABSENT = "0"
_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]/]*\]|.", re.DOTALL)
_GLOB = {"**/": "(?:[^/]*/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}


class StorageError(RuntimeError):
    """Cloud Storage cannot be asked: the environment's fault, no video's."""


class NoCredentials(StorageError):
    """Nobody says who we are; a job should not begin."""


class Refused(PermissionError):
    """Cloud Storage does not let us: rights are missing."""


class ObjectChanged(ValueError):
    """An object is no longer of the generation that was asked for."""


@dataclasses.dataclass(frozen=True, slots=True)
class Version:
    """An object as it was when somebody looked: its generation (a decimal number) and its size."""

    generation: str
    size_bytes: int


def is_object(uri: str) -> bool:
    """Whether a URI names an object in Cloud Storage."""
    return uri.startswith(SCHEME)


def parts_of(uri: str) -> tuple[str, str]:
    """Part gs://BUCKET/NAME; the name may be empty. Raises ValueError where there is no bucket's name."""
    bucket, _, name = uri.removeprefix(SCHEME).partition("/")
    if not is_object(uri) or not _BUCKET.fullmatch(bucket):
        raise ValueError(f"{uri!r} names no bucket; write gs://BUCKET/NAME")
    return bucket, name


def stat(uri: str) -> Version | None:
    """Look at one object; None if it is not there.

    Raises:
      Refused: there are no rights to see it. StorageError: Cloud Storage cannot be asked.
    """
    bucket, name = parts_of(uri)
    with _asking(uri) as (client, limits):
        blob = client.bucket(bucket).get_blob(name, **limits)
    return None if blob is None else _version(blob)


def list_objects(prefix: str, children_only: bool = False) -> dict[str, Version]:
    """List the objects whose URI begins with `prefix`, by URI, without the placeholders of folders.

    Args:
      prefix: gs://BUCKET/ and as much of a name as is known; not only whole folders.
      children_only: leave out what lies in folders below.

    Raises:
      FileNotFoundError: there is no such bucket. Refused, StorageError: see `stat`.
    """
    bucket, begin = parts_of(prefix)
    try:
        with _asking(prefix) as (client, limits):
            delimiter = "/" if children_only else None
            # Sizes and generations alone: a listing with all properties is ten times as long.
            pages = client.list_blobs(bucket, prefix=begin or None, delimiter=delimiter, fields=_LISTED, **limits)
            return {f"{SCHEME}{bucket}/{blob.name}": _version(blob) for blob in pages if not blob.name.endswith("/")}
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no bucket {SCHEME}{bucket}") from error


def literal_prefix(pattern: str) -> str:
    """What every match of a pattern begins with, and every file beside it that has another suffix.

    literal_prefix("gs://b/talks/a*.mp4")      # "gs://b/talks/a"
    literal_prefix("gs://b/talks/a.m*")        # "gs://b/talks/a."   a.vtt stands beside a.mp4
    """
    known = re.split(r"[*?[]", pattern, maxsplit=1)[0]
    cut = known.rfind(".") + 1
    return known[:cut] if cut > known.rfind("/") + 1 else known


def pattern_of(glob: str) -> re.Pattern[str]:
    """Translate a pattern: `*` and `?` stay within a folder, `**` does not, `[a-z]` and `[!a-z]` are one character."""
    written = []
    for token in _TOKEN.findall(glob):
        if len(token) > 1 and token[0] == "[":
            within = token[1:-1].replace("\\", r"\\").replace("[", r"\[")
            written.append(f"(?!/)[{'^' if within[0] == '!' else ''}{within.removeprefix('!')}]")
        else:
            written.append(_GLOB.get(token) or re.escape(token))
    return re.compile("".join(written), re.DOTALL)


def read_bytes(uri: str, generation: str, max_bytes: int) -> bytes:
    """Read a small object.

    Raises:
      FileNotFoundError: it is not there. ObjectChanged: it is of another generation. ValueError: it is too large.
      Refused, StorageError: see `stat`.
    """
    sink = _Bounded(uri, max_bytes)
    _fetch(uri, generation, sink)
    return sink.getvalue()


def download(uri: str, version: Version, path: str, deadline_s: float = 3600.0) -> None:
    """Copy one version of an object to `path`: aside, then renamed, so that what has its name is whole.

    Raises:
      FileNotFoundError: the object is not there. ObjectChanged: it is of another generation.
      OSError: the disk is full. Refused, StorageError: see `stat`; also when the copy takes longer than `deadline_s`.
    """
    folder, part = os.path.dirname(os.path.abspath(path)), f"{path}.part"
    if shutil.disk_usage(folder).free < version.size_bytes:
        told = f"{folder} has no room for {uri} ({version.size_bytes:,} bytes); free some, or set TMPDIR"
        raise OSError(errno.ENOSPC, told)
    try:
        with io.BufferedWriter(_Timely(part, uri, deadline_s), 1 << 20) as sink:
            _fetch(uri, version.generation, sink)
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        raise


def write(uri: str, content: bytes, replacing: str | None = None) -> str:
    """Write a small object, whole or not at all; return its generation.

    Args:
      replacing: the generation that it may take the place of, `ABSENT` for none; by default whatever is there.

    Raises:
      ObjectChanged: another one is there. Refused, StorageError: see `stat`.
    """
    with _asking(uri, "written") as (client, limits):
        blob = _blob(client, uri)
        blob.upload_from_string(content, if_generation_match=_condition(replacing), **limits)
    return str(blob.generation)


def upload(path: str, uri: str, replacing: str | None = None) -> str:
    """Copy a file to an object, whole or not at all; see `write`."""
    with _asking(uri, "written") as (client, limits):
        blob = _blob(client, uri)
        blob.upload_from_filename(path, if_generation_match=_condition(replacing), **limits)
    return str(blob.generation)


def delete(uri: str, generation: str | None = None) -> None:
    """Delete an object; all is well if it is gone.

    Raises:
      ObjectChanged: it is of another generation than this one. Refused, StorageError: see `stat`.
    """
    with contextlib.suppress(FileNotFoundError), _asking(uri, "deleted") as (client, limits):
        _blob(client, uri).delete(if_generation_match=_condition(generation), **limits)


@contextlib.contextmanager
def reading(uri: str) -> Iterator[BinaryIO]:
    """An object as a file to seek in, of which only what is asked for is fetched.

    Raises:
      FileNotFoundError, Refused, StorageError: see `stat`; from within the block, too.
    """
    with _asking(uri) as (client, limits), _blob(client, uri).open("rb", chunk_size=_READ_BYTES, **limits) as file:
        yield file


@contextlib.contextmanager
def writing(uri: str) -> Iterator[BinaryIO]:
    """A file that becomes an object when the block ends well, and never otherwise. Raises as `write` does."""
    with tempfile.TemporaryFile() as aside:
        yield aside
        size = aside.seek(0, os.SEEK_END)
        aside.seek(0)
        with _asking(uri, "written") as (client, limits):
            # With its size, or what is small would take two requests, too.
            _blob(client, uri).upload_from_file(aside, size=size, **limits)


def _blob(client: Any, uri: str) -> Any:
    bucket, name = parts_of(uri)
    return client.bucket(bucket).blob(name)


def _condition(generation: str | None) -> int | None:
    return None if generation is None else int(generation)


class _Bounded(io.BytesIO):
    """Memory that takes so many bytes and no more."""

    def __init__(self, uri: str, max_bytes: int):
        super().__init__()
        self._uri, self._max_bytes = uri, max_bytes

    def write(self, part: Any) -> int:
        if self.tell() + len(part) > self._max_bytes:
            raise ValueError(f"{self._uri} is larger than {self._max_bytes:,} bytes")
        return super().write(part)


class _Timely(io.FileIO):
    """A new file that takes bytes until a deadline: a server that trickles runs into no time limit of a request."""

    def __init__(self, path: str, uri: str, deadline_s: float):
        super().__init__(path, "w")
        self._uri, self._deadline_s, self._began = uri, deadline_s, time.monotonic()

    def write(self, part: Any) -> int:
        if time.monotonic() - self._began > self._deadline_s:
            raise StorageError(f"{self._uri} was not copied here within {self._deadline_s:g} s")
        return super().write(part)


def _fetch(uri: str, generation: str, sink: BinaryIO) -> None:
    bucket, name = parts_of(uri)
    with _asking(uri) as (client, limits):
        _blob(client, uri).download_to_file(sink, if_generation_match=int(generation), **limits)
        # Emulators ignore the condition. Generations never return: if it is the same now, it was all the time.
        seen = client.bucket(bucket).get_blob(name, **limits)
        if seen is None or str(seen.generation) != generation:
            raise ObjectChanged(f"{uri} changed since it was listed")


def _version(blob: Any) -> Version:
    return Version(str(blob.generation), int(blob.size or 0))


@contextlib.contextmanager
def _asking(uri: str, what: str = "read") -> Iterator[tuple[Any, dict[str, Any]]]:
    """A client and the limits of its requests; its errors become ours. `what`: read, written or deleted."""
    # Not `from google.cloud import storage`: what is missing should be a ModuleNotFoundError with its name.
    importlib.import_module("google.cloud.storage")
    from google.api_core import exceptions as api
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
    from google.cloud.storage.retry import DEFAULT_RETRY

    try:
        client = _client(os.getpid(), os.environ.get("STORAGE_EMULATOR_HOST"))
        yield client, {"timeout": _TIMEOUT_S, "retry": DEFAULT_RETRY.with_timeout(_RETRY_S)}
    except api.NotFound as error:
        raise FileNotFoundError(f"there is no {uri}") from error
    except api.PreconditionFailed as error:
        raise ObjectChanged(f"{uri} changed since it was listed") from error
    except (api.Unauthorized, api.Forbidden, api.BadRequest) as error:
        told = f"it takes the role roles/storage.{'objectViewer' if what == 'read' else 'objectUser'} on the bucket"
        raise Refused(f"{uri} may not be {what} ({_line(error)}); {told}") from error
    except DefaultCredentialsError as error:
        told = "gcloud auth application-default login"
        raise NoCredentials(f"there are no credentials to reach {uri} with; run: {told}") from error
    except (api.GoogleAPIError, GoogleAuthError, DataCorruption, InvalidResponse) as error:
        raise StorageError(f"{uri} cannot be {what} now: {_line(error)}") from error


@functools.cache
def _client(process: int, emulator: str | None) -> Any:
    """The client of this process; it goes to an emulator without looking for credentials."""
    from google.cloud import storage  # type: ignore[attr-defined]

    # Objects are read without a project; the client would search for one, and fail where there is none.
    return storage.Client(project=None)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
