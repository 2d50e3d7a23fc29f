"""Clips of one colour each with captions that name colours: what a selector can learn in seconds.

train, held_out = colour_examples(tmp_path, 24), colour_examples(tmp_path, 12, first=24)
"""

from __future__ import annotations

import dataclasses
import pathlib
import random
from collections.abc import Sequence

import numpy as np
import torch
from lite_media import clip_of, write_reel

from beam_pipeline.training.trainable import Batch, Example, Trainable

COLOURS = ("red", "green", "blue")
#: Frames of a reel: more than are looked at, so that which ones is drawn.
FRAMES = 6


def colour_examples(folder: pathlib.Path, count: int, first: int = 0) -> list[Example]:
    """Clips of red, green and blue in turn, each with the right caption among three, at a place that changes."""
    return [colour_example(folder, number) for number in range(first, first + count)]


def colour_example(folder: pathlib.Path, number: int) -> Example:
    drawn = np.random.default_rng(number)
    base = np.zeros((45, 80, 3)) + 50
    base[..., number % 3] = 200
    frames = [np.clip(base + drawn.normal(0, 25, base.shape), 0, 255).astype(np.uint8) for _ in range(FRAMES)]
    reel = write_reel(folder / f"{number}.arrow", frames)
    clip = dataclasses.replace(clip_of(reel, FRAMES, f"clip-{number}"), video_id=f"video-{number}")
    turned = [*COLOURS[number // 3 % 3 :], *COLOURS[: number // 3 % 3]]
    chosen = turned.index(COLOURS[number % 3])
    return Example(clip, tuple(f"a {colour} car" for colour in turned), chosen, frozenset({chosen}))


def all_bad(example: Example) -> Example:
    """The same clip, of which people found no caption good."""
    return dataclasses.replace(example, chosen=None, good=frozenset())


def batch_of(trainable: Trainable, examples: Sequence[Example], rng: random.Random | None = None) -> Batch:
    """A batch of the examples; as they are scored where nothing is drawn."""
    return trainable.collate([trainable.prepare(example, rng) for example in examples])


def agreement(trainable: Trainable, examples: Sequence[Example]) -> float:
    """The share of clips whose chosen caption scores highest."""
    batch = batch_of(trainable, examples)
    scores = trainable.scores(batch)
    hits = 0
    for number, example in enumerate(examples):
        own = scores[batch["owners"] == number]
        hits += int(own.argmax()) == example.chosen
    return hits / len(examples)


def bytes_kept(trainable: Trainable, batch: Batch) -> int:
    """What a step of training keeps for its way back."""
    kept: list[int] = []

    def keep(tensor):
        kept.append(tensor.nbytes)
        return tensor

    trainable.module.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        trainable.losses(batch)
    return sum(kept)


def train(
    trainable: Trainable, examples: Sequence[Example], steps: int, rate: float, rng: random.Random, batch: int = 12
) -> list[float]:
    """A plain loop in place of the trainer; returns the loss of each step."""
    groups: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
    for name, parameter in trainable.module.named_parameters():
        groups[trainable.decayed(name, parameter)].append(parameter)
    decayed = [{"params": groups[True], "weight_decay": 0.02}, {"params": groups[False], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(decayed, lr=rate, betas=trainable.recipe.betas)
    trainable.module.train()
    told = []
    for _ in range(steps):
        loss = trainable.losses(batch_of(trainable, rng.sample(list(examples), batch), rng))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        told.append(float(loss.detach()))
    trainable.module.eval()
    return told
