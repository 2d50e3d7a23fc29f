"""`benchmarks/student_step.py`: the command itself at its smallest, and the sizes that it names."""

import json
import pathlib
import subprocess
import sys

import pytest

from benchmarks.student_step import student

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("one_thread")

COMMAND = [sys.executable, str(pathlib.Path(__file__).parents[1] / "benchmarks" / "student_step.py")]


def test_every_batch_is_a_row_and_stands_in_the_json_file(tmp_path):
    asked = ["--size", "small", "--batches", "1,3", "--rounds", "1", "--tokens", "4", "--gradient-checkpointing"]
    run = [*COMMAND, *asked, "--json", str(tmp_path / "told.json")]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("|")]
    assert rows[2:] == ["1", "3"]
    told = json.loads((tmp_path / "told.json").read_text("utf-8"))
    assert (told["failures"], told["prefix"], told["tokens"], told["checkpointing"]) == ({}, 65, 4, True)
    assert [each["batch"] for each in told["batches"]] == [1, 3]
    assert all(min(each["step_s"], each["kept_s"], each["said_s"]) > 0 for each in told["batches"])
    assert 0 < told["trained"] < told["parameters"]


def test_the_full_size_is_that_of_the_paper():
    model = student("full", "meta")
    counted = {
        name: sum(one.numel() for one in getattr(model, name).parameters())
        for name in ("vision", "qformer", "language")
    }
    # A ViT-g without its last layer, BLIP-2's Q-Former, LLaMA-7B.
    assert {name: round(count / 1e9, 2) for name, count in counted.items()} == {
        "vision": 0.99,
        "qformer": 0.11,
        "language": 6.74,
    }
    assert not any(one.requires_grad for part in (model.vision, model.language) for one in part.parameters())
