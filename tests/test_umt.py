"""Unmasked Teacher against its authors' own code, its checkpoints, and what it is shown.

`umt_golden.json` holds what the authors' code (github.com/OpenGVLab/unmasked_teacher, commit 4fb4049, MIT) gave on the
weights and inputs that `umt_weights_maker` makes. It was run once, unchanged, with torch 2.13 and transformers 4.28.1
in float32 on a CPU. Their `UMT` loaded the weights strictly, so their names and shapes are the layout's, and every pair
was scored with `encode_vision`, `encode_text`, `get_sim` and the softmax of `itm_head`. The films went through their
frame sampling, their transform (Resize without antialiasing, as in their torchvision 0.13), `pre_text` and their
tokenizer first.
"""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import torch
from umt_weights_maker import (
    CAPTIONS,
    TINY,
    VOCABULARY,
    all_pairs,
    pictures,
    pixels,
    retrieval_tensors,
    token_batch,
    uniform,
    write_tokenizer,
)

from model_handlers.umt_inputs import CaptionReader, clean, middles, normalise, squeeze
from model_handlers.umt_network import UmtNetwork, sinusoids, stretch
from model_handlers.umt_scoring import Umt, UmtScore
from model_handlers.umt_weights import canonical
from model_handlers.weights import WeightsError

GOLDEN = json.loads((pathlib.Path(__file__).parent / "umt_golden.json").read_text("utf-8"))


def network(**changes):
    sizes = dataclasses.replace(TINY, **changes)
    return UmtNetwork(sizes, canonical(retrieval_tensors(sizes)))


@pytest.fixture(scope="module")
def umt(tmp_path_factory):
    return Umt(network(), CaptionReader.open(write_tokenizer(tmp_path_factory.mktemp("tokenizer")), TINY.vocabulary))


