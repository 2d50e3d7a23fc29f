"""The HTML report of a dataset: one file that needs neither a server nor the network.

    path = write_report("demo-dataset")      # -> "demo-dataset/report.html"

Titles, subtitles, captions and error messages are the text of strangers: Jinja2 escapes all of it, the page's script
never makes markup from text, and the page's content policy allows its own script and style (by hash), pictures from
data: URIs, and nothing else.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import importlib.resources
import json
import posixpath
from collections.abc import Iterator
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from beam_pipeline import __version__, report_contents, report_drawings, report_statistics, score_statistics, stats
from beam_pipeline.report_contents import legible
from beam_pipeline.report_links import Links, links_for
from beam_pipeline.report_pictures import ContactSheets
from transforms.files import join, title_of, writing
from transforms.measure_columns import MEASURED, MeasureColumn

MAX_VIDEOS = 500
MAX_CAPTIONS_A_CLIP = 40
MAX_LABELS = 40

#: Where clips are drawn for the page to tell what bounds would drop: to a quarter of a percent.
_DRAWN = (np.arange(400) + 0.5) / 400

TEMPLATES = importlib.resources.files("beam_pipeline") / "templates_html"


def write_report(
    dataset_dir: str,
    html: str | None = None,
    max_clips: int = 500,
    sign_urls: datetime.timedelta | None = None,
) -> str:
    """Write the report of the dataset in `dataset_dir`.

    Args:
      dataset_dir: what `curate` or `watch` wrote, here or in gs://; nothing in it is changed but the report itself.
      html: where the report shall stand; `report.html` in the dataset without it.
      max_clips: how many clips to show at most. A larger dataset shows a sample of all its videos and says so. A clip
        takes up to 50 kB, so the default stays below 30 MB.
      sign_urls: link to the clips' files in a bucket, for so long; None: the page has no links.

    Returns:
      The path of the report.

    Raises:
      ValueError: `max_clips` is negative.
      LinkError: a `ValueError`; nobody can sign links.
      NoDataset: a `ValueError`; `dataset_dir` holds no dataset.
      OSError: the report can't be written.
    """
    if max_clips < 0:
        raise ValueError(f"max_clips is {max_clips}; it has to be 0 or more")
    target = html or join(dataset_dir, "report.html")
    links = links_for(dataset_dir, sign_urls) if sign_urls is not None else None
    contents = gather(dataset_dir, max_clips, links)
    with writing(target) as sink:
        for part in _environment().get_template("report.html.j2").generate(contents):
            sink.write(part.encode())
    return target


def gather(dataset_dir: str, max_clips: int, links: Links | None = None) -> dict[str, Any]:
    """Everything the template shows; the clips as an iterator, whose pictures are made while the page is written."""
    tables = report_contents.load(dataset_dir)
    shown = report_contents.sample_clips(tables.clips, max_clips)
    videos = report_contents.sample_videos(tables.videos, MAX_VIDEOS)
    titles = {row["video_id"]: _video_name(row) for row in videos}
    for row in shown.select(["video_id", "title", "uri"]).to_pylist():
        titles.setdefault(row["video_id"], _video_name(row))
    clip_videos = list(dict.fromkeys(shown["video_id"].to_pylist()))
    spans = report_contents.spans_by_video(tables, [row["video_id"] for row in videos])
    values = report_statistics.distributions(tables.clips)
    style, script = (TEMPLATES.joinpath(f"report.{kind}").read_text("utf-8") for kind in ("css", "js"))
    return {
        "version": __version__,
        "name": title_of(dataset_dir),
        "style": Markup(style),
        "script": Markup(script),
        "policy": _policy(style, script),
        "totals": report_statistics.totals(tables.clips, tables.videos, tables.rejected, tables.failures),
        "run": report_contents.newest_run(dataset_dir, tables.videos),
        "clips": _clip_cards(dataset_dir, shown.to_batches(max_chunksize=64), titles, links),
        "links_until": links and moment(links.until.isoformat()),
        "n_shown": shown.num_rows,
        "n_shown_videos": len(clip_videos),
        "clip_videos": sorted(((video_id, titles[video_id]) for video_id in clip_videos), key=lambda pair: pair[1]),
        "clip_teachers": sorted({teacher for teacher in shown["teacher"].to_pylist() if teacher}),
        "leaderboard": report_statistics.leaderboard(tables.clips, tables.failures),
        "stats": stats.count(lambda name, columns: getattr(tables, name).select(columns).to_batches(), {}),
        "distributions": _figures(values),
        "scores": _scores(tables),
        "rejects": report_statistics.rejects(tables.rejected),
        "failures": report_statistics.failure_groups(tables.failures),
        "videos": [{**row, "name": titles[row["video_id"]], **_timeline(row, spans)} for row in videos],
    }


def _clip_cards(
    dataset_dir: str, batches: list[Any], titles: dict[str, str], links: Links | None
) -> Iterator[dict[str, Any]]:
    sheets = ContactSheets(dataset_dir)
    scores = [
        candidate["matching_score"]
        for batch in batches
        for candidates in batch.column("captions").to_pylist()
        for candidate in candidates or ()
        if candidate["matching_score"] is not None and np.isfinite(candidate["matching_score"])
    ]
    # One scale for all bars of the page, with zero on it, so that bars of different clips can be compared.
    low, high = min([0.0, *scores]), max([0.0, *scores])
    for batch in batches:
        for row in batch.to_pylist():
            candidates = sorted(row["captions"] or (), key=lambda one: -_sortable(one["matching_score"]))
            yield {
                **row,
                "sheet": sheets.sheet(row["video_id"], row["start_s"], row["end_s"]),
                "video": titles[row["video_id"]],
                "link": links and links.of(row),
                "measures": list(_measures(row)),
                "n_candidates": len(candidates),
                "candidates": [
                    {
                        **one,
                        "chosen": one["teacher"] == row["teacher"] and one["caption"] == row["caption"],
                        "bar": report_drawings.score_bar(_finite(one["matching_score"]), low, high),
                    }
                    for one in candidates[:MAX_CAPTIONS_A_CLIP]
                ],
            }


def _measures(row: dict[str, Any]) -> Iterator[tuple[MeasureColumn, str]]:
    """What was measured of a clip, in words."""
    for column in MEASURED:
        value = row[column.name]
        if column.is_number and _finite(value) is not None:
            yield column, report_drawings.short(value)
        elif isinstance(value, list):
            yield column, ", ".join(map(str, value))
        elif isinstance(value, str):
            yield column, value


def _figures(values: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    figures = (
        ("length", "Clip length", "s", False),
        ("words", "Words in the chosen caption", "", True),
        ("score", "Matching score of the chosen caption", "", False),
        ("margin", "Margin to the runner-up", "", False),
    )
    return [
        {
            "title": title,
            "unit": unit,
            "count": len(found),
            "drawing": report_drawings.histogram(found, title=title, unit=unit, whole=whole) if len(found) else None,
            "facts": _facts(found) if len(found) else (),
        }
        for key, title, unit, whole in figures
        for found in [values[key]]
    ]


def _scores(tables: report_contents.Tables) -> list[dict[str, Any]]:
    """The measures: a drawing and percentiles of numbers, by which the page tells what bounds would drop; labels."""
    found = score_statistics.gather(lambda name, columns: getattr(tables, name).select(columns).to_batches())
    return [
        {
            "column": score.column,
            "count": score.clips,
            "labels": [(name, count, count / score.clips) for name, count in score.labels.items()][:MAX_LABELS],
            "drawing": report_drawings.histogram(score.values, title=score.column.title) if numbers else None,
            "facts": _facts(score.values) if numbers else (),
            "drawn": _drawn(score.values) if numbers else "",
        }
        for score in found.scores
        for numbers in [len(score.values) > 0]
    ]


def _drawn(values: np.ndarray) -> str:
    """Values of some clips, evenly over the sorted ones, as the page's script reads them."""
    return json.dumps([float(f"{one:.6g}") for one in np.quantile(values, _DRAWN, method="inverted_cdf")])


