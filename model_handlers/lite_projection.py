"""`lite-projection`: ConSE with what it learned from people's choices, a small residual on either side.

    settings = Settings("models/selector/v1")
    captioned | RunInference(LiteProjectionSelector("lite-projection", settings))    # one score a candidate

The picture's side adds to ConSE's recalled vector what a small network makes of the pooled features, which tell much
that the thousand labels don't; the text's side adds a linear map of the sentence vector. Both residuals begin at
nought: untrained it is ConSE. `reelscribe train selector` writes the weights (see docs/training.md).
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from model_handlers import wording
from model_handlers.lite import Lite, LiteHandler, load_lite
from model_handlers.settings import Settings
from model_handlers.trained import Calibration, calibrated, read_trained
from model_handlers.weights import WeightsError
from transforms.records import CaptionedClip, Clip

CONFIG, WEIGHTS = "config.json", "projection.safetensors"
KIND = "reelscribe-lite-projection"

#: Widths of EfficientNet-Lite0's pooled features, and of MiniLM's sentence vectors.
FEATURES, SPACE = 1280, 384


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of the network: `hidden` units on the picture's side, of which training leaves out a share."""

    hidden: int = 512
    dropout: float = 0.3

    def as_json(self) -> dict[str, Any]:
        return {"model_type": KIND, **dataclasses.asdict(self)}

    @classmethod
    def of(cls, told: Any, where: str) -> Shape:
        """Of a `config.json`. Raises `WeightsError` when it is another model's."""
        if not isinstance(told, Mapping) or told.get("model_type") != KIND:
            raise WeightsError(
                f"{where} is no lite-projection; name a directory that `reelscribe train selector` wrote"
            )
        return cls(int(told["hidden"]), float(told["dropout"]))


@dataclasses.dataclass(frozen=True)
class ClipView:
    """What the network sees of a clip.

    recalled: ConSE's vector of it, (384,), unit length. seen: (1664,), its pooled features, and ConSE's vector before
    the recall, each of unit length.
    """

    recalled: np.ndarray
    seen: np.ndarray


def view(lite: Lite, clip: Clip) -> ClipView:
    """Look at a clip. Raises `ReelError` when its reel is missing or unreadable."""
    sight = lite.clip_sight(clip)
    picture = lite.conse.picture(sight.probabilities)
    features = sight.features.mean(axis=0)
    features = features / max(float(np.linalg.norm(features)), 1e-9)
    return ClipView(lite.conse.recall(picture), np.concatenate([features, picture]).astype(np.float32))


def sentences_of(lite: Lite, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The sentences of captions as ConSE reads them: vectors, (sentences, 384), and whose each is, (sentences,)."""
    parts = [wording.scored_sentences(caption) for caption in captions]
    owners = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return lite.conse.texts([sentence for part in parts for sentence in part]), owners


def build_network(shape: Shape) -> Any:
    """A `torch.nn.Module` that gives ConSE's scores: its last layers are nought."""
    import torch

    last, text = torch.nn.Linear(shape.hidden, SPACE), torch.nn.Linear(SPACE, SPACE, bias=False)
    picture = torch.nn.Sequential(
        torch.nn.Dropout(shape.dropout),
        torch.nn.Linear(FEATURES + SPACE, shape.hidden),
        torch.nn.GELU(),
        torch.nn.Dropout(shape.dropout),
        last,
    )
    with torch.no_grad():
        for nought in (last.weight, last.bias, text.weight):
            nought.zero_()
    return torch.nn.ModuleDict({"picture": picture, "text": text})


def pictures(network: Any, recalled: Any, seen: Any) -> Any:
    """The clips' unit vectors, (clips, 384), from tensors of `ClipView`s."""
    import torch

    return torch.nn.functional.normalize(recalled + network["picture"](seen), dim=-1)


def texts(network: Any, vectors: Any) -> Any:
    """The sentences' unit vectors, (sentences, 384)."""
    import torch

    return torch.nn.functional.normalize(vectors + network["text"](vectors), dim=-1)


def mean_of_sentences(scores: Any, owners: Any, captions: int) -> Any:
    """The mean over each caption's sentences; (..., sentences) to (..., captions)."""
    import torch

    summed = torch.zeros(*scores.shape[:-1], captions, dtype=scores.dtype, device=scores.device)
    summed = summed.index_add(-1, owners, scores)
    return summed / torch.bincount(owners, minlength=captions).to(scores.dtype)


def write_network(network: Any, shape: Shape, folder: str) -> None:
    """Write `projection.safetensors` and `config.json`."""
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().float().cpu().contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, os.path.join(folder, WEIGHTS))
    with open(os.path.join(folder, CONFIG), "w", encoding="utf-8") as file:
        file.write(json.dumps(shape.as_json(), indent=1, sort_keys=True) + "\n")


def read_network(settings: Settings) -> tuple[Any, Shape]:
    """The network of a directory, or of a folder of a bucket.

    Raises:
      WeightsError: it is missing, out of reach, or no lite-projection.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not settings.weights:
        raise WeightsError("lite-projection needs weights; `reelscribe train selector` makes them")
    folder = settings.place().path
    try:
        with open(os.path.join(folder, CONFIG), encoding="utf-8") as file:
            shape = Shape.of(json.load(file), settings.weights)
        # On the meta device nothing is initialised, which would move torch's generator.
        with torch.device("meta"):
            network = build_network(shape)
        network.load_state_dict(load_file(os.path.join(folder, WEIGHTS)), assign=True)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RuntimeError, SafetensorError) as error:
        if isinstance(error, WeightsError):
            raise
        told = " ".join(str(error).split())[:300]
        raise WeightsError(f"{settings.weights} can't be loaded as lite-projection: {told}") from error
    return network.eval(), shape


@dataclasses.dataclass
class Projection:
    """The shared models of the lite profile, the network on top of them, and what its scores are worth."""

    lite: Lite
    network: Any
    calibration: Calibration | None = None


class LiteProjectionSelector(LiteHandler[CaptionedClip, tuple[float, ...]]):
    """ConSE with learned residuals; see the module's docstring."""

    def __init__(self, name: str, settings: Settings):
        super().__init__(name)
        self.settings = settings

    @property
    def model_key(self) -> str:
        return f"lite-projection {self.settings}"

    def load(self) -> Any:
        network, _ = read_network(self.settings)
        trained = read_trained(self.settings.weights)
        return Projection(load_lite(), network, trained.calibration if trained else None)

    def answer(self, requests: Sequence[CaptionedClip], model: Any) -> list[tuple[float, ...]]:
        return [self._of_clip(request, model) for request in requests]

    def _of_clip(self, request: CaptionedClip, model: Projection) -> tuple[float, ...]:
        import torch

        if not request.candidates:
            return ()
        seen = view(model.lite, request.clip)
        vectors, owners = sentences_of(model.lite, [candidate.text for candidate in request.candidates])
        with torch.inference_mode():
            picture = pictures(model.network, torch.from_numpy(seen.recalled), torch.from_numpy(seen.seen))
            fits = texts(model.network, torch.from_numpy(vectors)) @ picture
            scores = mean_of_sentences(fits.clamp(-1.0, 1.0), torch.from_numpy(owners), len(request.candidates))
        return calibrated(scores.tolist(), model.calibration)
