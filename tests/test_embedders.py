"""The lite embedder on real pictures: unit vectors, determinism, one look at each frame, bad reels."""

import pathlib
import re
import threading

import numpy as np
import pytest
from lite_media import photographs, texture, write_reel

from benchmarks.calibrate_embedder import auc, best_split, disturbed, operating_points
from model_handlers import catalogue
from model_handlers.frames import Recent, open_reel
from model_handlers.vision import Vision, load_vision
from transforms.records import EmbedRequest, Shot


def shot(first_s: float, last_s: float) -> Shot:
    return Shot(0, 0, 2, 0.0, 1.0, first_s, last_s)


@pytest.fixture(scope="module")
def reel(tmp_path_factory):
    pictures = photographs()
    cat = np.asarray(disturbed(pictures["cat"], np.random.default_rng(1)))
    frames = [pictures["cat"], cat, pictures["coffee"], pictures["rocket"]]
    return write_reel(tmp_path_factory.mktemp("reel") / "r.arrow", frames)


@pytest.fixture(scope="module")
def handler():
    return catalogue.embedder("efficientnet-lite0").build()


def test_boundary_frames_become_unit_vectors_that_know_the_same_picture(handler, reel):
    requests = [EmbedRequest("v", shot(0.0, 0.5), reel), EmbedRequest("v", shot(0.0, 1.0), reel)]
    same, other = handler.run_inference(requests, handler.load_model())
    assert [len(vector) for vector in same.answer] == [1280, 1280]
    assert all(isinstance(value, float) for value in same.answer[0])
    assert [float(np.linalg.norm(vector)) for vector in same.answer] == pytest.approx([1.0, 1.0], abs=1e-5)
    near, far = (float(np.linalg.norm(np.subtract(*outcome.answer))) for outcome in (same, other))
    stitch = catalogue.embedder("efficientnet-lite0").thresholds.stitch
    assert near < stitch < far


def test_same_frame_has_the_same_vector_in_whatever_company(handler, reel):
    model = handler.load_model()
    fresh = Vision(model.net)
    alone = fresh.look(open_reel(reel), [2]).features[0]
    together = Vision(model.net).look(open_reel(reel), [0, 1, 2, 3]).features[2]
    assert np.abs(alone - together).max() < 1e-4


def test_missing_reel_costs_its_request_only(handler, reel, tmp_path):
    requests = [EmbedRequest("v", shot(0.0, 0.5), reel), EmbedRequest("w", shot(0.0, 0.5), str(tmp_path / "no.arrow"))]
    good, bad = handler.run_inference(requests, handler.load_model())
    assert good.failure is None
    assert bad.failure.error_class == "ReelError"
    assert bad.failure.message.startswith("no readable reel at ")


def test_each_frame_goes_through_the_network_once(reel, monkeypatch):
    vision = Vision(load_vision().net)
    looks = []
    original = vision.look_at
    monkeypatch.setattr(vision, "look_at", lambda frames: looks.append(len(frames)) or original(frames))
    first = vision.look(open_reel(reel), [0, 1])
    again = vision.look(open_reel(reel), [1, 0, 1])
    assert looks == [2]
    assert np.array_equal(again.features, first.features[[1, 0, 1]])


def test_reel_written_anew_under_its_name_is_looked_at_anew(tmp_path):
    vision = load_vision()
    path = tmp_path / "r.arrow"
    before = vision.look(open_reel(write_reel(path, [texture(seed=1)])), [0]).features
    after = vision.look(open_reel(write_reel(path, [photographs()["cat"]])), [0]).features
    assert np.abs(before - after).max() > 0.1


def test_memory_is_bounded_and_keeps_what_was_used_last():
    recent = Recent(2)
    recent.put("a", 1)
    recent.put("b", 2)
    assert recent.get("a") == 1
    recent.put("c", 3)
    assert [recent.get(key) for key in "abc"] == [1, None, 3]
    assert len(recent) == 2


def test_threads_share_one_model_and_agree(reel):
    vision = Vision(load_vision().net)
    seen: dict[int, np.ndarray] = {}

    def look(number: int) -> None:
        seen[number] = vision.look(open_reel(reel), [0, 1, 2, 3]).probabilities

    threads = [threading.Thread(target=look, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == [0, 1, 2, 3]
    assert max(float(np.abs(seen[number] - seen[0]).max()) for number in seen) < 1e-5


def test_calibration_finds_the_split_between_two_kinds():
    low, high = np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.6, 0.7])
    assert best_split(low, high) == pytest.approx(0.4)
    assert (auc(low, high), auc(low, low), auc(high, low)) == (1.0, 0.5, 0.0)


def test_calibrated_thresholds_are_those_of_the_catalogue():
    """The whole benchmark decodes 70 videos; its numbers are checked where they are kept, in docs/calibration.md."""
    page = (pathlib.Path(__file__).parents[1] / "docs" / "calibration.md").read_text("utf-8")
    told = {
        rule: float(value)
        for rule, value in re.findall(r"^\| (transition|stitch|still|redundant) \| ([\d.]+) \|", page, re.M)
    }
    limits = catalogue.embedder("efficientnet-lite0").thresholds
    assert told == {
        "transition": limits.transition,
        "stitch": limits.stitch,
        "still": limits.still,
        "redundant": limits.redundant,
    }


def test_operating_points_follow_from_the_distances():
    found = {
        "still": np.linspace(0.0, 0.1, 101),
        "within": np.linspace(0.0, 0.5, 101),
        "jump": np.linspace(0.0, 0.4, 101),
        "cut": np.linspace(0.6, 1.2, 101),
        "film": np.linspace(0.6, 1.0, 11),
        "repeat": np.linspace(0.0, 0.2, 101),
        "other": np.linspace(0.5, 1.2, 1001),
    }
    points = {rule: point.value for rule, point in operating_points(found).items()}
    assert points == {"transition": 0.5, "stitch": 0.5, "still": 0.01, "redundant": 0.19}
