"""Train CLIP, SigLIP, SigLIP 2 and X-CLIP to choose as people do: by contrast (VTC), on the handler's own numbers.

    trainable = open_two_tower(choose("selector", "siglip2-base").entry)
    trainable.losses(batch)["loss"].backward()
    trainable.write("models/selector/v1")                # as `save_pretrained` writes it

A clip whose captions are all bad is a negative of the others; a contrast has nothing to say of it alone. SigLIP's bias
cancels in a contrast as well: whether its sigmoid then means a probability is for calibration to see to.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from beam_pipeline.training.augmentation import drawn_frames
from beam_pipeline.training.captions import by_caption, join_captions, read_captions, without_good
from beam_pipeline.training.losses import vtc
from beam_pipeline.training.trainable import Batch, Example, Recipe, Trainable
from model_handlers.catalogue import Entry
from model_handlers.devices import Device
from model_handlers.dual_selectors import ClipNetwork, DualEncoderSelector, SiglipNetwork
from model_handlers.pretrained import load_part
from model_handlers.video_selectors import VideoTextSelector, XClipNetwork

#: CLIP's cosines are multiplied by no more (Radford et al., 2021).
MOST_SCALE = 100.0
#: Marks a clip's tensors in a batch.
SEEN = "seen_"
TOKENS = ("input_ids", "attention_mask")


def open_two_tower(entry: Entry) -> TwoTowerTrainable:
    """The trainable form of an entry of the catalogue.

    Raises:
      ValueError, WeightsError: see `TwoTowerTrainable`.
    """
    handler: Any = entry.build()
    return TwoTowerTrainable(handler)


class TwoTowerTrainable(Trainable):
    """A two-tower selector with its checkpoint's weights, in float32 on the CPU until its module is moved.

    Args:
      handler: of the catalogue, with the settings that name the weights.

    Raises:
      ValueError: nobody has seen to the training of this model. WeightsError: see the handler's `network`.
    """

    #: Rate and decay at which CLIP is fine-tuned by its own contrast (FLYP: Goyal et al., CVPR 2023, and its authors'
    #: commands: 1e-5 and 0.1 on ImageNet); betas as CLIP's transformers were trained. Fewer epochs than Unmasked
    #: Teacher's ten, as nothing but the contrast holds on to what was pretrained.
    recipe = Recipe(epochs=3.0, warmup_epochs=0.3, learning_rate=1e-5, weight_decay=0.1, betas=(0.9, 0.98))

    def __init__(self, handler: DualEncoderSelector | VideoTextSelector):
        import torch

        settings = handler.settings
        loaded = handler.network(Device("cpu", torch.float32))
        if not isinstance(loaded, ClipNetwork | XClipNetwork):
            kinds = "CLIP, SigLIP, SigLIP 2, X-CLIP and Unmasked Teacher can"
            raise ValueError(f"{handler.name} can't be trained; of the selectors with weights {kinds}")
        # A copy: handlers in this process share what was loaded, and must not see it change.
        self._model = copy.deepcopy(loaded.model).requires_grad_(True)
        self._network = loaded.around(self._model)
        self._device = Device("cpu", torch.float32)
        # A tokenizer writes the padding of its last call into its files, so these are never called.
        self._parts = [load_part(kind, settings) for kind in ("AutoTokenizer", "AutoImageProcessor")]

    @property
    def module(self) -> Any:
        return self._model

    def prepare(self, example: Example, rng: random.Random | None = None) -> dict[str, Any]:
        reader = self._network.reader
        if rng is None:
            seen = self._network.see(example.clip)
            cuts = [reader.cut(caption) for caption in example.captions]
            pieces, lengths = [cut.texts for cut in cuts], [length for cut in cuts for length in cut.tokens]
        else:
            # Not mirrored, as none of them was in its own training.
            seen = self._network.look(drawn_frames(example.clip, self._network.frames, example.captions, rng))
            pieces = [(caption,) for caption in example.captions]
            lengths = [1] * len(pieces)
        tokens = reader.batch([text for parts in pieces for text in parts], self._device)
        return {
            **{SEEN + name: values for name, values in seen.items()},
            "frames": len(next(iter(seen.values()))),
            **read_captions(example, pieces, tokens, lengths),
        }

    def collate(self, prepared: Sequence[Mapping[str, Any]]) -> Batch:
        import torch

        seen = [name for name in prepared[0] if name.startswith(SEEN)]
        return {
            **join_captions([dict(one) for one in prepared]),
            **{name: torch.cat([one[name] for one in prepared]) for name in seen},
            "frames": torch.tensor([one["frames"] for one in prepared]),
        }

    def losses(self, batch: Batch) -> dict[str, Any]:
        import torch

        fits = by_caption(self._fits(batch), batch)
        if not isinstance(self._network, SiglipNetwork):
            scale = self._model.logit_scale
            if self._model.training:
                with torch.no_grad():
                    scale.clamp_(max=math.log(MOST_SCALE))
            fits = fits * scale.exp()
        contrast = vtc(without_good(fits, batch), batch["owners"], batch["chosen"])
        return {"loss": contrast, "vtc": contrast}

    def scores(self, batch: Batch) -> Any:
        import torch

        was = self._model.training
        self._model.eval()
        try:
            with torch.no_grad():
                fits = by_caption(self._fits(batch), batch)
        finally:
            self._model.train(was)
        own = fits[batch["owners"], torch.arange(len(batch["owners"]), device=fits.device)]
        return torch.tensor([self._network.score(fit) for fit in own.tolist()])

    def _fits(self, batch: Batch) -> Any:
        """What the handler computes of clips and pieces of captions, (clips, pieces)."""
        pixels = {name.removeprefix(SEEN): values for name, values in batch.items() if name.startswith(SEEN)}
        tokens = {name: batch[name] for name in TOKENS}
        if isinstance(self._network, XClipNetwork):
            return self._network.compare(pixels, tokens)
        return self._network.compare(pixels, batch["frames"].tolist(), tokens)

    def use_checkpointing(self) -> None:
        # Its later name, where it has that; the earlier one then warns, and goes with Transformers 6.
        old = self._model.gradient_checkpointing_enable
        getattr(self._model, "activation_checkpointing_enable", old)({"use_reentrant": False})

    def write(self, folder: str) -> None:
        for part in (self._model, *self._parts):
            part.save_pretrained(folder)
