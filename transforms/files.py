"""The files of a dataset, in a directory or in Cloud Storage: one set of verbs for paths and for gs://BUCKET/NAME.

    write("gs://sets/talks/runs/r.json", b"{}"); list_files("gs://sets/talks/runs")     # {"gs://.../runs/r.json": 2}

A file that has its name is whole: here it is written aside, flushed to the disk and renamed; an object is whole by
nature. What Cloud Storage cannot do just now raises a `StorageError`, what the file system cannot do an `OSError`.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import posixpath
import re
from collections.abc import Iterator
from typing import BinaryIO

from transforms import objects
from transforms.objects import is_object

Directory = str | os.PathLike[str]

#: Of a dataset's folder in a bucket: letters that neither Delta tables nor addresses take for something else.
_PLAIN = re.compile(r"gs://[a-z0-9._-]+(/[A-Za-z0-9._=+~-]+)*")


def check_folder(folder: Directory) -> str:
    """A directory's path as it is, or that of a folder in a bucket without a slash at its end.

    Raises:
      ValueError: an address of another kind, or one with characters that break Delta tables.
    """
    written = os.fspath(folder)
    if "://" not in written:
        return written
    plain = written.rstrip("/")
    if not is_object(written):
        raise ValueError(f"{written} is neither a directory nor gs://BUCKET/FOLDER")
    if not _PLAIN.fullmatch(plain) or {".", ".."} & set(plain.split("/")):
        raise ValueError(f"a dataset can't stand in {written!r}; write gs://BUCKET/FOLDER in letters, digits, -_.=+~")
    return plain


def join(folder: Directory, *names: str) -> str:
    """A path below a folder."""
    joined = posixpath.join if is_object(os.fspath(folder)) else os.path.join
    return joined(os.fspath(folder), *names)


def name_of(path: str) -> str:
    """The last part of a path."""
    return path.rpartition("/" if is_object(path) else os.sep)[2]


def title_of(folder: Directory) -> str:
    """What a dataset is called: the last part of its folder's path."""
    where = os.fspath(folder)
    return name_of(where.rstrip("/")) if is_object(where) else pathlib.Path(where).resolve().name


def list_files(folder: Directory, *, below: bool = False) -> dict[str, int]:
    """The files in a folder by path, sorted, with their sizes in bytes; nothing where there is no folder.

    Args:
      below: also those in folders below it.
    """
    where = os.fspath(folder)
    if is_object(where):
        found = objects.list_objects(where.rstrip("/") + "/", children_only=not below)
        return {uri: version.size_bytes for uri, version in sorted(found.items())}
    paths = pathlib.Path(where).rglob("*") if below else pathlib.Path(where).glob("*")
    sizes = {}
    for path in sorted(paths):
        with contextlib.suppress(FileNotFoundError):  # Another writer's, which it has renamed meanwhile.
            if path.is_file():
                sizes[str(path)] = path.stat().st_size
    return sizes


def exists(path: str) -> bool:
    """Whether there is such a file."""
    return objects.stat(path) is not None if is_object(path) else os.path.isfile(path)


def remove(path: str) -> None:
    """Delete a file; all is well if it is gone."""
    if is_object(path):
        objects.delete(path)
    else:
        pathlib.Path(path).unlink(missing_ok=True)


@contextlib.contextmanager
def reading(path: str) -> Iterator[BinaryIO]:
    """A file to read and to seek in. Raises FileNotFoundError."""
    with objects.reading(path) if is_object(path) else open(path, "rb") as file:
        yield file


@contextlib.contextmanager
def writing(path: str) -> Iterator[BinaryIO]:
    """A file to write, which gets its name when the block ends well and leaves nothing behind when it does not."""
    if is_object(path):
        with objects.writing(path) as file:
            yield file
        return
    place = pathlib.Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    aside = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        with open(aside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, place)
    finally:
        aside.unlink(missing_ok=True)


def read(path: str) -> bytes:
    """All of a file. Raises FileNotFoundError."""
    with reading(path) as file:
        return file.read()


def write(path: str, content: bytes) -> None:
    """Write a file, whole or not at all."""
    with writing(path) as file:
        file.write(content)
