"""Text on the picture: lines out of the detector's map, their share of the picture, and which are subtitles."""

import importlib.util
from collections.abc import Sequence

import numpy as np
import pytest
from lite_media import clip_of, photographs, write_reel
from PIL import Image, ImageDraw, ImageFont

from model_handlers.measures import overlay_text
from model_handlers.measures.overlay_text import (
    MEASURE,
    TextDetectorMissing,
    TextLook,
    WeightsChanged,
    lines_of,
    text_share,
    weights,
)
from model_handlers.measures.text_lines import Line, joined, like_subtitles, likeness
from model_handlers.measures.view import ClipView

SIZE = (640, 360)
needs_detector = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("rapidocr", "onnxruntime")),
    reason="needs the extra ocr: pip install 'reelscribe[ocr]'",
)


@pytest.mark.parametrize("turned", [0.0, 10.0, -10.0])
def test_a_patch_of_the_map_is_a_line_grown_by_its_area_over_its_perimeter(turned):
    import cv2

    patch = cv2.boxPoints(((200.0, 100.0), (120.0, 20.0), turned)).round().astype(np.int32)
    scores = cv2.fillPoly(np.zeros((256, 448), np.float32), [patch], 0.9)
    (line,) = lines_of(scores, (512, 896))
    grown = 1.6 * 120 * 20 / (120 + 20)
    assert (line.x, line.y) == pytest.approx((400, 200), abs=2)
    assert (line.width, line.height) == pytest.approx((2 * (120 + grown), 2 * (20 + grown)), abs=10)
    assert line.leans == pytest.approx(turned, abs=1)


@pytest.mark.parametrize(
    ("top", "bottom", "score", "found"),
    [(100, 120, 0.49, 0), (100, 120, 0.6, 1), (100, 102, 0.9, 0), (60, 180, 0.9, 0)],
)
def test_what_is_faint_or_tiny_or_a_whole_picture_is_no_line(top, bottom, score, found):
    scores = np.zeros((256, 448), np.float32)
    scores[top:bottom, 40:240] = score
    assert len(lines_of(scores, (256, 448))) == found


def test_the_share_of_the_picture_counts_overlaps_once():
    lines = [Line(50, 50, 40, 20), Line(50, 50, 40, 20), Line(150, 50, 40, 20)]
    assert text_share(lines, (100, 200)) == pytest.approx(2 * 41 * 21 / 20_000)
    assert text_share([], (100, 200)) == 0.0


def test_words_side_by_side_are_one_line_and_a_logo_far_away_is_not_of_it():
    words = [Line(100, 300, 60, 20), Line(170, 301, 60, 22), Line(580, 300, 60, 20), Line(100, 330, 60, 20)]
    assert joined(words) == [Line(135, 300.5, 130, 22), Line(100, 330, 60, 20), Line(580, 300, 60, 20)]


@pytest.mark.parametrize(
    ("line", "like"),
    [
        (Line(320, 320, 300, 22), True),
        (Line(320, 100, 300, 22), False),
        (Line(400, 320, 300, 22), False),
        (Line(320, 320, 25, 22), False),
        (Line(320, 320, 300, 60), False),
        (Line(320, 320, 300, 5), False),
        (Line(320, 320, 300, 22, leans=6), False),
    ],
)
def test_subtitles_are_level_centred_below_and_of_a_usual_size(line, like):
    assert like_subtitles([line], (360, 640)) == ([line] if like else [])


@pytest.fixture(scope="module")
def scenes() -> list[np.ndarray]:
    """Twelve frames of a camera that pans over a picture without any text."""
    picture = Image.fromarray(photographs()["temple"])
    return [
        np.asarray(picture.resize(SIZE, Image.Resampling.BILINEAR, box=(3 * step, 40, 480 + 3 * step, 310)))
        for step in range(12)
    ]


def written(frame: np.ndarray, text: str, y: int = 320, size: int = 24) -> np.ndarray:
    picture = Image.fromarray(frame)
    font = ImageFont.load_default(size)
    ImageDraw.Draw(picture).text(
        (SIZE[0] / 2, y), text, "white", font, anchor="mm", stroke_width=2, stroke_fill="black"
    )
    return np.asarray(picture)


