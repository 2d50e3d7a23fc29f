"""Expand what a user names into sources: files, folders, patterns and manifests, here or in Cloud Storage.

    for source in expand("gs://uploads/talks/*.mp4"): ...           # a Source, or None for a file that is no media

Objects are listed, not asked for one by one: a listing names what stands beside a video, too, with its version.
"""

from __future__ import annotations

import collections
import dataclasses
import glob
import os
import posixpath
from collections.abc import Collection, Iterator, Mapping

from transforms.allowed import why_not
from transforms.manifests import ManifestRow, is_manifest, read_manifest
from transforms.objects import (
    NoCredentials,
    Refused,
    Version,
    is_object,
    list_objects,
    literal_prefix,
    parts_of,
    pattern_of,
    stat,
)
from transforms.sources import (
    SIDE_CAR_SUFFIXES,
    InputError,
    NothingFound,
    Source,
    is_media,
    local_source,
    object_source,
    stem_of,
    video_id_of,
)

#: From so many objects of one folder on, a listing of the folder is cheaper than a request each.
_FEW = 16


def expand(one: str, buckets: Collection[str]) -> Iterator[Source | None]:
    """The sources of one input; None for each file that is no media by its name.

    Args:
      one: an input that the user named; what it names is looked into, wherever that is.
      buckets: those that its manifests may name objects of (see `transforms.allowed`). Another one is not so much as
        listed: the row gives a source with the problem told.

    Raises:
      InputError: it names nothing, or may not be read, or a manifest is broken. StorageError: see `transforms.objects`.
    """
    if is_object(one):
        try:
            yield from _expand_objects(one, buckets)
        except (Refused, NoCredentials, FileNotFoundError) as error:
            raise InputError(str(error)) from error
    elif "://" in one:
        told = "inputs are files, directories, patterns and manifests, here or in gs://"
        raise InputError(f"cannot read {one}: {told}")
    else:
        yield from _expand_local(one, buckets)


def _expand_local(one: str, buckets: Collection[str]) -> Iterator[Source | None]:
    if os.path.isdir(one):
        for folder, subfolders, names in os.walk(one, followlinks=False):
            subfolders.sort()
            for name in sorted(names):
                yield local_source(os.path.join(folder, name)) if is_media(name) else None
    elif is_manifest(one) and os.path.isfile(one):
        yield from _of_manifest(one, buckets)
    elif os.path.lexists(one):
        yield local_source(one)
    elif glob.has_magic(one):
        found = sorted(glob.glob(one, recursive=True))
        if not found:
            raise NothingFound(f"no file matches {one!r}")
        # With `**` the folders' own files match too; without, a folder that matches is searched like a named one.
        for folder in [path for path in found if os.path.isdir(path) and "**" not in one]:
            yield from _expand_local(folder, buckets)
        for path in [path for path in found if not os.path.isdir(path)]:
            if is_manifest(path):
                yield from _of_manifest(path, buckets)
            else:
                yield None if _is_side_car(path) else local_source(path)
    else:
        raise NothingFound(f"there is no file or directory {one!r}")


def _expand_objects(one: str, buckets: Collection[str]) -> Iterator[Source | None]:
    try:
        _, name = parts_of(one)
    except ValueError as error:
        raise InputError(str(error)) from error
    # Before the pattern: names may hold brackets and question marks.
    version = stat(one) if name and not name.endswith("/") else None
    if version is not None:
        if is_manifest(one):
            yield from _of_manifest(one, buckets)
        else:
            yield object_source(one, beside(one) | {one: version})
    elif glob.has_magic(name):
        yield from _matching(one, buckets)
    else:
        prefix = one if one.endswith("/") else f"{one}/"
        listed = list_objects(prefix)
        if not listed:
            raise NothingFound(f"there is no object {one}" + ("" if prefix == one else f", and none below {prefix}"))
        yield from _searched(listed, listed)


