"""LPIPS weights: where they are, whether they are what their name says, and the network they make.

    network = build_network(find_weights("lpips_alex_v0.1.safetensors"))      # lpips.LPIPS, every tensor accounted for

A file holds either all of LPIPS (`net.N` the trunk's convolutions in order, `lin.N` the heads), or torchvision's
AlexNet or VGG16, to which the `lpips` package adds its heads. Only what is named by `gs://` is fetched.
"""

from __future__ import annotations

import functools
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from model_handlers import bucket
from model_handlers.weights import WeightsError, check_sha256, digest

#: Torch hub's files, whose names carry the first digits of their SHA-256; only these `.pth` are opened.
HUB_FILES = {"alexnet-owt-7be5be79.pth": "7be5be79", "vgg16-397923af.pth": "397923af"}
HUB_DEFAULT = "alexnet-owt-7be5be79.pth"

#: The heads in lpips 0.1.4, v0.1.
HEADS_SHA256 = {
    "alex": "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    "vgg": "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
}

#: A trunk is known by its first convolution.
_TRUNKS = {(64, 3, 11, 11): "alex", (64, 3, 3, 3): "vgg"}

_TRUNK_KEY = re.compile(r"net\.slice\d+\.(\d+)\.(weight|bias)")
_HEAD_KEY = re.compile(r"lins?\.?(\d+)\.model\.1\.weight")

Tensors = Mapping[str, Any]


def find_weights(weights: str) -> str:
    """The local file that `weights` names: a path, `gs://BUCKET/OBJECT`, or `hub` for AlexNet in torch hub's cache.

    Raises:
      WeightsError: there is no such file, or it is of a kind that is not read.
    """
    if weights.startswith("gs://"):
        return find_weights(bucket.fetch(weights))
    if "://" in weights:
        raise WeightsError(f"LPIPS weights are read from a file or from gs://; copy {weights} here and name the copy")
    if weights == "hub":
        path = os.path.join(_hub_folder(), HUB_DEFAULT)
        if not os.path.isfile(path):
            fetch = """python -c 'import torchvision; torchvision.models.alexnet(weights="DEFAULT")'"""
            raise WeightsError(f"torch hub's cache has no {path}; to fetch it once, run: {fetch}")
        return path
    path = os.path.abspath(os.path.expanduser(weights))
    if not os.path.isfile(path):
        raise WeightsError(f"there are no LPIPS weights at {path}; name a file, or `hub` for torch hub's cache")
    name = os.path.basename(path)
    if not name.endswith(".safetensors") and name not in HUB_FILES:
        raise WeightsError(f"{path} is not read: LPIPS weights are .safetensors, or {' or '.join(HUB_FILES)}")
    return path


def _hub_folder() -> str:
    """Where torch.hub keeps checkpoints (as `torch.hub.get_dir` says, without importing torch)."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.path.expanduser(os.environ.get("TORCH_HOME", os.path.join(cache, "torch")))
    return os.path.join(home, "hub", "checkpoints")


def build_network(path: str) -> Any:
    """The `lpips.LPIPS` network with the weights of a file, on the CPU, ready to look.

    Raises:
      WeightsError: the file is damaged, is not what its name says, lacks a tensor or has one too many.
    """
    import lpips
    import torch

    tensors = _read(path)
    torchvisions = "features.0.weight" in tensors
    first = tensors.get("features.0.weight" if torchvisions else "net.0.weight")
    trunk = None if first is None else _TRUNKS.get(tuple(first.shape))
    if trunk is None:
        raise WeightsError(f"{path} holds neither LPIPS weights nor torchvision's AlexNet or VGG16")
    with warnings.catch_warnings(), torch.device("meta"):
        # lpips speaks to torchvision in words that are deprecated. On `meta` nothing is drawn at random for naught.
        warnings.simplefilter("ignore", UserWarning)
        network = lpips.LPIPS(net=trunk, pretrained=False, pnet_rand=True, verbose=False)
    wanted = network.state_dict()
    if torchvisions:
        # The classifier is AlexNet's and VGG16's, not LPIPS's.
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier.")}
        tensors |= {f"lin.{number}.weight": head for number, head in enumerate(_heads(trunk))}
    names = dict(_names_in_file(wanted, torchvisions))
    _check(path, tensors, {name: wanted[key] for key, name in names.items()})
    state = {key: tensors[name].float().reshape(wanted[key].shape) for key, name in names.items()}
    state |= {key: value for key, value in wanted.items() if key not in names}
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval().requires_grad_(False)


def _read(path: str) -> Tensors:
    """All tensors of a file, by name."""
    pinned = HUB_FILES.get(os.path.basename(path))
    if path.endswith(".safetensors"):
        import safetensors.torch

        read = safetensors.torch.load_file
    elif pinned is None:
        raise WeightsError(f"{path} is not read: of .pth files only {' and '.join(HUB_FILES)}")
    elif not digest(path).startswith(pinned):
        raise WeightsError(f"{path} has SHA-256 {digest(path)[:12]}..., not {pinned}...; delete it and fetch it again")
    else:
        import torch

        read = functools.partial(torch.load, map_location="cpu", weights_only=True)
    try:
        return dict(read(path))
    except Exception as error:
        # Damage shows itself as anything, from a SafetensorError to a KeyError inside the unpickler.
        raise WeightsError(f"{path} can't be read: {' '.join(str(error).split())}") from error


def _heads(trunk: str) -> Iterator[Any]:
    """The heads that the installed lpips package has for a trunk, in order."""
    import lpips
    import torch

    path = os.path.join(os.path.dirname(lpips.__file__), "weights", "v0.1", f"{trunk}.pth")
    check_sha256(path, HEADS_SHA256[trunk])
    heads = torch.load(path, map_location="cpu", weights_only=True)
    return (heads[f"lin{number}.model.1.weight"] for number in range(len(heads)))


def _names_in_file(wanted: Tensors, torchvisions: bool) -> Iterator[tuple[str, str]]:
    """The network's own name of each tensor that a file must hold, and the file's."""
    convolutions: list[str] = []
    for key in wanted:
        if found := _TRUNK_KEY.fullmatch(key):
            place, kind = found.groups()
            if place not in convolutions:
                convolutions.append(place)
            yield key, f"features.{place}.{kind}" if torchvisions else f"net.{convolutions.index(place)}.{kind}"
        elif found := _HEAD_KEY.fullmatch(key):
            yield key, f"lin.{found[1]}.weight"


def _check(path: str, tensors: Tensors, wanted: Tensors) -> None:
    """Every tensor that is wanted is there in its shape, and no other is."""
    wrong = [f"it lacks {name}" for name in sorted(wanted.keys() - tensors.keys())]
    wrong += [f"nobody knows its {name}" for name in sorted(tensors.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & tensors.keys()):
        # A head may be written as the plain list of its channels' weights.
        shape, right = tuple(tensors[name].shape), tuple(wanted[name].shape)
        if shape != right and not (name.startswith("lin.") and shape == right[1:2]):
            wrong.append(f"its {name} has the shape {shape}, not {right}")
    if wrong:
        more = f" (and {len(wrong) - 3} faults more)" if len(wrong) > 3 else ""
        raise WeightsError(f"{path} does not fit LPIPS: {'; '.join(wrong[:3])}{more}")
