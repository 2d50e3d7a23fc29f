"""`reelscribe train selector`: one line for each mistake, and from judged clips to a version that a profile names."""

import json
import os
import sys
import types

import pytest
import yaml
from annotated_dataset import write_judged
from report_dataset import candidate, clip, video, write_dataset, write_reel
from test_training_examples import judge

from beam_pipeline.choosing import choose
from beam_pipeline.cli import main
from beam_pipeline.training.commands import told
from beam_pipeline.training.outcome import Outcome


@pytest.fixture
def unjudged(tmp_path):
    return str(write_judged(tmp_path / "unjudged", videos=2, clips_each=1))


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        ([], 2, "nobody has judged clips of"),
        (["--selector", "conse"], 2, "conse has nothing to train; take --selector lite-projection"),
        (["--selector", "lite-projektion"], 2, "did you mean 'lite-projection'?"),
        (["--precision", "fp8"], 2, "there is no precision 'fp8'"),
        (["--learning-rate", "0"], 2, "'0' is not a number above 0"),
        (["--validation", "0.6", "--test", "0.5"], 2, "leave nothing to train on"),
        (["--validation", "0"], 2, "--validation must be above 0"),
        (["--resume"], 2, "was left unfinished; leave out --resume"),
        (["--batsch", "3"], 2, "unknown argument '--batsch'; did you mean '--batch'?"),
    ],
)
def test_mistakes_are_told_in_one_line_with_what_to_do(unjudged, tmp_path, capsys, arguments, status, told):
    command = ["train", "selector", unjudged, "--output", str(tmp_path / "out"), *arguments]
    assert main(command) == status
    complaint = capsys.readouterr().err
    assert (told in complaint, complaint.count("\n")) == (True, 1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["selector", "student"])
@pytest.mark.parametrize("within", ["", "clips", "models/mine"])
def test_dataset_is_no_place_for_what_is_trained_on_it(unjudged, tmp_path, capsys, kind, within):
    link = tmp_path / "link"
    link.symlink_to(unjudged)
    before = sorted(os.listdir(unjudged))
    for flag, other in (("--output", "--tensorboard"), ("--tensorboard", "--output")):
        command = ["train", kind, unjudged, flag, str(link / within), other, str(tmp_path / "out")]
        assert main(command) == 2
        told = f"reelscribe: cannot write into the dataset {unjudged}; {flag} is a directory outside of it\n"
        assert capsys.readouterr().err == told
    assert sorted(os.listdir(unjudged)) == before


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 62336 vs 62228"),
    ],
)
def test_full_disk_is_told_whoever_met_it(tmp_path, capsys, error):
    def train():
        raise error

    (tmp_path / "v1.unfinished").mkdir()
    assert told("train student", "evaluation", str(tmp_path), train) == 1
    line = "train student failed: the disk is full; make room (the same command with --resume goes on after the last"
    assert capsys.readouterr().err.startswith(f"reelscribe: {line} evaluation")


def test_bucket_is_no_output(unjudged, capsys):
    assert main(["train", "selector", unjudged, "--output", "gs://models/selector"]) == 2
    assert "--output is a local directory; copy the version when done" in capsys.readouterr().err


@pytest.fixture
def judged(tmp_path):
    """Twenty clips, of which people chose the caption that ConSE would."""
    folder = tmp_path / "set"
    captions = ("Somebody cooks a meal in a kitchen.", "A dog runs over grass.", "Cars drive on a road.")
    said = [candidate(f"t{at}", caption, 0.5) for at, caption in enumerate(captions)]
    names = [f"v{at}" for at in range(20)]
    clips = [clip(name, 0.0, 1.0, said) for name in names]
    write_dataset(folder, videos=[video(name, 5.0) for name in names], clips=clips)
    for name in names:
        write_reel(folder, name, 1.0, (64, 36))
    judge(folder, {(f"{name}-0-1000", name, captions): at % 3 for at, name in enumerate(names)})
    return str(folder)


