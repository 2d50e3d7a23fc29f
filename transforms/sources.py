"""A video to be read: where it is, in which version, and with what text beside it.

    local_source("uploads/a.mp4")                             # Source(video_id="a-1b2c...", etag="1024-17...", ...)
    object_source("gs://uploads/a.mp4", listed)               # the same from a listing of the bucket

Nothing is opened here: names and versions only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import posixpath
import re
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any

from transforms.objects import Version, is_object
from transforms.records import Earlier
from transforms.schemas import SAFE_ID

#: What a folder is searched for. A file that is named, or matched by a pattern, is taken whatever its name.
MEDIA_SUFFIXES = frozenset(
    [
        ".3gp",
        ".asf",
        ".avi",
        ".divx",
        ".f4v",
        ".flv",
        ".m2ts",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".mxf",
        ".ogv",
        ".ts",
        ".vob",
        ".webm",
        ".wmv",
    ]
)
SUBTITLE_SUFFIXES = (".vtt", ".srt")
METADATA_SUFFIX = ".json"
SIDE_CAR_SUFFIXES = (METADATA_SUFFIX, *SUBTITLE_SUFFIXES)


class InputError(ValueError):
    """An input that names nothing usable: the user's to mend before the job starts."""


class NothingFound(InputError):
    """An input that names nothing now; it may later."""


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """A video to be read, as it was found: where, in which version, and with what text beside it.

    `etag` and `text_version` change when the file or the text does. `problem` says why it cannot be used at all.
    Of an object in Cloud Storage `etag` is the generation, "" when it was not there; of side-cars that are objects
    `subtitles_version` and `metadata_version` are, so that what is read is what `text_version` stands for.
    `earlier` is what the dataset holds of this version (see `transforms.recalling`).
    """

    video_id: str
    uri: str
    etag: str = ""
    size_bytes: int = 0
    title: str | None = None
    description: str | None = None
    language: str | None = None
    subtitles: str | None = None
    metadata: str | None = None
    text_version: str = ""
    problem: str | None = None
    earlier: Earlier | None = None
    subtitles_version: str = ""
    metadata_version: str = ""


def video_id_of(uri: str) -> str:
    """Derive a video's id from its canonical URI alone: readable, and its own even where base names are equal."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", pathlib.PurePosixPath(uri).stem).strip("-")[:40] or "video"
    return f"{stem}-{hashlib.sha256(uri.encode('utf-8', 'surrogateescape')).hexdigest()[:12]}"


def is_media(name: str) -> bool:
    """Whether a file in a folder is taken for a video, by its name; hidden ones are not."""
    return posixpath.splitext(name)[1].lower() in MEDIA_SUFFIXES and not posixpath.basename(name).startswith(".")


def version_of(path: str) -> tuple[str, int]:
    """A local file's version and its size in bytes; ("", 0) when it cannot be looked at."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return "", 0
    return f"{status.st_size}-{status.st_mtime_ns}", status.st_size


def is_overtaken(etag: str, by: str) -> bool:
    """Whether a version of a source has no say beside another one: it is gone, or an older generation of an object.

    Generations grow; other versions have no order.
    """
    if not etag or not by:
        return bool(by)
    return etag.isdecimal() and by.isdecimal() and int(etag) < int(by)


def local_source(
    path: str, row: Mapping[str, Any] | None = None, listed: Mapping[str, Version] | None = None
) -> Source:
    """The source that is the local file `path`, with its side-cars and the columns of its manifest row, if any.

    Args:
      listed: versions of objects; for a row whose subtitles are one.
    """
    uri, problem = os.path.realpath(path), None
    try:
        uri.encode()
    except UnicodeEncodeError:
        # Percent signs keep apart what replacement characters would make one.
        uri = urllib.parse.quote(os.fsencode(uri), safe="/ ")
        problem = "the file's name is not valid UTF-8; rename it"
    stem = os.path.splitext(path)[0]
    beside = [stem + suffix for suffix in SIDE_CAR_SUFFIXES if os.path.isfile(stem + suffix)]
    return _source(uri, version_of(uri), row or {}, beside, listed or {}, problem)


def object_source(uri: str, listed: Mapping[str, Version], row: Mapping[str, Any] | None = None) -> Source:
    """The source that is the object `uri`; of a generation "" if it is not listed.

    Args:
      listed: the object and what stands beside it, by URI; a listing of its folder or more.
      row: the columns of its manifest row, if any.
    """
    version, stem = listed.get(uri, Version("", 0)), stem_of(uri)
    beside = [stem + suffix for suffix in SIDE_CAR_SUFFIXES if stem + suffix in listed]
    return _source(uri, (version.generation, version.size_bytes), row or {}, beside, listed, None)


def stem_of(uri: str) -> str:
    """An object's URI without its suffix: what its side-cars share with it."""
    return posixpath.splitext(uri)[0]


def _source(
    uri: str,
    version: tuple[str, int],
    row: Mapping[str, Any],
    beside: Iterable[str],
    listed: Mapping[str, Version],
    problem: str | None,
) -> Source:
    """Put a source together; `beside` are the side-cars that are there, the better subtitles first."""
    video_id = str(row.get("video_id") or "") or video_id_of(uri)
    if not SAFE_ID.fullmatch(video_id):
        problem = f"the video_id {video_id!r} is not usable: take letters, digits, '_' and '-', at most 128"
        video_id = video_id_of(uri)
    found = list(beside)
    metadata = next((one for one in found if one.endswith(METADATA_SUFFIX)), None)
    subtitles = row.get("subtitles") or next((one for one in found if one != metadata), None)
    texts = [row.get("title"), row.get("description"), row.get("language"), subtitles, metadata]
    versions = [_side_car_version(one, listed) for one in (subtitles, metadata) if one]
    return Source(
        video_id=video_id,
        uri=uri,
        etag=version[0],
        size_bytes=version[1],
        title=row.get("title"),
        description=row.get("description"),
        language=row.get("language"),
        subtitles=_canonical(subtitles),
        metadata=_canonical(metadata),
        text_version=_digest([*texts, *versions]) if any(texts) else "",
        problem=problem,
        subtitles_version=_generation(subtitles, listed),
        metadata_version=_generation(metadata, listed),
    )


def _side_car_version(one: str, listed: Mapping[str, Version]) -> str:
    return _generation(one, listed) if is_object(one) else version_of(one)[0]


def _generation(one: str | None, listed: Mapping[str, Version]) -> str:
    return listed[one].generation if one is not None and one in listed else ""


def _canonical(one: str | None) -> str | None:
    return os.path.realpath(one) if one and not is_object(one) else one or None


def _digest(parts: Iterable[Any]) -> str:
    return hashlib.sha256(json.dumps(list(parts), default=str).encode()).hexdigest()[:16]
