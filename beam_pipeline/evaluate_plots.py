"""Drawings and pages of the evaluations: LPIPS against clip length, as SVG and in one HTML file that loads nothing.

    drawing = scatter([Point("content alone", 4.1, 0.247, "detector")], title="Splitting", ...)
    write(path, page("Splitting", [drawing, html_table(header, rows)]))

All text is escaped: file names are the text of strangers. Only numbers enter a drawing unescaped.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

from markupsafe import Markup

from beam_pipeline import __version__
from beam_pipeline.report_contents import legible
from beam_pipeline.report_drawings import draw_line, draw_text, short, ticks

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 20, 52
#: A label's line, and an average letter at its size.
LINE_PX, LETTER_PX = 15, 6.3

#: For drawings that stand alone; a page has the same in its one style sheet.
DRAWING_STYLE = """
.scatter text { fill: #55574f; font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
.scatter .end { text-anchor: end; } .scatter .middle { text-anchor: middle; }
.scatter .axis-name { font-weight: 600; }
.scatter .paper { fill: #ffffff; }
.scatter .grid { stroke: #e3e3de; } .scatter .axis { stroke: #62645f; }
.scatter .leader { stroke: #b9bbb4; }
.scatter .path { fill: none; stroke: #9dbfba; stroke-width: 2; }
.scatter .path.own { stroke: #1f6f66; } .scatter .path.detector { stroke: #3b6fb5; }
.scatter .path.subtitles { stroke: #a8362b; } .scatter .path.step { stroke: #9dbfba; }
.scatter .limit { stroke: #8a5a00; stroke-dasharray: 4 4; }
.scatter .mark { stroke: #ffffff; stroke-width: 1.5; fill: #62645f; }
.scatter .own { fill: #1f6f66; } .scatter .detector { fill: #3b6fb5; } .scatter .subtitles { fill: #a8362b; }
.scatter .published { fill: #ffffff; stroke: #62645f; stroke-width: 2; }
.scatter .step { fill: #9dbfba; } .scatter .chosen { fill: #1f6f66; } .scatter .suggested { fill: #d98a00; }
.scatter polyline.path { fill: none; }
"""

PAGE_STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 60rem; padding: 2rem; color: #1d1e1c; background: #f7f7f5; overflow-wrap: anywhere;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  font-variant-numeric: tabular-nums; }
h1 { font-size: 1.7rem; line-height: 1.2; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.scroll { overflow-x: auto; margin-bottom: 1rem; background: #fff; border: 1px solid #e3e3de; border-radius: 10px; }
table { border-collapse: collapse; width: 100%; font-size: .89rem; }
th, td { text-align: right; padding: .5rem .75rem; border-top: 1px solid #e3e3de; vertical-align: top; }
thead th { border-top: 0; color: #62645f; font-weight: 500; } tbody th { font-weight: 500; }
td, thead th { white-space: nowrap; }
th:first-child { text-align: left; }
.scatter { display: block; width: 100%; height: auto; margin-bottom: 1rem; border: 1px solid #e3e3de;
  border-radius: 10px; }
p, li { max-width: 76ch; } footer { margin-top: 3rem; color: #62645f; font-size: .8rem; }
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    """A mark in a drawing. `kind` is the CSS class of its colour; one without a label gets none."""

    label: str
    x: float
    y: float
    kind: str


def scatter(
    points: Sequence[Point],
    *,
    title: str,
    x_name: str,
    y_name: str,
    path: Sequence[tuple[float, float]] = (),
    limit: tuple[str, float] | None = None,
) -> Markup:
    """Draw points, each with its label and, under the pointer, its numbers.

    Args:
      path: a line through these, under the points.
      limit: a label and the height at which a dashed line stands for it.
    """
    heights = [*(point.y for point in points), *((limit[1],) if limit else ()), *(y for _, y in path)] or [0.0, 1.0]
    x_most = 1.08 * max([*(point.x for point in points), *(x for x, _ in path)], default=0.0) or 1.0
    # Lengths begin at zero; differences of LPIPS are small beside it.
    room = 0.15 * ((max(heights) - min(heights)) or max(heights) or 1.0)
    y_least, y_most = max(0.0, min(heights) - room), max(heights) + room
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x_at(x: float) -> float:
        return LEFT + x / x_most * width

    def y_at(y: float) -> float:
        return TOP + height * (1 - (y - y_least) / (y_most - y_least))

    head = '<svg xmlns="http://www.w3.org/2000/svg" class="scatter" viewBox="0 0 {0} {1}" role="img" aria-label="{2}">'
    parts = [
        Markup(head + '<rect class="paper" width="{0}" height="{1}"/>').format(WIDTH, HEIGHT, legible(title)),
    ]
    for tick in ticks(y_least, y_most, 6):
        parts += [draw_line("grid", LEFT, y_at(tick), WIDTH - RIGHT, y_at(tick))]
        parts += [draw_text("end", LEFT - 8, y_at(tick) + 4, short(tick))]
    for tick in ticks(0, x_most, 8):
        parts += [draw_text("middle", x_at(tick), TOP + height + 18, short(tick))]
    parts += [draw_line("axis", LEFT, TOP + height, WIDTH - RIGHT, TOP + height)]
    parts += [draw_text("middle axis-name", LEFT + width / 2, HEIGHT - 12, x_name)]
    parts += [draw_text("axis-name", LEFT - 52, TOP - 6, y_name)]
    if limit:
        parts += [draw_line("limit", LEFT, y_at(limit[1]), WIDTH - RIGHT, y_at(limit[1]))]
        parts += [draw_text("end", WIDTH - RIGHT, y_at(limit[1]) - 5, legible(limit[0], 60))]
    if path:
        steps = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in path)
        parts += [Markup('<polyline class="path" points="{}"/>').format(steps)]
    for point in points:
        mark = '<circle class="mark {}" cx="{:.1f}" cy="{:.1f}" r="{}"><title>{}</title></circle>'
        told = f"{legible(point.label, 80)}: {short(point.x)}, {short(point.y)}"
        radius = 4 if point.kind == "step" else 6
        parts += [Markup(mark).format(point.kind, x_at(point.x), y_at(point.y), radius, told)]
    wanted = [(x_at(point.x), y_at(point.y), legible(point.label, 60)) for point in points if point.label]
    parts += _labels(wanted, [(x_at(x), y_at(y)) for x, y in path])
    return Markup("").join([*parts, Markup("</svg>")])


def _labels(wanted: Sequence[tuple[float, float, str]], path: Sequence[tuple[float, float]]) -> Iterator[Markup]:
    """Labels beside their points, as near as they can stand without covering a mark, the line or another label."""
    taken = [_Box(x - 7, x + 7, y - 7, y + 7) for x, y, _ in wanted]
    for (x, y), (to_x, to_y) in itertools.pairwise(path):
        steps = 1 + int(math.hypot(to_x - x, to_y - y) / 4)
        along = ((x + (to_x - x) * at / steps, y + (to_y - y) * at / steps) for at in range(steps + 1))
        taken += [_Box(at_x - 2, at_x + 2, at_y - 2, at_y + 2) for at_x, at_y in along]
    for x, y, label in sorted(wanted, key=lambda one: (one[1], one[0])):
        places = list(_places(x, y, LETTER_PX * len(label)))
        free = (place for place in places if not any(place.meets(other) for other in taken))
        box = next(free, places[0] if places else _Box(x + 10, WIDTH, y - 7, y + 7))
        taken.append(box)
        if abs(box.middle - y) > 1:
            yield draw_line("leader", x, y, box.left if box.left > x else box.right, box.middle)
        yield draw_text("label", box.left, box.middle + 4, label)


def _places(x: float, y: float, wide: float) -> Iterator[_Box]:
    """Where a label of a point may stand, the best place first: beside it, then higher and lower, right before left."""
    for step in sorted(range(-24, 25), key=lambda step: (abs(step), step)):
        middle = y + step * LINE_PX
        for left in (x + 10, x - 10 - wide):
            inside = left > LEFT - 40 and left + wide < WIDTH - 2
            if inside and (step == 0 or 7 < middle < HEIGHT - BOTTOM - 7):
                yield _Box(left, left + wide, middle - 7, middle + 7)


@dataclasses.dataclass(frozen=True, slots=True)
class _Box:
    """A rectangle of the drawing, in its pixels."""

    left: float
    right: float
    top: float
    bottom: float

    @property
    def middle(self) -> float:
        return (self.top + self.bottom) / 2

    def meets(self, other: _Box) -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


def standalone(drawing: Markup) -> str:
    """The drawing as an SVG file of its own."""
    style = Markup("<style>{}</style><rect").format(Markup(DRAWING_STYLE))
    return str(drawing).replace("<rect", str(style), 1) + "\n"


def html_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """A table; the first cell of a row is its heading."""
    head = Markup("").join(Markup("<th>{}</th>").format(name) for name in header)
    lines = (
        Markup("<tr><th>{}</th>{}</tr>").format(
            legible(first), Markup("").join(Markup("<td>{}</td>").format(legible(cell)) for cell in cells)
        )
        for first, *cells in rows
    )
    body = Markup("").join(lines)
    return Markup('<div class="scroll"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>').format(
        head, body
    )


def html_list(lines: Iterable[str]) -> Markup:
    return Markup("<ul>{}</ul>").format(Markup("").join(Markup("<li>{}</li>").format(legible(line)) for line in lines))


def shortened(name: str, most: int) -> str:
    """A name's beginning and end: of a version, the selector and the number."""
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-(most // 2) :]}"


def heading(text: str) -> Markup:
    return Markup("<h2>{}</h2>").format(text)


def paragraph(text: str) -> Markup:
    return Markup("<p>{}</p>").format(legible(text))


def page(title: str, parts: Iterable[Markup]) -> str:
    """One HTML file that may load nothing and run nothing: its content policy allows its own style alone."""
    style = PAGE_STYLE + DRAWING_STYLE
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="{}"><title>{}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><style>{}</style></head><body><h1>{}</h1>'
    )
    foot = "<footer>reelscribe {}</footer></body></html>\n"
    opening = Markup(head).format(policy, legible(title), Markup(style), legible(title))
    return str(Markup("\n").join([opening, *parts, Markup(foot).format(__version__)]))


def write(path: str, text: str) -> None:
    """Write a file aside and give it its name, so that a reader never sees half of it."""
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        aside.write_text(text, "utf-8", newline="\n")
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
