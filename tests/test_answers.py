"""From a model's answer to a caption: pytest tests/test_answers.py"""

import contextlib
import json
import pickle
import time

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_handlers.answers import RAW_CHARACTERS, UnusableAnswer, clean
from transforms.records import Failure

TIDIED = {
    "white space": ("  A dog \t runs.\n\n", "A dog runs."),
    "a chat's end": ("A dog runs.<|im_end|>\n<|endoftext|>", "A dog runs."),
    "the next turn": (
        "A dog runs. <|im_end|>\n<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n",
        "A dog runs.",
    ),
    "the next turn in words": ("A dog runs.\nUSER: and the cat?", "A dog runs."),
    "a T5 token": ("<pad> A dog runs.</s>", "A dog runs."),
    "a role": ("Assistant: A dog runs.", "A dog runs."),
    "the echo of a ChatML prompt": (
        "<|im_start|>user\nWhat is it?<|im_end|>\n<|im_start|>assistant\nA dog runs.",
        "A dog runs.",
    ),
    "the echo without its tokens": ("system\nBe brief.\nuser\nWhat is it?\nassistant\nA dog runs.", "A dog runs."),
    "the echo of a Vicuna prompt": ("USER: <video> What is it? ASSISTANT: A dog runs.</s>", "A dog runs."),
    "the echo of a Llama prompt": ("[INST] <image> What is it? [/INST] A dog runs.", "A dog runs."),
    "thoughts": ("<think>A dog? The video shows\nit.</think>\n\nA dog runs.", "A dog runs."),
    "thoughts that the template began": ("It is a dog.\n</think>\n\nA dog runs.", "A dog runs."),
    "bold": ("**A dog** runs.", "A dog runs."),
    "a heading": ("## Caption\nA dog runs on sand.", "Caption A dog runs on sand."),
    "a list": ("1. A dog runs.\n2. A cat sleeps.", "A dog runs. A cat sleeps."),
    "a fence": ("```text\nA dog runs.\n```", "A dog runs."),
    "our own quotation marks": ('"""\nA dog runs.\n"""', "A dog runs."),
    "quotes": ("“A dog runs.”", "A dog runs."),
    "quotes before the full stop": ('"A dog runs".', "A dog runs."),
    "quotes round an apostrophe": ("'A man's dog runs.'", "A man's dog runs."),
    "half a pair of quotes": ('"A dog runs. It is very', "A dog runs."),
    "half a character": ("A dog runs.\ufffd", "A dog runs."),
    "control characters": ("A \x00dog\u200b runs\x1b.", "A dog runs."),
}

OPENED = {
    "Sure! A dog runs.": "A dog runs.",
    "Of course! Here's a caption for your video:\n\n**A dog runs.**": "A dog runs.",
    "Here is a one-sentence summary: the video shows a dog running.": "A dog running.",
    "Here is a summary of the clip\n\nA dog runs on a beach.": "A dog runs on a beach.",
    "Below is a brief description of what is seen: a dog runs.": "A dog runs.",
    "One-sentence summary: A dog runs.": "A dog runs.",
    "Caption: A dog runs.": "A dog runs.",
    'The caption for this video could be "A dog runs".': "A dog runs.",
    "The video shows a dog running on a beach.": "A dog running on a beach.",
    "This short video clip shows that two dogs are running.": "Two dogs are running.",
    "The image depicts a red car parked near a tree.": "A red car parked near a tree.",
    "In this video, a man plays guitar.": "A man plays guitar.",
    "In the image, there is a dog.": "There is a dog.",
    "in this video we see a man playing guitar.": "A man playing guitar.",
    "Based on the title, the description, and subtitles, the video shows a chef slicing it.": "A chef slicing it.",
}

#: What only looks like an opening, or leaves no sentence behind it.
KEPT = [
    "a boy playing with dog.",
    "The video shows how to make a cake.",
    "The video shows off a car parked on grass.",
    "The video shows a man cooking and explains how to do it.",
    "The video shows a nice card trick.",
    "The video begins with a man walking and ends with a car.",
    "In the video game store, a man buys a game.",
    "In the picture frame is a photograph of a woman.",
    "A photo of a man hangs on the wall.",
    "A woman holds up a caption reading: hello.",
    '"Stop" says a man holding a sign reading "Go"',
    "A woman says \"I'm sorry, but I can't stay\" to a man.",
    "There is no snow on the mountain.",
    "The man sings over and over and over again.",
    "It is a very very very good dog.",
    "A man talks to Mr. Smith",
    "An old man, a child and a dog sit on a bench",
    "Two men jog . One of them wears a hat .",
    "一只狗在海滩上奔跑。",
    "A family 👨‍👩‍👧 eats.",
]

