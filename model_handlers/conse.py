"""ConSE: where a picture lies among sentences, without any training (Norouzi et al., ICLR 2014, arXiv 1312.5650).

    vector = lite.conse.picture(sight.probabilities)            # (384,), unit length
    scores = lite.conse.fit(lite.conse.recall(vector), ["A dog is running on grass."])

A picture is the probability-weighted mean of the sentence vectors of its labels, a text is its sentence vector. Both
are centred before they meet: all label vectors share a direction ("there is a thing"), all captions another ("somebody
does something somewhere"), and unless these are taken off the cosine tells wordings apart rather than contents.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import io
import threading
from collections.abc import Sequence

import numpy as np

from model_handlers import sentences, wording
from model_handlers.labels import Labels, load_labels
from model_handlers.sentences import SentenceEncoder, load_sentences

#: Labels that a picture is the mean of, and the power of their probabilities; both chosen on Flickr8k pictures, none of
#: which is a video of ours (docs/lite.md has the table). The power flattens: the network is too sure of itself.
LABELS_USED = 50
FLATTEN = 0.7

#: How a picture is drawn from label language into caption language before captions are scored (`Conse.recall`); chosen
#: on Flickr8k pictures too. Without it a caption that merely repeats the label's name beats every real sentence.
RECALLED, SHARPNESS, RECALL = 20, 10.0, 0.7

VECTORS = "phrases/vectors.npz"

_loading = threading.RLock()


class Conse:
    """The label vectors, the phrase bank's vectors, and the means that centre both.

    Args:
      label_vectors: (1000, 384), unit vectors. bank_vectors: (n, 384), of the n sentences of `bank`.
    """

    def __init__(
        self, encoder: SentenceEncoder, label_vectors: np.ndarray, bank: Sequence[str], bank_vectors: np.ndarray
    ):
        self._encoder = encoder
        self._labels = label_vectors
        self._label_mean = label_vectors.mean(axis=0)
        self._text_mean = _unit(bank_vectors.mean(axis=0))
        self.bank = tuple(bank)
        self.bank_vectors = _unit(bank_vectors - self._text_mean)

    def picture(self, probabilities: np.ndarray) -> np.ndarray:
        """The unit vector of one or several frames, from their label probabilities (1000,) or (n, 1000)."""
        mean = np.atleast_2d(probabilities).mean(axis=0)
        top = np.argsort(-mean, kind="stable")[:LABELS_USED]
        weights = mean[top] ** FLATTEN
        return _unit(weights @ self._labels[top] / weights.sum() - self._label_mean)

    def recall(self, picture: np.ndarray) -> np.ndarray:
        """The picture's vector moved towards the bank's sentences that resemble it.

        Projection onto a memory of sentences, which closes the gap between modalities (Li et al., DeCap, ICLR 2023):
        the softmax-weighted mean of the nearest sentences, mixed with the picture itself.
        """
        fits = self.bank_vectors @ picture
        top = np.argsort(-fits, kind="stable")[:RECALLED]
        weights = np.exp(SHARPNESS * (fits[top] - fits[top[0]]))
        memory = _unit(weights @ self.bank_vectors[top])
        return _unit((1 - RECALL) * picture + RECALL * memory)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """The unit vectors of texts, (n, 384), each one sentence."""
        return _unit(self._encoder.encode(texts) - self._text_mean)

    def fit(self, picture: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """How well each sentence fits the picture: cosines in [-1, 1]."""
        return np.clip(self.texts(texts) @ picture, -1.0, 1.0)

    def fit_captions(self, picture: np.ndarray, captions: Sequence[str]) -> list[float]:
        """How well each caption fits the recalled picture: the mean over its sentences, without stock openings.

        Sentences are scored one by one, so that a caption longer than the encoder's window loses nothing.
        """
        parts = [wording.scored_sentences(caption) for caption in captions]
        scores = iter(self.fit(picture, [sentence for part in parts for sentence in part]).tolist())
        return [sum(next(scores) for _ in part) / len(part) for part in parts]


def load_bank() -> tuple[str, ...]:
    """The packaged sentences about scenes and activities."""
    text = (importlib.resources.files("model_handlers") / "phrases/scenes.txt").read_text("utf-8")
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def label_texts(labels: Labels) -> tuple[list[str], list[str]]:
    """Two wordings of each label: alone, and with its group, which keeps rare names near their kin."""
    alone = [f"There is {phrase}." for phrase in labels.phrases]
    kin = [f"{_bare(phrase)}, {group}" for phrase, group in zip(labels.phrases, labels.groups, strict=True)]
    return alone, kin


def fingerprint(labels: Labels, bank: Sequence[str]) -> str:
    """What the packaged vectors depend on: every text, and the encoder's weights."""
    alone, kin = label_texts(labels)
    shaped_by = "\n".join([sentences.WEIGHTS_SHA256, *alone, *kin, *bank])
    return hashlib.sha256(shaped_by.encode()).hexdigest()


def compute_vectors(encoder: SentenceEncoder, labels: Labels, bank: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The vectors of labels and bank, computed anew: half a minute on a small machine, so they are packaged."""
    alone, kin = label_texts(labels)
    return _unit(encoder.encode(alone) + encoder.encode(kin)), encoder.encode(bank)


def packaged_vectors() -> tuple[str, np.ndarray, np.ndarray] | None:
    """(fingerprint, label vectors, bank vectors) as they were packaged; None when they were not."""
    file = importlib.resources.files("model_handlers") / VECTORS
    if not file.is_file():
        return None
    with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as kept:
        return str(kept["fingerprint"]), _unit(kept["labels"]), _unit(kept["bank"])


def load_conse() -> Conse:
    """The shared model: from the packaged vectors while these are fresh, else computed."""
    with _loading:
        return _load_conse()


@functools.cache
def _load_conse() -> Conse:
    encoder, labels, bank = load_sentences(), load_labels(), load_bank()
    kept = packaged_vectors()
    if kept is not None and kept[0] == fingerprint(labels, bank):
        return Conse(encoder, kept[1], bank, kept[2])
    label_vectors, bank_vectors = compute_vectors(encoder, labels, bank)
    return Conse(encoder, label_vectors, bank, bank_vectors)


def _bare(phrase: str) -> str:
    first, _, rest = phrase.partition(" ")
    return rest if first in ("a", "an", "the") else phrase


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def _write_packaged_vectors() -> None:
    labels, bank = load_labels(), load_bank()
    label_vectors, bank_vectors = compute_vectors(load_sentences(), labels, bank)
    with importlib.resources.as_file(importlib.resources.files("model_handlers") / "phrases") as folder:
        np.savez(
            folder / "vectors.npz",
            fingerprint=fingerprint(labels, bank),
            labels=label_vectors.astype(np.float16),
            bank=bank_vectors.astype(np.float16),
        )


if __name__ == "__main__":
    # python -m model_handlers.conse: package the vectors anew after a change of labels.yaml or scenes.txt.
    _write_packaged_vectors()
