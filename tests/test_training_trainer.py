"""Training by Transformers' Trainer: it learns, keeps the best epoch, survives broken reels and kill -9."""

import dataclasses
import math
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file
from tiny_trainable import ColourTrainable, coloured, parts_of

from beam_pipeline.training.checkpoints import Diverged
from beam_pipeline.training.scored import agreement
from beam_pipeline.training.trainable import Recipe
from beam_pipeline.training.trainer import (
    EpochOrder,
    NothingReadable,
    PreparedExamples,
    Training,
    TrainingError,
    TrainOptions,
)

ROOT = pathlib.Path(__file__).parents[1]


def options(**changes) -> TrainOptions:
    named = {field.name for field in dataclasses.fields(Recipe)}
    recipe = dataclasses.replace(ColourTrainable.recipe, **{name: changes.pop(name) for name in named & set(changes)})
    return TrainOptions(recipe, workers=0, **changes)


def test_training_learns_what_people_chose_and_keeps_the_best_epoch(tmp_path):
    lines = []
    examples = parts_of(coloured(tmp_path / "reels", 60))
    trainable = ColourTrainable()
    training = Training(trainable, examples, options(), str(tmp_path / "out"), lines.append)
    before = agreement(examples.validation, training.score(examples.validation).scores)
    training.run()
    after = training.score(examples.validation)
    assert before.value < 0.5 < 1.0 == agreement(examples.validation, after.scores).value
    watched = {one["epoch"]: one for one in training.history if "eval_rank" in one}
    assert list(watched) == [1, 2, 3, 4, 5, 6]
    best = max(watched.values(), key=lambda one: one["eval_rank"])
    assert (training.best_epoch, best["eval_loss"]) == (best["epoch"], pytest.approx(after.loss, abs=1e-6))
    assert [line.split(",")[0] for line in lines] == [f"epoch {number} of 6" for number in range(1, 7)]
    assert lines[0].endswith("the best so far")


def test_clips_that_cannot_be_read_are_replaced_counted_and_told_and_the_run_goes_on(tmp_path):
    examples = parts_of(coloured(tmp_path / "reels", 40, missing=[0, 2, 3]))
    training = Training(ColourTrainable(), examples, options(epochs=1), str(tmp_path / "out"))
    training.run()
    assert sorted(training.unread) == ["clip-000", "clip-002", "clip-003"]
    assert "no readable reel" in training.unread["clip-002"] or "No such file" in training.unread["clip-002"]


def test_training_where_nothing_can_be_read_says_so(tmp_path):
    examples = coloured(tmp_path, 3, missing=range(3))
    with pytest.raises(NothingReadable, match="no clip's reel can be read"):
        PreparedExamples(ColourTrainable(), examples, 0)[0]


def test_training_that_diverged_says_so_and_what_to_change(tmp_path):
    class Diverging(ColourTrainable):
        def losses(self, batch):
            return {"loss": super().losses(batch)["loss"] * float("nan")}

    examples = parts_of(coloured(tmp_path / "reels", 20))
    training = Training(Diverging(), examples, options(epochs=1), str(tmp_path / "out"))
    with pytest.raises(Diverged, match="no epoch has a validation loss that is a number: take a lower --learning-rate"):
        training.run()


def test_every_epoch_has_an_order_of_its_own_that_the_seed_decides():
    order = EpochOrder(50, seed=1)
    first = list(order)
    order.set_epoch(1)
    second = list(order)
    assert sorted(first) == list(range(50)) and sorted(second) == list(range(50, 100))
    assert [place - 50 for place in second] != first == list(EpochOrder(50, seed=1))
    assert list(EpochOrder(50, seed=2)) != first


@pytest.mark.parametrize(
    ("batch", "devices", "accumulate", "share"), [(32, 1, 1, 32), (32, 8, 1, 4), (32, 2, 4, 4), (256, 1, 8, 32)]
)
def test_batch_is_shared_by_devices_and_passes(batch, devices, accumulate, share):
    assert options(batch=batch, accumulate=accumulate).batch_of_device(devices) == share


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda: options(batch=32).batch_of_device(3),
            "a batch of 32 can't be shared evenly by 3 devices times 1 pass",
        ),
        (lambda: options(batch=2, accumulate=4).batch_of_device(1), "1 device times 4 passes; change --batch"),
    ],
)
def test_options_that_do_not_fit_are_refused_with_what_to_change(make, told):
    with pytest.raises(TrainingError, match=told):
        make()


