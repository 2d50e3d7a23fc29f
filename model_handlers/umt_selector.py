"""Unmasked Teacher as a selector: the paper's, for whoever brings its weights.

    settings = UmtSettings("l16_25m.pth", sha256="...", tokenizer="bert-large-uncased", frames=12)
    captioned | RunInference(UmtSelector("umt-l16", settings))        # answers one probability a candidate
    UmtSettings("models/selector/v1")                                 # a trained version, with its tokenizer

A caption of more than 32 tokens is read in pieces, whose odds are averaged by their tokens (see `long_captions`). The
mean of probabilities would let one good sentence carry the wrong ones.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Sequence
from typing import Any

from model_handlers import bucket, long_captions
from model_handlers.checkpoints import is_hub_id, locate, version_of
from model_handlers.devices import Device
from model_handlers.frames import clip_frames
from model_handlers.resident import Raw, ResidentHandler, loaded_once
from model_handlers.settings import Settings
from model_handlers.trained import Calibrated, as_trained, sigmoid
from model_handlers.umt_inputs import TEXT_TOKENS
from model_handlers.umt_scoring import Umt, UmtClip
from model_handlers.umt_weights import FILE, untold_sizes
from model_handlers.weights import WeightsError, digest
from transforms.records import CaptionedClip

#: A probability of nought or one has no odds; nearer to them nothing is told apart.
LEAST = 1e-6


@dataclasses.dataclass(frozen=True)
class UmtSettings(Settings):
    """How Unmasked Teacher is loaded.

    Attributes:
      weights: the authors' `.pth`, or the same as `.safetensors`: a file, or gs://BUCKET/OBJECT. Or a trained version
        with its tokenizer: a directory with `umt.safetensors`, or gs://BUCKET/FOLDER; with a revision, a directory of
        the workers' image.
      tokenizer: BERT's, uncased: a directory, gs://BUCKET/FOLDER, or a hub id with tokenizer_revision. Unless told,
        a trained version's own.
    """

    tokenizer: str = "google-bert/bert-base-uncased"
    tokenizer_revision: str = "86b5e0934494bd15c9632b12f734a8a67f723594"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("tokenizer", "tokenizer_revision"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be a text, not {getattr(self, name)!r}")

    def version(self) -> str:
        if self._is_folder():
            self._check_folder()
            return version_of(self.weights, self.revision)
        if self.sha256:
            # Without a look at the file, which may be gigabytes in a bucket; whoever opens it compares them.
            return f"sha256 {self.sha256[:16]}"
        path = self.file()
        if path.endswith(".pth"):
            told = f"add sha256: {digest(path)} if you trust the file"
            raise WeightsError(f"{self.weights} is only opened with its SHA-256 pinned; {told}")
        return f"sha256 {digest(path)[:16]}"

    def file(self) -> str:
        """The weights' file, copied from its bucket where it is in one; `WeightsError` when there is none."""
        if folder := self.folder():
            return os.path.join(folder, FILE)
        if self.weights.startswith("gs://"):
            return bucket.fetch(self.weights)
        path = os.path.abspath(os.path.expanduser(self.weights))
        if not os.path.isfile(path):
            where = "the list of models in the authors' repository, OpenGVLab/unmasked_teacher, names it"
            raise WeightsError(f"there is no file {self.weights}; {where}")
        return path

    def folder(self) -> str:
        """A trained version's directory, copied from its bucket where it is in one; "" where weights name a file.

        Raises:
          WeightsError: there is no such directory on this machine, or none with weights in it.
        """
        if not self._is_folder():
            return ""
        self._check_folder()
        return self.place().path

    def _is_folder(self) -> bool:
        known = self.weights.endswith((".pth", ".safetensors"))
        return bool(self.weights) and not known and not os.path.isfile(os.path.expanduser(self.weights))

    def _check_folder(self) -> None:
        """See that a directory here holds a trained version; one in a bucket or an image is seen when it is loaded."""
        folder = os.path.expanduser(self.weights)
        if self.weights.startswith("gs://") or (self.revision and not os.path.isdir(folder)):
            return
        if not os.path.isfile(os.path.join(folder, FILE)):
            how = f"name a .pth or .safetensors file, or a directory that holds {FILE}, as training writes it"
            raise WeightsError(f"there are no weights at {self.weights}; {how}")

    def wording(self) -> str:
        shaping = "\n".join([super().wording(), self.tokenizer, self.tokenizer_revision])
        return hashlib.sha256(shaping.encode()).hexdigest()[:8]


