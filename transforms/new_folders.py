"""A new folder of files, here or in Cloud Storage, that is there as a whole or not at all.

    check_new("shards", "shards.json", dataset_dir="out")
    with new_folder("shards", "shards.json") as folder:
        with folder.writing("clips-000000.tar") as file: ...
        folder.finish({"format": "webdataset"})

Here it is written beside its place and renamed. In a bucket its manifest, which lists the files, comes last.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from transforms.files import exists, join, list_files, read, remove, write
from transforms.files import writing as writing_file
from transforms.objects import is_object
from transforms.tables import FOLDERS


class FolderError(ValueError):
    """A folder that must not be written to; the message says why and what to do."""


class DigestedFile(io.RawIOBase):
    """A file to write whose length and digest are known when it is written."""

    def __init__(self, sink: BinaryIO):
        self._sink, self._digest, self.size_bytes = sink, hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, part: Any) -> int:
        self._sink.write(part)
        self._digest.update(part)
        length = memoryview(part).nbytes
        self.size_bytes += length
        return length

    def tell(self) -> int:
        return self.size_bytes

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


class NewFolder:
    """A folder that is being written.

    Attributes:
      files: what stands in it by now.
    """

    def __init__(self, output: str, manifest: str):
        self._output, self._manifest = output, manifest
        self.files: list[dict[str, Any]] = []

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[tuple[DigestedFile, dict[str, Any]]]:
        """A new file, and its entry in the manifest, to which the writer may add."""
        entry: dict[str, Any] = {"name": name}
        with writing_file(join(self._output, name)) as sink:
            file = DigestedFile(sink)
            yield file, entry
            entry |= {"bytes": file.size_bytes, "sha256": file.sha256}
        self.files.append(entry)

    def finish(self, contents: Mapping[str, Any]) -> None:
        """Write the manifest."""
        text = json.dumps(
            {**contents, "files": sorted(self.files, key=lambda entry: entry["name"])}, indent=1, ensure_ascii=False
        )
        write(join(self._output, self._manifest), f"{text}\n".encode())


def check_new(output: str, manifest: str, dataset_dir: str, *, overwrite: bool = False) -> None:
    """Refuse a folder that holds something, or stands where a dataset's own files do.

    Args:
      manifest: the name of the file that lists a folder's files; by it one is known that may be overwritten.
      overwrite: whether a folder with such a manifest, and nothing that it does not list, may be replaced.

    Raises:
      FolderError: the folder must not be written to.
    """
    place, dataset = _canonical(output), _canonical(dataset_dir)
    if f"{dataset}/".startswith(f"{place}/"):
        raise FolderError(
            f"the dataset {dataset_dir} stands in {output}, which would be replaced; take another --output"
        )
    for name in FOLDERS:
        if f"{place}/".startswith(f"{dataset}/{name}/"):
            raise FolderError(f"{output} stands in {join(dataset, name)}, which is the dataset's own; take another")
    if not is_object(output) and os.path.exists(output) and not os.path.isdir(output):
        raise FolderError(f"{output} is a file; --output is a folder")
    there = {path[len(place) :].lstrip("/") for path in list_files(place, below=True)}
    if not there:
        return
    if manifest not in there:
        raise FolderError(f"{output} holds something else; take another --output")
    if not overwrite:
        raise FolderError(f"{output} is there already; add --overwrite to replace it")
    if strangers := sorted(there - {manifest} - set(_listed(join(place, manifest)))):
        raise FolderError(f"{output} also holds {strangers[0]}, which would be lost; take another --output")


@contextlib.contextmanager
def new_folder(output: str, manifest: str) -> Iterator[NewFolder]:
    """Write a folder, in place of what stands there (see `check_new`); what fails leaves nothing of it behind.

    Raises:
      OSError: the disk is full. StorageError: Cloud Storage cannot be asked.
    """
    with _in_bucket(output, manifest) if is_object(output) else _here(output, manifest) as folder:
        yield folder


@contextlib.contextmanager
def _here(output: str, manifest: str) -> Iterator[NewFolder]:
    place = pathlib.Path(_canonical(output))
    place.parent.mkdir(parents=True, exist_ok=True)
    aside = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    before = place.with_name(f".{place.name}.{os.getpid()}.old")
    try:
        aside.mkdir()
        yield NewFolder(str(aside), manifest)
        if place.exists():
            os.rename(place, before)
        os.rename(aside, place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(before, ignore_errors=True)


@contextlib.contextmanager
def _in_bucket(output: str, manifest: str) -> Iterator[NewFolder]:
    folder, listing = NewFolder(output, manifest), join(output, manifest)
    before = _listed(listing) if exists(listing) else []
    remove(listing)  # From here on nobody takes the old files for whole.
    try:
        yield folder
    except BaseException:
        for entry in folder.files:
            remove(join(output, entry["name"]))
        raise
    for name in set(before) - {entry["name"] for entry in folder.files}:
        remove(join(output, name))


def _listed(manifest: str) -> list[str]:
    try:
        return [str(entry["name"]) for entry in json.loads(read(manifest))["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise FolderError(f"{manifest} is not a list of files that we wrote; take another --output") from error


def _canonical(folder: str) -> str:
    return folder.rstrip("/") if is_object(folder) else os.path.realpath(folder)
