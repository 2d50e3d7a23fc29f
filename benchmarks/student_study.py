"""A student beside an ensemble, clip by clip: what `benchmarks/student.py` tells of the clips that it draws.

shown, notes = sample(Published.open("dataset"), Drawing("dataset", frozenset({"lite-scene"}), clips=100), None)
scores, seconds = scored(scorer, shown, measured)        # measured: of `student_rounds`
rows = rows_of(shown, ["lite-scene"], measured, scores, 0.75, ["CIDEr"])
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from beam_pipeline.evaluate_bootstrap import Interval, mean_of
from beam_pipeline.evaluate_captions import CHOSEN, CaptionOptions, study_captions
from beam_pipeline.evaluate_captions import Clip as Captioned
from beam_pipeline.evaluate_references import BadInput, Named, Reference, draw, match
from beam_pipeline.evaluate_scoring import Scorer, answers, candidate
from benchmarks.student_rounds import Measured, seconds_of
from transforms.published import Published
from transforms.records import CaptionedClip, Clip, MediaFacts, Span
from transforms.reels import reel_of, reels_of

#: By set of captions and clip_id, what was said and what the selector makes of it.
Scores = Mapping[str, Mapping[str, tuple[str, float]]]

#: With blanks, which no teacher has in its name.
STUDENT, SEEN = "the student", "the student, no text"
_NAMES = ("clip_id", "video_id", "uri", "start_s", "end_s")
_COLUMNS = (*_NAMES, "title", "subtitles", "duration_s", "width", "height", "fps", "captions")


@dataclasses.dataclass(frozen=True)
class Shown:
    """A clip of the dataset, what its ensemble said of it by teacher, and what people did."""

    clip: Clip
    captions: Mapping[str, str]
    references: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Drawing:
    """What is drawn of which dataset.

    Attributes:
      teachers: of the ensemble. clips: at the most. seed: another one, other clips. only: out of these; None: of all.
    """

    dataset: str
    teachers: frozenset[str]
    clips: int
    seed: int = 0
    only: frozenset[str] | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """One set of captions: the ensemble's chosen ones, a teacher's, or the student's.

    Attributes:
      clips: that have one. seconds: of each round, for a clip of the sample; empty where nobody was asked anew.
      cost: of each round, how many times the student's seconds. kept: how many the rule keeps.
      preferred: how often the student's is scored higher, of the clips that both captioned; the same caption is a half.
      metrics: against the references, by name; a share of 1.
    """

    clips: int
    seconds: tuple[float, ...]
    cost: tuple[float, ...]
    kept: int
    kept_seconds: float | None
    preferred: Interval
    metrics: Mapping[str, Interval]


def sample(
    published: Published, drawing: Drawing, references: Sequence[Reference] | None
) -> tuple[list[Shown], list[str]]:
    """Clips by lot, of those that have references where there are some; and what a reader has to know of them."""
    named = [
        Named(row["clip_id"], row["video_id"], row["uri"], Span(row["start_s"], row["end_s"]))
        for row in _rows(published, "clips", _NAMES)
        if drawing.only is None or row["clip_id"] in drawing.only
    ]
    told: Mapping[str, tuple[str, ...]] = {one.clip_id: () for one in named}
    notes: list[str] = []
    if references is not None:
        matched = match(references, named)
        told, notes = matched.captions, matched.notes()
    if not told:
        why = [" that was asked for"] * (drawing.only is not None) + [" that a reference is about"] * bool(references)
        other = "; --learned-too draws from all clips" if drawing.only is not None else ""
        raise BadInput(f"{drawing.dataset} has no clip{' and'.join(why)}{other}")
    drawn = draw(told, drawing.clips, drawing.seed)
    videos = {one.video_id for one in named if one.clip_id in drawn}
    rows = _rows(published, "videos", ("video_id", "description"))
    described = {row["video_id"]: row["description"] for row in rows if row["video_id"] in videos}
    shown = []
    for row in _rows(published, "clips", _COLUMNS):
        if row["clip_id"] in drawn:
            span = Span(row["start_s"], row["end_s"])
            media = MediaFacts(row["duration_s"], row["width"], row["height"], row["fps"], "")
            reel = reel_of(reels_of(drawing.dataset), row["video_id"])
            texts = (row["title"], described.get(row["video_id"]), row["subtitles"])
            clip = Clip(row["clip_id"], row["video_id"], row["uri"], span, (span,), media, reel, "benchmark", *texts)
            captions = {one["teacher"]: one["caption"] for one in row["captions"] if one["teacher"] in drawing.teachers}
            shown.append(Shown(clip, captions, told[row["clip_id"]]))
    if without := sum(not one.captions for one in shown):
        notes.append(f"{without} clips have no caption of the ensemble and are left out")
    # The order of a table's files is that of its commits; figures shall not depend on it.
    return sorted((one for one in shown if one.captions), key=lambda one: one.clip.clip_id), notes


def _rows(published: Published, table: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    for batch in published.scan(table, list(columns)):
        yield from batch.to_pylist()


def readable(shown: Sequence[Shown], missing: Mapping[str, str]) -> list[Shown]:
    """Those whose video's reel is not missing."""
    return [one for one in shown if one.clip.video_id not in missing]


