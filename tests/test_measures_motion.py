"""Motion: cameras and subjects of known speed, told apart, through real reels and at any distance between frames."""

import cv2
import numpy as np
import pytest
from lite_media import clip_of, photographs, write_reel

from model_handlers.measures import motion
from model_handlers.measures.desirability import Limits
from model_handlers.measures.motion import (
    MEASURE,
    Moves,
    apart,
    flow_between,
    mean_speed,
    measure_motion,
)
from model_handlers.measures.view import ClipView
from transforms.records import Clip, MediaFacts, Span
from transforms.reel import ReelFrame, ReelWriter

SIZE = WIDTH, HEIGHT = 512, 288


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return cv2.resize(photographs()["temple"], SIZE, interpolation=cv2.INTER_AREA)


def moved(picture: np.ndarray, right=0.0, down=0.0, growth=0.0, turn=0.0, count: int = 5, step_s: float = 0.5):
    """Frames of a picture under a moving camera: short sides, growth and degrees a second."""
    frames = []
    for at in range(count):
        matrix = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), turn * at * step_s, (1 + growth) ** (at * step_s))
        matrix[:, 2] += np.array([right, down]) * HEIGHT * at * step_s
        frames.append(cv2.warpAffine(picture, matrix, SIZE, borderMode=cv2.BORDER_REFLECT_101))
    return frames


