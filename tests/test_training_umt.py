"""Unmasked Teacher learns what people choose, and what it wrote is what its selector loads; see `test_umt.py`."""

import dataclasses
import json
import os
import random

import pytest
import torch
from colour_clips import agreement, all_bad, batch_of, bytes_kept, colour_examples, train
from safetensors.torch import load_file
from umt_weights_maker import TINY, retrieval_tensors, write_checkpoint, write_tokenizer

from beam_pipeline.training.captions import join_captions
from beam_pipeline.training.losses import vtc, vtm
from beam_pipeline.training.trainable import Recipe
from beam_pipeline.training.umt import UmtTrainable, drawn_mismatches
from beam_pipeline.training.umt_module import as_module
from model_handlers.umt_inputs import normalise
from model_handlers.umt_network import UmtNetwork
from model_handlers.umt_selector import UmtSelector, UmtSettings
from model_handlers.umt_weights import canonical, layout, write_folder
from transforms.records import Candidate, CaptionedClip

pytestmark = pytest.mark.usefixtures("one_thread")

LONG = "A dog is running on the grass. " * 8 + "The red car is in the water."


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """An untrained version as a directory, at which numbers stay tame."""
    folder = tmp_path_factory.mktemp("base")
    write_tokenizer(folder)
    write_folder(str(folder), TINY, canonical(retrieval_tensors(gain=1.0)))
    return str(folder)


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return colour_examples(tmp_path_factory.mktemp("clips"), 36)


def selector(folder, **changes):
    return UmtSelector("umt-l16", UmtSettings(weights=str(folder), frames=4, **changes))


def still(folder):
    """One that leaves nothing out in training."""
    return UmtTrainable(selector(folder), dropout=0.0, drop_path=0.0)


def gradients(trainable, batch):
    trainable.module.train()
    trainable.module.zero_grad()
    found = trainable.losses(batch)
    found["loss"].backward()
    return found, {name: tensor.grad.clone() for name, tensor in trainable.module.named_parameters()}


def handlers_scores(folder, example):
    candidates = tuple(
        Candidate(f"t{number}", "m", "r", "p", text, "f") for number, text in enumerate(example.captions)
    )
    handler = selector(folder)
    (outcome,) = handler.run_inference([CaptionedClip(example.clip, candidates, (), ())], handler.load_model())
    assert outcome.failure is None
    return list(outcome.answer)


def test_it_is_trained_as_the_paper_says():
    assert UmtTrainable.recipe == Recipe(10.0, 1.0, 32, 2e-5, 0.02, (0.9, 0.999))


def test_a_written_version_scores_as_its_selector_does(base, examples, tmp_path):
    trainable = UmtTrainable(selector(base))
    train(trainable, examples[:12], 2, 1e-3, random.Random(0), batch=6)
    trainable.write(str(tmp_path))
    asked = [
        dataclasses.replace(examples[0], captions=("a red car", LONG, "A red car!", "...", "a blue boat"), chosen=1),
        dataclasses.replace(examples[1], captions=("the green grass",), chosen=None),
    ]
    again = UmtTrainable(selector(tmp_path))
    for version in (trainable, again):
        scores = version.scores(batch_of(version, asked))
        assert scores.dtype == torch.float32
        wanted = [score for example in asked for score in handlers_scores(tmp_path, example)]
        assert scores.tolist() == pytest.approx(wanted, abs=1e-4)
    before = UmtTrainable(selector(base))
    assert (before.scores(batch_of(before, asked)) - scores).abs().max() > 1e-3
    assert trainable.module.training is False


