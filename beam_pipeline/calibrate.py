"""What an embedder's stitching threshold trades: longer clips for clips that change more, on the user's own videos.

    calibration = calibrate(found.sources, setting, "reels/", lpips=load_lpips(weights))
    print(calibration.text())

One split and one embedding a video; then the stitching rules are applied with each threshold in turn. (What the four
thresholds of an embedder should be in general is for benchmarks/calibrate_embedder.py, which has labelled pairs.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup

from beam_pipeline import evaluate_plots as plots
from beam_pipeline.evaluate_bootstrap import rounded
from beam_pipeline.evaluate_measures import Measured, measure, pooled, told
from beam_pipeline.evaluate_tables import table
from beam_pipeline.evaluate_videos import (
    Embedder,
    RunningLpips,
    Setting,
    Study,
    alone,
    cuttings,
    stitched,
    study_each,
)
from model_handlers.perceptual import Lpips
from transforms.reading import Source

#: Unit vectors that have nothing in common are 1.41 apart; beyond that every pair is joined.
THRESHOLDS = tuple(round(0.06 * step, 2) for step in range(24))

#: How much more than the detector's alone LPIPS may be: the paper went from 0.247 to 0.256, 3.6 % more, for clips
#: nearly twice as long.
SLACK = 0.05


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What each threshold gives, over all videos.

    Attributes:
      embedder: its name. current: the threshold that is configured.
      detector: the configured one's shots alone, unsliced, by its name.
      steps: by threshold, ascending.
    """

    embedder: str
    current: float
    detector: tuple[str, Measured]
    steps: tuple[tuple[float, Measured], ...]
    failed: dict[str, str]

    @property
    def suggested(self) -> float | None:
        return suggest(self.steps, self.detector[1].mean_lpips)

    @property
    def measured(self) -> bool:
        """Whether anything was measured at all."""
        return self.detector[1].videos > 0

    def advice(self) -> str:
        """Which threshold to take and why, in a sentence."""
        baseline = self.detector[1].mean_lpips
        if baseline is None:
            return "no threshold can be suggested without LPIPS: give its weights with --lpips"
        rule = f"within {SLACK:.0%} of {self.detector[0]} ({baseline:.3f})"
        if self.suggested is None:
            return f"no threshold keeps LPIPS {rule}; the clips are no better than the shots here"
        return f"suggested: {self.suggested:g}, the longest clips whose LPIPS is {rule}; configured: {self.current:g}"

    def cells(self) -> list[list[str]]:
        rows = [(f"{threshold:g}{self._mark(threshold)}", step) for threshold, step in self.steps]
        return [_cells(name, row) for name, row in [self.detector, *rows]]

    def _mark(self, threshold: float) -> str:
        marks = [word for word, at in (("configured", self.current), ("suggested", self.suggested)) if at == threshold]
        return f" ({', '.join(marks)})" if marks else ""

    def text(self) -> str:
        lines = [f"stitching by {self.embedder}, {self.detector[1].videos} videos", ""]
        lines += [*table(COLUMNS, self.cells()), "", self.advice()]
        if self.failed:
            lines.append(f"left out: {len(self.failed)} of {len(self.failed) + self.detector[1].videos} videos")
        return "\n".join([*lines, *(f"left out: {uri}: {why}" for uri, why in self.failed.items())])

    def as_json(self) -> dict[str, Any]:
        return {
            "embedder": self.embedder,
            "configured": self.current,
            "suggested": self.suggested,
            "slack": SLACK,
            "detector": {"name": self.detector[0], **self.detector[1].as_json()},
            "steps": [{"stitch_distance": threshold, **step.as_json()} for threshold, step in self.steps],
            "failed": self.failed,
        }

    def drawing(self) -> Markup | None:
        """The frontier: LPIPS against mean length, a point a threshold; None without LPIPS."""
        path = [(threshold, step.mean_s, step.mean_lpips) for threshold, step in self.steps]
        known = [(threshold, x, y) for threshold, x, y in path if x is not None and y is not None]
        name, shots = self.detector
        if shots.mean_s is None or shots.mean_lpips is None or not known:
            return None
        points = [plots.Point(name, shots.mean_s, shots.mean_lpips, "detector")]
        points += [plots.Point("", x, y, "step") for _, x, y in known]
        for threshold, x, y in known:
            if mark := self._mark(threshold):
                kind = "chosen" if threshold == self.current else "suggested"
                points.append(plots.Point(f"{threshold:g}{mark}", x, y, kind))
        return plots.scatter(
            points,
            title=f"Stitching by {self.embedder}: LPIPS against mean clip length",
            x_name="mean clip length (s)",
            y_name="Max Running LPIPS",
            path=[(x, y) for _, x, y in known],
            limit=(f"{name} + {SLACK:.0%}", shots.mean_lpips * (1 + SLACK)),
        )

    def html(self) -> str:
        drawing = self.drawing()
        parts = [paragraph for paragraph in (drawing, plots.paragraph(self.advice())) if paragraph is not None]
        parts.append(plots.html_table(COLUMNS, self.cells()))
        if self.failed:
            parts += [plots.heading("Left out"), plots.html_list(f"{uri}: {why}" for uri, why in self.failed.items())]
        return plots.page(f"Stitching by {self.embedder}", parts)


