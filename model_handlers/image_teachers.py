"""Image captioners, the paper's among them: pictures of a clip in, a caption out, and no text beside them.

    clips | RunInference(CaptionerTeacher("blip2-opt-2.7b", Settings("Salesforce/blip2-opt-2.7b", revision, frames=1)))
    clips | RunInference(FlorenceTeacher("florence-2", Settings("models/florence-2", prompt="caption", frames=1)))

`CaptionerTeacher` serves BLIP, BLIP-2 and GIT, by the checkpoint's own model type. They see one random frame of the
clip's middle (section 3.2); the GIT checkpoints trained on VATEX see six uniform ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from model_handlers.devices import Device
from model_handlers.pretrained import load_part
from model_handlers.resident import Raw, ResidentHandler
from model_handlers.settings import Settings
from model_handlers.sighted import Sighted, ones, opened, without_float16
from model_handlers.weights import WeightsError
from transforms.records import Clip

#: Beams are the authors' own (LAVIS: BLIP 3, BLIP-2 5; Florence-2's model card: 3); the search is as repeatable as
#: greedy decoding. GIT's authors take 4, but its class would pass each picture through the encoder once a beam.
BEAMS = {"blip": 3, "blip-2": 5, "git": 1, "florence2": 3}

#: What Florence-2 was trained to be asked for, by the names that a profile gives.
FLORENCE_TASKS = {
    "caption": "<CAPTION>",
    "detailed-caption": "<DETAILED_CAPTION>",
    "more-detailed-caption": "<MORE_DETAILED_CAPTION>",
}


class Blip(Sighted):
    """BLIP (Li et al., 2022): a picture encoder, and a text decoder that attends to it."""

    def forward(self, prepared: Sequence[Any]) -> Raw:
        generated = self.model.generate(pixel_values=self.on_device(prepared)[:, 0], **self.search)
        return self.told(generated, self.model.config.text_config.sep_token_id, skip=1)


class Blip2(Sighted):
    """BLIP-2 (Li et al., 2023): queries read the picture, and a frozen language model goes on from them.

    The language model gets the queries' outputs and its opening token, which is what Transformers' own `generate` makes
    of a picture without a prompt. It is spelled out here since that needs an `<image>` token in configuration and
    tokenizer, which checkpoints published before the end of 2024 lack.
    """

    def forward(self, prepared: Sequence[Any]) -> Raw:
        import torch

        features = self.model.get_image_features(self.on_device(prepared)[:, 0], return_dict=True).pooler_output
        opening = torch.full((len(prepared), 1), self._opening(), device=features.device)
        embedded = self.model.get_input_embeddings()(opening)
        inputs = torch.cat([features.to(embedded.dtype), embedded], dim=1)
        language = self.model.language_model
        generated = language.generate(inputs_embeds=inputs, attention_mask=ones(inputs), **self.search)
        # The end is the checkpoint's own: BLIP-2 taught OPT to end a caption with a new line.
        return self.told(generated, language.generation_config.eos_token_id, skip=opened(language))

    def _opening(self) -> int:
        # What their tokenizers make of no words: OPT's begins each text with a token, T5's ends it with one.
        config = self.model.config.text_config
        return config.eos_token_id if config.is_encoder_decoder else config.bos_token_id


class Git(Sighted):
    """GIT (Wang et al., 2022): one decoder over the patches of a picture, or of six, and the words so far."""

    def forward(self, prepared: Sequence[Any]) -> Raw:
        import torch

        config = self.model.config
        pictures = self.on_device(prepared)
        opening = torch.full((len(prepared), 1), config.bos_token_id, device=pictures.device)
        generated = self.model.generate(
            # The model tells a video from a picture by the dimension of frames.
            pixel_values=pictures if config.num_image_with_embedding else pictures[:, 0],
            input_ids=opening,
            attention_mask=ones(opening),
            **self.search,
        )
        return self.told(generated, config.eos_token_id, skip=1)


class Florence(Sighted):
    """Florence-2 (Xiao et al., 2024): a picture and one of the tasks that it was trained on.

    Attributes:
      asked: the tokens of the task behind those that the picture takes, (tokens,); of one length for all pictures.
    """

    def __init__(self, settings: Settings, kind: str, device: Device, frames: int, **search: Any):
        super().__init__(settings, kind, device, frames, **search)
        any_picture = np.zeros((64, 64, 3), np.uint8)
        processor = load_part("AutoProcessor", settings)
        self.look = processor.image_processor
        self.asked = processor(text=florence_task(settings.prompt), images=any_picture, return_tensors="pt").input_ids[
            0
        ]

    def forward(self, prepared: Sequence[Any]) -> Raw:
        pictures = self.on_device(prepared)[:, 0]
        asked = self.asked.to(pictures.device).expand(len(prepared), -1)
        generated = self.model.generate(
            pixel_values=pictures, input_ids=asked, attention_mask=ones(asked), **self.search
        )
        return self.told(generated, self.model.config.text_config.eos_token_id, skip=opened(self.model))


def florence_task(prompt: str) -> str:
    """The task that a profile's prompt names: `detailed-caption` and its like, or the task's token itself.

    Raises:
      ValueError: Florence-2 was not trained on it, or it does not answer with a caption.
    """
    if prompt in FLORENCE_TASKS.values():
        return prompt
    task = FLORENCE_TASKS.get(prompt or "detailed-caption")
    if task is None:
        raise ValueError(f"prompt must be one of {', '.join(FLORENCE_TASKS)} for Florence-2, not {prompt!r}")
    return task


def captioned_frames(config: Any) -> int:
    """How many frames of a clip a captioner was trained to see, by its configuration."""
    return getattr(config, "num_image_with_embedding", None) or 1


class PictureTeacher(ResidentHandler[Clip, str]):
    """A teacher that reads no text.

    Raises:
      ValueError: the settings give it text.
    """

    def __init__(self, name: str, settings: Settings):
        super().__init__(name, settings)
        if settings.inputs != "V":
            raise ValueError(f"inputs must be V for {name}, which reads no text, not {settings.inputs}")


class CaptionerTeacher(PictureTeacher):
    """BLIP, BLIP-2 or GIT, as the checkpoint says."""

    def network(self, device: Device) -> Sighted:
        config = load_part("AutoConfig", self.settings)
        kinds: dict[str, tuple[type[Sighted], str]] = {
            "blip": (Blip, "BlipForConditionalGeneration"),
            "blip-2": (Blip2, "Blip2ForConditionalGeneration"),
            "git": (Git, "GitForCausalLM"),
        }
        if config.model_type not in kinds:
            raise WeightsError(f"{self.settings.weights} is a {config.model_type}; name one of {', '.join(kinds)}")
        if (frames := captioned_frames(config)) != self.settings.frames:
            raise ValueError(f"frames must be {frames} for {self.settings.weights}, not {self.settings.frames}")
        family, kind = kinds[config.model_type]
        device = without_float16(device, getattr(config, "text_config", config))
        return family(self.settings, kind, device, frames, num_beams=BEAMS[config.model_type])


class FlorenceTeacher(PictureTeacher):
    """Florence-2, by the task that `prompt` names: a caption, a detailed one, or a more detailed one."""

    def __init__(self, name: str, settings: Settings):
        super().__init__(name, settings)
        florence_task(settings.prompt)
        if settings.frames != 1:
            raise ValueError(f"frames must be 1 for {name}, not {settings.frames}")

    def network(self, device: Device) -> Florence:
        return Florence(self.settings, "Florence2ForConditionalGeneration", device, 1, num_beams=BEAMS["florence2"])