@pytest.mark.parametrize("golden", GOLDEN["network"], ids=lambda golden: golden["case"])
def test_both_scores_are_those_of_the_authors_code(golden):
    vtc, vtm = all_pairs(network(tubelet=golden["tubelet"], trained_frames=golden["trained_frames"]), golden["frames"])
    np.testing.assert_allclose(vtc, golden["vtc"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(vtm, golden["vtm"], rtol=0, atol=1e-5)


def test_films_and_captions_end_in_the_scores_of_the_authors_code(umt):
    films = GOLDEN["films"]
    scores = umt.score_batch([(pictures(film, count), CAPTIONS) for film, count in films["frames"].items()])
    np.testing.assert_allclose([[s.vtc for s in clip] for clip in scores], films["vtc"], rtol=0, atol=1e-5)
    np.testing.assert_allclose([[s.vtm for s in clip] for clip in scores], films["vtm"], rtol=0, atol=1e-5)


def test_matching_score_is_the_probability_of_a_match(umt):
    assert umt.score(pictures("film a", 12), CAPTIONS) == pytest.approx(GOLDEN["films"]["vtm"][0], abs=1e-5)
    assert UmtScore(vtc=0.9, vtm=0.25).matching_score == 0.25


def test_clips_with_different_numbers_of_captions_score_as_they_do_alone(umt):
    clips = [
        (pictures("film a", 12), CAPTIONS[:3]),
        (pictures("film b", 30), []),
        (pictures("film c", 5), CAPTIONS[2:]),
        (pictures("film b", 30), CAPTIONS[:1]),
    ]
    together = umt.score_batch(clips)
    assert [len(scores) for scores in together] == [3, 0, 3, 1]
    for clip, scores in zip(clips, together, strict=True):
        assert umt.score(*clip) == pytest.approx([score.vtm for score in scores], abs=1e-5)


def test_captions_that_the_network_reads_alike_get_the_very_same_scores(umt):
    first, other, again = umt.score_batch([(pictures("film a", 12), ["A dog!", "A cat.", "a  dog"])])[0]
    assert first == again
    assert abs(first.vtm - other.vtm) > 1e-3


def test_no_clips_and_no_captions_score_nothing(umt):
    assert umt.score_batch([]) == []
    assert umt.score(pictures("film a", 2), []) == []


def test_clip_without_frames_is_an_error(umt):
    with pytest.raises(ValueError, match="a clip without frames can't be scored"):
        umt.score([], ["a dog"])


def test_score_that_is_no_number_is_an_error(umt):
    broken = Umt(UmtNetwork(TINY, umt.network.tensors | {"itm_head.bias": torch.tensor([0.0, torch.nan])}), umt.reader)
    with pytest.raises(ArithmeticError, match="no usable score; compute in bfloat16 or float32"):
        broken.score(pictures("film a", 2), ["a dog"])


def test_gradients_reach_every_tensor_that_scores():
    model = network()
    for kept in model.tensors.values():
        kept.requires_grad_(True)
    ids, mask = token_batch()
    tokens, pooled = model.encode_video(pixels("clip a", 4)[None])
    states = model.encode_text(ids, mask)
    (model.match(tokens, states, mask, [4]).sum() + model.vtc(pooled, states).sum()).backward()
    assert [name for name, kept in model.tensors.items() if kept.grad is None] == ["temp"]


def test_what_stands_in_the_padding_changes_nothing():
    ids, mask = token_batch()
    model = network()
    with torch.inference_mode():
        states, other = (model.encode_text(filled, mask) for filled in (ids, torch.where(mask, ids, 9)))
    torch.testing.assert_close(states[mask], other[mask], rtol=0, atol=1e-6)


def test_positions_are_sines_and_cosines_and_stretch_linearly():
    np.testing.assert_allclose(sinusoids(2, 4), [[0, 1, 0, 1], [np.sin(1), np.cos(1), np.sin(0.01), np.cos(0.01)]])
    table = torch.tensor([[0.0, 10.0], [4.0, 30.0]])
    assert stretch(table, 4).tolist() == [[0.0, 10.0], [1.0, 15.0], [3.0, 25.0], [4.0, 30.0]]


@pytest.mark.parametrize(("caption", "cleaned"), GOLDEN["clean"].items())
def test_captions_are_cleaned_as_the_authors_do(caption, cleaned):
    assert clean(caption) == cleaned


def test_captions_become_the_authors_tokens_without_a_closing_one(umt):
    ids, mask = umt.reader.read([clean(caption) for caption in CAPTIONS])
    assert ids.shape == mask.shape == (len(CAPTIONS), 32)
    assert [row[kept].tolist() for row, kept in zip(ids, mask, strict=True)] == GOLDEN["ids"]
    assert ids[~mask].unique().tolist() == [0]


def test_long_captions_are_cut_at_32_tokens(umt):
    ids, mask = umt.reader.read([" ".join(["dog"] * 40)])
    assert ids.tolist() == [[VOCABULARY.index("[CLS]"), *[VOCABULARY.index("dog")] * 31]]
    assert mask.all()


def test_tokens_are_counted_uncut_as_the_network_would_see_them(umt):
    assert [umt.reader.count(caption) for caption in CAPTIONS] == [len(row) for row in GOLDEN["ids"]]
    assert umt.reader.count(" ".join(["dog"] * 40)) == 41


def test_tokenizer_that_is_missing_or_of_another_model_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"there is no directory .*; name a directory that holds BERT's"):
        CaptionReader.open(str(tmp_path / "nowhere"), TINY.vocabulary)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "tokenizer.json").write_text("{")
    with pytest.raises(WeightsError, match=r"the tokenizer in .*broken can't be read; name a directory"):
        CaptionReader.open(str(tmp_path / "broken"), TINY.vocabulary)
    with pytest.raises(WeightsError, match="knows 46 tokens, the text encoder 30522; name a directory that"):
        CaptionReader.open(write_tokenizer(tmp_path), 30522)


@pytest.mark.parametrize(("count", "wanted", "rows"), GOLDEN["middles"])
def test_frames_are_the_middles_that_the_authors_take(count, wanted, rows):
    assert middles(count, wanted) == rows


@pytest.mark.parametrize(("height", "width"), [(45, 80), (360, 640), (20, 17), (32, 32)])
def test_frames_are_squeezed_and_normalised_as_torchvision_does(height, width):
    from torchvision.transforms import InterpolationMode, Normalize
    from torchvision.transforms.functional import resize

    frames = pictures("film", 2, height, width)
    theirs = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
    theirs = resize(theirs, [32, 32], interpolation=InterpolationMode.BICUBIC, antialias=False).float().div(255)
    theirs = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))(theirs)
    torch.testing.assert_close(normalise(squeeze(frames, 32)), theirs, rtol=0, atol=1e-6)


def test_made_weights_are_the_same_on_every_machine():
    np.testing.assert_allclose(uniform("temp", (3,)), [-1.357046, -0.818866, -1.213860], rtol=0, atol=1e-6)
