"""Frames and captions as Unmasked Teacher sees them, prepared as its authors evaluate.

rows = middles(len(frames), 12)                         # which frames
pixels = normalise(squeeze([frames[row] for row in rows], 224))          # (12, 3, 224, 224)
ids, mask = CaptionReader.open("bert-large-uncased", 30522).read([clean("A dog runs.")])
"""

from __future__ import annotations

import itertools
import os
import re
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from model_handlers.weights import WeightsError

#: ImageNet's, of pixels in [0, 1].
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: A longer caption is cut here (section 3.3).
TEXT_TOKENS = 32

#: These go without leaving a blank, so that "dog's" becomes "dogs"; a dash and a slash leave one.
_WORDING = str.maketrans(dict.fromkeys(",.'!?\"()*#:;~", "") | dict.fromkeys("-/", " "))


def clean(caption: str) -> str:
    """The caption in lower case without punctuation, blanks merged; `<person>`, which hides a name, loses its marks."""
    plain = caption.lower().translate(_WORDING).replace("<person>", "person")
    return re.sub(r"\s{2,}", " ", plain).strip()


def middles(count: int, wanted: int) -> list[int]:
    """The middle frame of each of `wanted` equal parts of `count` frames; the last one again where there are fewer."""
    parts = min(count, wanted)
    edges = [int(edge) for edge in np.linspace(0, count, parts + 1)]
    rows = [(start + end - 1) // 2 for start, end in itertools.pairwise(edges)]
    return rows + rows[-1:] * (wanted - parts)


def squeeze(frames: Sequence[np.ndarray], side: int) -> Any:
    """Whole frames squeezed to squares by bicubic interpolation without antialiasing, rounded, as in training.

    Args:
      frames: uint8 RGB, (height, width, 3) each; their sizes may differ.

    Returns:
      (frames, 3, side, side), a uint8 tensor.
    """
    import torch
    from torch.nn.functional import interpolate

    small = []
    for frame in frames:
        picture = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float()
        small.append(interpolate(picture, (side, side), mode="bicubic", align_corners=False, antialias=False))
    return torch.cat(small).clamp(0, 255).round().to(torch.uint8)


def normalise(pixels: Any) -> Any:
    """uint8 pixels, (..., 3, height, width), as float32 by ImageNet's mean and deviation."""
    shares = pixels.float() / 255.0
    mean, deviation = (shares.new_tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
    return (shares - mean) / deviation


class CaptionReader:
    """BERT's tokenizer as the authors use it, without [SEP] at the end; safe between threads."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        # A fast tokenizer sets padding and truncation on itself while it works, and so serves one thread at a time.
        self._lock = threading.Lock()

    @classmethod
    def open(cls, folder: str, vocabulary: int) -> CaptionReader:
        """The tokenizer of a directory, which must know as many tokens as the text encoder.

        Raises:
          WeightsError: there is none, or it belongs to another model.
        """
        from tokenizers.processors import TemplateProcessing
        from transformers import AutoTokenizer

        advice = "name a directory that holds BERT's uncased tokenizer (vocab.txt, or tokenizer.json)"
        if not os.path.isdir(folder):
            # Else a name would be looked up in the hub's cache, at whatever revision lies there.
            raise WeightsError(f"there is no directory {folder}; {advice}")
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                folder, tokenizer_type="bert", local_files_only=True, do_lower_case=True
            )
        except (OSError, ValueError, TypeError) as error:
            raise WeightsError(f"the tokenizer in {folder} can't be read; {advice}") from error
        if len(tokenizer) != vocabulary:
            raise WeightsError(f"{folder} knows {len(tokenizer)} tokens, the text encoder {vocabulary}; {advice}")
        # Theirs is ALBEF's tokenizer, which closes no sentence: one [SEP] more would be a token never seen in training.
        start = (tokenizer.cls_token, tokenizer.cls_token_id)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{start[0]} $A", special_tokens=[start])
        return cls(tokenizer)

    def count(self, caption: str) -> int:
        """Tokens of a caption as the network sees it, uncut, with the one that opens it."""
        with self._lock:
            return len(self._tokenizer(clean(caption), padding=False, truncation=False, verbose=False)["input_ids"])

    def read(self, cleaned: Sequence[str]) -> tuple[Any, Any]:
        """Token ids and their mask (False is padding), both (captions, 32), of captions that `clean` has cleaned."""
        import torch

        if not cleaned:
            # The tokenizer has no shape for nothing.
            return torch.zeros(0, TEXT_TOKENS, dtype=torch.int64), torch.zeros(0, TEXT_TOKENS, dtype=torch.bool)
        with self._lock:
            tokens = self._tokenizer(
                list(cleaned), max_length=TEXT_TOKENS, truncation=True, padding="max_length", return_tensors="pt"
            )
        return tokens["input_ids"], tokens["attention_mask"].bool()