COLUMNS = ["stitch_distance", "clips", "LPIPS", "mean s", "kept"]


def calibrate(
    sources: Sequence[Source],
    setting: Setting,
    reels_dir: str,
    lpips: Lpips | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
) -> Calibration:
    """Sweep the stitching threshold of `setting`'s one embedder, against its one detector alone.

    A video that fails is left out and told.
    """
    (embedder,), (detector,) = setting.embedders, setting.detectors
    current = embedder.rules.stitch_distance
    sweep = tuple(sorted({*thresholds, current}))
    name = alone(detector.detector)

    def look(study: Study) -> tuple[Measured, dict[float, Measured]]:
        running = study.running(lpips)
        baseline = measure(cuttings(study, setting)[name], study.source_s, running, None)
        return baseline, dict(sweep_video(study, embedder, sweep, running))

    found, failed = study_each(sources, setting, reels_dir, look, clips_of=lambda one: one[1][current].clips)
    shots = pooled(baseline for _, (baseline, _) in found)
    steps = tuple((threshold, pooled(by[threshold] for _, (_, by) in found)) for threshold in sweep)
    return Calibration(embedder.entry.name, current, (name, shots), steps, failed)


def sweep_video(
    study: Study, embedder: Embedder, thresholds: Iterable[float], running: RunningLpips | None
) -> Iterable[tuple[float, Measured]]:
    """One video stitched with each threshold."""
    features = study.features[embedder.entry.name]
    for threshold in thresholds:
        rules = dataclasses.replace(embedder.rules, stitch_distance=threshold)
        yield threshold, measure(stitched(study, features, rules), study.source_s, running, None)


def suggest(steps: Iterable[tuple[float, Measured]], baseline: float | None, slack: float = SLACK) -> float | None:
    """The threshold with the longest clips whose LPIPS is within `slack` of `baseline`; of equals the lowest."""
    if baseline is None:
        return None
    best: tuple[float, float] | None = None
    for threshold, step in steps:
        length, change = step.mean_s, step.mean_lpips
        if length is None or change is None or change > baseline * (1 + slack):
            continue
        # Thresholds beyond which nothing more is joined give the same clips.
        if best is None or rounded(length) > rounded(best[1]):  # type: ignore[operator]
            best = (threshold, length)
    return best[0] if best else None


def _cells(name: str, row: Measured) -> list[str]:
    return [name, f"{row.clips:,}", told(row.mean_lpips, ".3f"), told(row.mean_s, ".1f"), told(row.kept, ".0%")]
