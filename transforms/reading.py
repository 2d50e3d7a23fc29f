"""Find the videos that a user names, with the text that stands beside them.

    sources = find_sources(["uploads/", "extra/*.mp4", "list.jsonl"])      # at launch: names and versions only
    sources | ReadVideos()                                                 # -> Video, or FailedVideo

Finding is the only place where bounded and unbounded input differ: a stream makes the same `Source` records from its
notifications. Reading the text beside a video is work of the pipeline, and its errors are the video's.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import pathlib
import posixpath
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.metrics import Metrics

from transforms.allowed import named_by
from transforms.counting import count, timed
from transforms.finding import expand
from transforms.manifests import MAX_METADATA_CHARACTERS, writable
from transforms.objects import ObjectChanged, is_object, read_bytes
from transforms.records import Cue, DeadLetter, FailedVideo, Failure, Video
from transforms.sources import InputError, Source, local_source, object_source, video_id_of
from transforms.subtitles import MAX_BYTES, parse_subtitles

__all__ = [
    "Found",
    "InputError",
    "ReadVideos",
    "Source",
    "add_source",
    "find_sources",
    "local_source",
    "object_source",
    "read_video",
    "unread_video",
    "video_id_of",
]

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Found:
    """The sources of a run, each once, in order; and how many files were no media by their name."""

    sources: tuple[Source, ...]
    skipped: int


def find_sources(inputs: Iterable[str], limit: int | None = None, allowed: Iterable[str] = ()) -> Found:
    """Expand files, directories, patterns and manifests into sources.

    Args:
      inputs: files (always taken), directories (searched for media, the rest counted as skipped), patterns with
        `*`, `?` or `[`, and manifests (`.jsonl`, `.csv`, `.parquet` with a column `uri`); each of them on this machine
        or in Cloud Storage (gs://BUCKET/NAME).
      limit: stop after so many.
      allowed: buckets that manifests may name objects of, beside those that `inputs` name; "*" for any. A row that
        names another one gives a source with the problem told.

    Raises:
      InputError: an input names nothing, or a manifest cannot be read.
      StorageError: Cloud Storage cannot be asked.
    """
    sources: dict[str, Source] = {}
    by_uri: set[str] = set()
    skipped = 0
    inputs = list(inputs)
    buckets = named_by(inputs, allowed)
    for one in inputs:
        for found in expand(one, buckets):
            if found is None:
                skipped += 1
                continue
            if found.uri in by_uri and (found.video_id in sources or found.problem is None):
                if found.video_id not in sources:
                    told, fields = (found.uri, found.video_id), {"stage": "read", "uri": found.uri}
                    _log.warning("%s is listed again as %s; the first listing stands", *told, extra=fields)
                continue
            if limit is not None and len(sources) >= limit:
                return Found(tuple(sources.values()), skipped)
            by_uri.add(found.uri)
            add_source(sources, found)
    return Found(tuple(sources.values()), skipped)


def add_source(sources: dict[str, Source], found: Source) -> None:
    """Add a source under its id; where that is taken, one of the two gives way, with the problem told.

    An id that is derived of a URI is that URI's: whoever chose it, having come first, is the one to give way.
    """
    taken = sources.get(found.video_id)
    if taken is None:
        sources[found.video_id] = found
        return
    if found.video_id == video_id_of(taken.uri) == video_id_of(found.uri):
        # The same video; or somebody has looked for two names of one digest, and gets one of them.
        _log.warning("%s is left out: %s has its id", found.uri, taken.uri, extra={"stage": "read", "uri": found.uri})
        return
    first, second = (found, taken) if found.video_id == video_id_of(found.uri) else (taken, found)
    sources[first.video_id] = first
    problem = f"the video_id {first.video_id!r} is already taken by {first.uri}; give each video its own"
    add_source(sources, dataclasses.replace(second, video_id=video_id_of(second.uri), problem=problem))


def read_video(source: Source) -> Video:
    """Read the text beside a video. Titles of a manifest go before those of a side-car.

    Subtitles that cannot be read cost themselves: the video goes on without, and carries the dead letter.

    Raises:
      InputError: the source has a problem of its own. OSError: it is not there.
    """
    if source.problem:
        raise InputError(source.problem)
    _check_there(source)
    beside: dict[str, str] = {}
    cues: tuple[Cue, ...] = ()
    troubles: list[Exception] = []
    if source.metadata:
        try:
            beside = _side_car_metadata(source.metadata, source.metadata_version)
        except (OSError, ValueError) as error:
            troubles.append(error)
    if source.subtitles:
        try:
            cues = _side_car_cues(source.subtitles, source.subtitles_version)
        except (OSError, ValueError) as error:
            troubles.append(error)
    # One dead letter, as both side-cars are one place where something failed.
    trouble = InputError("; ".join(map(str, troubles))) if len(troubles) > 1 else next(iter(troubles), None)
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
        text_failures=(_letter(source, trouble),) if trouble else (),
        earlier=source.earlier,
    )


def _check_there(source: Source) -> None:
    if source.earlier is not None and source.earlier.clips is not None:
        return  # Its reel is all that the stages to come look at.
    if is_object(source.uri):
        # The listing has seen it; whether it is still the same the download finds out, without a request of its own.
        if not source.etag:
            raise FileNotFoundError(f"{source.uri} is not there (never uploaded, or removed since it was named)")
    elif not os.path.exists(source.uri):
        raise FileNotFoundError(f"{source.uri} is not there (a broken link, or removed since it was listed)")
    elif not os.path.isfile(source.uri):
        raise InputError(f"{source.uri} is not a regular file")


def _side_car_cues(subtitles: str, generation: str) -> tuple[Cue, ...]:
    """The subtitles beside a video. Raises OSError or ValueError where there are none to be read."""
    suffix = posixpath.splitext(subtitles)[1]
    if is_object(subtitles):
        return parse_subtitles(_listed_object(subtitles, generation, MAX_BYTES), suffix)
    path = pathlib.Path(subtitles)
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is not a regular file")
    return parse_subtitles(path, suffix)


def _side_car_metadata(path: str, generation: str) -> dict[str, str]:
    """Title, description and language of a side-car; anything but an object with one of them is ignored.

    Raises:
      FileNotFoundError, ObjectChanged: of one in a bucket; it is not what was listed.
    """
    try:
        if is_object(path):
            found = json.loads(_listed_object(path, generation, MAX_METADATA_CHARACTERS).decode("utf-8-sig"))
        else:
            with open(path, encoding="utf-8-sig") as side_car:
                found = json.loads(side_car.read(MAX_METADATA_CHARACTERS))
    except (OSError, ValueError, RecursionError) as error:
        if is_object(path) and isinstance(error, FileNotFoundError | ObjectChanged):
            raise
        found = None
    texts = {
        name: writable(found[name].strip())
        for name in ("title", "description", "language")
        if isinstance(found, dict) and isinstance(found.get(name), str) and found[name].strip()
    }
    if not texts.keys() & {"title", "description"}:
        _log.warning("ignored %s: not a JSON object with a title or a description", path, extra={"stage": "read"})
        Metrics.counter("reelscribe/read", "side_cars_ignored").inc()
        return {}
    return texts


def _listed_object(uri: str, generation: str, max_bytes: int) -> bytes:
    if not generation:
        raise FileNotFoundError(f"there is no {uri}")
    return read_bytes(uri, generation, max_bytes)


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
        earlier=source.earlier,
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
    count("read", in_=1, bytes=source.size_bytes)
    try:
        with timed("read"):
            video = read_video(source)
    except (OSError, ValueError) as error:
        Metrics.counter("reelscribe/read", "failed").inc()
        count("read", failed=1)
        yield pvalue.TaggedOutput("failed", FailedVideo(unread_video(source), _letter(source, error)))
        return
    count("read", out=1)
    yield video


def _letter(source: Source, error: Exception) -> DeadLetter:
    return Failure.of(error).letter("read", source.video_id, source.uri)
