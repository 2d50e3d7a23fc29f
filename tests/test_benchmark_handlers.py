"""`benchmarks/handlers.py`: the command itself on small models, what it prints, and how it takes what goes wrong."""

import json
import math
import os
import pathlib
import subprocess
import sys
import time

import pytest

from benchmarks.gpu_gauge import GpuGauge, busy_of
from benchmarks.handler_checkpoints import checkpoint
from benchmarks.handler_clips import clips
from benchmarks.handler_rounds import Measured, Watched, by_batch_size
from benchmarks.handlers import main, report
from model_handlers.answers import UnusableAnswer
from model_handlers.devices import Device
from model_handlers.resident import Raw
from transforms.records import Span

torch = pytest.importorskip("torch")

ROOT = pathlib.Path(__file__).parents[1]
CPU = Device("cpu", torch.float32)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_contenders_take_turns_and_every_clip_is_answered(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "handlers.py"), "--size", "small", "--clips", "4"]
    command += ["--rounds", "1", "--tokens", "5", "--models", "qwen2.5-vl-7b,umt-l16", "--json", "told.json"]
    # No film lies there, so that clips are drawn.
    run = [*command, "--videos", str(tmp_path)]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads((tmp_path / "told.json").read_text("utf-8"))
    assert told["failures"] == {} and (told["clips"], told["rounds"], told["tokens"]) == (4, 1, 5)
    found = {each["model"]: each for each in told["models"]}
    assert [(name, each["answered"], each["failures"]) for name, each in found.items()] == [
        ("qwen2.5-vl-7b", 4, []),
        ("umt-l16", 4, []),
    ]
    # No answer ends of itself, so each has as many tokens as it may have.
    assert (found["qwen2.5-vl-7b"]["tokens_a_clip"], found["umt-l16"]["tokens_a_clip"]) == (5.0, 0.0)
    for each in found.values():
        assert sum(each["batches"][0]) == 4
        assert list(each["by_size"]) == ["1", "2", "4"]
    rows = [cells(line) for line in done.stdout.splitlines() if line.startswith("|")]
    assert [row[0] for row in rows] == ["model", "---", *found, "forward alone, batches of", "---", *found]
    figures = [float(cell) for row in rows[2:4] for cell in row[1:7]]
    figures += [float(cell) for row in rows[6:8] for cell in row[1:]]
    assert len(figures) == 18 and all(math.isfinite(figure) and figure > 0 for figure in figures)


def measured(**changes) -> Measured:
    """What a model might have done on a GPU in three rounds."""
    values = {
        "model": "blip2-opt-2.7b",
        "clips": 40,
        "answered": 40,
        "refused": 1,
        "failures": (),
        "through_beam": (48.0, 50.0, 45.0),
        "forward_alone": (50.0, 50.0, 50.0),
        "one_after_another": (20.0, 25.0, 30.0),
        "prepare_alone": 812.4,
        "growth": (1, 2, 4),
        "batches": ((32, 8), (32, 8), (32, 8)),
        "forward_share": (0.9, 0.95, 1.0),
        "gpu_busy": (90.0, 97.0, None),
        "tokens_a_clip": 32.0,
        "peak_bytes": 3 * 2**30,
        "by_size": {1: 4.0, 2: 7.77, 4: None},
        "load_s": 2.0,
        "weights_gb": 7.49,
    }
    return Measured(**values | changes)


def test_both_tables_say_medians_ranges_and_what_did_not_fit():
    facts = {
        **{"device": "GPU", "torch": "2.13", "transformers": "5.23", "python": "3.11", "size": "full"},
        **{"clips": 40, "rounds": 3, "batch": 32, "tokens": 32},
    }
    tower = measured(
        model="clip-vit-h", failures=("no readable reel at x",), tokens_a_clip=0.0, peak_bytes=0, by_size={1: 123.4}
    )
    assert report(facts, [measured(), tower], {"umt-l16": "WeightsError: why"}) == [
        "GPU; torch 2.13, transformers 5.23, Python 3.11; full models, 40 clips, answers of 32 tokens, "
        "batches of at most 32; medians of 3 rounds (and their range), in clips a second.",
        "",
        "| model | a: RunInference | b: forward alone | b2: one after another | a/b | a/b2 | prepare alone "
        "| in forward | GPU busy | batches of a | tokens a clip | peak GiB |",
        "| --- |" + " ---: |" * 11,
        "| blip2-opt-2.7b | 48 (45-50) | 50 (50-50) | 25 (20-30) | 0.96 | 2.00 | 812 "
        "| 95% | 94 % | 1 x 32, 1 x 8 | 32 | 3.0 |",
        "| clip-vit-h | 48 (45-50) | 50 (50-50) | 25 (20-30) | 0.96 | 2.00 | 812 "
        "| 95% | 94 % | 1 x 32, 1 x 8 | - | - |",
        "",
        "Goal: a/b at least 0.95.",
        "",
        "| forward alone, batches of | 1 | 2 | 4 |",
        "| --- | ---: | ---: | ---: |",
        "| blip2-opt-2.7b | 4 | 7.77 | out of memory |",
        "| clip-vit-h | 123 |  |  |",
        "",
        "clip-vit-h: 1 of 40 clips unanswered, the first: no readable reel at x",
        "",
        "umt-l16 was not measured: WeightsError: why",
    ]


