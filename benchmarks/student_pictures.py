"""Does a tiny student learn to caption pictures that it never saw, and does text help it?

    python benchmarks/student_pictures.py --captions CAPTIONS --output work

CAPTIONS holds `flickr8k_train.parquet` and `flickr8k_dev.parquet` (`image_id`, `jpeg`, `captions`: five each). A small
language model learns the training captions from nothing and is frozen; `reelscribe train student` puts a student
between it and the lite profile's image encoder, on a dataset of the training pictures: each stands there five times,
with each of its captions, and with another one as its subtitles, which training leaves out half the time. It is judged
on the other file's pictures. What stands in `work` already is used again.
"""

from __future__ import annotations

import argparse
import io
import json
import pathlib
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from beam_pipeline.evaluate_bootstrap import Interval  # noqa: E402
from beam_pipeline.evaluate_metrics import cider  # noqa: E402
from beam_pipeline.evaluate_tables import table  # noqa: E402
from beam_pipeline.evaluate_tokens import choose_tokenizer  # noqa: E402
from benchmarks.picture_dataset import clip_row, video_row, write_reels, write_rows  # noqa: E402
from benchmarks.picture_speaker import Speaker, make_speaker  # noqa: E402

QFORMER = {"hidden_size": 192, "intermediate_size": 384, "num_attention_heads": 4, "num_hidden_layers": 1}
SIZES = {"qformer": QFORMER, "video_qformer": QFORMER, "text_qformer": {**QFORMER, "num_hidden_layers": 2}}
QUERIES, TEXT_TOKENS, CAPTION_TOKENS = 8, 40, 32
#: So many pictures are captioned at once.
AT_ONCE = 50


def write_dataset(folder: str, captions: pathlib.Path) -> None:
    """Each picture with each of its captions; its subtitles are the next one."""
    shown = write_reels(folder, captions)
    rows = []
    for one in shown:
        for part, caption in enumerate(one.captions):
            other = one.captions[(part + 1) % len(one.captions)]
            rows.append(clip_row(one, caption, [caption], part, subtitles=other))
    write_rows(folder, rows, [video_row(one, len(one.captions)) for one in shown])


def train(dataset: str, work: pathlib.Path, options: argparse.Namespace) -> str:
    """Train by the command, as a user would; where the version stands."""
    config = work / "student.yaml"
    parts = {"llm": str(work / "llm"), "vision": "efficientnet-lite0", "frames": 1, "queries": QUERIES}
    config.write_text(
        yaml.safe_dump(parts | {"text_tokens": TEXT_TOKENS, "caption_tokens": CAPTION_TOKENS, "sizes": SIZES}), "utf-8"
    )
    command = [sys.executable, "-m", "beam_pipeline.cli", "train", "student", dataset, "--config", str(config)]
    command += ["--output", str(work / "student"), "--cache-features", str(work / "features"), "--test", "0"]
    command += ["--epochs", str(options.epochs), "--batch", "64", "--learning-rate", str(options.rate)]
    command += ["--seed", str(options.seed), "--json", str(work / "student.json"), "--sample", "200"]
    subprocess.run(command, check=True, cwd=ROOT)
    return json.loads((work / "student.json").read_text("utf-8"))["path"]


def caption_all(path: str, pictures: Sequence[np.ndarray], subtitles: Sequence[str | None]) -> list[str]:
    """What a student says of pictures."""
    import torch
    from transformers import AutoModel

    from model_handlers.student_inputs import Sample, StudentInputs, Texts
    from model_handlers.student_network import register

    register()
    model, inputs = AutoModel.from_pretrained(path), StudentInputs.load(path)
    said: list[str] = []
    for at in range(0, len(pictures), AT_ONCE):
        both = zip(pictures[at : at + AT_ONCE], subtitles[at : at + AT_ONCE], strict=True)
        batch = inputs.batch([Sample([picture], Texts(subtitles=text)) for picture, text in both])
        with torch.no_grad():
            said += inputs.words(model.generate(**batch, max_new_tokens=CAPTION_TOKENS, num_beams=3))
    return said


