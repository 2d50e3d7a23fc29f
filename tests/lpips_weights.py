"""Weights in the shapes of LPIPS for the tests of it: drawn at random with a fixed seed, so worthless but the same."""

from __future__ import annotations

import pathlib

import torch
from safetensors.torch import save_file

#: The trunks' convolutions: their place in torchvision's `features` and their shape.
ALEX = (
    (0, (64, 3, 11, 11)),
    (3, (192, 64, 5, 5)),
    (6, (384, 192, 3, 3)),
    (8, (256, 384, 3, 3)),
    (10, (256, 256, 3, 3)),
)
_VGG = ((0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128), (10, 128, 256), (12, 256, 256), (14, 256, 256))
_VGG_DEEP = ((17, 256, 512), (19, 512, 512), (21, 512, 512), (24, 512, 512), (26, 512, 512), (28, 512, 512))
VGG = tuple((place, (channels, before, 3, 3)) for place, before, channels in (*_VGG, *_VGG_DEEP))
HEADS = (64, 192, 384, 256, 256)


def lpips_tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    """All of LPIPS over AlexNet, in the names of the one-file form."""
    drawn = torch.Generator().manual_seed(seed)
    tensors = {}
    for number, (_, shape) in enumerate(ALEX):
        tensors[f"net.{number}.weight"] = torch.randn(shape, generator=drawn) / (shape[1] * shape[2] * shape[3]) ** 0.5
        tensors[f"net.{number}.bias"] = torch.zeros(shape[0])
    return tensors | {f"lin.{number}.weight": torch.rand(size, generator=drawn) for number, size in enumerate(HEADS)}


def torchvision_tensors(trunk: tuple = ALEX, seed: int = 0) -> dict[str, torch.Tensor]:
    """A trunk in torchvision's names, with a bit of the classifier that LPIPS has no use for."""
    drawn = torch.Generator().manual_seed(seed)
    tensors = {"classifier.6.bias": torch.zeros(1000)}
    for place, shape in trunk:
        tensors[f"features.{place}.weight"] = torch.randn(shape, generator=drawn) / (shape[1] * shape[2] ** 2) ** 0.5
        tensors[f"features.{place}.bias"] = torch.zeros(shape[0])
    return tensors


def write_weights(path: pathlib.Path, tensors: dict[str, torch.Tensor] | None = None) -> str:
    """A safetensors file of these, or of `lpips_tensors`."""
    save_file(lpips_tensors() if tensors is None else tensors, path)
    return str(path)