def _facts(values: np.ndarray) -> tuple[tuple[str, str], ...]:
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
    named = {
        "min": values.min(),
        "10 %": low,
        "median": middle,
        "mean": values.mean(),
        "90 %": high,
        "max": values.max(),
    }
    return tuple((name, report_drawings.short(float(value))) for name, value in named.items())


def _timeline(row: dict[str, Any], spans: dict[str, list[tuple[str, float, float]]]) -> dict[str, Any]:
    """The timeline of a video and how many seconds became clips, were rejected, and failed."""
    own = spans.get(row["video_id"], [])
    duration_s = _finite(row["duration_s"]) or max((end_s for _, _, end_s in own), default=0.0)
    if row["status"] == "failed" and not any(kind == "failed" for kind, _, _ in own):
        own = [*own, ("failed", 0.0, duration_s or 1.0)]
    seconds = {
        kind: sum(end_s - start_s for found, start_s, end_s in own if found == kind)
        for kind in ("accepted", "rejected", "failed")
    }
    said = ", ".join(f"{amount:.1f} s {kind}" for kind, amount in seconds.items() if amount)
    label = f"of {duration_s:.1f} s: {said or 'nothing was found'}"
    return {"timeline": report_drawings.timeline(duration_s or 1.0, own, label), "seconds": seconds, "label": label}


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: TEMPLATES.joinpath(name).read_text("utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "legible": legible,
        "clock": clock,
        "lasting": lasting,
        "grouped": lambda value: "–" if value is None else f"{value:,}",
        "score": lambda value, digits=3: "–" if _finite(value) is None else f"{value:.{digits}f}",
        "percent": lambda share: f"{100 * share:.1f} %",
        "size": size,
        "moment": moment,
        "short": report_drawings.short,
    }
    environment.globals |= {
        "measure_line": report_drawings.measure_line,
        "score_bar": report_drawings.score_bar,
    }
    return environment


