"""`reelscribe train student`: one line for each mistake, and from a dataset to a version that Transformers loads."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest
import yaml
from safetensors.torch import load_file
from taught_dataset import write_taught, write_tiny
from tiny_student import make_llm, make_tower

from beam_pipeline.cli import main
from beam_pipeline.split import part_of
from beam_pipeline.training.student_trainer import Steps, StudentOptions, StudentRecipe, steps_of

ROOT = pathlib.Path(__file__).parents[1]
FILES = [
    *("README.md", "config.json", "generation_config.json", "model.safetensors", "student.json", "student_inputs.json"),
    *("test_clips.txt", "tokenizer.json", "tokenizer_config.json", "train.jsonl"),
]
QUICK = ["--validation", "0.2", "--test", "0.2", "--batch", "8", "--workers", "0", "--precision", "fp32"]


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught")
    write_taught(folder / "set", 40, missing=[7])
    return str(folder / "set"), write_tiny(folder), folder


MISTAKES = [
    (["--llm", "nowhere"], "a student needs an image encoder: --vision DIR, --vision efficientnet-lite0"),
    (["--vision", "efficientnet-lite0"], "a student speaks through a language model; name one: --llm DIR"),
    (["--from", "nowhere", "--lora", "4"], "lora can't be told beside it; leave one out"),
    (["--from", "nowhere", "--frames", "4"], "so frames can't be told beside it"),
    (["--from", "models/nowhere"], "there is no directory models/nowhere; --from is a student's"),
    (["--llm", "nowhere", "--vision", "efficientnet-lite0"], "there is no directory nowhere"),
    (["--llm", "org/model", "--vision", "efficientnet-lite0"], "org/model needs a pinned revision"),
    (["--llm", "", "--vision", "efficientnet-lite0"], "a student speaks through a language model; name one"),
    (["--resume"], "was left unfinished; leave out --resume"),
    (["--precision", "fp8"], "there is no precision 'fp8'"),
    (["--learning-rate", "0"], "'0' is not a number above 0"),
    (["--min-scor", "1"], "unknown argument '--min-scor'; did you mean '--min-score'?"),
]


def test_a_training_without_a_dataset_is_told_so(tmp_path, capsys):
    assert main(["train", "student", "--output", str(tmp_path), "--llm", "any"]) == 2
    assert capsys.readouterr().err.startswith("reelscribe: no dataset to learn from; name one")


@pytest.mark.parametrize(("arguments", "told"), MISTAKES)
def test_mistakes_are_told_in_one_line_with_what_to_do(taught, tmp_path, capsys, arguments, told):
    assert main(["train", "student", taught[0], "--output", str(tmp_path / "out"), *arguments]) == 2
    complaint = capsys.readouterr().err
    assert (told in complaint, complaint.count("\n"), (tmp_path / "out").exists()) == (True, 1, False)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"lm": "x"}, "there is no 'lm'; did you mean 'llm'?"),
        ({"sizes": {"qformers": {}}}, "sizes: there is no 'qformers'; did you mean 'qformer'?"),
        ({"sizes": {"qformer": {"hiden_size": 3}}}, "did you mean 'hidden_size'?"),
        ({"frames": 0}, "frames must be a whole number from 1 up, not 0"),
        ({"llm": 7}, "llm must be a text, not 7"),
        ({"queries": 60}, "the language model reads 128 tokens, too few for 121 and a caption of 24"),
        ({"sizes": {"text_qformer": {"hidden_size": 48, "num_attention_heads": 2}}}, "so both must be"),
    ],
)
def test_configuration_that_cannot_be_is_told_in_one_line(taught, tmp_path, capsys, more, told):
    config = write_tiny(taught[2], **more)
    assert main(["train", "student", taught[0], "--output", str(tmp_path / "out"), "--config", config, *QUICK]) == 2
    complaint = capsys.readouterr().err
    assert (told in complaint, complaint.count("\n"), (tmp_path / "out").exists()) == (True, 1, False)


@pytest.mark.parametrize(
    ("clips", "options", "steps"),
    [
        (3200, StudentOptions(), Steps(400, 100, 40)),
        # Long enough for the paper's warm-up; an epoch is longer than the time between two evaluations.
        (1_000_000, StudentOptions(), Steps(125_000, 2000, 2500)),
        (3200, StudentOptions(max_steps=30), Steps(30, 30, 3)),
        (3200, StudentOptions(evaluate_every=7, recipe=StudentRecipe(warmup_steps=5)), Steps(400, 7, 5)),
    ],
)
def test_steps_follow_from_clips_and_options(clips, options, steps):
    assert steps_of(clips, options) == steps


def test_rate_grows_to_its_height_and_falls_to_half_as_the_paper_says():
    import torch
    from transformers import get_scheduler

    recipe = StudentRecipe()
    solver = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=recipe.learning_rate)
    named = {"min_lr_rate": recipe.last, "warmup_lr_rate": recipe.first}
    rates = get_scheduler("cosine_warmup_with_min_lr", solver, 2500, 10_000, named)
    rate = rates.lr_lambdas[0]
    told = [recipe.learning_rate * rate(step) for step in (0, 2499, 9999)]
    assert told == pytest.approx([1e-6, 1e-4, 5e-5], rel=1e-6)


def test_dataset_becomes_a_version_that_transformers_loads_and_that_can_be_gone_on_from(
    taught, tmp_path, capsys, monkeypatch
):
    import torch
    from transformers import AutoModel

    from model_handlers.student_inputs import Sample, StudentInputs
    from model_handlers.student_network import register

    # Without Java, which takes longer to start than this training takes: NLTK cuts the captions into words.
    monkeypatch.setenv("PATH", "")
    dataset, config, folder = taught
    output, figures = tmp_path / "models", tmp_path / "figures.json"
    command = ["train", "student", dataset, "--output", str(output), *QUICK]
    steps = ["--max-steps", "4", "--evaluate-every", "4", "--lora", "2"]
    assert main([*command, "--config", config, *steps, "--json", str(figures)]) == 0
    told = capsys.readouterr().out
    assert "left out: 1 clips have no reel" in told
    assert "step 4 of 4: loss" in told and "the best so far" in told
    assert told.rstrip().endswith(f"teachers: [{{name: student, weights: {output / 'v1'}}}]")
    assert [path.name for path in output.iterdir()] == ["v1"]
    assert sorted(path.name for path in (output / "v1").iterdir()) == FILES
    student = json.loads((output / "v1" / "student.json").read_text("utf-8"))
    counts = student["trained_on"]["clips"]
    assert (sum(counts.values()), student["schema_version"], student["recipe"]["lora"]) == (39, 1, 2)
    judged = {part: sorted(ways) for part, ways in student["metrics"].items() if part != "best_step"}
    assert judged == {part: ["with text", "without text"] for part in ("test", "validation")}
    assert len((output / "v1" / "test_clips.txt").read_text("utf-8").split()) == counts["test"]
    card = (output / "v1" / "README.md").read_text("utf-8")
    assert yaml.safe_load(card.split("---")[1])["license"] == "other"
    assert f"model = AutoModel.from_pretrained('{output / 'v1'}')" in card

    register()
    model, inputs = AutoModel.from_pretrained(output / "v1"), StudentInputs.load(output / "v1")
    grey = torch.full((30, 40, 3), 127, dtype=torch.uint8).numpy()
    assert model.generate(**inputs.batch([Sample([grey])])).shape[0] == 1
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert any("lora_A" in name for name in trained) and not any(name.startswith("vision.") for name in trained)

    # From it another one, which refers to the frozen parts instead of holding them.
    more = ["--from", str(output / "v1"), "--max-steps", "1", "--no-cider", "--leave-out-frozen"]
    assert main([*command, *more]) == 0
    held = load_file(output / "v2" / "model.safetensors")
    assert [name for name in held if name.startswith("vision.")] == []
    assert AutoModel.from_pretrained(output / "v2").config.references["language"]["weights"] == str(folder / "llm")
    same = json.loads((output / "v2" / "student.json").read_text("utf-8"))
    assert same["trained_on"]["fingerprint"] == student["trained_on"]["fingerprint"]
    assert same["metrics"]["test"]["with text"]["cider"] is None

    # Where they are not any more, it has to hold them.
    (folder / "llm").rename(folder / "moved")
    assert main([*command, *more]) == 2
    assert f"{folder / 'llm'} is not there any more" in capsys.readouterr().err
    (folder / "moved").rename(folder / "llm")

    # What is not the same cannot be gone on with.
    (output / "v3.unfinished").mkdir()
    (output / "v3.unfinished" / "begun.json").write_text(json.dumps({"recipe": {"seed": 5}}))
    assert main([*command, "--config", config, "--resume"]) == 2
    assert "v3.unfinished was begun with another recipe" in capsys.readouterr().err


def test_model_that_sees_what_comes_after_a_word_is_refused_as_one_to_speak_through(taught, tmp_path, capsys):
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    dataset, _, folder = taught
    tokenizer = AutoTokenizer.from_pretrained(folder / "llm")
    sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    command = ["train", "student", dataset, "--output", str(tmp_path / "out"), *QUICK]
    capsys.readouterr()
    assert main([*command, "--config", write_tiny(folder, llm=str(tmp_path / "bert"))]) == 2
    told = f"reelscribe: {tmp_path / 'bert'} is a bert that sees the words after each; name one that goes on writing"
    assert (capsys.readouterr().err.startswith(told), (tmp_path / "out").exists()) == (True, False)


def test_training_that_cannot_begin_leaves_no_unfinished_version(taught, tmp_path, capsys):
    dataset, config, _ = taught
    command = ["train", "student", "--data", dataset, "--output", str(tmp_path / "out"), "--config", config, *QUICK]
    assert main([*command, "--cache-features", str(tmp_path / "features"), "--cache-gb", "1e-9"]) == 2
    assert "more than --cache-gb 1e-09; raise it" in capsys.readouterr().err
    (tmp_path / "file").write_text("x")
    assert main([*command, "--tensorboard", str(tmp_path / "file" / "curves"), "--no-cider"]) == 1
    assert "there is nothing yet to go on from: start it anew" in capsys.readouterr().err
    assert os.listdir(tmp_path / "out") == []


def test_training_whose_loss_is_no_number_has_no_best_moment(taught, tmp_path, capsys):
    command = ["train", "student", taught[0], "--output", str(tmp_path / "out"), "--config", taught[1], *QUICK]
    assert main([*command, "--learning-rate", "1e30", "--max-steps", "2", "--no-cider"]) == 1
    told = capsys.readouterr()
    assert "take a lower --learning-rate" in told.err
    assert ("validation loss nan" in told.out, "the best so far" in told.out) == (True, False)


def test_dataset_of_which_no_reel_can_be_read_is_told_in_one_line_whoever_loads_it(taught, tmp_path, capfd):
    write_taught(tmp_path / "set", 40)
    for reel in (tmp_path / "set" / "reels").iterdir():
        reel.write_bytes(b"")
    command = ["train", "student", str(tmp_path / "set"), "--output", str(tmp_path / "out"), "--config", taught[1]]
    for workers in ("0", "1"):
        assert main([*command, *QUICK, "--max-steps", "1", "--no-cider", "--workers", workers]) == 1
        complaint = capfd.readouterr().err
        assert complaint.startswith("reelscribe: no clip's reel can be read, such as wall-")
        assert complaint.count("\n") == 1


def test_clips_that_could_not_be_read_before_an_interruption_are_known_after_it(taught, tmp_path, capsys, monkeypatch):
    from beam_pipeline.training import student_hooks

    _, config, _ = taught
    write_taught(tmp_path / "set", 40)
    names = [f"wall-{number:03}" for number in range(40)]
    seen = next(name for name in names if part_of(0, frozenset([name]), 0.2, 0.2) == "train")
    broken = tmp_path / "set" / "reels" / f"{seen}.arrow"
    whole = broken.read_bytes()
    command = ["train", "student", str(tmp_path / "set"), "--output", str(tmp_path / "out"), "--config", config, *QUICK]
    command += ["--max-steps", "6", "--evaluate-every", "4", "--no-cider"]
    tell = student_hooks._moment

    def interrupted(state, metrics, loss):
        if state.global_step > 4:
            raise OSError(28, "No space left on device")
        return tell(state, metrics, loss)

    broken.write_bytes(b"")
    with monkeypatch.context() as patched:
        patched.setattr(student_hooks, "_moment", interrupted)
        assert main(command) == 1
    complaint = capsys.readouterr().err
    assert "train student failed: the disk is full; make room (the same command with --resume goes on" in complaint
    broken.write_bytes(whole)
    assert main([*command, "--resume"]) == 0
    assert "goes on after checkpoint-4" in capsys.readouterr().out
    student = json.loads((tmp_path / "out" / "v1" / "student.json").read_text("utf-8"))
    assert student["trained_on"]["unread"] == 1


def test_loss_of_a_step_is_the_same_however_the_step_is_cut(taught, tmp_path):
    dataset, config, _ = taught
    losses = []
    for number, passes in enumerate(("1", "4"), 1):
        command = ["train", "student", dataset, "--output", str(tmp_path / "out"), "--config", config, *QUICK]
        command += ["--max-steps", "2", "--evaluate-every", "1", "--no-cider", "--accumulate", passes]
        assert main(command) == 0
        lines = (tmp_path / "out" / f"v{number}" / "train.jsonl").read_text("utf-8").splitlines()
        losses.append([told["loss"] for told in map(json.loads, lines) if "loss" in told])
    # Captions differ in length, so the mean of the passes' means would be another.
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert len(losses[0]) == 2


def start(taught, output, *more):
    """The command in a process of its own, which keeps features, in twelve evaluations of 36 steps."""
    dataset, config, folder = taught
    command = [sys.executable, "-m", "beam_pipeline.cli", "train", "student", dataset, "--output", str(output), *QUICK]
    command += ["--config", config, "--epochs", "12", "--evaluate-every", "5", "--no-cider", *more]
    command += ["--cache-features", str(folder / "features"), "--learning-rate", "1e-3"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def stop(running, word, sign):
    """Send a signal when a line with `word` was read."""
    while word not in running.stdout.readline():
        assert running.poll() is None
    os.kill(running.pid, sign)


@pytest.mark.timeout(900)
def test_training_that_was_killed_or_interrupted_and_resumed_ends_with_the_weights_of_one_that_was_not(
    taught, tmp_path
):
    whole = start(taught, tmp_path / "whole")
    told = whole.communicate(timeout=400)[0]
    assert (whole.returncode, told.count("validation loss")) == (0, 8)
    running = start(taught, tmp_path / "killed")
    # In the middle of the third epoch.
    stop(running, "step 10 of 36", signal.SIGKILL)
    assert running.wait(timeout=60) == -signal.SIGKILL
    running = start(taught, tmp_path / "killed", "--resume")
    stop(running, "step 25 of 36", signal.SIGINT)
    _, complaint = running.communicate(timeout=60)
    assert running.returncode == 130
    line = "reelscribe: interrupted; the same command with --resume goes on after the last evaluation\n"
    assert complaint.endswith(line)
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == ["v1.unfinished"]
    resumed = start(taught, tmp_path / "killed", "--resume")
    told = resumed.communicate(timeout=400)[0]
    assert (resumed.returncode, "step 5 of 36" in told, "step 36 of 36" in told) == (0, False, True)
    one, other = (load_file(tmp_path / name / "v1" / "model.safetensors") for name in ("whole", "killed"))
    assert [name for name in one if not (one[name] == other[name]).all()] == []
    names = [tmp_path / name / "v1" / "student.json" for name in ("whole", "killed")]
    assert names[0].read_bytes() == names[1].read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_student_learns_what_is_seen_and_what_the_text_alone_tells_and_stays_a_captioner_without_it(tmp_path):
    make_llm(tmp_path / "llm")
    make_tower(tmp_path / "tower")
    write_taught(tmp_path / "set", 96)
    command = ["train", "student", str(tmp_path / "set"), "--output", str(tmp_path / "out"), *QUICK]
    more = ["--config", write_tiny(tmp_path), "--epochs", "40", "--evaluate-every", "80", "--learning-rate", "3e-3"]
    assert main([*command, *more, "--cache-features", str(tmp_path / "features")]) == 0
    metrics = json.loads((tmp_path / "out" / "v1" / "student.json").read_text("utf-8"))["metrics"]
    ciders = {way: metrics["test"][way]["cider"]["value"] for way in ("with text", "without text")}
    # Half of the clips tell by their title alone where they were filmed. A CIDEr of 10 is every word.
    assert ciders["with text"] > 9
    assert 4 < ciders["without text"] < ciders["with text"] - 1
