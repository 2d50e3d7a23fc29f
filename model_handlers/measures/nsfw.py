"""How likely a clip shows something that is not safe for work, by an image classifier through Transformers.

    measure(Settings()).load()(view)                     # -> {"nsfw": 0.0003}
    measure(Settings("models/five-classes", unsafe_labels=("porn", "hentai")))

A frame's value is the probability of the unsafe labels together, a clip's that of its worst frame. A filter, not a
judge: such classifiers take art, medicine and sport for nudity, and know neither violence nor context.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from model_handlers.devices import Device, choose_device
from model_handlers.measures.two_towers import FRAMES_AT_ONCE, FRAMES_AT_ONCE_GPU, check_frames, checkpoint
from model_handlers.measures.view import ClipView, Look, Measure
from model_handlers.nearest import nearest
from model_handlers.pretrained import load_model, load_part
from model_handlers.resident import computing
from model_handlers.settings import Settings as Checkpoint
from model_handlers.tower_embedder import joined
from model_handlers.weights import WeightsError

FALCONSAI = "Falconsai/nsfw_image_detection"
#: The commit that added safetensors. Apache-2.0; labels `normal` and `nsfw`; its training pictures are not published.
KNOWN = {FALCONSAI: "e94a3846fa68ed43dbf7426a16b2be2ae0e2e1f8"}

#: Words by which a label is known to be unsafe, and those that turn it into its opposite.
UNSAFE = frozenset(
    [
        *("nsfw", "unsafe", "porn", "pornography", "pornographic", "hentai", "sexy", "sexual", "erotic", "erotica"),
        *("explicit", "hardcore", "nude", "nudity", "naked", "adult"),
    ]
)
OPPOSITE = frozenset(["not", "non", "no", "without", "safe"])


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which classifier, and which of its labels are meant.

    Attributes:
      weights, revision: of an image classifier; see `two_towers.checkpoint`.
      unsafe_labels: of the classifier's; nothing for those that `unsafe_of` finds by their names.
      frames: uniform ones of the clip. dtype: what the model computes in; see `devices.choose_device`.

    Raises:
      ValueError: a setting that cannot be meant.
    """

    weights: str = FALCONSAI
    revision: str = ""
    unsafe_labels: Sequence[str] = ()
    frames: int = 6
    dtype: str = "auto-float16"

    def __post_init__(self) -> None:
        labels = self.unsafe_labels
        if isinstance(labels, str) or not all(isinstance(label, str) and label for label in labels):
            raise ValueError(f"unsafe_labels must be a list of the classifier's labels, not {labels!r}")
        object.__setattr__(self, "unsafe_labels", tuple(labels))
        check_frames(self.frames)
        self.checkpoint()

    def checkpoint(self) -> Checkpoint:
        """How the classifier is loaded."""
        return checkpoint(self.weights, self.revision, self.dtype, KNOWN)


class Classifier:
    """An image classifier on its device; safe between threads.

    Args:
      model: of Transformers, on `device`. processor: its image processor. unsafe: numbers of the unsafe labels.
    """

    def __init__(self, model: Any, processor: Any, device: Device, unsafe: Sequence[int]):
        self._model, self._processor, self._device, self._unsafe = model, processor, device, list(unsafe)
        self._computing = computing[device.name] if device.is_gpu else threading.Lock()

    def unsafe(self, frames: Sequence[np.ndarray]) -> list[float]:
        """The probability of the unsafe labels for each RGB frame, uint8 (height, width, 3).

        Raises:
          ValueError: the network made no numbers of a frame.
        """
        import torch

        found: list[float] = []
        at_once = FRAMES_AT_ONCE_GPU if self._device.is_gpu else FRAMES_AT_ONCE
        for start in range(0, len(frames), at_once):
            pixels = dict(self._processor(images=list(frames[start : start + at_once]), return_tensors="pt"))
            with self._computing, torch.inference_mode():
                logits = self._model(**joined([pixels], self._device)).logits.float().cpu()
            found += self._probabilities(logits)
        if not np.isfinite(found).all():
            raise ValueError("the network gave a frame no usable probability")
        return found

    def _probabilities(self, logits: Any) -> list[float]:
        if self._model.config.problem_type == "multi_label_classification":
            # Labels that do not exclude each other: any of them is enough.
            return logits.sigmoid()[:, self._unsafe].amax(dim=1).tolist()
        return logits.softmax(dim=1)[:, self._unsafe].sum(dim=1).clamp(max=1.0).tolist()


def measure(settings: Settings) -> Measure:
    """The measure `nsfw`.

    Raises:
      WeightsError: there are no such weights.
    """
    return Measure(
        name="nsfw",
        columns=("nsfw",),
        summary="the probability that the worst of the frames is not safe for work",
        load=functools.partial(_load, settings),
        identity=(settings.checkpoint().version(), settings.unsafe_labels, settings.frames, settings.dtype),
    )


def unsafe_of(labels: Iterable[str]) -> list[str]:
    """Those of a classifier's labels whose names say that they are unsafe: "NSFW", "porn", not "non-nude"."""
    words = {label: set(re.findall(r"[^\W\d_]+", label.casefold())) for label in labels}
    return [label for label, parts in words.items() if parts & UNSAFE and not parts & OPPOSITE]


def chosen_labels(id2label: Mapping[int, str], asked: Sequence[str], weights: str) -> list[int]:
    """The numbers of the unsafe labels.

    Raises:
      WeightsError: the classifier has none of that name, none that is found by its name, or no other ones.
    """
    labels = {str(label): number for number, label in id2label.items()}
    for label in asked:
        if label not in labels:
            raise WeightsError(f"{weights} has no label {label!r}; {nearest(label, sorted(labels))}")
    chosen = list(asked) or unsafe_of(labels)
    if not chosen or len(chosen) == len(labels):
        found = "none" if not chosen else "all"
        told = f"{found} of the labels of {weights} is unsafe by its name ({', '.join(labels)})"
        raise WeightsError(f"{told}; write unsafe_labels: with those that are meant")
    return [labels[label] for label in chosen]


def _load(settings: Settings) -> Look:
    model_settings = settings.checkpoint()
    config = load_part("AutoConfig", model_settings)
    unsafe = chosen_labels(config.id2label, settings.unsafe_labels, settings.weights)
    device = choose_device(settings.dtype)
    model = load_model("AutoModelForImageClassification", model_settings, device)
    classifier = Classifier(model, load_part("AutoImageProcessor", model_settings), device, unsafe)
    return functools.partial(look, classifier, settings.frames)


def look(classifier: Classifier, frames: int, view: ClipView) -> dict[str, float]:
    """The worst of uniform frames of a clip."""
    return {"nsfw": max(classifier.unsafe(view.frames(view.uniform(frames))))}
