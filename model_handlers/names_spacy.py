"""Names of persons in captions, found by an installed spaCy pipeline.

texts | RunInference(SpacyNameFinder("names", "en_core_web_sm"))      # -> ((0, 10), ...)
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Sequence
from typing import Any

from model_handlers.base import ElementwiseHandler
from model_handlers.names import PERSONS, Spans, credible, entity_of
from model_handlers.readers import Worded
from model_handlers.weights import WeightsError

#: spaCy's pipelines are packages, called LANGUAGE_KIND_GENRE_SIZE; a path would be read for code beside its weights.
_PACKAGE = re.compile(r"[a-z][a-z0-9_]{2,63}")


def version_of_pipeline(pipeline: str) -> str:
    """Which release of a pipeline is installed; `WeightsError` when none is."""
    if not _PACKAGE.fullmatch(pipeline):
        raise WeightsError(f"{pipeline!r} is no name of a spaCy pipeline; en_core_web_sm is one")
    distributions = importlib.metadata.packages_distributions().get(pipeline)
    if not distributions:
        raise WeightsError(f"the spaCy pipeline {pipeline} is not installed; run: python -m spacy download {pipeline}")
    return f"{distributions[0]} {importlib.metadata.version(distributions[0])}"


class SpacyNameFinder(ElementwiseHandler[Worded, Spans, Any]):
    """Answers a request with the spans of persons' names in its `text`.

    Args:
      name: which metrics and dead letters carry. pipeline: an installed one with a component `ner`.
    """

    def __init__(self, name: str, pipeline: str, max_batch: int = 64):
        super().__init__(name, max_batch=max_batch)
        self._pipeline = pipeline

    @property
    def model_key(self) -> str:
        return f"{super().model_key}:{self._pipeline}"

    def load(self) -> Any:
        version_of_pipeline(self._pipeline)
        try:
            import spacy
        except ImportError as error:
            raise WeightsError("spaCy is not installed; run: pip install 'spacy>=3.8,<4'") from error
        try:
            # The recogniser has its own features; what else a pipeline does would only take time.
            pipeline = spacy.load(
                self._pipeline, exclude=["tagger", "parser", "senter", "lemmatizer", "attribute_ruler"]
            )
        except (OSError, ValueError, ImportError) as error:
            told = " ".join(str(error).split())
            raise WeightsError(f"the spaCy pipeline {self._pipeline} can't be loaded: {told}") from error
        if not any(entity_of(label) in PERSONS for label in pipeline.pipe_labels.get("ner", ())):
            raise WeightsError(f"the spaCy pipeline {self._pipeline} knows no persons; name one with PER or PERSON")
        return pipeline

    def answer(self, requests: Sequence[Worded], model: Any) -> Sequence[Spans]:
        read = model.pipe([request.text for request in requests], batch_size=self.max_batch)
        return [
            credible(document.text, ((one.start_char, one.end_char) for one in document.ents if _is_person(one.label_)))
            for document in read
        ]


def _is_person(label: str) -> bool:
    return entity_of(label) in PERSONS
