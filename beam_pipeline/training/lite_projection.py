"""The lite profile's selector as it is trained: 1.2 million parameters on top of frozen networks.

    trainable = open_lite_projection(choose("selector", "lite-projection", complete=False).entry)

What the frozen networks say of a clip and of its captions never changes, so it is computed once and kept: 23 KB a clip.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from beam_pipeline.training.captions import without_good
from beam_pipeline.training.losses import vtc
from beam_pipeline.training.trainable import Batch, Example, Recipe, Trainable
from model_handlers.catalogue import Entry
from model_handlers.lite import Lite, load_lite
from model_handlers.lite_projection import (
    Shape,
    build_network,
    mean_of_sentences,
    pictures,
    read_network,
    sentences_of,
    texts,
    view,
    write_network,
)

#: The contrast's temperature where training begins; it is learned. On held-out Flickr8k .05 to .1 are alike.
TEMPERATURE = 0.07
#: So sharp it may become, as in CLIP.
SHARPEST = 0.01


class LiteProjection(Trainable):
    """ConSE with learned residuals; see `model_handlers.lite_projection`."""

    recipe = Recipe(epochs=20.0, batch=256, learning_rate=1e-3, weight_decay=0.1)
    remembers = True

    def __init__(self, lite: Lite, network: Any, shape: Shape):
        import torch

        self._lite, self._shape = lite, shape
        # Beside the network, which is what the handler loads: scores are cosines, and need no temperature.
        self._sharpness = torch.nn.Parameter(torch.tensor(math.log(1.0 / TEMPERATURE)))
        self._module = torch.nn.ModuleDict({"network": network.train().requires_grad_(True)})
        self._module.register_parameter("sharpness", self._sharpness)
        self._kept: dict[tuple[str, tuple[str, ...]], dict[str, Any]] = {}

    @property
    def module(self) -> Any:
        return self._module

    def prepare(self, example: Example, rng: random.Random | None = None) -> dict[str, Any]:
        key = (example.clip.clip_id, example.captions)
        if key not in self._kept:
            seen = view(self._lite, example.clip)
            vectors, owners = sentences_of(self._lite, example.captions)
            self._kept[key] = {"recalled": seen.recalled, "seen": seen.seen, "sentences": vectors, "owners": owners}
        good = np.isin(np.arange(len(example.captions)), sorted(example.right))
        return {**self._kept[key], "captions": len(example.captions), "chosen": example.chosen, "good": good}

    def collate(self, prepared: Sequence[Mapping[str, Any]]) -> Batch:
        import torch

        counts = [one["captions"] for one in prepared]
        begins = np.concatenate([[0], np.cumsum(counts)])[:-1]
        chosen = [
            -1 if one["chosen"] is None else int(begin) + one["chosen"]
            for one, begin in zip(prepared, begins, strict=True)
        ]
        of_sentences = [one["owners"] + begin for one, begin in zip(prepared, begins, strict=True)]
        return {
            "owners": torch.from_numpy(np.repeat(np.arange(len(counts)), counts)),
            "chosen": torch.tensor(chosen),
            "good": torch.from_numpy(np.concatenate([one["good"] for one in prepared])),
            "recalled": torch.from_numpy(np.stack([one["recalled"] for one in prepared])),
            "seen": torch.from_numpy(np.stack([one["seen"] for one in prepared])),
            "sentences": torch.from_numpy(np.concatenate([one["sentences"] for one in prepared])),
            "sentence_owners": torch.from_numpy(np.concatenate(of_sentences)),
        }

    def losses(self, batch: Batch) -> dict[str, Any]:
        import torch

        if self._module.training:
            # The number itself: behind a bound it would have no gradient, and never come back.
            with torch.no_grad():
                self._sharpness.clamp_(max=math.log(1.0 / SHARPEST))
        similarity = without_good(self._similarity(batch) * self._sharpness.exp(), batch)
        loss = vtc(similarity, batch["owners"], batch["chosen"])
        return {"loss": loss, "vtc": loss}

    def scores(self, batch: Batch) -> Any:
        import torch

        owners = batch["owners"]
        return self._similarity(batch)[owners, torch.arange(len(owners), device=owners.device)].float()

    def _similarity(self, batch: Batch) -> Any:
        """(clips, captions): cosines."""
        import torch

        network = self._module["network"]
        # As the handler computes: in a trainer's 16 bits the best two captions of a clip are often one number.
        with torch.autocast(batch["seen"].device.type, enabled=False):
            clips = pictures(network, batch["recalled"], batch["seen"])
            fits = clips @ texts(network, batch["sentences"]).T
            return mean_of_sentences(fits, batch["sentence_owners"], len(batch["owners"]))

    def write(self, folder: str) -> None:
        write_network(self._module["network"], self._shape, folder)


def open_lite_projection(entry: Entry) -> LiteProjection:
    """What the entry's weights say, or where it names none, ConSE.

    Raises:
      WeightsError: the weights are missing, or no lite-projection's.
    """
    settings = entry.settings
    if settings is not None and settings.weights:
        network, shape = read_network(settings)
    else:
        shape = Shape()
        network = build_network(shape)
    return LiteProjection(load_lite(), network, shape)
