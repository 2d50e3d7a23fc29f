"""Runs of the real job over a dataset in a bucket, for its tests: little videos, one teacher, kills at a write."""

import contextlib
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pyarrow.parquet as pq
import pytest
import yaml
from synthetic import make_video

from beam_pipeline.cli import main
from beam_pipeline.verify import audit
from transforms.files import list_files, read
from transforms.reading import video_id_of
from transforms.schemas import TABLES
from transforms.tables import DeltaTable, NoDataset, read_table, table_files, table_uri

STITCHING = {"still_distance": None, "redundant_distance": None, "min_event_s": 1.0}
SHOTS = {"red": [(2.0, "red"), (2.0, "blue")], "green": [(2.0, "green")], "grey": [(3.0, "grey")]}
URI = "gs://bucket/sets/a"
SETS = "sets/a/"


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> dict[str, bytes]:
    """Three different videos, by the colour that they show first."""
    folder = tmp_path_factory.mktemp("videos")
    made = {name: make_video(folder / f"{name}.mp4", SHOTS[name], size=(160, 90), drift_px=3) for name in SHOTS}
    return {name: path.read_bytes() for name, path in made.items()}


@pytest.fixture(scope="module")
def uploads(videos, tmp_path_factory) -> pathlib.Path:
    """A folder that tests don't change: two videos, and a page that is none."""
    return fill(tmp_path_factory.mktemp("in") / "uploads", videos)


def fill(folder: pathlib.Path, videos: dict[str, bytes]) -> pathlib.Path:
    folder.mkdir()
    for name in ("red", "green"):
        (folder / f"{name}.mp4").write_bytes(videos[name])
    (folder / "page.mp4").write_text("<html></html>")
    return folder


def config_of(folder: pathlib.Path, *teachers: str) -> str:
    path = folder / f"{'-'.join(teachers)}.yaml"
    path.write_text(yaml.safe_dump({"extends": "lite", "teachers": list(teachers), "stitching": STITCHING}))
    return str(path)


def arguments(source: object, output: object, folder: pathlib.Path, *more: str, teachers=("lite-frame",)) -> list[str]:
    config = config_of(folder, *teachers)
    return ["curate", "--input", str(source), "--output", str(output), "--config", config, *more]


def curate(*given: object, **how: object) -> int:
    return main(arguments(*given, **how))


def ids(folder: pathlib.Path, *names: str) -> list[str]:
    return [video_id_of(str(folder / f"{name}.mp4")) for name in names]


def generations(gcs, prefix: str = SETS) -> dict[str, str]:
    return {name: gcs.generation(name) for name in gcs.names(prefix)}


def records(uri: str = URI) -> list[dict]:
    return [json.loads(read(path)) for path in list_files(f"{uri}/runs")]


def check_plain_readers(uri: str, most_files: int = 1) -> None:
    """Whoever reads the Parquet files of a folder sees the table's rows, and no others."""
    for name in TABLES:
        folder = table_uri(uri, name)
        paths = list(list_files(folder))
        assert paths == sorted(table_files(DeltaTable(folder), uri, name))
        assert 1 <= len(paths) <= most_files, name
        rows = [row for path in paths for row in pq.read_table(io.BytesIO(read(path))).to_pylist()]
        assert sorted(map(repr, rows)) == sorted(map(repr, read_table(uri, name).to_pylist())), name


@pytest.fixture(scope="module")
def local(uploads, tmp_path_factory) -> pathlib.Path:
    """What an undisturbed run makes of the uploads in a directory."""
    folder = tmp_path_factory.mktemp("local")
    assert curate(uploads, folder / "set", folder) == 0
    return folder / "set"


@contextlib.contextmanager
def killing(gcs, moment: str, at: Callable[[str], bool], stored: bool = True) -> Iterator[Callable[[list[str]], None]]:
    """Run a command in a process of its own that is killed at a write: run(arguments) returns when it is dead.

    Args:
      moment: the hook. at: whether this is the write. stored: whether what is being written becomes an object.
    """
    running: list[subprocess.Popen] = []
    killed = threading.Event()

    def kill(name: str) -> None:
        if running and not killed.is_set() and at(name):
            killed.set()
            os.killpg(running[0].pid, signal.SIGKILL)
            running[0].wait()
            if not stored:
                raise ConnectionAbortedError

    def run(given: list[str]) -> None:
        command = [sys.executable, "-m", "beam_pipeline.cli", *given]
        running.append(
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
        )
        _, told = running[0].communicate(timeout=170)
        assert killed.is_set(), told.decode()[-2000:]
        assert running[0].returncode == -signal.SIGKILL

    setattr(gcs, moment, kill)
    yield run
    setattr(gcs, moment, None)


def is_sweep(name: str) -> bool:
    """Whether an object is a commit in which `finalise` replaces files of `clips`."""
    if not re.search(r"/clips/_delta_log/\d+\.json", name):
        return False
    return b'"reelscribe":"sweep"' in read(f"gs://bucket/{name}").replace(b" ", b"")


def breaches() -> list[str]:
    try:
        return audit(URI).breaches
    except NoDataset:
        return []  # It ended before there was one.


def one_line(told: str) -> str:
    """What was complained of, which must be a line for people: no traceback, no markup, no colours."""
    lines = [line for line in told.splitlines() if line.startswith("reelscribe: ")]
    assert len(lines) == 1 and "Traceback" not in told, told
    assert not re.search(r"\x1b|<\?xml", lines[0]), lines[0]
    return lines[0].removeprefix("reelscribe: ")


def mirror(gcs, folder: pathlib.Path) -> pathlib.Path:
    """All objects of the dataset as files."""
    for name in gcs.names(SETS):
        path = folder / name.removeprefix(SETS)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(read(f"gs://bucket/{name}"))
    return folder
