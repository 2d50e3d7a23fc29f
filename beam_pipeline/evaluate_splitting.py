"""The paper's Table 2 on the user's own videos: is splitting by meaning better than by cuts or by subtitles?

    evaluation = evaluate(found.sources, setting, "reels/", lpips=load_lpips(weights), truths=read_truth("truth.json"))
    print(evaluation.text())

A method is better the less its clips change within (Max Running LPIPS) and the longer they are. Where the true
boundaries are known, those that it finds are counted as well.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from beam_pipeline import evaluate_plots as plots
from beam_pipeline.evaluate_measures import (
    BOUNDARY_COLUMNS,
    LENGTH_COLUMNS,
    Measured,
    boundary_cells,
    length_cells,
    measure,
    pooled,
    told,
)
from beam_pipeline.evaluate_tables import table
from beam_pipeline.evaluate_videos import (
    SUBTITLES,
    Setting,
    Study,
    cuttings,
    study_each,
)
from model_handlers.perceptual import Lpips
from transforms.boundary_scores import TOLERANCES
from transforms.reading import Source
from transforms.truth import Truth, truth_of

#: Table 2 of the paper, on 1,000 long videos: Max Running LPIPS, mean clip length in seconds.
PUBLISHED = {
    SUBTITLES: (0.408, 11.8),
    "PySceneDetect": (0.247, 4.1),
    "the paper's splitting": (0.256, 7.9),
}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """All that was measured: by video and method, with the videos that failed and what else a reader has to know."""

    videos: Mapping[str, Mapping[str, Measured]]
    failed: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def rows(self) -> dict[str, Measured]:
        """The methods over all videos, in the order in which they were compared."""
        names = dict.fromkeys(name for measured in self.videos.values() for name in measured)
        # Few videos have subtitles, so the first may lack the method that comes first.
        ordered = sorted(names, key=lambda name: name != SUBTITLES)
        return {name: pooled(by[name] for by in self.videos.values() if name in by) for name in ordered}

    def as_json(self) -> dict[str, Any]:
        return {
            "rows": {name: row.as_json() for name, row in self.rows.items()},
            "published": {name: {"max_running_lpips": y, "mean_clip_s": x} for name, (y, x) in PUBLISHED.items()},
            "videos": {uri: {name: row.as_json() for name, row in by.items()} for uri, by in self.videos.items()},
            "failed": dict(self.failed),
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """The tables, as they are printed."""
        rows = self.rows
        lines = table(LENGTH_COLUMNS, [length_cells(name, row) for name, row in rows.items()])
        lines += ["", "published (1,000 long videos):"]
        lines += table(LENGTH_COLUMNS, list(_published_cells()))[1:]
        judged = {name: row for name, row in rows.items() if row.boundaries}
        if judged:
            lines += ["", "boundaries: precision, recall and F1 within so many frames"]
            lines += table(BOUNDARY_COLUMNS, [boundary_cells(name, row) for name, row in judged.items()])
        return "\n".join([*lines, *(["", *self.notes] if self.notes else [])])

    def drawing(self) -> Markup | None:
        """LPIPS against mean clip length, a point a method, the published ones hollow; None without LPIPS."""
        points = [
            plots.Point(name, row.mean_s, row.mean_lpips, _kind(name))
            for name, row in self.rows.items()
            if row.mean_s is not None and row.mean_lpips is not None
        ]
        if not points:
            return None
        points += [plots.Point(f"published: {name}", x, y, "published") for name, (y, x) in PUBLISHED.items()]
        return plots.scatter(
            points,
            title="LPIPS against mean clip length: lower and farther right is better",
            x_name="mean clip length (s)",
            y_name="Max Running LPIPS",
        )

    def html(self) -> str:
        """All of it in one page."""
        rows, drawing = self.rows, self.drawing()
        parts = [drawing] if drawing is not None else []
        published = [
            ["published: " + name, "1,000", "-", f"{y:.3f}", f"{x:.1f}", "-"] for name, (y, x) in PUBLISHED.items()
        ]
        parts += [plots.html_table(LENGTH_COLUMNS, [*(length_cells(*row) for row in rows.items()), *published])]
        judged = [boundary_cells(name, row) for name, row in rows.items() if row.boundaries]
        if judged:
            parts += [plots.heading("Boundaries: precision, recall and F1 within so many frames")]
            parts += [plots.html_table(BOUNDARY_COLUMNS, judged)]
        parts += [
            plots.heading("Videos"),
            plots.html_table(["video", *LENGTH_COLUMNS[2:], "F1@2"], self._video_cells()),
        ]
        if self.notes:
            parts += [plots.heading("Notes"), plots.html_list(self.notes)]
        return plots.page("Splitting", parts)

    def _video_cells(self) -> Iterator[list[str]]:
        for uri, by in self.videos.items():
            for name, row in by.items():
                f1 = row.boundaries[TOLERANCES[-1]].f1 if row.boundaries else None
                yield [f"{os.path.basename(uri)}: {name}", *length_cells(name, row)[2:], told(f1, ".3f")]


def _published_cells(mark: str = "") -> Iterator[list[str]]:
    for name, (change, length_s) in PUBLISHED.items():
        yield [mark + name, "1,000", "-", f"{change:.3f}", f"{length_s:.1f}", "-"]


def _kind(name: str) -> str:
    if name == SUBTITLES:
        return "subtitles"
    return "own" if " + " in name else "detector"


def evaluate(
    sources: Sequence[Source],
    setting: Setting,
    reels_dir: str,
    lpips: Lpips | None = None,
    truths: Sequence[Truth] = (),
) -> Evaluation:
    """Measure every method on every video.

    A video that any pass fails on is left out of all rows, so that all have seen the same.

    Raises:
      TruthError: two truths name one video and differ.
    """
    expected = {source.video_id: truth_of(truths, source.uri) for source in sources}
    notes: list[str] = []

    def look(study: Study) -> dict[str, Measured]:
        truth = expected[study.split.video.video_id]
        by_method = measure_video(study, setting, lpips, truth)
        notes.extend(_oddities(study, truth))
        return by_method

    found, failed = study_each(
        sources, setting, reels_dir, look, clips_of=lambda by: sum(row.clips for row in by.values())
    )
    measured = dict(found)
    with_truth = sum(any(row.boundaries for row in by.values()) for by in measured.values())
    if truths and with_truth < len(measured):
        notes.append(f"boundaries are those of the {with_truth} videos that have a truth")
    if failed:
        notes.append(f"left out of all rows: {len(failed)} of {len(sources)} videos")
    notes += [f"left out: {uri}: {why}" for uri, why in failed.items()]
    return Evaluation(measured, failed, tuple(notes))


def measure_video(study: Study, setting: Setting, lpips: Lpips | None, truth: Truth | None) -> dict[str, Measured]:
    """What every method made of one video."""
    running = study.running(lpips)
    return {
        name: measure(cutting, study.source_s, running, truth) for name, cutting in cuttings(study, setting).items()
    }


def _oddities(study: Study, truth: Truth | None) -> Iterable[str]:
    """What may spoil a video's figures without failing it."""
    uri, frames = study.split.video.uri, len(study.frame_times)
    if study.split.damage:
        yield f"read in part: {uri}: {study.split.damage}"
    for letter in study.split.video.text_failures:
        yield f"without its subtitles: {uri}: {letter.message}"
    if truth and truth.frames not in (None, frames):
        yield f"its truth is of {truth.frames} frames, {frames} were decoded: {uri}"
