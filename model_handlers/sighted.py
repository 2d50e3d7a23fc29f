"""What the captioners that see a few pictures share: their preparation, and what becomes of the generated tokens.

class Shown(Sighted):                                # a network of `resident`, but for the model's own `forward`
    def forward(self, prepared):
        return self.told(self.model.generate(self.on_device(prepared), **self.search), ends=2, skip=1)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from model_handlers import answers
from model_handlers.devices import Device
from model_handlers.frames import clip_frames, exactly
from model_handlers.pretrained import load_model, load_part
from model_handlers.resident import Raw
from model_handlers.settings import Settings
from model_handlers.weights import WeightsError
from transforms.records import Clip

if TYPE_CHECKING:
    import torch


class Sighted:
    """What the networks of this family share: pictures as the checkpoint wants them, and words out of its tokens.

    Args:
      settings: how the model is loaded and asked. kind: its class in Transformers. device: where it computes.
      frames: of a clip, at every request.
    """

    def __init__(self, settings: Settings, kind: str, device: Device, frames: int, **search: Any):
        self.device, self.frames = device, frames
        self.model = load_model(kind, settings, device)
        self.tokenizer = load_tokenizer(settings)
        self.look = load_part("AutoImageProcessor", settings)
        self.search = {"do_sample": False, "max_new_tokens": settings.max_new_tokens, **search}

    def prepare(self, request: Clip) -> Any:
        """The clip's pictures, float, (frames, 3, height, width)."""
        return self.pictures(request)

    def forward(self, prepared: Sequence[Any]) -> Raw:
        """The words said of each clip, as they come out of the model."""
        raise NotImplementedError

    def pictures(self, clip: Clip) -> torch.Tensor:
        seen = exactly(clip_frames(clip, self.frames).frames, self.frames)
        pixels = self.look(seen, return_tensors="pt")["pixel_values"]
        # Those trained on videos come with a processor that nests a clip's frames.
        return pixels.reshape(-1, *pixels.shape[-3:])

    def on_device(self, pictures: Sequence[torch.Tensor]) -> torch.Tensor:
        """Pictures of several clips, (clips, frames, 3, height, width), in the numbers that the model computes in."""
        import torch

        return torch.stack(list(pictures)).to(self.device.name, self.device.dtype)

    def told(self, generated: torch.Tensor, ends: int | Sequence[int], skip: int) -> Raw:
        """Each row's words, up to the token that ends it; `skip` are the tokens before the first generated one."""
        spoken = [until_end(row, ends) for row in generated[:, skip:].tolist()]
        texts = [self.tokenizer.decode(said.tokens, skip_special_tokens=True) for said in spoken]
        return Raw(texts, sum(said.generated for said in spoken))

    def finish(self, request: Clip, raw: str) -> str:
        return answers.clean(raw)


@dataclasses.dataclass(frozen=True)
class Spoken:
    """One generated row: its tokens before the end, and how many were generated with the one that ends it."""

    tokens: list[int]
    generated: int


def until_end(row: Sequence[int], ends: int | Sequence[int]) -> Spoken:
    """Cut a generated row at the first token that ends it; what follows only pads it to the longest of its batch."""
    stops = {ends} if isinstance(ends, int) else set(ends)
    length = next((number for number, token in enumerate(row) if token in stops), None)
    return Spoken(list(row), len(row)) if length is None else Spoken(list(row[:length]), length + 1)


def load_tokenizer(settings: Settings, **more: Any) -> Any:
    """A checkpoint's tokenizer, as its `tokenizer.json` has it.

    `AutoTokenizer` rebuilds it by the class that the checkpoint names. Transformers knows that class to be wrong for
    BLIP-2 and InstructBLIP, but knows those by their hub ids alone, not in a directory or bucket.
    """
    try:
        tokenizer = load_part("PreTrainedTokenizerFast", settings, **more)
    except WeightsError:
        tokenizer = load_part("AutoTokenizer", settings, **more)
    # A first use puts away the padding that a file may have set; threads that did so at once would disturb each other.
    tokenizer("")
    return tokenizer


def without_float16(device: Device, text_config: Any) -> Device:
    """The device, in bfloat16 where it would have computed a T5 in float16.

    T5's feed-forward layers exceed float16's range and their captions turn into noise. bfloat16 has the range of
    float32 at half its memory; GPUs that lack it compute it slowly, yet right.
    """
    import torch

    if device.dtype == torch.float16 and "t5" in text_config.model_type:
        return dataclasses.replace(device, dtype=torch.bfloat16)
    return device


def padded(rows: Sequence[torch.Tensor], *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack embeddings (length, width) of several lengths, and the mask of what is no padding.

    A model that goes on writing behind its prompt needs the padding on the `left`; an encoder has it on the right.
    """
    import torch

    longest = max(len(row) for row in rows)
    stacked = rows[0].new_zeros(len(rows), longest, rows[0].shape[1])
    mask = torch.zeros(len(rows), longest, dtype=torch.long, device=stacked.device)
    for number, row in enumerate(rows):
        here = slice(longest - len(row), None) if left else slice(0, len(row))
        stacked[number, here], mask[number, here] = row, 1
    return stacked, mask


def ones(inputs: torch.Tensor) -> torch.Tensor:
    """A mask for rows without padding."""
    import torch

    return torch.ones(inputs.shape[:2], dtype=torch.long, device=inputs.device)


def opened(language: Any) -> int:
    """The tokens before the first generated one: an encoder-decoder starts with one of its own."""
    return 1 if language.config.is_encoder_decoder else 0
