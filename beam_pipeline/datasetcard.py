"""The dataset's card: a README.md that Hugging Face `datasets` and people can read.

    write_card("out")

Its front matter names the Parquet files of each table, so that `datasets.load_dataset("out")` finds the clips; below
stand the figures, the columns and how the dataset was made, as the last run's record says.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from beam_pipeline.datasetcard_columns import COLUMNS
from beam_pipeline.runs import records_of
from beam_pipeline.score_statistics import Score, Scores, gather
from beam_pipeline.training import provenance
from transforms.files import Directory, exists, join, reading, title_of, write
from transforms.schemas import TABLES
from transforms.tables import Snapshot
from transforms.timecodes import timecode

#: Of the Hub: how many rows, by the power of ten.
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))

#: Clips that the card shows, each of another video; labels of a measure that it counts.
PREVIEW, _MOST_LABELS = 8, 20

#: Of a selector that was trained.
_LEARNED = """\
Its weights are under the licence of those that it was trained from;
whatever binds the captions and judgements that it learned from may bind it too."""

_GLOB_WARNING = """\
Each table is a Delta Lake table: read it with `deltalake`, or take the bare Parquet files by the patterns above.
**Don't use `**/*.parquet`**: it also catches `_delta_log/*.checkpoint.parquet`, the checkpoints of the tables' logs,
which are no rows of the dataset. While a run is writing, join on (`video_id`, `run_id`) with `videos`: rows that are
not in there are not committed yet, or superseded."""


@dataclasses.dataclass(frozen=True)
class Figures:
    """The statistics of a dataset. Means are None where there is nothing to average."""

    videos: Mapping[str, int]
    video_h: float
    clips: int
    clip_h: float
    mean_clip_s: float | None
    mean_words: float | None
    mean_score: float | None
    mean_lpips: float | None
    abstained: int
    rejected: Mapping[str, int]
    failures: int
    chosen: Mapping[str, int]
    duplicates: int
    scores: tuple[Score, ...]
    preview: tuple[Mapping[str, Any], ...]


def figures(dataset_dir: Directory, scores: Scores | None = None) -> Figures:
    """Count a dataset, in memory that does not grow with its embeddings and candidates.

    Args:
      scores: how its measures are spread, where somebody has looked already.
    """
    snapshot = Snapshot.open(dataset_dir)
    videos = snapshot.read("videos", ["status", "duration_s"])
    columns = ["video_id", "start_s", "duration_s", "caption", "teacher", "matching_score", "abstained"]
    columns += ["max_running_lpips", "duplicate_of"]
    clips = snapshot.read("clips", columns)
    words = pc.count_substring_regex(clips["caption"], r"\S+")
    return Figures(
        videos=_counted(videos["status"].to_pylist()),
        video_h=(pc.sum(videos["duration_s"]).as_py() or 0.0) / 3600,
        clips=clips.num_rows,
        clip_h=(pc.sum(clips["duration_s"]).as_py() or 0.0) / 3600,
        mean_clip_s=pc.mean(clips["duration_s"]).as_py(),
        mean_words=pc.mean(words).as_py(),
        mean_score=pc.mean(clips["matching_score"]).as_py(),
        mean_lpips=pc.mean(clips["max_running_lpips"]).as_py(),
        abstained=pc.sum(clips["abstained"]).as_py() or 0,
        rejected=_counted(snapshot.read("rejected", ["stage"])["stage"].to_pylist()),
        failures=snapshot.read("failures", ["stage"]).num_rows,
        chosen=_counted(clips["teacher"].to_pylist()),
        duplicates=len(clips) - clips["duplicate_of"].null_count,
        scores=tuple((scores or gather(snapshot.scan)).scores),
        preview=tuple(_preview(clips)),
    )


def _preview(clips: pa.Table) -> Iterator[Mapping[str, Any]]:
    """A clip each of some videos, evenly over their ids: the same for the same clips, in whatever order they stand."""
    first: dict[str, int] = {}
    for row in pc.sort_indices(clips, [("video_id", "ascending"), ("start_s", "ascending")]).to_pylist():
        first.setdefault(clips["video_id"][row].as_py(), row)
    rows = list(first.values())
    shown = min(PREVIEW, len(rows))
    for place in range(shown):
        yield clips.slice(rows[place * len(rows) // shown], 1).to_pylist()[0]


def write_card(dataset_dir: Directory, *, title: str | None = None, scores: Scores | None = None) -> str:
    """Write the card into the dataset and return its path.

    Args:
      title: its heading; default: the directory's name.
      scores: see `figures`.
    """
    path = join(dataset_dir, "README.md")
    if exists(path) and not _is_card(path):
        # Somebody's own words, in a directory that had them before the dataset came.
        path = join(dataset_dir, "DATASET.md")
    text = card(title or title_of(dataset_dir), figures(dataset_dir, scores), _newest_run(dataset_dir))
    write(path, text.encode())
    return path


def _is_card(path: str) -> bool:
    """Whether a file looks like a card of ours: its front matter names the tables."""
    with reading(path) as file:
        start = file.read(4000).decode("utf-8", "replace")
    return start.startswith("---") and "clips/*.parquet" in start


def card(title: str, found: Figures, run: Mapping[str, Any]) -> str:
    """The card's text.

    Args:
      run: the record of the run that it tells how the dataset was made; may be empty.
    """
    parts = [
        _front_matter(title, found, (run.get("config") or {}).get("card") or {}),
        f"# {_plain(title)}\n",
        "Short clips cut from long videos at semantic boundaries, each with the best of several teachers' captions\n"
        "(the method of Panda-70M), made with reelscribe.\n",
        "## Figures\n",
        _table(("", ""), _figure_rows(found)),
        *_preview_table(found.preview),
        *_score_table(found.scores),
        "## Reading it\n",
        '```python\nfrom datasets import load_dataset\n\nclips = load_dataset("PATH_OR_NAME", split="train")\n'
        'videos = load_dataset("PATH_OR_NAME", "videos", split="train")\n```\n',
        f"{_GLOB_WARNING}\n",
        "## How it was made\n",
        *_making(run),
        "## Columns\n",
    ]
    for name in ("clips", "videos", "rejected", "failures"):
        parts += [f"### {name}\n", f"{COLUMNS[name]['']}\n", _table(("column", "type", "meaning"), _column_rows(name))]
    parts += [
        "## Before you use it\n",
        "The captions were written by models and may be wrong. Titles, descriptions and subtitles are the uploaders'\n"
        "words. The clips are under the licences of their source videos, and some models restrict what may be done\n"
        "with what they wrote; this card grants nothing.",
    ]
    return "\n".join(parts) + "\n"


def _preview_table(preview: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not preview:
        return
    yield "## Preview\n"
    head = ("video", "from", "seconds", "caption", "teacher", "score")
    yield _table(
        head,
        (
            (
                _plain(row["video_id"]),
                timecode(row["start_s"]),
                f"{row['duration_s']:.1f}",
                _plain(row["caption"]),
                _plain(row["teacher"]),
                "" if row["matching_score"] is None else f"{row['matching_score']:.2f}",
            )
            for row in preview
        ),
    )


def _score_table(scores: Sequence[Score]) -> Iterator[str]:
    numbers = [score for score in scores if len(score.values)]
    labels = [score for score in scores if score.labels]
    if numbers or labels:
        yield "## Measures\n"
        yield "Of all clips that were measured, those that a filter dropped included.\n"
    if numbers:
        head = ("measure", "clips", "5 %", "median", "95 %")
        spread = ((score, *np.quantile(score.values, (0.05, 0.5, 0.95))) for score in numbers)
        yield _table(head, ((one.column.name, one.clips, *(f"{bound:.3g}" for bound in b)) for one, *b in spread))
    for score in labels:
        told = ", ".join(f"{_plain(label)} {count}" for label, count in list(score.labels.items())[:_MOST_LABELS])
        yield f"`{score.column.name}`: {told}\n"


def _front_matter(title: str, found: Figures, asked: Mapping[str, str]) -> str:
    configs = []
    for name in ("clips", "videos", "rejected", "failures"):
        config: dict[str, Any] = {"config_name": name}
        if name == "clips":
            config["default"] = True
        configs.append({**config, "data_files": [{"split": "train", "path": f"{name}/*.parquet"}]})
    size = next((label for below, label in _SIZES if found.clips < below), "n>1M")
    matter = {
        "pretty_name": asked.get("title") or title,
        "license": asked.get("license") or "other",
        **{key: asked[key] for key in ("license_name", "license_link") if asked.get(key)},
        "task_categories": ["video-text-to-text", "text-to-video"],
        "size_categories": [size],
        "tags": ["video", "video-captioning", "reelscribe"],
        "configs": configs,
    }
    return f"---\n{yaml.safe_dump(matter, sort_keys=False, allow_unicode=True)}---\n"


def _figure_rows(found: Figures) -> Iterator[tuple[str, str]]:
    statuses = ", ".join(f"{number} {status}" for status, number in found.videos.items())
    yield "videos", f"{sum(found.videos.values())} ({statuses or 'none'})"
    yield "hours of video", f"{found.video_h:.2f}"
    yield "clips", str(found.clips)
    yield "hours of clips", f"{found.clip_h:.2f}"
    for name, mean, unit in (
        ("mean length of a clip", found.mean_clip_s, " s"),
        ("words a caption", found.mean_words, ""),
        ("mean matching score", found.mean_score, ""),
    ):
        yield name, "none" if mean is None else f"{mean:.2f}{unit}"
    if found.mean_lpips is not None:
        yield "mean Max Running LPIPS", f"{found.mean_lpips:.3f}"
    yield "clips for which the selector abstained", str(found.abstained)
    if found.duplicates:
        yield "clips marked as duplicates", str(found.duplicates)
    for teacher, number in found.chosen.items():
        yield f"chosen captions of {teacher}", f"{number} ({number / found.clips:.0%})"
    for stage, number in found.rejected.items():
        yield f"spans rejected by {stage}", str(number)
    yield "dead letters", str(found.failures)


def _making(run: Mapping[str, Any]) -> Iterator[str]:
    config = run.get("config") or {}
    if not config:
        yield "No run has left a record.\n"
        return
    yield f"Profile `{_plain(config.get('profile'))}`, splitting rules `{_plain(config.get('rules'))}`.\n"
    models = run.get("models") or []
    roles = {config.get("embedder"): "embedder", config.get("selector"): "selector"}
    roles |= dict.fromkeys(config.get("measures") or {}, "measure")
    roles |= dict.fromkeys(config.get("hygiene") or {}, "hygiene") | {"speech": "speech"}
    rows = [
        (
            *(_plain(model.get(key)) for key in ("name", "model", "revision", "licence")),
            roles.get(model.get("name"), ""),
        )
        for model in models
    ]
    yield _table(("name", "model", "revision", "licence", "role"), ((*row[:4], row[4] or "teacher") for row in rows))
    if training := config.get("selector_training"):
        what = (
            f"The selector is a version of `{_plain(training.get('selector'))}`, {_plain(provenance.told(training))}."
        )
        yield f"{what} {_LEARNED}\n"
    numbers = [
        (section, key, value)
        for section in ("splitting", "stitching")
        for key, value in (config.get(section) or {}).items()
    ]
    numbers.append(("selection", "abstain_below", config.get("abstain_below")))
    yield _table(("stage", "setting", "value"), (tuple(map(_plain, row)) for row in numbers))


def _column_rows(name: str) -> Iterator[tuple[str, ...]]:
    for field in TABLES[name]:
        yield field.name, f"`{field.type}`{'?' if field.nullable else ''}", COLUMNS[name][field.name]


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"


def _plain(text: Any) -> str:
    """Text that can't break out of a table's cell or become markup."""
    return re.sub(r"[|<>`\[\]*\\]", lambda found: f"&#{ord(found.group())};", " ".join(str(text).split()))


def _counted(values: list[str]) -> dict[str, int]:
    return dict(sorted(collections.Counter(values).items(), key=lambda pair: (-pair[1], pair[0])))


def _newest_run(dataset_dir: Directory) -> Mapping[str, Any]:
    records = (record for _, record in records_of(dataset_dir))
    return max(records, key=lambda record: str(record.get("started_at")), default={})
