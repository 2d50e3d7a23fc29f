"""Names of persons in captions, found by a token classifier: the text hygiene of Panda-70M, section 3.3.

    texts | RunInference(NameFinder("names", Settings("dslim/bert-base-NER", revision="...")))   # -> ((0, 10), ...)

Any checkpoint that Transformers loads as a token classifier serves if it knows persons: CoNLL's PER, OntoNotes' PERSON,
and first and last names of models for personal information. No weights come with a package; the user names them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from model_handlers.devices import Device
from model_handlers.readers import TextReader, Window, Worded
from model_handlers.resident import Raw, ResidentHandler
from model_handlers.settings import Settings
from model_handlers.weights import WeightsError

Spans = tuple[tuple[int, int], ...]

_PERSONS = "PER PERS PERSON PERSONNAME NAME FIRSTNAME MIDDLENAME LASTNAME GIVENNAME SURNAME PRIVATEPERSON"
#: What data sets of named entities and of personal information call a person, without separators.
PERSONS = frozenset(_PERSONS.split())
_PREFIX = re.compile(r"\A[BIESLU][-_]", re.IGNORECASE)


def entity_of(label: str) -> str:
    """What a label is about, without where in a name it stands.

    >>> entity_of("B-PER"), entity_of("O"), entity_of("I-first_name")
    ('PER', 'O', 'FIRSTNAME')
    """
    return re.sub(r"[^A-Za-z0-9]", "", _PREFIX.sub("", label)).upper()


def person_spans(windows: Sequence[Window], chances: Sequence[np.ndarray], labels: Sequence[str]) -> Spans:
    """The words of a text that are names of persons, as [start, end) in its characters, in order.

    A word is of the entity whose probability is greatest in the mean of its tokens, so that no half of a word is a
    name. Of a word in two windows, one that finds a person there counts.

    Args:
      windows: the text's. chances: of each window (tokens, labels), every row adding up to 1.
    """
    entities = [entity_of(label) for label in labels]
    kinds = sorted(set(entities))
    among = np.array([[entity == kind for kind in kinds] for entity in entities], np.float64)
    persons = np.array([kind in PERSONS for kind in kinds])
    found: set[tuple[int, int]] = set()
    for window, rows in zip(windows, chances, strict=True):
        by_kind = np.asarray(rows, np.float64)[: len(window.words)] @ among
        for word in sorted({word for word in window.words if word is not None}):
            at = [number for number, other in enumerate(window.words) if other == word]
            mean = by_kind[at].mean(axis=0)
            # First and last names are two kinds of one thing.
            if mean[persons].sum() > mean[~persons].max(initial=0.0):
                found.add((window.offsets[at[0]][0], window.offsets[at[-1]][1]))
    return tuple(sorted(found))


def credible(text: str, spans: Iterable[tuple[int, int]]) -> Spans:
    """The spans that can be names by their spelling: in a text with capitals, a name has one.

    Small pipelines take words of a caption's end ("next to a bush") for names. A text in small letters alone keeps all.
    """
    if text.islower():
        return tuple(spans)
    return tuple(span for span in spans if not text[slice(*span)].islower())


class NameFinder(ResidentHandler[Worded, Spans]):
    """Answers a request with the spans of persons' names in its `text`, word by word."""

    def network(self, device: Device) -> _Names:
        return _Names(self.settings, device)


class _Names:
    def __init__(self, settings: Settings, device: Device):
        self._reader = TextReader(settings, "AutoModelForTokenClassification", device)
        self._labels = self._reader.labels
        if not any(entity_of(label) in PERSONS for label in self._labels):
            told = ", ".join(self._labels[:8])
            raise WeightsError(f"{settings.weights} knows no persons, only {told}; name a checkpoint that labels PER")

    def prepare(self, request: Worded) -> tuple[Window, ...]:
        return self._reader.prepare(request)

    def forward(self, prepared: Sequence[tuple[Window, ...]]) -> Raw:
        chances = iter([one.softmax(-1).numpy() for one in self._reader.logits(prepared)])
        return Raw([(windows, [next(chances) for _ in windows]) for windows in prepared])

    def finish(self, request: Worded, raw: Any) -> Spans:
        windows, chances = raw
        return credible(request.text, person_spans(windows, chances, self._labels))
