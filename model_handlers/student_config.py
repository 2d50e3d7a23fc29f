"""What a student captioner consists of, as `config.json` says it.

    config = StudentConfig(vision_config=CLIPVisionConfig(), text_config=LlamaConfig())
    config.save_pretrained("student")

Imports Transformers at the top, so it is itself imported inside functions alone (as `model_handlers.student_network`).
The paper's sizes are the defaults (arXiv 2402.19479, section 3.4, appendix D.1): 8 frames, 32 queries of 768.
"""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Callable
from typing import Any, ClassVar

from transformers import AutoConfig, Blip2QFormerConfig, PreTrainedConfig

from model_handlers.student_files import beside, is_beside

MODEL_TYPE = "reelscribe-student"
LITE_VISION_TYPE = "reelscribe-lite-vision"

#: BLIP-2's Q-Former as published; its text branch "has the same architecture" (section 3.4). Video-LLaMA, whose vision
#: branch this is, fuses frames in two layers that both look at the frames.
VIDEO_QFORMER = {"num_hidden_layers": 2, "cross_attention_frequency": 1}

#: An image encoder whose states the Q-Former was trained on as they are: they end in a normalisation of their own.
NORMALISED = ("blip_2_vision_model",)


class LiteVisionConfig(PreTrainedConfig):
    """EfficientNet-Lite0, the `lite` profile's image encoder: a map of 7 x 7 vectors of 1280 from 224 x 224 pixels."""

    model_type = LITE_VISION_TYPE

    hidden_size: int = 1280
    image_size: int = 224


class StudentConfig(PreTrainedConfig):
    """The parts of a student and how they are joined.

    Attributes:
      vision_config: of the frozen image encoder. text_config: of the frozen language model.
      qformer_config: of what reads each frame. video_qformer_config: of what reads all frames. text_qformer_config: of
        what reads titles and subtitles. The widths that they read follow from their neighbours.
      frames: of a clip, as trained. max_frames: that there are positions for. queries: tokens a branch.
      max_text_tokens: of the text that there are positions for.
      begin_token_id: what opens a text in the language model, None where nothing does.
      end_token_id: what ends a caption.
      freeze_qformer: whether what reads each frame stays as it was loaded (Video-LLaMA: yes).
      lora: {"r", "alpha", "targets"} of adapters in the language model, beyond the paper; None: it stays as it is.
      save_frozen: whether the directory holds the frozen parts; else `references` says where they are.
      references: {"vision" | "qformer" | "language": {"weights", "revision", "version"}}.

    Raises:
      ValueError: parts that do not fit each other.
    """

    model_type = MODEL_TYPE
    sub_configs: ClassVar[dict[str, Any]] = {
        "vision_config": AutoConfig,
        "qformer_config": Blip2QFormerConfig,
        "video_qformer_config": Blip2QFormerConfig,
        "text_qformer_config": Blip2QFormerConfig,
        "text_config": AutoConfig,
    }

    vision_config: Any = None
    qformer_config: Any = None
    video_qformer_config: Any = None
    text_qformer_config: Any = None
    text_config: Any = None
    frames: int = 8
    max_frames: int = 32
    queries: int = 32
    max_text_tokens: int = 512
    begin_token_id: int | None = None
    end_token_id: int | None = None
    freeze_qformer: bool = False
    lora: dict[str, Any] | None = None
    save_frozen: bool = True
    references: dict[str, Any] | None = None

    def __post_init__(self, **more: Any) -> None:
        self.vision_config = _part(self.vision_config, "clip_vision_model")
        self.text_config = _part(self.text_config, "llama")
        self.qformer_config = _qformer(self.qformer_config, {})
        self.video_qformer_config = _qformer(self.video_qformer_config, VIDEO_QFORMER)
        self.text_qformer_config = _qformer(self.text_qformer_config, {})
        self.qformer_config.encoder_hidden_size = vision_width(self.vision_config)
        self.video_qformer_config.encoder_hidden_size = self.qformer_config.hidden_size
        self.text_qformer_config.encoder_hidden_size = language_width(self.text_config)
        self._check()
        super().__post_init__(**more)

    @property
    def prefix(self) -> int:
        """Tokens before the caption: the opening one, those of the text branch and those of the video branch."""
        return 2 * self.queries + (self.begin_token_id is not None)

    @property
    def normalises_states(self) -> bool:
        """Whether the image encoder's states are normalised before the Q-Former reads them."""
        return self.vision_config.model_type not in NORMALISED

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> Any:
        """The language model's, for whoever asks for the vocabulary."""
        return self.text_config.get_text_config(decoder=decoder, encoder=encoder)

    def save_pretrained(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **more: Any) -> None:
        """Write `config.json`; in it, directories are told from there, so that they may be moved together."""
        start, here = os.path.abspath(save_directory), self.references
        self.references = _moved(here, os.path.isabs, lambda path: beside(os.path.relpath(path, start)))
        try:
            super().save_pretrained(save_directory, push_to_hub, **more)
        finally:
            self.references = here

    def find_references(self, folder: str | os.PathLike[str]) -> None:
        """Tell the places of parts from here, not from the directory that they were read in."""
        if os.path.isdir(start := os.path.abspath(folder)):
            find = functools.partial(os.path.join, start)
            self.references = _moved(self.references, is_beside, lambda path: os.path.normpath(find(path)))

    def _check(self) -> None:
        if self.text_config.is_encoder_decoder:
            raise ValueError(f"the language model must be causal; {self.text_config.model_type} reads and writes apart")
        video, text = self.video_qformer_config.hidden_size, self.text_qformer_config.hidden_size
        if video != text:
            raise ValueError(f"the text branch asks with the video's tokens, so both must be {video} wide, not {text}")
        if not 0 < self.frames <= self.max_frames:
            raise ValueError(f"frames must be 1 to max_frames ({self.max_frames}), not {self.frames}")
        limit = getattr(self.text_config.get_text_config(), "max_position_embeddings", None)
        if limit is not None and limit <= self.prefix:
            raise ValueError(f"the language model reads {limit} tokens, too few for {self.prefix} and a caption")
        if self.lora is not None and set(self.lora) != {"r", "alpha", "targets"}:
            raise ValueError(f"lora must hold r, alpha and targets, not {', '.join(sorted(self.lora)) or 'nothing'}")


