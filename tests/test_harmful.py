"""Harmful text: a word list that knows birds and tennis balls, and classifiers of several kinds of labels."""

import dataclasses

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_readers import HARMFUL, HARMLESS, make_judge

from model_handlers.harmful import HarmfulWords
from model_handlers.harmful_classifier import HarmClassifier, harm_of
from model_handlers.settings import Settings
from model_handlers.weights import WeightsError


@dataclasses.dataclass(frozen=True)
class Text:
    """A request about a text."""

    text: str


def flags(*texts: str, languages: tuple[str, ...] = ("en",)) -> list[bool]:
    pytest.importorskip("badwords", reason="needs the extra `hygiene`")
    handler = HarmfulWords("harmful", languages)
    return [one.answer for one in handler.run_inference([Text(text) for text in texts], handler.load_model())]


@pytest.mark.parametrize(
    ("text", "harmful"),
    [
        ("This is bullshit, he says.", True),
        ("THIS IS BULLSHIT", True),
        ("What the f*ck is that?", True),
        ("Two porn stars talk.", True),
        ("A man reads.\nBad title: bitches", True),
        ("", False),
        ("A dog runs after tennis balls.", False),
        ("A cock crows, and blue tits and wild asses drink.", False),
        ("A woman from Scunthorpe visits Cockfosters, Essex and Sussex.", False),
        ("The assassin's class passes a shuttlecock.", False),
        ("A girl on a big black horse rides bareback.", False),
        ("Two gay men, a black woman and a Muslim family pray.", False),
        ("A nurse talks about breast cancer.", False),
        ("Das ist doch Scheiße.", False),
    ],
)
def test_words_are_harmful_and_animals_and_places_are_not(text, harmful):
    assert flags(text) == [harmful]


def test_lists_of_other_languages_are_read_where_they_are_named():
    texts = ("Das ist doch Scheiße.", "Vaffanculo, stronzo.", "There is a pot of soup.")
    assert flags(*texts) == [False, False, False]
    assert flags(*texts, languages=("en", "de", "it")) == [True, True, False]


def test_of_captions_that_people_wrote_hardly_any_is_harmful(shared_dir):
    # The training part chose the words that count as harmless; here the other one is read.
    captions = pq.read_table(shared_dir / "captions" / "flickr8k_dev.parquet", columns=["captions"])["captions"]
    texts = [caption for five in captions.to_pylist() for caption in five]
    hits = [text for text, harmful in zip(texts, flags(*texts), strict=True) if harmful]
    assert len(texts) == 2000
    assert len(hits) <= 2, hits


@pytest.mark.parametrize("languages", [(), ("english",), ("EN",), ("../en",)])
def test_languages_are_codes(languages):
    with pytest.raises(ValueError, match="languages must be codes such as en or pt, at least one"):
        HarmfulWords("harmful", languages)


def test_a_language_without_a_list_is_told_with_those_that_have_one():
    pytest.importorskip("badwords", reason="needs the extra `hygiene`")
    with pytest.raises(
        WeightsError, match=r"there is no list of harmful words for one of \('en', 'qq'\); for .*de, .*en"
    ):
        HarmfulWords("harmful", ("en", "qq")).load_model()


@pytest.mark.parametrize(
    ("logits", "labels", "harm"),
    [
        # Every label its own question: the greatest counts.
        ([0.0, -2.0], ("toxic", "insult"), 0.5),
        ([-4.0, np.log(3.0)], ("toxic", "threat"), 0.75),
        # One of the labels: all that is not harmless.
        ([0.0, np.log(3.0)], ("non-toxic", "toxic"), 0.75),
        ([np.log(2.0), 0.0, 0.0], ("neutral", "offensive", "hate"), 0.5),
        ([np.log(3.0), 0.0], ("NOT_HATE", "HATE"), 0.25),
    ],
)
def test_harm_is_told_by_what_the_labels_mean(logits, labels, harm):
    assert harm_of(np.array(logits), labels) == pytest.approx(harm, abs=1e-12)


def test_a_checkpoint_flags_texts_and_no_text_is_too_long_for_it(tmp_path):
    handler = HarmClassifier("harmful", Settings(str(make_judge(tmp_path)), max_batch=4))
    texts = [*HARMLESS, *HARMFUL, " ".join([*HARMLESS] * 10), ""]
    outcomes = list(handler.run_inference([Text(text) for text in texts], handler.load_model()))
    assert [one.failure for one in outcomes] == [None] * len(texts)
    assert [one.answer for one in outcomes[:5]] == [False, False, False, True, True]
    assert [one.request.text for one in outcomes] == texts


def test_labels_without_a_meaning_are_refused(tmp_path):
    folder = make_judge(tmp_path, labels=("LABEL_0", "LABEL_1"))
    with pytest.raises(WeightsError, match="calls its labels LABEL_0, LABEL_1; name a checkpoint that says what they"):
        HarmClassifier("harmful", Settings(str(folder))).load_model()
