"""What a dataset may show to others: its committed rows, without those of videos that were taken down.

    published = Published.open("out"); for batch in published.scan("clips", ["clip_id"]): ...
    counted = reread("out", count)          # count(published), anew where a finishing run removed files under it

A takedown that was cut short leaves rows behind for a while; its tombstone holds from the moment that it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from transforms.files import Directory
from transforms.tables import Snapshot
from transforms.tombstones import taken_down

_T = TypeVar("_T")

#: How often to begin again when files are removed while they are read; runs end minutes apart.
_READS = 10


class Published:
    """A dataset as of one moment, without what was taken down.

    Attributes:
      snapshot: its tables. versions: the version of each, by name.
      barred: the ids of videos that were taken down.
    """

    def __init__(self, snapshot: Snapshot, barred: frozenset[str] = frozenset()):
        self.snapshot, self.barred = snapshot, barred
        self.versions = {name: int(table.version()) for name, table in sorted(snapshot.tables.items())}
        self._barred = pa.array(sorted(barred), pa.string())

    @classmethod
    def open(cls, dataset_dir: Directory) -> Published:
        """Open a dataset.

        Raises:
          NoDataset: there is none. TombstoneError: the record of a takedown can't be read.
        """
        snapshot = Snapshot.open(dataset_dir)
        # After the tables: of a takedown that begins in between the rows would be there, and no stone seen.
        return cls(snapshot, taken_down(dataset_dir))

    def scan(self, name: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows of a table that may be shown, batch by batch."""
        if not self.barred:
            yield from self.snapshot.scan(name, columns)
            return
        for batch in self.snapshot.scan(name, list(dict.fromkeys([*columns, "video_id"]))):
            shown = pc.invert(pc.is_in(batch.column("video_id"), self._barred))
            yield batch.filter(shown).select(list(columns))


def reread(dataset_dir: Directory, read: Callable[[Published], _T]) -> _T:
    """Read a dataset; begin anew when a run that finishes removes superseded files meanwhile.

    Raises:
      FileNotFoundError: files of it are missing, whatever is done.
    """
    for _ in range(_READS - 1):
        try:
            return read(Published.open(dataset_dir))
        except FileNotFoundError:
            continue
    return read(Published.open(dataset_dir))
