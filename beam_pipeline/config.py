"""What a job does, as one frozen, validated configuration: a profile, or a YAML file that extends one.

    config = load_config(profile="lite")
    config = load_config(file="mine.yaml")        # extends: lite, and changes what it names

Every default of the splitting rules has its source beside it. Unknown keys are an error that names the nearest right
one.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib.resources
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from model_handlers import catalogue
from model_handlers.catalogue import Entry
from model_handlers.perceptual_weights import find_weights
from model_handlers.weights import WeightsError, digest
from transforms.detection import SplittingConfig
from transforms.stitching import StitchingConfig

DEFAULT_PROFILE = "lite"


class ConfigError(ValueError):
    """A configuration that cannot be meant; the message says which key and what would be right."""


@dataclasses.dataclass(frozen=True)
class Rules:
    """A named set of splitting rules: what Panda-70M's paper, dataset and released code each use."""

    summary: str
    shots: Mapping[str, Any]
    events: Mapping[str, Any]


#: METHOD: where the paper, the published dataset and the released code disagree, each is a set of rules of its own.
RULES = {
    "paper": Rules(
        "as the paper says",
        {"max_shot_s": 5.0, "slice_s": 5.0, "first_fraction": 0.10, "last_fraction": 0.90},
        {"min_event_s": 2.0, "max_clip_s": 60.0, "trim_fraction": 0.1},
    ),
    "panda70m": Rules(
        "as the published dataset was made",
        {"max_shot_s": 7.0, "slice_s": 5.0, "first_fraction": 0.05, "last_fraction": 0.95},
        {"min_event_s": 2.5, "max_clip_s": 60.0, "trim_fraction": 0.1},
    ),
    "released": Rules(
        "the released code's defaults: redundant events stay, nothing is trimmed",
        {"max_shot_s": 7.0, "slice_s": 5.0, "first_fraction": 0.05, "last_fraction": 0.95},
        {"min_event_s": 2.0, "max_clip_s": 1200.0, "trim_fraction": 0.0, "redundant_distance": None},
    ),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that changes the output of a job, and nothing else.

    Attributes:
      profile: the name it was loaded under.
      rules: which of `RULES` the splitting started from.
      splitting, stitching: the numbers of the splitter and of the stitching rules.
      embedder, teachers, selector: names of the catalogue.
      abstain_below: the selector abstains when its best score is lower; None: never.
      lpips: the weights that Max Running LPIPS is measured with; None: it is not. lpips_sha256: of that file.
    """

    profile: str
    rules: str
    splitting: SplittingConfig
    stitching: StitchingConfig
    embedder: Entry
    teachers: tuple[Entry, ...]
    selector: Entry
    abstain_below: float | None
    lpips: str | None = None
    lpips_sha256: str = ""

    @property
    def measure(self) -> Entry | None:
        """What measures each clip, if anything does."""
        return catalogue.lpips(self.lpips, self.lpips_sha256) if self.lpips else None

    @property
    def models(self) -> tuple[Entry, ...]:
        """Every model that a job loads, in the order of the recipe."""
        measures = (self.measure,) if self.measure else ()
        return (self.embedder, *measures, *self.teachers, self.selector)

    def fingerprints(self, etag: str, text_version: str) -> dict[str, str]:
        """What a video's rows depend on, stage by stage; a stage's fingerprint changes when any before it does.

        Args:
          etag: the version of the source. text_version: of the text beside it.
        """
        split = fingerprint(etag, self.splitting.fingerprint())
        embed = fingerprint(split, _identity(self.embedder), dataclasses.asdict(self.stitching))
        captions = fingerprint(embed, text_version, [_identity(teacher) for teacher in self.teachers])
        # Only what is measured counts, so that datasets from before there were measures stay as they are. The weights'
        # content does, not the place where they lie.
        measured = [["max_running_lpips", self.lpips_sha256]] if self.lpips else []
        select = fingerprint(captions, _identity(self.selector), self.abstain_below, *measured)
        return {"split": split, "embed": embed, "captions": captions, "select": select}

    def fingerprint(self) -> str:
        """Of the whole configuration."""
        return self.fingerprints("", "")["select"]

    def as_json(self) -> dict[str, Any]:
        """For the record of a run: plain values, every number spelt out."""
        return {
            "profile": self.profile,
            "rules": self.rules,
            "splitting": dataclasses.asdict(self.splitting),
            "stitching": dataclasses.asdict(self.stitching),
            "embedder": self.embedder.name,
            "teachers": [teacher.name for teacher in self.teachers],
            "selector": self.selector.name,
            "abstain_below": self.abstain_below,
            "measures": {"lpips": self.lpips, "sha256": self.lpips_sha256} if self.lpips else {},
            "fingerprint": self.fingerprint(),
        }


def fingerprint(*parts: Any) -> str:
    """A short stable digest of plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _identity(entry: Entry) -> list[str]:
    return [entry.name, entry.model, entry.revision, entry.prompt_id]


def profile_names() -> list[str]:
    """The built-in profiles, the default first."""
    files = importlib.resources.files("beam_pipeline") / "profiles"
    names = sorted(file.name.removesuffix(".yaml") for file in files.iterdir() if file.name.endswith(".yaml"))
    return sorted(names, key=lambda name: name != DEFAULT_PROFILE)


def profile_values(name: str) -> dict[str, Any]:
    """A built-in profile as it is written."""
    _choose("profile", name, profile_names())
    text = (importlib.resources.files("beam_pipeline") / "profiles" / f"{name}.yaml").read_text("utf-8")
    return yaml.safe_load(text)


def load_config(
    profile: str | None = None, file: str | None = None, changes: Mapping[str, Mapping[str, Any]] | None = None
) -> Config:
    """Load a profile, or a YAML file that may extend one.

    Args:
      profile: a built-in name; default `lite`, or what the file extends.
      file: a YAML file with the keys of a profile and `extends`.
      changes: values that go before both, by section (from flags of the command line).

    Raises:
      ConfigError: unreadable, an unknown key or name, or a number that cannot be meant.
    """
    values: dict[str, Any] = {}
    name = profile or DEFAULT_PROFILE
    if file:
        values = _read_yaml(file)
        base = values.pop("extends", None)
        if profile and base and profile != base:
            raise ConfigError(f"{file} extends {base!r}, but --profile says {profile!r}; keep one of them")
        name = profile or base or DEFAULT_PROFILE
    merged = profile_values(name)
    for section, changed in [*values.items(), *(changes or {}).items()]:
        both_maps = isinstance(changed, Mapping) and isinstance(merged.get(section), Mapping)
        merged[section] = {**merged[section], **changed} if both_maps else changed
    return _build(name if not file else f"{name}+{file}", merged)


def _read_yaml(file: str) -> dict[str, Any]:
    try:
        with open(file, encoding="utf-8") as text:
            values = yaml.safe_load(text) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the configuration {file}: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file} must be a mapping of keys to values")
    return values


