"""Find the videos that a user names, with the text that stands beside them.

    sources = find_sources(["uploads/", "extra/*.mp4", "list.jsonl"])      # at launch: names and versions only
    sources | ReadVideos()                                                 # -> Video, or FailedVideo

Finding is the only place where bounded and unbounded input differ: a stream makes the same `Source` records from its
notifications. Reading the text beside a video is work of the pipeline, and its errors are the video's.
"""

from __future__ import annotations

import csv
import dataclasses
import glob
import hashlib
import json
import logging
import os
import pathlib
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
import pyarrow.parquet as pq
from apache_beam import pvalue
from apache_beam.metrics import Metrics

from transforms.records import Cue, DeadLetter, FailedVideo, Failure, Video
from transforms.schemas import SAFE_ID
from transforms.subtitles import parse_subtitles

#: What a directory is searched for. A file that is named, or matched by a pattern, is taken whatever its name.
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
#: Nobody writes a longer description; what is larger is broken or hostile.
MAX_METADATA_CHARACTERS = 4_000_000
MANIFEST_SUFFIXES = frozenset([".jsonl", ".csv", ".parquet"])
SUBTITLE_SUFFIXES = (".vtt", ".srt")
MANIFEST_COLUMNS = frozenset(["uri", "video_id", "title", "description", "subtitles", "language"])
_log = logging.getLogger(__name__)


class InputError(ValueError):
    """An input that names nothing usable: the user's to mend before the job starts."""


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """A video to be read, as it was found: where, in which version, and with what text beside it.

    `etag` and `text_version` change when the file or the text does. `problem` says why it cannot be used at all.
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


@dataclasses.dataclass(frozen=True)
class Found:
    """The sources of a run, each once, in order; and how many files were no media by their name."""

    sources: tuple[Source, ...]
    skipped: int


def video_id_of(uri: str) -> str:
    """Derive a video's id from its canonical URI alone: readable, and its own even where base names are equal."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", pathlib.PurePosixPath(uri).stem).strip("-")[:40] or "video"
    return f"{stem}-{hashlib.sha256(uri.encode('utf-8', 'surrogateescape')).hexdigest()[:12]}"


def local_source(path: str, row: Mapping[str, Any] | None = None) -> Source:
    """The source that is the local file `path`, with its side-cars and the columns of its manifest row, if any."""
    row = row or {}
    uri, problem = os.path.realpath(path), None
    try:
        uri.encode()
    except UnicodeEncodeError:
        # Percent signs keep apart what replacement characters would make one.
        uri = urllib.parse.quote(os.fsencode(uri), safe="/ ")
        problem = "the file's name is not valid UTF-8; rename it"
    video_id = str(row.get("video_id") or "") or video_id_of(uri)
    if not SAFE_ID.fullmatch(video_id):
        problem = f"the video_id {video_id!r} is not usable: take letters, digits, '_' and '-', at most 128"
        video_id = video_id_of(uri)
    etag, size = version_of(uri)
    stem = os.path.splitext(path)[0]
    subtitles = row.get("subtitles") or next(
        (stem + suffix for suffix in SUBTITLE_SUFFIXES if os.path.isfile(stem + suffix)), None
    )
    metadata = stem + ".json" if os.path.isfile(stem + ".json") else None
    texts = [row.get("title"), row.get("description"), row.get("language"), subtitles, metadata]
    versions = [version_of(side_car)[0] for side_car in (subtitles, metadata) if side_car]
    return Source(
        video_id=video_id,
        uri=uri,
        etag=etag,
        size_bytes=size,
        title=row.get("title"),
        description=row.get("description"),
        language=row.get("language"),
        subtitles=os.path.realpath(subtitles) if subtitles else None,
        metadata=os.path.realpath(metadata) if metadata else None,
        text_version=_digest([*texts, *versions]) if any(texts) else "",
        problem=problem,
    )


