"""Borders: bars of any flat colour are found to the pixel; dark scenes, white backgrounds and floors are none."""

import numpy as np
import pytest
from lite_media import clip_of, photographs, texture, write_reel
from synthetic import write_frames

from model_handlers.measures import content
from model_handlers.measures.borders import MEASURE, crop_of, measure_borders
from model_handlers.measures.content import WHOLE, Box, content_box, find_box, inside, size_at
from model_handlers.measures.view import ClipView
from transforms.detection import SplittingConfig
from transforms.records import Clip, Span, Video
from transforms.splitting import split_of, split_video

SIZE = (640, 360)


def framed(box: tuple[int, int, int, int], colour, count: int = 6, picture: np.ndarray | None = None):
    """Frames of `SIZE` whose content, left to bottom of `box`, drifts."""
    left, top, right, bottom = box
    frames = []
    for at in range(count):
        frame = np.full((SIZE[1], SIZE[0], 3), colour, np.uint8)
        photo = texture(900, 500) if picture is None else np.tile(picture, (2, 2, 1))
        frame[top:bottom, left:right] = photo[at : at + bottom - top, 2 * at : 2 * at + right - left]
        frames.append(frame)
    return frames


def view_of(tmp_path, frames) -> ClipView:
    return ClipView(clip_of(write_reel(tmp_path / "reel.arrow", frames), len(frames)))


@pytest.mark.parametrize("colour", [(0, 0, 0), (16, 16, 16), (255, 255, 255), (128, 128, 128), (20, 40, 160)])
@pytest.mark.parametrize(
    "box", [(0, 46, 640, 314), (0, 6, 640, 354), (80, 0, 560, 360), (220, 0, 420, 360), (100, 60, 540, 300)]
)
def test_bars_on_two_or_four_sides_are_found_to_two_pixels_in_any_flat_colour(tmp_path, box, colour):
    found = measure_borders(view_of(tmp_path, framed(box, colour)))
    left, top, right, bottom = box
    crop = found["crop"]
    corners = np.array([crop[0], crop[1], crop[0] + crop[2], crop[1] + crop[3]])
    assert np.abs(corners - box).max() <= 2
    # Rounded inwards: no line of the bar stays.
    assert (corners[:2] >= (left, top)).all() and (corners[2:] <= (right, bottom)).all()
    true = 1 - (right - left) * (bottom - top) / (640 * 360)
    assert found["border_share"] == pytest.approx(true, abs=0.01)


def dark_scene():
    """A lamp that lights its surroundings and fades to black."""
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]]
    light = 255 * np.exp(-((rows - 180) ** 2 + (columns - 320) ** 2) / 9000)
    return [np.repeat(np.roll(light, 4 * at, 1)[..., None], 3, 2).astype(np.uint8) for at in range(5)]


def white_background():
    """A cup on a white ground, photographed off the middle."""
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]]
    disc = (rows - 190) ** 2 + (columns - 300) ** 2 < 120**2
    return [np.where(disc[..., None], texture(*SIZE), 255).astype(np.uint8)] * 4


def dusk():
    """A landscape that gets light from the horizon down, below a sky of pure black."""
    light = np.clip((np.arange(360) - 60) / 200, 0, 1)[:, None, None]
    return [(texture(*SIZE, seed=at) * light).astype(np.uint8) for at in range(4)]


def floor():
    """A plain light floor below everything."""
    return framed((0, 0, 640, 290), (170, 160, 150))


def bars_that_move():
    """A wipe: a black edge that travels."""
    return [framed((0, 40 * at, 640, 360), 0, 1)[0] for at in range(1, 6)]


@pytest.mark.parametrize("frames", [dark_scene, dusk, white_background, floor, bars_that_move])
def test_a_dark_scene_a_white_ground_a_floor_and_a_wipe_are_no_borders(tmp_path, frames):
    found = measure_borders(view_of(tmp_path, frames()))
    assert found == {"border_share": 0.0, "crop": [0, 0, 640, 360]}


@pytest.mark.parametrize("name", ["cat", "coffee", "rocket", "temple", "flower"])
def test_a_photograph_is_no_border(name):
    assert find_box([photographs()[name]]) == WHOLE


def test_a_black_clip_has_no_border_as_it_has_no_content(tmp_path):
    assert measure_borders(view_of(tmp_path, [np.zeros((360, 640, 3), np.uint8)] * 3))["border_share"] == 0.0


def test_subtitles_on_the_bar_leave_it_a_bar():
    import cv2

    frames = framed((0, 46, 640, 314), 0)
    for frame in frames[1:]:
        cv2.putText(frame, "what a wonderful day it is", (90, 345), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (255, 255, 255), 2)
    box = find_box(frames)
    assert (box.top * 360, box.bottom * 360) == pytest.approx((46, 314), abs=1)


def test_where_a_dark_scene_hides_one_edge_the_other_bar_tells_how_wide_it_is():
    frames = framed((0, 46, 640, 314), 0)
    dusk = np.clip((np.arange(360) - 60) / 200, 0, 1)[:, None, None]
    frames = [(frame * dusk).astype(np.uint8) for frame in frames]
    box = find_box(frames)
    assert (box.top * 360, box.bottom * 360) == pytest.approx((46, 314), abs=1)


