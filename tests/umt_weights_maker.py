"""Weights, captions and pictures for the tests of Unmasked Teacher: worthless, but the same everywhere and for ever.

Each tensor comes from its own name by Philox's raw numbers, which no version of numpy changes, so no file is needed.
The authors' code was given exactly these to make `umt_golden.json`; see `test_umt.py`.
"""

from __future__ import annotations

import hashlib
import math
import pathlib
from collections.abc import Mapping

import numpy as np
import torch

from model_handlers.umt_network import UmtNetwork, UmtSizes
from model_handlers.umt_weights import layout

#: Every size differs from every other, so that none can stand in for another.
TINY = UmtSizes(
    video_width=64,
    video_layers=3,
    text_width=48,
    text_layers=4,
    fusion_layer=2,
    embed_width=24,
    patch=8,
    vocabulary=46,
    positions=40,
    side=32,
    head_width=16,
)

#: What the tokenizer knows.
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (
    *("a", "an", "the", "person", "man", "woman", "dog", "cat", "bird", "car", "boat", "ball", "water", "grass"),
    *("is", "are", "run", "##s", "##ning", "swim", "##ming", "sit", "##ting", "drive", "on", "in", "with", "and"),
    *("red", "green", "blue", "small", "cafe", "dont", "well", "known", "half", "7", "##th", "@", "_"),
)
VOCABULARY = (*SPECIAL, *WORDS)

#: Captions that the authors' rules change: punctuation, dashes, slashes, accents, a marked person, capitals, blanks.
CAPTIONS = (
    "A dog is running on the grass.",
    "<Person> is swimming in the BLUE water!",
    "  The café: a man/woman   sitting with a cat (half-red, well-known)\n",
    "a bird",
    "Don't drive; the red car's 7th ball ~ is in the boat...",
)


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers with mean 0 and variance 1, float64, from a name."""
    count = math.prod(shape)
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")
    raw = np.random.Philox(key=key).random_raw(count)
    return ((raw >> np.uint64(11)).astype(np.float64) * 2.0**-53 - 0.5).reshape(shape) * 12**0.5


def tensor(name: str, shape: tuple[int, ...], gain: float = 2.5) -> torch.Tensor:
    """The weights of a name. At a gain of 2.5 attention is uneven, and every input moves every output."""
    drawn = uniform(name, shape)
    if name == "temp":
        drawn = np.asarray(0.07)
    elif "norm" in name.lower() and name.endswith(".weight"):
        drawn = 1.0 + 0.2 * drawn
    elif len(shape) == 1:
        drawn = 0.2 * drawn
    elif "_embeddings." in name:
        # As small as BERT's: the first normalisation then shows what it adds to the variance.
        drawn = 0.04 * drawn
    else:
        drawn = (gain if "encoder." in name else 1.5) * drawn / math.prod(shape[1:]) ** 0.5
    return torch.from_numpy(drawn.astype(np.float32))


def retrieval_tensors(sizes: UmtSizes = TINY, gain: float = 2.5) -> dict[str, torch.Tensor]:
    """All that a checkpoint of the authors' retrieval code holds."""
    made = {name: tensor(name, shape, gain) for name, shape in layout(sizes).items()}
    return made | {"text_encoder.embeddings.position_ids": torch.arange(sizes.positions)[None]}


def pretraining_tensors(sizes: UmtSizes = TINY) -> dict[str, torch.Tensor]:
    """The same model as the authors' pretraining saves it, with something of all that only its losses need."""
    made = {
        name.replace("text_encoder.", "text_encoder.bert.", 1): kept for name, kept in retrieval_tensors(sizes).items()
    }
    aside = {
        "text_encoder.cls.predictions.bias": (sizes.vocabulary,),
        "text_encoder.cls.predictions.transform.dense.weight": (sizes.text_width, sizes.text_width),
        "vision_encoder.clip_decoder.0.head.weight": (20, sizes.video_width),
        "vision_encoder.clip_decoder.0.norm.bias": (20,),
        "clip_teacher.class_embedding": (28,),
    }
    return made | {name: tensor(name, shape) for name, shape in aside.items()}


def pixels(name: str, frames: int, side: int = TINY.side) -> torch.Tensor:
    """A clip as the network sees it: (frames, 3, side, side), normalised."""
    return torch.from_numpy(uniform(name, (frames, 3, side, side)).astype(np.float32))


def pictures(name: str, frames: int, height: int = 45, width: int = 80) -> list[np.ndarray]:
    """Frames of a film: coarse patterns with noise, uint8 RGB (height, width, 3)."""
    made = []
    for number in range(frames):
        coarse = uniform(f"{name} {number}", (5, 5, 3)).repeat(-(-height // 5), 0).repeat(-(-width // 5), 1)
        noise = uniform(f"{name} {number} noise", (height, width, 3))
        made.append(np.clip(128 + 60 * coarse[:height, :width] + 20 * noise, 0, 255).astype(np.uint8))
    return made


def token_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Four texts of 12, 7, 3 and 2 tokens with their padding: ids and mask, (4, 12)."""
    lengths = torch.tensor([12, 7, 3, 2])
    drawn = torch.from_numpy((np.abs(uniform("ids", (4, 12))) * 1e6).astype(np.int64) % TINY.vocabulary)
    mask = torch.arange(12) < lengths[:, None]
    return torch.where(mask, drawn, 0), mask


def write_tokenizer(folder: pathlib.Path, words: tuple[str, ...] = VOCABULARY) -> str:
    """A directory with the one file that BERT's tokenizer needs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words), "utf-8")
    return str(folder)


def write_checkpoint(path: pathlib.Path, tensors: Mapping[str, torch.Tensor], **beside: object) -> str:
    """A `.pth` as the authors' code writes it; returns its SHA-256."""
    torch.save({"model": dict(tensors), **beside}, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def all_pairs(model: UmtNetwork, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """vtc and vtm of clips a and b with the four texts, (2, 4) each."""
    ids, mask = token_batch()
    with torch.inference_mode():
        tokens, pooled = model.encode_video(torch.stack([pixels("clip a", frames), pixels("clip b", frames)]))
        states = model.encode_text(ids, mask)
        vtm = model.match(tokens, states.repeat(2, 1, 1), mask.repeat(2, 1), [4, 4])
        return model.vtc(pooled, states).numpy(), vtm.reshape(2, 4).numpy()
