"""Exposure: known greys give known numbers, and bars and one odd frame do not count."""

import numpy as np
import pytest
from lite_media import clip_of, photographs, write_reel

from model_handlers.measures.exposure import MEASURE, Exposure, exposure_of, measure_exposure
from model_handlers.measures.view import ClipView


def plain(*levels: int) -> np.ndarray:
    """Stripes of these grey levels, each as wide as the others."""
    return np.repeat(np.repeat(np.uint8(levels), 40)[None, :, None], 90, 0).repeat(3, 2)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ((0,), Exposure(0.0, 0.0, 1.0, 0.0)),
        ((255,), Exposure(1.0, 0.0, 0.0, 1.0)),
        ((0, 255), Exposure(0.5, 0.5, 0.5, 0.5)),
        ((51, 153), Exposure(0.4, 0.2, 0.0, 0.0)),
        ((8, 9, 246, 247), Exposure(0.5, 238 / 510, 0.25, 0.25)),
    ],
)
def test_known_greys_give_known_numbers(levels, expected):
    found = exposure_of([plain(*levels)])
    assert (found.underexposed, found.overexposed) == (expected.underexposed, expected.overexposed)
    assert (found.brightness, found.contrast) == pytest.approx((expected.brightness, expected.contrast), abs=2e-3)


@pytest.mark.parametrize("factor", [0.1, 0.3, 0.6, 1.0])
def test_brightness_and_contrast_follow_the_light_through_a_real_reel(tmp_path, factor):
    for number, photo in enumerate(photographs().values()):
        seen = (photo * factor).round().astype(np.uint8)
        luma = seen @ np.array([0.299, 0.587, 0.114]) / 255
        found = measure_exposure(ClipView(clip_of(write_reel(tmp_path / f"{number}.arrow", [seen]), 1)))
        assert found["brightness"] == pytest.approx(luma.mean(), abs=0.005)
        assert found["contrast"] == pytest.approx(luma.std(), abs=0.005)
        assert found["underexposed"] == pytest.approx((luma < 8.5 / 255).mean(), abs=0.02)


def test_bars_do_not_count(tmp_path):
    photo = photographs()["temple"][:300, :600]
    bare = measure_exposure(ClipView(clip_of(write_reel(tmp_path / "bare.arrow", [photo] * 3), 3)))
    barred = np.zeros((420, 600, 3), np.uint8)
    barred[60:360] = photo
    found = measure_exposure(ClipView(clip_of(write_reel(tmp_path / "barred.arrow", [barred] * 3), 3)))
    assert found == pytest.approx(bare, abs=0.005)


def test_one_flash_does_not_make_a_dark_clip_bright():
    assert exposure_of([plain(30), plain(255), plain(30)]) == exposure_of([plain(30)])


def test_the_measure_fills_the_columns_that_it_names(tmp_path):
    view = ClipView(clip_of(write_reel(tmp_path / "reel.arrow", [plain(10, 200)]), 1))
    assert tuple(MEASURE.load()(view)) == MEASURE.columns
