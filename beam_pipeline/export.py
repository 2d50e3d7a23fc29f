"""Take clips out of a dataset in the formats of other ecosystems.

    print(describe(export("out", "shards", ExportOptions("webdataset", frames=8)), "shards"))

Clips come source by source, in an order of their ids alone (`transforms.by_source`), so that the same dataset gives the
same bytes. OUT/shards.json lists the files with their clips, bytes and SHA-256.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import pyarrow as pa

from beam_pipeline import __version__
from beam_pipeline.export_pictures import Pictures
from transforms.by_source import Source, clips_by_source
from transforms.files import name_of, title_of
from transforms.new_folders import NewFolder, new_folder
from transforms.schemas import CLIPS

MANIFEST = "shards.json"


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """What to export, and how.

    Attributes:
      form: a name of `forms()`.
      subset: a Parquet file with `clip_id` and `video_id`; only these clips.
      frames: pictures of each clip out of the video's reel, where the clip has no file of its own.
      embeddings: whether the clips' embeddings go along.
      shard_clips, shard_bytes: how large a file may grow; one clip may be larger.
    """

    form: str
    subset: str | None = None
    frames: int = 0
    embeddings: bool = False
    shard_clips: int = 10_000
    shard_bytes: int = 1_000_000_000


@dataclasses.dataclass(frozen=True)
class ClipSample:
    """A clip to be written.

    Attributes:
      row: its columns; the embedding is among them only where it goes along.
      file: the clip's own file, as (kind, contents), kind being its suffix such as "mp4".
      frames: else JPEG files of its frames, in order of time.
    """

    row: Mapping[str, Any]
    file: tuple[str, bytes] | None = None
    frames: tuple[bytes, ...] = ()

    @property
    def size_bytes(self) -> int:
        """About what it takes."""
        return sum(map(len, self.frames)) + (len(self.file[1]) if self.file else 0) + 2000


class SampleWriter(Protocol):
    """Writes clips into one file that is open."""

    def write(self, sample: ClipSample) -> None: ...

    def close(self) -> None: ...


class Form(Protocol):
    """A format whose files hold a record a clip."""

    suffix: str

    def open(self, file: io.RawIOBase) -> SampleWriter: ...


class Shards:
    """Numbered files, a new one whenever the last is full. A context manager."""

    def __init__(self, folder: NewFolder, name: str, form: Form, options: ExportOptions):
        self._folder, self._name, self._form, self._options = folder, name, form, options
        self._open = contextlib.ExitStack()
        self._writer: SampleWriter | None = None
        self._entry: dict[str, Any] = {}
        self._number = self._bytes = 0

    def write(self, sample: ClipSample) -> None:
        """Write a clip into the shard that has room for it."""
        full = self._writer is not None and (
            self._entry["clips"] >= self._options.shard_clips
            or self._bytes + sample.size_bytes > self._options.shard_bytes
        )
        if self._writer is None or full:
            self._writer = self._next()
        self._writer.write(sample)
        self._entry["clips"] += 1
        self._bytes += sample.size_bytes

    def _next(self) -> SampleWriter:
        self._open.close()
        name = f"{self._name}-{self._number:06d}{self._form.suffix}"
        file, self._entry = self._open.enter_context(self._folder.writing(name))
        writer = self._open.enter_context(contextlib.closing(self._form.open(file)))
        self._entry["clips"], self._bytes, self._number = 0, 0, self._number + 1
        return writer

    def __enter__(self) -> Shards:
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)


def forms() -> list[str]:
    """The formats."""
    return ["panda70m-csv", "webdataset", "tfrecord"]


def has_pictures(form: str) -> bool:
    """Whether a format holds more than text."""
    return form != "panda70m-csv"


def export(dataset_dir: str, output: str, options: ExportOptions) -> dict[str, Any]:
    """Write the clips into a new folder; return what its `shards.json` says.

    Raises:
      NoDataset: there is none. TombstoneError: the record of a takedown can't be read.
      SubsetError: the subset names no clips. OSError: the disk is full; nothing is left behind then.
      ModuleNotFoundError: the format's package is not installed.
    """
    form = _form(options.form)
    columns = [name for name in CLIPS.names if name != "embedding" or options.embeddings]
    counts = {"sources": 0, "clips": 0, "with_a_file": 0, "with_frames": 0, "without_pictures": 0}
    with (
        clips_by_source(dataset_dir, columns, ["uri", "etag"], salt="export", subset=options.subset) as sources,
        new_folder(output, MANIFEST) as folder,
    ):
        name = _name(options.subset)
        if form is None:
            from beam_pipeline.export_panda70m import write_csv

            write_csv(folder, f"{name}.csv", sources, counts)
        else:
            pictures = Pictures(dataset_dir, options.frames)
            with Shards(folder, name, form, options) as shards:
                for source in sources:
                    counts["sources"] += 1
                    for sample in _samples(source, pictures):
                        shards.write(sample)
                        counts["clips"] += 1
                        kind = "with_a_file" if sample.file else "with_frames" if sample.frames else "without_pictures"
                        counts[kind] += 1
        if not has_pictures(options.form):
            counts = {name: counts[name] for name in ("sources", "clips")}
        told = {
            "format": options.form,
            "reelscribe": __version__,
            "dataset": title_of(dataset_dir),
            "versions": sources.versions,
            "settings": {
                **dataclasses.asdict(options),
                "subset": name_of(options.subset) if options.subset else None,
            },
            "counts": {**counts, "absent": sources.absent},
        }
        folder.finish(told)
    return told


def _form(name: str) -> Form | None:
    """The format of this name; None for the one that has a row a source."""
    if name == "webdataset":
        from beam_pipeline.export_webdataset import WebDataset

        return WebDataset()
    if name == "tfrecord":
        from beam_pipeline.export_tfrecord import TFRecord

        return TFRecord()
    return None


def _name(subset: str | None) -> str:
    """What the files are called: as the subset is, where that is plain."""
    stem = name_of(subset).rpartition(".")[0] if subset else ""
    return stem if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", stem) else "clips"


def _samples(source: Source, pictures: Pictures) -> Iterator[ClipSample]:
    found = pictures.of_source(str(source.video["video_id"]), source.video["etag"])
    clips = source.clips.select([name for name in CLIPS.names if name in source.clips.column_names])
    for row in _rows(clips):
        file = found.file(row)
        yield ClipSample(row, file, () if file else found.frames(row["start_s"], row["end_s"]))


def _rows(clips: pa.Table) -> Iterator[dict[str, Any]]:
    """Rows whose embedding stays an array: as a list of Python's floats it would be twenty times as large."""
    plain = [name for name in clips.column_names if name != "embedding"]
    for at, row in enumerate(clips.select(plain).to_pylist()):
        if "embedding" in clips.column_names:
            row["embedding"] = clips["embedding"][at].values.to_numpy()
        yield row


def describe(told: Mapping[str, Any], output: str) -> str:
    """What was exported, as lines for people."""
    counts = told["counts"]
    lines = [f"{counts['clips']:,} clips of {counts['sources']:,} sources"]
    if counts.get("with_a_file"):
        lines.append(f"{counts['with_a_file']:,} with their clip's file")
    if counts.get("with_frames"):
        lines.append(f"{counts['with_frames']:,} with frames")
    if counts.get("without_pictures"):
        settings = told["settings"]
        why = "they have no file, and there is no reel of them" if settings["frames"] else "see --frames"
        lines.append(f"{counts['without_pictures']:,} without pictures: {why}")
    if counts["absent"]:
        lines.append(f"{counts['absent']:,} clips of the subset are not in the dataset any more")
    return "\n".join([*lines, output])
