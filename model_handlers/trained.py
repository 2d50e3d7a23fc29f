"""What `reelscribe train selector` writes beside the weights: `selector.json`, read and believed in nothing.

    trained = read_trained("models/selector/v1")        # None where there is no such file
    trained.calibration.probability(0.31)               # 0.72: people find such a caption good in 72 of 100 cases

The file may come from anybody. It can't make anything run, and whatever it says wrongly is an error of one line.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from model_handlers import bucket
from model_handlers.checkpoints import is_hub_id
from model_handlers.settings import Settings
from model_handlers.weights import WeightsError

FILE = "selector.json"
SCHEMA_VERSION = 1
MAX_BYTES = 1 << 20
#: Points of an isotonic curve; a fit writes far fewer.
MAX_POINTS = 10_000
KINDS = ("temperature", "isotonic")
#: What a temperature is applied to: the logit of a score that is a probability, or the score itself.
OF = ("logit", "score")

#: A probability of nought or one has no logit.
_LEAST = 1e-12
#: How much of a score an isotonic curve leaves to the raw one, so that its steps keep the order of what lies on them.
_TILT = 1e-3

#: One of these is in every trained version and in every checkpoint of Transformers; all of them are small.
_SMALL = (FILE, "config.json", "tokenizer_config.json")

NetworkT = TypeVar("NetworkT", bound="Calibrated")


@dataclasses.dataclass(frozen=True, slots=True)
class Calibration:
    """A rising curve from a selector's raw score to the probability that people find the caption good.

    Attributes:
      kind: "temperature": sigmoid(scale * x + shift), where `of` says what x is; "isotonic": straight lines between the
        points (x, y), level beyond them, tilted a little.
      scale: above nought, so that no choice changes.
      x: rising. y: nowhere falling, from 0 to 1.
    """

    kind: str
    of: str = "score"
    scale: float = 1.0
    shift: float = 0.0
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()

    def probability(self, score: float) -> float:
        """Calibrate one score; of two scores the higher one stays the higher one."""
        if self.kind == "isotonic":
            return (1 - _TILT) * self._level(score) + _TILT * (0.5 + score / (2 * (1 + abs(score))))
        return sigmoid(self.scale * (logit(score) if self.of == "logit" else score) + self.shift)

    def _level(self, score: float) -> float:
        right = bisect.bisect_right(self.x, score)
        if right == 0 or right == len(self.x):
            return self.y[max(0, right - 1)]
        (left_x, right_x), (left_y, right_y) = self.x[right - 1 : right + 1], self.y[right - 1 : right + 1]
        return left_y + (right_y - left_y) * (score - left_x) / (right_x - left_x)

    def as_json(self) -> dict[str, Any]:
        """As it stands in `selector.json`."""
        if self.kind == "isotonic":
            return {"kind": self.kind, "x": list(self.x), "y": list(self.y)}
        return {"kind": self.kind, "of": self.of, "scale": self.scale, "shift": self.shift}

    @classmethod
    def of_json(cls, told: Any) -> Calibration:
        """Read what `as_json` writes.

        Raises:
          ValueError: it is of another kind, or its curve falls somewhere.
        """
        said = _mapping("calibration", told)
        kind = said.get("kind")
        if kind == "temperature":
            of = said.get("of", "score")
            if of not in OF:
                raise ValueError(f"calibration.of must be one of {', '.join(OF)}")
            scale, shift = (_number(f"calibration.{name}", said.get(name)) for name in ("scale", "shift"))
            if scale <= 0:
                raise ValueError("calibration.scale must be above 0, or it would turn every choice round")
            return cls(kind, of, scale, shift)
        if kind == "isotonic":
            x, y = (_numbers(f"calibration.{name}", said.get(name)) for name in ("x", "y"))
            if len(x) != len(y):
                raise ValueError("calibration.x and calibration.y must be as long as each other")
            if not _rises(x, lambda one, other: one < other):
                raise ValueError("calibration.x must rise")
            if not _rises(y, lambda one, other: one <= other) or y[0] < 0 or y[-1] > 1:
                raise ValueError("calibration.y must lie between 0 and 1 and never fall")
            return cls(kind, x=x, y=y)
        raise ValueError(f"calibration.kind must be one of {', '.join(KINDS)}")


@dataclasses.dataclass(frozen=True, slots=True)
class Trained:
    """A trained version of a selector.

    Attributes:
      selector: the catalogue's name of what was trained. base: `model` and `revision` of what training began with.
      trained_on, recipe, metrics: what the trainer tells of itself; plain values, nothing depends on them.
      calibration: of its scores. abstain_below: of calibrated ones; None: it was not learned.
    """

    selector: str
    base: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    trained_on: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    recipe: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    calibration: Calibration | None = None
    abstain_below: float | None = None

    @classmethod
    def of_json(cls, told: Any) -> Trained:
        """Read the values of a `selector.json`.

        Raises:
          ValueError: a value is missing, or of the wrong type or size.
        """
        said = _mapping("it", told)
        version = said.get("schema_version")
        if isinstance(version, bool) or version != SCHEMA_VERSION:
            raise ValueError(f"schema_version must be {SCHEMA_VERSION}; a newer reelscribe may read it")
        selector, abstain_below, curve = said.get("selector"), said.get("abstain_below"), said.get("calibration")
        if not isinstance(selector, str) or not 0 < len(selector) <= 64 or not selector.isprintable():
            raise ValueError("selector must be a name of the catalogue")
        return cls(
            selector,
            **{name: _mapping(name, said.get(name, {})) for name in ("base", "trained_on", "recipe", "metrics")},
            calibration=None if curve is None else Calibration.of_json(curve),
            abstain_below=None if abstain_below is None else _number("abstain_below", abstain_below),
        )

    def as_json(self) -> dict[str, Any]:
        """What the record of a run says of it: where it comes from, and how good it was found."""
        calibration = self.calibration.kind if self.calibration else None
        told = {"base": self.base, "trained_on": self.trained_on, "metrics": self.metrics}
        return {"selector": self.selector, **told, "calibration": calibration, "abstain_below": self.abstain_below}


class Calibrated:
    """What networks of selectors share: their scores are calibrated where they were trained."""

    calibration: Calibration | None = None

    def calibrated(self, scores: Iterable[float]) -> tuple[float, ...]:
        """The scores of whole captions, as they are published."""
        return calibrated(scores, self.calibration)


def calibrated(scores: Iterable[float], calibration: Calibration | None) -> tuple[float, ...]:
    """Scores as they are published: probabilities where there is a calibration."""
    return tuple(scores if calibration is None else map(calibration.probability, scores))


def as_trained(network: NetworkT, settings: Settings) -> NetworkT:
    """A network that calibrates as the directory of its weights says, if that says anything.

    Raises:
      WeightsError: see `read_trained`.
    """
    trained = read_trained(settings.weights)
    network.calibration = trained.calibration if trained else None
    return network


def read_trained(weights: str) -> Trained | None:
    """What `selector.json` says of a directory, or of a folder in a bucket; None where there is none.

    A hub id or a file has none; a directory that is not on this machine can't be looked into.

    Raises:
      WeightsError: it can't be read, or says what cannot be meant.
    """
    if not weights or is_hub_id(weights):
        return None
    folder = os.path.expanduser(weights)
    if weights.startswith("gs://"):
        if weights.endswith((".pth", ".safetensors")):
            return None
        folder = bucket.fetch_folder(weights, _SMALL.__contains__)
    path = os.path.join(folder, FILE)
    if not os.path.isfile(path):
        return None
    shown = f"{weights.rstrip('/')}/{FILE}"
    try:
        with open(path, "rb") as opened:
            written = opened.read(MAX_BYTES + 1)
        if len(written) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
        return Trained.of_json(json.loads(written, parse_constant=_refuse))
    except (OSError, ValueError, RecursionError) as error:
        told = " ".join(str(error).split())[:300]
        raise WeightsError(f"{shown} can't be used: {told}; take it from the training run again") from error


def is_out_of_sight(weights: str) -> bool:
    """Whether weights are named that lie in a directory which this machine has not, but the workers' image may."""
    elsewhere = weights.startswith("gs://") or is_hub_id(weights)
    return bool(weights) and not elsewhere and not os.path.exists(os.path.expanduser(weights))


