"""The files of a student's directory: whether all are there, and how many weights they hold.

    check_files("models/student/v1", "models/student/v1", os.listdir("models/student/v1"))
    count_b("models/student/v1")                                        # 7.99 billion

Half a copy is found so when a job is configured, and not by its workers.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from model_handlers.checkpoints import files_of, is_hub_id, version_of
from model_handlers.vision import MODEL as LITE
from model_handlers.weights import WeightsError

CONFIG, TOKENIZER = "config.json", "tokenizer_config.json"
#: What a tokenizer's words stand in: nearly always the first; older kinds have one of the others.
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", ".model")
#: How words are searched for, and what the training tells of itself; a student that was merely saved may lack both.
SEARCH, RECORD = "generation_config.json", "student.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TRAINED = "reelscribe train student writes such a directory"
#: The frozen parts, as a configuration's `references` call them.
PARTS = {"vision": "image encoder", "language": "language model", "qformer": "Q-Former"}
#: Of a checkpoint that has several halves, the tensors of each part.
_HALVES = {"vision": ("vision_model.",), "qformer": ("qformer.", "query_tokens")}


def read_values(weights: str, folder: str, name: str) -> dict[str, Any]:
    """One of a directory's JSON files.

    Args:
      weights: what the user calls the directory. folder: where its files are.

    Raises:
      WeightsError: it is missing, or holds no object.
    """
    try:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            values = json.load(file)
    except FileNotFoundError as error:
        raise WeightsError(f"{weights} holds no {name}, so it is no student; {TRAINED}") from error
    except (OSError, ValueError, RecursionError) as error:
        told = " ".join(str(error).split())[:200]
        raise WeightsError(f"{weights}/{name} can't be read ({told}); take it from the training run again") from error
    if not isinstance(values, dict):
        raise WeightsError(f"{weights}/{name} holds no object; take it from the training run again")
    return values


def check_files(weights: str, folder: str, names: Collection[str]) -> None:
    """See that a student's directory is whole, and that the parts it refers to are in reach.

    Args:
      weights: what the user calls it. folder: where its files are, if only the small ones. names: all that it has.

    Raises:
      WeightsError: a file is missing or cut short, or a part is not where the student was told.
    """
    shards = _shards(weights, folder, names)
    words = () if any(name.endswith(VOCABULARIES) for name in names) else VOCABULARIES[:1]
    # A training wrote how words are searched for; without it the same weights say something else.
    search = (SEARCH,) if RECORD in names else ()
    for name in (*shards, TOKENIZER, *words, *search):
        if name not in names:
            raise WeightsError(f"{weights} holds no {name}, so it is half a copy; copy it again")
    for path in (os.path.join(folder, name) for name in shards):
        if os.path.isfile(path):
            sum(1 for _ in _sizes(path))
    here = os.path.isdir(os.path.expanduser(weights))
    for role, place in references_of(read_values(weights, folder, CONFIG)).items():
        check_place(
            weights, role, os.path.normpath(os.path.join(folder, place)) if here and is_beside(place) else place
        )


def references_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Where the parts are that a student's directory leaves out, by role."""
    if config.get("save_frozen", True):
        return {}
    try:
        return {role: str(place["weights"]) for role, place in (config.get("references") or {}).items()}
    except (AttributeError, TypeError, KeyError):
        return {}


def check_place(weights: str, role: str, place: str) -> None:
    """See that a frozen part is where its student says.

    Raises:
      WeightsError: there is no such directory, or nothing below that folder of a bucket.
    """
    if place.startswith("gs://"):
        try:
            version_of(place)
        except WeightsError as error:
            raise WeightsError(
                f"{weights} holds only what was trained, not its {PARTS.get(role, role)}: {error}"
            ) from error
    if is_there(place):
        return
    told = f"{place}, which is not there; put it there, or train without --leave-out-frozen"
    if is_beside(place):
        told = f"{place} on the machine that trained it, and not in a bucket; train without --leave-out-frozen"
    raise WeightsError(f"{weights} holds only what was trained; its {PARTS.get(role, role)} is at {told}")


def is_there(place: str) -> bool:
    """Whether a part is where it is said to be, as far as this machine can tell."""
    elsewhere = place == LITE or place.startswith("gs://") or is_hub_id(place)
    return elsewhere or (os.path.isdir(place) and not is_beside(place))


def beside(path: str) -> str:
    """A path from a student's directory to a part, with a dot first, so that none looks like an id of the hub."""
    return path if path.startswith("../") else f"./{path}"


def is_beside(place: str) -> bool:
    """Whether a place is told from a student's directory."""
    return place.startswith(("./", "../"))


def count_b(folder: str) -> float:
    """Billions of weights of the student in a directory, with those of the parts that it refers to."""
    names = os.listdir(folder)
    total = sum(size for name in _shards(folder, folder, names) for _, size in _sizes(os.path.join(folder, name)))
    for role, place in references_of(read_values(folder, folder, CONFIG)).items():
        parts = os.path.join(folder, place)
        if role in PARTS and os.path.isdir(parts):
            total += _size_of_part(parts, _HALVES.get(role, ()))
    return float(f"{total / 1e9:.3g}")


def _size_of_part(folder: str, half: tuple[str, ...]) -> int:
    files = [name for name in files_of(folder) if name.endswith(".safetensors")]
    sizes = {tensor: size for name in files for tensor, size in _sizes(os.path.join(folder, name))}
    theirs = {tensor: size for tensor, size in sizes.items() if tensor.startswith(half)}
    return sum((theirs or sizes).values())


def _shards(weights: str, folder: str, names: Collection[str]) -> list[str]:
    if INDEX not in names:
        return [WEIGHTS]
    shards = read_values(weights, folder, INDEX).get("weight_map")
    return sorted(set(shards.values())) if isinstance(shards, dict) else [WEIGHTS]


def _sizes(path: str) -> Iterator[tuple[str, int]]:
    """The tensors of a file, and how many numbers each has; only its head is read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            for name in file.keys():  # noqa: SIM118  # it is no mapping
                yield name, math.prod(file.get_slice(name).get_shape())
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is cut short or no safetensors ({error}); copy it again") from error
