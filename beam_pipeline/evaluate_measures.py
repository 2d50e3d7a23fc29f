"""The figures of the splitting evaluations: what one method made of some videos, and the tables they stand in.

row = pooled(measure(cutting, source_s, running, truth) for ...)
row.mean_s, row.mean_lpips, row.kept, row.boundaries[2].f1
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from beam_pipeline.evaluate_bootstrap import rounded
from beam_pipeline.evaluate_videos import Cutting, RunningLpips
from transforms.boundary_scores import TOLERANCES, Counts, compare, total
from transforms.records import Span
from transforms.truth import Truth, cut_at

LENGTH_COLUMNS = ["method", "videos", "clips", "LPIPS", "mean s", "kept"]
BOUNDARY_COLUMNS = [
    "method",
    "videos",
    "true",
    "found",
    *(f"{name}@{n}" for n in TOLERANCES for name in ("P", "R", "F1")),
]


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one method made of some videos.

    Attributes:
      lengths_s: of each clip. source_s: of the videos, as far as they were decoded.
      covered_s: how much of these lies in a clip, overlaps counted once.
      lpips: Max Running LPIPS of each clip that has two key frames a second apart.
      judged: how many of the videos have a truth.
      boundaries: against it, by tolerance; empty where none has.
    """

    videos: int = 0
    lengths_s: tuple[float, ...] = ()
    source_s: float = 0.0
    covered_s: float = 0.0
    lpips: tuple[float, ...] = ()
    judged: int = 0
    boundaries: Mapping[int, Counts] = dataclasses.field(default_factory=dict)

    @property
    def clips(self) -> int:
        return len(self.lengths_s)

    @property
    def mean_s(self) -> float | None:
        return mean(self.lengths_s)

    @property
    def mean_lpips(self) -> float | None:
        return mean(self.lpips)

    @property
    def kept(self) -> float | None:
        return self.covered_s / self.source_s if self.source_s else None

    def as_json(self) -> dict[str, Any]:
        """Plain values; what is not known is None."""
        scores = {
            str(tolerance): {**dataclasses.asdict(counts), **scores_of(counts)}
            for tolerance, counts in self.boundaries.items()
        }
        return {
            "videos": self.videos,
            "clips": self.clips,
            "mean_clip_s": rounded(self.mean_s),
            "max_running_lpips": rounded(self.mean_lpips),
            "clips_with_lpips": len(self.lpips),
            "source_s": rounded(self.source_s),
            "kept": rounded(self.kept),
            "videos_with_truth": self.judged,
            "boundaries": scores,
        }


def measure(cutting: Cutting, source_s: float, running: RunningLpips | None, truth: Truth | None) -> Measured:
    """What one method made of one video."""
    changes = [running(span) for span in cutting.spans] if running else []
    found = [cut_at(edge) for edge in cutting.edges]
    counts = {width: compare(truth.transitions, found, width) for width in TOLERANCES} if truth else {}
    return Measured(
        videos=1,
        lengths_s=tuple(span.duration_s for span in cutting.spans),
        source_s=source_s,
        covered_s=covered_s(cutting.spans),
        lpips=tuple(change for change in changes if change is not None),
        judged=int(truth is not None),
        boundaries=counts,
    )


def pooled(parts: Iterable[Measured]) -> Measured:
    """Several videos' measurements as one: every clip and every boundary counts the same."""
    parts = list(parts)
    against_truth = [part.boundaries for part in parts if part.boundaries]
    return Measured(
        videos=sum(part.videos for part in parts),
        lengths_s=tuple(length for part in parts for length in part.lengths_s),
        source_s=sum(part.source_s for part in parts),
        covered_s=sum(part.covered_s for part in parts),
        lpips=tuple(change for part in parts for change in part.lpips),
        judged=sum(part.judged for part in parts),
        boundaries={width: total(by[width] for by in against_truth) for width in TOLERANCES} if against_truth else {},
    )


def covered_s(spans: Iterable[Span]) -> float:
    """How many seconds lie in any of the spans."""
    covered, reached = 0.0, float("-inf")
    for span in sorted(spans, key=lambda one: one.start_s):
        covered += max(0.0, span.end_s - max(span.start_s, reached))
        reached = max(reached, span.end_s)
    return covered


def length_cells(name: str, row: Measured) -> list[str]:
    return [
        name,
        f"{row.videos:,}",
        f"{row.clips:,}",
        told(row.mean_lpips, ".3f"),
        told(row.mean_s, ".1f"),
        told(row.kept, ".0%"),
    ]


def boundary_cells(name: str, row: Measured) -> list[str]:
    exact = row.boundaries[TOLERANCES[0]]
    scores = [score for width in TOLERANCES for score in scores_of(row.boundaries[width]).values()]
    counted = [f"{exact.right + exact.missed:,}", f"{exact.right + exact.wrong:,}"]
    return [name, f"{row.judged:,}", *counted, *(told(score, ".3f") for score in scores)]


def scores_of(counts: Counts) -> dict[str, float | None]:
    return {"precision": rounded(counts.precision), "recall": rounded(counts.recall), "f1": rounded(counts.f1)}


def mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def told(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
