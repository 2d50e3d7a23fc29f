"""A teacher that sees nothing itself: a language model told of a clip's text, and of what a recogniser saw in it.

    settings = Settings("Qwen/Qwen2.5-7B-Instruct", revision="...", inputs="V-S-M", prompt="tags-sentence")
    clips | RunInference(TextChatTeacher("qwen-tags", settings))       # answers the caption

The part of VideoChat-Text among the paper's teachers (section 3.2): the picture reaches the model in words. The
recogniser is that of the `lite` profile, on the CPU, so that no more than the language model stands on the GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from model_handlers import wording
from model_handlers.answers import clean
from model_handlers.chat_forms import render, special_tokens_of, takes_system, without_system
from model_handlers.chat_teacher import Speaker, Tensors, in_trained_range, prompt_of
from model_handlers.devices import Device
from model_handlers.frames import open_reel
from model_handlers.labels import Labels, load_labels
from model_handlers.lite import CLIP_FRAMES
from model_handlers.pretrained import load_model, load_part
from model_handlers.prompts import Asked, PromptError, fit
from model_handlers.resident import Raw, ResidentHandler
from model_handlers.settings import Settings
from model_handlers.vision import Vision, load_vision
from model_handlers.weights import WeightsError
from transforms.records import Clip

#: Tags that are handed over at the most, and how probable each must be on average over the frames: below, the
#: recogniser guesses, and a language model would take its guesses for the clip.
MOST_TAGS = 8
LEAST_PROBABILITY = 0.05


class TextChatTeacher(ResidentHandler[Clip, str]):
    """Asks a text-only chat model for a caption.

    `settings.inputs` say what it is told: V, the tags of twelve uniform frames; S, the subtitles; M, title and
    description. `settings.frames` has no meaning here.
    """

    def network(self, device: Device) -> TextChatNetwork:
        device = in_trained_range(device, self.settings)
        model = load_model("AutoModelForCausalLM", self.settings, device)
        return TextChatNetwork(model, load_part("AutoTokenizer", self.settings), self.settings, device)


class TextChatNetwork:
    """A language model, what it is asked, and the recogniser; see `resident.Network`.

    Raises:
      WeightsError: the tokenizer holds no chat template.
      PromptError: the prompt is unknown, or has no line for the inputs or the tags.
    """

    def __init__(self, model: Any, tokenizer: Any, settings: Settings, device: Device):
        if not tokenizer.chat_template:
            raise WeightsError(f"{settings.weights} has no chat template; name an instruct checkpoint")
        self._tokenizer, self._settings = tokenizer, settings
        self._speaker = Speaker(model, tokenizer, settings.max_new_tokens, device)
        self._prompt = prompt_of(settings, "tags-sentence")
        self._takes_system = takes_system(tokenizer, ())
        self._special = special_tokens_of(tokenizer)
        said = Asked("", self._prompt.system, ".", 0)
        overhead = self._count(self._rendered(said)) - self._count(said.text)
        self._budget = self._speaker.room(settings.text_tokens) - overhead
        self._recogniser = (load_vision(), load_labels()) if "V" in settings.inputs.split("-") else None
        if self._recogniser and "tags" not in self._prompt.slots:
            raise PromptError(f"the prompt {self._prompt.prompt_id} has no line {{tags}} for what the recogniser saw")

    def prepare(self, request: Clip) -> Tensors:
        """The tensors of one clip.

        Raises:
          ReelError: its reel is unreadable. NothingToTell: there is neither text nor a picture to go by.
          PromptTooLong: see `prompts.fit`.
        """
        asked = fit(
            self._prompt,
            request,
            self._settings.inputs,
            self._count,
            self._budget,
            tags=clip_tags(request, *self._recogniser) if self._recogniser else (),
            special_tokens=self._special,
        )
        # The template writes the token that begins a text itself.
        return dict(self._tokenizer(self._rendered(asked), add_special_tokens=False, return_tensors="pt"))

    def forward(self, prepared: Sequence[Tensors]) -> Raw:
        return self._speaker.answer(prepared)

    def finish(self, request: Clip, raw: str) -> str:
        return clean(raw)

    def _rendered(self, asked: Asked) -> str:
        return render(self._tokenizer, (asked if self._takes_system else without_system(asked)).messages())

    def _count(self, text: str) -> int:
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def clip_tags(clip: Clip, vision: Vision, labels: Labels) -> list[str]:
    """What the clip's frames show, surest first; `ReelError` where its reel is unreadable."""
    reel = open_reel(clip.reel)
    rows = reel.uniform(clip.span.start_s, clip.span.end_s, CLIP_FRAMES)
    return voted_tags(labels, vision.look(reel, rows).probabilities)


def voted_tags(labels: Labels, probabilities: np.ndarray) -> list[str]:
    """The labels that frames (n, 1000) vote for, each with its mean probability; one at the least.

    Where they agree on no label, they may on a group or a kind of things: "an animal (41%)".
    """
    mean = probabilities.mean(axis=0)
    chosen = [label for label in wording.best(mean, MOST_TAGS) if mean[label] >= LEAST_PROBABILITY]
    if not chosen:
        name, probability = wording.climbed(labels, mean)
        return [_tag(name.rstrip(","), probability)]
    return [_tag(labels.phrases[label], float(mean[label])) for label in chosen]


def _tag(phrase: str, probability: float) -> str:
    return f"{phrase} ({probability:.0%})"
