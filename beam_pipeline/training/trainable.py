"""What the trainer asks of a selector that it trains.

    trainable = open_trainable(config.selector)
    batch = trainable.collate([trainable.prepare(example, rng) for example in examples])
    trainable.losses(batch)["loss"].backward()
    trainable.write("models/selector/v1")                # what the catalogue's handler of the same name loads

An example has any number of captions, so a batch holds them in one row after the other, and says which clip each one
belongs to.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import Any

from transforms.records import Clip


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """A clip with the captions that people could choose from.

    Attributes:
      captions: distinct ones.
      chosen: which of them is the best; None where all are bad.
      good: those that people found good, where each was asked about.
    """

    clip: Clip
    captions: tuple[str, ...]
    chosen: int | None
    good: frozenset[int] = frozenset()

    @property
    def right(self) -> frozenset[int]:
        """The good captions, the best among them; none where all are bad."""
        return frozenset() if self.chosen is None else self.good | {self.chosen}


@dataclasses.dataclass(frozen=True, slots=True)
class Recipe:
    """How a selector is trained unless the user says otherwise; see section 3.3 for the paper's.

    Attributes:
      epochs, warmup_epochs: over all examples; the rate grows linearly, then falls as a cosine to nought.
      batch: examples a step, over all devices and accumulated steps.
      learning_rate, weight_decay, betas: of AdamW.
    """

    epochs: float = 10.0
    warmup_epochs: float = 1.0
    batch: int = 32
    learning_rate: float = 2e-5
    weight_decay: float = 0.02
    betas: tuple[float, float] = (0.9, 0.999)


#: A collated batch: tensors by name. Of every trainable it has `owners`, (captions,), the example of each caption, and
#: `chosen`, (examples,), the place of the best one in the row of all captions, -1 where all are bad.
Batch = dict[str, Any]


class Trainable:
    """A selector's network as it is trained. Subclasses load it from an entry of the catalogue.

    It is no `torch.nn.Module`, so that modules import without torch; `module` is one.
    """

    #: How it is trained unless the user says otherwise.
    recipe = Recipe()
    #: Whether `prepare` keeps what it computed: then loading processes, each with a memory of its own, don't help.
    remembers = False

    @property
    def module(self) -> Any:
        """The `torch.nn.Module` whose parameters are trained."""
        raise NotImplementedError

    def prepare(self, example: Example, rng: random.Random | None = None) -> dict[str, Any]:
        """What the network wants of one example; computed on the CPU, by a loading process (but see `remembers`).

        Args:
          rng: of the augmentation; None: the clip as the selector sees it.

        Raises:
          ReelError: the clip's reel is missing or unreadable.
        """
        raise NotImplementedError

    def collate(self, prepared: Sequence[Mapping[str, Any]]) -> Batch:
        """A batch out of prepared examples, on the CPU."""
        raise NotImplementedError

    def losses(self, batch: Batch) -> dict[str, Any]:
        """Scalars by name: `loss`, which is minimised, and its parts (`vtc`, `vtm`)."""
        raise NotImplementedError

    def scores(self, batch: Batch) -> Any:
        """(captions,), float32: how well each caption fits its own clip, as the selector says before calibration."""
        raise NotImplementedError

    def decayed(self, name: str, parameter: Any) -> bool:
        """Whether weight decay acts on a parameter of `module`: not on biases, norms and temperatures."""
        return parameter.ndim > 1

    def use_checkpointing(self) -> None:
        """Compute activations twice rather than keep them; `ValueError` where the network can't."""
        raise ValueError("this selector is too small for gradient checkpointing; leave it out")

    def write(self, folder: str) -> None:
        """Write the weights, and whatever the catalogue's handler of the same name needs beside them."""
        raise NotImplementedError
