"""A dataset of walls whose light changes: what a tiny student can learn to say (see `tiny_student`)."""

from __future__ import annotations

import io
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import yaml
from PIL import Image
from report_dataset import candidate, clip, video, write_dataset
from tiny_student import PLACES, QFORMER, caption, make_llm, make_tower, scene, scenes

from transforms.reel import ReelFrame, ReelWriter

#: As `--config` says it: a student as small as `tiny_student`'s.
SIZES = {"qformer": QFORMER, "video_qformer": {**QFORMER, "num_hidden_layers": 2}, "text_qformer": QFORMER}
CLIP_S = 2.0


def write_taught(folder: pathlib.Path, sources: int = 32, missing: Sequence[int] = (), **more: Any) -> pathlib.Path:
    """`sources` videos of one clip each; every other four say in their title where they were filmed.

    Args:
      missing: sources without a reel. more: columns of every clip.
    """
    films, clips = [], []
    for number in range(sources):
        colour, change = scenes()[number % len(scenes())]
        place = PLACES[number // len(scenes()) % len(PLACES)]
        name = f"wall-{number:03}"
        titled = number // 4 % 2 == 0
        films.append(video(name, CLIP_S, title=f"Filmed in {place}" if titled else None))
        said = [candidate("teacher", caption(colour, change, place if titled else "a kitchen"), 0.5)]
        clips.append(clip(name, 0.0, CLIP_S, said, **more))
        if number not in missing:
            write_scene(folder / "reels" / f"{name}.arrow", scene(colour, change))
    return write_dataset(folder, videos=films, clips=clips)


def write_tiny(folder: pathlib.Path, **more: Any) -> str:
    """Parts at random and a `--config` that names them.

    Args:
      more: of the file.
    """
    if not (folder / "llm").exists():
        make_llm(folder / "llm", steps=0)
        make_tower(folder / "tower")
    parts = {"llm": str(folder / "llm"), "vision": str(folder / "tower")}
    told = {"frames": 4, "queries": 4, "text_tokens": 48, "caption_tokens": 24, "sizes": SIZES}
    path = folder / f"tiny-{len(list(folder.iterdir()))}.yaml"
    path.write_text(yaml.safe_dump(parts | told | more), "utf-8")
    return str(path)


def write_scene(path: pathlib.Path, frames: Sequence[np.ndarray]) -> None:
    """A reel of these frames, evenly over a clip."""
    with ReelWriter(str(path), etag="scene", settings="scene") as reel:
        for number, frame in enumerate(frames):
            jpeg = io.BytesIO()
            Image.fromarray(frame).save(jpeg, "JPEG", quality=95)
            reel.add(ReelFrame(CLIP_S * number / len(frames), number, 0, jpeg.getvalue()))
        reel.finish({})
