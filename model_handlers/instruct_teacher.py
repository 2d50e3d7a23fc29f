"""InstructBLIP, on one frame of a clip or on several: pictures and a prompt in, a caption out.

    clips | RunInference(InstructTeacher("instructblip", Settings("Salesforce/instructblip-vicuna-7b", revision,
                                                                  inputs="V-S-M", prompt="frame-sentence", frames=1)))

With `frames=4` it is what Transformers calls InstructBLIP-Video: the same checkpoints, whose queries read each frame by
itself and stand before the prompt one frame after another. Both teachers have one copy of the weights on a device.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from model_handlers import prompts
from model_handlers.devices import Device
from model_handlers.pretrained import load_part
from model_handlers.resident import Raw, ResidentHandler
from model_handlers.settings import Settings, check_sees
from model_handlers.sighted import Sighted, load_tokenizer, opened, padded, without_float16
from model_handlers.weights import WeightsError
from transforms.records import Clip

if TYPE_CHECKING:
    import torch

#: As the authors search (LAVIS): without the penalty a caption goes round in circles.
SEARCH = {"num_beams": 5, "repetition_penalty": 1.5, "length_penalty": 1.0}

KINDS = {
    "instructblip": "InstructBlipForConditionalGeneration",
    "instructblipvideo": "InstructBlipVideoForConditionalGeneration",
}
#: Tokens that the processors of these checkpoints add, whether their tokenizers know them or not.
PICTURE_TOKENS = ("<image>", "<video>")


@dataclasses.dataclass(frozen=True)
class Asked:
    """A clip made ready.

    Attributes:
      pictures: float, (frames, 3, height, width). words: tokens for the language model.
      guiding: tokens for the Q-Former, which looks for what the prompt is about.
    """

    pictures: torch.Tensor
    words: list[int]
    guiding: list[int]


class Instruct(Sighted):
    """InstructBLIP (Dai et al., 2023): the prompt tells the Q-Former what to look for; a language model answers it."""

    def __init__(self, settings: Settings, kind: str, device: Device):
        super().__init__(settings, kind, device, settings.frames, **SEARCH)
        self._guide = load_tokenizer(settings, subfolder="qformer_tokenizer")
        usual = "frame-sentence" if settings.frames == 1 else "video-sentence"
        self._prompt = settings.asked() if settings.prompt else prompts.prompt(usual)
        self._inputs = settings.inputs
        config = self.model.config
        self._budgets = budgets(config, settings)
        self._special = (*PICTURE_TOKENS, *self.tokenizer.all_special_tokens, *self._guide.all_special_tokens)
        self._width = config.text_config.hidden_size

    def prepare(self, request: Clip) -> Asked:
        words, guiding = self._budgets
        return Asked(
            self.pictures(request),
            self._tokens(request, self.tokenizer, words),
            self._tokens(request, self._guide, guiding),
        )

    def _tokens(self, clip: Clip, tokenizer: Any, budget: int) -> list[int]:
        """The prompt's tokens, with as much of the clip's text as there is room for; the Q-Former has the least."""

        def count(text: str) -> int:
            return len(tokenizer(text).input_ids)

        asked = prompts.fit(self._prompt, clip, self._inputs, count, budget, special_tokens=self._special)
        return tokenizer(asked.text).input_ids

    def forward(self, prepared: Sequence[Asked]) -> Raw:
        import torch

        features = self._features(prepared)
        embed = self.model.get_input_embeddings()
        rows = []
        for seen, asked in zip(features, prepared, strict=True):
            words = embed(torch.tensor(asked.words, device=features.device))
            rows.append(torch.cat([seen.to(words.dtype), words]))
        language = self.model.language_model
        decodes = not language.config.is_encoder_decoder
        inputs, mask = padded(rows, left=decodes)
        generated = language.generate(inputs_embeds=inputs, attention_mask=mask, **self.search)
        return self.told(generated, language.generation_config.eos_token_id, skip=opened(language))

    def _features(self, prepared: Sequence[Asked]) -> torch.Tensor:
        """What the queries read of each clip's frames, one after another: (clips, frames x queries, width)."""
        import torch

        pictures = self.on_device([asked.pictures for asked in prepared])
        longest = max(len(asked.guiding) for asked in prepared)
        tokens = torch.zeros(len(prepared), longest, dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for number, asked in enumerate(prepared):
            tokens[number, : len(asked.guiding)] = torch.tensor(asked.guiding)
            mask[number, : len(asked.guiding)] = 1
        asking = {
            "qformer_input_ids": tokens.to(pictures.device).repeat_interleave(self.frames, dim=0),
            "qformer_attention_mask": mask.to(pictures.device).repeat_interleave(self.frames, dim=0),
        }
        # A video is so many pictures under one prompt, whichever of the two classes was loaded.
        if hasattr(self.model, "get_image_features"):
            features = self.model.get_image_features(pictures.flatten(0, 1), **asking, return_dict=True)
        else:
            features = self.model.get_video_features(pictures.flatten(0, 1)[:, None], **asking, return_dict=True)
        return features.pooler_output.reshape(len(prepared), -1, self._width)


def budgets(config: Any, settings: Settings) -> tuple[int, int]:
    """Tokens that the prompt may have in the language model, and in the Q-Former.

    A T5 has no limit of its own; of the others' the frames' queries and the answer are taken off.
    """
    limit = getattr(config.text_config, "max_position_embeddings", None)
    room = settings.text_tokens
    if limit is not None:
        room = min(room, limit - settings.frames * config.num_query_tokens - settings.max_new_tokens)
    return room, min(settings.text_tokens, config.qformer_config.max_position_embeddings)


class InstructTeacher(ResidentHandler[Clip, str]):
    """InstructBLIP, asked by the prompt that the settings name."""

    def __init__(self, name: str, settings: Settings):
        super().__init__(name, settings)
        check_sees(name, settings)

    def network(self, device: Device) -> Instruct:
        config = load_part("AutoConfig", self.settings)
        if config.model_type not in KINDS:
            raise WeightsError(f"{self.settings.weights} is a {config.model_type}; name one of {', '.join(KINDS)}")
        device = without_float16(device, config.text_config)
        return Instruct(self.settings, KINDS[config.model_type], device)
