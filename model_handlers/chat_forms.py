"""How a chat model wants to be shown a clip and asked about it: what follows from its processor and its chat template.

    form = chat_form(load_processor(settings, model.config), model.config, frames=8)
    tensors = form.inputs(asked, seen, clip.span.duration_s)       # of one clip: input_ids, pixel_values_videos ...

Frames go in as one video where the processor and the template know videos, else as several images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from model_handlers.frames import ClipFrames
from model_handlers.pretrained import load_part
from model_handlers.prompts import Asked
from model_handlers.settings import Settings
from model_handlers.weights import WeightsError

#: Processors take the times of frames as their numbers on a clock. Ours ticks a thousand times a second, since the
#: frames of a reel have no common rate.
TICKS_PER_S = 1000

#: LLaVA's form for Vicuna. Its first checkpoints hold no template; what they were trained on stands in their papers.
VICUNA_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'][0]['text'] }} "
    "{% else %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}<{{ part['type'] }}>\n{% endif %}{% endfor %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)
#: Families whose first checkpoints lack a template, by `config.model_type`.
TEMPLATES = {"video_llava": VICUNA_TEMPLATE, "llava_next_video": VICUNA_TEMPLATE}
#: Families whose first checkpoints name classes that Transformers no longer has, or takes for others: the processor and
#: what it is made of.
PARTS = {
    "llava_next_video": (
        "LlavaNextVideoProcessor",
        {
            "video_processor": "LlavaNextVideoVideoProcessor",
            "image_processor": "LlavaNextImageProcessor",
            "tokenizer": "AutoTokenizer",
        },
    )
}

_PROBE = "a word to find again"


@dataclasses.dataclass(frozen=True)
class ChatForm:
    """A processor and how it is used.

    Attributes:
      template: instead of the processor's own; None for that one.
      as_video: whether frames go in as one video, or as images.
      takes_system: whether the template shows a system message; where it does not, its words open the request.
    """

    processor: Any
    template: str | None
    as_video: bool
    takes_system: bool

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """What must not stand in other people's text, lest it opens a turn or counts as a picture."""
        return special_tokens_of(self.processor.tokenizer, self.processor.all_special_multimodal_tokens)

    def count_tokens(self, text: str) -> int:
        return len(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def rendered(self, asked: Asked, pictures: int) -> str:
        """The chat in the model's own words, with placeholders for a video or so many pictures."""
        seen = [{"type": "video"}] if self.as_video else [{"type": "image"}] * pictures
        if not self.takes_system:
            asked = without_system(asked)
        return unwrapped(render(self.processor, asked.messages(seen), self.template), self.processor)

    def overhead(self, system: str | None) -> int:
        """Tokens that the template adds to a system message and a request, with one placeholder."""
        said = Asked("", system, ".", 0)
        return self.count_tokens(self.rendered(said, 1)) - self.count_tokens(said.text)

    def inputs(self, asked: Asked, seen: ClipFrames, duration_s: float) -> dict[str, Any]:
        """The tensors of one clip, on the CPU, as `generate` takes them."""
        chat = self.rendered(asked, len(seen.frames))
        shown: dict[str, Any] = {}
        if self.as_video:
            seen = video_of(seen)
            shown["videos"] = [np.stack(seen.frames)]
            shown["video_metadata"] = [metadata_of(seen, duration_s)]
            # They are chosen already.
            shown["do_sample_frames"] = False
        else:
            shown["images"] = [[as_image(frame) for frame in seen.frames]]
        # Some templates write the token that begins a text themselves.
        begins = self.processor.tokenizer.bos_token
        tensors = self.processor(
            text=[chat],
            **shown,
            add_special_tokens=not (begins and chat.startswith(begins)),
            padding=False,
            truncation=False,
            return_tensors="pt",
        )
        return dict(tensors)


def load_processor(settings: Settings, config: Any) -> Any:
    """The processor of a checkpoint whose model has this configuration.

    Raises:
      WeightsError: see `pretrained.load_part`.
    """
    try:
        return load_part("AutoProcessor", settings)
    except WeightsError:
        if config.model_type not in PARTS:
            raise
    import transformers

    kind, parts = PARTS[config.model_type]
    return getattr(transformers, kind)(**{name: load_part(part, settings) for name, part in parts.items()})


def chat_form(processor: Any, config: Any, frames: int) -> ChatForm:
    """How to use the processor of a model with this configuration for clips of so many frames.

    Raises:
      WeightsError: the checkpoint holds no chat template, or one that shows no pictures.
    """
    complete(processor, config)
    template = None if getattr(processor, "chat_template", None) else TEMPLATES.get(config.model_type)
    if template is None and not getattr(processor, "chat_template", None):
        raise WeightsError(
            f"the processor of this {config.model_type} checkpoint has no chat template; name an instruct checkpoint"
        )
    videos = frames > 1 and getattr(processor, "video_processor", None) is not None
    as_video = videos and _shows(processor, template, "video")
    if not as_video and not _shows(processor, template, "image"):
        raise WeightsError(f"the chat template of this {config.model_type} checkpoint shows neither video nor images")
    seen = [{"type": "video" if as_video else "image"}]
    return ChatForm(processor, template, as_video, takes_system(processor, seen, template))


def special_tokens_of(tokenizer: Any, more: Iterable[str] = ()) -> tuple[str, ...]:
    """Every token of a tokenizer that is not a piece of text, and `more`."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return tuple(sorted({*added, *tokenizer.all_special_tokens, *more}))


def _shows(processor: Any, template: str | None, kind: str) -> bool:
    """Whether a video or an image of a chat becomes the placeholder that the processor looks for."""
    import jinja2

    placeholder = getattr(processor, f"{kind}_token", None)
    try:
        chat = render(processor, Asked("", None, _PROBE, 0).messages([{"type": kind}]), template)
    except (jinja2.TemplateError, TypeError):
        return False
    return placeholder is not None and placeholder in chat


def takes_system(speaker: Any, seen: Sequence[Mapping[str, Any]], template: str | None = None) -> bool:
    """Whether the chat template of a processor or tokenizer shows a system message; some refuse it, some drop it."""
    import jinja2

    try:
        chat = render(speaker, Asked("", _PROBE, "Hello.", 0).messages(seen), template)
    except (jinja2.TemplateError, TypeError):
        return False
    return _PROBE in chat


def without_system(asked: Asked) -> Asked:
    """The same words, all of them in the request."""
    return dataclasses.replace(asked, system=None, request=asked.text)


def render(speaker: Any, messages: Sequence[Mapping[str, Any]], template: str | None = None) -> str:
    """The chat as text, up to where the model's answer begins; `speaker` is a processor or a tokenizer."""
    # Thoughts would use up the tokens of the caption. Only templates that know the switch are told.
    knows = "enable_thinking" in str(template or getattr(speaker, "chat_template", ""))
    switches = {"enable_thinking": False} if knows else {}
    return speaker.apply_chat_template(
        list(messages), chat_template=template, tokenize=False, add_generation_prompt=True, **switches
    )


def complete(processor: Any, config: Any) -> None:
    """Tell a processor what its checkpoint leaves open: LLaVA's of before 2025, how many tokens a picture takes."""
    if hasattr(processor, "patch_size") and hasattr(processor, "vision_feature_select_strategy"):
        vision = config.vision_config
        if processor.patch_size is None:
            # CLIP puts a token before those of the patches, SigLIP does not.
            processor.num_additional_image_tokens = 1 if vision.model_type == "clip_vision_model" else 0
        processor.patch_size = vision.patch_size
        processor.vision_feature_select_strategy = config.vision_feature_select_strategy
    # Qwen's own code caps the pixels of a frame. Transformers does not by itself, and says so in a warning.
    if getattr(getattr(processor, "video_processor", None), "cap_pixels_per_frame", False) is None:
        processor.video_processor.cap_pixels_per_frame = True


def context_of(text_config: Any) -> int | None:
    """Tokens that a decoder holds, question and answer together; None where its configuration does not say."""
    length = getattr(text_config, "max_position_embeddings", None)
    scaling = getattr(text_config, "rope_parameters", None) or {}
    if length and scaling.get("rope_type") in ("linear", "dynamic"):
        return int(length * scaling.get("factor", 1.0))
    return length


def metadata_of(seen: ClipFrames, duration_s: float) -> dict[str, Any]:
    """What a video processor is told of the frames: when each is shown, and how long the clip is."""
    ticks = [round(time_s * TICKS_PER_S) for time_s in seen.times]
    return {
        "fps": float(TICKS_PER_S),
        "duration": duration_s,
        "total_num_frames": max(round(duration_s * TICKS_PER_S), ticks[-1] + 1),
        "frames_indices": ticks,
    }


def as_image(frame: np.ndarray) -> Any:
    from PIL import Image

    # Not an array: some processors guess where its colours are, and guess wrong of one three pixels high.
    return Image.fromarray(frame)


def video_of(seen: ClipFrames) -> ClipFrames:
    """The frames in the size of the first, since a stream may change it midway; and two of them at least.

    Qwen3-VL reads frames in pairs, and refuses a video of one; others repeat the last one themselves.
    """
    height, width = seen.frames[0].shape[:2]
    frames = [
        frame if frame.shape[:2] == (height, width) else np.asarray(as_image(frame).resize((width, height)))
        for frame in seen.frames
    ]
    return ClipFrames(frames * 2, seen.times * 2) if len(frames) == 1 else ClipFrames(frames, seen.times)


def unwrapped(chat: str, processor: Any) -> str:
    """The chat of a Qwen3-VL without the template's tokens round its video.

    Each pair of frames has such tokens of its own there, after its time, and the model was trained on these alone. Its
    processor took the outer ones off until Transformers 5.10 left them standing.
    """
    if type(processor).__name__ != "Qwen3VLProcessor":
        return chat
    wrapped = f"{processor.vision_start_token}{processor.video_token}{processor.vision_end_token}"
    return chat.replace(wrapped, processor.video_token)
