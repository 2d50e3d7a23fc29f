"""The contenders of `benchmarks/student.py`, and how long they take: the same clips, in turns.

    clips = copied(clips, scratch)
    measured = measure(teachers, students, clips, Effort(rounds=3, keep=True), say=print)
    measured["student"].seconds              # of each round, for all clips that it is asked about

The handlers are a job's own, without Beam round them. What a model of the lite profile remembers of frames counts
within a round, where a job's next teacher finds it too, and in no other round.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from model_handlers.base import ElementwiseHandler
from model_handlers.catalogue import Entry
from model_handlers.devices import free_unused
from transforms.captioning import Teacher
from transforms.records import Clip
from transforms.reel import ReelError, local_reel

#: Batches grow from one clip by doubling; with so many clips they reach 32 before the clock starts.
WARM = 64


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much is measured. rounds: of all contenders. keep: models stay in memory between the rounds."""

    rounds: int
    keep: bool


@dataclasses.dataclass
class Measured:
    """What one contender did.

    Attributes:
      asked: clips that it is asked about; the others have no text for it. seconds: of each round, for all of these.
      captions: by clip_id, of the last round. failures: why the other clips have none. error: why it did not run.
    """

    asked: int = 0
    seconds: list[float] = dataclasses.field(default_factory=list)
    captions: dict[str, str] = dataclasses.field(default_factory=dict)
    failures: list[str] = dataclasses.field(default_factory=list)
    error: str = ""


def copied(clips: Sequence[Clip], folder: pathlib.Path) -> tuple[list[Clip], dict[str, str]]:
    """The clips over copies of their reels, and why videos are left out, by video_id."""
    folder.mkdir(parents=True, exist_ok=True)
    reels: dict[str, str] = {}
    missing: dict[str, str] = {}
    for clip in clips:
        if clip.video_id in reels or clip.video_id in missing:
            continue
        try:
            file, _ = local_reel(clip.reel)
            reels[clip.video_id] = shutil.copy(file, str(folder / f"{len(reels)}.arrow"))
        except (OSError, ReelError) as error:
            missing[clip.video_id] = f"{type(error).__name__}: {error}"
    kept = [clip for clip in clips if clip.video_id in reels]
    return [dataclasses.replace(clip, reel=reels[clip.video_id]) for clip in kept], missing


def forget(clips: Sequence[Clip]) -> None:
    """Let nothing count that models remember of these reels: to them a file of another time is another reel."""
    for path in {clip.reel for clip in clips}:
        told = os.stat(path)
        os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns + 1))


def measure(
    teachers: Sequence[Entry], students: Sequence[Entry], clips: Sequence[Clip], effort: Effort, say: Callable
) -> dict[str, Measured]:
    """Ask each student, then all teachers one after another, and so in every round.

    A teacher that can't be loaded is left out; a student that can't be stops it all, before anybody waited for long.

    Args:
      clips: over reels of their own, see `copied`; at least one. say: told how far it is.
    """
    found = {entry.name: Measured() for entry in (*teachers, *students)}
    warming, _ = copied(clips[:WARM], pathlib.Path(clips[0].reel).parent / "warm")
    models: dict[str, Any] = {}
    for number in range(effort.rounds):
        for group in (*([student] for student in students), teachers):
            forget(clips)
            for entry in group:
                if found[entry.name].error:
                    continue
                try:
                    _take_turn(entry, found[entry.name], clips, warming, models)
                except Exception as error:
                    if entry in students:
                        raise
                    # Weights fail to load in as many ways as there are libraries; the others can still be measured.
                    told = " ".join(str(error).split())[:300]
                    found[entry.name].error = f"{type(error).__name__}: {told}"
                if not effort.keep:
                    models.clear()
                    free_unused()
        told = ", ".join(f"{name} {one.seconds[-1]:.3g} s" for name, one in found.items() if one.seconds)
        say(f"round {number + 1} of {effort.rounds}: {told}")
    return found


def _take_turn(
    entry: Entry, measured: Measured, clips: Sequence[Clip], warming: Sequence[Clip], models: dict[str, Any]
) -> None:
    handler = entry.build()
    # As a job decides: a teacher that reads alone is not asked where there is nothing to read.
    asked = Teacher(entry.name, handler, needs_text=entry.needs_text)
    fitting = [clip for clip in clips if asked.applies_to(clip)]
    if entry.name not in models:
        # Not `load_model`, which keeps what it loads for the life of the process.
        models[entry.name] = handler.load() if isinstance(handler, ElementwiseHandler) else handler.load_model()
        _ask(handler, models[entry.name], [clip for clip in warming if asked.applies_to(clip)])
    began = time.perf_counter()
    outcomes = _ask(handler, models[entry.name], fitting)
    measured.seconds.append(time.perf_counter() - began)
    measured.asked = len(fitting)
    measured.captions = {one.request.clip_id: " ".join(one.answer.split()) for one in outcomes if one.answer}
    measured.failures = [one.failure.message if one.failure else "no words" for one in outcomes if not one.answer]


def _ask(handler: Any, model: Any, clips: Sequence[Clip]) -> list[Any]:
    size = int(handler.batch_elements_kwargs().get("max_batch_size", len(clips) or 1))
    batches = [clips[start : start + size] for start in range(0, len(clips), size)]
    return [outcome for batch in batches for outcome in handler.run_inference(batch, model)]


def seconds_of(measured: Mapping[str, Measured], names: Sequence[str]) -> list[float]:
    """The seconds of each round for all of these together; empty where one of them did not run."""
    rounds = [measured[name].seconds for name in names]
    if not rounds or any(measured[name].error for name in names):
        return []
    return [sum(seconds) for seconds in zip(*rounds, strict=True)]