def test_one_black_bar_is_a_border_and_one_bright_bar_is_none():
    assert find_box(framed((0, 0, 640, 314), 0)).bottom * 360 == pytest.approx(314, abs=1)
    assert find_box(framed((0, 0, 640, 314), 200)) == WHOLE


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 3), (17, 40), (64, 64)])
def test_pictures_of_any_size_have_a_content_box_inside_them(size):
    draw = np.random.default_rng(3)
    for share in (0.0, 0.3, 0.48):
        frame = draw.integers(0, 256, (*size, 3), np.uint8)
        frame[: int(share * size[0])], frame[:, : int(share * size[1])] = 0, 0
        box = find_box([frame] * 2)
        assert 0 <= box.left < box.right <= 1 and 0 <= box.top < box.bottom <= 1
        assert box.cut(frame).size > 0


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [((360, 640), 180, (320, 180)), ((640, 360), 90, (90, 160)), ((2, 60_000), 256, (2048, 16)), ((5, 5), 8, (16, 16))],
)
def test_a_very_long_picture_does_not_become_a_very_large_one(size, short_side, expected):
    assert size_at(np.zeros(size, np.uint8), short_side) == expected


@pytest.mark.parametrize(
    ("box", "size", "crop"),
    [
        (WHOLE, (641, 361), (0, 0, 641, 361)),
        (Box(0.0, 0.125, 1.0, 0.875), (1920, 1080), (0, 136, 1920, 808)),
        (Box(0.0, 0.125, 1.0, 0.875), (641, 360), (0, 46, 641, 268)),
        (Box(0.125, 0.0, 0.875, 1.0), (1920, 1080), (240, 0, 1440, 1080)),
        (Box(0.1301, 0.0, 0.8699, 1.0), (1000, 500), (130, 0, 740, 500)),
        (Box(0.132, 0.0, 0.868, 1.0), (1000, 500), (132, 0, 736, 500)),
        (Box(0.1325, 0.0, 0.8675, 1.0), (1000, 500), (134, 0, 732, 500)),
        (Box(0.0, 0.0, 1.0, 0.75), (100, 101), (0, 0, 100, 74)),
    ],
)
def test_the_crop_is_rounded_inwards_to_even_pixels_of_the_source_where_there_is_a_bar(box, size, crop):
    assert tuple(crop_of(box, *size)) == crop


def test_a_cut_frame_holds_no_line_of_the_bar_and_what_has_another_size_is_left_out():
    frames = framed((80, 46, 560, 314), 255)
    box = find_box([*frames, np.zeros((180, 320, 3), np.uint8)])
    assert box.cut(frames[0]).shape == (268, 480, 3)
    assert box.cut(np.zeros((180, 320), np.uint8)).shape == (134, 240)


def test_the_box_is_found_once_a_view(tmp_path, monkeypatch):
    view = view_of(tmp_path, framed((80, 0, 560, 360), 0))
    first = content_box(view)
    monkeypatch.setattr(content, "find_box", lambda frames: pytest.fail("looked for twice"))
    assert content_box(view) is first
    assert [frame.shape for frame in inside(view)] == [(360, 480, 3)] * 6


def test_through_the_splitter_the_crop_is_in_pixels_of_the_source(tmp_path):
    """A film of 1280x720 whose reel is smaller, H.264 and JPEG between the two."""
    import cv2

    path = tmp_path / "film.mp4"
    small = framed((0, 46, 640, 314), 0, count=20)
    write_frames(path, [cv2.resize(frame, (1280, 720)) for frame in small], size=(1280, 720), fps=10)
    reel = str(tmp_path / "film.arrow")
    split = split_of(Video("v", str(path), "1-1", 1), reel, split_video(str(path), reel, SplittingConfig(), etag="1-1"))
    span = Span(0.0, split.media.duration_s)
    view = ClipView(Clip("c", "v", str(path), span, (span,), split.media, reel, "f"))
    crop = MEASURE.load()(view)["crop"]
    assert (crop[0], crop[2]) == (0, 1280)
    assert 92 <= crop[1] <= 96 and 624 <= crop[1] + crop[3] <= 628


#: By eye, in pixels of the source: (left, top, right, bottom).
REAL = {
    "panda70m/J_6TUYXi0PQ.44": (0, 42, 640, 318),
    "panda70m/q4CfXZtnPLE.34": (84, 4, 556, 360),
    "moviepy/chaplin": (74, 0, 568, 360),
    "panda70m/A3y8N3nnVJ8.68": (0, 0, 640, 360),
    "panda70m/OjXeF568qUA.18": (0, 0, 640, 360),
}


@pytest.mark.parametrize("name", REAL)
def test_real_footage_has_the_borders_that_one_sees(tmp_path, shared_dir, name):
    path, reel = shared_dir / "videos" / f"{name}.mp4", str(tmp_path / "real.arrow")
    split = split_of(Video("v", str(path), "1-1", 1), reel, split_video(str(path), reel, SplittingConfig(), etag="1-1"))
    span = Span(0.0, split.media.duration_s)
    crop = measure_borders(ClipView(Clip("c", "v", str(path), span, (span,), split.media, reel, "f")))["crop"]
    found = (crop[0], crop[1], crop[0] + crop[2], crop[1] + crop[3])
    assert np.abs(np.array(found) - REAL[name]).max() <= 2


def test_the_measure_fills_the_columns_that_it_names(tmp_path):
    view = view_of(tmp_path, framed((0, 46, 640, 314), 0, count=2))
    assert tuple(MEASURE.load()(view)) == MEASURE.columns
