"""The student captioner: frames and texts of a clip in, a caption out, between a frozen image encoder and a frozen LLM.

    model = student_parts.from_parts(llm=Settings("models/llm"), qformer=Settings("models/blip2"))
    model(pixel_values=..., text_ids=..., text_mask=..., labels=...).loss.backward()
    model.save_pretrained("student")
    register()
    AutoModel.from_pretrained("student").generate(pixel_values=..., text_ids=..., text_mask=...)

The architecture is that of section 3.4 and appendix D.1 of arXiv 2402.19479. Its vision branch is Video-LLaMA's: a
BLIP-2 Q-Former reads each frame, learned positions tell the frames apart, a video Q-Former reads them all. Its text
branch embeds text with the language model's own embedding layer; a Q-Former reads it, whose queries are the video's
tokens without a gradient back. The language model gets the text's tokens, then the video's, then the caption.

Where the paper is silent or a plain reading of it does badly:
- A learned vector stands before each text, and alone where a clip has none. So there are always as many tokens before a
  caption, no row of a batch is padded, and none has nothing to attend to. (The paper hands its bare prompt over, whose
  embeddings are as constant.)
- The text's embeddings are normalised, as language models differ in their scale by orders of magnitude, and get
  positions, which start at zero: without these a Q-Former reads a bag of words.
- The text branch asks with the video's tokens before their projection into the language model: the same by a linear
  map, and its Q-Former is as wide as BLIP-2's.

Imports torch at the top, so it is itself imported inside functions alone.
"""

from __future__ import annotations

import inspect
import os
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    Blip2QFormerModel,
    GenerationConfig,
    PreTrainedModel,
)
from transformers import initialization as init

from model_handlers.student_config import StudentConfig, language_width, vision_width
from model_handlers.student_pieces import (
    StudentOutput,
    add_lora,
    make_language,
    make_vision,
    mark_initialised,
    recompute_in_evaluation,
    train_language,
)

#: Pictures through the image encoder at once: with a ViT-g in bfloat16 about 1 GB of activations.
PICTURES_AT_ONCE = 64
NO_LABEL = -100
HUB = ("revision", "cache_dir", "local_files_only", "token")  # what finds a directory, were it a hub's