REPEATED = {
    "A dog runs. A dog runs.": "A dog runs.",
    "A dog runs. A cat sits. a dog RUNS!": "A dog runs. A cat sits.",
    "A dog runs. A dog runs. A dog runs. A dog": "A dog runs.",
    "a man and a man and a man and": "a man",
    "A cat sits. A man and a man and a man and a man": "A cat sits.",
    "A man is in the room, in the room, in the room, in the": "A man is in the room",
    "A red car drives on a road " + "and a red car drives on a road " * 9: "A red car drives on a road",
    "A dog barks" + " woof" * 40: "A dog barks woof",
    "A dog runs!!!!!!!!!!!!!!!!!!!!": "A dog runs!",
    "A woman laughs " + "ha" * 200: "A woman laughs ha",
    "一个男人在跑步" * 6: "一个男人在跑步",
    "A dog runs on grass. It is chasing a": "A dog runs on grass.",
    "It is chasing a": "It is chasing a",
}

FAREWELLS = {
    "A man cooks. Let me know if you need anything else!": "A man cooks.",
    "A man cooks a meal. I cannot see the video clearly enough to say more.": "A man cooks a meal.",
    "A man cooks. Note: this is based on the title alone.": "A man cooks.",
}

UNUSABLE = {
    "": "no words",
    " \n ": "no words",
    "...": "no words",
    "🐶 42": "no words",
    "<|im_end|>": "no words",
    "<think>The user wants a caption": "nothing but thoughts",
    "the the the the the the": "nothing but repetition",
    "ha" * 200: "nothing but repetition",
    "I'm sorry, but I can't assist with that.": "a refusal",
    "I’m sorry. I cannot see the video.": "a refusal",
    "Sorry, no video was attached.": "a refusal",
    "As an AI language model, I cannot watch videos, but a man may be cooking.": "a refusal",
    "I cannot see the video.": "a refusal",
    "I'm unable to view images.": "a refusal",
    "There is no video provided.": "a refusal",
    "It seems like there are no images attached to your message.": "a refusal",
    "Please provide the video, and I will describe it.": "a refusal",
    "Could you please upload the video?": "a refusal",
    "Sure! Please provide the subtitles.": "a refusal",
    "Unfortunately, I cannot describe this video.": "a refusal",
    "Based on the provided text, it is impossible to say what is seen.": "a refusal",
    "Without access to the video, a summary cannot be given.": "a refusal",
    "Hello! How can I assist you today?": "a refusal",
    "Sure! Here is a caption for the video:": "a refusal",
    "unanswerable": "a refusal",
    "N/A": "a refusal",
}


@pytest.mark.parametrize(("raw", "caption"), TIDIED.values(), ids=TIDIED)
def test_what_a_chat_leaves_round_a_caption_goes(raw, caption):
    assert clean(raw) == caption


@pytest.mark.parametrize(("raw", "caption"), OPENED.items())
def test_a_stock_opening_goes_and_its_sentence_gets_a_capital(raw, caption):
    assert clean(raw) == caption


@pytest.mark.parametrize("caption", KEPT)
def test_a_caption_stays_to_the_letter(caption):
    assert clean(caption) == caption


@pytest.mark.parametrize(("raw", "caption"), REPEATED.items())
def test_a_repetition_is_told_once_and_an_unfinished_sentence_goes_where_a_whole_one_stands_before_it(raw, caption):
    assert clean(raw) == caption


@pytest.mark.parametrize(("raw", "caption"), FAREWELLS.items())
def test_what_is_said_to_the_reader_behind_the_caption_goes(raw, caption):
    assert clean(raw) == caption


@pytest.mark.parametrize(("raw", "why"), UNUSABLE.items())
def test_an_answer_without_a_caption_is_unusable_and_says_why(raw, why):
    with pytest.raises(UnusableAnswer) as caught:
        clean(raw)
    assert (str(caught.value), caught.value.raw) == (why, raw)


def failure_of(raw: str) -> Failure:
    try:
        clean(raw)
    except UnusableAnswer as error:
        return Failure.of(error)
    raise AssertionError(f"{raw!r} was usable")


