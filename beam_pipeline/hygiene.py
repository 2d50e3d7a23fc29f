"""The text hygiene that a configuration asks for: which parts, by which models, and what that makes of a fingerprint.

    settings = hygiene_settings({"stock": True, "names": "en_core_web_sm", "harmful": True, "language": True})
    judged | CleanCaptions(hygiene_of(settings, placed))

Every part is off unless it is asked for; a configuration without any leaves the rows as they are.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from apache_beam.ml.inference.base import ModelHandler

from beam_pipeline.choosing import check_word, licence_of
from model_handlers import harmful, harmful_classifier, language, names, names_spacy, readers, stock_phrases
from model_handlers.catalogue import Entry
from model_handlers.settings import Settings
from transforms.cleaning import Hygiene, Step
from transforms.tidying import tidied

PARTS = ("stock", "names", "harmful", "language")

#: Counts the changes of what tidying and replacing make of the same text; captions are then cleaned again.
TIDYING, REPLACING = 1, 1

_OF_WEIGHTS = ("weights", "revision", "dtype", "max_batch", "licence", "commercial")


@dataclasses.dataclass(frozen=True)
class HygieneSettings:
    """Which parts of the text hygiene a job does.

    Attributes:
      stock: whether stock openings and repetition go.
      names: what finds the names of persons; None: they stay.
      harmful: what tells harmful texts; None: nobody asks.
      language: what tells languages; None: nobody asks.
    """

    stock: bool = False
    names: Entry | None = None
    harmful: Entry | None = None
    language: Entry | None = None

    @property
    def models(self) -> tuple[Entry, ...]:
        """The models that it loads, in the order in which they are asked."""
        return tuple(entry for entry in (self.names, self.harmful, self.language) if entry)

    @property
    def identity(self) -> list[Any]:
        """What cleaned captions and their flags depend on, beside the captions; empty where nothing is asked for."""
        tidying = [["stock", TIDYING]] if self.stock else []
        replacing = [["names", REPLACING]] if self.names else []
        return [*tidying, *replacing, *(entry.identity for entry in self.models)]


def hygiene_settings(asked: Any) -> HygieneSettings | None:
    """What a configuration's `hygiene` means; None where it asks for nothing.

    Args:
      asked: a mapping. `stock`: true. `names`: an installed spaCy pipeline, or a mapping with `weights`. `harmful`:
        true, a mapping with `languages`, or one with `weights` and perhaps a `threshold`. `language`: true.

    Raises:
      ValueError: it can't be meant; the message says what could. WeightsError: a package or weights are missing.
    """
    if asked is None or asked is False:
        return None
    if not isinstance(asked, Mapping):
        raise ValueError(f"hygiene must be a mapping of {', '.join(PARTS)}, not {asked!r}")
    for part in asked:
        check_word("part of hygiene", part, PARTS)
    settings = HygieneSettings(
        stock=_flag("stock", asked.get("stock")),
        names=_names(asked.get("names")),
        harmful=_harmful(asked.get("harmful")),
        language=_language() if _flag("language", asked.get("language")) else None,
    )
    return settings if settings != HygieneSettings() else None


def hygiene_of(
    settings: HygieneSettings, placed: Callable[[Entry], tuple[ModelHandler, Mapping[str, str]]], made_with: str = ""
) -> Hygiene:
    """The stage's parts, ready to be asked.

    Args:
      placed: a model's handler, and the resource hints of its stage.
      made_with: the fingerprint of it all.
    """
    steps = (settings.names, settings.harmful, settings.language)
    names, harm, told = (Step(*placed(entry)) if entry else None for entry in steps)
    return Hygiene(tidy if settings.stock else None, names, harm, told, made_with)


def tidy(caption: str) -> str:
    """A caption without the openings that chat models have in stock, and without repetition."""
    return tidied(caption, stock_phrases.without_opening)


def _flag(part: str, asked: Any) -> bool:
    if asked is not None and not isinstance(asked, bool):
        raise ValueError(f"hygiene.{part} must be true or false, not {asked!r}")
    return bool(asked)


def _names(asked: Any) -> Entry | None:
    if asked is None or asked is False:
        return None
    if isinstance(asked, str):
        return Entry(
            name="names",
            model=asked,
            revision=names_spacy.version_of_pipeline(asked),
            licence="of the installed pipeline",
            summary="names of persons in captions, by a spaCy pipeline",
            factory=functools.partial(names_spacy.SpacyNameFinder, "names", asked),
        )
    return _of_weights("names", asked, names.NameFinder, "names of persons in captions, by a token classifier")


def _harmful(asked: Any) -> Entry | None:
    if not isinstance(asked, Mapping):
        if not _flag("harmful", asked):
            return None
        asked = {}
    if "weights" in asked:
        threshold = asked.get("threshold", harmful_classifier.THRESHOLD)
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold < 1:
            raise ValueError(f"hygiene.harmful.threshold must be a number between 0 and 1, not {threshold!r}")
        judge = functools.partial(harmful_classifier.HarmClassifier, threshold=threshold)
        rest = {key: value for key, value in asked.items() if key != "threshold"}
        entry = _of_weights("harmful", rest, judge, "harmful texts, by a classifier")
        return dataclasses.replace(entry, prompt_id=f"threshold {threshold}")
    for key in asked:
        check_word("key of hygiene.harmful", key, ("languages", "weights", "threshold"))
    languages = asked.get("languages", ["en"])
    if not isinstance(languages, list):
        raise ValueError(f"hygiene.harmful.languages must be a list such as [en, de], not {languages!r}")
    factory = functools.partial(harmful.HarmfulWords, "harmful", tuple(languages))
    factory()
    return Entry(
        name="harmful",
        model=harmful.PACKAGE,
        revision=readers.installed(harmful.PACKAGE),
        licence="MIT; its lists in part CC-BY-4.0",
        summary="harmful words, by a list; knows no insult that is made of harmless words",
        factory=factory,
        prompt_id=",".join([*languages, *sorted(harmful.EVERYDAY)]),
    )


def _language() -> Entry:
    return Entry(
        name="language",
        model=language.PACKAGE,
        revision=readers.installed(language.PACKAGE),
        licence="BSD-3-Clause",
        summary="the language of a caption; unsure about fewer than five words",
        factory=functools.partial(language.LanguageTeller, "language"),
        prompt_id=f"at least {language.LEAST_PROBABILITY}",
    )


def _of_weights(part: str, asked: Any, factory: Callable[..., ModelHandler], summary: str) -> Entry:
    if not isinstance(asked, Mapping) or not asked.get("weights"):
        raise ValueError(
            f"hygiene.{part} needs weights: a directory, gs://, or a hub id with a revision, not {asked!r}"
        )
    for key in asked:
        check_word(f"key of hygiene.{part}", key, _OF_WEIGHTS)
    settings = Settings(**{key: value for key, value in asked.items() if key not in ("licence", "commercial")})
    licence, restricted = licence_of(f"hygiene.{part}", asked)
    return Entry(
        name=part,
        model=settings.weights,
        revision=settings.version(),
        licence=licence,
        summary=summary,
        factory=factory,
        prompt_id=settings.dtype,
        settings=settings,
        restricted=restricted,
    )
