"""The README's section on training, followed to the letter; what needs a package that is not here skips."""

import json
import pathlib
import re

import pytest
from dataset_rows import video_rows
from report_dataset import write_reel

from beam_pipeline.cli import main
from beam_pipeline.datasetcard import write_card
from transforms.committing import Committer
from transforms.lease import WriterLease
from transforms.tables import open_table

README = pathlib.Path(__file__).parents[1] / "README.md"
SECTION = README.read_text("utf-8").partition("\n## Training on it")[2].partition("\n## ")[0]


def recipe(word: str) -> str:
    (code,) = [code for code in re.findall(r"```(?:python|sql)\n(.*?)```", SECTION, re.DOTALL) if word in code]
    return code


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with `dataset` in it, of forty videos in twenty commits, so that its log has a checkpoint."""
    folder = tmp_path_factory.mktemp("recipes")
    for number in range(20):
        names = [f"v{number:02d}{letter}" for letter in "ab"]
        with WriterLease(folder / "dataset", f"r{number}"):
            Committer(folder / "dataset").commit([video_rows(name, f"r{number}", etag="e") for name in names])
        for name in names:
            write_reel(folder / "dataset", name, 20.0, (32, 18))
    write_card(folder / "dataset")
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    """The folder, gone into, with the parts that the section's first command makes."""
    monkeypatch.chdir(folder)
    if not (folder / "parts").exists():
        run("split")
    return folder


def run(command: str) -> None:
    (line,) = re.findall(rf"^    \.venv/bin/reelscribe ({command} .*)$", SECTION, re.MULTILINE)
    assert main(line.split()) == 0


def train_clips(here: pathlib.Path) -> int:
    return json.loads((here / "parts" / "split.json").read_text())["counts"]["train"]["clips"]


def test_pytorch_reads_the_clips_with_their_frames(here):
    pytest.importorskip("torch", reason="needs the extra local")
    namespace: dict = {}
    exec(recipe("TorchClips"), namespace)
    assert namespace["clips"].count == train_clips(here)
    assert [tuple(frames.shape) for frames in namespace["frames"]] == [(8, 18, 32, 3)] * len(namespace["captions"])
    assert set(namespace["captions"]) == {"a dog runs"}


def test_webdataset_reads_the_shards(here, capsys):
    pytest.importorskip("webdataset", reason="needs the extra export")
    run("export")
    capsys.readouterr()
    exec(recipe("import webdataset"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == train_clips(here)
    assert {line.split(" ", 1)[1] for line in lines} == {"a dog runs (32, 18)"}


def test_datasets_streams_the_clips(here, capsys):
    pytest.importorskip("datasets", reason="needs the package datasets, which no extra brings")
    exec(recipe("load_dataset"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(set(lines)) == len(lines) == 80
    assert "v00a_1000_9000 a dog runs" in lines


def test_duckdb_joins_the_clips_with_a_part(here):
    pytest.importorskip("duckdb", reason="needs the package duckdb, which no extra brings")
    namespace: dict = {}
    exec(recipe("duckdb"), namespace)
    assert namespace["mine"].aggregate("count(*), min(caption)").fetchall() == [(train_clips(here), "a dog runs")]


def test_bigquerys_pattern_is_that_of_the_rows_files_and_of_no_checkpoint(here):
    pattern = re.search(r"FOLDER/(clips/\S+?)'", recipe("BigQuery")).group(1)
    matched = {path for path in _below(here / "dataset") if _as_bigquery(pattern).fullmatch(path)}
    table = open_table(str(here / "dataset"), "clips")
    assert matched == {f"clips/{uri.rpartition('/')[2]}" for uri in table.file_uris()}
    assert [path for path in _below(here / "dataset") if _as_bigquery("clips/*.parquet").fullmatch(path)] != sorted(
        matched
    )


def _below(folder: pathlib.Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _as_bigquery(pattern: str) -> re.Pattern[str]:
    """Its asterisk stands for any characters, slashes among them."""
    return re.compile(re.escape(pattern).replace(r"\*", ".*"))
