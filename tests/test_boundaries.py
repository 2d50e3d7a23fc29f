"""What becomes of shots and pictures before they are certain: slices, boundary frames, bounded memory."""

import io

import av
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from transforms.boundaries import Piece, ShotWindow
from transforms.detection import SplittingConfig
from transforms.media import Picture


def picture(number: int, time_s: float, width: int = 16, height: int = 9) -> Picture:
    frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 90, np.uint8), format="bgr24")
    return Picture(number, time_s, 0.04, None, 3 * width * height, frame, 0)


def run(
    frames: int, cuts: list[int], fps: float = 25.0, late: int = 15, config=None, times=None, counted: bool = False
) -> list[Piece]:
    """Feed a window frame by frame, each cut `late` frames after it happened; a `counted` delay is stated in frames."""
    delay = (0.0, late + 1) if counted else ((late + 1) / fps, 2)
    window = ShotWindow(config or SplittingConfig(), fps, *delay)
    pieces, times = [], times or [n / fps for n in range(frames)]
    for number in range(frames):
        window.add(picture(number, times[number]), (16, 9))
        window.score([(number, float(number))])
        window.cut_at(cut for cut in cuts if cut == number - late)
        pieces += window.settled()
    window.cut_at(cut for cut in cuts if cut > frames - 1 - late)
    return pieces + list(window.settled(times[-1] + 1 / fps))


def sliced(frames: int, cuts: list[int], fps: float) -> list[tuple[int, int]]:
    """The rule as the paper's code states it, over whole shots known beforehand."""
    found = []
    for start, end in zip([0, *cuts], [*cuts, frames], strict=True):
        while (end - start) / fps > 7 + 1e-9:
            found.append((start, start + int(5 * fps)))
            start += int(5 * fps)
        found.append((start, end))
    return found


def test_slices_at_29_97_are_149_frames():
    fps = 30000 / 1001
    bounds = [(piece.shot.start_frame, piece.shot.end_frame) for piece in run(500, [], fps)]
    assert bounds == [(0, 149), (149, 298), (298, 500)]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 900),
    st.lists(st.integers(1, 899), max_size=6, unique=True),
    st.sampled_from([12.5, 24000 / 1001, 25.0, 30000 / 1001, 60.0]),
    st.sampled_from([(15, False), (123, True)]),
)
@example(210, [], 30000 / 1001, (15, False))
def test_shots_slices_boundary_frames_and_reel_are_as_if_all_were_known_beforehand(frames, cuts, fps, delay):
    cuts = sorted(cut for cut in cuts if cut < frames)
    pieces = run(frames, cuts, fps, late=delay[0], counted=delay[1])
    assert [(piece.shot.start_frame, piece.shot.end_frame) for piece in pieces] == sliced(frames, cuts, fps)
    for number, piece in enumerate(pieces):
        shot, length = piece.shot, piece.shot.end_frame - piece.shot.start_frame
        assert shot.index == number and {frame.shot for frame in piece.frames} == {number}
        assert shot.first_s == (shot.start_frame + int(0.05 * length)) / fps
        assert shot.last_s == (shot.start_frame + min(int(0.95 * length), length - 1)) / fps
        kept = [frame.time_s for frame in piece.frames]
        assert kept[0] == shot.start_s and {shot.first_s, shot.last_s} <= set(kept) and kept == sorted(set(kept))
        wanted = max(16, 2 * (shot.end_s - shot.start_s))
        assert min(wanted, length) <= len(kept) <= wanted + 3
    scores = [score for piece in pieces for frame in piece.frames for score in frame.stat_scores]
    assert scores == [float(number) for number in range(frames)]


def test_reel_frames_are_spread_evenly_over_the_shot():
    (piece,) = run(170, [])
    gaps = np.diff([frame.frame for frame in piece.frames])
    assert gaps.max() <= 16  # 170 frames in 16 parts are 10.6 each; the 5 % and 95 % frames stand for one each


def test_boundary_frames_come_before_the_number_of_frames():
    (piece,) = run(100, [], config=SplittingConfig(reel_min_frames=2, reel_fps=0.1))
    assert [frame.frame for frame in piece.frames] == [0, 5, 95]


def test_slices_of_a_variable_rate_are_cut_in_time():
    times = [n / 25 for n in range(100)] + [4 + n / 5 for n in range(40)]  # 4 s at 25, then 8 s at 5 frames a second
    pieces = run(140, [], 25.0, times=times)
    assert [(piece.shot.start_s, round(piece.shot.end_s, 2)) for piece in pieces] == [(0.0, 5.0), (5.0, 11.84)]
    assert pieces[0].shot.last_s == 4.6  # the picture that shows at 4.75 s
    assert pieces[1].shot.first_s == 5.2


@pytest.mark.parametrize(("cut", "end"), [(150, 250), (110, 400)])
def test_a_delay_in_frames_holds_however_slow_the_frames_become(cut, end):
    times = [n / 25 if n < 100 else 4 + (n - 100) / 2 for n in range(end)]
    pieces = run(end, [cut], late=123, times=times, counted=True)
    assert times[cut] in [piece.shot.start_s for piece in pieces]
    assert all(len(piece.frames) >= min(16, piece.shot.end_frame - piece.shot.start_frame) for piece in pieces)


def test_a_frame_that_stands_for_hours_is_one_shot_not_thousands():
    pieces = run(4, [], 25.0, times=[0.0, 0.04, 50_000.0, 50_000.04])
    assert [piece.shot.end_frame for piece in pieces] == [2, 4]


@pytest.mark.parametrize("fps", [25.0, 240.0])
def test_memory_is_bounded_however_long_a_shot_lasts(fps):
    window = ShotWindow(SplittingConfig(), fps, 16 / fps)
    most = 0
    for number in range(int(20 * fps)):
        window.add(picture(number, number / fps), (16, 9))
        list(window.settled())
        most = max(most, len(window._stills))
    assert most < 200 + 2 * fps


def test_pictures_are_made_small_in_their_displayed_shape():
    window = ShotWindow(SplittingConfig(), 25.0, 0.5)
    window.add(picture(0, 0.0, 1440, 1080), (1920, 1080))
    (piece,) = window.settled(0.04)
    with Image.open(io.BytesIO(piece.frames[0].encoded().jpeg)) as shown:
        assert (shown.format, shown.size) == ("JPEG", (796, 448))