def features_of(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """What the image encoder says of pictures, (pictures, 1280), unit vectors."""
    from model_handlers.vision import load_vision

    vision = load_vision()
    found = np.concatenate([vision.look_at(pictures[at : at + 4]).features for at in range(0, len(pictures), 4)])
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def read(captions: pathlib.Path) -> tuple[list[np.ndarray], list[list[str]]]:
    """The pictures, uint8 RGB, and the captions of each."""
    rows = pq.read_table(captions).to_pylist()
    return [np.array(Image.open(io.BytesIO(row["jpeg"])).convert("RGB")) for row in rows], [r["captions"] for r in rows]


class Judge:
    """CIDEr of captions of pictures against all their references, and against those but the first."""

    def __init__(self, references: Sequence[Sequence[str]]):
        self._tokenizer = choose_tokenizer()
        flat = iter(self._tokenizer([text for told in references for text in told]))
        self._references = [[next(flat) for _ in told] for told in references]

    def all(self, captions: Sequence[str]) -> Interval:
        return cider(self._tokenizer(captions), self._references)

    def others(self, captions: Sequence[str]) -> Interval:
        return cider(self._tokenizer(captions), [told[1:] for told in self._references])


def rows_of(path: str, options: argparse.Namespace, speaker: Speaker) -> list[list[str]]:
    """The table: what each contender says of pictures that none has seen."""
    seen, told = read(options.captions / "flickr8k_train.parquet")
    pictures, references = read(options.captions / "flickr8k_dev.parquet")
    judge = Judge(references)
    firsts = [one[0] for one in references]
    # Nobody is given a text about its own picture.
    strange = firsts[1:] + firsts[:1]
    nearest = (features_of(pictures) @ features_of(seen).T).argmax(axis=1)
    near = [[told[at][place] for at in nearest] for place in range(5)]
    none = [None] * len(pictures)
    rows = [
        [
            "caption of the nearest training picture, mean of its five",
            _mean(judge.all, near),
            _mean(judge.others, near),
        ],
        _row(judge, "the language model without a picture", [speaker.say()] * len(pictures)),
        _row(judge, "student, picture alone", caption_all(path, pictures, none)),
        _row(
            judge, "student, picture and one of its references as subtitles", caption_all(path, pictures, firsts), True
        ),
        _row(judge, "student, picture and another picture's as subtitles", caption_all(path, pictures, strange)),
        _row(judge, "student, a grey picture and the reference", caption_all(path, _grey(pictures), firsts), True),
        _row(judge, "that reference itself: a person's caption", firsts, True),
    ]
    return rows


def _grey(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [np.full_like(one, 127) for one in pictures]


def _row(judge: Judge, name: str, captions: Sequence[str], given: bool = False) -> list[str]:
    """A contender; one that was given a reference is judged by the others alone."""
    return [name, "-" if given else judge.all(captions).told(scale=100), judge.others(captions).told(scale=100)]


def _mean(judge: Any, several: Sequence[Sequence[str]]) -> str:
    return f"{100 * statistics.fmean(judge(captions).value for captions in several):.1f}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Train a tiny student on pictures and judge it on others.")
    parser.add_argument("--captions", type=pathlib.Path, required=True, help="folder of the Parquet files")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="where models, datasets and figures go")
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--llm-steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    began, work = time.monotonic(), options.output
    work.mkdir(parents=True, exist_ok=True)
    dataset = str(work / "pictures")
    if not (work / "pictures" / "videos").exists():
        write_dataset(dataset, options.captions / "flickr8k_train.parquet")
    if not (work / "llm" / "config.json").exists():
        # By the pictures that the student will be trained and watched on, and by none that it is judged on.
        _, told = read(options.captions / "flickr8k_train.parquet")
        make_speaker(work / "llm", told, options.llm_steps, random.Random(options.seed))
        print(f"a language model after {time.monotonic() - began:.0f} s", flush=True)
    path = train(dataset, work, options)
    print(f"a student after {time.monotonic() - began:.0f} s", flush=True)
    rows = rows_of(path, options, Speaker(work / "llm"))
    print("\n".join(table(["400 pictures that none has seen: CIDEr", "5 references", "4 of them"], rows)))
    print(f"hundredths, 95 % bootstrap intervals over pictures; {time.monotonic() - began:.0f} s in all")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
