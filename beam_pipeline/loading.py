"""Clips for a training loop: rows, frames and files, shared out among ranks and workers.

    from beam_pipeline.loading import TorchClips
    clips = TorchClips("dataset", ["clip_id", "caption"], frames=8, shuffle=1000)      # an IterableDataset
    for batch in DataLoader(clips, batch_size=16, num_workers=4, collate_fn=list): ...

A dataset is read as of the moment when it is opened; the processes of one job open it each on their own, so let no run
write to it meanwhile. What goes where depends on the rows' order in the files alone: every clip comes to one worker.
"""

from __future__ import annotations

import collections
import dataclasses
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.by_source import read_subset
from transforms.clip_places import path_of
from transforms.files import Directory
from transforms.parquet_files import pair_keys, scan_files
from transforms.published import Published
from transforms.reel import Reel
from transforms.reels import reel_of, reels_of
from transforms.schemas import CLIPS

if TYPE_CHECKING:
    from torch.utils.data import IterableDataset as TorchClips

__all__ = ["ClipRows", "TorchClips"]

#: Reels that stay open: rows of one video stand close together.
_OPEN_REELS = 16

_KEYS = ("clip_id", "video_id", "run_id", "start_s", "end_s")


@dataclasses.dataclass(frozen=True)
class _Committed:
    """What counts of the files' rows; small enough to travel to workers, as the Delta tables themselves can't.

    Attributes:
      whole: files all of whose rows count. Nearly all are such, and looking rows up among millions of keys takes a
        second a batch.
    """

    files: tuple[str, ...]
    current: pa.Array
    barred: pa.Array
    subset: pa.Array | None
    whole: frozenset[str] = frozenset()

    def rows(self, files: Sequence[str], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows that count."""
        for file in files:
            for batch in scan_files([file], CLIPS, list(dict.fromkeys([*columns, *_KEYS]))):
                yield batch if file in self.whole else batch.filter(self._counts(batch))

    def _counts(self, batch: pa.RecordBatch) -> pa.Array:
        mask = pc.is_in(pair_keys(batch), self.current)
        if len(self.barred):
            mask = pc.and_(mask, pc.invert(pc.is_in(batch.column("video_id"), self.barred)))
        return mask if self.subset is None else pc.and_(mask, pc.is_in(batch.column("clip_id"), self.subset))

    def counted(self) -> tuple[_Committed, int]:
        """The same with `whole` known, and how many rows count."""
        whole, count = set(), 0
        for file in self.files:
            masks = [self._counts(batch) for batch in scan_files([file], CLIPS, _KEYS)]
            count += sum(mask.true_count for mask in masks)
            if all(mask.true_count == len(mask) for mask in masks):
                whole.add(file)
        return dataclasses.replace(self, whole=frozenset(whole)), count


class ClipRows:
    """The clips of a dataset as dicts, without torch.

    Args:
      dataset_dir: a directory, or gs://BUCKET/FOLDER.
      columns: of `clips`. frames: so many frames of the reel as well, as `frames`, uint8 (frames, height, width, 3);
        a clip shorter than that has fewer. files: the path of the clip's own file as well, as `file`, None without.
      subset: a Parquet file with `clip_id` and `video_id`, such as a part of `reelscribe split`.
      shuffle: out of how many clips the next one is drawn; 0 keeps the order of the files.
      seed: of the shuffling, which is another one in each epoch.
      even: whether all shards get the same number, so that no rank waits for another; the last few are left out then.

    Attributes:
      count: how many clips there are.

    Raises:
      NoDataset: there is none. ReelError, when read: a clip's frames are asked for, and there is no reel.
    """

    def __init__(
        self,
        dataset_dir: Directory,
        columns: Sequence[str] = ("clip_id", "caption"),
        *,
        frames: int = 0,
        files: bool = False,
        subset: str | None = None,
        shuffle: int = 0,
        seed: int = 0,
        even: bool = False,
    ):
        if unknown := [name for name in columns if name not in CLIPS.names]:
            raise ValueError(f"clips have no column {unknown[0]!r}; there are {', '.join(CLIPS.names)}")
        self._dataset_dir, self._columns = dataset_dir, tuple(columns)
        self._frames, self._shuffle, self._seed, self._even = frames, shuffle, seed, even
        self._epoch = 0
        published = Published.open(dataset_dir)
        committed = _Committed(
            files=tuple(sorted(published.snapshot.files["clips"])),
            current=published.snapshot.current,
            barred=pa.array(sorted(published.barred), pa.string()),
            subset=None if subset is None else read_subset(subset)["clip_id"].combine_chunks(),
        )
        self._files = files
        self._committed, self.count = committed.counted()

    def set_epoch(self, epoch: int) -> None:
        """Shuffle in another way from here on; all ranks must say the same."""
        self._epoch = epoch

    def shard(self, number: int, of: int) -> Iterator[dict[str, Any]]:
        """The clips of one of `of` shards. Together they hold every clip once, but for those that `even` leaves out.

        Raises:
          ReelError: frames are asked for, and there is no reel.
        """
        chance = random.Random(f"{self._seed} {self._epoch}")
        rows = self._rows(number, of, chance)
        reels: collections.OrderedDict[str, Reel] = collections.OrderedDict()
        for row in _shuffled(rows, self._shuffle, chance) if self._shuffle else rows:
            made = {name: row[name] for name in self._columns}
            if self._files:
                made["file"] = path_of(self._dataset_dir, row)
            if self._frames:
                reel = self._reel(row["video_id"], reels)
                made["frames"] = np.stack(reel.frames(reel.uniform(row["start_s"], row["end_s"], self._frames)))
            yield made

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.shard(0, 1)

    def _rows(self, number: int, of: int, chance: random.Random) -> Iterator[dict[str, Any]]:
        files = list(self._committed.files)
        if self._shuffle:
            chance.shuffle(files)  # Alike in all shards: each knows which rows are the others'.
        end = self.count - self.count % of if self._even else self.count
        named = [*self._columns, *(["clip_file"] if self._files else [])]
        seen = 0
        for batch in self._committed.rows(files, named):
            mine = [at for at in range((number - seen) % of, batch.num_rows, of) if seen + at < end]
            yield from batch.take(pa.array(mine, pa.int64())).to_pylist()
            seen += batch.num_rows

    def _reel(self, video_id: str, reels: collections.OrderedDict[str, Reel]) -> Reel:
        if video_id not in reels:
            reels[video_id] = Reel.open(reel_of(reels_of(self._dataset_dir), video_id))
            if len(reels) > _OPEN_REELS:
                reels.popitem(last=False)
        reels.move_to_end(video_id)
        return reels[video_id]


def _shuffled(rows: Iterator[dict[str, Any]], number: int, chance: random.Random) -> Iterator[dict[str, Any]]:
    """Draw each row out of the next `number`."""
    waiting: list[dict[str, Any]] = []
    for row in rows:
        if len(waiting) < number:
            waiting.append(row)
            continue
        at = chance.randrange(number)
        yield waiting[at]
        waiting[at] = row
    chance.shuffle(waiting)
    yield from waiting


def _torch_clips() -> type:
    import torch
    from torch.utils.data import IterableDataset, get_worker_info

    class TorchClips(ClipRows, IterableDataset):
        """`ClipRows` for a DataLoader: each worker of each rank gets a shard of its own; frames are tensors.

        Make it after `torch.distributed.init_process_group`: workers don't know of their rank. `even` holds by default
        where there are several ranks.
        """

        def __init__(self, dataset_dir: Directory, *columns: Any, even: bool | None = None, **options: Any):
            distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
            self._rank = torch.distributed.get_rank() if distributed else 0
            self._ranks = torch.distributed.get_world_size() if distributed else 1
            super().__init__(dataset_dir, *columns, even=self._ranks > 1 if even is None else even, **options)

        def __iter__(self) -> Iterator[dict[str, Any]]:
            worker = get_worker_info()
            number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
            for row in self.shard(self._rank * workers + number, self._ranks * workers):
                if "frames" in row:
                    row["frames"] = torch.from_numpy(row["frames"])
                yield row

    TorchClips.__module__, TorchClips.__qualname__ = __name__, "TorchClips"
    return TorchClips


def __getattr__(name: str) -> Any:
    """Make `TorchClips` when it is first asked for: only then is torch imported. Workers find it here by its name."""
    if name != "TorchClips":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = _torch_clips()
    return globals()[name]