class StudentForCaptioning(PreTrainedModel):
    """The student; see the module.

    Args:
      config: its parts. vision, language, qformer: parts that are loaded already; else they are made, at random.
    """

    config_class = StudentConfig
    config: StudentConfig
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules = ["Blip2QFormerLayer"]  # noqa: RUF012
    #: What is trained is not rounded, in whatever numbers the frozen parts are kept.
    _keep_in_fp32_modules_strict = [  # noqa: RUF012
        *("qformer", "frame_queries", "video_queries", "frame_positions", "no_text", "text_positions"),
        *("states_norm", "text_norm", "video_projection", "text_projection", "lora_"),
    ]

    def __init__(
        self,
        config: StudentConfig,
        vision: PreTrainedModel | None = None,
        language: PreTrainedModel | None = None,
        qformer: Blip2QFormerModel | None = None,
    ):
        super().__init__(config)
        width, asked = config.qformer_config.hidden_size, config.video_qformer_config.hidden_size
        spoken = language_width(config.text_config)
        self.vision: Any = vision if vision is not None else make_vision(config.vision_config)
        seen = vision_width(config.vision_config)
        self.states_norm = nn.LayerNorm(seen) if config.normalises_states else nn.Identity()
        self.frame_queries = nn.Parameter(torch.zeros(1, config.queries, width))
        self.qformer = qformer if qformer is not None else Blip2QFormerModel._from_config(config.qformer_config)
        self.frame_positions = nn.Embedding(config.max_frames, width)
        self.video_queries = nn.Parameter(torch.zeros(1, config.queries, asked))
        self.video_qformer = Blip2QFormerModel._from_config(config.video_qformer_config)
        self.video_projection = nn.Linear(asked, spoken)
        self.no_text = nn.Parameter(torch.zeros(1, 1, spoken))
        self.text_norm = nn.LayerNorm(spoken)
        self.text_positions = nn.Embedding(config.max_text_tokens, spoken)
        self.text_qformer = Blip2QFormerModel._from_config(config.text_qformer_config)
        self.text_projection = nn.Linear(asked, spoken)
        self.language: Any = language if language is not None else make_language(config.text_config)
        self._keeps_logits = "logits_to_keep" in inspect.signature(self.language.forward).parameters
        for part in filter(None, (vision, language, qformer)):
            mark_initialised(part)
        if config.lora:
            add_lora(self.language, config.lora)
        self.post_init()
        # How a published model likes to be sampled says nothing about captions.
        self.language.generation_config = self._search()
        self.freeze()
        self._leave_out()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            for queries in (self.frame_queries, self.video_queries, self.no_text):
                init.normal_(queries, std=0.02)
        elif module is self.frame_positions:
            # As large as the normalised states that they are added to. At Video-LLaMA's 0.02 a short training sees the
            # frames without their order.
            init.normal_(self.frame_positions.weight, std=1.0)
        elif module is self.text_positions:
            init.zeros_(self.text_positions.weight)

    def get_input_embeddings(self) -> Any:
        return self.language.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        return self.language.get_output_embeddings()

    # ---- what is frozen

    def is_frozen(self, name: str) -> bool:
        """Whether a tensor of this name stays as it was loaded."""
        if name.startswith(("qformer.", "frame_queries")):
            return self.config.freeze_qformer
        return name.startswith("vision.") or (name.startswith("language.") and "lora_" not in name)

    def freeze(self) -> None:
        """Let no gradient into what stays as it was loaded."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not self.is_frozen(name))
        self.train(self.training)

    def train(self, mode: bool = True) -> StudentForCaptioning:
        """As of any module, but for the frozen parts: these stay in evaluation, without dropout."""
        super().train(mode)
        self.vision.eval()
        if self.config.freeze_qformer:
            self.qformer.eval()
        train_language(self.language, mode)
        return self

    def _set_gradient_checkpointing(self, enable: bool = True, *arguments: Any, **named: Any) -> None:
        super()._set_gradient_checkpointing(enable, *arguments, **named)
        recompute_in_evaluation(self.language)
        self.train(self.training)

    # ---- the branches

    @torch.no_grad()
    def encode_frames(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The image encoder's states, which never change and so can be kept: pass them on as `features`.

        Args:
          pixel_values: normalised, (clips, frames, 3, height, width).

        Returns:
          (clips, frames, states, width), in the encoder's own numbers.
        """
        pictures = pixel_values.flatten(0, 1).to(self.vision.dtype)
        parts = [self.vision(pixel_values=part).last_hidden_state for part in pictures.split(PICTURES_AT_ONCE)]
        return torch.cat(parts).unflatten(0, pixel_values.shape[:2])

    def read_video(self, features: torch.Tensor) -> torch.Tensor:
        """The video's tokens, (clips, queries, width), of what `encode_frames` gave."""
        clips, frames = features.shape[:2]
        if frames > self.config.max_frames:
            raise ValueError(f"a clip has {frames} frames, but there are positions for {self.config.max_frames}")
        states = self.states_norm(features.flatten(0, 1).to(self.video_queries.dtype))
        queries = self.frame_queries.expand(clips * frames, -1, -1)
        seen = self.qformer(query_embeds=queries, encoder_hidden_states=states).last_hidden_state
        places = self.frame_positions(torch.arange(frames, device=seen.device))
        seen = (seen.unflatten(0, (clips, frames)) + places[:, None]).flatten(1, 2)
        queries = self.video_queries.expand(clips, -1, -1)
        return self.video_qformer(query_embeds=queries, encoder_hidden_states=seen).last_hidden_state

    def read_text(self, video: torch.Tensor, text_ids: torch.Tensor | None, text_mask: torch.Tensor | None) -> Any:
        """The text's tokens, (clips, queries, width); of no text where the mask of a clip, or all, is empty."""
        states = self.no_text.expand(len(video), -1, -1)
        present = torch.ones(len(video), 1, dtype=torch.long, device=video.device)
        if text_ids is not None and text_ids.shape[1]:
            if text_ids.shape[1] > self.config.max_text_tokens:
                raise ValueError(f"a text has {text_ids.shape[1]} tokens; at most {self.config.max_text_tokens} fit")
            text_mask = torch.ones_like(text_ids) if text_mask is None else text_mask
            embedded = self.text_norm(self.get_input_embeddings()(text_ids).to(states.dtype))
            embedded = embedded + self.text_positions(torch.arange(text_ids.shape[1], device=video.device))
            states = torch.cat([states, embedded.to(states.dtype)], dim=1)
            present = torch.cat([present, text_mask.to(present.dtype)], dim=1)
        return self.text_qformer(
            # The text shall not change how videos are seen (section 3.4).
            query_embeds=video.detach(),
            encoder_hidden_states=states,
            encoder_attention_mask=present,
        ).last_hidden_state

    def prefix(
        self,
        pixel_values: torch.Tensor | None = None,
        features: torch.Tensor | None = None,
        text_ids: torch.Tensor | None = None,
        text_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """What stands before a caption in the language model, (clips, config.prefix, width); see `forward`.

        Raises:
          ValueError: there are neither pixels nor features, or too many frames or tokens.
        """
        if features is None:
            if pixel_values is None:
                raise ValueError("the student needs pixel_values, or the features that encode_frames made of them")
            features = self.encode_frames(pixel_values)
        video = self.read_video(features)
        text = self.read_text(video, text_ids, text_mask)
        embed = self.get_input_embeddings()
        told = torch.cat([self.text_projection(text), self.video_projection(video)], dim=1).to(embed.weight.dtype)
        if self.config.begin_token_id is None:
            return told
        opening = torch.full((len(told), 1), self.config.begin_token_id, device=told.device)
        return torch.cat([embed(opening), told], dim=1)

    # ---- captions

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        features: torch.Tensor | None = None,
        text_ids: torch.Tensor | None = None,
        text_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **_: Any,
    ) -> StudentOutput:
        """How probable captions are.

        Args:
          pixel_values: (clips, frames, 3, height, width), normalised; not needed beside `features`.
          features: what `encode_frames` made of them.
          text_ids, text_mask: (clips, tokens), int64; 0 in the mask where there is padding. None: no clip has text.
          labels: the captions' tokens with the one that ends them, (clips, tokens); -100 pads them on the right.
          num_items_in_batch: labels of all batches whose gradients are summed; the loss is then divided by it.

        Raises:
          ValueError: see `prefix`.
        """
        inputs = self.prefix(pixel_values, features, text_ids, text_mask)
        mask = torch.ones(inputs.shape[:2], dtype=torch.long, device=inputs.device)
        kept = 1
        if labels is not None:
            spoken = labels != NO_LABEL
            inputs = torch.cat([inputs, self.get_input_embeddings()(labels.clamp(min=0))], dim=1)
            mask = torch.cat([mask, spoken.to(mask.dtype)], dim=1)
            kept = labels.shape[1] + 1
        keep = {"logits_to_keep": kept} if self._keeps_logits else {}
        logits = self.language(inputs_embeds=inputs, attention_mask=mask, use_cache=False, **keep).logits[:, -kept:]
        if labels is None:
            return StudentOutput(logits=logits)
        # Each place predicts the label after it, the last one of the prefix the first.
        logits = logits[:, :-1]
        total = nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), labels.flatten(), ignore_index=NO_LABEL, reduction="sum"
        )
        count = spoken.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch
        return StudentOutput(loss=total / count, logits=logits)

    @torch.no_grad()
    def generate(
        self,
        pixel_values: torch.Tensor | None = None,
        features: torch.Tensor | None = None,
        text_ids: torch.Tensor | None = None,
        text_mask: torch.Tensor | None = None,
        **search: Any,
    ) -> torch.Tensor:
        """Captions as tokens, (clips, tokens), without what stands before them; greedily unless `search` says else.

        Whatever the batch, as many tokens stand before each caption, so no clip is padded and none sees another's.

        Args:
          pixel_values, features, text_ids, text_mask: see `forward`.
          search: of `GenerationConfig`: num_beams, max_new_tokens, length_penalty ...
        """
        inputs = self.prefix(pixel_values, features, text_ids, text_mask)
        mask = torch.ones(inputs.shape[:2], dtype=torch.long, device=inputs.device)
        return self.language.generate(
            inputs_embeds=inputs, attention_mask=mask, generation_config=self._search(**search)
        )

    def _search(self, **search: Any) -> GenerationConfig:
        end = self.config.end_token_id
        tokens = {"bos_token_id": self.config.begin_token_id, "eos_token_id": end, "pad_token_id": end}
        return GenerationConfig(**{"do_sample": False, "max_new_tokens": 64, **tokens, **search})

    # ---- the directory

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | os.PathLike[str], **more: Any
    ) -> None:
        """Write the student; with `config.save_frozen` off, only what was trained, and where the rest is.

        Raises:
          ValueError: the frozen parts shall be left out, but did not come from anywhere that could be named.
        """
        if not self.config.save_frozen:
            from model_handlers.student_parts import check_references

            check_references(self.config)
        self._leave_out()
        super().save_pretrained(save_directory, **more)

    def _leave_out(self) -> None:
        """Tell Transformers, and its Trainer when it resumes, which tensors no checkpoint holds."""
        left = () if self.config.save_frozen else filter(self.is_frozen, self.state_dict())
        self._keys_to_ignore_on_save = set(left)

    @classmethod
    def from_pretrained(cls, folder: Any, *arguments: Any, **named: Any) -> Any:  # type: ignore[override]
        """Load a directory that `save_pretrained` wrote, with the frozen parts from where it says that they are."""
        from model_handlers.student_parts import load_referring

        hub: dict[str, Any] = {name: named[name] for name in HUB if name in named}
        config = named.pop("config", None) or StudentConfig.from_pretrained(folder, **hub)
        config.find_references(folder)
        if not config.save_frozen:
            return load_referring(cls, folder, config, hub, named)
        loaded = super().from_pretrained(folder, *arguments, config=config, **named)
        # Loading puts new parameters in the place of those that were frozen when they were made.
        (loaded[0] if isinstance(loaded, tuple) else loaded).freeze()
        return loaded


def register() -> None:
    """Let `AutoConfig` and `AutoModel` know the student; may be called again."""
    AutoConfig.register(StudentConfig.model_type, StudentConfig, exist_ok=True)
    AutoModel.register(StudentConfig, StudentForCaptioning, exist_ok=True)
