"""CLIP, SigLIP and X-CLIP learn what people choose, and what they wrote is what their selectors load."""

import dataclasses
import random

import pytest
import tiny_dual
import torch
from colour_clips import agreement, all_bad, batch_of, bytes_kept, colour_examples, train

from beam_pipeline.training.trainable import Recipe
from beam_pipeline.training.two_tower import TwoTowerTrainable
from model_handlers.dual_selectors import DualEncoderSelector
from model_handlers.settings import Settings
from model_handlers.video_selectors import VideoTextSelector
from transforms.records import Candidate, CaptionedClip

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ["clip", "siglip", "siglip2_naflex", "xclip"]
FRAMES = 4
LONG = "A cat sits on the sofa and looks at the camera. " * 9


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a tiny checkpoint, made when it is first asked for."""
    root = tmp_path_factory.mktemp("tiny")

    def folder(name):
        if not (root / name).exists():
            getattr(tiny_dual, f"make_{name}")(root / name)
        return root / name

    return folder


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return colour_examples(tmp_path_factory.mktemp("clips"), 36)


def selector(name, folder):
    kind = DualEncoderSelector if name == "clip" or "siglip" in name else VideoTextSelector
    return kind(name, Settings(weights=str(folder), frames=FRAMES, dtype="float32"))


def handlers_scores(name, folder, example):
    candidates = tuple(
        Candidate(f"t{number}", "m", "r", "p", text, "f") for number, text in enumerate(example.captions)
    )
    handler = selector(name, folder)
    (outcome,) = handler.run_inference([CaptionedClip(example.clip, candidates, (), ())], handler.load_model())
    assert outcome.failure is None
    return list(outcome.answer)


def gradients(trainable, batch):
    trainable.module.train()
    trainable.module.zero_grad()
    loss = trainable.losses(batch)["loss"]
    loss.backward()
    return loss.item(), {name: tensor.grad.clone() for name, tensor in trainable.module.named_parameters()}


def test_it_is_trained_as_clip_is_fine_tuned():
    assert TwoTowerTrainable.recipe == Recipe(3.0, 0.3, 32, 1e-5, 0.1, (0.9, 0.98))


@pytest.mark.parametrize("name", NAMES)
def test_a_written_version_scores_as_its_selector_does(name, tiny, examples, tmp_path):
    base = tiny(name)
    asked = [
        dataclasses.replace(examples[0], captions=("a red car", LONG, "It RAINS.", " "), chosen=1),
        dataclasses.replace(examples[1], captions=("a man",), chosen=None),
    ]
    untrained = [score for example in asked for score in handlers_scores(name, base, example)]
    trainable = TwoTowerTrainable(selector(name, base))
    assert trainable.scores(batch_of(trainable, asked)).tolist() == pytest.approx(untrained, abs=1e-4)
    train(trainable, examples[:12], 2, 1e-3, random.Random(0), batch=6)
    trainable.write(str(tmp_path))
    wanted = [score for example in asked for score in handlers_scores(name, tmp_path, example)]
    for version in (trainable, TwoTowerTrainable(selector(name, tmp_path))):
        scores = version.scores(batch_of(version, asked))
        assert scores.dtype == torch.float32
        assert scores.tolist() == pytest.approx(wanted, abs=1e-4)
    assert max(abs(one - other) for one, other in zip(wanted, untrained, strict=True)) > 1e-3
    # The base, which handlers in this process share, has stayed what it was.
    assert [score for example in asked for score in handlers_scores(name, base, example)] == untrained


@pytest.mark.parametrize("name", NAMES)
def test_training_raises_held_out_agreement_from_chance_to_one(name, tiny, examples):
    torch.manual_seed(0)
    trainable = TwoTowerTrainable(selector(name, tiny(name)))
    known, held_out = examples[:24], examples[24:]
    before = agreement(trainable, held_out)
    losses = train(trainable, known, 10, 2e-3, random.Random(0), batch=9)
    assert before <= 2 / 3
    assert agreement(trainable, held_out) == 1.0
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter(name, tiny, examples):
    trainable = TwoTowerTrainable(selector(name, tiny(name)))
    _, found = gradients(trainable, batch_of(trainable, examples[:3]))
    # In a softmax over captions a bias of all of them cancels, and in attention one of all keys.
    cancelling = ("k_proj.bias", "logit_bias")
    still = {name for name, gradient in found.items() if not gradient.any() and not name.endswith(cancelling)}
    assert still == set()
    decayed = {name for name, tensor in trainable.module.named_parameters() if trainable.decayed(name, tensor)}
    assert decayed == {name for name, gradient in found.items() if gradient.ndim > 1}
    assert "logit_scale" not in decayed


@pytest.mark.parametrize("name", NAMES)
def test_computing_activations_twice_gives_the_same_gradients(name, tiny, examples):
    found, kept = [], []
    for twice in (False, True):
        trainable = TwoTowerTrainable(selector(name, tiny(name)))
        if twice:
            trainable.use_checkpointing()
        kept.append(bytes_kept(trainable, batch_of(trainable, examples[:3])))
        found.append(gradients(trainable, batch_of(trainable, examples[:3])))
    (loss, once), (again, twice_) = found
    assert kept[1] < 0.7 * kept[0]
    assert loss == pytest.approx(again, abs=1e-6)
    for parameter, gradient in once.items():
        torch.testing.assert_close(twice_[parameter], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_sixteen_bits_learn_the_same(name, tiny, examples):
    trainable = TwoTowerTrainable(selector(name, tiny(name)))
    batch = batch_of(trainable, examples[:3])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = trainable.losses(batch)["loss"]
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(trainable.losses(batch)["loss"].item(), abs=0.1)
    half.backward()
    assert all(tensor.grad.isfinite().all() for tensor in trainable.module.parameters())


def test_a_seed_decides_what_is_drawn(tiny, examples):
    def step(seed):
        trainable = TwoTowerTrainable(selector("clip", tiny("clip")))
        return train(trainable, examples[:12], 2, 1e-3, random.Random(seed), batch=6)

    assert step(1) == step(1)
    assert step(1) != step(2)


def test_clips_whose_captions_are_all_bad_teach_a_contrast_nothing_alone(tiny, examples):
    trainable = TwoTowerTrainable(selector("clip", tiny("clip")))
    loss, found = gradients(trainable, batch_of(trainable, [all_bad(example) for example in examples[:3]]))
    assert loss == 0.0
    assert all(not gradient.any() for gradient in found.values())


def test_clips_scale_stays_below_a_hundred_and_siglips_is_its_own(tiny, examples):
    for name, most in (("clip", 100.0), ("siglip", 120.0)):
        trainable = TwoTowerTrainable(selector(name, tiny(name)))
        with torch.no_grad():
            trainable.module.logit_scale.fill_(torch.tensor(120.0).log())
        gradients(trainable, batch_of(trainable, examples[:2]))
        assert trainable.module.logit_scale.exp().item() == pytest.approx(most, rel=1e-5)


def test_frames_of_reels_that_are_short_and_captions_that_are_long_are_no_matter(tiny, examples):
    short = dataclasses.replace(examples[0].clip, span=dataclasses.replace(examples[0].clip.span, end_s=1.0))
    told = dataclasses.replace(examples[0], clip=short, captions=(LONG, "a blue car"), chosen=0)
    for name, seen in (("clip", [2, 4]), ("xclip", [1, 1])):
        trainable = TwoTowerTrainable(selector(name, tiny(name)))
        batch = batch_of(trainable, [told, examples[1]], random.Random(0))
        assert batch["frames"].tolist() == seen
        assert len(batch["input_ids"]) == len(batch["owners"]) == 5
        assert trainable.scores(batch).shape == (5,)


def test_a_model_that_nobody_saw_to_is_refused_by_name(tiny):
    with pytest.raises(ValueError, match=r"videoprism can't be trained; of the selectors with weights CLIP, SigLIP, "):
        TwoTowerTrainable(selector("videoprism", tiny("videoprism")))
