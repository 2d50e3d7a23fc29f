"""Crops and frames as they are drawn in training."""

import random

import numpy as np
import pytest
from lite_media import clip_of, write_reel

from beam_pipeline.training.augmentation import AREA, RATIO, View, draw_rows, draw_view, drawn_frames, tell_sides


@pytest.mark.parametrize("aspect", [16 / 9, 1.0, 9 / 16, 4 / 3])
def test_a_view_holds_half_of_the_frame_or_more_and_is_nearly_square(aspect):
    rng = random.Random(1)
    views = [draw_view(aspect, rng) for _ in range(500)]
    areas = [view.height * view.width for view in views]
    ratios = [aspect * view.width / view.height for view in views]
    assert AREA[0] <= min(areas) < 0.53 and max(areas) <= AREA[1]
    assert RATIO[0] - 1e-9 <= min(ratios) and max(ratios) <= RATIO[1] + 1e-9
    assert all(0 <= view.top <= 1 - view.height and 0 <= view.left <= 1 - view.width for view in views)
    assert not any(view.mirrored for view in views)


def test_views_are_spread_as_torchvisions():
    torch, transforms = pytest.importorskip("torch"), pytest.importorskip("torchvision.transforms")
    torch.manual_seed(0)
    rng, picture = random.Random(0), torch.zeros(3, 180, 320)
    theirs = [transforms.RandomResizedCrop.get_params(picture, [*AREA], [*RATIO]) for _ in range(1500)]
    ours = [draw_view(320 / 180, rng) for _ in range(1500)]
    for mine, other in (
        ([view.height for view in ours], [height / 180 for _, _, height, _ in theirs]),
        ([view.left for view in ours], [left / 320 for _, left, _, _ in theirs]),
    ):
        assert np.mean(mine) == pytest.approx(np.mean(other), abs=0.02)
        assert np.quantile(mine, 0.9) == pytest.approx(np.quantile(other, 0.9), abs=0.03)


@pytest.mark.parametrize(
    ("aspect", "view"), [(8.0, View(0.0, 5 / 12, 1.0, 1 / 6)), (0.125, View(5 / 12, 0.0, 1 / 6, 1.0))]
)
def test_of_a_strip_the_middle_is_seen(aspect, view):
    found = draw_view(aspect, random.Random(0))
    assert (found.top, found.left, found.height, found.width) == pytest.approx(
        (view.top, view.left, view.height, view.width)
    )


def test_half_of_the_views_are_mirrored_where_that_is_asked_for():
    rng = random.Random(0)
    assert 0.45 < np.mean([draw_view(1.5, rng, mirror=True).mirrored for _ in range(1000)]) < 0.55


@pytest.mark.parametrize(
    ("view", "cut"),
    [
        (View(0.0, 0.0, 1.0, 1.0), [[0, 1, 2, 3], [4, 5, 6, 7]]),
        (View(0.5, 0.25, 0.5, 0.5), [[5, 6]]),
        (View(0.0, 0.5, 1.0, 0.5, mirrored=True), [[3, 2], [7, 6]]),
        (View(1.0, 1.0, 0.0, 0.0), [[7]]),
    ],
)
def test_a_view_is_cut_out_of_frames_of_any_size(view, cut):
    frame = np.arange(8, dtype=np.uint8).reshape(2, 4)[..., None].repeat(3, 2)
    assert view.of(frame)[..., 0].tolist() == cut
    larger = frame.repeat(3, 0).repeat(3, 1)
    assert view.of(larger).shape[:2] == (3 * len(cut), 3 * len(cut[0])) or cut == [[7]]


@pytest.mark.parametrize(
    ("captions", "sides"),
    [
        (["A man turns to the LEFT."], True),
        (["a dog", "the rightmost car"], True),
        (["a left-handed batter"], True),
        (["a bright street", "the leftovers"], False),
        ([], False),
    ],
)
def test_captions_that_tell_left_from_right_are_known(captions, sides):
    assert tell_sides(captions) is sides


def test_one_row_of_each_part_is_drawn_in_order():
    rows, rng = list(range(10, 34)), random.Random(0)
    draws = [draw_rows(rows, 12, rng) for _ in range(200)]
    assert all([(row - 10) // 2 for row in draw] == list(range(12)) for draw in draws)
    assert {draw[0] for draw in draws} == {10, 11}
    assert draw_rows([3, 5, 8], 4, rng) == draw_rows([3, 5, 8], 3, rng) == [3, 5, 8]


def test_all_frames_of_a_clip_are_cut_and_mirrored_alike(tmp_path):
    ramp = np.broadcast_to(np.linspace(0, 255, 80).astype(np.uint8)[None, :, None], (45, 80, 3))
    clip = clip_of(write_reel(tmp_path / "r.arrow", [ramp] * 6), 6)
    seen = set()
    for seed in range(12):
        frames = drawn_frames(clip, 4, ["a dog"], random.Random(seed), mirror=True)
        assert len(frames) == 4 and all(np.array_equal(frame, frames[0]) for frame in frames)
        assert frames[0].shape != (45, 80, 3)
        seen.add(bool(frames[0][0, 0, 0] > frames[0][0, -1, 0]))
        never = drawn_frames(clip, 4, ["the left dog"], random.Random(seed), mirror=True)
        assert never[0][0, 0, 0] < never[0][0, -1, 0]
    assert seen == {True, False}