def test_a_model_that_does_not_load_is_told_in_a_line(tmp_path, capsys):
    (tmp_path / "clip-vit-h-small").mkdir()
    asked = ["--size", "small", "--clips", "1", "--models", "clip-vit-h", "--videos", str(tmp_path)]
    assert main([*asked, "--work", str(tmp_path)]) == 1
    why = f"WeightsError: {tmp_path}/clip-vit-h-small holds no config.json; name a directory that save_pretrained wrote"
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"clip-vit-h was not measured: {why} (checkpoints.py, line ")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--models", "clip-vit-h,blip3"], "argument --models: there is no model 'blip3'; choose of blip2-opt-2.7b, "),
        (["--clips", "0"], "argument --clips: must be a whole number from 1 up, not '0'"),
        (["--json", "nowhere/told.json"], "--json: there is no directory "),
    ],
)
def test_bad_usage_is_told_before_anything_is_loaded(arguments, why, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert f"error: {why}" in capsys.readouterr().err.splitlines()[-1]


class Small:
    """A network whose device holds four requests, and which refuses to finish."""

    def prepare(self, request):
        return request

    def forward(self, prepared):
        if len(prepared) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Raw(list(prepared), tokens=3 * len(prepared))

    def finish(self, request, raw):
        raise UnusableAnswer("no words", "bla")


def test_a_batch_that_does_not_fit_ends_the_sizes_without_ending_the_run():
    watched = Watched(Small(), CPU)
    rates = by_batch_size(watched, range(20), 16)
    assert list(rates) == [1, 2, 4, 8] and rates[8] is None
    assert all(rates[size] > 0 for size in (1, 2, 4))
    # Each size once to warm up, then over eight requests.
    assert watched.seen.batches == [1] * 9 + [2] * 5 + [4] * 3


def test_a_refused_answer_counts_as_an_answer():
    watched = Watched(Small(), CPU)
    assert (watched.finish("clip", "raw"), watched.seen.refused) == ("bla", 1)


@pytest.mark.parametrize(
    ("told", "busy"),
    [
        ("GPU-1111-aa, 3\nGPU-2222-bb, 87\n", 87.0),
        ("GPU-3333-cc, 12\n", 12.0),
        ("GPU-3333-cc, 12\nGPU-4444-dd, 50\n", None),
        ("GPU-2222-bb, [N/A]\n", None),
        ("No devices were found\n", None),
    ],
)
def test_a_gpu_is_found_by_its_id_or_for_being_the_only_one(told, busy):
    assert busy_of(told, "2222-bb") == busy


def test_the_gauge_means_what_nvidia_smi_says_between_two_times(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU-2222-bb, 87'\n", "utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    began = time.perf_counter()
    with GpuGauge("2222-bb") as gauge:
        deadline = began + 20
        while gauge.mean(began, deadline) is None and time.perf_counter() < deadline:
            time.sleep(0.05)
    assert gauge.mean(began, time.perf_counter()) == 87.0
    assert gauge.mean(began - 2, began - 1) is None


def test_without_nvidia_smi_nobody_says_how_busy_a_gpu_is(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    began = time.perf_counter()
    with GpuGauge("2222-bb") as gauge:
        time.sleep(0.3)
    assert gauge.mean(began, time.perf_counter()) is None


def test_drawn_clips_differ_in_id_and_in_what_they_show(tmp_path):
    made = clips(24, tmp_path, None)
    assert len({sample.clip.clip_id for sample in made}) == 24
    assert len({(sample.clip.reel, sample.clip.span) for sample in made}) == 24
    assert {sample.clip.span.duration_s for sample in made} == {8.0}
    assert len(list(tmp_path.iterdir())) == 3


def test_clips_of_films_are_their_shots(tmp_path, shared_dir):
    made = clips(4, tmp_path, shared_dir / "videos" / "panda70m")
    assert len({sample.clip.clip_id for sample in made}) == 4
    assert all(sample.clip.span == Span(sample.shot.start_s, sample.shot.end_s) for sample in made)
    assert [path.suffix for path in tmp_path.iterdir()] == [".arrow"]


def test_a_checkpoint_that_could_not_be_finished_leaves_nothing_behind(tmp_path, monkeypatch):
    def broken(folder: pathlib.Path, size: str, device: str) -> None:
        (folder / "config.json").write_text("{}", "utf-8")
        raise OSError("disk full")

    monkeypatch.setitem(sys.modules["benchmarks.handler_checkpoints"].MAKERS, "clip-vit-h", broken)
    with pytest.raises(OSError, match="disk full"):
        checkpoint("clip-vit-h", "small", tmp_path, "cpu")
    assert list(tmp_path.iterdir()) == []