def _moved(references: dict[str, Any] | None, which: Callable[[str], bool], move: Callable[[str], str]) -> Any:
    places = (references or {}).items()
    return references and {
        name: {**place, "weights": move(place["weights"])} if which(place["weights"]) else place
        for name, place in places
    }


def vision_width(config: Any) -> int:
    """How wide an image encoder's states are; `ValueError` where its configuration does not say."""
    width = getattr(config, "hidden_size", None)
    if not isinstance(width, int):
        raise ValueError(f"{config.model_type} has no states of one width (hidden_size); name a vision transformer")
    return width


def language_width(config: Any) -> int:
    """How wide a language model's input embeddings are; some of OPT's are narrower than what follows."""
    text = config.get_text_config()
    return getattr(text, "word_embed_proj_dim", None) or text.hidden_size


def _nameless(config: PreTrainedConfig) -> PreTrainedConfig:
    """A copy that does not tell from which directory of this machine it was read."""
    copied = copy.deepcopy(config)
    copied.name_or_path = ""
    return copied


def _part(values: dict[str, Any] | PreTrainedConfig | None, usual: str) -> PreTrainedConfig:
    if isinstance(values, PreTrainedConfig):
        return _nameless(values)
    values = dict(values or {})
    kind = values.pop("model_type", usual)
    return LiteVisionConfig(**values) if kind == LITE_VISION_TYPE else AutoConfig.for_model(kind, **values)


def _qformer(values: dict[str, Any] | PreTrainedConfig | None, usual: dict[str, Any]) -> PreTrainedConfig:
    if isinstance(values, PreTrainedConfig):
        return _nameless(values)
    return Blip2QFormerConfig(**{**usual, **(values or {})})