def with_subject(frames, subject: np.ndarray, speed: float, diameter: float = 0.5):
    """The frames with a disc of another picture that crosses them, and the share of the picture it takes."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    seen = []
    for at, frame in enumerate(frames):
        offset = (at - len(frames) // 2) * 0.5 * speed * HEIGHT
        other = cv2.warpAffine(subject, np.float32([[1, 0, offset], [0, 1, 0]]), SIZE)
        disc = (rows - HEIGHT / 2) ** 2 + (columns - WIDTH / 2 - offset) ** 2 < (diameter * HEIGHT / 2) ** 2
        seen.append(np.where(disc[..., None], other, frame))
    return seen, np.pi * (diameter * HEIGHT / 2) ** 2 / (WIDTH * HEIGHT)


def measured(tmp_path, frames) -> dict[str, float]:
    return dict(measure_motion(ClipView(clip_of(write_reel(tmp_path / "reel.arrow", frames), len(frames)))))


@pytest.mark.parametrize(
    ("moves", "speed"),
    [
        ({"right": 0.02}, 0.02),
        ({"right": 0.1}, 0.1),
        ({"down": -0.1}, 0.1),
        ({"right": 0.3, "down": 0.2}, np.hypot(0.3, 0.2)),
        ({"right": 0.8}, 0.8),
    ],
)
def test_a_pan_of_known_speed_is_the_cameras_and_nobody_elses(tmp_path, photo, moves, speed):
    found = measured(tmp_path, moved(photo, **moves))
    assert found["camera_motion"] == pytest.approx(speed, rel=0.05)
    assert found["motion"] == pytest.approx(speed, rel=0.05)
    assert found["subject_motion"] < 0.002 + 0.005 * speed


@pytest.mark.parametrize(("moves", "speed"), [({"growth": 0.1}, 0.053), ({"turn": 8.0}, 0.076)])
def test_a_zoom_and_a_turn_are_the_cameras_too(tmp_path, photo, moves, speed):
    found = measured(tmp_path, moved(photo, **moves))
    assert found["camera_motion"] == pytest.approx(speed, rel=0.15)
    assert found["subject_motion"] < 0.1 * speed


def test_a_still_picture_does_not_move(tmp_path, photo):
    assert measured(tmp_path, [photo] * 4) == {"motion": 0.0, "camera_motion": 0.0, "subject_motion": 0.0}


def test_a_still_picture_that_was_encoded_with_noise_hardly_moves(tmp_path, photo):
    draw = np.random.default_rng(7)
    frames = [np.clip(photo + draw.normal(0, 3, photo.shape), 0, 255).astype(np.uint8) for _ in range(5)]
    found = measured(tmp_path, frames)
    assert found["motion"] < 0.003 and found["subject_motion"] == 0.0


@pytest.mark.parametrize("pan", [0.0, 0.1])
@pytest.mark.parametrize("speed", [0.05, 0.2])
def test_what_moves_before_the_background_is_the_subject(tmp_path, photo, pan, speed):
    subject = cv2.resize(photographs()["flower"], SIZE, interpolation=cv2.INTER_AREA)
    frames, share = with_subject(moved(photo, right=pan), subject, speed)
    found = measured(tmp_path, frames)
    assert found["camera_motion"] == pytest.approx(pan, abs=0.006)
    # The flow blurs the subject's edge into the background round it.
    assert 0.7 < found["subject_motion"] / (share * abs(speed - pan)) < 1.6


def test_bars_do_not_slow_a_pan_down(tmp_path, photo):
    frames = []
    for frame in moved(photo, right=0.1):
        barred = np.zeros((HEIGHT + 120, WIDTH, 3), np.uint8)
        barred[60:-60] = frame
        frames.append(barred)
    assert measured(tmp_path, frames)["motion"] == pytest.approx(0.1, rel=0.05)


def test_frames_at_uneven_distances_give_the_speed_a_second(tmp_path, photo):
    times = [0.0, 0.04, 0.3, 0.65, 1.3, 1.6, 2.0, 2.04]
    path = str(tmp_path / "uneven.arrow")
    with ReelWriter(path, etag="test", settings="test") as reel:
        for number, time_s in enumerate(times):
            frame = moved(photo, right=0.1, count=2, step_s=max(time_s, 1e-6))[1]
            reel.add(ReelFrame(time_s, number, 0, cv2.imencode(".jpg", frame)[1].tobytes()))
        reel.finish({})
    span = Span(0.0, 2.1)
    media = MediaFacts(2.1, WIDTH, HEIGHT, 25.0, "h264")
    found = measure_motion(ClipView(Clip("c", "v", "v.mp4", span, (span,), media, path, "f")))
    assert found["camera_motion"] == pytest.approx(0.1, rel=0.05)


def test_a_cut_is_no_motion(tmp_path, photo):
    flower = cv2.resize(photographs()["flower"], SIZE, interpolation=cv2.INTER_AREA)
    reel = write_reel(tmp_path / "reel.arrow", [photo] * 3 + [flower] * 3, [0] * 3 + [1] * 3)
    assert measure_motion(ClipView(clip_of(reel, 6))) == dict.fromkeys(MEASURE.columns, 0.0)


@pytest.mark.parametrize(("count", "shots"), [(1, [0]), (2, [0, 1])])
def test_a_clip_without_a_pair_of_one_shot_has_no_motion(tmp_path, photo, count, shots):
    reel = write_reel(tmp_path / "reel.arrow", [photo] * count, shots)
    assert measure_motion(ClipView(clip_of(reel, count))) == dict.fromkeys(MEASURE.columns)


def test_a_picture_without_anything_to_follow_does_not_move(tmp_path):
    frames = [np.full((HEIGHT, WIDTH, 3), level, np.uint8) for level in (20, 60, 100)]
    assert measured(tmp_path, frames) == dict.fromkeys(MEASURE.columns, 0.0)


@pytest.mark.parametrize(
    ("times", "shots", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 0, 0], [(0, 1), (1, 2)]),
        ([0.0, 0.1, 0.2, 0.3], [0, 0, 0, 0], [(0, 3)]),
        ([0.0, 0.04, 0.5, 0.54], [0, 0, 0, 0], [(0, 2), (1, 2)]),
        ([0.0, 0.1, 0.2], [0, 0, 0], [(0, 2)]),
        ([0.0, 0.5, 1.0, 1.5], [0, 0, 1, 1], [(0, 1), (2, 3)]),
        ([0.0, 0.5], [0, 1], []),
        ([0.0, 0.0], [0, 0], []),
        ([0.0], [0], []),
    ],
)
def test_each_frame_is_compared_with_one_that_is_far_enough_in_the_same_shot(times, shots, expected):
    assert apart(range(len(times)), times, shots) == expected


def test_the_mean_leaves_out_the_highest_eighth_and_counts_seconds():
    moves = [Moves(0.1, 0.2, 0.0)] * 7 + [Moves(9.0, 9.0, 9.0)]
    assert mean_speed(moves, [0.5] * 8) == pytest.approx({"motion": 0.2, "camera_motion": 0.4, "subject_motion": 0.0})
    assert mean_speed([Moves(0.1, 0.0, 0.0), Moves(0.3, 0.0, 0.0)], [1.0, 1.0])["motion"] == pytest.approx(0.2)


def test_two_runs_give_the_same_numbers(tmp_path, photo):
    frames = with_subject(moved(photo, right=0.1, turn=2.0), photo[:, ::-1], 0.3)[0]
    assert measured(tmp_path, frames) == measured(tmp_path, frames)


def test_a_fast_pan_is_followed_from_where_phase_correlation_puts_it(photo):
    grey = motion.small(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY))
    flow = flow_between(grey, np.roll(grey, 50, axis=1))
    assert np.median(flow[:, : grey.shape[1] - 60, 0]) == pytest.approx(50, abs=1)


@pytest.mark.parametrize(
    ("name", "camera_moves", "subject_moves"),
    [
        ("OiEN3JxUwLg.3", True, False),  # a picture of a telephone that glides past
        ("ITKgZZcTpzE.5", False, False),  # a screen on which a window stands
        ("0WjR6cSMi2A.3", False, True),  # hands at work under a camera that stands
        ("AIyw1FO1aqs.57", None, True),  # a dog that turns round
        ("fjSw0PBrtMU.45", None, True),  # a boat trip
    ],
)
def test_real_clips_are_still_where_one_sees_them_still(tmp_path, shared_dir, name, camera_moves, subject_moves):
    from transforms.detection import SplittingConfig
    from transforms.records import Video
    from transforms.splitting import split_of, split_video

    path, reel = shared_dir / "videos" / "panda70m" / f"{name}.mp4", str(tmp_path / "real.arrow")
    split = split_of(Video("v", str(path), "1-1", 1), reel, split_video(str(path), reel, SplittingConfig(), etag="1-1"))
    span = Span(0.0, split.media.duration_s)
    found = measure_motion(ClipView(Clip("c", "v", str(path), span, (span,), split.media, reel, "f")))
    limits = Limits()
    assert (found["subject_motion"] > limits.still_subject) is subject_moves
    assert camera_moves in (None, found["camera_motion"] > limits.tiny_camera)
