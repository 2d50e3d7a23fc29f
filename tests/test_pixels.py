"""Pictures out of frames: exactly what OpenCV's reader and resize would give, and true colours in the reel."""

import io

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import ColorRange
from PIL import Image

from transforms import pixels


def noise(width: int, height: int, layout: str, seed: int = 1) -> av.VideoFrame:
    frame = av.VideoFrame(width, height, layout)
    draw = np.random.default_rng(seed)
    for plane in frame.planes:
        plane.update(draw.integers(0, 256, plane.buffer_size, np.uint8).tobytes())
    return frame


def gradient(width: int, height: int) -> np.ndarray:
    """Many colours, as RGB."""
    across, down = np.meshgrid(np.linspace(20, 230, width), np.linspace(30, 220, height))
    return np.dstack([across, down, (across + down) / 2]).astype(np.uint8)


def smooth(width: int, height: int, layout: str) -> av.VideoFrame:
    """The gradient in any pixel format."""
    return av.VideoFrame.from_ndarray(gradient(width, height), format="rgb24").reformat(format=layout)


def resized(frame: av.VideoFrame, turns: int, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(pixels.bgr(frame, turns), size, interpolation=cv2.INTER_LINEAR)


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [
        (1280, 720, (256, 144)),
        (720, 1280, (144, 256)),
        (3840, 2160, (256, 144)),
        (1280, 544, (256, 109)),  # a whole factor across only
        (768, 432, (256, 144)),
        (1920, 1080, (256, 144)),  # 7.5: the whole frame is converted
        (854, 480, (256, 144)),
        (321, 241, (256, 192)),
        (1, 1, (1, 1)),
    ],
)
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("layout", ["yuv420p", "yuvj420p"])
def test_shrunk_pictures_are_to_the_byte_what_opencv_makes_of_the_whole(width, height, size, turns, layout):
    frame, wanted = noise(width, height, layout), size[::-1] if turns % 2 else size
    assert np.array_equal(pixels.shrunk_bgr(frame, turns, wanted), resized(frame, turns, wanted))


@pytest.mark.parametrize("layout", ["yuv420p10le", "yuv444p", "yuv422p", "nv12", "gbrp", "rgb24", "gray"])
def test_shrunk_pictures_are_exact_in_every_other_pixel_format(layout):
    frame = smooth(1280, 720, layout)
    assert np.array_equal(pixels.shrunk_bgr(frame, 0, (256, 144)), resized(frame, 0, (256, 144)))


def test_colour_tags_are_heeded_when_only_some_pixels_are_converted():
    frame = noise(1280, 720, "yuv420p")
    plain = pixels.shrunk_bgr(frame, 0, (256, 144))
    frame.color_range = ColorRange.JPEG
    full = pixels.shrunk_bgr(frame, 0, (256, 144))
    assert np.array_equal(full, resized(frame, 0, (256, 144))) and not np.array_equal(full, plain)


@pytest.mark.parametrize(("width", "height", "gathered"), [(1280, 720, True), (1920, 1080, False), (1278, 720, False)])
def test_few_pixels_are_converted_where_that_is_exact(width, height, gathered):
    found = pixels._gather_for("yuv420p", width, height, 2, 0, 0, (256, 144))
    assert (found is not None) is gathered


def decoded(planes: pixels.Planes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(planes.jpeg(95)))).astype(int)


@pytest.mark.parametrize(
    "layout", ["yuv420p", "yuvj420p", "yuv420p10le", "yuv422p", "yuv444p", "yuv444p12le", "nv12", "gbrp", "rgb24"]
)
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_jpeg_files_have_the_colours_of_the_frame(layout, turns):
    frame = smooth(640, 360, layout)
    size = (224, 398) if turns % 2 else (398, 224)
    found = decoded(pixels.planes(frame, turns, size))
    expected = cv2.resize(np.rot90(gradient(640, 360), turns), size, interpolation=cv2.INTER_AREA).astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 2.0
    assert np.abs((found - expected).mean(axis=(0, 1))).max() < 1.5


@pytest.mark.parametrize("size", [(161, 121), (2, 2), (1, 1), (7, 300)])
def test_jpeg_files_may_have_any_size(size):
    found = pixels.planes(smooth(321, 241, "yuv420p"), 0, size)
    assert found.nbytes == size[0] * size[1] + 2 * ((size[0] + 1) // 2) * ((size[1] + 1) // 2)
    assert decoded(found).shape == (size[1], size[0], 3)


def test_planes_outlive_the_frame_they_came_from():
    first = pixels.planes(noise(64, 48, "yuv420p", 1), 0, (64, 48))
    kept = first.y.copy()
    pixels.planes(noise(64, 48, "yuv420p", 2), 0, (64, 48))
    assert np.array_equal(first.y, kept)
