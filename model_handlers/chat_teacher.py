"""A teacher out of any image-text-to-text model of Transformers: Qwen-VL, SmolVLM, InternVL, LLaVA, Gemma 3 and others.

    settings = Settings("Qwen/Qwen2.5-VL-7B-Instruct", revision="...", inputs="V-S-M", frames=16)
    clips | RunInference(ChatTeacher("qwen2.5-vl", settings))          # answers the caption

What differs between the families follows from their processors and chat templates (see `chat_forms`). Each clip is
prepared alone, on a thread; a batch is put together out of what was prepared, padded on the left.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from model_handlers.answers import clean
from model_handlers.chat_forms import ChatForm, chat_form, context_of, load_processor
from model_handlers.devices import Device
from model_handlers.frames import clip_frames
from model_handlers.pretrained import load_model
from model_handlers.prompts import Asked, Prompt, fit, prompt
from model_handlers.resident import Raw, ResidentHandler
from model_handlers.settings import Settings, check_sees
from transforms.records import Clip

#: One value a token of the text. All other tensors hold pictures, or tell of them, one after another along the first
#: dimension.
TEXT_TENSORS = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")

Tensors = dict[str, Any]


class ChatTeacher(ResidentHandler[Clip, str]):
    """Asks a vision-language model for a caption of a clip's frames and, by `settings.inputs`, its text."""

    def __init__(self, name: str, settings: Settings):
        super().__init__(name, settings)
        check_sees(name, settings)

    def network(self, device: Device) -> ChatNetwork:
        device = in_trained_range(device, self.settings)
        model = load_model("AutoModelForImageTextToText", self.settings, device)
        form = chat_form(load_processor(self.settings, model.config), model.config, self.settings.frames)
        return ChatNetwork(model, form, self.settings, device)


def in_trained_range(device: Device, settings: Settings) -> Device:
    """The device, in bfloat16 where "auto" would be float16: chat models are trained in bfloat16 and exceed its range.

    GPUs that lack bfloat16 compute it slowly, yet right.
    """
    import torch

    if device.dtype == torch.float16 and settings.dtype == "auto":
        return dataclasses.replace(device, dtype=torch.bfloat16)
    return device


class ChatNetwork:
    """A model, its processor and what it is asked; see `resident.Network`.

    Raises:
      PromptError: the prompt is unknown, or has no line for the inputs.
    """

    def __init__(self, model: Any, form: ChatForm, settings: Settings, device: Device):
        self._form, self._settings, self._dtype = form, settings, device.dtype
        self._speaker = Speaker(model, form.processor.tokenizer, settings.max_new_tokens, device)
        self._prompt = prompt_of(settings, "video-sentence" if settings.frames > 1 else "frame-sentence")
        self._budget = settings.text_tokens - form.overhead(self._prompt.system)
        self._special = form.special_tokens

    def prepare(self, request: Clip) -> Tensors:
        """The tensors of one clip.

        Raises:
          ReelError: its reel is unreadable.
          PromptTooLong: the pictures and the bare request exceed the model's context.
        """
        seen = clip_frames(request, self._settings.frames)
        asked = self._ask(request, self._budget)
        tensors = self._form.inputs(asked, seen, request.span.duration_s)
        # How many tokens the pictures take is known only now.
        length = tensors["input_ids"].shape[1]
        if (excess := length - self._speaker.room(length)) > 0:
            asked = self._ask(request, self._form.count_tokens(asked.text) - excess)
            tensors = self._form.inputs(asked, seen, request.span.duration_s)
        return in_dtype(tensors, self._dtype)

    def _ask(self, clip: Clip, budget: int) -> Asked:
        return fit(
            self._prompt,
            clip,
            self._settings.inputs,
            self._form.count_tokens,
            budget,
            special_tokens=self._special,
        )

    def forward(self, prepared: Sequence[Tensors]) -> Raw:
        return self._speaker.answer(prepared)

    def finish(self, request: Clip, raw: str) -> str:
        return clean(raw)


def in_dtype(tensors: Tensors, dtype: Any) -> Tensors:
    """The same with pictures in the model's numbers: clips that wait for their batch take half the memory.

    Other numbers are times, which a model reckons with before it rounds.
    """
    return {name: tensor.to(dtype) if name.startswith("pixel_values") else tensor for name, tensor in tensors.items()}


def prompt_of(settings: Settings, usual: str) -> Prompt:
    """The prompt that the settings name, NAME or FILE.yaml#NAME, or the usual one.

    Raises:
      PromptError: it is unknown, or has no line for the inputs.
    """
    chosen = settings.asked() if settings.prompt else prompt(usual)
    chosen.check(settings.inputs)
    return chosen