_KEYS = ("summary", "splitting", "stitching", "embedder", "teachers", "selector", "abstain_below", "measures")


def _build(name: str, values: Mapping[str, Any]) -> Config:
    for key in values:
        _choose("key", key, _KEYS)
    splitting = dict(_section(values, "splitting"))
    rules_name = splitting.pop("rules", "panda70m")
    _choose("set of splitting rules", rules_name, RULES)
    rules = RULES[rules_name]
    try:
        embedder = catalogue.embedder(_name(values, "embedder"))
        teachers = values.get("teachers")
        if not isinstance(teachers, list) or not teachers or len(set(map(str, teachers))) != len(teachers):
            raise ConfigError("teachers must be a list of different names, at least one")
        selector = catalogue.selector(_name(values, "selector"))
        abstain_below = values.get("abstain_below", selector.abstain_below)
        if abstain_below is not None and not (isinstance(abstain_below, int | float) and math.isfinite(abstain_below)):
            raise ConfigError(f"abstain_below must be a number or null, not {abstain_below!r}")
        limits = embedder.thresholds
        if limits is None:
            raise ConfigError(f"the embedder {embedder.name} has no calibrated thresholds")
        lpips = _weights(_section(values, "measures"))
        calibrated = {
            "transition_distance": limits.transition,
            "stitch_distance": limits.stitch,
            "still_distance": limits.still,
            "redundant_distance": limits.redundant,
        }
        return Config(
            profile=name,
            rules=rules_name,
            splitting=_fill(SplittingConfig, {**rules.shots, **splitting}),
            stitching=_fill(StitchingConfig, {**calibrated, **rules.events, **_section(values, "stitching")}),
            embedder=embedder,
            teachers=tuple(catalogue.teacher(str(teacher)) for teacher in teachers),
            selector=selector,
            abstain_below=abstain_below,
            lpips=lpips,
            lpips_sha256=digest(find_weights(lpips)) if lpips else "",
        )
    except WeightsError as error:
        raise ConfigError(f"measures.lpips: {error}") from error
    except (ValueError, TypeError, OSError) as error:
        raise ConfigError(str(error)) from error


def _weights(measures: Mapping[str, Any]) -> str | None:
    for key in measures:
        _choose("measure", key, catalogue.MEASURES)
    weights = measures.get("lpips")
    if weights is not None and not (isinstance(weights, str) and weights):
        raise ConfigError(f"measures.lpips must be a weights file, `hub` or null, not {weights!r}")
    return weights


def _section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = values.get(name) or {}
    if not isinstance(section, Mapping):
        raise ConfigError(f"{name} must be a mapping of keys to values")
    return section


def _name(values: Mapping[str, Any], key: str) -> str:
    if not isinstance(values.get(key), str):
        raise ConfigError(f"{key} must be one name of the catalogue")
    return values[key]


def _fill(kind: type, values: Mapping[str, Any]) -> Any:
    names = [field.name for field in dataclasses.fields(kind)]
    for key in values:
        _choose("key", key, names)
    return kind(**values)


def _choose(what: str, name: Any, known: Iterable[str]) -> None:
    known = list(known)
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)
        raise ConfigError(f"there is no {what} {name!r}; did you mean {near[0]!r}? Known: {', '.join(known)}")
