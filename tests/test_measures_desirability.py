"""Desirability: which of Panda-70M's labels a clip's measures come to."""

import numpy as np
import pytest
from lite_media import clip_of, texture, write_reel

from model_handlers.measures import motion, screens
from model_handlers.measures.desirability import LABELS, MEASURE, NEEDED, Limits, desirable_filtering
from model_handlers.measures.view import ClipView

MOVING = {
    "motion": 0.3,
    "camera_motion": 0.1,
    "subject_motion": 0.2,
    "screen_in_screen": 0.0,
    "screen_recording": 0.0,
}
LIMITS = Limits(
    screen_recording=0.6,
    screen_in_screen=0.5,
    still=0.01,
    still_subject=0.02,
    tiny_camera=0.05,
    technical_quality=0.4,
    aesthetic=4.5,
)


@pytest.mark.parametrize(
    ("measured", "label"),
    [
        ({}, "desirable"),
        ({"screen_recording": 0.6}, "4_computer_screen_recording"),
        ({"screen_recording": 0.59}, "desirable"),
        ({"screen_in_screen": 0.5}, "3_screen_in_screen"),
        ({"screen_in_screen": 0.9, "screen_recording": 0.9}, "4_computer_screen_recording"),
        # A photograph that is shown, and one that is panned.
        ({"motion": 0.01, "camera_motion": 0.0, "subject_motion": 0.0}, "1_still_foreground_image"),
        ({"motion": 0.2, "camera_motion": 0.2, "subject_motion": 0.02}, "1_still_foreground_image"),
        # A hand that shakes while nothing happens.
        ({"motion": 0.04, "camera_motion": 0.05, "subject_motion": 0.02}, "2_tiny_camera_movement"),
        # A tripod before somebody who moves.
        ({"motion": 0.03, "camera_motion": 0.0, "subject_motion": 0.03}, "desirable"),
        ({"motion": 0.0, "camera_motion": 0.0, "subject_motion": 0.0, "screen_in_screen": 1.0}, "3_screen_in_screen"),
        ({"technical_quality": 0.39}, "0_low_desirable_score"),
        ({"technical_quality": 0.4, "aesthetic": None}, "desirable"),
        ({"technical_quality": 0.9, "aesthetic": 4.4}, "0_low_desirable_score"),
        # What scores low and does not move is told by what is surer.
        ({"motion": 0.0, "aesthetic": 1.0}, "1_still_foreground_image"),
    ],
)
def test_a_clip_has_the_first_label_that_holds_of_it(measured, label):
    assert desirable_filtering({**MOVING, **measured}, LIMITS) == label


@pytest.mark.parametrize("missing", NEEDED)
def test_without_one_of_the_measures_there_is_no_label(missing):
    assert desirable_filtering({**MOVING, missing: None}, LIMITS) is None
    assert desirable_filtering({name: value for name, value in MOVING.items() if name != missing}, LIMITS) is None


def test_the_labels_are_spelled_as_panda70m_spells_them():
    assert sorted(LABELS) == [
        "0_low_desirable_score",
        "1_still_foreground_image",
        "2_tiny_camera_movement",
        "3_screen_in_screen",
        "4_computer_screen_recording",
        "desirable",
    ]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"still": -0.1}, "still must be between 0 and 10, not -0.1"),
        ({"screen_recording": 1.1}, "screen_recording must be between 0 and 1, not 1.1"),
        ({"aesthetic": 11.0}, "aesthetic must be between 0 and 10, not 11.0"),
        ({"tiny_camera": float("nan")}, "tiny_camera must be between 0 and 10, not nan"),
    ],
)
def test_a_limit_that_can_never_hold_is_refused(wrong, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Limits(**wrong)


def test_a_photograph_that_is_shown_is_no_film(tmp_path):
    view = ClipView(clip_of(write_reel(tmp_path / "still.arrow", [np.ascontiguousarray(texture())] * 6), 6))
    values = {**motion.MEASURE.load()(view), **screens.MEASURE.load()(view)}
    assert MEASURE.make(values) == "1_still_foreground_image"
    assert {column for column in NEEDED if column not in values} == set()
