"""Versions: numbered, whole or unfinished, and gone on with only by what began them."""

import json
import os
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from beam_pipeline.training.checkpoints import last_checkpoint
from beam_pipeline.training.runs import Version, VersionError, new_version, take_up, unfinished_version


def write_checkpoint(folder):
    """A folder as the Trainer's, of one number."""
    folder.mkdir()
    save_file({"a": np.zeros(1, np.float32)}, folder / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        with zipfile.ZipFile(folder / name, "w") as file:
            file.writestr("a", "1")
    for name in ("config.json", "trainer_state.json"):
        (folder / name).write_text(json.dumps({"global_step": int(folder.name.rpartition("-")[2])}))


BEGUN = {"selector": ["s", "1"], "annotations": "abc", "recipe": {"seed": 0, "betas": [0.9, 0.999]}}


def test_versions_count_on_from_the_highest_whole_or_not(tmp_path):
    output = str(tmp_path / "selector")
    first = new_version(output)
    assert (first.number, os.listdir(output)) == (1, ["v1.unfinished"])
    assert first.finish() == os.path.join(output, "v1")
    second = new_version(output)
    assert [new_version(output).number, second.number] == [3, 2]
    assert sorted(os.listdir(output)) == ["v1", "v2.unfinished", "v3.unfinished"]
    assert unfinished_version(output) == Version(output, 3)
    assert unfinished_version(str(tmp_path / "none")) is None


def test_finished_version_keeps_no_checkpoints_and_nothing_of_its_beginning(tmp_path):
    version = new_version(str(tmp_path))
    version.begin(BEGUN)
    os.makedirs(os.path.join(version.unfinished, "checkpoint-12"))
    for name in ("weights.safetensors", "training_args.bin"):
        with open(os.path.join(version.unfinished, name), "wb") as file:
            file.write(b"1")
    # As safetensors leaves it.
    os.chmod(os.path.join(version.unfinished, "weights.safetensors"), 0o600)
    (tmp_path / "other").write_text("")
    path = version.finish()
    assert os.listdir(path) == ["weights.safetensors"]
    assert os.stat(os.path.join(path, "weights.safetensors")).st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"annotations": "xyz"}, r'other annotations \("abc", now "xyz"\)'),
        ({"recipe": {"seed": 1, "betas": [0.9, 0.999]}}, r"another recipe \(seed: 0, now 1\); give the same"),
    ],
)
def test_version_is_gone_on_with_only_by_what_began_it(tmp_path, change, told):
    version = new_version(str(tmp_path))
    version.begin(BEGUN)
    version.check_same(BEGUN)
    with pytest.raises(VersionError, match=told):
        version.check_same(BEGUN | change)


def test_output_that_is_a_file_is_refused_in_a_line(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(VersionError, match="--output is a directory"):
        new_version(str(tmp_path / "file"))


def test_checkpoint_that_a_kill_cut_short_is_removed_and_the_one_before_it_is_the_last(tmp_path):
    for step in (9, 10, 11, 100):
        write_checkpoint(tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-11" / "trainer_state.json").unlink()
    (tmp_path / "checkpoint-100" / "trainer_state.json").write_text("{")
    assert last_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-10")
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-10", "checkpoint-9"]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "config.json"])
def test_checkpoint_with_a_damaged_file_gives_way_to_the_one_before_it(tmp_path, name):
    for step in (9, 10):
        write_checkpoint(tmp_path / f"checkpoint-{step}")
    os.truncate(tmp_path / "checkpoint-10" / name, 1)
    assert last_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-9")
    assert os.listdir(tmp_path) == ["checkpoint-9"]


def test_checkpoint_without_its_solver_is_not_whole(tmp_path):
    write_checkpoint(tmp_path / "checkpoint-10")
    (tmp_path / "checkpoint-10" / "optimizer.pt").unlink()
    assert last_checkpoint(str(tmp_path)) is None


def test_version_killed_while_it_is_finished_keeps_a_whole_checkpoint_to_go_on_from(tmp_path, monkeypatch):
    version = new_version(str(tmp_path))
    version.begin(BEGUN)
    for step in (3, 12):
        write_checkpoint(pathlib.Path(version.unfinished, f"checkpoint-{step}"))

    def killed(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("shutil.rmtree", killed)
        version.finish()
    # Of the last one something is left, and it does not pass for whole.
    assert last_checkpoint(version.unfinished) == os.path.join(version.unfinished, "checkpoint-3")
    assert version.finish() == version.path


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "rb+")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_version_that_another_process_trains_is_not_gone_on_with_but_one_below_it_is(tmp_path):
    lower, upper = (new_version(str(tmp_path)) for _ in range(2))
    for version in (lower, upper):
        version.begin(BEGUN)
    begun = os.path.join(upper.unfinished, "begun.json")
    assert not upper.is_trained_elsewhere()
    command = [sys.executable, "-c", HOLD, begun]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        assert (upper.is_trained_elsewhere(), lower.is_trained_elsewhere()) == (True, False)
        with pytest.raises(VersionError, match="is being trained by another process; wait for it, or stop it"):
            upper.hold()
        assert take_up(str(tmp_path), BEGUN) == lower
        other.stdin.close()
    upper.hold()
    assert not upper.is_trained_elsewhere()
    assert upper.finish() == upper.path


def test_of_two_unfinished_versions_the_one_that_was_begun_with_the_same_is_gone_on_with(tmp_path):
    same, another = (new_version(str(tmp_path)) for _ in range(2))
    same.begin(BEGUN)
    another.begin(BEGUN | {"annotations": "xyz"})
    assert take_up(str(tmp_path), BEGUN) == same
    with pytest.raises(VersionError, match=r"v2\.unfinished was begun with other annotations"):
        take_up(str(tmp_path), BEGUN | {"annotations": "new"})
    with pytest.raises(VersionError, match=r"nothing in .* was left unfinished"):
        take_up(str(tmp_path / "none"), BEGUN)


@pytest.mark.parametrize("written", ["", "[]", "{"])
def test_version_whose_beginning_cannot_be_read_is_not_gone_on_with_once_it_has_a_checkpoint(tmp_path, written):
    version = new_version(str(tmp_path))
    pathlib.Path(version.unfinished, "begun.json").write_text(written)
    version.check_same(BEGUN)
    pathlib.Path(version.unfinished, "begun.json").write_text(written)
    write_checkpoint(pathlib.Path(version.unfinished, "checkpoint-3"))
    with pytest.raises(VersionError, match=r"begun\.json can't be read, .*; leave out --resume for a new version"):
        take_up(str(tmp_path), BEGUN)


def test_training_that_fails_before_its_first_checkpoint_leaves_nothing_behind(tmp_path):
    for kept in ([], ["v1.unfinished"]):
        version = new_version(str(tmp_path))
        version.begin(BEGUN)
        version.hold()
        with pytest.raises(KeyboardInterrupt), version.kept_only_with_a_checkpoint():
            if kept:
                write_checkpoint(pathlib.Path(version.unfinished, "checkpoint-3"))
            raise KeyboardInterrupt
        assert os.listdir(tmp_path) == kept
