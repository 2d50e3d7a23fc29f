"""Do scores mean what they say? Calibration error, Brier score, and the drawing of both.

    found = reliability(probabilities, good)        # of each caption its score, and whether people found it good
    found.ece, found.brier

The expected calibration error is that of ten bins which hold as many captions each (Nguyen and O'Connor, EMNLP 2015);
equal scores share a bin. The Brier score is the mean squared difference between a probability and what happened.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from beam_pipeline import evaluate_plots as plots
from beam_pipeline.evaluate_bootstrap import Interval, bootstrap, ratio
from beam_pipeline.evaluate_plots import WIDTH
from beam_pipeline.evaluate_tables import table
from beam_pipeline.report_contents import legible
from beam_pipeline.report_drawings import draw_line, draw_text, short

BINS = 10


@dataclasses.dataclass(frozen=True, slots=True)
class Bin:
    """Captions with nearly the same score: how many, what they were said to be worth, and the share that was good."""

    captions: int
    said: float
    found: float


@dataclasses.dataclass(frozen=True, slots=True)
class Reliability:
    """How far probabilities are from what people found; both figures are nought at best."""

    captions: int
    ece: float
    brier: float
    bins: tuple[Bin, ...]

    def as_json(self) -> dict[str, Any]:
        bins = [
            {"captions": one.captions, "said": round(one.said, 6), "found": round(one.found, 6)} for one in self.bins
        ]
        return {"captions": self.captions, **self.figures(), "bins": bins}

    def figures(self) -> dict[str, float]:
        """The two figures alone."""
        return {"ece": round(self.ece, 6), "brier": round(self.brier, 6)}


def reliability(scores: np.ndarray, good: np.ndarray) -> Reliability | None:
    """Compare scores with what people found; None where there are none, or where some are no probabilities.

    Args:
      scores: (captions,). good: (captions,), 1 for those that people found good.
    """
    scores, good = np.asarray(scores, float), np.asarray(good, float)
    if not len(scores) or not (np.isfinite(scores).all() and scores.min() >= 0 and scores.max() <= 1):
        return None
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    # Where the middle of those with the same score stands among all, from 0 to 1.
    middle = (np.cumsum(counts) - counts / 2) / len(scores)
    at = np.minimum((middle * BINS).astype(int), BINS - 1)[place]
    bins = tuple(
        Bin(int(inside.sum()), float(scores[inside].mean()), float(good[inside].mean()))
        for number in range(BINS)
        if (inside := at == number).any()
    )
    ece = sum(one.captions * abs(one.said - one.found) for one in bins) / len(scores)
    return Reliability(len(scores), float(ece), float(np.mean((scores - good) ** 2)), bins)


@dataclasses.dataclass(frozen=True, slots=True)
class Worth:
    """What a selector's scores are worth.

    Attributes:
      captions: of all captions. chosen: of those that it chose, whose scores are published as a clip's.
      brier: of all captions, with its interval over clips.
    """

    captions: Reliability
    chosen: Reliability
    brier: Interval

    def as_json(self) -> dict[str, Any]:
        captions = {**self.captions.as_json(), "brier": self.brier.as_json()}
        return {"captions": captions, "chosen": self.chosen.figures()}

    def cells(self) -> list[str]:
        """For a table with the columns of `_HEADER`."""
        brier = self.brier.told(".3f")
        return [
            f"{self.captions.captions:,}",
            f"{self.captions.ece:.3f}",
            brier,
            f"{self.chosen.ece:.3f}",
            f"{self.chosen.brier:.3f}",
        ]


_TITLE = "matching scores as probabilities that people find a caption good; less is better"
_HEADER = ["selector", "captions", "ECE", "Brier", "ECE of the chosen", "Brier of the chosen"]


def worth(scores: Sequence[Sequence[float]], good: Sequence[Sequence[float]]) -> Worth | None:
    """Compare the scores of clips' captions with what people found; None where some are no probabilities.

    Args:
      scores, good: of each clip, a number for each of its captions; see `reliability`.
    """
    found = reliability(*(np.array([number for row in rows for number in row]) for rows in (scores, good)))
    if found is None:
        return None
    best = [int(np.argmax(row)) for row in scores]
    of_best = ([row[at] for row, at in zip(rows, best, strict=True)] for rows in (scores, good))
    chosen = reliability(*map(np.array, of_best))
    assert chosen is not None
    squares = [float(np.sum(np.subtract(said, true) ** 2)) for said, true in zip(scores, good, strict=True)]
    brier = bootstrap(np.column_stack([squares, [len(row) for row in scores]]), ratio)
    return Worth(found, chosen, brier)


#: A square beside its legend.
_LEFT, _TOP, _SIDE, _BOTTOM = 64, 24, 320, 52


def diagram(rows: Mapping[str, Reliability], kinds: Sequence[str], *, title: str) -> Markup:
    """Draw for each selector what its scores said against what people found; on the diagonal both are the same.

    Args:
      kinds: classes of colour in `evaluate_plots`, as many selectors as these are drawn.
    """
    height = _TOP + _SIDE + _BOTTOM

    def x_at(said: float) -> float:
        return _LEFT + said * _SIDE

    def y_at(found: float) -> float:
        return _TOP + (1 - found) * _SIDE

    head = '<svg xmlns="http://www.w3.org/2000/svg" class="scatter" viewBox="0 0 {0} {1}" role="img" aria-label="{2}">'
    parts = [Markup(head + '<rect class="paper" width="{0}" height="{1}"/>').format(WIDTH, height, legible(title))]
    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        parts += [draw_line("grid", _LEFT, y_at(tick), x_at(1), y_at(tick))]
        parts += [
            draw_text("end", _LEFT - 8, y_at(tick) + 4, short(tick)),
            draw_text("middle", x_at(tick), y_at(0) + 18, short(tick)),
        ]
    parts += [
        draw_line("axis", _LEFT, y_at(0), x_at(1), y_at(0)),
        draw_line("limit", x_at(0), y_at(0), x_at(1), y_at(1)),
    ]
    parts += [
        draw_text("middle axis-name", x_at(0.5), height - 12, "matching score"),
        draw_text("axis-name", 12, 14, "found good"),
    ]
    for number, ((name, found), kind) in enumerate(zip(rows.items(), kinds, strict=False)):
        steps = " ".join(f"{x_at(one.said):.1f},{y_at(one.found):.1f}" for one in found.bins)
        parts += [Markup('<polyline class="path {}" points="{}"/>').format(kind, steps)]
        for one in found.bins:
            mark = '<circle class="mark {}" cx="{:.1f}" cy="{:.1f}" r="5"><title>{}</title></circle>'
            told = f"{legible(name, 80)}: {one.captions:,} captions, {one.said:.3f} said, {one.found:.3f} found good"
            parts += [Markup(mark).format(kind, x_at(one.said), y_at(one.found), told)]
        top = _TOP + 12 + number * 40
        parts += [Markup('<circle class="mark {}" cx="{}" cy="{}" r="5"/>').format(kind, x_at(1) + 32, top - 4)]
        parts += [draw_text("axis-name", x_at(1) + 44, top, legible(plots.shortened(name, 44)))]
        parts += [draw_text("label", x_at(1) + 44, top + 16, f"ECE {found.ece:.3f}, Brier {found.brier:.3f}")]
    return Markup("").join([*parts, Markup("</svg>")])


def worth_lines(rows: Mapping[str, Worth]) -> list[str]:
    """The table of selectors whose scores are probabilities, as it is printed, with a blank line before it."""
    return ["", _TITLE, *table(_HEADER, [[name, *one.cells()] for name, one in rows.items()])] if rows else []


def worth_parts(rows: Mapping[str, Worth], kinds: Mapping[str, str]) -> list[Markup]:
    """The same for a page, with a drawing of those selectors that have a class of colour."""
    if not rows:
        return []
    drawn = {name: one.captions for name, one in rows.items() if name in kinds}
    return [
        plots.heading(_TITLE.capitalize()),
        diagram(drawn, [kinds[name] for name in drawn], title="Matching scores, and the share that people found good"),
        plots.html_table(_HEADER, ([name, *one.cells()] for name, one in rows.items())),
    ]
