"""What a job does, as one frozen, validated configuration: a profile, or a YAML file that extends one.

    config = load_config(profile="lite")
    config = load_config(file="mine.yaml")        # extends: lite, and changes what it names

Every default of the splitting rules has its source beside it. Unknown keys are an error that names the nearest right
one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.resources
import json
import math
from collections.abc import Mapping
from typing import Any

import yaml

from beam_pipeline import sections
from beam_pipeline.choosing import choose
from beam_pipeline.filters import gates_of
from beam_pipeline.hearing import speech_choice
from beam_pipeline.hygiene import HygieneSettings, hygiene_settings
from beam_pipeline.placement import Placement
from beam_pipeline.rules import RULES
from beam_pipeline.sections import ConfigError
from model_handlers import catalogue
from model_handlers.catalogue import Entry
from model_handlers.inert_yaml import MAX_CHARACTERS, read_inert
from model_handlers.measures.catalogue import Chosen
from model_handlers.weights import WeightsError
from transforms.clip_settings import ClipFileSettings
from transforms.detection import SplittingConfig
from transforms.files import reading
from transforms.filtering import Rule
from transforms.objects import StorageError
from transforms.stitching import StitchingConfig

DEFAULT_PROFILE = "lite"


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that changes the output of a job, and nothing else.

    Attributes:
      profile: the name it was loaded under.
      rules: which of `RULES` the splitting started from.
      splitting, stitching: the numbers of the splitter and of the stitching rules.
      embedder, teachers, selector: names of the catalogue.
      abstain_below: the selector abstains when its best score is lower; None: never. A trained selector brings its own.
      speech: the model that hears what is said in videos without subtitles; None: nobody listens.
      measures: what is measured of each clip.
      filters: the rules that a clip must keep to. gates: those that a video must keep to, to be split.
      hygiene: what is done to the chosen captions; None: nothing.
      duplicates: the distance below which clips of different videos count as duplicates; None: nobody looks.
      card: what the dataset's card is to say of its title and licence; it changes no row.
      write_clips: how each clip gets a file of its own; None: it gets none.
      placement: where the models stand. hints: resource hints of single models. Neither changes a row.
      values: what it was built of, as a file would say it.
    """

    profile: str
    rules: str
    splitting: SplittingConfig
    stitching: StitchingConfig
    embedder: Entry
    teachers: tuple[Entry, ...]
    selector: Entry
    abstain_below: float | None
    speech: Entry | None = None
    measures: Chosen = dataclasses.field(default_factory=Chosen)
    filters: tuple[Rule, ...] = ()
    gates: tuple[Rule, ...] = ()
    hygiene: HygieneSettings | None = None
    duplicates: float | None = None
    card: Mapping[str, str] = dataclasses.field(default_factory=dict)
    write_clips: ClipFileSettings | None = None
    placement: Placement = dataclasses.field(default_factory=Placement)
    hints: tuple[tuple[Entry, Mapping[str, str]], ...] = ()
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def lpips(self) -> str | None:
        """The weights that LPIPS is measured with, if it is."""
        return sections.section(self.values, "measures").get("lpips") or None

    @property
    def filters_before(self) -> tuple[Rule, ...]:
        """The rules that can be applied before a clip is captioned: those on what is measured."""
        return tuple(rule for rule in self.filters if rule.column in self.measures.columns)

    @property
    def filters_after(self) -> tuple[Rule, ...]:
        """The rules that have to wait for a clip's row."""
        return tuple(rule for rule in self.filters if rule.column not in self.measures.columns)

    @property
    def models(self) -> tuple[Entry, ...]:
        """Every model that a job loads, in the order of the recipe."""
        measures = [catalogue.measure(one) for one in self.measures.measures if one.model]
        readers = self.hygiene.models if self.hygiene else ()
        heard = (self.speech,) if self.speech else ()
        return (*heard, self.embedder, *measures, *self.teachers, self.selector, *readers)

    def fingerprints(self, etag: str, text_version: str) -> dict[str, str]:
        """What a video's rows depend on, stage by stage; a stage's fingerprint changes when any before it does.

        Args:
          etag: the version of the source. text_version: of the text beside it.
        """
        split = fingerprint(etag, self.splitting.fingerprint())
        embed = fingerprint(split, self.embedder.identity, dataclasses.asdict(self.stitching))
        # Only what is asked for counts, so that datasets from before it could be asked for stay as they are.
        heard = [["speech", self.speech.identity]] if self.speech else []
        captions = fingerprint(embed, text_version, [teacher.identity for teacher in self.teachers], *heard)
        measured = [["measure", one.name, one.fingerprint] for one in self.measures.measures]
        derived = [["derive", one.name, one.version] for one in self.measures.derived]
        rules = [["filter", dataclasses.astuple(rule)] for rule in self.filters]
        rules += [["gate", dataclasses.astuple(rule)] for rule in self.gates]
        files = [["clip_file", self.write_clips.identity]] if self.write_clips else []
        cleaning = [["hygiene", self.hygiene.identity]] if self.hygiene else []
        more = [*measured, *derived, *rules, *cleaning, *files]
        select = fingerprint(captions, self.selector.identity, self.abstain_below, *more)
        return {"split": split, "embed": embed, "captions": captions, "select": select}

    def hints_of(self, entry: Entry) -> Mapping[str, str]:
        """The resource hints of a model's stage."""
        # Not by name: an embedder and a selector may have the same.
        own = next((hints for model, hints in self.hints if model == entry), {})
        return {**self.placement.hints, **own}

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
            "selector_training": self.selector.trained.as_json() if self.selector.trained else None,
            "abstain_below": self.abstain_below,
            "placement": dataclasses.asdict(self.placement),
            "speech": self.values.get("speech"),
            "measures": {one.name: {"fingerprint": one.fingerprint} for one in self.measures.measures},
            "filters": [dataclasses.asdict(rule) for rule in self.filters],
            "video_filters": [dataclasses.asdict(rule) for rule in self.gates],
            "hygiene": self.values.get("hygiene") or {},
            "duplicates": self.duplicates,
            "card": dict(self.card),
            "write_clips": dataclasses.asdict(self.write_clips) if self.write_clips else None,
            "fingerprint": self.fingerprint(),
            "values": dict(self.values),
        }


