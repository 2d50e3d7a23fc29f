"""How pleasing a clip's frames look, by a LAION aesthetic predictor: a small head on CLIP's picture vectors.

    measure(Settings(head="sac+logos+ava1-l14-linearMSE.pth")).load()(view)      # -> {"aesthetic": 5.1}

LAION-AI/aesthetic-predictor publishes a linear head, christophschuhmann/improved-aesthetic-predictor one of five layers
(LAION-Aesthetics V1 and V2, Schuhmann 2022). Both read the unit vector of CLIP ViT-L/14 and answer on the scale of
people's ratings, 1 to 10; most pictures get 4 to 6. A clip's value is the mean over its frames.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import re
from collections.abc import Mapping

import numpy as np

from model_handlers import bucket
from model_handlers.measures.two_towers import CLIP_VIT_L, TwoTowers, check_frames, checkpoint, load_towers
from model_handlers.measures.view import ClipView, Look, Measure
from model_handlers.settings import Settings as Checkpoint
from model_handlers.weights import WeightsError, digest

#: The published heads, by their names there; these `.pth` files need no digest of the user's.
PUBLISHED = {
    "sa_0_4_vit_l_14_linear.pth": "2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba",
    "sa_0_4_vit_b_32_linear.pth": "c7b14cead230694acc7b9447974d3cad78003c72da032e402a303b6c2429e85f",
    "sa_0_4_vit_b_16_linear.pth": "8ad3923d7ecf019df20ecd2ab5542a3075fbba0278d239c0371345f3d7fcbde0",
    "sac+logos+ava1-l14-linearMSE.pth": "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
    "ava+logos-l14-linearMSE.pth": "390a3aafaf3b37d57148f9b22f30556de38343064b7d915acfa80d3812b4c9ff",
    "ava+logos-l14-reluMSE.pth": "0af3254c651d55b7ea851429c20f26ec880bb0169805a4df85b814bd7966f3e4",
}
#: Where the linear layers of the published sequences stand, and whether a ReLU stands between them: dropout, which
#: does nothing here, and ReLU take numbers of the sequence too.
SEQUENCES: dict[tuple[int, ...], bool] = {(0, 2, 4, 6, 7): False, (0, 3, 6, 9, 11): True}
_KEY = re.compile(r"layers\.(\d+)\.(weight|bias)")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Which head, and on which CLIP.

    Attributes:
      head: a `.safetensors` or `.pth` file of the head's tensors in their published names, here or in a bucket.
      sha256: of a `.pth` file, which is not opened without it unless it is one of `PUBLISHED`.
      weights, revision: of the CLIP that the head was made for; see `two_towers.checkpoint`.
      frames: uniform ones of the clip. dtype: what CLIP computes in; see `devices.choose_device`.

    Raises:
      ValueError: a setting that cannot be meant.
    """

    head: str
    sha256: str = ""
    weights: str = CLIP_VIT_L
    revision: str = ""
    frames: int = 4
    dtype: str = "auto-float16"

    def __post_init__(self) -> None:
        if not isinstance(self.head, str) or not self.head.endswith((".safetensors", ".pth")):
            wanted = "a .safetensors or .pth file such as sac+logos+ava1-l14-linearMSE.pth"
            raise ValueError(f"aesthetic needs head: {wanted}, not {self.head!r}")
        if not isinstance(self.sha256, str) or not re.fullmatch(r"([0-9a-f]{64})?", self.sha256):
            raise ValueError(f"sha256 must be 64 hexadecimal digits, not {self.sha256!r}")
        check_frames(self.frames)
        self.checkpoint()

    def checkpoint(self) -> Checkpoint:
        """How CLIP is loaded."""
        return checkpoint(self.weights, self.revision, self.dtype)


@dataclasses.dataclass(frozen=True)
class Head:
    """Linear layers one behind the other, with a ReLU between them or nothing.

    layers: (weight (out, in), bias (out,)), float32, the last of one output. relu: see `SEQUENCES`.
    """

    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    relu: bool = False

    @property
    def width(self) -> int:
        """Numbers of the vector that it reads."""
        return self.layers[0][0].shape[1]

    def rate(self, vectors: np.ndarray) -> np.ndarray:
        """The rating of each unit vector: (n, width) to (n,)."""
        for number, (weight, bias) in enumerate(self.layers):
            vectors = np.maximum(vectors, 0) if self.relu and number else vectors
            vectors = vectors @ weight.T + bias
        return vectors[:, 0]


