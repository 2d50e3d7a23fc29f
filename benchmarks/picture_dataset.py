"""Datasets of pictures with captions of people's, in the form that `reelscribe curate` writes.

    shown = write_reels("work/train", "flickr8k_train.parquet")
    write_rows("work/train", [clip_row(shown[0], "a dog", ["a dog"])], map(video_row, shown))

A picture stands for some seconds in a reel of a single frame.
"""

from __future__ import annotations

import dataclasses
import io
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow.parquet as pq
from deltalake import write_deltalake
from PIL import Image

from transforms.reel import ReelFrame, ReelWriter
from transforms.reels import reel_of, reels_of
from transforms.schemas import CLIPS, VIDEOS, rows_to_table
from transforms.tables import create_tables

SHOWN_S = 2.0


@dataclasses.dataclass(frozen=True)
class Shown:
    """A picture or a clip, and what people wrote about it."""

    video_id: str
    end_s: float
    width: int
    height: int
    captions: tuple[str, ...]


def write_reels(folder: str, captions: pathlib.Path) -> list[Shown]:
    """The reels of the pictures of a Parquet file with `image_id`, `jpeg`, `captions`."""
    shown = []
    for row in pq.read_table(captions).to_pylist():
        video_id = "picture-" + "".join(c if c.isalnum() else "-" for c in row["image_id"])
        picture = Image.open(io.BytesIO(row["jpeg"]))
        with ReelWriter(reel_of(reels_of(folder), video_id), etag="picture", settings="picture") as reel:
            reel.add(ReelFrame(0.0, 0, 0, row["jpeg"]))
            reel.finish({})
        shown.append(Shown(video_id, SHOWN_S, *picture.size, tuple(row["captions"])))
    return shown


def write_rows(folder: str, clips: Iterable[dict[str, Any]], videos: Iterable[dict[str, Any]]) -> None:
    """The tables of a new dataset; columns that a row lacks are null."""
    create_tables(folder)
    for name, schema, rows in (("clips", CLIPS, clips), ("videos", VIDEOS, videos)):
        empty = {field.name: None for field in schema if field.nullable}
        write_deltalake(f"{folder}/{name}", rows_to_table([empty | row for row in rows], schema), mode="append")


def clip_row(one: Shown, caption: str, candidates: Sequence[str], part: int = 0, **more: Any) -> dict[str, Any]:
    """A row of `clips`: the whole of it or, after the first, as long a part after its end, which shows the same."""
    told = [
        {"teacher": f"teacher-{place}", "caption": text, "matching_score": None}
        | dict.fromkeys(("model", "revision", "prompt_id", "fingerprint"), "benchmark")
        for place, text in enumerate(candidates, 1)
    ]
    start_s, end_s = part * one.end_s, (part + 1) * one.end_s
    return _source(one) | {
        "clip_id": f"{one.video_id}-clip{f'-{part}' if part else ''}",
        "start_s": start_s,
        "end_s": end_s,
        "timestamp": [f"0:00:{start_s:06.3f}", f"0:00:{end_s:06.3f}"],
        "caption": caption,
        "teacher": "teacher-1",
        "abstained": False,
        "captions": told,
        "embedding": [],
        "shots": [{"start_s": start_s, "end_s": end_s}],
        "fingerprint": "benchmark",
        "schema_version": 1,
        **more,
    }


def video_row(one: Shown, n_clips: int = 1) -> dict[str, Any]:
    """A row of `videos`."""
    counts = {"n_shots": n_clips, "n_clips": n_clips, "n_rejected": 0, "n_failures": 0, "size_bytes": 0}
    prints = dict.fromkeys(("split", "embed", "captions", "select"), "benchmark")
    return _source(one) | counts | {"etag": "benchmark", "codec": "", "status": "ok", "fingerprints": prints}


def _source(one: Shown) -> dict[str, Any]:
    size = {"width": one.width, "height": one.height, "fps": 25.0, "duration_s": one.end_s}
    return {"video_id": one.video_id, "uri": one.video_id, "run_id": "benchmark", **size}
