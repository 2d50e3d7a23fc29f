"""Captions told once, without stock openings, and without the names of persons."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_handlers.stock_phrases import without_opening
from transforms.tidying import tidied, without_names


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        # Stock openings.
        ("The video shows a dog running on a beach.", "A dog running on a beach."),
        ("In this image we can see a man sits on a bench.", "A man sits on a bench."),
        ("In this video, a man plays the guitar.", "A man plays the guitar."),
        ("a picture of a dog in the grass", "A dog in the grass"),
        ("An image of two people on a bench.", "Two people on a bench."),
        ("a close-up shot of a flower", "A flower"),
        ("The video shows a dog.", "A dog."),
        # What would leave no caption stays.
        ("A video of how to bake bread.", "A video of how to bake bread."),
        ("A picture of New York.", "A picture of New York."),
        (
            "The video shows a cook and then explains the recipe.",
            "The video shows a cook and then explains the recipe.",
        ),
        ("A photo of a man and ends with a kiss.", "A photo of a man and ends with a kiss."),
        ("A picture hangs on the wall.", "A picture hangs on the wall."),
        # Words said again.
        ("a dog dog dog", "A dog"),
        ("a dog dog dog dog runs in the the park.", "A dog runs in the park."),
        ("A a man walks.", "A man walks."),
        ("A very very small dog.", "A very very small dog."),
        ("A very very very very small dog.", "A very small dog."),
        ("A man says bye bye to her her cat.", "A man says bye bye to her her cat."),
        ("Three dogs, dogs, dogs.", "Three dogs, dogs, dogs."),
        ("They dance the cha cha cha.", "They dance the cha cha cha."),
        ("The road winds up and down and up and down.", "The road winds up and down and up and down."),
        ("He waves over and over and over again.", "He waves over and over and over again."),
        # Loops of phrases.
        ("a man and a man and a man in a park", "A man in a park"),
        ("a red ball and a red ball", "A red ball and a red ball"),
        ("a dog in the grass a dog in the grass", "A dog in the grass"),
        ("a dog in the grass a dog in the grass a cat sleeps.", "A dog in the grass a cat sleeps."),
        (
            "a man is standing in a room with a man in a room with a man in a room with a",
            "A man is standing in a room with a man",
        ),
        # Sentences said again.
        ("A dog runs. A dog runs! A cat sleeps.", "A dog runs. A cat sleeps."),
        ("No. No. He goes.", "No. No. He goes."),
        ("一只狗在跑。一只狗在跑。", "一只狗在跑。一只狗在跑。"),
        # Nothing to do, or nothing would be left.
        ("A dog runs.", "A dog runs."),
        ("  a dog\nruns  ", "A dog runs"),
        ("...", "..."),
        ("ß", "ß"),
    ],
)
def test_stock_openings_and_repetition_go(caption, expected):
    assert tidied(caption, without_opening) == expected


_WORDS = st.sampled_from(
    [
        "a",
        "the",
        "dog",
        "man",
        "and",
        "in",
        "of",
        "park.",
        "runs",
        "shows",
        "video",
        "The",
        "A",
        "picture",
        "very",
        "over",
        ",",
        "is",
        "!",
        "it",
        "Mr.",
        "cha",
        "two",
        "ß",
        "犬",
    ]
)
_CAPTIONS = st.lists(_WORDS, max_size=24).map(" ".join) | st.text(max_size=60)


@given(_CAPTIONS)
def test_tidying_twice_changes_nothing_more_and_empties_no_caption(caption):
    once = tidied(caption, without_opening)
    assert tidied(once, without_opening) == once
    assert any(map(str.isalnum, once)) == any(map(str.isalnum, caption))
    assert len(once) <= len(caption)


def spans(text: str, *names: str) -> list[tuple[int, int]]:
    """Where the names stand in the text, the first time each."""
    return [(text.index(name), text.index(name) + len(name)) for name in names]


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        ("John Smith and Mary walk.", ["John", "Smith", "Mary"], "Person and person walk."),
        ("Two men meet John, Mary and Bob.", ["John", "Mary", "Bob"], "Two men meet person, person and person."),
        ("John's dog runs.", ["John"], "Person's dog runs."),
        ("The dog of James' wife.", ["James'"], "The dog of person's wife."),
        ("A dog sees Anna’s cat.", ["Anna’s"], "A dog sees person’s cat."),
        ("Here Mr. Smith speaks.", ["Smith"], "Here person speaks."),
        ("Prof. Dr. Smith speaks.", ["Smith"], "Person speaks."),
        ("A man called J. R. R. Tolkien writes.", ["J. R. R", "Tolkien"], "A man called person writes."),
        ("A man meets C. Darwin.", ["C", "Darwin"], "A man meets person."),
        ("Jean-Luc O'Neil nods.", ["Jean", "Luc", "O", "Neil"], "Person nods."),
        ("He likes John. Mary smiles.", ["John", "Mary"], "He likes person. Person smiles."),
        ('"Anna!" they shout.', ["Anna"], '"Person!" they shout.'),
        ("SpongeBob laughs.", ["Sponge"], "Person laughs."),
        ("A man in Washington.", [], "A man in Washington."),
        ("张伟在跑步。", ["张伟"], "Person在跑步。"),
        ("A girl hugs @anna_b today.", ["anna"], "A girl hugs @person today."),
    ],
)
def test_each_name_becomes_one_person(text, names, expected):
    assert without_names(text, spans(text, *names)) == expected


def test_spans_may_overlap_come_in_any_order_and_hold_blanks():
    text = "A dog sees John Smith today."
    assert without_names(text, [(16, 22), (10, 16), (11, 15), (5, 5)]) == "A dog sees person today."


@given(st.text("ab .'-", max_size=20), st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=4))
def test_no_span_breaks_the_text_round_it(text, names):
    within = [(min(start, len(text)), min(end, len(text))) for start, end in names]
    left = without_names(text, within, "X")
    if all(not text[start:end].strip() for start, end in within):
        assert left == text
    else:
        assert "X" in left and "XX" not in left
