"""Pieces of the student's network that Transformers has no class for; see `model_handlers.student_network`.

Imports torch at the top, so it is itself imported inside functions alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, Blip2VisionModel, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import ModelOutput

from model_handlers.student_config import LiteVisionConfig
from model_handlers.vision import FRAMES_AT_ONCE, MODEL, fuse
from model_handlers.weights import WeightsError


@dataclasses.dataclass
class StudentOutput(ModelOutput):
    """What the student makes of a batch.

    Attributes:
      loss: the mean cross-entropy of the captions' tokens; None without labels.
      logits: (clips, caption tokens, vocabulary), of each label's own place; without labels (clips, 1, vocabulary), of
        the first token.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None


class LiteVision(PreTrainedModel):
    """EfficientNet-Lite0's map of a picture as 49 states; its weights come from an installed package."""

    config_class = LiteVisionConfig
    main_input_name = "pixel_values"

    def __init__(self, config: LiteVisionConfig):
        from efficientnet_lite_pytorch import EfficientNet

        super().__init__(config)
        self.net = fuse(EfficientNet.from_name(MODEL).eval())
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, **_: Any) -> BaseModelOutput:
        """The states, (pictures, 49, 1280), of normalised pixels (pictures, 3, 224, 224)."""
        # As in `model_handlers.vision`: more at once leave a CPU's caches.
        at_once = FRAMES_AT_ONCE if pixel_values.device.type == "cpu" else len(pixel_values)
        parts = pixel_values.contiguous(memory_format=torch.channels_last).split(at_once)
        maps = torch.cat([self.net.extract_features(part) for part in parts])
        return BaseModelOutput(last_hidden_state=maps.flatten(2).transpose(1, 2))


def make_language(config: Any) -> PreTrainedModel:
    """A language model by its configuration, at random."""
    # Unless it is told, Transformers asks whoever sits there whether code out of the configuration shall run.
    return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def make_vision(config: Any) -> PreTrainedModel:
    """An image encoder by its configuration, at random."""
    if isinstance(config, LiteVisionConfig):
        return LiteVision(config)
    # The only half of a model that `AutoModel` does not know.
    if config.model_type == "blip_2_vision_model":
        return Blip2VisionModel._from_config(config)
    return AutoModel.from_config(config, trust_remote_code=False)


def mark_initialised(part: nn.Module) -> None:
    """Keep Transformers from giving loaded weights new values at random."""
    module: Any
    for module in part.modules():
        module._is_hf_initialized = True


def add_lora(language: nn.Module, lora: Mapping[str, Any]) -> None:
    """Put adapters beside some of the language model's matrices; they change nothing until they are trained.

    They are float32 as all that is trained, whatever the matrices are.

    Raises:
      WeightsError: peft is not installed. ValueError: no matrix has such a name.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise WeightsError(f"adapters need peft ({error}); run: pip install 'reelscribe[local]'") from error
    targets = lora["targets"]
    wanted = LoraConfig(
        r=lora["r"], lora_alpha=lora["alpha"], target_modules=targets if isinstance(targets, str) else list(targets)
    )
    inject_adapter_in_model(wanted, language)
    module: Any
    for name, module in language.named_modules():
        if "lora_" in name:
            module.float()._is_hf_initialized = True


def train_language(language: nn.Module, mode: bool) -> None:
    """Put the adapters of a frozen language model into training, or out of it; the rest drops nothing out."""
    language.eval()
    for name, module in language.named_modules():
        if "lora_" in name:
            module.train(mode)
        elif isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing:
            # Layers recompute their activations only where they think that they are trained.
            module.training = mode


def recompute_in_evaluation(language: nn.Module) -> None:
    """See that layers which pretend to be trained, so as to be recomputed, compute as in evaluation."""
    for module in language.modules():
        if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing:
            layer: Any = module
            layer._gradient_checkpointing_func = _in_evaluation(layer, layer._gradient_checkpointing_func)


def _in_evaluation(layer: nn.Module, checkpoint: Callable[..., Any]) -> Callable[..., Any]:
    def run(function: Callable[..., Any], *arguments: Any) -> Any:
        def inside(*given: Any) -> Any:
            before, layer.training = layer.training, False
            try:
                return function(*given)
            finally:
                layer.training = before

        return checkpoint(inside, *arguments)

    return run
