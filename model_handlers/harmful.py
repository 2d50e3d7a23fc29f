"""Harmful words, told by a word list that comes with a package: the text hygiene of Panda-70M, section 3.3.

    texts | RunInference(HarmfulWords("harmful", languages=("en", "de")))       # -> True where one stands in the text

Which word it was is told nowhere, as a dataset is no place to publish slurs. A list knows no insult that is made of
harmless words; `model_handlers.harmful_classifier` does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from model_handlers.base import ElementwiseHandler
from model_handlers.readers import Loaded, Worded, installed
from model_handlers.weights import WeightsError

PACKAGE = "badwords-py"

#: Entries of the English list that mean something else in captions. All that hit harmless captions of the training part
#: of Flickr8k (13,000 captions, 83 of 90 hits; what is left there are nude, sexy and humping), and animals.
EVERYDAY = frozenset(
    [
        *("balls", "bareback", "big black", "butt", "fanny", "girl on", "hell", "shag", "tied up", "topless"),
        *("ass", "asses", "cock", "cocks", "tit", "tits"),
    ]
)

_CODE = re.compile(r"[a-z]{2}(_[a-z0-9]{2,3})?")


class HarmfulWords(ElementwiseHandler[Worded, bool, Loaded]):
    """Answers a request with whether a harmful word stands in its `text`, be it misspelt on purpose.

    Args:
      name: which metrics and dead letters carry.
      languages: ISO 639-1 codes of the lists to read. Lists of other languages than a text's hit words that are
        harmless in it ("pot", "stick", "bite").
    """

    def __init__(self, name: str, languages: Sequence[str] = ("en",), max_batch: int = 256):
        super().__init__(name, max_batch=max_batch)
        self._languages = tuple(languages)
        if not self._languages or not all(isinstance(code, str) and _CODE.fullmatch(code) for code in self._languages):
            raise ValueError(f"languages must be codes such as en or pt, at least one, not {languages!r}")

    @property
    def model_key(self) -> str:
        return f"{super().model_key}:{','.join(self._languages)}"

    def load(self) -> Loaded:
        installed(PACKAGE)
        from badwords import NotSupportedLanguage, ProfanityFilter

        words = ProfanityFilter()
        try:
            words.init(languages=self._languages)
        except NotSupportedLanguage as error:
            known = ", ".join(sorted(words.available_languages()))
            raise WeightsError(
                f"there is no list of harmful words for one of {self._languages}; for {known}"
            ) from error
        return Loaded(words)

    def answer(self, requests: Sequence[Worded], model: Loaded) -> Sequence[bool]:
        found = model.engine.find_many([request.text for request in requests])
        return [any(match.word not in EVERYDAY for match in matches) for matches in found]
