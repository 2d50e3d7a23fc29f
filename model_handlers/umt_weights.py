"""Unmasked Teacher checkpoints: what they must hold, and the network they make.

    network = load_network("l16_25m.pth", sha256="...", device="cuda:0", dtype=torch.bfloat16)

Read are the authors' two layouts, retrieval (`text_encoder.*`) and pretraining (`text_encoder.bert.*`, with the heads
and the teacher that only its losses need), in `.pth` or `.safetensors`. Only tensors and plain settings are unpickled.

    write_folder("selector/v1", network.sizes, tensors)      # umt.safetensors, and config.json with the sizes
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import re
import zipfile
from collections.abc import Mapping
from typing import Any

from model_handlers.umt_network import Tensors, UmtNetwork, UmtSizes
from model_handlers.weights import WeightsError, digest

#: What scoring has no use for: CLIP, which taught in pretraining, the heads that imitated it, BERT's masked-word head,
#: and the numbers 0 to 511.
NOT_NEEDED = (
    "clip_teacher.",
    "vision_encoder.clip_decoder.",
    "text_encoder.cls.",
    "text_encoder.embeddings.position_ids",
)

_KERNEL = "vision_encoder.encoder.patch_embed.proj.weight"
_WORDS = "text_encoder.embeddings.word_embeddings.weight"
_PLACES = "text_encoder.embeddings.position_embeddings.weight"
_EMBED = "vision_proj.weight"
#: The tensors whose shapes tell the sizes, with their numbers of dimensions.
_TELLING = {_KERNEL: 5, _WORDS: 2, _PLACES: 2, _EMBED: 2}

#: A trained version's tensors in its directory, and the sizes beside them.
FILE, SIZES_FILE = "umt.safetensors", "config.json"
#: The sizes that no tensor tells.
UNTOLD = ("side", "head_width", "trained_frames")
#: More than any model has: positions are computed for a frame's side before anything else could fail.
MOST = 4096

#: Class of the authors' settings, which their checkpoints hold too. It is a dictionary, and is read as an inert one.
_SETTINGS = "utils.easydict.EasyDict"


def load_network(
    path: str,
    *,
    sha256: str | None = None,
    device: str = "cpu",
    dtype: Any = None,
    side: int = 224,
    head_width: int = 64,
    trained_frames: int | None = None,
) -> UmtNetwork:
    """The network of a checkpoint on a device, every tensor of the file accounted for.

    Args:
      path: a `.pth` file of the authors' code, or `.safetensors` of the same names.
      sha256: the file's digest; must be given for `.pth`, as the authors publish none.
      device, dtype: see `UmtNetwork`. side, head_width, trained_frames: see `UmtSizes`; no tensor tells them.

    Raises:
      WeightsError: the file is missing or not the pinned one, holds a foreign class, or lacks or adds a tensor.
    """
    tensors = canonical(read_tensors(path, sha256))
    derived = sizes_of(path, tensors)
    sizes = dataclasses.replace(derived, side=side, head_width=head_width, trained_frames=trained_frames)
    check(path, tensors, layout(sizes))
    return UmtNetwork(sizes, place(tensors, device, dtype), dtype)


def read_tensors(path: str, sha256: str | None = None) -> Tensors:
    """All tensors of the model in a file by their names there; they stay on the disk until they are looked at.

    Raises:
      WeightsError: see `load_network`.
    """
    if not os.path.isfile(path):
        raise WeightsError(f"there is no Unmasked Teacher checkpoint at {path}; name a .pth or .safetensors file")
    if not path.endswith((".pth", ".safetensors")):
        raise WeightsError(f"{path} is not read: Unmasked Teacher checkpoints are .pth or .safetensors")
    if path.endswith(".pth") and sha256 is None:
        raise WeightsError(f"a .pth file needs its SHA-256 pinned; where you trust {path}, pin {digest(path)}")
    if sha256 is not None and digest(path) != sha256.lower():
        raise WeightsError(f"{path} has SHA-256 {digest(path)}, but {sha256} is pinned; fetch the file again")
    try:
        if path.endswith(".safetensors"):
            import safetensors.torch

            return safetensors.torch.load_file(path)
        found = _unpickle(path)
    except Exception as error:
        # Damage shows itself as anything, from a SafetensorError to a KeyError inside the unpickler.
        raise WeightsError(_why_unreadable(path, error)) from error
    model = found.get("model", found) if isinstance(found, Mapping) else None
    if not isinstance(model, Mapping) or not all(hasattr(tensor, "shape") for tensor in model.values()):
        raise WeightsError(f"{path} holds no tensors by name, neither under `model` nor at its top")
    return model


def _unpickle(path: str) -> Any:
    import torch

    # mmap: an optimizer's state, twice the model's size, is then never read.
    with torch.serialization.safe_globals([(collections.OrderedDict, _SETTINGS)]):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def _why_unreadable(path: str, error: Exception) -> str:
    if barred := re.search(r"Unsupported (?:global|class): (?:GLOBAL )?([\w.]+)", str(error)):
        stripped = f"torch.save({{'model': torch.load('{path}', weights_only=False)['model']}}, 'stripped.pth')"
        return (
            f"{path} holds {barred[1]} beside its tensors, and unpickling that could run anything; if you trust the "
            f"file, where the code that wrote it can be imported, write the tensors alone and pin the new file: "
            f'python -c "import torch; {stripped}"'
        )
    return f"{path} can't be read: {' '.join(str(error).split())[:300]}"


def canonical(tensors: Tensors) -> Tensors:
    """The tensors that scoring needs, by the retrieval layout's names."""
    named = {re.sub(r"^text_encoder\.bert\.", "text_encoder.", name): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in named.items() if not name.startswith(NOT_NEEDED)}


