"""Boundaries are counted as the field counts them, to the published figure."""

import numpy as np
import pytest

from transforms.boundary_scores import Counts, compare, total, transitions_of_scores
from transforms.truth import Transition, cut_at, read_truth


def cuts(*frames: int) -> list[Transition]:
    return [cut_at(frame) for frame in frames]


@pytest.mark.parametrize(
    ("true", "found", "tolerance", "expected"),
    [
        (cuts(30, 76), cuts(30, 76), 0, Counts(2, 0, 0)),
        (cuts(30), cuts(31), 0, Counts(0, 1, 1)),
        (cuts(30), cuts(31), 1, Counts(1, 0, 0)),
        (cuts(30), cuts(29), 1, Counts(1, 0, 0)),
        (cuts(30), cuts(32), 1, Counts(0, 1, 1)),
        (cuts(30), cuts(28), 2, Counts(1, 0, 0)),
        (cuts(30), cuts(33), 2, Counts(0, 1, 1)),
        # One to one: of two found beside one true cut one is wrong, and one found stands for one of two true.
        (cuts(30), cuts(29, 30, 31), 1, Counts(1, 2, 0)),
        (cuts(29, 31), cuts(30), 1, Counts(1, 0, 1)),
        # A dissolve is matched by a cut inside it, or that much outside.
        ([Transition(87, 100)], cuts(95), 0, Counts(1, 0, 0)),
        ([Transition(87, 100)], cuts(88), 0, Counts(1, 0, 0)),
        ([Transition(87, 100)], cuts(100), 0, Counts(1, 0, 0)),
        ([Transition(87, 100)], cuts(101), 0, Counts(0, 1, 1)),
        ([Transition(87, 100)], cuts(87), 0, Counts(0, 1, 1)),
        ([Transition(87, 100)], cuts(102), 2, Counts(1, 0, 0)),
        ([Transition(87, 100)], cuts(90, 95), 0, Counts(1, 1, 0)),
        ([Transition(87, 100)], [Transition(92, 110)], 0, Counts(1, 0, 0)),
        # In any order, and empty ones.
        (cuts(76, 30), cuts(31, 90, 75), 1, Counts(2, 1, 0)),
        ([], cuts(5), 2, Counts(0, 1, 0)),
        (cuts(5), [], 2, Counts(0, 0, 1)),
        ([], [], 2, Counts()),
    ],
)
def test_transitions_match_one_to_one_within_the_tolerance(true, found, tolerance, expected):
    assert compare(true, found, tolerance) == expected


def test_swapping_true_and_found_swaps_wrong_and_missed():
    draw = np.random.default_rng(3)
    for _ in range(200):
        true, found = (cuts(*draw.choice(np.arange(1, 60), size=8, replace=False)) for _ in range(2))
        one, other = compare(true, found, 2), compare(found, true, 2)
        assert (one.right, one.wrong, one.missed) == (other.right, other.missed, other.wrong)
        assert (one.right + one.missed, one.right + one.wrong) == (8, 8)


def test_a_negative_tolerance_is_refused():
    with pytest.raises(ValueError, match="0 frames or more, not -1"):
        compare([], [], -1)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (Counts(6, 2, 4), (0.75, 0.6, 2 / 3)),
        (Counts(0, 0, 3), (None, 0.0, 0.0)),
        (Counts(0, 3, 0), (0.0, None, 0.0)),
        (Counts(), (None, None, None)),
    ],
)
def test_scores_are_told_where_there_is_something_to_divide_by(counts, expected):
    assert (counts.precision, counts.recall, counts.f1) == pytest.approx(expected)


def test_videos_are_added_up_before_anything_is_divided():
    assert total([Counts(9, 1, 0), Counts(0, 0, 1)]) == Counts(9, 1, 1)
    assert total([]) == Counts()


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0, 0, 1, 0, 0], [Transition(2, 3)]),
        ([0, 0, 1, 1, 1, 0], [Transition(2, 5)]),
        ([0, 1, 0, 0, 1, 0], [Transition(1, 2), Transition(4, 5)]),
        ([1, 1, 0, 0], []),
        ([0, 0, 1], []),
        ([0.5, 0.5], []),
        ([], []),
    ],
)
def test_a_run_of_scores_above_the_threshold_is_one_transition(scores, expected):
    assert transitions_of_scores(scores, 0.5) == tuple(expected)


def test_the_published_scores_of_a_published_detector_are_met(shared_dir):
    path = shared_dir / "captions" / "autoshot_200.npz"
    with np.load(path, allow_pickle=False) as arrays:
        counts = total(
            compare(truth.transitions, transitions_of_scores(arrays[f"{truth.name}/prob"].ravel(), 0.296), 2)
            for truth in read_truth(str(path))
        )
    assert counts == Counts(2098, 378, 418)
    assert (counts.f1, counts.precision, counts.recall) == pytest.approx((0.8405, 0.8473, 0.8339), abs=1e-4)
