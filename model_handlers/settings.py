"""What a profile may say of a model that is loaded by Transformers or asked over the network.

Settings("Qwen/Qwen2.5-VL-7B-Instruct", revision="cc594898...", inputs="V-S-M", prompt="video-sentence", frames=16)
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from typing import Literal

from model_handlers.devices import DTYPES

Inputs = Literal["V", "V-S", "V-M", "V-S-M", "S-M"]
INPUTS = ("V", "V-S", "V-M", "V-S-M", "S-M")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a model is loaded and asked.

    Attributes:
      weights: a directory, `gs://BUCKET/FOLDER`, or a hub id. For an endpoint: the model's name there.
      revision: a hub model's commit.
      sha256: of a `.pth` file, which is not opened without it.
      inputs: what a teacher sees: V(ision), S(ubtitles), M(etadata: title and description).
      prompt: a name of `prompts.yaml`, or FILE.yaml#NAME.
      frames: uniform frames of the clip; 1 is one random frame of its middle, as the paper's image teachers see.
      max_new_tokens: of an answer. text_tokens: of the whole prompt, without the pictures.
      dtype: what it computes in; see `devices.choose_device`.
      max_batch: requests a batch at the most; the device's memory may allow fewer.
    """

    weights: str = ""
    revision: str = ""
    sha256: str = ""
    inputs: Inputs = "V"
    prompt: str = ""
    frames: int = 8
    max_new_tokens: int = 64
    text_tokens: int = 1024
    dtype: str = "auto"
    max_batch: int = 32

    def __post_init__(self) -> None:
        if self.inputs not in INPUTS:
            raise ValueError(f"inputs must be one of {', '.join(INPUTS)}, not {self.inputs!r}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, not {self.dtype!r}")
        for name in ("frames", "max_new_tokens", "text_tokens", "max_batch"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number from 1 up, not {value!r}")
        for name in ("weights", "revision", "sha256", "prompt"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be a text, not {getattr(self, name)!r}")
        if self.sha256 and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(f"sha256 must be 64 hexadecimal digits, not {self.sha256!r}")

    def wording(self) -> str:
        """A short digest of what shapes an answer beside the weights and the prompt's words."""
        shaping = (self.inputs, self.frames, self.max_new_tokens, self.text_tokens, self.dtype)
        return hashlib.sha256(json.dumps(shaping).encode()).hexdigest()[:8]
