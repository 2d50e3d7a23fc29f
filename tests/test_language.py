"""The language of captions: right or not told, on short captions in thirteen languages and on what people wrote."""

import dataclasses

import pyarrow.parquet as pq
import pytest

from benchmarks.hygiene_texts import LANGUAGES
from model_handlers.language import LanguageTeller
from model_handlers.readers import installed
from model_handlers.weights import WeightsError

pytest.importorskip("py3langid", reason="needs the extra `hygiene`")


@dataclasses.dataclass(frozen=True)
class Text:
    """A request about a text."""

    text: str


def languages_of(*texts: str) -> list[str | None]:
    handler = LanguageTeller("language")
    return [one.answer for one in handler.run_inference([Text(text) for text in texts], handler.load_model())]


#: How many of a language's last four captions, the shortest, are told where it is not all; never as another language.
TOLD = {"fr": 3, "en": 3, "es": 2, "pt": 3, "it": 3, "nl": 3, "pl": 3, "ru": 2}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_shortest_captions_of_a_language_are_told_right_or_not_at_all(language):
    told = languages_of(*LANGUAGES[language][4:])
    assert {*told} - {None} == {language}
    assert told.count(language) >= TOLD.get(language, 4)


@pytest.mark.parametrize("text", ["", "...", "123 456", "🙂", "OK", "Person.", "John Smith"])
def test_where_there_is_next_to_nothing_to_read_no_language_is_told(text):
    assert languages_of(text) == [None]


def test_captions_that_people_wrote_in_english_are_english(shared_dir):
    captions = pq.read_table(shared_dir / "captions" / "flickr8k_dev.parquet", columns=["captions"])["captions"]
    told = languages_of(*[caption for five in captions.to_pylist() for caption in five])
    assert {*told} == {"en", None}
    assert told.count("en") / len(told) >= 0.985


def test_the_answer_is_the_same_whatever_else_was_asked():
    texts = [caption for captions in LANGUAGES.values() for caption in captions]
    assert languages_of(*texts) == [languages_of(text)[0] for text in texts]


def test_a_package_that_is_missing_is_told_with_what_installs_it():
    with pytest.raises(
        WeightsError, match=r"^no-such-package is not installed; run: pip install 'reelscribe\[hygiene\]'$"
    ):
        installed("no-such-package")