def subtitles(scenes: Sequence[np.ndarray], texts: Sequence[str]) -> list[np.ndarray]:
    return [written(frame, text) if text else frame for frame, text in zip(scenes, texts, strict=True)]


def test_the_same_words_are_alike_on_another_picture_and_other_words_are_not(scenes):
    grey = [
        np.asarray(Image.fromarray(frame).convert("L")) for frame in subtitles(scenes[:3], ["Who?!", "Who?!", "Me."])
    ]
    line = Line(320, 320, 90, 30)
    assert likeness(line, grey[0], grey[1]) > 0.75
    assert likeness(line, grey[0], grey[2]) < 0.4


WHO, ME = "Who is it that you were looking for?", "Nobody that I could tell of today."
#: What is written in each of twelve frames, half a second apart, and the share of six of them that have a subtitle.
FILMS = {
    "none": ([""] * 12, 0.0),
    "one after another": ([WHO] * 6 + [ME] * 6, 1.0),
    "one, then none": ([WHO] * 6 + [""] * 6, 0.5),
    "a title that stays": ([WHO] * 12, 0.0),
}


def seen_by(find, frames, tmp_path, clip=slice(None)) -> dict[str, float]:
    """What is measured of a clip of these frames, with lines from `find`."""
    reel = write_reel(tmp_path / "film.arrow", frames)
    view = ClipView(clip_of(reel, len(frames[clip])))
    return dict(TextLook(find)(view))


def truth(texts: Sequence[str], frames: Sequence[np.ndarray]):
    """A detector that knows where the text is, by the frame's likeness to those that were made."""

    small = np.stack(frames)[:, ::6, ::6].astype(np.int16)

    def find(frame: np.ndarray) -> list[Line]:
        nearest = int(np.abs(small - frame[::6, ::6]).sum(axis=(1, 2, 3)).argmin())
        return [Line(320, 320, 11.5 * len(texts[nearest]), 30)] if texts[nearest] else []

    return find


@pytest.mark.parametrize("name", list(FILMS))
def test_subtitles_come_and_go_and_titles_stay(name, scenes, tmp_path):
    texts, share = FILMS[name]
    frames = subtitles(scenes, texts)
    assert seen_by(truth(texts, frames), frames, tmp_path)["subtitle_share"] == share


def test_a_clip_with_one_subtitle_is_told_by_the_others_of_its_video(scenes, tmp_path):
    texts = [WHO] * 4 + [ME] * 8
    frames = subtitles(scenes, texts)
    assert seen_by(truth(texts, frames), frames, tmp_path, slice(0, 4))["subtitle_share"] == 1.0


def test_a_sign_in_a_clip_that_is_in_no_other_scene_of_its_video_is_no_subtitle(scenes, tmp_path):
    texts = [WHO] * 4 + [""] * 8
    frames = subtitles(scenes, texts)
    assert seen_by(truth(texts, frames), frames, tmp_path, slice(0, 4))["subtitle_share"] == 0.0


@needs_detector
@pytest.mark.parametrize("name", list(FILMS))
def test_the_detector_finds_what_is_written(name, scenes, tmp_path):
    texts, share = FILMS[name]
    reel = write_reel(tmp_path / "film.arrow", subtitles(scenes, texts))
    found = MEASURE.load()(ClipView(clip_of(reel, len(texts))))
    width, height = ImageFont.load_default(24).getbbox(WHO)[2], 24
    written_share = sum(map(bool, texts)) / 12 * width * height / (SIZE[0] * SIZE[1])
    assert found["subtitle_share"] == share
    # The detector's lines have some margin; a columned temple has a letter or so of its own.
    assert 0.9 * written_share <= found["text_share"] <= 2 * written_share + 0.005


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TextDetectorMissing, match=r"^run: pip install 'reelscribe\[ocr\]'$"):
        MEASURE.load()


@needs_detector
def test_other_weights_than_the_pinned_ones_are_refused(monkeypatch):
    monkeypatch.setattr(overlay_text, "MODEL_SHA256", "0" * 64)
    with pytest.raises(WeightsChanged, match="is not the detector that is pinned"):
        weights()
