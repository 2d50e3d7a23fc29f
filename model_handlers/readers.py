"""Text models through Transformers that read a caption: in windows that fit, whatever its length.

    reader = TextReader(settings, "AutoModelForTokenClassification", device)
    reader.prepare(request)         # the windows of request.text, as tokens that know where they stand

`model_handlers.names` and `model_handlers.harmful_classifier` ask it; a request is whatever has a `text`.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import threading
from collections.abc import Sequence
from typing import Any, Protocol

from model_handlers.devices import Device
from model_handlers.pretrained import load_model, load_part
from model_handlers.settings import Settings
from model_handlers.weights import WeightsError

#: Tokens a window at the most, and how many of them two windows share.
WINDOW, SHARED = 512, 64


class Worded(Protocol):
    """A request about a text."""

    @property
    def text(self) -> str: ...


def installed(package: str) -> str:
    """The package and its version, which name the model in it; `WeightsError` when it is not installed."""
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError as error:
        raise WeightsError(f"{package} is not installed; run: pip install 'reelscribe[hygiene]'") from error


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What a handler loads where the thing itself can't be weakly referenced, which Beam wants of every model."""

    engine: Any


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a text as tokens.

    Attributes:
      tokens: their numbers. offsets: the characters [start, end) of each in the text; of special tokens (0, 0).
      words: the number of each one's word in the text, None of special tokens.
    """

    tokens: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    words: tuple[int | None, ...]


class TextReader:
    """A tokenizer and a classifier of tokens or of texts on its device.

    Args:
      settings: the weights. kind: the classifier's class in Transformers.

    Raises:
      WeightsError: the weights are missing, or their tokenizer does not know where its tokens stand.
    """

    def __init__(self, settings: Settings, kind: str, device: Device):
        self.model = load_model(kind, settings, device)
        self._tokenizer = load_part("AutoTokenizer", settings)
        if not self._tokenizer.is_fast:
            raise WeightsError(f"{settings.weights} has no fast tokenizer; name a checkpoint that holds tokenizer.json")
        self._device = device
        self._limit = _window(self.model.config, self._tokenizer.model_max_length)
        # Truncation and padding are set on the tokenizer itself: two threads would meet there.
        self._lock = threading.Lock()

    @property
    def labels(self) -> list[str]:
        """What each output is called, in order."""
        named = self.model.config.id2label
        return [named[number] for number in range(len(named))]

    def prepare(self, request: Worded) -> tuple[Window, ...]:
        """The text in windows; one that is empty is one window of special tokens."""
        with self._lock:
            read = self._tokenizer(
                request.text,
                truncation=True,
                max_length=self._limit,
                stride=min(SHARED, self._limit // 4),
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
            )
        return tuple(
            Window(tuple(tokens), tuple(map(tuple, offsets)), tuple(read.word_ids(number)))
            for number, (tokens, offsets) in enumerate(zip(read["input_ids"], read["offset_mapping"], strict=True))
        )

    def logits(self, prepared: Sequence[Sequence[Window]]) -> list[Any]:
        """What the model says of every window, in order, a float32 tensor on the CPU each."""
        tokens = [window.tokens for windows in prepared for window in windows]
        with self._lock:
            batch = self._tokenizer.pad({"input_ids": [list(one) for one in tokens]}, return_tensors="pt")
        asked = {name: batch[name].to(self._device.name) for name in ("input_ids", "attention_mask")}
        return list(self.model(**asked).logits.float().cpu())


def _window(config: Any, model_max_length: int) -> int:
    positions = getattr(config, "max_position_embeddings", WINDOW)
    if "roberta" in config.model_type:
        # These count positions from behind that of padding.
        positions -= config.pad_token_id + 1
    return min(WINDOW, model_max_length, positions)
