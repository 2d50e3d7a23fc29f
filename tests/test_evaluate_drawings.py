"""What stands beside the bars and points of the evaluations' pages, and in which unit."""

import re

from beam_pipeline import evaluate_plots as plots
from beam_pipeline.evaluate_bars import Bars, Side, bars
from beam_pipeline.evaluate_bootstrap import Interval

VERSION = "lite-projection=gs://bucket/models/selector/v12"


def labels(drawing: str) -> list[str]:
    return re.findall(r'<text class="end"[^>]*>([^<]*)</text>', drawing)


def test_the_bar_of_a_version_tells_which_selector_version_and_figure_it_is():
    side = Side("text to video", "own", Interval(0.5, 0.4, 0.6))
    told = labels(bars([Bars(f"{VERSION}, R@{most}", (side,)) for most in (1, 10)], title="Recall"))
    assert told == ["lite-projectio…lector/v12, R@1", "lite-projectio…ector/v12, R@10"]
    # To the left of the bars is room for so many letters.
    assert max(map(len, told)) * plots.LETTER_PX < 200


def test_bars_are_in_hundredths_as_the_tables_beside_them_are():
    drawing = bars([Bars("lite-scene", (Side("people", "own", Interval(0.375, 0.275, 0.45)),))], title="Share")
    assert re.findall(r'<text class="middle"[^>]*>([^<]*)</text>', drawing) == ["0", "10", "20", "30", "40"]
    assert "<title>lite-scene, people: 37.5 [27.5, 45.0]</title>" in drawing and "Share; in hundredths<" in drawing


def test_the_line_does_not_strike_a_label_out():
    path = [(1.0, 62.5), (2.0, 83.3), (3.0, 83.3), (5.0, 83.3)]
    points = [plots.Point("lite-scene", 1.0, 62.5, "chosen"), plots.Point("lite-frame", 2.0, 83.3, "chosen")]
    points.append(plots.Point("published", 31.0, 84.7, "published"))
    drawing = plots.scatter(points, title="Coverage", x_name="teachers", y_name="clips", path=path)
    [line] = re.findall(r'class="path" points="([^"]+)"', drawing)
    level = float(line.split()[-1].split(",")[1])
    left, height = re.findall(r'class="label" x="([\d.]+)" y="([\d.]+)">lite-frame<', drawing)[0]
    beside = float(left) + 10 * plots.LETTER_PX < float(line.split()[1].split(",")[0])
    assert beside or abs(float(height) - 4 - level) > 7
