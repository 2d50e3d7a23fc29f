"""A selector small enough to be trained in a test: a clip's mean colour against a caption's words."""

from __future__ import annotations

import os
import pathlib
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lite_media import write_reel

from beam_pipeline.training.examples import Examples
from beam_pipeline.training.losses import vtc
from beam_pipeline.training.trainable import Batch, Example, Recipe, Trainable
from model_handlers.frames import clip_frames
from transforms.records import Clip, MediaFacts, Span

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "grey": (120, 120, 120)}


class ColourTrainable(Trainable):
    """Linear maps of a colour and of a bag of words into one space; dropout, so that the generator's state counts."""

    recipe = Recipe(epochs=6, batch=8, learning_rate=0.05, weight_decay=0.01)

    def __init__(self) -> None:
        import torch

        torch.manual_seed(0)
        picture = torch.nn.Sequential(torch.nn.Dropout(0.2), torch.nn.Linear(3, 8))
        self._module = torch.nn.ModuleDict({"picture": picture, "text": torch.nn.Linear(len(COLOURS), 8, bias=False)})

    @property
    def module(self) -> Any:
        return self._module

    def prepare(self, example: Example, rng: random.Random | None = None) -> dict[str, Any]:
        colour = clip_frames(example.clip, 8).frames[0].mean(axis=(0, 1)).astype(np.float32) / 255
        words = [[float(name in caption.split()) for name in COLOURS] for caption in example.captions]
        noise = rng.uniform(-0.01, 0.01) if rng else 0.0
        return {"colour": colour + np.float32(noise), "words": words, "chosen": example.chosen}

    def collate(self, prepared: Sequence[Mapping[str, Any]]) -> Batch:
        import torch

        owners = [at for at, one in enumerate(prepared) for _ in one["words"]]
        chosen = [-1 if one["chosen"] is None else owners.index(at) + one["chosen"] for at, one in enumerate(prepared)]
        return {
            "owners": torch.tensor(owners),
            "chosen": torch.tensor(chosen),
            "colours": torch.from_numpy(np.stack([one["colour"] for one in prepared])),
            "words": torch.tensor([row for one in prepared for row in one["words"]]),
        }

    def losses(self, batch: Batch) -> dict[str, Any]:
        return {"loss": vtc(self._similarity(batch), batch["owners"], batch["chosen"])}

    def scores(self, batch: Batch) -> Any:
        import torch

        return self._similarity(batch)[batch["owners"], torch.arange(len(batch["owners"]))].float()

    def _similarity(self, batch: Batch) -> Any:
        return self._module["picture"](batch["colours"]) @ self._module["text"](batch["words"]).T

    def write(self, folder: str) -> None:
        from safetensors.torch import save_file

        save_file(self._module.state_dict(), os.path.join(folder, "colours.safetensors"))


def coloured(folder: pathlib.Path, count: int, missing: Sequence[int] = ()) -> tuple[Example, ...]:
    """Clips of one colour each, whose captions name all colours; every ninth has none that is true."""
    made = []
    for number in range(count):
        name = list(COLOURS)[number % len(COLOURS)]
        path = folder / f"v{number}.arrow"
        if number not in missing and not path.exists():
            write_reel(path, [np.full((16, 16, 3), COLOURS[name], np.uint8)])
        span = Span(0.0, 1.0)
        clip = Clip(
            f"clip-{number:03}", f"v{number}", "v.mp4", span, (span,), MediaFacts(1.0, 16, 16, 2.0, ""), str(path), "f"
        )
        others = [other for other in COLOURS if other != name]
        captions = [f"it is {other}" for other in others]
        chosen = None if number % 9 == 8 else number % len(COLOURS)
        if chosen is not None:
            captions.insert(chosen, f"it is {name}")
        made.append(Example(clip, tuple(captions), chosen))
    return tuple(made)


def parts_of(examples: Sequence[Example]) -> Examples:
    """Every fifth to watch by, the one after it to judge by."""
    train = tuple(one for at, one in enumerate(examples) if at % 5 > 1)
    return Examples(train, tuple(examples[::5]), tuple(examples[1::5]))
