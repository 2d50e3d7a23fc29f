"""The lite profile's trainable selector: untrained it is ConSE, and what training writes is what the handler loads."""

import json
import math

import numpy as np
import pytest
import torch
from lite_media import clip_of, photographs, write_reel

from beam_pipeline.choosing import choose
from beam_pipeline.training.opening import NotTrainable, open_trainable
from beam_pipeline.training.trainable import Example
from model_handlers import catalogue
from model_handlers.lite_projection import LiteProjectionSelector, Shape, build_network, mean_of_sentences
from model_handlers.settings import Settings
from transforms.records import Candidate, CaptionedClip

CAPTIONS = ("A cat looks up. It has whiskers and green eyes.", "A cup of coffee.", "It seems to be a rocket.")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reels")
    pictures = photographs()
    return [clip_of(write_reel(folder / f"{name}.arrow", [pictures[name]] * 2), 2, name) for name in ("cat", "coffee")]


def untrained():
    return open_trainable(choose("selector", "lite-projection", complete=False).entry)


def requests(clips):
    candidates = tuple(Candidate("t", "m", "r", "p", text, "f") for text in CAPTIONS)
    return [CaptionedClip(clip, candidates, (), ()) for clip in clips]


def scores_of(handler, clips):
    found = handler.run_inference(requests(clips), handler.load_model())
    return [score for one in found for score in one.answer]


def scores_in(trainable, clips):
    trainable.module.eval()
    batch = trainable.collate([trainable.prepare(Example(clip, CAPTIONS, 0)) for clip in clips])
    with torch.no_grad():
        return trainable.scores(batch).tolist()


def loss_without_dropout(trainable, batch):
    trainable.module.eval()
    with torch.no_grad():
        loss = float(trainable.losses(batch)["loss"])
    trainable.module.train()
    return loss


def test_untrained_it_gives_the_scores_of_conse(clips):
    conse = scores_of(catalogue.selector("conse").build(), clips)
    assert scores_in(untrained(), clips) == pytest.approx(conse, abs=1e-5)


def test_what_training_writes_is_what_the_handler_loads_and_scores_alike(clips, tmp_path):
    trainable = untrained()
    batch = trainable.collate([trainable.prepare(Example(clip, CAPTIONS, at)) for at, clip in enumerate(clips)])
    steps = torch.optim.AdamW(trainable.module.parameters(), lr=1e-2)
    before = loss_without_dropout(trainable, batch)
    for _ in range(5):
        trainable.losses(batch)["loss"].backward()
        steps.step()
        steps.zero_grad()
    assert loss_without_dropout(trainable, batch) < before
    trainable.write(str(tmp_path))
    handler = catalogue.selector("lite-projection").changed(weights=str(tmp_path)).build()
    trained = scores_in(trainable, clips)
    assert scores_of(handler, clips) == pytest.approx(trained, abs=1e-5)
    assert np.abs(np.subtract(trained, scores_in(untrained(), clips))).max() > 0.01
    # And training goes on from there.
    again = open_trainable(choose("selector", {"name": "lite-projection", "weights": str(tmp_path)}).entry)
    assert scores_in(again, clips) == pytest.approx(trained, abs=1e-6)


def test_batch_says_whose_each_caption_is_and_where_the_chosen_one_stands(clips):
    trainable = untrained()
    told = [Example(clips[0], CAPTIONS[:2], None), Example(clips[1], CAPTIONS, 1)]
    batch = trainable.collate([trainable.prepare(one) for one in told])
    assert batch["owners"].tolist() == [0, 0, 1, 1, 1]
    assert batch["chosen"].tolist() == [-1, 3]
    # The first caption has two sentences.
    assert batch["sentence_owners"].tolist() == [0, 0, 1, 2, 2, 3, 4]


def test_score_of_a_caption_is_the_mean_over_its_sentences():
    scores = torch.tensor([[0.2, 0.4, 0.9], [0.0, 1.0, 0.5]])
    mean = mean_of_sentences(scores, torch.tensor([0, 0, 1]), 2)
    assert mean.flatten().tolist() == pytest.approx([0.3, 0.9, 0.5, 0.5])


def test_new_weights_are_another_version_of_the_selector(tmp_path):
    for name, dropout in (("one", 0.1), ("other", 0.2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(Shape(8, dropout).as_json()))
    base = catalogue.selector("lite-projection")
    one, other = (base.changed(weights=str(tmp_path / name)) for name in ("one", "other"))
    assert one.identity != other.identity
    assert one.prompt_id == base.prompt_id


def test_weights_of_another_model_are_refused_in_a_line(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(RuntimeError, match="is no lite-projection; name a directory that `reelscribe train selector`"):
        LiteProjectionSelector("lite-projection", Settings(str(tmp_path))).load()
    with pytest.raises(ValueError, match="lite-projection needs weights"):
        choose("selector", "lite-projection")


@pytest.mark.parametrize(
    "told", ['{"hidden": 1e400, "dropout": 0.3, "model_type": "reelscribe-lite-projection"}', "[" * 99_999]
)
def test_configuration_that_nobody_can_mean_is_refused_in_a_line(tmp_path, told):
    (tmp_path / "config.json").write_text(told)
    with pytest.raises(RuntimeError, match="can't be loaded as lite-projection"):
        LiteProjectionSelector("lite-projection", Settings(str(tmp_path))).load()


def test_conse_has_nothing_to_train_and_says_what_has():
    with pytest.raises(NotTrainable, match="conse has nothing to train; take --selector lite-projection"):
        open_trainable(catalogue.selector("conse"))


def test_last_layers_begin_at_nought_and_the_first_does_not():
    network = build_network(Shape(hidden=4))
    noughts = {name: bool((tensor == 0).all()) for name, tensor in network.named_parameters()}
    assert noughts == {
        "picture.1.weight": False,
        "picture.1.bias": False,
        "picture.4.weight": True,
        "picture.4.bias": True,
        "text.weight": True,
    }


def test_contrast_becomes_no_sharper_than_its_bound_and_can_become_softer_again(clips):
    trainable = untrained()
    sharpness = dict(trainable.module.named_parameters())["sharpness"]
    with torch.no_grad():
        sharpness.fill_(9.0)
    batch = trainable.collate([trainable.prepare(Example(clip, CAPTIONS, 2)) for clip in clips])
    trainable.losses(batch)["loss"].backward()
    assert sharpness.item() == pytest.approx(math.log(100.0))
    # Both clips' chosen caption fits them worst.
    assert sharpness.grad.item() > 0


def test_scores_are_the_handlers_to_the_last_digit_that_counts_whatever_the_precision_of_training(clips):
    trainable = untrained()
    whole = scores_in(trainable, clips)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert scores_in(trainable, clips) == pytest.approx(whole, abs=1e-6)
