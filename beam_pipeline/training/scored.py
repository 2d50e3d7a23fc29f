"""How well a selector's scores agree with what people chose.

before = score_examples(trainable, examples.validation, batch=32).scores
agreement(examples.validation, before)              # R@1 with its bootstrap interval
gain(examples.validation, before, after)            # paired, over the same clips
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from beam_pipeline.evaluate_bootstrap import Interval, mean_of
from beam_pipeline.training.trainable import Example, Trainable

#: One example's scores, in the order of its captions; None where its clip can't be read.
Scores = tuple[float, ...] | None

#: Is told of a clip that can't be read: its id, and why.
Failure = Callable[[str, BaseException], None]


def readable(error: BaseException) -> bool:
    """Whether an error says something of one clip's reel, and nothing of the program."""
    from transforms.reel import ReelError

    # No other ValueError than that one: it would hide mistakes.
    return isinstance(error, ReelError | OSError) and not isinstance(error, MemoryError)


@dataclasses.dataclass(frozen=True)
class Scored:
    """Scores of examples, and the mean loss over them (0 where there is nothing to tell)."""

    scores: tuple[Scores, ...]
    loss: float


def score_examples(
    trainable: Trainable, examples: Sequence[Example], batch: int, on_failure: Failure | None = None
) -> Scored:
    """Score every example, as the selector sees it: no augmentation, no dropout.

    Args:
      batch: examples at once. on_failure: is told of each clip that can't be read, by its id.
    """
    import torch

    module = trainable.module
    device = next(module.parameters()).device
    was_training = module.training
    module.eval()
    found: list[Scores] = []
    losses: list[tuple[float, int]] = []
    try:
        with torch.no_grad():
            for at in range(0, len(examples), batch):
                prepared, kept = [], []
                for one in examples[at : at + batch]:
                    try:
                        prepared.append(trainable.prepare(one))
                        kept.append(True)
                    except Exception as error:
                        if not readable(error):
                            raise
                        kept.append(False)
                        if on_failure is not None:
                            on_failure(one.clip.clip_id, error)
                if not prepared:
                    found += [None] * len(kept)
                    continue
                collated = on_device(trainable.collate(prepared), device)
                losses.append((float(trainable.losses(collated)["loss"]), len(prepared)))
                scores, owners = trainable.scores(collated).tolist(), collated["owners"].tolist()
                by_owner: list[list[float]] = [[] for _ in prepared]
                for score, owner in zip(scores, owners, strict=True):
                    by_owner[owner].append(score)
                rows = iter(by_owner)
                found += [tuple(next(rows)) if ok else None for ok in kept]
    finally:
        module.train(was_training)
    total = sum(count for _, count in losses)
    return Scored(tuple(found), sum(loss * count for loss, count in losses) / total if total else 0.0)


def on_device(batch: Any, device: Any) -> Any:
    """A batch with all its tensors there, however deep they lie."""
    import torch

    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, dict):
        return {name: on_device(value, device) for name, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(on_device(value, device) for value in batch)
    return batch


def hits(examples: Sequence[Example], scores: Sequence[Scores]) -> np.ndarray:
    """Of each clip with a good caption 1 where the highest score is that of a good one, else 0; NaN if unread."""
    return np.array(
        [
            float("nan") if found is None else float(max(range(len(found)), key=found.__getitem__) in one.right)
            for one, found in zip(examples, scores, strict=True)
            if one.chosen is not None
        ],
        dtype=float,
    )


def agreement(examples: Sequence[Example], scores: Sequence[Scores]) -> Interval:
    """R@1 with people (section 3.3), over the clips that have a good caption and could be read."""
    found = hits(examples, scores)
    return mean_of(found[np.isfinite(found)])


def gain(examples: Sequence[Example], before: Sequence[Scores], after: Sequence[Scores]) -> Interval:
    """What R@1 gained, clip by clip: the interval is of the difference, whose noise both share."""
    found = hits(examples, after) - hits(examples, before)
    return mean_of(found[np.isfinite(found)])


def chance(examples: Sequence[Example]) -> Interval:
    """R@1 of a blind draw."""
    return mean_of(np.array([len(one.right) / len(one.captions) for one in examples if one.chosen is not None]))
