"""Kill the job at random instants, run it again, and compare with one that nobody disturbed."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest
import yaml
from sameness import differences
from test_curate import make_uploads

from beam_pipeline.verify import verify
from transforms.tables import NoDataset

#: One after the other over the same dataset: the second replaces every row.
CONFIGS = [["lite-frame", "lite-text"], ["lite-frame", "lite-text", "lite-motion"]]


def commands(folder: pathlib.Path, output: pathlib.Path) -> list[list[str]]:
    made = []
    for number, teachers in enumerate(CONFIGS):
        path = folder / f"config{number}.yaml"
        stitching = {"still_distance": None, "redundant_distance": None, "min_event_s": 1.0}
        path.write_text(yaml.safe_dump({"extends": "lite", "teachers": teachers, "stitching": stitching}))
        command = [sys.executable, "-m", "beam_pipeline.cli", "curate", "--input", str(folder / "uploads")]
        command += ["--output", str(output), "--config", str(path), "--chunk-videos", "2"]
        made.append([*command, "--max-failed-fraction", "1"])
    return made


def start(command: list[str]) -> subprocess.Popen:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def breaches(output: pathlib.Path) -> list[str]:
    try:
        return verify(output)
    except NoDataset:
        return []  # Killed before there was one.


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_a_hundred_kills_at_random_instants_change_no_row(tmp_path):
    make_uploads(tmp_path / "uploads")
    undisturbed, lengths = tmp_path / "undisturbed", []
    for command in commands(tmp_path, undisturbed):
        began = time.monotonic()
        assert subprocess.run(command, capture_output=True, check=False, timeout=600).returncode == 0
        lengths.append(time.monotonic() - began)
    seed = random.randrange(1 << 32)
    print(f"seed {seed}; undisturbed the runs take {lengths}")
    dice, kills, finished = random.Random(seed), 0, 0
    while kills < int(os.environ.get("REELSCRIBE_KILLS", "100")):
        output = tmp_path / f"disturbed{finished}"
        for command, length in zip(commands(tmp_path, output), lengths, strict=True):
            while True:
                running = start(command)
                try:
                    # Beyond its end, too: then the run that was left alone has to be right.
                    _, told = running.communicate(timeout=dice.uniform(0.0, 1.2 * length))
                except subprocess.TimeoutExpired:
                    os.killpg(running.pid, signal.SIGKILL)
                    running.communicate()
                    kills += 1
                    assert breaches(output) == [], f"after kill {kills}"
                    continue
                assert running.returncode == 0, told.decode()[-2000:]
                assert breaches(output) == []
                break
        assert differences(output, undisturbed, either_of_a_tie=True) == []
        finished += 1
    print(f"{kills} kills, {finished} datasets finished")
