"""Selectors out of two-tower models: CLIP, SigLIP and SigLIP 2 compare each caption with the frames of its clip.

    DualEncoderSelector("siglip2-so400m", Settings("google/siglip2-so400m-patch14-384", revision="...", frames=12))

A clip is the mean of its frames' unit vectors, at length 1 again. A caption too long for the text tower is cut into
pieces that fit, and what it is worth is the mean of theirs (`model_handlers.long_captions`). Frames are preprocessed as
each checkpoint publishes it, since its text tower was trained beside such pictures: CLIP cuts out the centre, SigLIP
squeezes.
"""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from model_handlers.devices import Device
from model_handlers.frames import clip_frames
from model_handlers.long_captions import combine, pieces
from model_handlers.pretrained import load_model, load_part
from model_handlers.resident import Raw, ResidentHandler
from model_handlers.settings import Settings
from model_handlers.tower_embedder import joined, pooled
from model_handlers.trained import Calibrated, as_trained, sigmoid
from model_handlers.weights import WeightsError
from transforms.records import CaptionedClip, Clip


@dataclasses.dataclass(frozen=True, slots=True)
class Cut:
    """A caption in pieces that the text tower reads whole, and how many tokens each of them has."""

    texts: tuple[str, ...]
    tokens: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """A clip as a network wants it: its frames as tensors, and each candidate's caption in pieces."""

    seen: dict[str, Any]
    captions: tuple[Cut, ...]


class Reader:
    """What a text tower reads: captions in pieces that fit, and batches of them as token numbers.

    Args:
      tokenizer: of Transformers. limit: tokens that the tower reads, with its special ones.
      step: a batch is padded to a multiple of it, and `limit` must be one. All of the limit unless told: SigLIP knows
        nothing else, and in 16 bits a caption's score would depend on the longest one beside it.
    """

    def __init__(self, tokenizer: Any, limit: int, step: int = 0):
        self._tokenizer, self._limit, self._step = tokenizer, limit, step or limit
        # A tokenizer's settings change with each call: two threads would meet in its native half, which refuses that.
        self._lock = threading.Lock()

    def tidy(self, text: str) -> str:
        """A text in the form that the tower was trained on."""
        return text

    def count(self, text: str) -> int:
        """Tokens of a text, with the special ones."""
        with self._lock:
            return len(self._tokenizer(self.tidy(text), padding=False, truncation=False, verbose=False)["input_ids"])

    def cut(self, caption: str) -> Cut:
        texts = pieces(caption, self.count, self._limit) or [""]
        return Cut(tuple(texts), tuple(max(1, self.count(text)) for text in texts))

    def batch(self, texts: Sequence[str], device: Device) -> dict[str, Any]:
        """Token numbers and mask, a row for each text."""
        with self._lock:
            batch = self._tokenizer(
                [self.tidy(text) for text in texts],
                padding=True,
                pad_to_multiple_of=self._step,
                # Gemma's tokenizer, which SigLIP 2 has, would pad on the left.
                padding_side="right",
                truncation=True,
                max_length=self._limit,
                return_tensors="pt",
            )
        return {name: batch[name].to(device.name) for name in ("input_ids", "attention_mask")}


class LowerCaseReader(Reader):
    """For SigLIP, which was trained on lower-case text; not all published tokenizers see to that themselves."""

    def tidy(self, text: str) -> str:
        return text.lower()


class CaptionNetwork(Calibrated):
    """What all selectors of this kind share: a subclass sees clips, and says how captions fit to them.

    A fit is whatever number the model itself compares by; those of a caption's pieces are combined before they become
    a score, so that a wrong sentence counts in full also where the score is a probability that saturates. Those of a
    trained version are calibrated last.
    """

    _model: Any
    _frames: int

    def __init__(self, reader: Reader):
        self._reader = reader

    @property
    def reader(self) -> Reader:
        """What its text tower reads."""
        return self._reader

    @property
    def model(self) -> Any:
        """The model of Transformers."""
        return self._model

    @property
    def frames(self) -> int:
        """How many frames of a clip it looks at."""
        return self._frames

    def around(self, model: Any) -> Self:
        """This network with another model of the same sizes, which a trainer may change."""
        other = copy.copy(self)
        other._model = model
        return other

    def see(self, clip: Clip) -> dict[str, Any]:
        """The clip's frames as tensors."""
        raise NotImplementedError

    def fits(self, seen: Sequence[dict[str, Any]], texts: Sequence[str]) -> Any:
        """A float32 tensor (clips, texts): how each text fits to each clip, whatever else is in the batch."""
        raise NotImplementedError

    def score(self, fit: float) -> float:
        """What a fit is published as."""
        return fit

    def prepare(self, request: CaptionedClip) -> Prepared:
        captions = tuple(self._reader.cut(candidate.text) for candidate in request.candidates)
        return Prepared(self.see(request.clip), captions)

    def forward(self, prepared: Sequence[Prepared]) -> Raw:
        # Each text once, so that equal captions have equal scores and cost one reading.
        texts = list(dict.fromkeys(text for one in prepared for cut in one.captions for text in cut.texts))
        if not texts:
            return Raw([[] for _ in prepared])
        fits = self.fits([one.seen for one in prepared], texts).tolist()
        column = {text: number for number, text in enumerate(texts)}
        return Raw(
            [
                [([fits[row][column[text]] for text in cut.texts], cut.tokens) for cut in one.captions]
                for row, one in enumerate(prepared)
            ]
        )

    def finish(self, request: CaptionedClip, raw: Sequence[tuple[list[float], tuple[int, ...]]]) -> tuple[float, ...]:
        return self.calibrated(self.score(combine(fits, tokens)) for fits, tokens in raw)


