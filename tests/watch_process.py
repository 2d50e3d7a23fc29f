"""`reelscribe watch` in a process of its own, and the dataset of a run that nobody disturbed.

with Watch(folder, "--input", uploads) as watch:
    wait_for(lambda: "a.mp4" in statuses(watch.output))
    assert watch.stop() == 0
assert differences(watch.output, curate(folder, uploads)) == []
"""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Self

import yaml

from beam_pipeline.cli import main
from beam_pipeline.config import load_config
from beam_pipeline.feeds import Feed
from beam_pipeline.job import JobOptions, Summary
from beam_pipeline.watching import WatchOptions, watch
from transforms.tables import current_videos

ROOT = pathlib.Path(__file__).parents[1]
#: Small and quick: two teachers, of which one needs words.
CONFIG = {
    "extends": "lite",
    "teachers": ["lite-frame", "lite-text"],
    "stitching": {"still_distance": None, "redundant_distance": None, "min_event_s": 1.0},
}


def config_in(folder: pathlib.Path) -> str:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    return str(path)


def watch_out(folder: pathlib.Path, feed: Feed, idle_s: float = 1.0) -> list[Summary]:
    """Watch in this process, which costs no start, until nothing comes any more; return the runs' summaries."""
    config, how = load_config(file=config_in(folder)), WatchOptions(quiet_s=idle_s, idle_exit_s=idle_s)
    return list(watch(feed, str(folder / "set"), config, JobOptions(), how, threading.Event(), lambda line: None))


def curate(folder: pathlib.Path, *inputs: object) -> pathlib.Path:
    """An undisturbed run over what is there now; returns the dataset."""
    output = folder / "undisturbed"
    places = ["--input", *map(str, inputs), "--output", str(output)]
    assert main(["curate", *places, "--config", config_in(folder), "--max-failed-fraction", "1"]) == 0
    return output


class Watch:
    """A watch that writes to `folder / "set"`; it is killed at the end of the block, if it is still there."""

    def __init__(self, folder: pathlib.Path, *arguments: object):
        self.output = folder / "set"
        command = [sys.executable, "-m", "beam_pipeline.cli", "watch", "--output", str(self.output)]
        with open(folder / "watch.log", "ab") as log:
            self._process = subprocess.Popen(
                [*command, "--config", config_in(folder), *map(str, arguments)],
                cwd=ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._log = folder / "watch.log"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def said(self) -> str:
        """All that this watch, and those before it in the folder, said so far."""
        return self._log.read_text()

    @property
    def ended(self) -> int | None:
        """The exit status; None while it runs."""
        return self._process.poll()

    def kill(self) -> None:
        """End it by SIGKILL; what it started has to end by itself."""
        self._process.kill()
        self._process.wait()

    def tell(self, number: int = signal.SIGTERM) -> None:
        self._process.send_signal(number)

    def wait(self, seconds: float = 120.0) -> int:
        """Wait until it ends by itself; return the exit status."""
        return self._process.wait(timeout=seconds)

    def stop(self, seconds: float = 120.0) -> int:
        """Ask it to stop, and wait until it has finished; return the exit status."""
        self.tell()
        return self.wait(seconds)

    def until(self, done: Callable[[], Any], seconds: float = 150.0) -> float:
        """Wait until something is the case, while the watch runs; return how long it took, in seconds."""
        began = time.monotonic()
        while not done():
            assert self.ended is None, f"the watch ended with status {self.ended}: {self.said[-3000:]}"
            assert time.monotonic() < began + seconds, f"waited in vain: {self.said[-3000:]}"
            time.sleep(0.1)
        return time.monotonic() - began


def statuses(output: pathlib.Path) -> dict[str, str]:
    """What readers of the Delta tables see: the status of each video, by its file's name."""
    if not (output / "videos" / "_delta_log").is_dir():
        return {}
    return {os.path.basename(video.uri): video.status for video in current_videos(str(output)).values()}
