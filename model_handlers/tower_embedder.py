"""Embedders out of any vision tower that Transformers loads: CLIP, SigLIP, DINOv2, DINOv3 ...

    TowerEmbedder("clip-vit-h14", Settings("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", revision="..."))

The whole frame is squeezed to the checkpoint's square, as the paper does (section 3.1): a centre crop would lose the
sides of a wide picture, and with them what changes there. Thresholds belong to an embedder: each needs its own
calibration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from model_handlers.devices import Device
from model_handlers.embedders import unit_vector
from model_handlers.frames import open_reel
from model_handlers.pretrained import load_model, load_part
from model_handlers.resident import Raw, ResidentHandler
from model_handlers.settings import Settings
from model_handlers.weights import WeightsError
from transforms.records import EmbedRequest, Vector

#: The half of a two-tower model that sees, with its projection; the text half would take memory and answer nothing.
VISION_HALVES = {
    "clip": "CLIPVisionModelWithProjection",
    "siglip": "SiglipVisionModel",
    "siglip2": "Siglip2VisionModel",
}

Pixels = dict[str, Any]


class TowerEmbedder(ResidentHandler[EmbedRequest, tuple[Vector, Vector]]):
    """A shot's two boundary frames as unit vectors of a vision tower.

    In order of preference a vector is what the model calls its image features (CLIP's and SigLIP's, in the space they
    share with text), its pooled output (DINO's normalised class token), or the first token of its last layer.
    """

    def network(self, device: Device) -> Tower:
        """Load the tower and its preprocessing.

        Raises:
          WeightsError: the checkpoint is missing, or holds no vision tower.
        """
        return Tower(load_tower(self.settings, device), load_part("AutoImageProcessor", self.settings), device)


def load_tower(settings: Settings, device: Device) -> Any:
    """The vision half of a checkpoint where its class has one, else the whole model.

    Raises:
      WeightsError: see `load_model`.
    """
    config = load_part("AutoConfig", settings)
    half = VISION_HALVES.get(config.model_type, "AutoModel")
    # CLIP's half reads the width of its projection from its own part of the configuration, which may not know it.
    if config.model_type == "clip" and config.vision_config.projection_dim != config.projection_dim:
        half = "AutoModel"
    return load_model(half, settings, device)


class Tower:
    """The network of a `TowerEmbedder`.

    Args:
      model: of Transformers, on `device`. processor: its image processor.
    """

    def __init__(self, model: Any, processor: Any, device: Device):
        self._model, self._processor, self._device = model, processor, device
        self._squeeze = squeezed(processor)

    def prepare(self, request: EmbedRequest) -> Pixels:
        reel = open_reel(request.reel)
        frames = reel.frames([reel.nearest(request.shot.first_s), reel.nearest(request.shot.last_s)])
        return dict(self._processor(images=frames, return_tensors="pt", **self._squeeze))

    def forward(self, prepared: Sequence[Pixels]) -> Raw:
        vectors = image_features(self._model, joined(prepared, self._device)).float().cpu().numpy()
        return Raw(list(vectors.reshape(len(prepared), 2, -1)))

    def finish(self, request: EmbedRequest, raw: np.ndarray) -> tuple[Vector, Vector]:
        return unit_vector(raw[0]), unit_vector(raw[1])


def squeezed(processor: Any) -> dict[str, Any]:
    """What to tell an image processor so that it squeezes whole frames into the square it would have cut out.

    Its mean, deviation and resampling stay. One that keeps the aspect and fills a number of patches (NaFlex) cuts
    nothing off, and is left alone.

    Raises:
      WeightsError: it has no size.
    """
    if getattr(processor, "max_num_patches", None):
        return {}
    size = (processor.crop_size if getattr(processor, "do_center_crop", None) else None) or processor.size or {}
    height = size.get("height") or size.get("shortest_edge")
    width = size.get("width") or size.get("shortest_edge")
    if not height or not width:
        raise WeightsError(f"the checkpoint's {type(processor).__name__} names no size; add one to its configuration")
    return {"do_resize": True, "do_center_crop": False, "size": {"height": height, "width": width}}


def joined(prepared: Sequence[Mapping[str, Any]], device: Device) -> Pixels:
    """The inputs of several requests one behind the other, on the device and in its numbers."""
    import torch

    batch = {name: torch.cat([one[name] for one in prepared]).to(device.name) for name in prepared[0]}
    return {name: value.to(device.dtype) if value.is_floating_point() else value for name, value in batch.items()}


def image_features(model: Any, pixels: Mapping[str, Any]) -> Any:
    """A tensor with a row of features for each picture, not normalised; see `TowerEmbedder` for which."""
    if hasattr(model, "get_image_features"):
        return pooled(model.get_image_features(**pixels))
    output = model(**pixels)
    # What CLIP's half calls its projection.
    return output.image_embeds if "image_embeds" in output else pooled(output)


def pooled(output: Any) -> Any:
    """The features of an output: itself if it is a tensor, what it pooled, or its first token, which stands for all."""
    if not hasattr(output, "last_hidden_state"):
        return output
    features = output.get("pooler_output")
    return output.last_hidden_state[:, 0] if features is None else features