class ClipNetwork(CaptionNetwork):
    """CLIP. A score is the cosine of the two vectors: in [-1, 1], not calibrated, in practice between 0.1 and 0.4.

    Args:
      model: of Transformers, on `device`. frames: of a clip, uniform; fewer where its reel has fewer.
    """

    def __init__(self, model: Any, processor: Any, reader: Reader, device: Device, frames: int):
        super().__init__(reader)
        self._model, self._processor, self._device, self._frames = model, processor, device, frames

    def see(self, clip: Clip) -> dict[str, Any]:
        return self.look(clip_frames(clip, self._frames).frames)

    def look(self, frames: Sequence[np.ndarray]) -> dict[str, Any]:
        """Frames of one clip, uint8 RGB, as tensors."""
        return dict(self._processor(images=list(frames), return_tensors="pt"))

    def fits(self, seen: Sequence[dict[str, Any]], texts: Sequence[str]) -> Any:
        counts = [len(one["pixel_values"]) for one in seen]
        return self.compare(joined(seen, self._device), counts, self._reader.batch(texts, self._device))

    def compare(self, pixels: Mapping[str, Any], counts: Sequence[int], tokens: Mapping[str, Any]) -> Any:
        """What `fits` says of frames and texts on the model's device; it can be differentiated.

        Args:
          pixels: of all clips' frames, one clip after the other. counts: frames of each clip. tokens: of the texts.
        """
        import torch

        pictures = unit(pooled(self._model.get_image_features(**pixels)))
        clips = unit(torch.stack([frames.mean(dim=0) for frames in pictures.split(list(counts))]))
        captions = unit(self._read(tokens))
        # In a trainer's 16 bits a cosine would have three digits, and CLIP multiplies it by a hundred.
        with torch.autocast(clips.device.type, enabled=False):
            return clips @ captions.T

    def _read(self, tokens: Mapping[str, Any]) -> Any:
        return pooled(self._model.get_text_features(**tokens))


class SiglipNetwork(ClipNetwork):
    """SigLIP and SigLIP 2. A score is the sigmoid of the model's own scale and bias: the probability of a match.

    It was trained on single pictures; of a clip's mean vector it is as calibrated as the frames are alike.
    """

    def compare(self, pixels: Mapping[str, Any], counts: Sequence[int], tokens: Mapping[str, Any]) -> Any:
        cosines = super().compare(pixels, counts, tokens)
        return cosines * self._model.logit_scale.float().exp() + self._model.logit_bias.float()

    def score(self, fit: float) -> float:
        return sigmoid(fit)

    def _read(self, tokens: Mapping[str, Any]) -> Any:
        # No mask: it was trained with the padding in sight, and pools the last token, which is padding.
        return pooled(self._model.get_text_features(input_ids=tokens["input_ids"]))


class DualEncoderSelector(ResidentHandler[CaptionedClip, tuple[float, ...]]):
    """How well each candidate caption fits its clip, by CLIP (a cosine), SigLIP or SigLIP 2 (a probability)."""

    def network(self, device: Device) -> CaptionNetwork:
        """Load both towers.

        Raises:
          WeightsError: the checkpoint is missing, or of another kind.
        """
        settings = self.settings
        config = load_part("AutoConfig", settings)
        if config.model_type not in ("clip", "siglip", "siglip2"):
            raise not_of_kind(settings, config.model_type, "CLIP, SigLIP or SigLIP 2")
        model, processor = load_model("AutoModel", settings, device), load_part("AutoImageProcessor", settings)
        tokenizer, limit = load_part("AutoTokenizer", settings), text_limit(config, settings)
        if config.model_type == "clip":
            return as_trained(
                ClipNetwork(model, processor, Reader(tokenizer, limit), device, settings.frames), settings
            )
        # The position that is pooled must be the one it was trained at: never shorter than all of them.
        reader = LowerCaseReader(tokenizer, config.text_config.max_position_embeddings)
        return as_trained(SiglipNetwork(model, processor, reader, device, settings.frames), settings)


def text_limit(config: Any, settings: Settings) -> int:
    """Tokens that a checkpoint's text tower reads, or fewer where the settings say so."""
    return min(config.text_config.max_position_embeddings, settings.text_tokens)


def not_of_kind(settings: Settings, found: str, wanted: str) -> WeightsError:
    """The error for a checkpoint that a selector can't use."""
    return WeightsError(f"{settings.weights} is a {found} model; this selector wants {wanted}")


def unit(vectors: Any) -> Any:
    """Rows at length 1, in float32."""
    import torch

    return torch.nn.functional.normalize(vectors.float(), dim=-1)
