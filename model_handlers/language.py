"""The language that a caption is written in, by a detector whose model comes with its package.

    texts | RunInference(LanguageTeller("language"))     # -> "en", or None where it can't be told

py3langid: naive Bayes over byte sequences, the same answer every time, 4.6 MB, under 0.1 ms a caption (M. Lui and
T. Baldwin, "langid.py: An Off-the-shelf Language Identification Tool", ACL 2012).
"""

from __future__ import annotations

from collections.abc import Sequence

from model_handlers.base import ElementwiseHandler
from model_handlers.readers import Loaded, Worded, installed

PACKAGE = "py3langid"

#: A language is told where it is likelier than all others together. Chosen on half of the captions of
#: benchmarks/hygiene_texts.py and on Flickr8k's training captions, where no wrong answer is left.
LEAST_PROBABILITY = 0.5


class LanguageTeller(ElementwiseHandler[Worded, str | None, Loaded]):
    """Answers a request with the ISO 639-1 code of its `text`, None where no language is likely enough.

    Languages that have no such code are not looked for: none of them is what a short English caption most likely is.

    Args:
      name: which metrics and dead letters carry.
    """

    def __init__(self, name: str, least: float = LEAST_PROBABILITY, max_batch: int = 256):
        super().__init__(name, max_batch=max_batch)
        self._least = least

    @property
    def model_key(self) -> str:
        return f"{super().model_key}:{self._least}"

    def load(self) -> Loaded:
        installed(PACKAGE)
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        teller = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        teller.set_languages([code for code in teller.nb_classes if len(code) == 2])
        return Loaded(teller)

    def answer(self, requests: Sequence[Worded], model: Loaded) -> Sequence[str | None]:
        told = [model.engine.classify(request.text) for request in requests]
        return [code if probability >= self._least else None for code, probability in told]
