"""Frames and words in one space, for measures without training: CLIP, SigLIP and SigLIP 2 through Transformers.

    towers = load_towers(checkpoint("openai/clip-vit-large-patch14"))
    cosines = towers.see(view, view.uniform(4)) @ towers.read(["Good photo.", "Bad photo."]).T      # (4, 2)

Measures that name the same weights share one copy of them, and what it made of a frame: the second one asks for free.
Frames are preprocessed as the checkpoint publishes it, since heads and prompts were made beside such pictures.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from model_handlers import hub
from model_handlers.checkpoints import is_hub_id
from model_handlers.devices import Device, choose_device
from model_handlers.dual_selectors import LowerCaseReader, Reader, text_limit, unit
from model_handlers.frames import Recent
from model_handlers.measures.view import ClipView
from model_handlers.pretrained import load_model, load_part
from model_handlers.resident import computing, loaded_once
from model_handlers.settings import Settings
from model_handlers.tower_embedder import image_features, joined, pooled
from model_handlers.weights import WeightsError

#: Kinds of checkpoints that are known, and whether their text tower is told where a text ends. SigLIP was trained with
#: the padding in sight, and pools the last token, which is padding.
KINDS = {"clip": True, "siglip": False, "siglip2": False}
#: CLIP ViT-L/14, whose space the published heads and prompts were made in.
CLIP_VIT_L = "openai/clip-vit-large-patch14"
#: Frames through the network at once: on a CPU the maps of more leave the caches.
FRAMES_AT_ONCE, FRAMES_AT_ONCE_GPU = 4, 32
#: Frames whose vectors are remembered: 3 KB each for CLIP ViT-L/14, so 6 MB.
FRAMES_REMEMBERED = 2048


class TwoTowers:
    """A two-tower model on its device; safe between threads.

    Args:
      model: of Transformers, on `device`. processor: its image processor. masked: see `KINDS`.

    Attributes:
      scale: what a cosine is multiplied by to be a logit; the model's own. width: numbers of a vector.
    """

    def __init__(self, model: Any, processor: Any, reader: Reader, device: Device, masked: bool):
        self._model, self._processor, self._reader, self._device = model, processor, reader, device
        self._masked = masked
        self._computing = computing[device.name] if device.is_gpu else threading.Lock()
        self._seen = Recent(FRAMES_REMEMBERED)
        self.scale = float(model.logit_scale.float().exp())
        self.width = int(self.read(["a photo"]).shape[1])

    def see(self, view: ClipView, rows: Sequence[int]) -> np.ndarray:
        """The unit vectors (n, width), float32, of these rows of the clip's reel, in their order."""
        known: dict[int, Any] = {row: self._seen.get((view.reel.key, row)) for row in dict.fromkeys(rows)}
        new = [row for row, vector in known.items() if vector is None]
        for row, vector in zip(new, self.see_frames(view.frames(new)), strict=True):
            known[row] = vector
            self._seen.put((view.reel.key, row), vector)
        return np.stack([known[row] for row in rows])

    def see_frames(self, frames: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The unit vector (width,), float32, of each RGB frame, uint8 (height, width, 3); nothing is remembered.

        Raises:
          ValueError: the network made no numbers of a frame.
        """
        found: list[np.ndarray] = []
        at_once = FRAMES_AT_ONCE_GPU if self._device.is_gpu else FRAMES_AT_ONCE
        for start in range(0, len(frames), at_once):
            pixels = dict(self._processor(images=list(frames[start : start + at_once]), return_tensors="pt"))
            with self._exclusively():
                vectors = unit(image_features(self._model, joined([pixels], self._device)))
                found += list(vectors.cpu().numpy())
        if not all(np.isfinite(vector).all() for vector in found):
            raise ValueError("the network gave a frame no usable features")
        return found

    def read(self, texts: Sequence[str]) -> np.ndarray:
        """The unit vectors (n, width), float32, of texts.

        Raises:
          ValueError: a text is longer than the model reads.
        """
        for text in texts:
            if len(self._reader.cut(text).texts) > 1:
                raise ValueError(f"the model does not read to the end of {text!r}; say it in fewer words")
        tokens = self._reader.batch(texts, self._device)
        if not self._masked:
            del tokens["attention_mask"]
        with self._exclusively():
            return unit(pooled(self._model.get_text_features(**tokens))).cpu().numpy()

    @contextlib.contextmanager
    def _exclusively(self) -> Iterator[None]:
        import torch

        with self._computing, torch.inference_mode():
            yield


def load_towers(settings: Settings) -> TwoTowers:
    """Both towers of a checkpoint, one copy of them a process, whichever measures ask.

    Raises:
      WeightsError: the checkpoint is missing, or of another kind.
    """
    key = ("two towers", settings.weights, settings.revision, settings.dtype)
    return loaded_once(key, lambda: _load(settings))


def _load(settings: Settings) -> TwoTowers:
    config = load_part("AutoConfig", settings)
    if config.model_type not in KINDS:
        raise WeightsError(f"{settings.weights} is a {config.model_type} model; name one of CLIP, SigLIP or SigLIP 2")
    device = choose_device(settings.dtype)
    model, processor = load_model("AutoModel", settings, device), load_part("AutoImageProcessor", settings)
    masked = KINDS[config.model_type]
    reader = (Reader if masked else LowerCaseReader)(load_part("AutoTokenizer", settings), text_limit(config, settings))
    return TwoTowers(model, processor, reader, device, masked)


def checkpoint(
    weights: str, revision: str = "", dtype: str = "auto-float16", known: Mapping[str, str] | None = None
) -> Settings:
    """How to load a checkpoint; a hub's model that is known is taken at the commit that is pinned for it.

    Args:
      weights: a directory, gs://BUCKET/FOLDER, or a hub id. revision: the hub's commit. dtype: see `devices`.
      known: commits of hub models beside those of `hub_models.yaml`.

    Raises:
      ValueError: a setting that cannot be meant.
    """
    settings = Settings(weights=weights, revision=revision, dtype=dtype)
    if not revision and is_hub_id(weights):
        settings = dataclasses.replace(settings, revision={**(known or {}), **_pinned()}.get(weights, ""))
    return settings


def _pinned() -> dict[str, str]:
    models = [model.settings for kind in ("embedders", "selectors") for model in hub.models(kind)]
    return {settings.weights: settings.revision for settings in models if settings.revision}


def check_frames(frames: int) -> None:
    """Raise `ValueError` unless so many frames of a clip can be looked at."""
    if isinstance(frames, bool) or not isinstance(frames, int) or frames < 1:
        raise ValueError(f"frames must be a whole number from 1 up, not {frames!r}")