@dataclasses.dataclass(frozen=True, slots=True)
class _Prepared:
    """A clip with all pieces of its captions, and for each caption its pieces' places and tokens."""

    clip: UmtClip
    captions: tuple[tuple[range, tuple[int, ...]], ...]


class UmtJudge(Calibrated):
    """The network of the selector; see `umt_scoring` for what it computes."""

    def __init__(self, umt: Umt):
        self._umt = umt

    def prepare(self, request: CaptionedClip) -> _Prepared:
        texts: list[str] = []
        captions = []
        for candidate in request.candidates:
            # A caption of nothing but signs has no pieces, and is read as nothing.
            pieces = long_captions.pieces(candidate.text, self._umt.reader.count, TEXT_TOKENS) or [""]
            places = range(len(texts), len(texts) + len(pieces))
            captions.append((places, tuple(map(self._umt.reader.count, pieces))))
            texts += pieces
        frames = clip_frames(request.clip, self._umt.frames).frames
        return _Prepared(self._umt.prepare(frames, texts), tuple(captions))

    def forward(self, prepared: Sequence[_Prepared]) -> Raw:
        scores = self._umt.forward([one.clip for one in prepared])
        return Raw(
            [
                [([found[place].matching_score for place in places], tokens) for places, tokens in one.captions]
                for one, found in zip(prepared, scores, strict=True)
            ]
        )

    def finish(self, request: CaptionedClip, raw: Sequence[tuple[list[float], tuple[int, ...]]]) -> tuple[float, ...]:
        return self.calibrated(_together(scores, tokens) for scores, tokens in raw)


class UmtSelector(ResidentHandler[CaptionedClip, tuple[float, ...]]):
    """Unmasked Teacher, by the probability of a match (section 3.3)."""

    settings: UmtSettings

    def network(self, device: Device) -> UmtJudge:
        settings = self.settings
        tokenizer = tokenizer_folder(settings)

        def load() -> Any:
            return Umt.load(
                settings.file(),
                tokenizer,
                **(untold_sizes(folder) if (folder := settings.folder()) else {}),
                sha256=settings.sha256 or None,
                device=device.name,
                dtype=device.dtype,
                frames=settings.frames,
            )

        return as_trained(UmtJudge(loaded_once(("umt", settings, device), load)), settings)


def _together(probabilities: Sequence[float], tokens: Sequence[int]) -> float:
    """The probability of a caption whose pieces have these; of one piece, its own."""
    if len(probabilities) == 1:
        return probabilities[0]
    bounded = [min(max(probability, LEAST), 1.0 - LEAST) for probability in probabilities]
    logit = long_captions.combine([math.log(one / (1.0 - one)) for one in bounded], tokens)
    return sigmoid(logit)


def tokenizer_folder(settings: UmtSettings) -> str:
    """The directory of the tokenizer, fetched from its bucket or the hub where it is there."""
    if settings.tokenizer == UmtSettings.tokenizer and (folder := settings.folder()):
        return folder
    if not is_hub_id(settings.tokenizer):
        return bucket_or_folder(settings.tokenizer)
    place = locate(settings.tokenizer, settings.tokenizer_revision)
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(
            place.path, revision=place.revision, allow_patterns=["vocab.txt", "tokenizer*.json", "config.json"]
        )
    except Exception as error:
        # The hub's client fails in its own ways and in those of three libraries below it.
        told = " ".join(str(error).split())[:300]
        raise WeightsError(f"the tokenizer {settings.tokenizer} can't be fetched: {told}") from error


def bucket_or_folder(place: str) -> str:
    """The directory that `place` names, copied from its bucket where it is in one."""
    if place.startswith("gs://"):
        return bucket.fetch_folder(place, lambda path: path.endswith((".txt", ".json")))
    return os.path.expanduser(place)
