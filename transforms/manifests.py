"""Manifests: lists of videos as `.jsonl`, `.csv` or `.parquet`, on this machine or in a bucket.

    for row in read_manifest("videos.jsonl"):
        row.columns["uri"], row.problem            # an absolute path or gs:// URI; None, or why it can't be used

A manifest is somebody else's text: relative names are taken from its folder and may not leave it, and one in a bucket
may not name files of the machine that reads it.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import os
import posixpath
import re
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from transforms.objects import download, is_object, parts_of, stat
from transforms.sources import InputError

MANIFEST_SUFFIXES = frozenset([".jsonl", ".csv", ".parquet"])
MANIFEST_COLUMNS = frozenset(["uri", "video_id", "title", "description", "subtitles", "language"])
#: Nobody writes a longer description; what is larger is broken or hostile.
MAX_METADATA_CHARACTERS = 4_000_000
#: Of a Parquet manifest, whose size on the disk bounds nothing: ten million rows, as long as such rows are.
MAX_CHARACTERS = 1 << 30
_ROWS_AT_ONCE = 1000
#: Of an object, in UTF-8; cloud.google.com/storage/docs/objects#naming.
_MAX_NAME_BYTES = 1024
_SHOWN = 200


@dataclasses.dataclass(frozen=True, slots=True)
class ManifestRow:
    """One row of a manifest: the columns that are filled, `uri` and `subtitles` located.

    `problem` says why the row cannot be used. `readable` is False where not even its URI can be looked at.
    """

    columns: Mapping[str, str]
    problem: str | None = None
    readable: bool = True


def is_manifest(name: str) -> bool:
    """Whether a file is a manifest by its name."""
    return posixpath.splitext(name)[1].lower() in MANIFEST_SUFFIXES


def read_manifest(manifest: str) -> Iterator[ManifestRow]:
    """Read the rows of a manifest, a local path or gs:// URI, as they come.

    Raises:
      InputError: it cannot be read, or a row has no uri.
    """
    with _here(manifest) as path:
        for number, row in enumerate(_rows(path, manifest), start=1):
            if not str(row.get("uri") or ""):
                raise InputError(f"{manifest}, row {number}: no uri; every row needs one")
            filled = [name for name in MANIFEST_COLUMNS & row.keys() if row[name] not in (None, "")]
            yield _located(manifest, number, {name: writable(str(row[name])) for name in filled})


def _located(manifest: str, number: int, row: dict[str, str]) -> ManifestRow:
    if "\0" in row["uri"] + row.get("subtitles", ""):
        told = f"{manifest}, row {number}: the uri or the subtitles hold a NUL character"
        uri = row["uri"].replace("\0", "\N{REPLACEMENT CHARACTER}")
        return ManifestRow({"uri": uri}, told, readable=False)
    folder = posixpath.dirname(manifest) if is_object(manifest) else os.path.dirname(os.path.realpath(manifest))
    problem = None
    for name in ("uri", "subtitles"):
        if name not in row:
            continue
        given = row[name]
        why_not = _unreachable(given, from_bucket=is_object(manifest)) or _nameless(folder, given)
        if why_not and name == "uri":
            return ManifestRow({"uri": given}, why_not, readable=False)
        if why_not:
            problem = why_not
            del row[name]
            continue
        row[name] = locate(folder, given)
        if not os.path.isabs(given) and "://" not in given and not _inside(folder, row[name]):
            remedy = "give its gs:// URI instead" if is_object(folder) else "give an absolute path instead"
            problem = f"{name} {given!r} leaves the manifest's folder; {remedy}"
    return ManifestRow(row, problem)


def _unreachable(uri: str, from_bucket: bool) -> str | None:
    """Why a URI of a manifest cannot be looked at, or None."""
    if is_object(uri):
        try:
            _, name = parts_of(uri)
        except ValueError as error:
            return str(error)
        return None if name.rstrip("/") else f"{uri} names no object; write gs://BUCKET/NAME"
    if "://" in uri and not uri.startswith("file://"):
        return f"cannot read {uri}: inputs are local files and objects in gs://"
    if from_bucket and (os.path.isabs(uri) or uri.startswith("file://")):
        return f"{uri} is a file of one machine; a manifest in a bucket names objects: gs://..., or relative to itself"
    return None


def _nameless(folder: str, given: str) -> str | None:
    """Why there can be no file or object of this name, wherever; None where there can.

    Cloud Storage would be asked for the bucket in place of `..`, and for what is too long give no answer that tells so.
    """
    try:
        uri = locate(folder, given)
    except ValueError as error:
        return f"cannot read {given[:_SHOWN]}: {error}"
    name = parts_of(uri)[1] if is_object(uri) else ""
    if name in (".", "..") or re.search(r"[\r\n]", name) or len(name.encode()) > _MAX_NAME_BYTES:
        return f"{uri[:_SHOWN]} is the name of no object; write gs://BUCKET/NAME"
    return None


def locate(folder: str, uri: str) -> str:
    """The absolute path or gs:// URI that a manifest in `folder` means by `uri`."""
    if is_object(uri):
        return uri
    if is_object(folder):
        bucket, within = parts_of(folder)
        return f"gs://{bucket}/" + posixpath.normpath(posixpath.join("/", within, uri)).lstrip("/")
    if uri.startswith("file://"):
        uri = urllib.parse.unquote(urllib.parse.urlsplit(uri).path)
    return os.path.normpath(os.path.join(folder, uri))


