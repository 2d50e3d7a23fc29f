"""Bars with intervals for the evaluations: a share or a score for each name, of one or several sides.

    drawing = bars([Bars("lite-scene", (Side("selector", "own", Interval(0.3, 0.25, 0.36)), ...))], title="Chosen")

They stand in the pages of `evaluate_plots`, whose classes of colour they use.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from markupsafe import Markup

from beam_pipeline.evaluate_bootstrap import Interval
from beam_pipeline.evaluate_plots import WIDTH, shortened
from beam_pipeline.report_contents import legible
from beam_pipeline.report_drawings import draw_line, draw_text, short, ticks

#: Where bars begin: to the left of it stand their names.
_LEFT, _RIGHT, _TOP, _BOTTOM = 210, 24, 28, 34
_THICK, _GAP = 14, 10
_LETTERS = 30


@dataclasses.dataclass(frozen=True, slots=True)
class Side:
    """One bar: whose it is, the class of its colour in `evaluate_plots`, and how long it is."""

    name: str
    kind: str
    interval: Interval


@dataclasses.dataclass(frozen=True, slots=True)
class Bars:
    """The bars of one name, one below the other."""

    label: str
    sides: tuple[Side, ...]


def bars(rows: Sequence[Bars], *, title: str) -> Markup:
    """Draw bars from zero, each with its interval as a line and, under the pointer, its numbers; all in hundredths."""
    told = [side.interval for row in rows for side in row.sides if side.interval.value is not None]
    most = 1.05 * max([max(one.value or 0.0, one.high or 0.0) for one in told], default=0.0) or 1.0
    heights = [len(row.sides) * _THICK + _GAP for row in rows]
    height = _TOP + sum(heights) + _BOTTOM

    def x_at(value: float) -> float:
        return _LEFT + max(0.0, value) / most * (WIDTH - _LEFT - _RIGHT)

    head = '<svg xmlns="http://www.w3.org/2000/svg" class="scatter" viewBox="0 0 {0} {1}" role="img" aria-label="{2}">'
    parts = [Markup(head + '<rect class="paper" width="{0}" height="{1}"/>').format(WIDTH, height, legible(title))]
    parts += [draw_text("axis-name", 12, 18, legible(f"{title}; in hundredths", 120))]
    for tick in ticks(0.0, most, 6):
        parts += [draw_line("grid", x_at(tick), _TOP, x_at(tick), height - _BOTTOM)]
        parts += [draw_text("middle", x_at(tick), height - 12, short(100 * tick))]
    top = _TOP + _GAP / 2
    for row, taken in zip(rows, heights, strict=True):
        parts += [
            draw_text("end", _LEFT - 8, top + len(row.sides) * _THICK / 2 + 4, legible(shortened(row.label, _LETTERS)))
        ]
        for number, side in enumerate(row.sides):
            parts += _bar(side, row.label, top + number * _THICK, x_at)
        top += taken
    parts += [draw_line("axis", _LEFT, _TOP, _LEFT, height - _BOTTOM)]
    return Markup("").join([*parts, Markup("</svg>")])


def _bar(side: Side, label: str, top: float, x_at: Callable[[float], float]) -> list[Markup]:
    value, low, high = side.interval.value, side.interval.low, side.interval.high
    if value is None:
        return []
    bar = '<rect class="{}" x="{}" y="{:.1f}" width="{:.1f}" height="{}"><title>{}</title></rect>'
    told = f"{legible(label, 80)}, {side.name}: {side.interval.told(scale=100)}"
    parts = [Markup(bar).format(side.kind, _LEFT, top + 1, x_at(value) - _LEFT, _THICK - 2, told)]
    if low is not None and high is not None:
        # A white edge, or the line would drown in the colour of its bar.
        edge = '<rect class="paper" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="4"/>'
        parts += [Markup(edge).format(x_at(low), top + _THICK / 2 - 2, x_at(high) - x_at(low))]
        parts += [draw_line("axis", x_at(low), top + _THICK / 2, x_at(high), top + _THICK / 2)]
    return parts