def test_the_raw_answer_stands_at_the_end_of_the_dead_letter():
    raw = "I cannot see the video.\nPlease upload it."
    failure = failure_of(raw)
    assert (failure.error_class, failure.message) == ("UnusableAnswer", "a refusal")
    assert failure.detail.endswith(f"UnusableAnswer: a refusal\nthe answer was: {raw}\n")


def test_a_long_raw_answer_is_cut_to_what_a_dead_letter_carries():
    raw = "I cannot see the video. " + "x" * 50_000
    assert failure_of(raw).detail.endswith(f"\nthe answer was: {raw[:RAW_CHARACTERS]}\n")


def test_a_lone_surrogate_in_the_raw_answer_can_be_written_to_a_table():
    assert failure_of("I cannot see the video \ud800.").detail.encode().endswith(b"I cannot see the video \\ud800.\n")


def test_an_unusable_answer_survives_the_way_between_workers():
    error = pickle.loads(pickle.dumps(UnusableAnswer("a refusal", "No.")))
    assert (str(error), error.raw, error.__notes__) == ("a refusal", "No.", ["the answer was: No."])


FRAGMENTS = st.sampled_from(
    [
        *(raw for raw, _ in TIDIED.values()),
        *OPENED,
        *KEPT,
        *REPEATED,
        *UNUSABLE,
        *("Sure!", "Okay,", "the video shows", "In this video,", "a man and", "running", '"', "'", "**", "*", "_", "`"),
        *(
            "<think>",
            "</think>",
            "<|im_",
            "end|>",
            "<im<image>age>",
            "assistant\n",
            "USER:",
            "Caption:",
            "1.",
            "-",
            "#",
        ),
        *("\n", ".", "...", "!", "，", "。", "ß", "ŉ", "\u200d", "\ud800", "[/INST]", "ha", "Mr."),
    ]
)
ANSWERS = st.lists(st.one_of(FRAGMENTS, st.text(max_size=8)), max_size=14).flatmap(
    lambda parts: st.sampled_from(["", " "]).map(lambda blank: blank.join(parts))
)


@given(ANSWERS)
@settings(deadline=None, max_examples=300)
def test_cleaning_twice_changes_nothing_more_and_makes_no_caption_longer(raw):
    try:
        caption = clean(raw)
    except UnusableAnswer as error:
        assert error.raw == raw
        return
    assert clean(caption) == caption
    assert len(caption) <= len(raw)
    assert caption == " ".join(caption.split())
    assert any(map(str.isalpha, caption))


#: Each asks the same of the patterns ten thousand times over.
SLOW = [
    "Sure! ",
    "<think>",
    "**a",
    "*a",
    '"',
    "'a ",
    "`",
    "user: ",
    "Here is a ",
    "Based on the ",
    "a, ",
    "\n- ",
    "A: ",
]


@pytest.mark.parametrize("part", SLOW)
def test_an_endless_answer_is_cleaned_in_no_time(part):
    started = time.perf_counter()
    with contextlib.suppress(UnusableAnswer):
        clean(part * (20_000 // len(part)))
    # Seen: 0.15 s at the most. Patterns that look back at every letter would take minutes.
    assert time.perf_counter() - started < 5


def captions_of(shared_dir, name: str) -> list[str]:
    path = shared_dir / "captions" / name
    if not path.exists():
        pytest.skip(f"needs shared/captions/{name}")
    if path.suffix == ".parquet":
        return [caption for row in pq.read_table(path, columns=["captions"])["captions"].to_pylist() for caption in row]
    rows = json.loads(path.read_text("utf-8"))
    return [caption for row in rows for caption in ([row["caption"]] if "file" in row else row["caption"])]


def changed(caption: str) -> bool:
    try:
        return clean(caption) != " ".join(caption.split())
    except UnusableAnswer:
        return True


@pytest.mark.parametrize(
    ("name", "expected"),
    [("panda70m.json", 0), ("flickr8k_train.parquet", 1), ("flickr8k_dev.parquet", 0), ("msvd_caption_test.json", 6)],
)
def test_captions_that_people_wrote_stay_as_they_are(shared_dir, name, expected):
    # The seven of 42,827 were looked at: six open with "in this video" and the like, one has an unfinished end.
    assert len([caption for caption in captions_of(shared_dir, name) if changed(caption)]) == expected
