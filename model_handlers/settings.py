"""What a profile may say of a model that is loaded by Transformers or asked over the network.

Settings("Qwen/Qwen2.5-VL-7B-Instruct", revision="cc594898...", inputs="V-S-M", prompt="video-sentence", frames=16)
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from typing import Self, get_args

from model_handlers.checkpoints import Place, locate, version_of
from model_handlers.devices import DTYPES
from model_handlers.prompts import Inputs, Prompt, prompt

INPUTS = get_args(Inputs)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a model is loaded and asked.

    Attributes:
      weights: a directory, `gs://BUCKET/FOLDER`, or a hub id. For an endpoint: the model's name there.
      revision: a hub model's commit; of a directory what you call its contents, where the launcher doesn't have it.
      sha256: of a `.pth` file, which is not opened without it.
      inputs: what a teacher sees: V(ision), S(ubtitles), M(etadata: title and description).
      prompt: a name of `prompts.yaml`, or FILE.yaml#NAME. words: what FILE.yaml said when the job was configured; the
        file is not there on a worker.
      seen: which version a bucket held when the job was configured; its answers are said to be of that one.
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
    words: Prompt | None = None
    seen: str = ""

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

    def checked(self) -> Self:
        """These settings, with what the user's prompt file says now.

        Raises:
          PromptError: no such prompt, or it has no place for the inputs.
        """
        if not self.prompt:
            return self
        kept = dataclasses.replace(self, words=None)
        kept.asked().check(self.inputs)
        return dataclasses.replace(self, words=kept.asked() if "#" in self.prompt else None)

    def asked(self) -> Prompt:
        """The prompt. Raises `PromptError` when there is none of that name."""
        file, _, name = self.prompt.rpartition("#")
        return self.words or prompt(name, file or None)

    def place(self) -> Place:
        """Where the weights are on this machine, copied from their bucket. Raises as `checkpoints.locate`."""
        return locate(self.weights, self.revision, self.seen)

    def version(self) -> str:
        """What stands in `captions.revision`: a hub's commit, or a digest of the files; `WeightsError` without them."""
        return version_of(self.weights, self.revision)

    def parameters_b(self) -> float:
        """Billions of weights, where the files tell; 0 where only the catalogue does."""
        return 0.0

    def prompt_id(self) -> str:
        """What stands in `captions.prompt_id`: the prompt's words, the inputs, and what else shapes an answer."""
        return f"{self.asked().prompt_id if self.prompt else 'unasked'}/{self.inputs}/{self.wording()}"

    def wording(self) -> str:
        """A short digest of what shapes an answer beside the weights and the prompt's words."""
        shaping = (self.frames, self.max_new_tokens, self.text_tokens, self.dtype)
        return hashlib.sha256(json.dumps(shaping).encode()).hexdigest()[:8]


def check_sees(name: str, settings: Settings) -> None:
    """Raise `ValueError` unless the inputs hold V, for a model that is always shown the frames."""
    if "V" not in settings.inputs.split("-"):
        raise ValueError(f"inputs must hold V for {name}, which sees the frames, not {settings.inputs}")
