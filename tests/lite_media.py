"""Media that the tests of the lite models share: pictures drawn or photographed, put into reels."""

from __future__ import annotations

import io
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from transforms.records import Clip, MediaFacts, Span
from transforms.reel import ReelFrame, ReelWriter

STEP_S = 0.5


def photographs() -> dict[str, np.ndarray]:
    """Real pictures that come with installed packages: a cat, a cup of coffee, a rocket, a temple, a flower."""
    import skimage.data
    from sklearn.datasets import load_sample_images

    temple, flower = load_sample_images().images
    return {
        "cat": skimage.data.chelsea(),
        "coffee": skimage.data.coffee(),
        "rocket": skimage.data.rocket(),
        "temple": temple,
        "flower": flower,
    }


def texture(width: int = 640, height: int = 360, seed: int = 7) -> np.ndarray:
    """A picture full of corners, smooth enough to be shifted."""
    import cv2

    noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return cv2.GaussianBlur(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), (0, 0), 2)


def write_reel(path: pathlib.Path, frames: Sequence[np.ndarray], shots: Sequence[int] | None = None) -> str:
    """A reel of `frames`, half a second apart; all of one shot unless told."""
    with ReelWriter(str(path), etag="test", settings="test") as reel:
        for number, frame in enumerate(frames):
            jpeg = io.BytesIO()
            Image.fromarray(frame).save(jpeg, "JPEG", quality=92)
            shot = shots[number] if shots else 0
            reel.add(ReelFrame(number * STEP_S, number, shot, jpeg.getvalue()))
        reel.finish({})
    return str(path)


def clip_of(reel: str, count: int, clip_id: str = "clip-1", **text: str | None) -> Clip:
    """A clip over the first `count` frames of a reel."""
    span = Span(0.0, count * STEP_S)
    media = MediaFacts(span.end_s, 640, 360, 25.0, "h264")
    return Clip(clip_id, "video-1", "video.mp4", span, (span,), media, reel, "fingerprint", **text)
