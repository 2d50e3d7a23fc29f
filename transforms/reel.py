"""The reel: the few low-resolution frames of a video that every stage after the splitter looks at.

    with ReelWriter(path, etag=..., settings=...) as reel:
        reel.add(ReelFrame(time_s=0.0, frame=0, shot=0, jpeg=...))
        reel.finish(summary)
    frames = Reel.open(path).frames_at([0.5, 1.0])

An Arrow IPC file with at most 16 frames a record batch, written aside and renamed, so that a reel that has its name is
whole. Each row is a JPEG frame with its presentation time, its decode index and its shot; `stat_times` and
`stat_scores` carry the detector's value of every source frame from this one up to the next. The last batch has no rows:
its metadata holds the splitter's summary as JSON.

A reel in Cloud Storage is read from a copy on this machine. Its path is gs://BUCKET/NAME.arrow, or that with a "#" and
its generation, by which it is found without asking.
"""

from __future__ import annotations

import bisect
import dataclasses
import io
import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
import pyarrow as pa
from PIL import Image

from transforms.kept_copies import kept_copy
from transforms.objects import ObjectChanged, Refused, Version, is_object, stat

FRAMES_PER_BATCH = 16

SCHEMA = pa.schema(
    [
        pa.field("time_s", pa.float64(), nullable=False),
        pa.field("frame", pa.int64(), nullable=False),
        pa.field("shot", pa.int32(), nullable=False),
        pa.field("jpeg", pa.binary(), nullable=False),
        pa.field("stat_times", pa.list_(pa.float64()), nullable=False),
        pa.field("stat_scores", pa.list_(pa.float32()), nullable=False),
    ]
)


class ReelError(ValueError):
    """A reel that is missing, unreadable, or lacks a frame that was asked for."""


@dataclasses.dataclass(frozen=True, slots=True)
class ReelFrame:
    """One frame of a reel. `stat_times`/`stat_scores`: one entry per source frame, this one first."""

    time_s: float
    frame: int
    shot: int
    jpeg: bytes
    stat_times: tuple[float, ...] = ()
    stat_scores: tuple[float, ...] = ()


