"""What a student reads of a clip: frames, texts and captions as tensors."""

import json
import random

import numpy as np
import pytest
import torch
from tiny_student import (
    COLOURS,
    student_tokenizer,
)

from model_handlers.settings import Settings
from model_handlers.student_inputs import (
    Reading,
    Sample,
    StudentInputs,
    Texts,
    drop_text,
    load_speaking,
    normalisation_of,
)
from model_handlers.weights import WeightsError

LITE = "efficientnet-lite0"


@pytest.fixture(scope="module")
def inputs():
    return StudentInputs(student_tokenizer(), Reading(frames=4, side=28, text_tokens=48, caption_tokens=24))


def test_texts_stand_under_headings_and_no_text_is_no_token(inputs):
    tokens = inputs.text_tokens(Texts("Cats", None, "they purr </s>"))
    assert inputs.tokenizer.decode(tokens) == 'Title:\n"""\nCats\n"""\nSubtitles:\n"""\nthey purr\n"""'
    assert inputs.tokenizer.eos_token_id not in tokens
    assert inputs.text_tokens(Texts()) == inputs.text_tokens(Texts("", " ", None)) == []


def test_a_long_text_loses_its_subtitles_first_and_its_title_last(inputs):
    whole = inputs
    texts = Texts("Red boats", "We sail. It rains.", "One. Two. Three. Four.")
    kept = []
    for limit in (200, 60, 40, 20):
        inputs = StudentInputs(whole.tokenizer, Reading(text_tokens=limit))
        tokens = inputs.text_tokens(texts)
        assert len(tokens) <= limit
        text = inputs.tokenizer.decode(tokens)
        kept.append([part for part in ("Red boats", "We sail.", "It rains.", "One.", "Two.", "Four.") if part in text])
    assert kept[0] == ["Red boats", "We sail.", "It rains.", "One.", "Two.", "Four."]
    assert kept == [sorted(part, key=kept[0].index) for part in kept]
    assert [len(part) for part in kept] == sorted([len(part) for part in kept], reverse=True)
    assert kept[-1] == ["Red boats"]


def test_metadata_and_subtitles_are_dropped_independently_by_half():
    rng, texts = random.Random(7), Texts("t", "d", "s")
    drawn = [drop_text(texts, rng) for _ in range(4000)]
    shares = {
        kept: sum((bool(one.title), bool(one.subtitles)) == kept for one in drawn) / 4000
        for kept in [(True, True), (True, False), (False, True), (False, False)]
    }
    assert all(abs(share - 0.25) < 0.03 for share in shares.values()), shares
    assert {one.title is None for one in drawn if one.description is None} == {True}
    assert drop_text(texts, random.Random(0), keep=1.0) == texts


def test_what_is_drawn_for_a_clip_does_not_hang_on_the_texts_of_others():
    with_text, without = random.Random(3), random.Random(3)
    for _ in range(5):
        drop_text(Texts("t", "d", "s"), with_text)
        drop_text(Texts(), without)
    assert with_text.random() == without.random()


def test_frames_are_squeezed_whole_and_repeated_where_they_are_few(inputs):
    wide = np.zeros((10, 200, 3), np.uint8)
    wide[:, :50], wide[:, 150:] = COLOURS["red"], COLOURS["blue"]
    pixels = inputs.pixels([wide, wide[:, ::-1]])
    assert pixels.shape == (4, 3, 28, 28)
    assert torch.equal(pixels[0], pixels[1]) and torch.equal(pixels[2], pixels[3])
    shares = pixels[0] * torch.tensor(inputs.reading.deviation).view(3, 1, 1)
    shares += torch.tensor(inputs.reading.mean).view(3, 1, 1)
    # Both sides of the picture are there.
    assert (shares[:, 14, 1] * 255).round().int().tolist() == list(COLOURS["red"])
    assert (shares[:, 14, -2] * 255).round().int().tolist() == list(COLOURS["blue"])


@pytest.mark.parametrize(
    "changes",
    [{}, {"do_normalize": False}, {"rescale_factor": 2 / 255}, {"do_rescale": False, "image_mean": [9.0] * 3}],
)
def test_pixels_are_scaled_as_the_encoders_own_preparation_does(changes):
    from transformers import ViTImageProcessor

    look = ViTImageProcessor(size={"height": 28, "width": 28}, **changes)
    mean, deviation = normalisation_of(look)
    inputs = StudentInputs(student_tokenizer(), Reading(frames=1, side=28, mean=mean, deviation=deviation))
    frame = np.random.default_rng(0).integers(0, 255, (28, 28, 3), np.uint8)
    theirs = look(frame, return_tensors="pt")["pixel_values"]
    assert torch.allclose(inputs.pixels([frame]), theirs.float(), rtol=1e-4, atol=1e-4)


def test_tokenizers_that_leave_their_special_tokens_to_their_class_keep_them(tmp_path):
    from tokenizers import pre_tokenizers
    from transformers import GPT2Config, GPT2TokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate([*letters, "<|endoftext|>"])}
    GPT2TokenizerFast(vocab=vocabulary, merges=[]).save_pretrained(tmp_path)
    GPT2Config().save_pretrained(tmp_path)
    # All that the hub's GPT-2 says.
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 1024}')
    inputs = StudentInputs(load_speaking(Settings(str(tmp_path))), Reading())
    assert inputs.caption_tokens("a") == [vocabulary["a"], vocabulary["<|endoftext|>"]]
    inputs.save(tmp_path / "student")
    GPT2Config().save_pretrained(tmp_path / "student")
    again = StudentInputs.load(tmp_path / "student")
    assert again.caption_tokens("a cat") == inputs.caption_tokens("a cat")


def test_nothing_in_a_caption_ends_it_early(inputs):
    tokens = inputs.caption_tokens("red </s> wall")
    assert [place for place, token in enumerate(tokens) if token == inputs.tokenizer.eos_token_id] == [len(tokens) - 1]


def test_labels_end_with_the_token_that_ends_a_caption_and_are_padded_with_minus_a_hundred(inputs):
    batch = inputs.batch([Sample(caption="red"), Sample(caption="the red wall dims")])
    end = inputs.tokenizer.eos_token_id
    assert "pixel_values" not in batch
    assert [row[row != -100].tolist()[-1] for row in batch["labels"]] == [end, end]
    assert (batch["labels"][0] == -100).sum() == (batch["labels"][1] != -100).sum() - (batch["labels"][0] != -100).sum()
    assert inputs.words(batch["labels"].clamp(min=0)) == ["red", "the red wall dims"]
    with pytest.raises(ValueError, match="2 of 2 samples has not a caption; all need it, or none"):
        inputs.batch([Sample(caption="red"), Sample()])


def test_inputs_of_a_directory_without_a_student_or_of_another_release_are_refused(inputs, tmp_path):
    with pytest.raises(WeightsError, match=r"student_inputs\.json can't be read"):
        StudentInputs.load(tmp_path)
    inputs.save(tmp_path)
    file = tmp_path / "student_inputs.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prompt_id": "student-text-0"}))
    with pytest.raises(WeightsError, match="reads texts as student-text-0, this release writes student-text-1"):
        StudentInputs.load(tmp_path)