def _inside(folder: str, path: str) -> bool:
    if is_object(folder):
        return path.startswith(folder + "/")
    return os.path.commonpath([folder, os.path.realpath(path)]) == folder


@contextlib.contextmanager
def _here(manifest: str) -> Iterator[str]:
    """The path of a manifest on this machine; one in a bucket is copied for as long as it is read."""
    if not is_object(manifest):
        yield manifest
        return
    version = stat(manifest)
    if version is None:
        raise InputError(f"there is no {manifest}")
    with tempfile.TemporaryDirectory(prefix="reelscribe-manifest-") as folder:
        path = os.path.join(folder, "manifest" + posixpath.splitext(manifest)[1].lower())
        try:
            download(manifest, version, path)
        except (FileNotFoundError, ValueError) as error:
            raise InputError(f"cannot read the manifest {manifest}: {error}; run the command again") from error
        yield path


def _rows(path: str, manifest: str) -> Iterator[dict[str, Any]]:
    try:
        kind = os.path.splitext(path)[1].lower()
        if kind == ".parquet":
            yield from _parquet_rows(path, manifest)
        elif kind == ".csv":
            csv.field_size_limit(MAX_METADATA_CHARACTERS)
            with open(path, newline="", encoding="utf-8-sig") as lines:
                reader = csv.DictReader(_bounded(lines))
                if "uri" not in (reader.fieldnames or []):
                    raise InputError(f"{manifest} has no column 'uri'; its first line must name the columns")
                yield from reader
        else:
            with open(path, encoding="utf-8-sig") as lines:
                for number, line in enumerate(_bounded(lines), start=1):
                    if line.strip():
                        row = json.loads(line)
                        if not isinstance(row, dict):
                            raise InputError(f"{manifest}, line {number}: not an object with a uri")
                        yield row
    except (OSError, ValueError, LookupError, RecursionError, csv.Error, pa.ArrowException) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot read the manifest {manifest}: {error}") from error


def _parquet_rows(path: str, manifest: str) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, of which a few kilobytes may stand for as many and as long ones as they like."""
    with pq.ParquetFile(path) as table:
        there, told = table.schema_arrow, table.metadata
    if "uri" not in there.names:
        raise InputError(f"{manifest} has no column 'uri'; it has {', '.join(there.names)}")
    wanted = [field for field in there if field.name in MANIFEST_COLUMNS]
    for field in wanted:
        if pa.types.is_nested(field.type) or pa.types.is_fixed_size_binary(field.type):
            raise InputError(f"{manifest}: its column {field.name!r} holds {field.type}, not texts")
    names = sorted({field.name for field in wanted})
    # A text that many rows share is one text until a row is made of it.
    with pq.ParquetFile(path, metadata=told, read_dictionary=names) as table:
        left = MAX_CHARACTERS
        for batch in table.iter_batches(_ROWS_AT_ONCE, columns=names):
            for at in range(batch.num_rows):
                row = {name: column[at].as_py() for name, column in zip(batch.schema.names, batch.columns, strict=True)}
                sizes = [len(one) for one in row.values() if isinstance(one, str | bytes)]
                if max(sizes, default=0) > MAX_METADATA_CHARACTERS:
                    raise ValueError(f"a field is longer than {MAX_METADATA_CHARACTERS:,} characters")
                if (left := left - sum(sizes)) < 0:
                    raise ValueError(f"it stands for more than {MAX_CHARACTERS:,} characters; part it")
                yield row


def _bounded(lines: TextIO) -> Iterator[str]:
    """The lines of a file, none of which is longer than somebody would write."""
    while line := lines.readline(4 * MAX_METADATA_CHARACTERS):
        if len(line) == 4 * MAX_METADATA_CHARACTERS and not line.endswith("\n"):
            raise ValueError(f"a line is longer than {4 * MAX_METADATA_CHARACTERS:,} characters")
        yield line


def writable(text: str) -> str:
    """Text that can be written as UTF-8: JSON may carry halves of surrogate pairs, which no table takes."""
    return text.encode("utf-8", "replace").decode()
