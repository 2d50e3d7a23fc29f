"""Watermarks: a logo that stays through a video is found where the picture changes; where it rests nothing is told."""

from types import SimpleNamespace

import numpy as np
import pytest
from lite_media import clip_of, photographs, write_reel
from PIL import Image, ImageDraw, ImageFont

from model_handlers.measures.view import ClipView
from model_handlers.measures.watermark import MEASURE, find_mark

SIZE = (640, 360)


@pytest.fixture(scope="module")
def scenes() -> list[np.ndarray]:
    """Twenty-four windows of five photographs, no two alike."""
    draw, found = np.random.default_rng(4), []
    pictures = [Image.fromarray(picture) for picture in photographs().values()]
    for number in range(24):
        picture = pictures[number % len(pictures)]
        side = min(picture.width, picture.height * 16 // 9) * draw.uniform(0.5, 0.9)
        left, top = draw.uniform(0, picture.width - side), draw.uniform(0, picture.height - side * 9 / 16)
        window = (round(left), round(top), round(left + side), round(top + side * 9 / 16))
        found.append(np.asarray(picture.resize(SIZE, Image.Resampling.BILINEAR, box=window)))
    return found


def marked(frame: np.ndarray, at: tuple[float, float], opacity: float) -> np.ndarray:
    """The frame with a white ring and three letters at this place."""
    logo = Image.new("L", SIZE, 0)
    ink, x, y = ImageDraw.Draw(logo), at[0] * SIZE[0], at[1] * SIZE[1]
    ink.ellipse((x - 60, y - 16, x - 28, y + 16), outline=255, width=5)
    ink.text((x - 20, y - 15), "TV7", fill=255, font=ImageFont.load_default(30))
    share = np.asarray(logo, np.float32)[..., None] / 255 * opacity
    return np.round(frame * (1 - share) + 255 * share).astype(np.uint8)


def score(tmp_path, frames) -> float | None:
    reel = write_reel(tmp_path / "video.arrow", frames)
    return MEASURE.load()(ClipView(clip_of(reel, len(frames))))["watermark"]


@pytest.mark.parametrize("at", [(0.88, 0.1), (0.14, 0.9), (0.5, 0.5)])
def test_a_logo_is_found_where_it_stands(scenes, at):
    mark = find_mark([np.asarray(Image.fromarray(marked(frame, at, 0.8)).convert("L")) for frame in scenes])
    left, top, width, height = mark.box
    assert mark.score > 0.6
    assert left < at[0] < left + width and top < at[1] < top + height
    assert width < 0.3 and height < 0.2


def test_the_fainter_a_logo_the_lower_its_score(scenes, tmp_path):
    found = [score(tmp_path, [marked(frame, (0.85, 0.1), opacity) for frame in scenes]) for opacity in (0, 0.3, 0.6, 1)]
    assert found[0] < 0.1
    assert found == sorted(found)
    assert found[2] > 0.5


@pytest.mark.parametrize("frames", [2, 12])
def test_a_video_that_rests_or_is_too_short_does_not_tell(scenes, tmp_path, frames):
    assert score(tmp_path, [marked(scenes[0], (0.85, 0.1), 1.0)] * frames) is None


def test_a_letterbox_is_no_mark(scenes, tmp_path):
    boxed = [frame.copy() for frame in scenes]
    for frame in boxed:
        frame[:45], frame[-45:] = 0, 0
    assert score(tmp_path, boxed) < 0.1


def test_a_video_is_looked_at_once_for_all_of_its_clips(scenes, tmp_path):
    reel = write_reel(tmp_path / "video.arrow", [marked(frame, (0.85, 0.1), 0.8) for frame in scenes])
    look = MEASURE.load()
    first = look(ClipView(clip_of(reel, 8)))
    second = ClipView(clip_of(reel, 3))
    # The second clip's reel is asked for its key alone.
    second.reel = SimpleNamespace(key=second.reel.key)
    assert look(second) == first
