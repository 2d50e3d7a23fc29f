"""Datasets of pictures and clips with captions of people's: one real caption among hard distractors.

    write_pictures("work/train", "flickr8k_train.parquet", seed=0)
    write_videos("work/videos", "videos/panda70m", "panda70m.json", seed=0)

A picture stands for two seconds. The distractors are real captions of others, drawn out of those whose sentence vectors
are nearest to the real one's, without those that nearly say the same; where all shall be bad, there is no real one.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import random
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.picture_dataset import Shown, clip_row, video_row, write_reels, write_rows
from model_handlers.sentences import load_sentences
from transforms.detection import SplittingConfig
from transforms.judgements import Choice, Judgement, store
from transforms.lease import WriterLease
from transforms.reels import reel_of, reels_of
from transforms.splitting import split_video

CANDIDATES = 8
#: The paper's: 12,064 of 100,000 clips.
ALL_BAD = 0.12
#: Distractors are drawn out of so many, none of which is as near as this.
NEAREST, SAME = 30, 0.8
#: Those among which are the nearest ones that do not say the same.
SEARCHED = 500


@dataclasses.dataclass(frozen=True)
class Question:
    """What there is to choose of; `real` is the place of the caption that belongs to it, None where all are bad."""

    captions: tuple[str, ...]
    real: int | None


def write_pictures(folder: str, captions: pathlib.Path, seed: int) -> int:
    """A dataset of the pictures of a Parquet file with `image_id`, `jpeg`, `captions`; how many there are."""
    shown = write_reels(folder, captions)
    _write(folder, shown, seed)
    return len(shown)


def write_videos(folder: str, videos: pathlib.Path, captions: pathlib.Path, seed: int) -> int:
    """A dataset of whole videos, one caption each, as our splitter reads them; how many there are."""
    shown = []
    for number, row in enumerate(json.loads(captions.read_text("utf-8"))):
        path = videos / row["file"]
        if path.is_file():
            video_id = f"video-{number}"
            reel = reel_of(reels_of(folder), video_id)
            media = split_video(str(path), reel, SplittingConfig(), etag="video")["media"]
            shown.append(Shown(video_id, media["duration_s"], media["width"], media["height"], (row["caption"],)))
    _write(folder, shown, seed)
    return len(shown)


def questions(shown: Sequence[Shown], vectors: np.ndarray, seed: int) -> Iterator[Question]:
    """A question about each.

    Args:
      vectors: (captions, width), unit vectors of all captions in order.
    """
    texts = [caption for one in shown for caption in one.captions]
    owners = np.repeat(np.arange(len(shown)), [len(one.captions) for one in shown])
    for number, one in enumerate(shown):
        chance = random.Random(f"{seed} {one.video_id}")
        all_bad = chance.random() < ALL_BAD
        own = np.flatnonzero(owners == number)
        real = int(chance.choice(own.tolist()))
        # As near as this to any caption of its own a distractor might be as true as they are.
        fits = vectors @ vectors[real]
        hardest = np.argpartition(-fits, SEARCHED)[:SEARCHED] if len(fits) > SEARCHED else np.arange(len(fits))
        same = (vectors[hardest] @ vectors[own].T).max(axis=1) >= SAME
        fits[hardest[same]] = fits[own] = -2.0
        nearest = np.argpartition(-fits, NEAREST)[:NEAREST]
        found = list(dict.fromkeys(texts[at] for at in sorted(nearest, key=lambda at: (-fits[at], at))))
        drawn = chance.sample(found, CANDIDATES if all_bad else CANDIDATES - 1)
        captions = drawn if all_bad else [*drawn, texts[real]]
        chance.shuffle(captions)
        yield Question(tuple(captions), None if all_bad else captions.index(texts[real]))


def _write(folder: str, shown: Sequence[Shown], seed: int) -> None:
    vectors = load_sentences().encode([caption for one in shown for caption in one.captions])
    asked = list(questions(shown, vectors, seed))
    both = list(zip(shown, asked, strict=True))
    rows = [clip_row(one, question.captions[0], question.captions) for one, question in both]
    write_rows(folder, rows, map(video_row, shown))
    with WriterLease(folder, owner="benchmark"):
        store(folder, [_judgement(one, question) for one, question in both])


def _judgement(one: Shown, question: Question) -> Judgement:
    choices = tuple(Choice(caption, (f"teacher-{place}",)) for place, caption in enumerate(question.captions, 1))
    clip_id = f"{one.video_id}-clip"
    return Judgement(clip_id, one.video_id, "author", choices, question.real, None, (), None, None, "benchmark")
