"""WebDataset shards: tar files that hold for each clip a few files of one name.

    CLIP_ID.json   the row          CLIP_ID.txt   the caption
    CLIP_ID.mp4    the clip's own file, or CLIP_ID.000.jpg, CLIP_ID.001.jpg ... its frames
    CLIP_ID.npy    its embedding, where it goes along

They are written by the `webdataset` package's own writer, without the time and the name of whoever writes.
"""

from __future__ import annotations

import io
import json
import math
from typing import Any

import numpy as np

from beam_pipeline.export import ClipSample


class WebDataset:
    """The format. Raises a ModuleNotFoundError where `webdataset` is not installed."""

    suffix = ".tar"

    def __init__(self) -> None:
        import webdataset

        self._writer = webdataset.TarWriter

    def open(self, file: io.RawIOBase) -> ShardWriter:
        """Begin a shard."""
        # PAX, as the older format ends at names of 100 characters, and a clip_id may have 128.
        writer = self._writer(file, encoder=False, mtime=0, user="reelscribe", group="reelscribe", format="PAX_FORMAT")
        return ShardWriter(writer)


class ShardWriter:
    """Writes one shard."""

    def __init__(self, writer: Any):
        self._writer = writer

    def write(self, sample: ClipSample) -> None:
        """Add a clip."""
        self._writer.write(files_of(sample))

    def close(self) -> None:
        """Write the end of the tar file."""
        self._writer.close()


def files_of(sample: ClipSample) -> dict[str, Any]:
    """The files of a clip by their suffix, and its `__key__`."""
    row = dict(sample.row)
    embedding = row.pop("embedding", None)
    files: dict[str, Any] = {
        "__key__": row["clip_id"],
        "json": json.dumps(plain(row), ensure_ascii=False, allow_nan=False).encode(),
        "txt": row["caption"].encode(),
    }
    if sample.file:
        kind, contents = sample.file
        files[kind] = contents
    for number, jpeg in enumerate(sample.frames):
        files[f"{number:03d}.jpg"] = jpeg
    if embedding is not None:
        sink = io.BytesIO()
        np.save(sink, np.asarray(embedding, np.float32), allow_pickle=False)
        files["npy"] = sink.getvalue()
    return files


def plain(value: Any) -> Any:
    """What JSON can hold: numbers that are none become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value
