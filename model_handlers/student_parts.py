"""A student out of parts that others trained, and one that refers to such parts instead of holding them.

    model = from_parts(llm=Settings("models/vicuna-7b"), qformer=Settings("models/blip2-opt-2.7b"))
    model = from_parts(llm=Settings("models/smollm"), vision=Settings("efficientnet-lite0"), save_frozen=False)

Parts are checkpoints as everywhere: a directory, `gs://`, or a hub id with its revision; see `checkpoints`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from model_handlers.checkpoints import is_hub_id, locate, version_of
from model_handlers.pretrained import load_part
from model_handlers.settings import Settings
from model_handlers.student_files import check_place, is_there
from model_handlers.student_inputs import load_speaking
from model_handlers.vision import MODEL as LITE
from model_handlers.vision import REVISION as LITE_REVISION
from model_handlers.vision import load_net
from model_handlers.weights import WeightsError

if TYPE_CHECKING:
    from model_handlers.student_config import StudentConfig
    from model_handlers.student_network import StudentForCaptioning

#: Where a checkpoint's own class is of pictures and words, the half that sees.
HALVES = {"clip": "CLIPVisionModel", "siglip": "SiglipVisionModel"}
CAUSAL = "name one that goes on writing behind what it reads, such as a Llama or a Qwen"


@dataclasses.dataclass(frozen=True)
class Parts:
    """What was loaded: modules, and the configuration that goes with each."""

    vision: Any
    language: Any
    qformer: Any = None
    queries: Any = None


def from_parts(
    *,
    llm: Settings,
    vision: Settings | None = None,
    qformer: Settings | None = None,
    dtype: str = "float32",
    **settings: Any,
) -> StudentForCaptioning:
    """A student whose image encoder, language model and, if named, first Q-Former are trained; the rest is random.

    Args:
      llm: a causal language model. vision: an image encoder, or `efficientnet-lite0` for that of the lite profile; None
        takes the one that the Q-Former was trained with. qformer: a BLIP-2 checkpoint; it is frozen unless
        `freeze_qformer` says else, as Video-LLaMA's.
      dtype: of the frozen parts; what is trained is float32.
      settings: of `StudentConfig`: sizes of the Q-Formers, lora, save_frozen ...

    Raises:
      WeightsError: a part is missing or can't be loaded. ValueError: parts that do not fit each other.
    """
    from model_handlers.student_config import StudentConfig

    if vision is None and qformer is None:
        raise ValueError("a student needs an image encoder: name vision, or a BLIP-2 checkpoint as qformer")
    named = {"language": llm, "vision": vision or qformer, "qformer": qformer}
    places = {name: part for name, part in named.items() if part is not None}
    parts = _load(places, dtype)
    _check_causal(llm, parts.language)
    tokenizer = load_speaking(llm)
    if parts.qformer is not None:
        settings = {"freeze_qformer": True, "queries": parts.queries.shape[1]} | settings
        settings["qformer_config"] = parts.qformer.config
        if not settings["freeze_qformer"]:
            # What is trained on is the student's own.
            del places["qformer"]
        if (wide := parts.vision.config.hidden_size) != (reads := parts.qformer.config.encoder_hidden_size):
            raise ValueError(f"the Q-Former reads states {reads} wide, but the image encoder's are {wide} wide")
    config = StudentConfig(
        vision_config=parts.vision.config,
        text_config=parts.language.config,
        begin_token_id=tokenizer.bos_token_id,
        end_token_id=tokenizer.eos_token_id,
        references={name: reference(part) for name, part in places.items()},
        dtype=dtype,
        **settings,
    )
    return _assemble(config, parts)


def reference(part: Settings) -> dict[str, str]:
    """Where a part is, and which version of it: a hub's commit, or a digest of the files, in a bucket too.

    A bucket numbers every write anew; the files may be written there again, or be moved, and are the same.
    """
    if part.weights == LITE:
        return {"weights": LITE, "revision": "", "version": LITE_REVISION}
    if part.weights.startswith("gs://"):
        return {"weights": part.weights, "revision": part.revision, "version": version_of(locate(part.weights).path)}
    weights = part.weights if is_hub_id(part.weights) else os.path.abspath(os.path.expanduser(part.weights))
    return {"weights": weights, "revision": part.revision, "version": part.version()}


def check_references(config: StudentConfig) -> None:
    """Raise `ValueError` unless the configuration says where each frozen part came from, and it is still there."""
    wanted, places = ["vision", "language"] + ["qformer"] * config.freeze_qformer, config.references or {}
    if missing := [name for name in wanted if name not in places]:
        raise ValueError(f"save_frozen can't be off: nothing says where {', '.join(missing)} came from; use from_parts")
    if gone := [places[name]["weights"] for name in wanted if not is_there(places[name]["weights"])]:
        raise ValueError(f"{gone[0]} is not there any more, so the frozen parts can't be left out; have them written")


def load_student(part: Settings, dtype: str) -> StudentForCaptioning:
    """A student that was trained, to go on with.

    Args:
      dtype: of the frozen parts.

    Raises:
      WeightsError: it can't be loaded, or lacks a tensor.
    """
    import torch

    from model_handlers.student_network import register

    register()
    return _whole("AutoModel", part, getattr(torch, dtype))


def load_referring(
    kind: type[StudentForCaptioning], folder: Any, config: StudentConfig, hub: Mapping[str, Any], named: dict[str, Any]
) -> Any:
    """A student whose directory holds only what was trained; the rest from where the directory says that it is.

    Args:
      hub: what finds the directory, were it a hub's. named: other arguments of `from_pretrained`, of which count
        `dtype`, of the frozen parts, and `parts`, {"language": a new place of the same files}.

    Raises:
      WeightsError: a part is missing or is not the one that the student was trained with, or a tensor is missing.
    """
    from safetensors.torch import load_file
    from transformers.utils import cached_file

    places = {name: dict(value) for name, value in (config.references or {}).items()}
    for name, moved in (named.pop("parts", None) or {}).items():
        places[name]["weights"] = str(moved)
    parts = {name: Settings(place["weights"], place["revision"]) for name, place in places.items()}
    for name, part in parts.items():
        check_place(str(folder), name, part.weights)
        if (found := reference(part)["version"]) != places[name]["version"]:
            raise WeightsError(
                f"{part.weights} is {found}, but this student was trained with {places[name]['version']}; put those"
                f' files there again, or name their place: from_pretrained(folder, parts={{"{name}": ...}})'
            )
    dtype = named.get("dtype")
    dtype = config.dtype if dtype in (None, "auto") else dtype
    model = _assemble(config, _load(parts, dtype or "float32"), kind)
    tensors = load_file(str(cached_file(folder, "model.safetensors", **hub)))
    wanted = {name for name in model.state_dict() if not model.is_frozen(name)}
    if wanted != set(tensors):
        odd = min(wanted ^ set(tensors))
        raise WeightsError(f"{folder} does not fit its configuration; {odd} is missing or unknown")
    model.load_state_dict(tensors, strict=False)
    model.eval()
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
    return (model, {kind: set() for kind in kinds}) if named.get("output_loading_info") else model


def _assemble(config: StudentConfig, parts: Parts, kind: type[StudentForCaptioning] | None = None) -> Any:
    import torch

    from model_handlers.student_network import StudentForCaptioning

    model = (kind or StudentForCaptioning)(config, parts.vision, parts.language, parts.qformer)
    if parts.queries is not None:
        with torch.no_grad():
            model.frame_queries.copy_(parts.queries)
    return model.eval()


def _load(parts: Mapping[str, Settings], dtype: Any) -> Parts:
    """The modules at these places."""
    import torch

    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    language = _language(parts["language"], dtype)
    blip2 = _blip2(parts["qformer"], dtype) if "qformer" in parts else None
    if blip2 is not None and parts["vision"] == parts["qformer"]:
        vision = blip2.vision_model
    elif parts["vision"].weights == LITE:
        vision = _lite().to(dtype)
    else:
        vision = _vision(parts["vision"], dtype)
    if blip2 is None:
        return Parts(vision, language)
    return Parts(vision, language, blip2.qformer.float(), blip2.query_tokens.float())


def _check_causal(part: Settings, language: Any) -> None:
    """Refuse what looks ahead, as encoders do that Transformers loads all the same: captions would tell themselves."""
    import torch

    with torch.no_grad():
        rows = language.get_input_embeddings()(torch.tensor([[0, 1], [0, 2]]))
        one, other = language(inputs_embeds=rows, use_cache=False).logits[:, 0]
    # Experts round otherwise in other company.
    if (one - other).abs().max() > 8 * torch.finfo(one.dtype).eps * one.abs().max():
        kind = language.config.model_type
        raise WeightsError(f"{part.weights} is a {kind} that sees the words after each; {CAUSAL}")


def _language(part: Settings, dtype: Any) -> Any:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    config = load_part("AutoConfig", part)
    if config.is_encoder_decoder or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise WeightsError(f"{part.weights} is a {config.model_type}, no causal language model; {CAUSAL}")
    return _whole("AutoModelForCausalLM", part, dtype)


def _vision(part: Settings, dtype: Any) -> Any:
    """The image encoder of a checkpoint."""
    config = load_part("AutoConfig", part)
    if config.model_type == "blip-2":
        return _blip2(part, dtype).vision_model
    if getattr(config, "mask_ratio", None):
        told = "hides parts of a picture at random; name an encoder that sees all of it"
        raise WeightsError(f"{part.weights} is a {config.model_type}, which {told}")
    # Classifiers have no pooler, and nobody here asks one: only the states are read.
    return _whole(HALVES.get(config.model_type, "AutoModel"), part, dtype, spare="pooler.")


def _blip2(part: Settings, dtype: Any) -> Any:
    """A BLIP-2 without its language model: the image encoder, the queries and the Q-Former.

    Raises:
      WeightsError: another kind of checkpoint.
    """
    kind = load_part("AutoConfig", part).model_type
    if kind != "blip-2":
        raise WeightsError(f"{part.weights} is a {kind}; name a BLIP-2 checkpoint")
    # The class that ends in a projection of its own, which no captioner has and nobody here asks.
    return _whole("Blip2VisionModelWithProjection", part, dtype, spare="vision_projection")


def _whole(kind: str, part: Settings, dtype: Any, spare: str = "") -> Any:
    """A model of its own, not the process's shared one: adapters may be put into it."""
    model, report = load_part(kind, part, dtype=dtype, use_safetensors=True, output_loading_info=True)
    missing = sorted(name for name in report["missing_keys"] if not spare or not name.startswith(spare))
    if missing:
        raise WeightsError(f"{part.weights} lacks {len(missing)} tensors of {kind}, such as {missing[0]}")
    return model


def _lite() -> Any:
    from model_handlers.student_config import LiteVisionConfig
    from model_handlers.student_pieces import LiteVision

    model = LiteVision(LiteVisionConfig())
    model.net.load_state_dict(load_net().state_dict())
    return model