def scored(scorer: Scorer, shown: Sequence[Shown], measured: Mapping[str, Measured]) -> tuple[Scores, float]:
    """By set of captions and clip_id, what was said and what the selector makes of it; and its seconds a clip.

    A clip that the selector can't score has no score in any set.
    """
    said = [
        {**one.captions} | {name: measured[name].captions.get(one.clip.clip_id, "") for name in (STUDENT, SEEN)}
        for one in shown
    ]
    said = [{name: text for name, text in texts.items() if text} for texts in said]
    asked = [
        CaptionedClip(one.clip, tuple(candidate(text, name) for name, text in texts.items()), (), ())
        for one, texts in zip(shown, said, strict=True)
    ]
    found: dict[str, dict[str, tuple[str, float]]] = {}
    began = time.perf_counter()
    for one, texts, answer in zip(shown, said, answers(scorer, asked), strict=True):
        if isinstance(answer, str):
            print(f"the selector can't score {one.clip.clip_id}: {answer}", file=sys.stderr, flush=True)
            continue
        by_name = dict(zip(texts, zip(texts.values(), answer, strict=True), strict=True))
        # Of equal scores the first, as in a job.
        best = max((by_name[name] for name in one.captions), key=lambda told: told[1])
        for name, told in {CHOSEN: best, **by_name}.items():
            found.setdefault(name, {})[one.clip.clip_id] = told
    return found, (time.perf_counter() - began) / len(shown)


def rows_of(
    shown: Sequence[Shown],
    ensemble: Sequence[str],
    measured: Mapping[str, Measured],
    scores: Scores,
    limit: float | None,
    metrics: Sequence[str],
) -> dict[str, Row]:
    """The rows of the table: the chosen, each teacher, the student with text and without."""
    against = metrics_of(shown, scores, metrics)
    mine = scores.get(STUDENT, {})
    student_s = seconds_of(measured, [STUDENT])
    rows = {}
    for name in (CHOSEN, *ensemble, STUDENT, SEEN):
        asked = list(ensemble) if name == CHOSEN else [name]
        known = {**{teacher: Measured(error="not asked") for teacher in asked}, **measured}
        spent = seconds_of(known, asked) if name == CHOSEN or known[name].asked else []
        told = scores.get(name, {})
        kept = sum(limit is None or score >= limit for _, score in told.values())
        duels = [_duel(mine[clip_id], other) for clip_id, other in told.items() if clip_id in mine]
        rows[name] = Row(
            clips=len(told),
            seconds=tuple(one / len(shown) for one in spent),
            cost=tuple(one / other for one, other in zip(spent, student_s, strict=False)),
            kept=kept,
            kept_seconds=statistics.median(spent) / kept if spent and kept else None,
            preferred=mean_of(np.array(duels, dtype=float)) if name != STUDENT else Interval(None),
            metrics=against.get(name, {}),
        )
    return rows


def _duel(mine: tuple[str, float], other: tuple[str, float]) -> float:
    """1 where mine is scored higher, a half where both say the same, whose scores may differ by a rounding."""
    return 0.5 if mine[0] == other[0] else float(mine[1] > other[1])


def metrics_of(shown: Sequence[Shown], scores: Scores, metrics: Sequence[str]) -> dict[str, dict[str, Interval]]:
    """By set of captions, the metrics that can be measured here."""
    clips = []
    for one in shown:
        clip_id = one.clip.clip_id
        said = {name: told[clip_id][0] for name, told in scores.items() if clip_id in told}
        if one.references and said:
            clips.append(Captioned(clip_id, said, one.references))
    if not clips:
        return {}
    study = study_captions(clips, CaptionOptions(tuple(metrics)))
    print("\n".join(study.notes), file=sys.stderr, flush=True)
    return {
        name: {score.metric: score.interval for score in scores if score.interval.value is not None}
        for name, (_, scores) in study.rows.items()
    }


def even(shown: Sequence[Shown]) -> float:
    """How often the best of a clip's candidates would be a further one, were all of them as good."""
    return statistics.fmean(1 / (1 + len(one.captions)) for one in shown)