def _matching(pattern: str, buckets: Collection[str]) -> Iterator[Source | None]:
    """The objects that a pattern matches; without `**` also the media in folders that it matches."""
    listed = list_objects(literal_prefix(pattern))
    wanted = pattern_of(pattern.rstrip("/"))
    within = None if "**" in pattern else pattern_of(f"{pattern.rstrip('/')}/**")
    matches = [uri for uri in listed if wanted.fullmatch(uri) and not pattern.endswith("/")]
    inside = {uri: listed[uri] for uri in listed if within and within.fullmatch(uri)}
    if not matches and not inside:
        raise NothingFound(f"no object matches {pattern}")
    yield from _searched(inside, listed)
    for uri in matches:
        # As the shell has it: what begins with a dot is hidden from patterns that don't.
        if posixpath.basename(uri).startswith(".") and not posixpath.basename(pattern).startswith("."):
            continue
        if is_manifest(uri):
            yield from _of_manifest(uri, buckets)
        else:
            yield None if _is_side_car(uri) else object_source(uri, listed)


def _searched(found: Mapping[str, Version], listed: Mapping[str, Version]) -> Iterator[Source | None]:
    for uri in sorted(found):
        yield object_source(uri, listed) if is_media(uri) else None


def _is_side_car(name: str) -> bool:
    return posixpath.splitext(name)[1].lower() in SIDE_CAR_SUFFIXES


def beside(uri: str) -> dict[str, Version]:
    """An object, if it is there, and what shares its stem, in one request. Raises as `list_objects`."""
    found = list_objects(f"{stem_of(uri)}.")
    if stem_of(uri) == uri and (version := stat(uri)) is not None:
        found[uri] = version
    return found


def _of_manifest(manifest: str, buckets: Collection[str]) -> Iterator[Source]:
    """The sources that a manifest lists."""
    near = _Neighbourhood()
    for row in read_manifest(manifest):
        row = _as_allowed(row, buckets)
        if not row.readable:
            yield Source(video_id_of(row.columns["uri"]), row.columns["uri"], problem=row.problem)
            continue
        try:
            source = _of_row(row, near)
        except Refused as error:
            yield Source(video_id_of(row.columns["uri"]), row.columns["uri"], problem=str(error))
            continue
        yield dataclasses.replace(source, problem=row.problem) if row.problem else source


def _as_allowed(row: ManifestRow, buckets: Collection[str]) -> ManifestRow:
    """The row, with the problem that it names a bucket which may not be read."""
    told = [why_not(row.columns[name], buckets) for name in ("uri", "subtitles") if name in row.columns]
    problem = row.problem or next(filter(None, told), None)
    return dataclasses.replace(row, problem=problem)


def _of_row(row: ManifestRow, near: _Neighbourhood) -> Source:
    named = [row.columns[name] for name in ("uri", "subtitles") if is_object(row.columns.get(name, ""))]
    # What leaves the manifest's folder, or is in a bucket that is not allowed, is not so much as looked at.
    listed = collections.ChainMap(*([] if row.problem else [near.of(one) for one in named]))
    if is_object(row.columns["uri"]):
        return object_source(row.columns["uri"], listed, row.columns)
    return local_source(row.columns["uri"], row.columns, listed)


class _Neighbourhood:
    """What stands beside objects: one request an object, or one listing a folder of which many are asked for."""

    def __init__(self) -> None:
        self._asked: collections.Counter[str] = collections.Counter()
        self._listed: dict[str, dict[str, Version]] = {}

    def of(self, uri: str) -> dict[str, Version]:
        """The versions of an object and of its neighbours, as far as they are there."""
        folder = posixpath.dirname(uri) + "/"
        self._asked[folder] += 1
        try:
            if self._asked[folder] <= _FEW:
                return beside(uri)
            if folder not in self._listed:
                self._listed[folder] = list_objects(folder, children_only=True)
        except FileNotFoundError:  # there is no such bucket: the row's affair, told when it is read
            return {}
        return self._listed[folder]