def sizes_of(path: str, tensors: Tensors) -> UmtSizes:
    """The sizes that the shapes tell; the rest is as published.

    Raises:
      WeightsError: a tensor that tells a size is missing, or has another number of dimensions.
    """
    shapes = {name: tuple(tensors[name].shape) for name in _TELLING if name in tensors}
    lacking = [name for name, rank in _TELLING.items() if len(shapes.get(name, ())) != rank]
    fused = _numbers(tensors, r"text_encoder\.encoder\.layer\.(\d+)\.crossattention\.")
    if not fused:
        lacking.append("text_encoder.encoder.layer.N.crossattention")
    if lacking:
        raise WeightsError(f"{path} is no Unmasked Teacher for retrieval: it has no fitting {lacking[0]}")
    return UmtSizes(
        video_width=shapes[_KERNEL][0],
        video_layers=1 + max(_numbers(tensors, r"vision_encoder\.encoder\.blocks\.(\d+)\."), default=-1),
        text_width=shapes[_WORDS][1],
        text_layers=1 + max(_numbers(tensors, r"text_encoder\.encoder\.layer\.(\d+)\.")),
        fusion_layer=min(fused),
        embed_width=shapes[_EMBED][0],
        patch=shapes[_KERNEL][3],
        tubelet=shapes[_KERNEL][2],
        vocabulary=shapes[_WORDS][0],
        positions=shapes[_PLACES][0],
    )


def _numbers(tensors: Tensors, pattern: str) -> set[int]:
    return {int(found[1]) for name in tensors if (found := re.match(pattern, name))}