def version_of(path: str) -> tuple[str, int]:
    """A local file's version and its size in bytes; ("", 0) when it cannot be looked at."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return "", 0
    return f"{status.st_size}-{status.st_mtime_ns}", status.st_size


def find_sources(inputs: Iterable[str], limit: int | None = None) -> Found:
    """Expand files, directories, patterns and manifests into sources.

    Args:
      inputs: files (always taken), directories (searched for media, the rest counted as skipped), patterns with
        `*`, `?` or `[`, and manifests (`.jsonl`, `.csv`, `.parquet` with a column `uri`).
      limit: stop after so many.

    Raises:
      InputError: an input names nothing, or a manifest cannot be read.
    """
    sources: dict[str, Source] = {}
    by_uri: set[str] = set()
    skipped = 0
    for one in inputs:
        for found in _expand(one):
            if found is None:
                skipped += 1
                continue
            if found.uri in by_uri and (found.video_id in sources or found.problem is None):
                if found.video_id not in sources:
                    _log.warning("%s is listed again as %s; the first listing stands", found.uri, found.video_id)
                continue
            if limit is not None and len(sources) >= limit:
                return Found(tuple(sources.values()), skipped)
            by_uri.add(found.uri)
            if found.video_id in sources:
                taken = sources[found.video_id].uri
                problem = f"the video_id {found.video_id!r} is already taken by {taken}; give each video its own"
                found = dataclasses.replace(found, video_id=video_id_of(found.uri), problem=problem)
            sources[found.video_id] = found
    return Found(tuple(sources.values()), skipped)


def _expand(one: str) -> Iterator[Source | None]:
    """The sources of one input; None for each file that is no media by its name."""
    if "://" in one:
        raise InputError(f"cannot read {one}: inputs are local files, directories, patterns and manifests")
    if os.path.isdir(one):
        for folder, subfolders, names in os.walk(one, followlinks=False):
            subfolders.sort()
            for name in sorted(names):
                is_media = os.path.splitext(name)[1].lower() in MEDIA_SUFFIXES and not name.startswith(".")
                yield local_source(os.path.join(folder, name)) if is_media else None
    elif os.path.splitext(one)[1].lower() in MANIFEST_SUFFIXES and os.path.isfile(one):
        yield from _of_manifest(one)
    elif os.path.lexists(one):
        yield local_source(one)
    elif glob.has_magic(one):
        found = sorted(glob.glob(one, recursive=True))
        # With `**` the folders' own files match too; without, a folder that matches is searched like a named one.
        matches = [path for path in found if not os.path.isdir(path)]
        for folder in [path for path in found if os.path.isdir(path) and "**" not in one]:
            yield from _expand(folder)
        if not found:
            raise InputError(f"no file matches {one!r}")
        for path in matches:
            if os.path.splitext(path)[1].lower() in MANIFEST_SUFFIXES:
                yield from _of_manifest(path)
                continue
            side_car = os.path.splitext(path)[1].lower() in (".json", *SUBTITLE_SUFFIXES)
            yield None if side_car else local_source(path)
    else:
        raise InputError(f"there is no file or directory {one!r}")


def _of_manifest(path: str) -> Iterator[Source]:
    """The sources that a manifest lists; relative URIs are taken from the manifest's folder and may not leave it."""
    folder = os.path.dirname(os.path.realpath(path))
    for number, row in enumerate(_manifest_rows(path), start=1):
        uri = str(row.get("uri") or "")
        if not uri:
            raise InputError(f"{path}, row {number}: no uri; every row needs one")
        row = {name: _writable(str(row[name])) for name in MANIFEST_COLUMNS & row.keys() if row[name] not in (None, "")}
        if "\0" in row["uri"] + row.get("subtitles", ""):
            unusable = f"{path}, row {number}: the uri or the subtitles hold a NUL character"
            uri = row["uri"].replace("\0", "\N{REPLACEMENT CHARACTER}")
            yield Source(video_id_of(uri), uri, problem=unusable)
            continue
        if "://" in row["uri"] and not row["uri"].startswith("file://"):
            unusable = f"cannot read {row['uri']}: inputs are local files"
            yield Source(video_id_of(row["uri"]), row["uri"], problem=unusable)
            continue
        located: dict[str, Any] = {name: _locate(folder, row[name]) for name in ("uri", "subtitles") if name in row}
        source = local_source(located["uri"], row | located)
        for name, target in located.items():
            if not os.path.isabs(row[name]) and "://" not in row[name] and not _inside(folder, target):
                source = dataclasses.replace(
                    source, problem=f"{name} {row[name]!r} leaves the manifest's folder; give an absolute path instead"
                )
        yield source


def _locate(folder: str, uri: str) -> str:
    if uri.startswith("file://"):
        uri = urllib.parse.unquote(urllib.parse.urlsplit(uri).path)
    return os.path.normpath(os.path.join(folder, uri))


def _inside(folder: str, path: str) -> bool:
    return os.path.commonpath([folder, os.path.realpath(path)]) == folder