def measure(settings: Settings) -> Measure:
    """The measure `aesthetic`.

    Raises:
      WeightsError: there is no such head or CLIP, or they may not be opened.
    """
    path, model = find_head(settings.head, settings.sha256), settings.checkpoint()
    return Measure(
        name="aesthetic",
        columns=("aesthetic",),
        summary="how pleasing the frames look, as people rate photographs: 1 to 10, by a LAION aesthetic predictor",
        load=functools.partial(_load, settings, digest(path)),
        identity=(model.version(), digest(path), settings.frames, settings.dtype),
    )


def find_head(head: str, sha256: str = "") -> str:
    """The local file of a head, fetched from its bucket where it is in one.

    Raises:
      WeightsError: there is none, or it is not the one whose digest is pinned.
    """
    path = bucket.fetch(head) if head.startswith("gs://") else os.path.abspath(os.path.expanduser(head))
    if not os.path.isfile(path):
        raise WeightsError(f"there is no aesthetic head at {path}; docs/measures-models.md says where to get one")
    pinned = sha256 or PUBLISHED.get(os.path.basename(path), "")
    if not pinned and path.endswith(".pth"):
        raise WeightsError(f"{path} is a .pth file, which is opened by its digest alone: write sha256: {digest(path)}")
    if pinned and pinned != digest(path):
        raise WeightsError(f"{path} has SHA-256 {digest(path)}, but {pinned} is pinned; fetch it again")
    return path


def read_head(path: str) -> Head:
    """The head in a file.

    Raises:
      WeightsError: the file is damaged, or holds no published kind of head.
    """
    try:
        tensors = _read(path)
    except Exception as error:
        # Damage shows itself as anything, from a SafetensorError to a KeyError inside the unpickler.
        raise WeightsError(f"{path} can't be read: {' '.join(str(error).split())}") from error
    return head_of(tensors, path)


def head_of(tensors: Mapping[str, np.ndarray], path: str) -> Head:
    """The head that these tensors make, by their published names; `WeightsError` unless they make one."""
    places: tuple[str, ...] = ("",)
    if alone := tensors.keys() == {"weight", "bias"}:
        named = {("", kind): tensors[kind] for kind in ("weight", "bias")}
    else:
        found = {key: _KEY.fullmatch(key) for key in tensors}
        if stranger := next((key for key, match in found.items() if match is None), ""):
            raise WeightsError(f"{path} is no aesthetic head: nobody knows its {stranger}")
        named = {(match[1], match[2]): tensors[key] for key, match in found.items() if match}
        places = tuple(sorted({place for place, _ in named}, key=int))
    relu = False if alone else SEQUENCES.get(tuple(int(place) for place in places))
    if relu is None or len(named) != 2 * len(places):
        raise WeightsError(f"{path} is no aesthetic head: its layers are {', '.join(sorted(tensors)) or 'none'}")
    layers = tuple((named[place, "weight"], named[place, "bias"]) for place in places)
    _check_shapes(path, layers)
    return Head(layers, relu)


def _check_shapes(path: str, layers: tuple[tuple[np.ndarray, np.ndarray], ...]) -> None:
    shapes = [(weight.shape, bias.shape) for weight, bias in layers]
    fits = all(len(weight) == 2 and bias == weight[:1] for weight, bias in shapes)
    fits = fits and all(one[0][0] == other[0][1] for one, other in itertools.pairwise(shapes))
    if not fits or shapes[-1][0][0] != 1:
        told = ", ".join(" x ".join(map(str, weight)) for weight, _ in shapes)
        raise WeightsError(f"{path} is no aesthetic head: layers of {told} do not lead from a vector to one number")


def _read(path: str) -> dict[str, np.ndarray]:
    if path.endswith(".safetensors"):
        import safetensors.torch

        tensors = safetensors.torch.load_file(path)
    else:
        import torch

        tensors = torch.load(path, map_location="cpu", weights_only=True)
    return {name: tensor.float().numpy() for name, tensor in tensors.items()}


def _load(settings: Settings, sha256: str) -> Look:
    path = find_head(settings.head, sha256)
    head, towers = read_head(path), load_towers(settings.checkpoint())
    if head.width != towers.width:
        told = f"{path} reads vectors of {head.width} numbers, {settings.weights} makes {towers.width}"
        raise WeightsError(f"{told}; set weights: to the CLIP that the head was made for")
    return functools.partial(look, towers, head, settings.frames)


def look(towers: TwoTowers, head: Head, frames: int, view: ClipView) -> dict[str, float]:
    """The mean rating of uniform frames of a clip."""
    return {"aesthetic": float(head.rate(towers.see(view, view.uniform(frames))).mean())}
