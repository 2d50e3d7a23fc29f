"""Blur: the published measure's numbers, higher for more blur, the same at any resolution and behind bars."""

import cv2
import numpy as np
import pytest
import skimage.measure
from lite_media import clip_of, photographs, write_reel

from model_handlers.measures.blur import MEASURE, blur_of, blur_of_luma, measure_blur
from model_handlers.measures.view import ClipView


def luma_of(photo: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255


@pytest.mark.parametrize("name", ["cat", "coffee", "rocket", "temple", "flower"])
@pytest.mark.parametrize("sigma", [0.0, 1.5, 5.0])
def test_the_blur_is_that_of_the_reference_implementation(name, sigma):
    luma = luma_of(photographs()[name])
    luma = cv2.GaussianBlur(luma, (0, 0), sigma) if sigma else luma
    assert blur_of_luma(luma) == pytest.approx(skimage.measure.blur_effect(luma), abs=1e-3)


@pytest.mark.parametrize("name", ["cat", "coffee", "rocket", "temple", "flower"])
def test_more_blur_measures_higher(name):
    photo = photographs()[name]
    blurs = [blur_of(photo)] + [blur_of(cv2.GaussianBlur(photo, (0, 0), sigma)) for sigma in (1, 2, 4, 8)]
    assert blurs == sorted(blurs)
    assert blurs[3] - blurs[0] > 0.2 and blurs[4] > 0.75


def test_a_blur_along_one_direction_alone_is_seen():
    photo = photographs()["temple"]
    assert blur_of(cv2.blur(photo, (25, 1))) > 0.7 > 0.4 > blur_of(photo)


def test_the_size_of_the_picture_does_not_count():
    photo = photographs()["flower"]
    sizes = [cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for scale in (1.0, 0.8, 0.65)]
    assert np.ptp([blur_of(picture) for picture in sizes]) < 0.03


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_plain_picture_has_no_edge_to_be_blurred(tmp_path, grey):
    plain = np.full((120, 200, 3), grey, np.uint8)
    assert blur_of(plain) is None
    assert measure_blur(ClipView(clip_of(write_reel(tmp_path / "reel.arrow", [plain] * 2), 2))) == {"blur": None}


def test_bars_do_not_make_a_blurred_clip_sharp(tmp_path):
    photo = cv2.GaussianBlur(photographs()["temple"][:300, :600], (0, 0), 4)
    barred = np.zeros((420, 600, 3), np.uint8)
    barred[60:360] = photo
    view = ClipView(clip_of(write_reel(tmp_path / "barred.arrow", [barred] * 3), 3))
    assert measure_blur(view)["blur"] == pytest.approx(blur_of(photo), abs=0.02)


def test_the_blur_of_a_clip_is_its_middle_frames(tmp_path):
    photo = photographs()["flower"]
    blurred = cv2.GaussianBlur(photo, (0, 0), 6)
    view = ClipView(clip_of(write_reel(tmp_path / "reel.arrow", [photo, photo, blurred]), 3))
    assert measure_blur(view)["blur"] == pytest.approx(blur_of(photo), abs=0.02)
    assert tuple(MEASURE.load()(view)) == MEASURE.columns
