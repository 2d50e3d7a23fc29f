"""What stands in a table, for those who look again and again: read once, then only from the files that are new.

videos = Standing("out", "videos"); videos.refresh(); videos.run_of("a-1")      # -> "20261122T101500-3f9a1c"
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from transforms.files import Directory
from transforms.parquet_files import delta_table, pair_keys, scan_files, table_files, table_uri
from transforms.schemas import TABLES
from transforms.tables import CurrentVideo

Pair = tuple[str, str]


class Standing:
    """Which (video_id, run_id) stand in a table: read once, then only from the files that are new."""

    def __init__(self, dataset_dir: Directory, name: str):
        self._dir, self.name = dataset_dir, name
        self.table = delta_table(table_uri(dataset_dir, name))
        self._pairs: dict[str, frozenset[Pair]] = {}
        self._runs: dict[str, str] = {}

    def refresh(self) -> None:
        self.table.update_incremental()
        before, files = self._pairs, table_files(self.table, self._dir, self.name)
        self._pairs = {uri: before[uri] if uri in before else self._read(uri) for uri in files}
        if self.name == "videos":
            if not before.keys() <= self._pairs.keys():
                self._runs, before = {}, {}
            for uri in self._pairs.keys() - before.keys():
                self._runs.update(self._pairs[uri])

    def _read(self, uri: str) -> frozenset[Pair]:
        pairs: set[Pair] = set()
        for batch in scan_files([uri], TABLES[self.name], ["video_id", "run_id"]):
            unique = pc.unique(pair_keys(batch)).to_pylist()
            pairs.update((video_id, run_id) for video_id, _, run_id in (key.partition(" ") for key in unique))
        return frozenset(pairs)

    def run_of(self, video_id: str) -> str | None:
        """The run_id under which a video stands in `videos`."""
        return self._runs.get(video_id)

    def among(self, pairs: set[Pair]) -> set[Pair]:
        """Those of `pairs` that have rows."""
        return {pair for standing in self._pairs.values() for pair in standing & pairs}

    def rows(self, pairs: Set[Pair]) -> Iterator[dict[str, Any]]:
        """Their rows, read from those files alone that hold some."""
        wanted = pa.array([f"{video_id} {run_id}" for video_id, run_id in pairs], pa.string())
        files = [uri for uri, standing in self._pairs.items() if standing & pairs]
        for batch in scan_files(files, TABLES[self.name], None):
            yield from batch.filter(pc.is_in(pair_keys(batch), wanted)).to_pylist()

    def current(self, video_ids: Set[str]) -> dict[str, CurrentVideo]:
        """What `videos` says of those of the videos that stand."""
        pairs = {(video_id, run_id) for video_id in video_ids if (run_id := self.run_of(video_id))}
        return {row["video_id"]: CurrentVideo.of(row) for row in self.rows(pairs)} if pairs else {}


def rows_by_video(tables: Iterable[Standing], pairs: Set[Pair]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """The rows of these videos in these tables, as they are known: by video_id, then by table."""
    tables = list(tables)
    found: dict[str, dict[str, list[dict[str, Any]]]] = {
        video_id: {table.name: [] for table in tables} for video_id, _ in pairs
    }
    for table in tables if pairs else ():
        for row in table.rows(pairs):
            found[row["video_id"]][table.name].append(row)
    return found