def test_checkpointing_that_a_selector_does_not_know_is_refused(tmp_path):
    examples = parts_of(coloured(tmp_path / "reels", 10))
    with pytest.raises(TrainingError, match="--gradient-checkpointing: this selector is too small"):
        Training(ColourTrainable(), examples, options(checkpointing=True), str(tmp_path / "out"))


def test_patience_stops_a_training_that_gets_no_better_and_max_steps_stops_any(tmp_path):
    examples = parts_of(coloured(tmp_path / "reels", 40))
    still = Training(ColourTrainable(), examples, options(learning_rate=1e-12, patience=2), str(tmp_path / "still"))
    still.run()
    assert sum("eval_rank" in one for one in still.history) == 3
    short = Training(ColourTrainable(), examples, options(max_steps=4), str(tmp_path / "short"))
    short.run()
    assert math.isfinite(short.history[-1]["train_loss"])
    assert short.history[-1]["step"] == 4


def test_patience_of_a_resumed_training_goes_on_where_it_was_and_ends_where_it_ended(tmp_path):
    def stop_at_3(line):
        if line.startswith("epoch 3"):
            raise KeyboardInterrupt

    examples, folder = parts_of(coloured(tmp_path / "reels", 20)), str(tmp_path / "out")
    asked = options(learning_rate=1e-12, patience=2)
    with pytest.raises(KeyboardInterrupt):
        Training(ColourTrainable(), examples, asked, folder, stop_at_3).run()
    for _ in ("cut short", "ended"):
        resumed = Training(ColourTrainable(), examples, asked, folder)
        resumed.run(resume=True)
        assert (sum("eval_rank" in one for one in resumed.history), resumed.best_epoch) == (3, 1)


def test_training_that_was_moved_after_its_last_epoch_ends_with_the_best_ones_weights(tmp_path):
    examples, folder = parts_of(coloured(tmp_path / "reels", 20)), tmp_path / "out"
    first = Training(ColourTrainable(), examples, options(), str(folder))
    first.run()
    folder.rename(tmp_path / "moved")
    resumed = Training(ColourTrainable(), examples, options(), str(tmp_path / "moved"))
    resumed.run(resume=True)
    assert resumed.best_epoch == first.best_epoch
    assert resumed.score(examples.test) == first.score(examples.test)


TRAIN = """
import os, pathlib, sys, time
sys.path[:0] = sys.argv[1:3]
from tiny_trainable import ColourTrainable, coloured, parts_of
from test_training_trainer import options
from beam_pipeline.training.trainer import Training
reels, out, pause = pathlib.Path(sys.argv[3]), sys.argv[4], float(sys.argv[5])
trainable = ColourTrainable()
def tell(line):
    print(line, flush=True)
    time.sleep(pause)
training = Training(trainable, parts_of(coloured(reels, 60)), options(), out, tell)
training.run(resume=True)
trainable.write(out)
"""


def start(reels, out, pause):
    os.makedirs(out, exist_ok=True)
    command = [sys.executable, "-c", TRAIN, str(ROOT), str(ROOT / "tests"), str(reels), str(out), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_training_that_was_killed_and_resumed_ends_with_the_weights_of_one_that_was_not(tmp_path):
    reels = tmp_path / "reels"
    coloured(reels, 60)
    whole = start(reels, tmp_path / "whole", 0)
    assert whole.wait(timeout=400) == 0
    killed = start(reels, tmp_path / "killed", 0.5)
    while "epoch 4 of 6" not in killed.stdout.readline():
        assert killed.poll() is None
    time.sleep(0.25)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait(timeout=60) == -signal.SIGKILL
    assert not (tmp_path / "killed" / "colours.safetensors").exists()
    resumed = start(reels, tmp_path / "killed", 0)
    told = resumed.stdout.read()
    assert resumed.wait(timeout=400) == 0
    # It went on; it did not begin anew.
    assert "epoch 1 of 6" not in told and "epoch 6 of 6" in told
    one, other = (load_file(tmp_path / name / "colours.safetensors") for name in ("whole", "killed"))
    assert {name: tensor.tolist() for name, tensor in one.items()} == {
        name: tensor.tolist() for name, tensor in other.items()
    }
