"""LPIPS: how different two pictures look, and how much a clip changes within itself (paper, section 3.1 and table 2).

    lpips = load_lpips("lpips_alex_v0.1.safetensors")
    lpips.max_running(reel.frames(rows_at_1fps(reel, clip.span)))      # Max Running LPIPS, 0.256 in the paper

Pictures are looked at in the size they have. The network is the `lpips` package's own; for its weights see
`model_handlers.perceptual_weights`.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from model_handlers.devices import choose_device
from model_handlers.frames import OpenReel
from model_handlers.measures.view import Look, Measure
from model_handlers.perceptual_weights import build_network, find_weights
from model_handlers.resident import computing
from model_handlers.vision import use_one_thread
from model_handlers.weights import WeightsError, digest
from transforms.records import Span
from transforms.reel import Reel

#: Frames through the network at once: on a CPU the maps of more leave the caches, a GPU wants to be filled.
FRAMES_AT_ONCE = {"cpu": 2, "cuda": 8}
#: AlexNet's second pooling needs 31 pixels.
LEAST_SIDE = 32

SUMMARY = "Max Running LPIPS: the greatest change between key frames at 1 fps; the smaller, the more of a piece"


class Lpips:
    """LPIPS on one device; safe between threads.

    Args:
      network: an `lpips.LPIPS`, in evaluation mode and on `device`.
    """

    def __init__(self, network: Any, device: str):
        self.network, self.device = network, device
        self._at_once = FRAMES_AT_ONCE.get(device.partition(":")[0], 2)

    def distances(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[float]:
        """The distance of each pair of pictures, uint8 RGB (height, width, 3); 0 is the same."""
        return [self.running(pair)[0] for pair in pairs]

    def max_running(self, frames: Sequence[np.ndarray]) -> float | None:
        """The greatest distance between neighbours; None where there are fewer than two frames."""
        return max(self.running(frames), default=None)

    def running(self, frames: Sequence[np.ndarray]) -> list[float]:
        """The distance of each frame to the next: n - 1 numbers.

        Args:
          frames: uint8 RGB (height, width, 3). Those of another size than the first are brought to its size.

        Raises:
          ValueError: the frames are smaller than the network can look at.
        """
        import torch

        frames = _of_one_size(frames)
        found: list[float] = []
        last: list[Any] = []
        with self._exactly(), torch.inference_mode():
            for start in range(0, len(frames), self._at_once):
                layers = self._look_at(frames[start : start + self._at_once])
                if last:
                    layers = [torch.cat(both) for both in zip(last, layers, strict=True)]
                found += self._between_neighbours(layers)
                last = [maps[-1:] for maps in layers]
        return found

    def _look_at(self, frames: Sequence[np.ndarray]) -> list[Any]:
        """The trunk's maps of each frame, layer by layer, of unit length at each place."""
        import lpips
        import torch

        pixels = torch.from_numpy(np.stack(frames)).to(self.device).permute(0, 3, 1, 2)
        layers = self.network.net(self.network.scaling_layer(pixels.float() / 127.5 - 1.0))
        return [lpips.normalize_tensor(maps) for maps in layers]

    def _between_neighbours(self, layers: Sequence[Any]) -> list[float]:
        if len(layers[0]) < 2:
            return []
        weighed = [
            head((maps[:-1] - maps[1:]) ** 2).mean(dim=(1, 2, 3))
            for head, maps in zip(self.network.lins, layers, strict=True)
        ]
        return sum(weighed).tolist()

    @contextlib.contextmanager
    def _exactly(self) -> Iterator[None]:
        """Keep cuDNN from rounding to TF32 meanwhile, which costs more than the 1e-4 that two runs may differ by."""
        if not self.device.startswith("cuda"):
            yield
            return
        import torch

        # Alone on the GPU, as every batch is; and the switch is the process's.
        with computing[self.device], torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield


def load_lpips(weights: str, device: str | None = None) -> Lpips:
    """Load LPIPS.

    Args:
      weights: a local `.safetensors` or torch hub `.pth` file, or `hub` (see `perceptual_weights`).
      device: as torch names it; default: a GPU where there is one.

    Raises:
      WeightsError: there are no such weights, or they do not fit.
    """

    network = build_network(find_weights(weights))
    device = device or choose_device("float32").name
    return Lpips(network.to(device), device)


def rows_at_1fps(reel: Reel | OpenReel, span: Span) -> list[int]:
    """The rows of the reel's frames nearest to the span's start, a second later, and so on; inside it, none twice.

    A span without any frame gives the one nearest to its middle.
    """
    rows = reel.within(span.start_s, span.end_s)
    times = [reel.times[row] for row in rows]
    picked = set()
    # To the millisecond, as times are floats: 3.0000000001 s have three key frames, not four.
    for second in range(math.ceil(round(span.duration_s, 3))):
        at = bisect.bisect_left(times, span.start_s + second)
        around = [place for place in (at - 1, at) if 0 <= place < len(times)]
        picked.add(min(around, key=lambda place: abs(times[place] - span.start_s - second)))
    return [rows[place] for place in sorted(picked)]


def _of_one_size(frames: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    if not frames:
        return frames
    height, width = frames[0].shape[:2]
    if min(height, width) < LEAST_SIDE:
        raise ValueError(f"frames of {width} x {height} pixels are too small for LPIPS, which wants {LEAST_SIDE}")
    if all(frame.shape == frames[0].shape for frame in frames):
        return frames
    size = (width, height)
    return [np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)) for frame in frames]


def lpips_measure(weights: Any) -> Measure:
    """Max Running LPIPS as a measure of a clip; None when the clip has fewer than two key frames.

    Args:
      weights: see `load_lpips`; what the file holds now is what the measure is known by.

    Raises:
      ValueError: it can't be meant. WeightsError: there are no such weights.
    """
    if not (isinstance(weights, str) and weights):
        raise ValueError(f"measures.lpips must be a weights file, `hub` or null, not {weights!r}")
    try:
        sha256 = digest(find_weights(weights))
    except WeightsError as error:
        raise WeightsError(f"measures.lpips: {error}") from error
    return Measure(
        name="lpips",
        columns=("max_running_lpips",),
        summary=SUMMARY,
        load=functools.partial(_load, weights, sha256),
        identity=(sha256,),
        model="LPIPS v0.1",
        revision=f"sha256 {sha256[:12]}",
        licence="BSD-2-Clause (heads), BSD-3-Clause (trunk)",
    )


def _load(weights: str, sha256: str) -> Look:
    path = find_weights(weights)
    if digest(path) != sha256:
        raise WeightsError(f"{path} is not the file any more that the job was configured with; start the job anew")
    use_one_thread()
    model = load_lpips(path)
    return lambda view: {"max_running_lpips": model.max_running(view.frames(rows_at_1fps(view.reel, view.clip.span)))}
