"""Which student is trained: out of parts that others trained, or one that was trained before.

    wanted = read_wanted("student.yaml", {"llm": "models/smollm"})        # flags override the file
    model, inputs = wanted.open("float32")

A file says the same as the flags, and of what sizes the parts are that begin at random:

    llm: models/smollm
    vision: efficientnet-lite0
    sizes: {qformer: {hidden_size: 256, num_hidden_layers: 2}}
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import yaml

from model_handlers.inert_yaml import read_inert
from model_handlers.nearest import nearest
from model_handlers.settings import Settings
from model_handlers.vision import MODEL as LITE

#: Q-Formers: of each frame, of all frames, of texts.
SIZES = {"qformer": "qformer_config", "video_qformer": "video_qformer_config", "text_qformer": "text_qformer_config"}
#: What of a Q-Former may be told; what it reads follows from its neighbours.
SIZED = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "cross_attention_frequency"),
    *("hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "layer_norm_eps"),
)
#: Adapters stand beside every linear map of the language model but the last; their sum counts alpha / r = 2 times.
LORA_TARGETS, LORA_SCALE = "all-linear", 2


class WantedError(ValueError):
    """Parts that are not told, or do not fit each other; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A student to train.

    Attributes:
      start: a student's directory to go on from; then its parts, sizes and readings are its own.
      llm, vision, qformer: where the parts are, each with its revision (see `model_handlers.checkpoints`).
      frames: of a clip. queries: tokens a branch. text_tokens, caption_tokens: of what is read and said.
      lora: rank of adapters in the language model, beyond the paper; None: it stays as it is.
      sizes: of the parts that begin at random, as `Blip2QFormerConfig` names them, by `SIZES`.
    """

    start: str | None = None
    llm: str | None = None
    llm_revision: str = ""
    vision: str | None = None
    vision_revision: str = ""
    qformer: str | None = None
    qformer_revision: str = ""
    frames: int = 8
    queries: int | None = None
    text_tokens: int = 512
    caption_tokens: int = 64
    lora: int | None = None
    sizes: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        own = [
            one.name for one in dataclasses.fields(self) if one.name != "start" and getattr(self, one.name) != _of(one)
        ]
        if self.start is not None and own:
            raise WantedError(f"a student to go on from is whole, so {own[0]} can't be told beside it; leave one out")
        if self.start is None and not self.llm:
            raise WantedError(
                "a student speaks through a language model; name one: --llm DIR, or a student: --from DIR"
            )
        if self.start is None and not self.vision and not self.qformer:
            raise WantedError(
                f"a student needs an image encoder: --vision DIR, --vision {LITE}, or a BLIP-2, which has one and its "
                "Q-Former: --qformer DIR"
            )
        for name in ("frames", "queries", "text_tokens", "caption_tokens", "lora"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise WantedError(f"{name} must be a whole number from 1 up, not {value!r}")

    @property
    def parts(self) -> dict[str, Settings]:
        """The checkpoints that are named, by their role."""
        if self.start is not None:
            return {"student": Settings(self.start)}
        named = {
            "language": (self.llm, self.llm_revision),
            "vision": (self.vision, self.vision_revision),
            "qformer": (self.qformer, self.qformer_revision),
        }
        return {role: Settings(weights, revision) for role, (weights, revision) in named.items() if weights}

    def versions(self) -> dict[str, str]:
        """Which files the parts are: a hub's commit, or a digest.

        Raises:
          WeightsError: one is missing.
        """
        from model_handlers.student_parts import reference

        return {role: reference(part)["version"] for role, part in self.parts.items()}

    def recipe(self) -> dict[str, Any]:
        """What of it shapes the weights beside the parts' files."""
        if self.start is not None:
            return {}
        kept = ("frames", "queries", "text_tokens", "caption_tokens", "lora")
        return {name: getattr(self, name) for name in kept} | {"sizes": {k: dict(v) for k, v in self.sizes.items()}}

    def open(self, dtype: str) -> tuple[Any, Any]:
        """The student and what reads for it; what begins at random follows torch's generator.

        Args:
          dtype: of the frozen parts.

        Raises:
          WeightsError: a part is missing or can't be loaded. ValueError: parts that do not fit each other.
        """
        from model_handlers.student_inputs import StudentInputs
        from model_handlers.student_parts import from_parts

        if self.start is not None:
            return self._open_start(dtype)
        parts = self.parts
        settings: dict[str, Any] = {SIZES[name]: dict(sizes) for name, sizes in self.sizes.items()}
        if self.queries is not None:
            settings["queries"] = self.queries
        if self.lora is not None:
            settings["lora"] = {"r": self.lora, "alpha": LORA_SCALE * self.lora, "targets": LORA_TARGETS}
        model = from_parts(
            llm=parts["language"],
            vision=parts.get("vision"),
            qformer=parts.get("qformer"),
            dtype=dtype,
            frames=self.frames,
            max_frames=max(32, self.frames),
            max_text_tokens=self.text_tokens,
            **settings,
        )
        limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if limit is not None and limit < model.config.prefix + self.caption_tokens:
            raise WantedError(
                f"the language model reads {limit} tokens, too few for {model.config.prefix} and a caption of "
                f"{self.caption_tokens}; lower queries or caption_tokens"
            )
        reading = {name: getattr(self, name) for name in ("frames", "text_tokens", "caption_tokens")}
        inputs = StudentInputs.from_parts(
            llm=parts["language"], vision=parts.get("vision") or parts["qformer"], **reading
        )
        return model, inputs

    def _open_start(self, dtype: str) -> tuple[Any, Any]:
        from model_handlers.checkpoints import locate
        from model_handlers.student_inputs import StudentInputs
        from model_handlers.student_parts import load_student

        start = self.parts["student"]
        inputs = StudentInputs.load(locate(start.weights).path)
        return load_student(start, dtype), inputs


