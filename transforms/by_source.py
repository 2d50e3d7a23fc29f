"""A dataset's clips source by source, in an order that depends on the sources' ids alone, in bounded memory.

    with clips_by_source("out", ["clip_id", "start_s"], salt="7") as found:
        for source in found: print(source.video["video_id"], source.clips.num_rows)

The files of a Delta table hold their rows in the order of the runs that wrote them, and a video's clips may lie in two
of them. Here each source stands at the place that a digest of the salt and its video_id gives it, with its clips in
order of time: the same whatever runs wrote them, and as good as shuffled. What does not fit into memory waits on the
disk (`TMPDIR`), parted by the first bits of that place, and is sorted part by part.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from transforms.files import Directory, reading
from transforms.published import Published, reread

#: Clips in memory at once, some 5 kB each with their embeddings and candidates.
_CLIPS_A_PART = 16_384

#: Rows wait for so much company before they go to the disk.
_WAITING_BYTES = 64 << 20

_PLACE = "place "  # No column is called so.


class SubsetError(ValueError):
    """A file that names no clips."""


def place_of(salt: str, name: str) -> int:
    """Where something stands, from 0 to 2**64 - 1, evenly spread over all names.

    >>> place_of("0", "holiday") == place_of("0", "holiday") != place_of("1", "holiday")
    True
    """
    return int.from_bytes(hashlib.blake2b(f"{salt} {name}".encode(), digest_size=8).digest(), "big")


@dataclasses.dataclass(frozen=True)
class Source:
    """A video with some of its clips, in order of time; `video` has the columns that were asked for."""

    video: Mapping[str, Any]
    clips: pa.Table


class Parts:
    """Rows in parts by the first `bits` bits of their place, waiting in memory or, if there are many, on the disk."""

    def __init__(self, folder: str, bits: int, waiting_bytes: int = _WAITING_BYTES):
        self._folder, self._bits, self._most = folder, bits, waiting_bytes
        self._waiting: dict[int, list[pa.RecordBatch]] = {}
        self._bytes = 0

    def add(self, batch: pa.RecordBatch, salt: str) -> None:
        """Add rows with a column `video_id`."""
        places = _places(batch.column("video_id"), salt)
        batch = batch.append_column(_PLACE, pa.array(places))
        numbers = places >> np.uint64(64 - self._bits) if self._bits else np.zeros(len(places), np.uint64)
        order = np.argsort(numbers, kind="stable")
        ends = np.flatnonzero(np.diff(numbers[order])) + 1
        for rows in np.split(order, ends) if len(order) else ():
            # Taken, not sliced: a slice would keep all of its batch in memory.
            part = batch.take(pa.array(rows))
            self._waiting.setdefault(int(numbers[rows[0]]), []).append(part)
            self._bytes += part.nbytes
        if self._bytes > self._most:
            self._flush()

    def _flush(self) -> None:
        for number, batches in self._waiting.items():
            with open(self._path(number), "ab") as file, pa.ipc.new_stream(file, batches[0].schema) as writer:
                for batch in batches:
                    writer.write_batch(batch)
        self._waiting, self._bytes = {}, 0

    def read(self, number: int, schema: pa.Schema) -> pa.Table:
        """The rows of a part, in the order of their places."""
        schema = schema.append(pa.field(_PLACE, pa.uint64()))
        batches = []
        with contextlib.suppress(FileNotFoundError), open(self._path(number), "rb") as file:
            while file.peek(1):
                batches += list(pa.ipc.open_stream(file))
        batches += self._waiting.get(number, [])
        return pa.Table.from_batches([batch.cast(schema) for batch in batches], schema)

    def _path(self, number: int) -> str:
        return os.path.join(self._folder, f"{number}.arrows")


class Sources:
    """The sources of a dataset with their clips, in order; may be gone through again and again.

    Attributes:
      versions: of the tables that were read.
      absent: clips of the subset that the dataset has no more, once all sources have been gone through.
    """

    def __init__(self, folder: str, published: Published, salt: str):
        clips = sum(pc.sum(batch.column(0)).as_py() or 0 for batch in published.scan("videos", ["n_clips"]))
        self.versions, self.absent = published.versions, 0
        self._bits = min(16, max(0, int(np.ceil(np.log2(max(1, clips) / _CLIPS_A_PART)))))
        self._salt, self._folder = salt, folder
        self._parts: dict[str, Parts] = {}
        self._schemas: dict[str, pa.Schema] = {}

    def add(self, name: str, batch: pa.RecordBatch) -> None:
        """Add rows of `clips`, of `videos`, or of a `subset`."""
        if name not in self._parts:
            folder = os.path.join(self._folder, name)
            os.makedirs(folder)
            self._parts[name] = Parts(folder, self._bits)
            self._schemas[name] = batch.schema
        self._parts[name].add(batch, self._salt)

    def __iter__(self) -> Iterator[Source]:
        self.absent = 0
        for number in range(1 << self._bits if "clips" in self._parts else 0):
            clips = self._parts["clips"].read(number, self._schemas["clips"])
            if "subset" in self._parts:
                wanted = pc.unique(self._parts["subset"].read(number, self._schemas["subset"])["clip_id"])
                clips = clips.filter(pc.is_in(clips["clip_id"], wanted))
                self.absent += len(wanted) - clips.num_rows
            yield from self._sources(number, clips)

    def _sources(self, number: int, clips: pa.Table) -> Iterator[Source]:
        clips = clips.sort_by([(name, "ascending") for name in (_PLACE, "video_id", "start_s", "clip_id")])
        videos = self._parts["videos"].read(number, self._schemas["videos"]).drop_columns([_PLACE])
        rows = {row["video_id"]: row for row in videos.to_pylist()}
        clips = clips.drop_columns([_PLACE])
        ids = clips["video_id"].to_pylist()
        edges = [at for at in range(len(ids)) if at == 0 or ids[at] != ids[at - 1]]
        for start, end in itertools.pairwise([*edges, len(ids)]):
            yield Source(rows[ids[start]], clips.slice(start, end - start))


@contextlib.contextmanager
def clips_by_source(
    dataset_dir: Directory,
    clip_columns: Sequence[str],
    video_columns: Sequence[str] = (),
    *,
    salt: str = "",
    subset: str | None = None,
) -> Iterator[Sources]:
    """Read a dataset as of one moment and yield its sources that have clips.

    Args:
      clip_columns, video_columns: what is wanted of them; ids and the start come in any case.
      salt: another one, another order.
      subset: a Parquet file with the columns `clip_id` and `video_id`; only these clips.

    Raises:
      NoDataset: there is none. TombstoneError: the record of a takedown can't be read.
      SubsetError: the subset is no such file. OSError: the disk is full.
    """
    clip_columns = list(dict.fromkeys([*clip_columns, "clip_id", "video_id", "start_s"]))
    video_columns = list(dict.fromkeys([*video_columns, "video_id"]))
    with tempfile.TemporaryDirectory(prefix="reelscribe-") as folder:

        def read(published: Published) -> Sources:
            found = Sources(tempfile.mkdtemp(dir=folder), published, salt)
            for batch in published.scan("videos", video_columns):
                found.add("videos", batch)
            for batch in published.scan("clips", clip_columns):
                found.add("clips", batch)
            return found

        if subset is not None:
            _check_subset(subset)
        found = reread(dataset_dir, read)
        if subset is not None:
            for batch in _subset(subset):
                found.add("subset", batch)
        yield found


def read_subset(path: str) -> pa.Table:
    """The `clip_id` and `video_id` of a subset, in memory.

    Raises:
      SubsetError: it names no clips.
    """
    _check_subset(path)
    return pa.Table.from_batches(_subset(path))


def _check_subset(path: str) -> None:
    """Before hours of reading: is it there, and does it name clips?"""
    try:
        with reading(path) as file:
            columns = pq.read_schema(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise SubsetError(f"{path} is no Parquet file that can be read: {str(error).splitlines()[0]}") from error
    for name in ("clip_id", "video_id"):
        if name not in columns.names or not _is_text(columns.field(name).type):
            raise SubsetError(f"{path} has no text column {name}; `reelscribe split` writes files that have")


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _subset(path: str) -> Iterator[pa.RecordBatch]:
    schema = pa.schema([("clip_id", pa.string()), ("video_id", pa.string())])
    with reading(path) as file:
        parquet = pq.ParquetFile(file)
        yield pa.RecordBatch.from_pylist([], schema)
        for batch in parquet.iter_batches(65_536, columns=schema.names):
            yield batch.select(schema.names).cast(schema).filter(pc.is_valid(batch.column("video_id")))


def _places(video_ids: pa.Array, salt: str) -> np.ndarray:
    encoded = video_ids.dictionary_encode()
    places = np.array([place_of(salt, one) for one in encoded.dictionary.to_pylist()], np.uint64)
    return places[encoded.indices.to_numpy(zero_copy_only=False)] if len(video_ids) else np.empty(0, np.uint64)