def clock(seconds: float | None) -> str:
    """A point in a video as M:SS.mmm, with hours where there are some."""
    if _finite(seconds) is None:
        return "–"
    thousandths = round(abs(seconds or 0.0) * 1000)
    minutes, rest = divmod(thousandths, 60_000)
    sign = "-" if (seconds or 0.0) < 0 else ""
    whole = f"{minutes}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}"
    return f"{sign}{whole}:{rest // 1000:02d}.{rest % 1000:03d}"


def lasting(seconds: float | None) -> str:
    """How long something lasts, in the unit that suits it: 8.5 s, 3.2 min, 1,204 h."""
    if _finite(seconds) is None:
        return "–"
    amount = float(seconds or 0.0)
    if amount < 120:
        return f"{amount:.1f} s"
    if amount < 7200:
        return f"{amount / 60:.1f} min"
    return f"{amount / 3600:,.1f} h" if amount < 3_600_000 else f"{amount / 3600:,.0f} h"


def size(size_bytes: int | None) -> str:
    """A number of bytes in powers of a thousand."""
    if size_bytes is None:
        return "–"
    amount, unit = float(size_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"


def moment(told: str) -> str:
    """A time of a run's record to the minute, in UTC; what is no time stands as it is."""
    try:
        at = datetime.datetime.fromisoformat(told)
    except ValueError:
        return legible(told, 120)
    return f"{at.astimezone(datetime.UTC) if at.tzinfo else at:%Y-%m-%d %H:%M}" + (" UTC" if at.tzinfo else "")


def _video_name(row: dict[str, Any]) -> str:
    """A video's title, else the last part of its URI."""
    name = (row["title"] or "").strip() or posixpath.basename((row["uri"] or "").rstrip("/")) or row["video_id"]
    return legible(" ".join(name.split()), 120)


def _policy(style: str, script: str) -> str:
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii") for text in (style, script)]
    sources = f"style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'"
    return f"default-src 'none'; img-src data:; {sources}; base-uri 'none'; form-action 'none'"


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None


def _sortable(value: float | None) -> float:
    known = _finite(value)
    return -np.inf if known is None else known