def test_a_version_holds_the_published_names_and_what_the_tokenizer_needs(base, tmp_path):
    UmtTrainable(selector(base)).write(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ["config.json", "umt.safetensors", "vocab.txt"]
    written = load_file(tmp_path / "umt.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in written.items()} == layout(TINY)
    assert {tensor.dtype for tensor in written.values()} == {torch.float32}
    untrained = canonical(retrieval_tensors(gain=1.0))
    assert all(torch.equal(written[name], tensor) for name, tensor in untrained.items())
    assert json.loads((tmp_path / "config.json").read_text("utf-8")) == {
        "model_type": "unmasked-teacher",
        **dataclasses.asdict(TINY),
    }


def test_training_starts_from_the_authors_file_as_well(tmp_path, examples):
    sizes = dataclasses.replace(TINY, side=224, patch=56, head_width=64, video_width=64, text_width=64)
    tensors = retrieval_tensors(sizes, gain=1.0)
    sha256 = write_checkpoint(tmp_path / "l16.pth", tensors)
    tokenizer = write_tokenizer(tmp_path / "bert")
    trainable = UmtTrainable(selector(tmp_path / "l16.pth", sha256=sha256, tokenizer=tokenizer))
    (tmp_path / "v1").mkdir()
    trainable.write(str(tmp_path / "v1"))
    scores = trainable.scores(batch_of(trainable, examples[:1])).tolist()
    assert handlers_scores(tmp_path / "v1", examples[0]) == pytest.approx(scores, abs=1e-5)


def test_training_raises_held_out_agreement_from_chance_to_one(base, examples):
    torch.manual_seed(0)
    trainable = still(base)
    known, held_out = examples[:24], examples[24:]
    before = agreement(trainable, held_out)
    losses = train(trainable, known, 22, 2e-3, random.Random(0), batch=9)
    assert before <= 0.5
    assert agreement(trainable, held_out) == 1.0
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_gradients_reach_every_parameter_and_decay_acts_on_matrices_alone(base, examples):
    trainable = UmtTrainable(selector(base))
    _, found = gradients(trainable, batch_of(trainable, examples[:3]))
    assert [name for name, gradient in found.items() if not gradient.any()] == []
    assert {name for name, tensor in trainable.module.named_parameters() if trainable.decayed(name, tensor)} == {
        name for name, shape in layout(TINY).items() if len(shape) > 1
    }


def test_computing_activations_twice_gives_the_same_gradients_dropout_and_all(base, examples):
    found, kept = [], []
    for twice in (False, True):
        trainable = UmtTrainable(selector(base))
        if twice:
            trainable.use_checkpointing()
        batch = batch_of(trainable, examples[:3])
        kept.append(bytes_kept(trainable, batch))
        torch.manual_seed(3)
        found.append(gradients(trainable, batch))
    (once, gradients_once), (again, gradients_twice) = found
    assert kept[1] < 0.5 * kept[0]
    assert once["loss"].item() == again["loss"].item()
    for name, gradient in gradients_once.items():
        torch.testing.assert_close(gradients_twice[name], gradient, rtol=1e-5, atol=1e-7)


def test_a_seed_decides_what_is_drawn_and_left_out(base, examples):
    def step(seed):
        trainable = UmtTrainable(selector(base))
        torch.manual_seed(seed)
        rng = random.Random(seed)
        return train(trainable, examples[:12], 2, 1e-3, rng, batch=6)

    assert step(1) == step(1)
    assert step(1) != step(2)


def test_the_loss_of_held_out_clips_is_no_lottery(base, examples):
    trainable = UmtTrainable(selector(base))
    trainable.module.eval()
    with torch.no_grad():
        first, again = (trainable.losses(batch_of(trainable, examples[:6])) for _ in range(2))
    assert {name: float(loss) for name, loss in first.items()} == {name: float(loss) for name, loss in again.items()}
    assert float(first["loss"]) == pytest.approx(float(first["vtc"]) + float(first["vtm"]))


def test_clips_whose_captions_are_all_bad_teach_the_matching_alone(base, examples):
    trainable = still(base)
    losses, found = gradients(trainable, batch_of(trainable, [all_bad(example) for example in examples[:3]]))
    assert losses["vtc"].item() == 0.0
    assert {name for name, gradient in found.items() if not gradient.any()} == {
        *("temp", "vision_proj.weight", "vision_proj.bias", "text_proj.weight", "text_proj.bias"),
        # Nobody looks at what only the contrast pools.
        *("vision_encoder.pool_norm.weight", "vision_encoder.pool_norm.bias"),
    }
    batch = batch_of(trainable, [all_bad(example) for example in examples[:3]])
    before = trainable.scores(batch)
    optimizer = torch.optim.SGD(trainable.module.parameters(), lr=0.05)
    optimizer.step()
    assert (trainable.scores(batch) < before).all()


def test_the_temperature_is_learned_within_bounds(base, examples):
    trainable = still(base)
    with torch.no_grad():
        trainable.network.tensors["temp"].fill_(9.0)
    _, found = gradients(trainable, batch_of(trainable, examples[:3]))
    assert float(trainable.network.temperature) == 0.5
    assert float(found["temp"]) != 0.0


def test_sixteen_bits_learn_the_same(base, examples):
    trainable = still(base)
    batch = batch_of(trainable, examples[:3])
    trainable.module.eval()
    whole = trainable.losses(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = trainable.losses(batch)
        scores = trainable.scores(batch)
    assert half["loss"].dtype == torch.float32
    assert {name: loss.item() for name, loss in half.items()} == pytest.approx(
        {name: loss.item() for name, loss in whole.items()}, abs=0.05
    )
    assert scores.tolist() == pytest.approx(trainable.scores(batch).tolist(), abs=0.02)
    half["loss"].backward()
    assert all(tensor.grad.isfinite().all() for tensor in trainable.module.parameters())


def test_both_losses_are_those_of_every_pair_by_itself(base, examples):
    """Also of a caption in three pieces, and of pairs that the contrast drew from other clips."""
    trainable, asked = still(base), [examples[0], all_bad(examples[1]), examples[2]]
    asked[0] = dataclasses.replace(asked[0], captions=(*asked[0].captions[:2], LONG))
    batch = batch_of(trainable, asked)
    trainable.module.eval()
    network, count = trainable.network, len(batch["owners"])
    with torch.no_grad():
        found = trainable.losses(batch)
        tokens, pooled = network.encode_video(normalise(batch["pixels"]))
        states = network.encode_text(batch["input_ids"], batch["attention_mask"])

        def mean(values, caption):
            own = [place for place, owner in enumerate(batch["pieces_of"].tolist()) if owner == caption]
            weights = [batch["lengths"][place].item() for place in own]
            return sum(values[place] * weight for place, weight in zip(own, weights, strict=True)) / sum(weights)

        cosines = network.vtc(pooled, states).tolist()
        table = torch.tensor([[mean(row, caption) for caption in range(count)] for row in cosines]) / 0.07
        strange = drawn_mismatches(table, batch, at_random=False)
        pairs = list(zip(batch["owners"].tolist(), range(count), strict=True))
        pairs += zip(*(part.tolist() for part in strange), strict=True)
        logits = []
        for clip, caption in pairs:
            each = [
                network.match_logits(
                    tokens[clip : clip + 1], states[p : p + 1], batch["attention_mask"][p : p + 1], [1]
                )
                for p in range(len(states))
            ]
            logits.append(mean([one.item() for one in each], caption))
    assert len(pairs) == 9 + 4
    assert found["vtc"].item() == pytest.approx(vtc(table, batch["owners"], batch["chosen"]).item(), abs=1e-4)
    targets = torch.tensor([*batch["good"].tolist(), *[False] * 4])
    assert targets.sum() == 2
    assert found["vtm"].item() == pytest.approx(vtm(torch.tensor(logits), targets).item(), abs=1e-4)


def told(chosen, words, source, good=None):
    """What `read_captions` says of an example with these words."""
    count = len(words)
    rows = {name: torch.zeros(count, 1, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
    right = {words[number] for number in (good or ([] if chosen is None else [chosen]))}
    labels = {"words": words, "good": [word in right for word in words], "chosen": chosen, "source": source}
    return {**rows, "pieces": [1] * count, "lengths": [1] * count, **labels}


@pytest.mark.parametrize(
    ("clips", "pairs"),
    [
        # Three sources: the most similar strange caption, then the most similar strange clip.
        (
            [told(0, ["a", "b"], "x"), told(0, ["c", "d"], "y"), told(None, ["e"], "z")],
            [(0, 3), (1, 4), (1, 0), (2, 2)],
        ),
        # Two clips of one source don't serve for each other.
        (
            [told(0, ["a", "b"], "x"), told(0, ["c", "d"], "x"), told(None, ["e"], "z")],
            [(0, 4), (1, 4), (2, 0), (2, 2)],
        ),
        # Neither do captions in the words that are right: of clip 0 that rules out both of clip 1.
        (
            [told(0, ["a", "b"], "x", good=[0, 1]), told(0, ["a", "b"], "y"), told(None, ["e"], "z")],
            [(0, 4), (1, 4), (2, 0), (2, 2)],
        ),
        ([told(0, ["a", "b"], "x")], []),
        ([told(None, ["a", "b"], "x"), told(None, ["c"], "y")], []),
    ],
    ids=["three sources", "one source", "same words", "one clip", "all bad"],
)
def test_mismatches_are_the_most_similar_pairs_that_are_surely_wrong(clips, pairs):
    table = torch.tensor([[9.0, 1.0, 2.0, 3.0, 0.0], [4.0, 3.0, 9.0, 1.0, 8.0], [1.0, 2.0, 9.0, 4.0, 3.0]])
    batch = join_captions(clips)
    count = len(batch["owners"])
    found = drawn_mismatches(table[: len(clips), :count], batch, at_random=False)
    assert list(zip(*(part.tolist() for part in found), strict=True)) == pairs


def test_mismatches_are_drawn_by_the_softmax_of_their_similarity():
    batch = join_captions([told(0, ["a"], "x"), told(None, ["b"], "y"), told(None, ["c"], "z")])
    table = torch.zeros(3, 3)
    table[0, 1] = 2.0
    torch.manual_seed(0)
    drawn = [drawn_mismatches(table, batch, at_random=True)[1][0].item() for _ in range(400)]
    assert set(drawn) == {1, 2}
    # e^2 / (e^2 + 1) is .88, and 400 draws are within .05 of it.
    assert drawn.count(1) / 400 == pytest.approx(0.88, abs=0.05)


def test_parameters_have_the_published_names_and_share_the_tensors():
    tensors = canonical(retrieval_tensors())
    module = as_module(tensors)
    assert dict(module.state_dict()).keys() == tensors.keys()
    assert all(parameter.data_ptr() == tensors[name].data_ptr() for name, parameter in module.named_parameters())


def test_frames_and_crop_are_drawn_in_training_and_fixed_in_scoring(base, examples):
    trainable = UmtTrainable(selector(base))
    plain = [trainable.prepare(examples[0])["pixels"] for _ in range(2)]
    drawn = [trainable.prepare(examples[0], random.Random(seed))["pixels"] for seed in (1, 1, 2)]
    assert torch.equal(*plain) and torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], plain[0])
    assert {tuple(pixels.shape) for pixels in (*plain, *drawn)} == {(4, 3, 32, 32)}


def test_a_long_caption_is_cut_in_training_and_in_pieces_in_scoring(base, examples):
    trainable = UmtTrainable(selector(base))
    long = dataclasses.replace(examples[0], captions=(LONG, "a dog"), chosen=0)
    assert trainable.prepare(long, random.Random(0))["pieces"] == [1, 1]
    assert trainable.prepare(long)["pieces"] == [3, 1]


def test_the_network_follows_a_module_that_moves(base):
    trainable = UmtTrainable(selector(base))
    trainable.module.to("meta")
    trainable.network.refresh()
    assert trainable.network.device.type == "meta"
    assert isinstance(trainable.network, UmtNetwork)