def _manifest_rows(path: str) -> Iterator[dict[str, Any]]:
    try:
        kind = os.path.splitext(path)[1].lower()
        if kind == ".parquet":
            table = pq.read_table(path)
            if "uri" not in table.column_names:
                raise InputError(f"{path} has no column 'uri'; it has {', '.join(table.column_names)}")
            yield from table.select([name for name in table.column_names if name in MANIFEST_COLUMNS]).to_pylist()
        elif kind == ".csv":
            csv.field_size_limit(MAX_METADATA_CHARACTERS)
            with open(path, newline="", encoding="utf-8-sig") as lines:
                reader = csv.DictReader(lines)
                if "uri" not in (reader.fieldnames or []):
                    raise InputError(f"{path} has no column 'uri'; its first line must name the columns")
                yield from reader
        else:
            with open(path, encoding="utf-8-sig") as lines:
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        row = json.loads(line)
                        if not isinstance(row, dict):
                            raise InputError(f"{path}, line {number}: not an object with a uri")
                        yield row
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot read the manifest {path}: {error}") from error


def _writable(text: str) -> str:
    """Text that can be written as UTF-8: JSON may carry halves of surrogate pairs, which no table takes."""
    return text.encode("utf-8", "replace").decode()


def _digest(parts: Iterable[Any]) -> str:
    return hashlib.sha256(json.dumps(list(parts), default=str).encode()).hexdigest()[:16]


def read_video(source: Source) -> Video:
    """Read the text beside a video. Titles of a manifest go before those of a side-car.

    Subtitles that cannot be read cost themselves: the video goes on without, and carries the dead letter.

    Raises:
      InputError: the source has a problem of its own. OSError: it is not there.
    """
    if source.problem:
        raise InputError(source.problem)
    if not os.path.exists(source.uri):
        raise FileNotFoundError(f"{source.uri} is not there (a broken link, or removed since it was listed)")
    if not os.path.isfile(source.uri):
        raise InputError(f"{source.uri} is not a regular file")
    beside = _side_car_metadata(source.metadata) if source.metadata else {}
    cues: tuple[Cue, ...] = ()
    failures: tuple[DeadLetter, ...] = ()
    if source.subtitles:
        try:
            path = pathlib.Path(source.subtitles)
            if path.exists() and not path.is_file():
                raise InputError(f"{path} is not a regular file")
            cues = parse_subtitles(path, path.suffix)
        except (OSError, ValueError) as error:
            failures = (_letter(source, error),)
    return Video(
        video_id=source.video_id,
        uri=source.uri,
        etag=source.etag,
        size_bytes=source.size_bytes,
        title=source.title or beside.get("title"),
        description=source.description or beside.get("description"),
        language=source.language or beside.get("language"),
        cues=cues,
        text_version=source.text_version,
        text_failures=failures,
    )


def _side_car_metadata(path: str) -> dict[str, str]:
    """Title, description and language of a side-car; anything but an object with one of them is ignored."""
    try:
        with open(path, encoding="utf-8-sig") as side_car:
            found = json.loads(side_car.read(MAX_METADATA_CHARACTERS))
    except (OSError, ValueError, RecursionError):
        found = None
    texts = {
        name: _writable(found[name].strip())
        for name in ("title", "description", "language")
        if isinstance(found, dict) and isinstance(found.get(name), str) and found[name].strip()
    }
    if not texts.keys() & {"title", "description"}:
        _log.warning("ignored %s: not a JSON object with a title or a description", path)
        Metrics.counter("reelscribe/read", "side_cars_ignored").inc()
        return {}
    return texts


def unread_video(source: Source) -> Video:
    """The video of a source that could not be read, as far as it is known."""
    return Video(
        video_id=source.video_id,
        uri=source.uri,
        etag=source.etag,
        size_bytes=source.size_bytes,
        title=source.title,
        description=source.description,
        language=source.language,
        text_version=source.text_version,
    )


@dataclasses.dataclass
class ReadVideos(beam.PTransform):
    """Read the text beside each source.

    Source in; `videos` (Video) and `failed` (FailedVideo) out, one of them for each; bounded or unbounded.
    """

    def expand(self, sources: beam.PCollection[Source]) -> pvalue.DoOutputsTuple:
        spread = sources | "Spread" >> beam.Reshuffle()
        return spread | "Read" >> beam.FlatMap(_read).with_outputs("failed", main="videos")


def _read(source: Source) -> Iterator[Any]:
    try:
        yield read_video(source)
    except (OSError, ValueError) as error:
        Metrics.counter("reelscribe/read", "failed").inc()
        yield pvalue.TaggedOutput("failed", FailedVideo(unread_video(source), _letter(source, error)))


def _letter(source: Source, error: Exception) -> DeadLetter:
    return Failure.of(error).letter("read", source.video_id, source.uri)