def fingerprint(*parts: Any) -> str:
    """A short stable digest of plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def profile_names() -> list[str]:
    """The built-in profiles, the default first."""
    files = importlib.resources.files("beam_pipeline") / "profiles"
    names = sorted(file.name.removesuffix(".yaml") for file in files.iterdir() if file.name.endswith(".yaml"))
    return sorted(names, key=lambda name: name != DEFAULT_PROFILE)


def profile_values(name: str) -> dict[str, Any]:
    """A built-in profile as it is written."""
    sections.choose_word("profile", name, profile_names())
    text = (importlib.resources.files("beam_pipeline") / "profiles" / f"{name}.yaml").read_text("utf-8")
    return yaml.safe_load(text)


def load_config(
    profile: str | None = None,
    file: str | None = None,
    changes: Mapping[str, Any] | None = None,
    *,
    commercial_only: bool = False,
    complete: bool = True,
) -> Config:
    """Load a profile, or a YAML file that may extend one.

    Args:
      profile: a built-in name, or a file like the next; default `lite`, or what the file extends.
      file: a YAML file with the keys of a profile and `extends`.
      changes: values that go before both, by section (from flags of the command line).
      commercial_only: refuse models whose licence restricts what they may be used for.
      complete: refuse models whose weights nobody has named; otherwise the configuration is only good to look at.

    Raises:
      ConfigError: unreadable, an unknown key or name, or a number that cannot be meant.
    """
    if profile and not file and profile.endswith((".yaml", ".yml")):
        profile, file = None, profile
    values: dict[str, Any] = {}
    name = profile or DEFAULT_PROFILE
    if file:
        values = _read_yaml(file)
        base = values.pop("extends", None)
        if profile and base and profile != base:
            raise ConfigError(f"{file} extends {base!r}, but --profile says {profile!r}; keep one of them")
        name = profile or base or DEFAULT_PROFILE
    merged = _merged(_merged(profile_values(name), values), changes or {})
    return _build(name if not file else f"{name}+{file}", merged, commercial_only, complete)


def config_of_run(recorded: Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> Config:
    """The configuration that a run was made with, of `config` in its record; with changes, by section.

    Raises:
      ConfigError: the record is of before there were values in it, or they are none of this version's.
    """
    if not recorded.get("values"):
        raise ConfigError("the record of that run does not hold its configuration; say --profile or --config")
    values = _merged(recorded["values"], changes or {})
    return _build(str(recorded["profile"]), values, commercial_only=False, complete=True)


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for section, changed in changes.items():
        before = merged.get(section)
        if isinstance(changed, Mapping) and isinstance(before, Mapping):
            # To ask for something by its name alone leaves what was said of it.
            asked = {key: value for key, value in changed.items() if not (value is True and before.get(key))}
            merged[section] = {**before, **asked}
        else:
            merged[section] = changed
    return merged


def _read_yaml(file: str) -> dict[str, Any]:
    try:
        with reading(file) as text:
            # A character takes at most four bytes; what is longer is refused by its length.
            values = read_inert(text.read(4 * MAX_CHARACTERS + 1).decode()) or {}
    except (OSError, StorageError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the configuration {file}: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file} must be a mapping of keys to values")
    return values


_KEYS = (
    "summary",
    "splitting",
    "stitching",
    "embedder",
    "teachers",
    "selector",
    "abstain_below",
    "speech",
    "measures",
    "filters",
    "video_filters",
    "hygiene",
    "duplicates",
    "card",
    "write_clips",
    "placement",
)


def _build(name: str, values: Mapping[str, Any], commercial_only: bool, complete: bool) -> Config:
    for key in values:
        sections.choose_word("key", key, _KEYS)
    splitting = dict(sections.section(values, "splitting"))
    rules_name = splitting.pop("rules", "panda70m")
    sections.choose_word("set of splitting rules", rules_name, RULES)
    rules = RULES[rules_name]
    try:
        embedder, selector = (choose(kind, values.get(kind), complete) for kind in ("embedder", "selector"))
        placement = sections.fill(Placement, sections.section(values, "placement"))
        teachers = sections.teachers(values.get("teachers"), complete, placement)
        chosen, filters = sections.measured(values)
        weighty = [catalogue.measure(one) for one in chosen.measures if one.model]
        hygiene = hygiene_settings(values.get("hygiene"))
        readers = hygiene.models if hygiene else ()
        speech = speech_choice(values.get("speech"))
        choices = [*([speech] if speech else []), embedder, *teachers, selector]
        # Before the numbers: nobody should calibrate a model that is refused then.
        sections.check_licences([*(choice.entry for choice in choices), *weighty, *readers], commercial_only)
        sections.check_needs(filters, hygiene)
        sections.check_abstention(values, selector.entry)
        abstain_below = values.get("abstain_below", selector.entry.abstain_below)
        if abstain_below is not None and not (isinstance(abstain_below, int | float) and math.isfinite(abstain_below)):
            raise ConfigError(f"abstain_below must be a number or null, not {abstain_below!r}")
        stitching = {**sections.distances(embedder.entry), **rules.events, **sections.section(values, "stitching")}
        return Config(
            profile=name,
            rules=rules_name,
            splitting=sections.fill(SplittingConfig, {**rules.shots, **splitting}),
            stitching=sections.fill(StitchingConfig, sections.complete(stitching, embedder.entry)),
            embedder=embedder.entry,
            teachers=tuple(teacher.entry for teacher in teachers),
            selector=selector.entry,
            abstain_below=abstain_below,
            speech=speech.entry if speech else None,
            measures=chosen,
            filters=filters,
            hygiene=hygiene,
            card=sections.card(sections.section(values, "card")),
            duplicates=sections.duplicates(values.get("duplicates"), embedder.entry),
            gates=gates_of(sections.section(values, "video_filters")),
            write_clips=sections.clip_files(values.get("write_clips")),
            placement=placement,
            hints=tuple((choice.entry, choice.hints) for choice in choices if choice.hints),
            values=values,
        )
    except (ValueError, TypeError, OSError, WeightsError) as error:
        raise ConfigError(str(error)) from error
