"""Thousands of tiny videos through one watch: each has its row, nothing is a breach, and memory stays."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.soak
@pytest.mark.timeout(6 * 3600)
def test_ten_thousand_videos_pass_through_a_watch_whose_memory_stays(tmp_path):
    videos, written = os.environ.get("REELSCRIBE_VIDEOS", "10000"), tmp_path / "streaming.json"
    command = [sys.executable, "benchmarks/streaming.py", "--videos", videos, "--json", str(written)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(written.read_text())
    assert (found["committed"], found["ok"], found["breaches"]) == (int(videos), int(videos), [])
    assert found["growth_mib"] < 0.1 * found["median_mib"]
