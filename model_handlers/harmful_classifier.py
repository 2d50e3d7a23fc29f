"""Harmful text, told by a classifier that Transformers loads.

    texts | RunInference(HarmClassifier("harmful", Settings("unitary/toxic-bert", revision="..."), threshold=0.5))

It reads what a word list can't: insults and threats out of harmless words. No weights come with a package; the user
names them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from model_handlers.devices import Device
from model_handlers.readers import TextReader, Window, Worded
from model_handlers.resident import Raw, ResidentHandler
from model_handlers.settings import Settings
from model_handlers.weights import WeightsError

#: Above this a text is harmful: an even chance. A checkpoint's own card may say better.
THRESHOLD = 0.5

_HARMLESS = """
    neutral normal none ok okay safe clean harmless benign nontoxic nottoxic nonhate nothate nohate nothatespeech
    nonoffensive notoffensive nonharmful notharmful nonabusive notabusive acceptable nonprofane
"""
#: Labels of texts that harm nobody, as checkpoints call them, letters alone.
HARMLESS = frozenset(_HARMLESS.split())
_SAYS_NOTHING = re.compile(r"\ALABEL_\d+\Z")


def harm_of(logits: np.ndarray, labels: Sequence[str]) -> float:
    """How likely it is that a text does harm, from 0 to 1.

    A checkpoint that has a label for harmless texts chooses one of its labels, and what is not harmless is harm; one
    that has none gives each kind of harm a probability of its own, and the greatest counts.

    Args:
      logits: (labels,).
    """
    harmless = np.array([re.sub(r"[^a-z]", "", label.lower()) in HARMLESS for label in labels])
    scores = np.asarray(logits, np.float64)
    if not harmless.any():
        return float((1 / (1 + np.exp(-scores))).max())
    chances = np.exp(scores - scores.max())
    return float(1 - (chances[harmless].sum() / chances.sum()))


class HarmClassifier(ResidentHandler[Worded, bool]):
    """Answers a request with whether its `text` is harmful, be it in one of its windows.

    Args:
      threshold: a text is harmful when `harm_of` is above.
    """

    def __init__(self, name: str, settings: Settings, threshold: float = THRESHOLD):
        super().__init__(name, settings)
        self._threshold = threshold

    @property
    def model_key(self) -> str:
        return f"{super().model_key}:{self._threshold}"

    def network(self, device: Device) -> _Judge:
        return _Judge(self.settings, self._threshold, device)


class _Judge:
    def __init__(self, settings: Settings, threshold: float, device: Device):
        self._reader = TextReader(settings, "AutoModelForSequenceClassification", device)
        self._labels, self._threshold = self._reader.labels, threshold
        if any(map(_SAYS_NOTHING.match, self._labels)):
            told = ", ".join(self._labels)
            raise WeightsError(
                f"{settings.weights} calls its labels {told}; name a checkpoint that says what they mean"
            )

    def prepare(self, request: Worded) -> tuple[Window, ...]:
        return self._reader.prepare(request)

    def forward(self, prepared: Sequence[tuple[Window, ...]]) -> Raw:
        harms = iter([harm_of(one.numpy(), self._labels) for one in self._reader.logits(prepared)])
        return Raw([max(next(harms) for _ in windows) for windows in prepared])

    def finish(self, request: Worded, raw: Any) -> bool:
        return raw > self._threshold
