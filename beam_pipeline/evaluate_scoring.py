"""Every caption against every clip, by the selectors of the catalogue, through the handlers that a job uses.

    with scored(scorer, clips, texts) as matrix: matrix.scores      # (clips, texts), float32, on disk

A clip that the selector cannot score costs that clip. Memory holds a batch of clips with some of the captions; the
matrix stands in a file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from apache_beam.ml.inference.base import ModelHandler

from beam_pipeline.choosing import choose
from beam_pipeline.config import Config
from beam_pipeline.evaluate_references import BadInput
from beam_pipeline.progress import LINE_EVERY_S
from model_handlers.catalogue import Entry
from transforms.records import Candidate, CaptionedClip, Clip

#: Captions a request: a two-tower model reads all of a batch's at once, and sees a clip again for the next ones.
TEXTS_AT_ONCE = 256
#: Clips a call, at most; each holds its captions in pieces.
_CLIPS_AT_ONCE = 64
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclasses.dataclass(frozen=True)
class Scorer:
    """A selector that is loaded, and the score below which it finds no candidate good; tables show its entry's name."""

    entry: Entry
    handler: ModelHandler
    model: Any
    abstain_below: float | None = None


@dataclasses.dataclass(frozen=True)
class Matrix:
    """Scores of every text for every clip, and by clip_id why clips have none."""

    scores: np.ndarray
    failed: dict[str, str]


def load_scorers(names: Sequence[str] | None, config: Config) -> list[Scorer]:
    """Load selectors by name; that of the configuration when none is named.

    Args:
      names: of the catalogue, or NAME=WEIGHTS for other weights of one: a directory, gs://, or a hub id with @COMMIT.
        Tables call it so.

    Raises:
      BadInput: a name that is none, with the nearest right one; or one that cannot be loaded.
    """
    found = {}
    for name in names or [config.selector.name]:
        try:
            own = name == config.selector.name
            entry = config.selector if own else choose("selector", _asked(name)).entry
            handler = entry.build()
            limit = config.abstain_below if own else entry.abstain_below
            shown = dataclasses.replace(entry, name=name)
            found[name] = Scorer(shown, handler, handler.load_model(), limit)
        except ModuleNotFoundError:
            # The command line knows which extra brings a missing package.
            raise
        except Exception as error:
            # Weights fail to load in as many ways as there are libraries.
            why = " ".join(str(error).split())[:300] or type(error).__name__
            raise BadInput(why if isinstance(error, ValueError) else f"cannot load {name}: {why}") from error
    return list(found.values())


def _asked(name: str) -> str | dict[str, str]:
    """What a configuration would say of a selector that is named on the command line."""
    base, equals, weights = name.partition("=")
    if not equals:
        return name
    place, at, commit = weights.rpartition("@")
    if at and _COMMIT.fullmatch(commit):
        return {"name": base.strip(), "weights": place, "revision": commit}
    return {"name": base.strip(), "weights": weights.strip()}


def answers(scorer: Scorer, requests: Sequence[CaptionedClip]) -> Iterator[tuple[float, ...] | str]:
    """The scores of each request's candidates, or why there are none."""
    size = min(_CLIPS_AT_ONCE, int(scorer.handler.batch_elements_kwargs().get("max_batch_size", _CLIPS_AT_ONCE)))
    for at in range(0, len(requests), size):
        part = requests[at : at + size]
        for request, outcome in zip(part, scorer.handler.run_inference(part, scorer.model), strict=True):
            if outcome.failure is not None:
                yield f"{outcome.failure.error_class}: {outcome.failure.message}"
            elif len(outcome.answer) != len(request.candidates) or not np.isfinite(outcome.answer).all():
                yield f"it gave {len(outcome.answer)} scores for {len(request.candidates)} captions, or not numbers"
            else:
                yield tuple(outcome.answer)


def candidate(text: str, teacher: str = "") -> Candidate:
    """A caption as selectors are asked about it."""
    return Candidate(teacher, "", "", "", text, "")


@contextlib.contextmanager
def scored(scorer: Scorer, clips: Sequence[Clip], texts: Sequence[str]) -> Iterator[Matrix]:
    """Score every text for every clip. The row of a clip that failed is not-a-number."""
    with tempfile.TemporaryDirectory(prefix="reelscribe-") as folder, _told(scorer.entry.name) as tell:
        scores = np.lib.format.open_memmap(
            os.path.join(folder, "scores.npy"), mode="w+", dtype=np.float32, shape=(len(clips), len(texts))
        )
        failed: dict[str, str] = {}
        for at in range(0, len(texts), TEXTS_AT_ONCE):
            candidates = tuple(candidate(text) for text in texts[at : at + TEXTS_AT_ONCE])
            asked = [CaptionedClip(clip, candidates, (), ()) for clip in clips]
            for row, answer in enumerate(answers(scorer, asked)):
                if isinstance(answer, str):
                    failed.setdefault(clips[row].clip_id, answer)
                    answer = (np.nan,) * len(candidates)
                scores[row, at : at + TEXTS_AT_ONCE] = answer
                tell((at + len(candidates) * (row + 1) / len(clips)) / len(texts))
        for row, clip in enumerate(clips):
            if clip.clip_id in failed:
                scores[row] = np.nan
        yield Matrix(scores, failed)


@contextlib.contextmanager
def _told(name: str) -> Iterator[Any]:
    """Tell on standard error now and then how far it is."""
    last = time.monotonic()

    def tell(share: float) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_EVERY_S:
            last = time.monotonic()
            print(f"{name}: {share:.0%} of all captions scored", file=sys.stderr, flush=True)

    yield tell
