"""Speech by Whisper: times as the tokens say them, windows that cut no sentence in two, and nothing made of silence."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_dual
import tiny_whisper

from model_handlers.speech import (
    RATE,
    Parsed,
    SpeechSettings,
    Spoken,
    Transcriber,
    is_looping,
    load_transcriber,
    parse,
)
from model_handlers.weights import WeightsError

#: Text tokens below 100, other special ones up to 109, then the timestamps.
ENDING, FIRST = 100, 110
SOT, END = 101, 100


def at(time_s: float) -> int:
    return FIRST + round(time_s / 0.02)


@pytest.mark.parametrize(
    ("tokens", "last", "expected"),
    [
        # Ends at a timestamp: nothing more is said in the window.
        ([SOT, at(0), 1, 2, at(2.4), END], False, Parsed(((0.0, 2.4, (1, 2)),), 30.0)),
        ([at(1), 1, at(2), at(2), 3, at(5), END], False, Parsed(((1.0, 2.0, (1,)), (2.0, 5.0, (3,))), 30.0)),
        # The second sentence is not finished: the next window begins with it.
        ([at(0), 1, at(28), at(28), 3, 4, END], False, Parsed(((0.0, 28.0, (1,)),), 28.0)),
        ([at(0), 1, at(28), at(29), END], False, Parsed(((0.0, 28.0, (1,)),), 29.0)),
        # Behind the last window there is nothing to finish it.
        ([at(0), 1, at(28), at(28), 3, 4, END], True, Parsed(((0.0, 28.0, (1,)), (28.0, 30.0, (3, 4))), 30.0)),
        ([at(0), 1, at(28), at(29), END], True, Parsed(((0.0, 28.0, (1,)),), 30.0)),
        # A sentence as long as the window, with and without its beginning.
        ([at(3), 1, 2, END], False, Parsed(((3.0, 30.0, (1, 2)),), 30.0)),
        ([1, 2, END], False, Parsed(((0.0, 30.0, (1, 2)),), 30.0)),
        # Nothing said.
        ([SOT, END], False, Parsed((), 30.0)),
        ([at(0), at(0), END], False, Parsed((), 30.0)),
        ([at(0), at(30), END], False, Parsed((), 30.0)),
        # Times that run backwards, or beyond the window, cost no word.
        ([at(4), 1, at(3), END], False, Parsed(((4.0, 4.0, (1,)),), 30.0)),
        ([at(0), 1, FIRST + 2000, END], False, Parsed(((0.0, 30.0, (1,)),), 30.0)),
        # What was said at no time must not stop the sound.
        ([at(0), 1, at(0), at(0), 2, END], False, Parsed(((0.0, 0.0, (1,)),), 30.0)),
    ],
)
def test_tokens_become_sentences_with_times(tokens, last, expected):
    found = parse(tokens, ending=ENDING, first=FIRST, window_s=30.0, last=last)
    assert found.read_s == pytest.approx(expected.read_s, abs=1e-9)
    assert [words for _, _, words in found.spoken] == [words for _, _, words in expected.spoken]
    times = [time_s for spoken in found.spoken for time_s in spoken[:2]]
    assert times == pytest.approx([time_s for spoken in expected.spoken for time_s in spoken[:2]], abs=1e-9)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", False),
        ("Thank you.", False),
        ("A red boat moves slowly past the camera while the rain falls on the quiet garden.", False),
        ("Thank you. " * 20, True),
        ("la la la " * 20, True),
    ],
)
def test_text_that_repeats_itself_is_known(text, expected):
    assert is_looping(text) is expected


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("whispers")


@pytest.fixture(scope="module")
def two_sentences(folder):
    says = ["<|0.00|>", " A", " boat", "<|2.00|>", "<|2.00|>", " moves", " slowly", ".", "<|5.00|>"]
    return loaded(tiny_whisper.make_whisper(folder / "two", _as_tokens(says)))


def loaded(weights: str, **more: int) -> Transcriber:
    return load_transcriber(SpeechSettings(weights, dtype="float32", **more))


def _as_tokens(says: list[str]) -> list[str]:
    """A blank stands as Ġ in a byte-level vocabulary."""
    return [word.replace(" ", "Ġ") for word in says]


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, int(seconds * RATE)).astype(np.float32)


def test_two_windows_are_told_one_behind_the_other(two_sentences):
    told = two_sentences.transcribe([noise(40)])
    assert told == [
        Spoken(0.0, 2.0, "A boat"),
        Spoken(2.0, 5.0, "moves slowly."),
        Spoken(30.0, 32.0, "A boat"),
        Spoken(32.0, 35.0, "moves slowly."),
    ]


@pytest.mark.parametrize("size", [1_000, 30 * RATE, 33 * RATE])
def test_in_which_chunks_the_sound_comes_does_not_matter(size, two_sentences):
    sound = noise(40)
    whole = two_sentences.transcribe([sound])
    assert two_sentences.transcribe(sound[start : start + size] for start in range(0, len(sound), size)) == whole


@pytest.mark.parametrize("seconds", [0, 0.01, 1.5, 30, 30.005])
def test_sounds_of_odd_lengths_end_where_they_end(seconds, two_sentences):
    told = two_sentences.transcribe([noise(seconds)] if seconds else [])
    # A sound that is shorter than what is said of it bounds its times.
    expected = {0: [], 0.01: [0.01, 0.01], 1.5: [1.5, 1.5], 30: [2.0, 5.0], 30.005: [2.0, 5.0, 30.005, 30.005]}
    assert [spoken.end_s for spoken in told] == pytest.approx(expected[seconds], abs=1e-3)


def test_silence_is_not_listened_to_and_keeps_its_time(two_sentences):
    silence = np.zeros(30 * RATE, np.float32)
    assert two_sentences.transcribe([silence, silence]) == []
    told = two_sentences.transcribe([silence, noise(10)])
    assert [(spoken.start_s, spoken.end_s) for spoken in told] == [(30.0, 32.0), (32.0, 35.0)]


def test_a_sentence_that_the_window_cuts_is_heard_again_from_its_beginning(folder):
    says = ["<|0.00|>", " A", " boat", "<|20.00|>", "<|20.00|>", " moves", " slowly"]
    transcriber = loaded(tiny_whisper.make_whisper(folder / "cut", _as_tokens(says)))
    told = transcriber.transcribe([noise(45)])
    assert told == [
        Spoken(0.0, 20.0, "A boat"),
        # The window from 20 s on is the last one, 25 s long.
        Spoken(20.0, 40.0, "A boat"),
        Spoken(40.0, 45.0, "moves slowly"),
    ]


def test_text_that_repeats_itself_is_left_out(folder):
    says = ["<|0.00|>", *[" boat"] * 45, "<|20.00|>", "<|20.00|>", " A", " train", "<|22.00|>"]
    transcriber = loaded(tiny_whisper.make_whisper(folder / "loop", _as_tokens(says)))
    assert transcriber.transcribe([noise(25)]) == [Spoken(20.0, 22.0, "A train")]


def test_no_more_tokens_are_made_than_asked_for(folder, two_sentences):
    short = loaded(str(folder / "two"), max_new_tokens=3)
    assert short.transcribe([noise(10)]) == [Spoken(0.0, 10.0, "A boat")]


def test_a_language_is_found_out_or_told_and_one_that_is_not_known_is_refused(two_sentences):
    assert two_sentences.languages == ["de", "en", "fr"]
    assert two_sentences.transcribe([noise(5)], "de") == two_sentences.transcribe([noise(5)])
    with pytest.raises(ValueError, match="this model knows no language 'ge'; "):
        two_sentences.transcribe([noise(5)], "ge")


def test_a_model_of_english_alone_is_asked_for_nothing_else(folder):
    says = ["<|0.00|>", " A", " boat", "<|2.00|>"]
    english = loaded(tiny_whisper.make_whisper(folder / "english", _as_tokens(says), multilingual=False))
    assert english.languages == []
    assert english.transcribe([noise(5)], "en") == [Spoken(0.0, 2.0, "A boat")]
    with pytest.raises(ValueError, match="knows English alone, not 'de'; name a multilingual one"):
        english.transcribe([noise(5)], "de")


@pytest.mark.parametrize(
    ("sound", "message"),
    [
        (
            np.zeros((2, 5), np.float32),
            r"must be mono, float32 samples at 16000 a second, not float32 of shape \(2, 5\)",
        ),
        (np.zeros(5, np.int16), r"not int16 of shape \(5,\)"),
        (np.array([0.0, np.nan], np.float32), "holds samples that are no numbers"),
    ],
)
def test_samples_of_another_kind_are_refused(sound, message, two_sentences):
    with pytest.raises(ValueError, match=message):
        two_sentences.transcribe([sound])


def test_a_checkpoint_that_is_no_whisper_is_refused(tmp_path):
    tiny_dual.make_clip(tmp_path / "clip")
    with pytest.raises(WeightsError, match="is a clip model; speech wants a Whisper checkpoint"):
        loaded(str(tmp_path / "clip"))
    with pytest.raises(WeightsError, match="there is no directory"):
        loaded(str(tmp_path / "none"))