def test_judged_clips_become_a_version_that_a_profile_names_and_nothing_is_left_unfinished(judged, tmp_path, capsys):
    output, figures = tmp_path / "models", tmp_path / "figures.json"
    command = ["train", "selector", judged, "--output", str(output), "--validation", "0.2", "--test", "0.2"]
    assert main([*command, "--epochs", "1", "--batch", "8", "--json", str(figures)]) == 0
    told = capsys.readouterr().out
    line = f"selector: {{name: lite-projection, weights: {output / 'v1'}}}"
    assert "conse has nothing to train; lite-projection starts from it" in told
    assert told.rstrip().endswith(line)
    assert [path.name for path in output.iterdir()] == ["v1"]
    assert sorted(path.name for path in (output / "v1").iterdir()) == [
        "README.md",
        "config.json",
        "projection.safetensors",
        "selector.json",
        "test_clips.txt",
        "train.jsonl",
    ]
    selector = json.loads((output / "v1" / "selector.json").read_text("utf-8"))
    counts = selector["trained_on"]["examples"]
    assert (sum(counts.values()), selector["selector"], selector["schema_version"]) == (20, "lite-projection", 1)
    assert selector["recipe"]["shares"] == {"seed": 0, "test": 0.2, "validation": 0.2}
    assert (selector["calibration"], selector["abstain_below"]) == (None, None)
    assert f"scores were not calibrated: there are {counts['validation']} validation clips, and 20 are needed" in told
    assert "abstain_below was not learned: people found all captions bad of" in told
    written = json.loads(figures.read_text("utf-8"))
    assert {name: written[name] for name in selector} == selector
    assert len((output / "v1" / "test_clips.txt").read_text("utf-8").split()) == counts["test"]
    front = (output / "v1" / "README.md").read_text("utf-8").split("---")[1]
    assert yaml.safe_load(front)["license"] == "other"
    # The line that is printed is one that a profile takes.
    assert choose("selector", yaml.safe_load(line)["selector"]).entry.revision.startswith("sha256 ")
    # With another seed the same is another training, whose --resume would mix two.
    (output / "v2.unfinished").mkdir()
    (output / "v2.unfinished" / "begun.json").write_text(json.dumps({"recipe": {"seed": 5}}))
    assert main([*command, "--resume"]) == 2
    assert "v2.unfinished was begun with another recipe" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--precision", "fp16"], "--precision fp16 needs a GPU; take bf16 or fp32"),
        (["--gradient-checkpointing"], "--gradient-checkpointing: this selector is too small"),
        (["--batch", "7", "--accumulate", "2"], "can't be shared evenly by 1 device times 2 passes"),
    ],
)
def test_options_that_cannot_be_met_leave_no_unfinished_version(judged, tmp_path, capsys, arguments, told):
    command = ["train", "selector", judged, "--output", str(tmp_path / "out"), *arguments]
    assert main([*command, "--validation", "0.2", "--test", "0.2"]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("package", ["accelerate", "sklearn", "torch.utils.tensorboard"])
def test_package_that_only_the_end_of_a_training_needs_is_missed_before_it_begins(
    judged, tmp_path, capsys, monkeypatch, package
):
    monkeypatch.setitem(sys.modules, package, None)
    command = ["train", "selector", judged, "--output", str(tmp_path / "out"), "--tensorboard", str(tmp_path / "t")]
    assert main([*command, "--validation", "0.2", "--test", "0.2"]) == 2
    assert "is not installed; run: pip install 'reelscribe[" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_figures_that_cannot_be_written_do_not_pass_for_a_training_that_failed(unjudged, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("beam_pipeline.training.fitting.fit", lambda wanted: {"path": "models/v1"})
    (tmp_path / "file").write_text("x")
    figures = str(tmp_path / "file" / "figures.json")
    assert main(["train", "selector", unjudged, "--output", str(tmp_path / "out"), "--json", figures]) == 1
    assert f"models/v1 is whole, but cannot write {figures}" in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["models/selector", "a, b: {c} #d", "~/models", "Modelle für alle", '"', "-"])
def test_line_for_a_profile_names_any_folder(folder):
    named = types.SimpleNamespace(entry=types.SimpleNamespace(listed_name="lite-projection"))
    line = Outcome.profile_line(named, f"{folder}/v1")
    assert yaml.safe_load(line) == {"selector": {"name": "lite-projection", "weights": f"{folder}/v1"}}
