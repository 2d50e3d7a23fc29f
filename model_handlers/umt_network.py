"""Unmasked Teacher's video and text encoders, as functions of the tensors that its authors publish.

    network = UmtNetwork(L16, tensors)                        # umt_weights.load_network reads a checkpoint
    tokens, pooled = network.encode_video(frames)             # (clips, frames, 3, 224, 224), normalised
    states = network.encode_text(ids, mask)                   # (captions, tokens)
    network.vtc(pooled, states), network.match(tokens, states, mask, counts=[8, 8])

Written from the architecture: Li et al., Unmasked Teacher, ICCV 2023 (arXiv 2303.16058), a ViT over all patches of all
frames at once, and BERT whose last layers look at the video as well. Transformers' BERT has cross-attention in every
layer or in none, and then a causal mask, so its few layers stand here. Tensors keep their published names. Whoever
trains it overrides what is left out here: dropout (`_drop`, `_attention_dropout`) and whole blocks (`_skip`).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Tensors = Mapping[str, Any]

#: Both encoders add this much to a variance; the text's is BERT's.
VIDEO_EPS, TEXT_EPS = 1e-6, 1e-12


@dataclasses.dataclass(frozen=True)
class UmtSizes:
    """The sizes of a model. An MLP is four times as wide as what it stands in.

    Attributes:
      video_width, video_layers, text_width, text_layers: of the two encoders. fusion_layer: the first text layer that
      looks at the video. embed_width: of the space where both meet. patch: pixels a side. tubelet: frames a token.
      vocabulary, positions: rows of BERT's tables. side: of a frame, pixels. head_width: of each attention head.
      trained_frames: tubelets whose positions are stretched to those seen; None where every number of them has its
      own positions, as in all published configurations. The last three no tensor tells.
    """

    video_width: int
    video_layers: int
    text_width: int
    text_layers: int
    fusion_layer: int
    embed_width: int
    patch: int = 16
    tubelet: int = 1
    vocabulary: int = 30522
    positions: int = 512
    side: int = 224
    head_width: int = 64
    trained_frames: int | None = None


B16 = UmtSizes(video_width=768, video_layers=12, text_width=768, text_layers=12, fusion_layer=9, embed_width=512)
L16 = UmtSizes(video_width=1024, video_layers=24, text_width=1024, text_layers=24, fusion_layer=19, embed_width=768)


class UmtNetwork:
    """The network of a checkpoint.

    Args:
      sizes: of the model. tensors: by their names in `umt_weights.layout`, all on one device.
      dtype: a torch dtype below float32 that matrices are multiplied in, as the authors evaluate; sums, normalisations
        and the heads stay in float32. None: float32 throughout.
    """

    def __init__(self, sizes: UmtSizes, tensors: Tensors, dtype: Any = None):
        import torch

        self.sizes = sizes
        self.tensors = tensors
        self._dtype = torch.float32 if dtype is None else dtype
        self._positions: dict[tuple[int, Any], Any] = {}

    @property
    def device(self) -> Any:
        """Where the tensors are."""
        return self.tensors["temp"].device

    @property
    def temperature(self) -> float:
        """What contrastive training divided cosines by; no score here needs it."""
        return self.tensors["temp"].item()

    def encode_video(self, frames: Any) -> tuple[Any, Any]:
        """Clips as tokens and as one vector a frame.

        Args:
          frames: normalised pixels, (clips, frames, 3, side, side), float32.

        Returns:
          (clips, tokens, width) and (clips, frames, width), float32.
        """
        from torch.nn.functional import conv3d

        clips, count = frames.shape[:2]
        patch = "vision_encoder.encoder.patch_embed.proj"
        kernel, bias = self.tensors[f"{patch}.weight"], self.tensors[f"{patch}.bias"]
        with self._mixed():
            patches = conv3d(frames.transpose(1, 2), kernel, bias.to(kernel.dtype), stride=kernel.shape[2:])
            x = patches.flatten(2).transpose(1, 2) + self._position_table(count // self.sizes.tubelet)
            for number in range(self.sizes.video_layers):
                x = self._video_layer(number, x)
            tokens = self._norm("vision_encoder.encoder.norm", x, VIDEO_EPS)
            # As published: with tubelets of two frames each frame gets half of their patches.
            means = tokens.reshape(clips, count, -1, tokens.shape[-1]).mean(2)
            return tokens, self._norm("vision_encoder.pool_norm", means, VIDEO_EPS)

    def encode_text(self, ids: Any, mask: Any) -> Any:
        """The states of captions in the layers that see text alone.

        Args:
          ids: (captions, tokens), int64. mask: as ids, bool, False where there is padding.

        Returns:
          (captions, tokens, width), float32; a caption's vector is its first.
        """
        tables = "text_encoder.embeddings"
        words = self.tensors[f"{tables}.word_embeddings.weight"][ids]
        places = self.tensors[f"{tables}.position_embeddings.weight"][: ids.shape[1]]
        kind = self.tensors[f"{tables}.token_type_embeddings.weight"][0]
        with self._mixed():
            x = self._drop(self._norm(f"{tables}.LayerNorm", words + kind + places, TEXT_EPS))
            for number in range(self.sizes.fusion_layer):
                x = self._text_layer(number, x, mask)
        return x

    def vtc(self, pooled: Any, states: Any) -> Any:
        """Cosines of every clip with every caption, (clips, captions): the mean over a clip's frames."""
        from torch.nn.functional import normalize

        # In a trainer's 16 bits, too: a cosine of three digits is none once it is divided by the temperature.
        with self._whole():
            videos = normalize(self._linear("vision_proj", pooled.float()), dim=-1)
            texts = normalize(self._linear("text_proj", states[:, 0].float()), dim=-1)
            return videos.mean(1) @ texts.T

    def match(self, tokens: Any, states: Any, mask: Any, counts: Sequence[int]) -> Any:
        """The probability that a caption and its clip belong together, (captions,); see `match_logits`."""
        return self.match_logits(tokens, states, mask, counts).sigmoid()

    def match_logits(self, tokens: Any, states: Any, mask: Any, counts: Sequence[int]) -> Any:
        """The log-odds that a caption and its clip belong together, (captions,), float32.

        Args:
          tokens: of the clips, from `encode_video`. states, mask: of all captions, clip after clip, from `encode_text`.
          counts: how many captions are each clip's.
        """
        import torch

        # No video token is masked, so all captions of a clip can ask it in one go; its keys are computed once.
        places = torch.arange(max(counts), device=self.device)
        present = places < torch.tensor(list(counts), device=self.device)[:, None]
        x = states
        with self._mixed():
            for number in range(self.sizes.fusion_layer, self.sizes.text_layers):
                x = self._text_layer(number, x, mask, tokens, present)
        with self._whole():
            no, yes = self._linear("itm_head", x[:, 0].float()).unbind(-1)
            return yes - no

    def _video_layer(self, number: int, x: Any) -> Any:
        """One block of the ViT."""
        from torch.nn.functional import gelu

        block = f"vision_encoder.encoder.blocks.{number}"
        seen = self._attend_within(f"{block}.attn", self._norm(f"{block}.norm1", x, VIDEO_EPS))
        x = x + self._skip(number, seen)
        hidden = gelu(self._linear(f"{block}.mlp.fc1", self._norm(f"{block}.norm2", x, VIDEO_EPS)))
        return x + self._skip(number, self._linear(f"{block}.mlp.fc2", hidden))

    def _text_layer(self, number: int, x: Any, mask: Any, tokens: Any = None, present: Any = None) -> Any:
        """One layer of BERT, normalised after each sum; looks at the video between itself and the MLP if there is one.

        present: (clips, most captions of a clip), which of these places hold a caption.
        """
        from torch.nn.functional import gelu

        layer = f"text_encoder.encoder.layer.{number}"
        seen = self._attend(f"{layer}.attention.self", x, x, mask[:, None, None, :])
        x = self._add(f"{layer}.attention.output", x, seen)
        if tokens is not None:
            asked = x.new_zeros(*present.shape, *x.shape[1:])
            asked[present] = x
            seen = self._attend(f"{layer}.crossattention.self", asked.flatten(1, 2), tokens)
            x = self._add(f"{layer}.crossattention.output", x, seen.reshape(asked.shape)[present])
        return self._add(f"{layer}.output", x, gelu(self._linear(f"{layer}.intermediate.dense", x)))

    def _attend(self, name: str, x: Any, context: Any, mask: Any = None) -> Any:
        query = self._linear(f"{name}.query", x)
        key, value = self._linear(f"{name}.key", context), self._linear(f"{name}.value", context)
        return self._heads(query, key, value, mask, self._attention_dropout())

    def _attend_within(self, name: str, x: Any) -> Any:
        """The ViT's attention: one matrix for queries, keys and values; keys have no bias."""
        import torch
        from torch.nn.functional import linear

        bias = self.tensors[f"{name}.q_bias"], self.tensors[f"{name}.v_bias"]
        weight = self.tensors[f"{name}.qkv.weight"]
        merged = torch.cat([bias[0], torch.zeros_like(bias[0]), bias[1]]).to(weight.dtype)
        query, key, value = linear(x, weight, merged).chunk(3, -1)
        return self._linear(f"{name}.proj", self._heads(query, key, value))

    def _heads(self, query: Any, key: Any, value: Any, mask: Any = None, dropout: float = 0.0) -> Any:
        from torch.nn.functional import scaled_dot_product_attention

        query, key, value = (x.unflatten(-1, (-1, self.sizes.head_width)).transpose(1, 2) for x in (query, key, value))
        seen = scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        return seen.transpose(1, 2).flatten(2)

    def _add(self, name: str, x: Any, change: Any) -> Any:
        return self._norm(f"{name}.LayerNorm", self._drop(self._linear(f"{name}.dense", change)) + x, TEXT_EPS)

    def _drop(self, x: Any) -> Any:
        """What is left of the text encoder's numbers in training; here all of them."""
        return x

    def _attention_dropout(self) -> float:
        """The share of the text encoder's attention that is left out in training; here none."""
        return 0.0

    def _skip(self, number: int, change: Any) -> Any:
        """What is left in training of what a block of the ViT adds; here all of it."""
        return change

    def _linear(self, name: str, x: Any) -> Any:
        from torch.nn.functional import linear

        weight = self.tensors[f"{name}.weight"]
        return linear(x, weight, self.tensors[f"{name}.bias"].to(weight.dtype))

    def _norm(self, name: str, x: Any, eps: float) -> Any:
        from torch.nn.functional import layer_norm

        return layer_norm(x, x.shape[-1:], self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"], eps)

    def _mixed(self) -> Any:
        import torch

        if self._dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self._dtype)

    def _whole(self) -> Any:
        import torch

        return torch.autocast(self.device.type, enabled=False)

    def _position_table(self, count: int) -> Any:
        """The table for `count` tubelets on the device, computed once."""
        import torch

        key = (count, self.device)
        if key not in self._positions:
            sizes = self.sizes
            trained = count if count == 1 or sizes.trained_frames is None else sizes.trained_frames
            table = sinusoids(trained * (sizes.side // sizes.patch) ** 2, sizes.video_width)
            stretched = stretch(torch.from_numpy(table).reshape(trained, -1), count)
            self._positions[key] = stretched.reshape(-1, sizes.video_width).to(self.device)
        return self._positions[key]


def sinusoids(count: int, width: int) -> np.ndarray:
    """Fixed position vectors, (count, width) float32: sines in even channels, cosines in odd (Vaswani et al., 2017)."""
    speeds = 1.0 / np.power(10000.0, 2 * (np.arange(width) // 2) / width)
    angles = np.arange(count)[:, None] * speeds
    return np.where(np.arange(width) % 2 == 0, np.sin(angles), np.cos(angles)).astype(np.float32)


def stretch(table: Any, count: int) -> Any:
    """Interpolate linearly between a tensor's rows so that there are `count`; (rows, columns) to (count, columns)."""
    from torch.nn.functional import interpolate

    if len(table) == count:
        return table
    return interpolate(table.T[None], size=count, mode="linear")[0].T
