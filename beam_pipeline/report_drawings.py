"""Drawings of the report: SVG as text, drawn when the report is written, so that the page needs no library.

    histogram(np.array([3.1, 4.0, 9.9]), title="Clip length", unit="s")

Colours are CSS classes. Sizes are attributes, not `style`, because the page's content policy forbids inline styles.
Only numbers enter a drawing unescaped; text goes through markupsafe.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np
from markupsafe import Markup

WIDTH, HEIGHT = 440, 210
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 14, 42
BINS = 24

#: Timelines are painted on this many columns: an hour-long video has a thousand spans, a screen has no more room.
COLUMNS = 480


@dataclasses.dataclass(frozen=True, slots=True)
class Bins:
    """A histogram's bars: `counts[i]` values lie in [start + i*step, start + (i+1)*step).

    `beyond` values above the last edge are counted in the last bar, so that one long clip does not flatten the rest.
    """

    start: float
    step: float
    counts: tuple[int, ...]
    beyond: int

    @property
    def end(self) -> float:
        return self.start + self.step * len(self.counts)


def bins(values: np.ndarray, *, whole: bool = False) -> Bins:
    """Sort `values` into at most ~24 bars with round edges; `whole` for counts, whose bars are whole numbers wide."""
    low, high = float(values.min()), float(values.max())
    usual = float(np.quantile(values, 0.99))
    if high - low > 2 * (usual - low) > 0:
        high = usual
    # Lengths of clips differ in their last bits: that is no range to divide.
    step = round_step((high - low) / BINS if high - low > 1e-9 * max(abs(low), abs(high)) else 0.0)
    if whole:
        step = max(1.0, float(math.ceil(step)))
    start = math.floor(low / step + 1e-9) * step
    number = max(1, math.floor((high - start) / step + 1e-9) + 1)
    at = np.clip(np.floor((values - start) / step + 1e-9).astype(np.int64), 0, number - 1)
    counts = np.bincount(at, minlength=number)
    beyond = int((values > start + step * number).sum())
    return Bins(start, step, tuple(int(count) for count in counts), beyond)


def round_step(step: float) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that is not below `step`."""
    if step <= 0 or not math.isfinite(step):
        return 1.0
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= step * (1 - 1e-9))


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers in [low, high], about `wanted` of them."""
    if high <= low:
        return [low]
    step = round_step((high - low) / wanted)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def histogram(values: np.ndarray, *, title: str, unit: str = "", whole: bool = False) -> Markup:
    """Draw how `values` are distributed: bars, both axes with numbers, and a line at the median."""
    drawn = bins(values, whole=whole)
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    tallest = max(drawn.counts)
    bar = width / len(drawn.counts)

    # A bar of whole numbers stands for them as they are: the number belongs below its middle, not below its edge.
    shift = drawn.step / 2 if whole and drawn.step == 1 else 0.0

    def x(value: float) -> float:
        return LEFT + (value + shift - drawn.start) / (drawn.end - drawn.start) * width

    def y(count: float) -> float:
        return TOP + height * (1 - count / tallest)

    parts = [
        Markup('<svg class="histogram" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
            WIDTH, HEIGHT, f"{title}: {len(values)} values, median {short(float(np.median(values)))} {unit}".strip()
        )
    ]
    for count in sorted({round(tick) for tick in ticks(0, tallest, 4)}):
        parts.append(draw_line("grid", LEFT, y(count), WIDTH - RIGHT, y(count)))
        parts.append(draw_text("end", LEFT - 7, y(count) + 4, f"{count:,}"))
    for number, count in enumerate(drawn.counts):
        start = drawn.start + number * drawn.step
        last = start + drawn.step - (1 if whole else 0)
        said = (short(start) if last == start else f"{short(start)} to {short(last)} {unit}".strip()) + f": {count:,}"
        if number == len(drawn.counts) - 1 and drawn.beyond:
            said += f", {drawn.beyond:,} of them above"
        parts.append(
            Markup(
                '<rect class="bar" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}"><title>{}</title></rect>'
            ).format(LEFT + number * bar + 0.75, y(count), max(0.5, bar - 1.5), TOP + height - y(count), said)
        )
    parts.append(draw_line("axis", LEFT, TOP + height, WIDTH - RIGHT, TOP + height))
    for tick in ticks(drawn.start, drawn.end - 2 * shift, 6):
        if whole and tick != round(tick):
            continue
        parts.append(draw_text("middle", x(tick), TOP + height + 16, short(tick)))
    median = float(np.median(values))
    if median <= drawn.end:
        parts.append(draw_line("median", x(median), TOP, x(median), TOP + height))
    parts.append(draw_text("middle axis-name", LEFT + width / 2, HEIGHT - 6, f"{title} ({unit})" if unit else title))
    return Markup("").join([*parts, Markup("</svg>")])


def timeline(duration_s: float, spans: Iterable[tuple[str, float, float]], label: str) -> Markup:
    """Draw a video as one bar; `spans` are (kind, start_s, end_s), later ones paint over earlier ones.

    A kind is the CSS class of its colour: accepted, rejected, failed.
    """
    painted: list[str] = [""] * COLUMNS
    for kind, start_s, end_s in spans:
        first = min(COLUMNS - 1, max(0, math.floor(start_s / duration_s * COLUMNS + 0.5)))
        last = min(COLUMNS, max(first + 1, math.floor(end_s / duration_s * COLUMNS + 0.5)))
        painted[first:last] = [kind] * (last - first)
    paths: dict[str, list[str]] = {}
    start = 0
    for at in range(1, COLUMNS + 1):
        if at == COLUMNS or painted[at] != painted[start]:
            if painted[start]:
                paths.setdefault(painted[start], []).append(f"M{start} 0h{at - start}v12h-{at - start}z")
            start = at
    drawn = [Markup('<path class="{}" d="{}"/>').format(kind, "".join(steps)) for kind, steps in paths.items()]
    head = Markup('<svg class="timeline" viewBox="0 0 {} 12" preserveAspectRatio="none" role="img" aria-label="{}">')
    return head.format(COLUMNS, label) + Markup("").join(drawn) + Markup("</svg>")


def score_bar(value: float | None, low: float, high: float) -> Markup:
    """Draw a score as a bar on the scale from `low` to `high`, which all bars of a page share."""
    share = 0.0 if value is None or high <= low else min(1.0, max(0.0, (value - low) / (high - low)))
    head = '<svg class="score-bar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
    bars = '<rect class="track" width="100" height="6"/><rect class="fill" width="{:.1f}" height="6"/></svg>'
    return Markup(head + bars).format(100 * share)


def measure_line(quantiles: tuple[float, float, float], thresholds: Sequence[float]) -> Markup:
    """Draw the middle 80 % of what a rule measured, its median as a dot, and its thresholds as upright strokes."""
    low, middle, high = quantiles
    everything = [*quantiles, *thresholds]
    least, most = min(everything), max(everything)
    spread = (most - least) or 1.0

    def x(value: float) -> float:
        return 8 + (value - least) / spread * 144

    said = f"80 % of the values between {short(low)} and {short(high)}, median {short(middle)}"
    if thresholds:
        said += f", threshold {', '.join(short(value) for value in thresholds)}"
    parts = [
        Markup('<svg class="measure" viewBox="0 0 160 16" role="img" aria-label="{0}"><title>{0}</title>').format(said),
        draw_line("track", 4, 8, 156, 8),
        draw_line("range", x(low), 8, max(x(high), x(low) + 1), 8),
        *(draw_line("threshold", x(value), 2, x(value), 14) for value in thresholds),
        Markup('<circle class="middle" cx="{:.1f}" cy="8" r="3"/></svg>').format(x(middle)),
    ]
    return Markup("").join(parts)


def short(value: float) -> str:
    """A number in as few digits as tell it apart at three significant ones."""
    if abs(value) < 1e-12:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def draw_line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(kind, x1, y1, x2, y2)


def draw_text(kind: str, x: float, y: float, text: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(kind, x, y, text)
