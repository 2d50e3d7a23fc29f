"""The decoding process: crashes, stalls, memory, and the end of its parent cost one video or nothing."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from synthetic import make_video, repeat_video

from transforms import child, media_errors
from transforms.child import DecoderChild, Limits
from transforms.detection import SplittingConfig, detect_shots

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = dataclasses.asdict(SplittingConfig())


@pytest.fixture
def decoder():
    made = DecoderChild(Limits.memory_bytes)
    yield made
    made.close()


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> str:
    return str(make_video(tmp_path_factory.mktemp("child") / "a.mp4", [(1.0, "red"), (2.0, "blue")]))


@pytest.fixture(scope="module")
def long_video(tmp_path_factory) -> str:
    """Two minutes: seconds to decode."""
    folder = tmp_path_factory.mktemp("long")
    short = make_video(folder / "short.mp4", [(2.0, "red")], size=(640, 360))
    return str(repeat_video(folder / "long.mp4", short, 60))


def gone(pid: int, within_s: float = 5.0) -> bool:
    """Whether the process ends in time (a zombie has ended)."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            if pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


def test_the_child_answers_as_the_parent_would(decoder, video):
    asked = decoder.ask({"task": "shots", "path": video, "config": CONFIG}, Limits())
    assert asked == detect_shots(video)
    assert decoder.ask({"task": "ping"}, Limits()) == decoder.pid


def test_a_file_that_is_no_video_costs_an_error_not_the_child(decoder, tmp_path):
    (tmp_path / "x.mp4").write_bytes(b"<html></html>")
    with pytest.raises(media_errors.NotAVideo, match="is a text file"):
        decoder.ask({"task": "shots", "path": str(tmp_path / "x.mp4"), "config": CONFIG}, Limits())
    assert decoder.ask({"task": "ping"}, Limits()) == decoder.pid


@pytest.mark.parametrize("number, name", [(signal.SIGSEGV, "SIGSEGV"), (signal.SIGABRT, "SIGABRT")])
def test_a_crash_in_the_middle_of_a_video_is_told_as_such(decoder, long_video, number, name):
    decoder.ask({"task": "ping"}, Limits())
    crash = threading.Timer(0.4, os.kill, (decoder.pid, number))
    crash.start()
    with pytest.raises(child.DecoderCrashed, match=f"was ended by {name} while it read this video"):
        decoder.ask({"task": "shots", "path": long_video, "config": CONFIG}, Limits())
    assert not decoder.alive


def test_a_decoder_that_stands_still_is_killed(decoder, video):
    decoder.ask({"task": "ping"}, Limits())
    os.kill(decoder.pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(child.DecoderStalled, match=r"decoding stood still for 0.3 s; the decoder was killed"):
        decoder.ask({"task": "shots", "path": video, "config": CONFIG}, Limits(stall_s=0.3))
    assert time.monotonic() - began < 3 and gone(decoder.pid)


def test_a_total_deadline_ends_even_a_decoder_that_makes_progress(decoder, long_video):
    decoder.ask({"task": "ping"}, Limits())
    with pytest.raises(child.DecoderStalled, match=r"decoding took longer than 0.1 s"):
        decoder.ask({"task": "shots", "path": long_video, "config": CONFIG}, Limits(deadline_s=0.1))


def test_memory_beyond_the_limit_costs_that_video(tmp_path, monkeypatch):
    # With one thread the libraries take less, and the picture would fit.
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    path = str(make_video(tmp_path / "large.mp4", [(0.08, np.zeros((2, 2, 3), np.uint8))], size=(7680, 4320)))
    small = Limits(memory_bytes=513 << 20)
    with pytest.raises(child.DecoderOutOfMemory, match=r"decoding needs more than the 0.501 GiB it may use"):
        child.decode("shots", {"path": path, "config": CONFIG}, small)
    assert child.decode("shots", {"path": path, "config": CONFIG}, Limits())["frames"] == 2


def test_one_child_serves_video_after_video_and_a_dead_one_is_replaced(video):
    request = {"path": video, "config": CONFIG}
    child.close_idle()
    first = child.decode("ping", {}, Limits())
    child.decode("shots", request, Limits())
    assert child.decode("ping", {}, Limits()) == first
    os.kill(first, signal.SIGKILL)
    assert gone(first)
    assert child.decode("shots", request, Limits())["frames"] == 75
    assert child.decode("ping", {}, Limits()) != first
    child.close_idle()


def test_what_a_killed_child_began_to_write_is_taken_away(tmp_path, video, long_video):
    reel = tmp_path / "reels" / "a.arrow"
    request = {"path": long_video, "reel": str(reel), "etag": "1-1", "config": CONFIG}
    child.decode("shots", {"path": video, "config": CONFIG}, Limits())  # by now it has imported all that it needs
    with pytest.raises(child.DecoderStalled):
        child.decode("split", request, Limits(deadline_s=0.4))
    assert os.listdir(reel.parent) == []


def test_ctrl_c_is_for_the_parent_alone(decoder):
    decoder.ask({"task": "ping"}, Limits())
    os.kill(decoder.pid, signal.SIGINT)
    assert decoder.ask({"task": "ping"}, Limits()) == decoder.pid


PARENT = """
import sys, threading
from transforms.child import DecoderChild, Limits
made = DecoderChild(Limits.memory_bytes)
made.ask({"task": "ping"}, Limits())
print(made.pid, flush=True)
if sys.argv[1] == "idle":
    threading.Event().wait()
made.ask({"task": "shots", "path": sys.argv[2], "config": {}}, Limits())
"""


@pytest.mark.parametrize("state", ["idle", "decoding"])
def test_the_child_ends_when_its_parent_is_killed(long_video, state):
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, state, long_video], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        pid = int(parent.stdout.readline())
        time.sleep(0.3)
        assert pathlib.Path(f"/proc/{pid}").exists()
        parent.kill()
        assert gone(pid)


def test_a_child_that_hangs_in_native_code_with_pythons_lock_ends_with_its_parent():
    hang = (
        "import ctypes, os, sys\n"
        "from transforms.decoder import end_with\n"
        "end_with(int(sys.argv[1])); print('armed', flush=True)\n"
        "ctypes.PyDLL(None).sleep(60)\n"  # PyDLL keeps the lock, and no signal handler of Python can run
    )
    reading, writing = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", hang, str(reading)], cwd=ROOT, pass_fds=(reading,), stdout=subprocess.PIPE, text=True
    ) as hung:
        os.close(reading)
        assert hung.stdout.readline() == "armed\n"
        time.sleep(0.1)
        assert hung.poll() is None
        os.close(writing)
        assert hung.wait(5) == -signal.SIGIO


def test_the_child_finds_the_packages_from_any_folder_and_takes_no_code_from_it(tmp_path):
    (tmp_path / "json.py").write_text("raise SystemExit('taken from the working directory')")
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import os; from transforms.child import decode, Limits\n"
        f"os.chdir({str(tmp_path)!r}); print(decode('ping', {{}}, Limits()) > 0)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd="/", capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