class ReelWriter:
    """Writes a reel frame by frame, in time order, in bounded memory; renames it into place on `finish`.

    Args:
      path: where the reel shall stand. Until `finish`, a file beside it holds what was written.
      etag: the version of the source. settings: a fingerprint of all that shapes a reel. Both are compared before a
        reel is used again.
    """

    def __init__(self, path: str, *, etag: str, settings: str):
        self._path = pathlib.Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._aside = self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")
        self._sink = pa.OSFile(str(self._aside), "wb")
        schema = SCHEMA.with_metadata({"etag": etag, "settings": settings})
        self._writer = pa.ipc.new_file(self._sink, schema)
        self._rows: list[ReelFrame] = []

    def add(self, frame: ReelFrame) -> None:
        self._rows.append(frame)
        if len(self._rows) == FRAMES_PER_BATCH:
            self._flush()

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the summary, flush to the disk, and give the reel its name."""
        self._flush()
        empty = pa.RecordBatch.from_pylist([], schema=SCHEMA)
        self._writer.write_batch(empty, custom_metadata={"summary": json.dumps(summary)})
        self._writer.close()
        self._sink.close()
        with open(self._aside, "rb") as written:
            os.fsync(written.fileno())
        os.replace(self._aside, self._path)

    def _flush(self) -> None:
        if self._rows:
            columns = [pa.array([getattr(row, field.name) for row in self._rows], field.type) for field in SCHEMA]
            self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))
            self._rows = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._sink.closed:
            self._writer.close()
            self._sink.close()
        self._aside.unlink(missing_ok=True)


def pinned(uri: str, generation: str) -> str:
    """The path of a reel in Cloud Storage in one version."""
    return f"{uri}#{generation}"


def local_reel(path: str) -> tuple[str, str]:
    """Where a reel can be read on this machine, and its path, of an object with its generation.

    Raises:
      ReelError: there is no such object, or none of this generation. StorageError: Cloud Storage cannot be asked.
    """
    if not is_object(path):
        return path, path
    uri, _, generation = path.partition("#")
    try:
        version = Version(generation, 0) if generation else stat(uri)
        if version is None:
            raise FileNotFoundError(f"there is no {uri}")
        return kept_copy(uri, version), pinned(uri, version.generation)
    except (FileNotFoundError, ObjectChanged, Refused) as error:
        raise ReelError(f"no readable reel at {path}: {error}; run curate again to split the video anew") from error


class Reel:
    """A finished reel, read through a memory map: only the frames asked for are decoded.

    Attributes:
      path: where it stands; in Cloud Storage with its generation.
      times: presentation times of its frames, ascending, in seconds.
      summary: what the splitter found (see `transforms.detection`).
      etag, settings: what it was made from and how.
    """

    def __init__(self, path: str):
        file, self.path = local_reel(path)
        try:
            self._reader = pa.ipc.open_file(pa.memory_map(file))
            metadata = self._reader.schema.metadata or {}
            self.etag = metadata[b"etag"].decode()
            self.settings = metadata[b"settings"].decode()
            last = self._reader.get_batch_with_custom_metadata(self._reader.num_record_batches - 1)
            self.summary: dict[str, Any] = json.loads(last.custom_metadata[b"summary"])
        except (OSError, pa.ArrowInvalid, KeyError, ValueError, TypeError, AttributeError) as error:
            raise ReelError(f"no readable reel at {path}: {error}; run curate again to split the video anew") from error
        self._starts: list[int] = []
        self.times: list[float] = []
        self.shots: list[int] = []
        for number in range(self._reader.num_record_batches):
            batch = self._reader.get_batch(number)
            self._starts.append(len(self.times))
            self.times.extend(batch.column("time_s").to_pylist())
            self.shots.extend(batch.column("shot").to_pylist())

    @classmethod
    def open(cls, path: str) -> Self:
        return cls(path)

    def nearest(self, time_s: float) -> int:
        """The row whose time is nearest to `time_s` (the earlier of two equally near)."""
        if not self.times:
            raise ReelError(f"the reel {self.path} holds no frames")
        at = bisect.bisect_left(self.times, time_s)
        around = [row for row in (at - 1, at) if 0 <= row < len(self.times)]
        return min(around, key=lambda row: abs(self.times[row] - time_s))

    def within(self, start_s: float, end_s: float) -> list[int]:
        """All rows in [start_s, end_s), or the one nearest to its middle when there is none."""
        first, last = bisect.bisect_left(self.times, start_s), bisect.bisect_left(self.times, end_s)
        return list(range(first, last)) or [self.nearest((start_s + end_s) / 2)]

    def uniform(self, start_s: float, end_s: float, count: int) -> list[int]:
        """Up to `count` rows of [start_s, end_s): the ones nearest to the middles of `count` equal parts, in order."""
        rows = self.within(start_s, end_s)
        if len(rows) <= count:
            return rows
        step = (end_s - start_s) / count
        times = [self.times[row] for row in rows]
        picked = set()
        for part in range(count):
            middle = start_s + (part + 0.5) * step
            at = bisect.bisect_left(times, middle)
            around = [i for i in (at - 1, at) if 0 <= i < len(times)]
            picked.add(rows[min(around, key=lambda i: abs(times[i] - middle))])
        return sorted(picked)

    def jpegs(self, rows: Iterable[int]) -> list[bytes]:
        """The JPEG files of `rows`."""
        found = []
        for row in rows:
            number = bisect.bisect_right(self._starts, row) - 1
            while self._reader.get_batch(number).num_rows == 0:
                number -= 1
            batch = self._reader.get_batch(number)
            found.append(batch.column("jpeg")[row - self._starts[number]].as_py())
        return found

    def frames(self, rows: Iterable[int]) -> list[np.ndarray]:
        """The frames of `rows` as RGB arrays, uint8, (height, width, 3)."""
        # Copies, as torch warns of arrays that can't be written to.
        return [np.array(Image.open(io.BytesIO(jpeg)).convert("RGB")) for jpeg in self.jpegs(rows)]

    def frames_at(self, times: Sequence[float]) -> list[np.ndarray]:
        """The frames nearest to `times`, as RGB arrays."""
        return self.frames([self.nearest(time_s) for time_s in times])

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """The detector's value of every decoded frame: (times, scores), both of length n_frames."""
        times: list[float] = []
        scores: list[float] = []
        for number in range(self._reader.num_record_batches):
            batch = self._reader.get_batch(number)
            for column, into in (("stat_times", times), ("stat_scores", scores)):
                for values in batch.column(column).to_pylist():
                    into.extend(values)
        return np.asarray(times), np.asarray(scores)
