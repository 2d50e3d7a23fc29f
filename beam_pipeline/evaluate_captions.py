"""The captions of a dataset against references, like the paper's table of its student: the chosen, each teacher's.

    study = evaluate_captions("dataset", read_references("references.json"), CaptionOptions())
    print(study.text())

A teacher is measured on the clips that it captioned; how many these are stands beside its figures.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from beam_pipeline import evaluate_plots as plots
from beam_pipeline.evaluate_bars import Bars, Side, bars
from beam_pipeline.evaluate_bertscore import Judge
from beam_pipeline.evaluate_metrics import METRICS, Pair, Score, lacking, measure
from beam_pipeline.evaluate_references import Named, Reference, ReferencesError, draw, match
from beam_pipeline.evaluate_tables import table
from beam_pipeline.evaluate_tokens import Tokenizer, choose_tokenizer, is_installed
from beam_pipeline.progress import LINE_EVERY_S
from transforms.files import Directory
from transforms.published import Published, reread
from transforms.records import Span

#: With a blank, which no teacher has in its name.
CHOSEN = "the chosen"
#: Zero-shot on MSR-VTT, of a student that was trained on Panda-70M (section 3.4), and of an official Video-LLaMA.
PUBLISHED = {
    "published, MSR-VTT: student of Panda-70M": (25.4, 50.1, 27.7, 31.5, 87.9),
    "published, MSR-VTT: Video-LLaMA": (5.8, 30.0, 15.9, 14.3, 84.5),
}
#: Below this CIDEr's word weights, which come from the references of the clips, are mostly chance.
FEW_CLIPS = 100


@dataclasses.dataclass(frozen=True)
class CaptionOptions:
    """What is measured.

    Attributes:
      metrics: by name. judge: the model of BERTScore. teachers: whether each of them is measured, too.
      most: clips at the most, drawn by their ids; None: all. seed: another one, other clips.
    """

    metrics: tuple[str, ...] = METRICS
    judge: Judge = dataclasses.field(default_factory=Judge)
    teachers: bool = True
    most: int | None = None
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Clip:
    """A clip with what was said of it: by the chosen caption, and by teacher."""

    clip_id: str
    captions: Mapping[str, str]
    references: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class CaptionStudy:
    """Scores by set of captions, with the number of its clips, and what a reader has to know."""

    rows: Mapping[str, tuple[int, tuple[Score, ...]]]
    metrics: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def measured(self) -> bool:
        """Whether any figure came out."""
        return any(score.interval.value is not None for _, scores in self.rows.values() for score in scores)

    def as_json(self) -> dict[str, Any]:
        return {
            "rows": {
                name: {
                    "clips": clips,
                    **{one.metric: {**one.interval.as_json(), "missing": one.missing} for one in scores},
                }
                for name, (clips, scores) in self.rows.items()
            },
            "published": {name: dict(zip(METRICS, figures, strict=True)) for name, figures in PUBLISHED.items()},
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """The table, as it is printed: in hundredths, each with its 95 % interval."""
        return "\n".join([*table(self._header, list(self._cells())), *(["", *self.notes] if self.notes else [])])

    def html(self) -> str:
        """All of it in one page."""
        parts = [plots.html_table(self._header, self._cells())]
        parts += [one for one in map(self._drawing, self.metrics) if one is not None]
        if self.notes:
            parts += [plots.heading("Notes"), plots.html_list(self.notes)]
        return plots.page("Captions against references", parts)

    @property
    def _header(self) -> list[str]:
        return ["captions", "clips", *self.metrics]

    def _cells(self) -> Iterator[list[str]]:
        for name, (clips, scores) in self.rows.items():
            yield [name, f"{clips:,}", *("missing" if one.missing else one.interval.told(scale=100) for one in scores)]
        for name, figures in PUBLISHED.items():
            by_metric = dict(zip(METRICS, figures, strict=True))
            yield [name, "2,990", *(f"{by_metric[metric]:.1f}" for metric in self.metrics)]

    def _drawing(self, metric: str) -> Markup | None:
        drawn = []
        for name, (_, scores) in self.rows.items():
            interval = next(one.interval for one in scores if one.metric == metric)
            if interval.value is not None:
                kind = "own" if name == CHOSEN else "detector"
                drawn.append(Bars(name, (Side(metric, kind, interval),)))
        return bars(drawn, title=f"{metric} against references, with 95 % intervals") if drawn else None


def evaluate_captions(dataset: Directory, references: Sequence[Reference], options: CaptionOptions) -> CaptionStudy:
    """Measure the chosen captions, and those of each teacher, by every metric that is here.

    Raises:
      NoDataset: there is none. ReferencesError: no reference is about any of its clips.
    """
    clips, notes = reread(dataset, lambda published: _clips(published, references, options))
    return study_captions(clips, options, notes)


def study_captions(clips: Sequence[Clip], options: CaptionOptions, notes: Sequence[str] = ()) -> CaptionStudy:
    """The same of clips that have their references already."""
    # The selector may have chosen the caption of a teacher as it stands, so that many are the same words.
    texts = dict.fromkeys(text for clip in clips for text in (*clip.captions.values(), *clip.references))
    names = [CHOSEN, *sorted({name for clip in clips for name in clip.captions} - {CHOSEN})]
    tokenizer = _once(texts)
    rows = {}
    told = time.monotonic()
    names = names if options.teachers else names[:1]
    for done, name in enumerate(names):
        if time.monotonic() - told >= LINE_EVERY_S:
            told = time.monotonic()
            print(f"{done} of {len(names)} sets of captions measured", file=sys.stderr, flush=True)
        pairs = [Pair(clip.captions[name], clip.references) for clip in clips if name in clip.captions]
        rows[name] = (len(pairs), tuple(measure(pairs, options.metrics, tokenizer, options.judge)))
    return CaptionStudy(rows, options.metrics, (*notes, *_method(options, tokenizer, len(clips))))


def _once(texts: Mapping[str, None]) -> Tokenizer:
    """A tokenizer that has read all the texts already, each of them once."""
    chosen = choose_tokenizer()
    known: dict[str, str] = {}

    def cut(captions: Sequence[str]) -> list[str]:
        if not known:
            known.update(zip(texts, chosen(list(texts)), strict=True))
        return [known[caption] for caption in captions]

    return Tokenizer(chosen.name, cut)


def _method(options: CaptionOptions, tokenizer: Tokenizer, clips: int) -> Iterator[str]:
    yield "figures are hundredths, with 95 % bootstrap intervals over clips"
    lacks = {metric: lacking(metric, options.judge) for metric in options.metrics}
    yield from (f"{metric} is missing: {lack}" for metric, lack in lacks.items() if lack)
    if is_installed("pycocoevalcap") and set(options.metrics) - {"BERTScore"}:
        yield f"words are those of {tokenizer.name}"
    if "CIDEr" in options.metrics and lacks["CIDEr"] is None and clips < FEW_CLIPS:
        yield f"CIDEr weighs words by the references of these {clips} clips: too few to compare with published figures"
    if "BERTScore" in options.metrics and lacks["BERTScore"] is None:
        by = f"{options.judge.name}, layer {options.judge.used_layer()}"
        yield f"BERTScore is by {by}; published figures are by roberta-large, layer 17"


def _clips(
    published: Published, references: Sequence[Reference], options: CaptionOptions
) -> tuple[list[Clip], list[str]]:
    matched = match(references, (Named(*names) for names in _rows(published)))
    if not matched.captions:
        raise ReferencesError("no reference is about any clip: do the names in the file agree with the clips?")
    notes, total = matched.notes(), len(matched.captions)
    drawn = draw(matched.captions, options.most or total, options.seed)
    if len(drawn) < total:
        notes.append(f"{len(drawn):,} of {total:,} clips were drawn (--limit, --seed {options.seed})")
    clips = []
    for batch in published.scan("clips", ["clip_id", "caption", "captions"]):
        for row in batch.to_pylist():
            if row["clip_id"] in drawn:
                told = matched.captions[row["clip_id"]]
                by_teacher = {one["teacher"]: one["caption"] for one in row["captions"]}
                clips.append(Clip(row["clip_id"], {**by_teacher, CHOSEN: row["caption"]}, told))
    # The order of a table's files is that of its commits; the draws of the bootstrap must not depend on it.
    return sorted(clips, key=lambda clip: clip.clip_id), notes


def _rows(published: Published) -> Iterator[tuple[str, str, str, Span]]:
    for batch in published.scan("clips", ["clip_id", "video_id", "uri", "start_s", "end_s"]):
        for row in batch.to_pylist():
            yield row["clip_id"], row["video_id"], row["uri"], Span(row["start_s"], row["end_s"])
