"""What a student sees of a clip in training, and in which order.

    seen = StudentExamples(Preparer(inputs), StudentRows("train.arrow"), seed=0)
    order = ClipOrder(rows.owners(), seed=0, window=10_000)
    batch = seen.collate([seen[place] for place in order])

Which of a clip's texts are left out depends on the seed, the epoch and the clip alone, as the order of an epoch on the
seed and its number: so a training that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from beam_pipeline.training.student_rows import StudentExample
from beam_pipeline.training.trainer import EpochOrder, PreparedExamples
from model_handlers.frames import clip_frames
from model_handlers.student_inputs import KEEP, Sample, StudentInputs, Texts, drop_text

if TYPE_CHECKING:
    from beam_pipeline.training.student_features import Features

#: Out of so many clips the next one is drawn. Clips of one source are near each other, as their reel is: in a bucket
#: it is fetched once for all of them.
WINDOW = 10_000


class Preparer:
    """Makes tensors of clips, on the CPU, in whichever process loads them.

    Args:
      features: what the image encoder said of the frames, where that was kept. keep: of `drop_text`.
    """

    def __init__(self, inputs: StudentInputs, features: Features | None = None, keep: float = KEEP):
        self._inputs, self._features, self._keep = inputs, features, keep

    def prepare(self, example: StudentExample, rng: random.Random | None = None) -> dict[str, Any]:
        """A sample, with its features where these are kept.

        Args:
          rng: decides which texts are left out; None: none is.

        Raises:
          ReelError: the clip's reel is missing or unreadable.
        """
        texts = example.texts if rng is None else drop_text(example.texts, rng, self._keep)
        if self._features is not None:
            kept = self._features.of(example.clip)
            return {"sample": Sample((), texts, example.caption), "features": kept}
        frames = clip_frames(example.clip, self._inputs.reading.frames).frames
        return {"sample": Sample(frames, texts, example.caption)}

    def collate(self, prepared: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What the student's `forward` takes."""
        import torch

        batch: dict[str, Any] = self._inputs.batch([one["sample"] for one in prepared])
        if self._features is not None:
            batch["features"] = torch.from_numpy(np.stack([one["features"] for one in prepared]))
        return batch

    def describe(self, prepared: Sequence[Mapping[str, Any]], with_text: bool) -> dict[str, Any]:
        """The same, the texts left out if wanted."""
        if with_text:
            return self.collate(prepared)
        bare = [one["sample"] for one in prepared]
        bare = [Sample(one.frames, Texts(), one.caption) for one in bare]
        return self.collate([{**one, "sample": sample} for one, sample in zip(prepared, bare, strict=True)])


class StudentExamples(PreparedExamples):
    """A map-style dataset for a DataLoader: place `epoch * n + index` is a clip as that epoch sees it."""

    def collate(self, found: Sequence[tuple[Any, dict[str, str]]]) -> dict[str, Any]:
        """A batch, and under `unread` the clips that should have stood there and could not be read."""
        unread = {clip_id: reason for _, theirs in found for clip_id, reason in theirs.items()}
        return {**self._trainable.collate([prepared for prepared, _ in found]), "unread": unread}


class ClipOrder(EpochOrder):
    """A sampler: each epoch the sources in another order, and each clip drawn out of the next `window` ones.

    Args:
      owners: (clips,), the source of each.
    """

    def __init__(self, owners: np.ndarray, seed: int, window: int = WINDOW):
        super().__init__(len(owners), seed)
        self._owners, self._window = owners, window

    def __iter__(self) -> Iterator[int]:
        yield from (
            self._epoch * self._count + epoch_order(self._owners, self._seed, self._epoch, self._window)
        ).tolist()


def epoch_order(owners: np.ndarray, seed: int, epoch: int, window: int) -> np.ndarray:
    """The order of an epoch, (clips,); some 40 bytes a clip while it is made.

    >>> sorted(epoch_order(np.array([0, 0, 1, 2]), 0, 0, 4).tolist())
    [0, 1, 2, 3]
    """
    chance = np.random.default_rng([seed, epoch])
    ranks = chance.permutation(int(owners[-1]) + 1 if len(owners) else 0)
    by_source = np.argsort(ranks[owners], kind="stable")
    # Each clip is put off by up to a window: as good as drawing from a buffer, and known without going through it.
    return by_source[np.argsort(np.arange(len(owners)) + chance.random(len(owners)) * window, kind="stable")]