def layout(sizes: UmtSizes) -> dict[str, tuple[int, ...]]:
    """The name and shape of each tensor that the network needs; in retrieval checkpoints these and `position_ids`."""
    video, text, embed = sizes.video_width, sizes.text_width, sizes.embed_width
    shapes: dict[str, tuple[int, ...]] = {"temp": ()}

    def linear(name: str, before: int, after: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (after, before), (after,)

    def norm(name: str, width: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)

    def attention(name: str, context: int) -> None:
        linear(f"{name}.self.query", text, text)
        linear(f"{name}.self.key", context, text)
        linear(f"{name}.self.value", context, text)
        linear(f"{name}.output.dense", text, text)
        norm(f"{name}.output.LayerNorm", text)

    shapes[_KERNEL] = (video, 3, sizes.tubelet, sizes.patch, sizes.patch)
    shapes["vision_encoder.encoder.patch_embed.proj.bias"] = (video,)
    for number in range(sizes.video_layers):
        block = f"vision_encoder.encoder.blocks.{number}"
        norm(f"{block}.norm1", video)
        shapes[f"{block}.attn.qkv.weight"] = (3 * video, video)
        shapes[f"{block}.attn.q_bias"] = shapes[f"{block}.attn.v_bias"] = (video,)
        linear(f"{block}.attn.proj", video, video)
        norm(f"{block}.norm2", video)
        linear(f"{block}.mlp.fc1", video, 4 * video)
        linear(f"{block}.mlp.fc2", 4 * video, video)
    norm("vision_encoder.encoder.norm", video)
    norm("vision_encoder.pool_norm", video)

    shapes[_WORDS], shapes[_PLACES] = (sizes.vocabulary, text), (sizes.positions, text)
    shapes["text_encoder.embeddings.token_type_embeddings.weight"] = (2, text)
    norm("text_encoder.embeddings.LayerNorm", text)
    for number in range(sizes.text_layers):
        layer = f"text_encoder.encoder.layer.{number}"
        attention(f"{layer}.attention", text)
        if number >= sizes.fusion_layer:
            attention(f"{layer}.crossattention", video)
        linear(f"{layer}.intermediate.dense", text, 4 * text)
        linear(f"{layer}.output.dense", 4 * text, text)
        norm(f"{layer}.output.LayerNorm", text)

    linear("vision_proj", video, embed)
    linear("text_proj", text, embed)
    linear("itm_head", text, 2)
    return shapes


def check(path: str, tensors: Tensors, wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Raise `WeightsError` unless every tensor that is wanted is there in its shape, and no other is."""
    wrong = [f"it lacks {name}" for name in sorted(wanted.keys() - tensors.keys())]
    wrong += [f"nobody knows its {name}" for name in sorted(tensors.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & tensors.keys()):
        if (shape := tuple(tensors[name].shape)) != wanted[name]:
            wrong.append(f"its {name} has the shape {shape}, not {wanted[name]}")
    if wrong:
        more = f" (and {len(wrong) - 3} faults more)" if len(wrong) > 3 else ""
        raise WeightsError(f"{path} does not fit Unmasked Teacher: {'; '.join(wrong[:3])}{more}")


def place(tensors: Tensors, device: str, dtype: Any = None) -> Tensors:
    """The tensors on a device: matrices of both encoders in `dtype`; tables, vectors and the heads in float32."""
    import torch

    def narrow(name: str) -> bool:
        return name.startswith(("vision_encoder.", "text_encoder.")) and ".embeddings." not in name

    placed = {}
    for name, tensor in tensors.items():
        lower = dtype is not None and tensor.ndim > 1 and narrow(name)
        # A copy: a tensor that is mapped from its file would change with it.
        placed[name] = tensor.detach().to(device, dtype if lower else torch.float32, copy=True).contiguous()
    return placed


def write_folder(folder: str, sizes: UmtSizes, tensors: Tensors) -> None:
    """Write a checkpoint as a directory: float32 tensors by their published names, and all sizes as JSON."""
    import safetensors.torch
    import torch

    # Copies: tensors that share their memory can't be written.
    kept = {name: tensor.detach().to("cpu", torch.float32, copy=True).contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(kept, os.path.join(folder, FILE))
    told = {"model_type": "unmasked-teacher", **dataclasses.asdict(sizes)}
    with open(os.path.join(folder, SIZES_FILE), "w", encoding="utf-8") as file:
        file.write(json.dumps(told, indent=2) + "\n")


def untold_sizes(folder: str) -> dict[str, int | None]:
    """What `write_folder` said of the sizes that no tensor tells; as published where it says nothing.

    Raises:
      WeightsError: the file is missing or no JSON object, or a size in it can't be meant.
    """
    path = os.path.join(folder, SIZES_FILE)
    try:
        with open(path, encoding="utf-8") as file:
            told = json.load(file)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} can't be read: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(told, dict):
        raise WeightsError(f"{path} must hold a JSON object with the sizes of the model")
    found = {name: told[name] for name in UNTOLD if name in told}
    for name, value in found.items():
        own_positions = name == "trained_frames" and value is None
        if not own_positions and not (type(value) is int and 1 <= value <= MOST):
            raise WeightsError(f"{name} in {path} must be a whole number from 1 to {MOST}, not {value!r}")
    return found
