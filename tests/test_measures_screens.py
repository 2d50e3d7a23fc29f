"""Screens: pictures in the picture by their borders, recordings of a screen by what no camera makes."""

import numpy as np
import pytest
from lite_media import clip_of, photographs, write_reel
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from model_handlers.measures.screens import MEASURE, Traits, screen_recording, traits
from model_handlers.measures.view import ClipView

SIZE = (640, 360)
FRAMES = 10


def panned(name: str, speed: float, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    """A window that moves over a photograph: what a camera sees."""
    picture = Image.fromarray(photographs()[name])
    width = picture.width * 0.6
    height = min(width * size[1] / size[0], picture.height * 0.9)
    found = []
    for number in range(FRAMES):
        left, top = (picture.width - width) * (0.05 + speed * number), (picture.height - height) * 0.5
        window = (left, top, left + width, top + height)
        found.append(np.asarray(picture.resize(size, Image.Resampling.BILINEAR, box=window)))
    return found


def laid_in(outer: list[np.ndarray], inner: list[np.ndarray], at: tuple[int, int]) -> list[np.ndarray]:
    made = []
    for around, within in zip(outer, inner, strict=True):
        frame = around.copy()
        frame[at[1] : at[1] + within.shape[0], at[0] : at[0] + within.shape[1]] = within
        made.append(frame)
    return made


def blurred_fill() -> list[np.ndarray]:
    """An upright video before a blurred enlargement of itself."""
    upright = panned("coffee", 0.09, (202, 360))
    behind = [Image.fromarray(frame[120:234]).resize(SIZE).filter(ImageFilter.GaussianBlur(12)) for frame in upright]
    return laid_in([np.asarray(frame) for frame in behind], upright, (219, 0))


def desktop() -> list[np.ndarray]:
    """A window with text on a plain desktop, in which a line is written every second frame."""
    made, font = [], ImageFont.load_default(14)
    for number in range(FRAMES):
        picture = Image.new("RGB", SIZE, (40, 90, 130))
        ink = ImageDraw.Draw(picture)
        ink.rectangle((60, 40, 560, 330), fill="white", outline="black")
        ink.rectangle((60, 40, 560, 62), fill=(70, 70, 80))
        for line in range(6 + number // 2):
            ink.text(
                (70, 70 + 20 * line), f"{line}: the quick brown fox jumps over the lazy dog", fill="black", font=font
            )
        made.append(np.asarray(picture))
    return made


def letterboxed() -> list[np.ndarray]:
    bars = [np.zeros((SIZE[1], SIZE[0], 3), np.uint8)] * FRAMES
    return laid_in(bars, panned("temple", 0.1, (640, 272)), (0, 44))


VIDEOS = {
    "picture in a corner": lambda: laid_in(panned("temple", 0.1), panned("cat", 0.08, (200, 130)), (420, 210)),
    "picture in the middle": lambda: laid_in(panned("flower", 0.1), panned("rocket", 0.08, (260, 180)), (190, 90)),
    "two side by side": lambda: laid_in(panned("temple", 0.1), panned("coffee", 0.08, (320, 360)), (320, 0)),
    "one above the other": lambda: laid_in(panned("flower", 0.1), panned("cat", 0.08, (640, 180)), (0, 0)),
    "before its blurred copy": blurred_fill,
    "desktop": desktop,
    "camera": lambda: panned("temple", 0.1),
    "letterbox": letterboxed,
    "photograph": lambda: [panned("coffee", 0.1)[0]] * FRAMES,
}


@pytest.fixture(scope="module")
def scores(tmp_path_factory) -> dict[str, dict[str, float]]:
    """Both scores of each video, out of a reel."""
    folder, look = tmp_path_factory.mktemp("reels"), MEASURE.load()
    return {
        name: look(ClipView(clip_of(write_reel(folder / f"{number}.arrow", make()), FRAMES)))
        for number, (name, make) in enumerate(VIDEOS.items())
    }


@pytest.mark.parametrize("name", list(VIDEOS)[:5])
def test_a_picture_in_the_picture_is_found_and_is_no_recording(scores, name):
    assert scores[name]["screen_in_screen"] > 0.7
    assert scores[name]["screen_recording"] < 0.2


def test_a_desktop_is_a_recording(scores):
    assert scores["desktop"]["screen_recording"] > 0.8


@pytest.mark.parametrize("name", ["camera", "letterbox", "photograph"])
def test_what_a_camera_saw_is_neither(scores, name):
    assert scores[name]["screen_in_screen"] < 0.05
    assert scores[name]["screen_recording"] < 0.1


def test_one_frame_tells_nothing(tmp_path):
    reel = write_reel(tmp_path / "one.arrow", panned("cat", 0.1)[:1])
    assert MEASURE.load()(ClipView(clip_of(reel, 1))) == {"screen_in_screen": None, "screen_recording": None}


def test_traits_of_a_chessboard_are_known_exactly():
    board = np.kron(np.indices((4, 4)).sum(axis=0) % 2, np.ones((16, 16), np.uint8))[..., None].repeat(3, axis=2) * 255
    changed = board.copy()
    changed[:16] = 255 - changed[:16]
    found = traits(board.astype(np.uint8), changed.astype(np.uint8))
    # Two pixels at each of three inner borders, on both axes, less where they cross: there Sobel sees no slope.
    assert (found.flat, found.rests, found.sharp) == (1.0, 0.75, 1.0)
    assert found.detail == pytest.approx(1 - (1 - 6 / 64) ** 2 - (6 / 64) ** 2, abs=0.02)


@pytest.mark.parametrize(
    ("seen", "score"),
    [
        ([Traits(0.8, 0.7, 0.9, 0.1)], 1.0),
        ([Traits(0.35, 0.7, 0.9, 0.1)], 0.5),
        ([Traits(0.8, 0.3, 0.9, 0.1)], 0.2),
        ([Traits(0.8, 0.7, 0.05, 0.1)], 0.0),
        ([Traits(0.8, 0.7, 0.9, 0.02)], 0.5),
        ([Traits(0.8, 0.7, 0.9, 0.1), Traits(0.1, 0.1, 0.1, 0.0), Traits(0.8, 0.7, 0.9, 0.1)], 1.0),
    ],
)
def test_a_recording_is_as_sure_as_the_weakest_of_its_traits_in_the_median(seen, score):
    assert screen_recording(seen) == pytest.approx(score)
