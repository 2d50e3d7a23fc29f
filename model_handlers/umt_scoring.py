"""How well captions fit a clip, by Unmasked Teacher: the paper's selector (section 3.3).

    umt = Umt.load("l16.pth", "bert-large-uncased", sha256="...", device="cuda:0", dtype=torch.bfloat16)
    umt.score(frames, ["A dog runs.", "A car."])                 # matching scores: [0.91, 0.02]
    umt.score_batch([(frames, captions), ...])                   # one list of `UmtScore` a clip

The matching score is `vtm`, the probability that the matching head gives to "these belong together" after it saw the
caption and all video tokens. `vtc`, the cosine of both encoders' vectors, is told beside it: the authors rank by the
matching head as well, among the captions that vtc puts in front, and a clip's few candidates all go through it. (They
compare the head's second logit alone; the probability weighs the first as well, and lies between 0 and 1.)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from model_handlers.umt_inputs import CaptionReader, clean, middles, normalise, squeeze
from model_handlers.umt_network import UmtNetwork
from model_handlers.umt_weights import load_network

#: Frames a clip, as the selector was trained (section 3.3).
FRAMES = 12


@dataclasses.dataclass(frozen=True, slots=True)
class UmtScore:
    """What the network says of one clip with one caption. vtc: a cosine in [-1, 1]. vtm: a probability."""

    vtc: float
    vtm: float

    @property
    def matching_score(self) -> float:
        return self.vtm


@dataclasses.dataclass(frozen=True, slots=True)
class UmtClip:
    """A clip that is ready for the network; made on the CPU, by any thread.

    Attributes:
      pixels: (frames, 3, side, side), uint8. ids, mask: of its distinct captions, (captions, 32).
      places: for each caption that was asked about, which of the distinct ones it is.
    """

    pixels: Any
    ids: Any
    mask: Any
    places: tuple[int, ...]


class Umt:
    """Unmasked Teacher with its tokenizer.

    Args:
      network: on its device. reader: of captions. frames: how many of a clip it sees.
    """

    def __init__(self, network: UmtNetwork, reader: CaptionReader, frames: int = FRAMES):
        self.network, self.reader, self.frames = network, reader, frames

    @classmethod
    def load(
        cls,
        checkpoint: str,
        tokenizer: str,
        *,
        sha256: str | None = None,
        device: str = "cpu",
        dtype: Any = None,
        frames: int = FRAMES,
        **sizes: Any,
    ) -> Umt:
        """Load a checkpoint and the tokenizer of a directory.

        Args:
          sha256, device, dtype, sizes: see `umt_weights.load_network`.

        Raises:
          WeightsError: one of both is missing or is not what it should be.
        """
        network = load_network(checkpoint, sha256=sha256, device=device, dtype=dtype, **sizes)
        return cls(network, CaptionReader.open(tokenizer, network.sizes.vocabulary), frames)

    def score(self, frames: Sequence[np.ndarray], captions: Sequence[str]) -> list[float]:
        """The matching score of each caption; frames as for `prepare`."""
        return [score.matching_score for score in self.score_batch([(frames, captions)])[0]]

    def score_batch(self, clips: Sequence[tuple[Sequence[np.ndarray], Sequence[str]]]) -> list[list[UmtScore]]:
        """A score for each caption of each clip, after one pass of the video encoder over all clips."""
        import torch

        with torch.inference_mode():
            return self.forward([self.prepare(frames, captions) for frames, captions in clips])

    def prepare(self, frames: Sequence[np.ndarray], captions: Sequence[str]) -> UmtClip:
        """Squeeze a clip's frames and read its captions. Captions that mean the same to the network are read once.

        Args:
          frames: uint8 RGB, (height, width, 3), in time order; of more than the network sees, uniform ones are taken.

        Raises:
          ValueError: there is no frame.
        """
        if not len(frames):
            raise ValueError("a clip without frames can't be scored")
        cleaned = [clean(caption) for caption in captions]
        distinct = {caption: place for place, caption in enumerate(dict.fromkeys(cleaned))}
        rows = middles(len(frames), self.frames)
        ids, mask = self.reader.read(list(distinct))
        pixels = squeeze([frames[row] for row in rows], self.network.sizes.side)
        return UmtClip(pixels, ids, mask, tuple(distinct[caption] for caption in cleaned))

    def forward(self, clips: Sequence[UmtClip]) -> list[list[UmtScore]]:
        """A score for each caption of each clip that was prepared; gradients are the caller's choice.

        Raises:
          ArithmeticError: the network gave no number, as half precision does where a value overflows.
        """
        import torch

        counts = [len(clip.ids) for clip in clips]
        if not any(counts):
            return [[] for _ in clips]
        device = self.network.device
        ids, mask = (torch.cat([getattr(clip, part) for clip in clips]).to(device) for part in ("ids", "mask"))
        tokens, pooled = self.network.encode_video(normalise(torch.stack([clip.pixels for clip in clips]).to(device)))
        states = self.network.encode_text(ids, mask)
        owners = torch.arange(len(clips)).repeat_interleave(torch.tensor(counts)).to(device)
        vtc = self.network.vtc(pooled, states)[owners, torch.arange(len(ids), device=device)].tolist()
        vtm = self.network.match(tokens, states, mask, counts).tolist()
        if not all(map(math.isfinite, [*vtc, *vtm])):
            raise ArithmeticError("the selector gave a caption no usable score; compute in bfloat16 or float32")
        distinct = iter([UmtScore(*pair) for pair in zip(vtc, vtm, strict=True)])
        scores = [[next(distinct) for _ in range(count)] for count in counts]
        return [[found[place] for place in clip.places] for clip, found in zip(clips, scores, strict=True)]