class Speaker:
    """A decoder that answers batches of chats, each as if it were alone.

    Args:
      tokenizer: of its answers.
    """

    def __init__(self, model: Any, tokenizer: Any, max_new_tokens: int, device: Device):
        self._model, self._tokenizer, self._device = model, tokenizer, device
        self._context = context_of(model.config.get_text_config(decoder=True))
        self._max_new_tokens = max_new_tokens
        self._config = greedy(model.generation_config, max_new_tokens, tokenizer)
        # A tokenizer's file may ask for truncation or padding. The first call clears that; later ones, on several
        # threads, find nothing to change.
        tokenizer("warm-up", add_special_tokens=False)

    def room(self, wanted: int) -> int:
        """Tokens that a question may have: as many as are wanted, or what the answer leaves of the model's context."""
        return wanted if self._context is None else min(wanted, self._context - self._max_new_tokens)

    def answer(self, prepared: Sequence[Tensors]) -> Raw:
        """One text a chat, in order."""
        texts = [""] * len(prepared)
        tokens = 0
        for numbers in alike(prepared):
            for number, said in zip(numbers, self._generate([prepared[number] for number in numbers]), strict=True):
                texts[number] = self._tokenizer.decode(said, skip_special_tokens=True)
                tokens += len(said)
        return Raw(texts, tokens)

    def _generate(self, prepared: Sequence[Tensors]) -> list[list[int]]:
        batch = {name: tensor.to(self._device.name) for name, tensor in collate(prepared).items()}
        generated = self._model.generate(**batch, generation_config=self._config)
        return [until(row, self._config.eos_token_id) for row in generated[:, batch["input_ids"].shape[1] :].tolist()]


def greedy(config: Any, max_new_tokens: int, tokenizer: Any) -> Any:
    """A model's generation configuration without its sampling, so that reruns agree."""
    config = copy.deepcopy(config)
    # A checkpoint that names a static cache would be compiled, and compiled graphs break between threads.
    config.update(disable_compile=True)
    config.update(do_sample=False, num_beams=1, max_new_tokens=max_new_tokens, max_length=None)
    # What only sampling heeds; transformers warns of it on every call.
    config.update(temperature=None, top_p=None, top_k=None, min_p=None, typical_p=None)
    if config.eos_token_id is None:
        config.eos_token_id = tokenizer.eos_token_id
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0]
    return config


def until(row: Sequence[int], ends: int | Sequence[int] | None) -> list[int]:
    """A generated row up to its first end token, that one included; what follows is padding."""
    stops = {ends} if isinstance(ends, int) else set(ends or ())
    length = next((place + 1 for place, token in enumerate(row) if token in stops), len(row))
    return list(row[:length])


def alike(prepared: Sequence[Tensors]) -> list[list[int]]:
    """Numbers of chats that can stand in one batch: those whose pictures have the same shape.

    Families that flatten their pictures into patches always can; of the others, a clip with fewer frames or another
    number of tiles goes by itself rather than with padding that its model might take for a picture.
    """
    groups: dict[Hashable, list[int]] = {}
    for number, tensors in enumerate(prepared):
        shapes = {name: tuple(tensor.shape[1:]) for name, tensor in tensors.items() if name not in TEXT_TENSORS}
        groups.setdefault(tuple(sorted(shapes.items())), []).append(number)
    return list(groups.values())


def collate(prepared: Sequence[Mapping[str, Any]]) -> Tensors:
    """One batch out of chats whose pictures have the same shape."""
    import torch

    longest = max(tensors["input_ids"].shape[1] for tensors in prepared)
    return {
        name: torch.cat(
            [
                padded(tensors[name], longest, name == "input_ids") if name in TEXT_TENSORS else tensors[name]
                for tensors in prepared
            ]
        )
        for name in prepared[0]
    }


def padded(tensor: Any, length: int, repeats: bool) -> Any:
    """A row (1, tokens) as (1, length), filled on the left, as what is generated goes on at the right.

    Args:
      repeats: whether it is filled with its own last token, instead of zeros. No attention reaches there, but a
        repetition penalty counts what was said before, masked or not: this token is counted already. It ends the
        template's last line, so it stands for no picture.
    """
    import torch

    fill = tensor[:, -1:] if repeats else torch.zeros_like(tensor[:, -1:])
    return torch.cat([fill.expand(-1, length - tensor.shape[1]), tensor], dim=1)