def logit(probability: float) -> float:
    """The logarithm of the odds; of what is no probability, a number that keeps its place in the order."""
    bounded = min(max(probability, _LEAST), 1 - _LEAST)
    return math.log(bounded / (1 - bounded)) + (probability - bounded)


def sigmoid(fit: float) -> float:
    """The probability whose logit is `fit`, without overflow at either end."""
    return 1 / (1 + math.exp(-fit)) if fit >= 0 else math.exp(fit) / (1 + math.exp(fit))


def _rises(numbers: tuple[float, ...], in_order: Callable[[float, float], bool]) -> bool:
    return all(in_order(one, other) for one, other in itertools.pairwise(numbers))


def _mapping(name: str, told: Any) -> Mapping[str, Any]:
    if not isinstance(told, dict):
        raise ValueError(f"{name} must be an object with keys and values")
    return told


def _number(name: str, told: Any) -> float:
    if isinstance(told, bool) or not isinstance(told, int | float):
        raise ValueError(f"{name} must be a number")
    try:
        number = float(told)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite")
    return number


def _numbers(name: str, told: Any) -> tuple[float, ...]:
    if not isinstance(told, list) or not 2 <= len(told) <= MAX_POINTS:
        raise ValueError(f"{name} must be a list of 2 to {MAX_POINTS:,} numbers")
    return tuple(_number(name, one) for one in told)


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number")