def _of(field: dataclasses.Field) -> Any:
    """What a field is unless it is told."""
    return field.default if field.default is not dataclasses.MISSING else {}


def read_wanted(file: str | None, flags: Mapping[str, Any]) -> Wanted:
    """What a file and flags say together; flags that are None say nothing.

    Raises:
      WantedError: the file can't be read, or names what there is not.
    """
    told = _read(file) if file else {}
    told |= {name: value for name, value in flags.items() if value is not None}
    return Wanted(**told)


def _read(file: str) -> dict[str, Any]:
    try:
        with open(file, encoding="utf-8") as opened:
            values = read_inert(opened.read())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise WantedError(f"cannot read {file}: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise WantedError(f"{file} must hold names and values, such as llm: models/smollm")
    if "from" in values:
        values["start"] = values.pop("from")
    known = [field.name for field in dataclasses.fields(Wanted)]
    for name in values:
        if name not in known:
            raise WantedError(f"{file}: there is no {name!r}; {nearest(name, known)}")
    for name in ("start", "llm", "llm_revision", "vision", "vision_revision", "qformer", "qformer_revision"):
        if not isinstance(values.get(name, ""), str):
            raise WantedError(f"{file}: {name} must be a text, not {values[name]!r}")
    sizes = values.get("sizes", {})
    if not isinstance(sizes, dict) or not all(isinstance(one, dict) for one in sizes.values()):
        raise WantedError(f"{file}: sizes must be as in `sizes: {{qformer: {{hidden_size: 256}}}}`")
    for name, given in sizes.items():
        if name not in SIZES:
            raise WantedError(f"{file}: sizes: there is no {name!r}; {nearest(name, SIZES)}")
        _check_sizes(f"{file}: sizes: {name}", given)
    return values


def _check_sizes(where: str, given: Mapping[str, Any]) -> None:
    for name in given:
        if name not in SIZED:
            raise WantedError(f"{where}: there is no {name!r}; {nearest(name, SIZED)}")
