"""Retrieval between texts and videos by any selector, on any captions: the paper's Table 5 on the user's own.

study = evaluate_retrieval(gallery, load_scorers(["conse"], config))
print(study.text())
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from beam_pipeline import evaluate_plots as plots
from beam_pipeline.evaluate_bars import Bars, Side, bars
from beam_pipeline.evaluate_bootstrap import Interval, bootstrap, bootstrap_counts, ratio, weighted_median
from beam_pipeline.evaluate_gallery import Gallery
from beam_pipeline.evaluate_ranks import (
    Texts,
    chance_text_to_video,
    chance_video_to_text,
    text_to_video,
    video_to_text,
)
from beam_pipeline.evaluate_scoring import Scorer, scored
from beam_pipeline.evaluate_tables import left_out, table

MOST = (1, 5, 10)
DIRECTIONS = ("text to video", "video to text")
_SIDES = dict(zip(DIRECTIONS, ("own", "detector"), strict=True))


@dataclasses.dataclass(frozen=True)
class Found:
    """What one selector found in one direction: recall at each of `MOST`, and the median rank."""

    queries: int
    recalls: tuple[Interval, ...]
    median_rank: Interval

    def as_json(self) -> dict[str, Any]:
        recalls = {f"R@{most}": one.as_json() for most, one in zip(MOST, self.recalls, strict=True)}
        return {"queries": self.queries, **recalls, "median_rank": self.median_rank.as_json()}


@dataclasses.dataclass(frozen=True)
class RetrievalStudy:
    """By selector and direction what was found, and what chance would have found.

    Attributes:
      gains: of each selector over the first one, in recall on the same queries, with paired intervals.
      notes: what a reader has to know.
    """

    clips: int
    texts: int
    rows: Mapping[str, Mapping[str, Found]]
    gains: Mapping[str, Mapping[str, tuple[Interval, ...]]]
    chance: Mapping[str, tuple[float, ...]]
    notes: tuple[str, ...]

    @property
    def measured(self) -> bool:
        return any(found.queries for by in self.rows.values() for found in by.values())

    def as_json(self) -> dict[str, Any]:
        return {
            "clips": self.clips,
            "texts": self.texts,
            "rows": {
                name: {direction: found.as_json() for direction, found in by.items()} for name, by in self.rows.items()
            },
            "gains": {
                name: {
                    direction: {f"R@{most}": one.as_json() for most, one in zip(MOST, gains, strict=True)}
                    for direction, gains in by.items()
                }
                for name, by in self.gains.items()
            },
            "chance": {
                direction: {f"R@{most}": round(share, 6) for most, share in zip(MOST, shares, strict=True)}
                for direction, shares in self.chance.items()
            },
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """The table, as it is printed."""
        return "\n".join([*table(self._header, list(self._cells())), "", *self.notes])

    def html(self) -> str:
        """All of it in one page."""
        notes = [plots.heading("Notes"), plots.html_list(self.notes)]
        return plots.page("Retrieval", [self._drawing(), plots.html_table(self._header, self._cells()), *notes])

    @property
    def _header(self) -> list[str]:
        return ["selector", "queries", *(f"R@{most}" for most in MOST), "median rank"]

    def _cells(self) -> Iterator[list[str]]:
        for direction in DIRECTIONS:
            for name, by in self.rows.items():
                found = by[direction]
                recalls = [one.told(scale=100) for one in found.recalls]
                yield [f"{direction}: {name}", f"{found.queries:,}", *recalls, found.median_rank.told()]
            for name, by_direction in self.gains.items():
                gains = [one.told("+.1f", scale=100) for one in by_direction[direction]]
                yield [f"{direction}: {name}", "", *gains, ""]
            yield [f"{direction}: chance", "", *(f"{100 * share:.1f}" for share in self.chance[direction]), ""]

    def _drawing(self) -> Markup:
        rows = []
        for at, most in enumerate(MOST):
            for name, by in self.rows.items():
                sides = tuple(Side(one, _SIDES[one], by[one].recalls[at]) for one in DIRECTIONS)
                rows.append(Bars(f"{name}, R@{most}", sides))
        return bars(rows, title="Recall: text to video above, video to text below, with 95 % intervals")


def evaluate_retrieval(gallery: Gallery, scorers: Sequence[Scorer]) -> RetrievalStudy:
    """Score every caption for every clip, and rank. A clip that one selector can't score is left out for all."""
    texts = Texts.of(gallery.captions)
    with contextlib.ExitStack() as matrices:
        found = {
            scorer.entry.name: matrices.enter_context(scored(scorer, gallery.clips, texts.texts)) for scorer in scorers
        }
        failed = {clip_id: f"{name}: {why}" for name, one in found.items() for clip_id, why in one.failed.items()}
        rows = [row for row, clip in enumerate(gallery.clips) if clip.clip_id not in failed]
        if not rows:
            raise RuntimeError(f"no clip could be scored; the first: {next(iter(failed.values()))}")
        kept = Texts.of([gallery.captions[row] for row in rows]) if failed else texts
        columns = {text: column for column, text in enumerate(texts.texts)}
        ranked = {}
        for name, one in found.items():
            scores = one.scores[np.ix_(rows, [columns[text] for text in kept.texts])] if failed else one.scores
            ranked[name] = (text_to_video(scores, kept), video_to_text(scores, kept))
    return study_ranks(kept, ranked, [*gallery.notes, *left_out(failed)])


def study_ranks(
    texts: Texts, ranked: Mapping[str, tuple[np.ndarray, np.ndarray]], notes: Sequence[str] = ()
) -> RetrievalStudy:
    """Make a table of ranks by selector: those of texts (see `text_to_video`) and those of clips."""
    clips = len(texts.of_clip)
    owners = {DIRECTIONS[0]: texts.pairs[:, 0], DIRECTIONS[1]: np.arange(clips)}
    chance = {DIRECTIONS[0]: chance_text_to_video, DIRECTIONS[1]: chance_video_to_text}
    first, *others = ranked or [""]
    return RetrievalStudy(
        clips,
        len(texts.texts),
        gains={
            f"{name} - {first}": {
                direction: _gains(ranked[name][at], ranked[first][at], owners[direction], clips)
                for at, direction in enumerate(DIRECTIONS)
            }
            for name in others
        },
        rows={
            name: {
                direction: _found(ranks, owners[direction], clips)
                for direction, ranks in zip(DIRECTIONS, both, strict=True)
            }
            for name, both in ranked.items()
        },
        chance={direction: tuple(guess(texts, most) for most in MOST) for direction, guess in chance.items()},
        notes=(
            f"{clips:,} clips and {len(texts.texts):,} different captions; recall in hundredths, with 95 % bootstrap "
            "intervals over clips",
            "a wrong answer with the same score counts as better than the right one",
            *notes,
        ),
    )


def _found(ranks: np.ndarray, owners: np.ndarray, clips: int) -> Found:
    """Recalls and median of the ranks of queries, each of which belongs to the clip `owners` says."""
    recalls = [_mean((ranks <= most).astype(float), owners, clips) for most in MOST]
    median = bootstrap_counts(clips, lambda counts: weighted_median(ranks, counts[owners]))
    return Found(len(ranks), tuple(recalls), median)


def _gains(ranks: np.ndarray, over: np.ndarray, owners: np.ndarray, clips: int) -> tuple[Interval, ...]:
    """What recall gains over other ranks of the same queries."""
    return tuple(_mean((ranks <= most).astype(float) - (over <= most), owners, clips) for most in MOST)


def _mean(values: np.ndarray, owners: np.ndarray, clips: int) -> Interval:
    """The mean over queries, of which all that belong to a clip are drawn with it."""
    sums = np.bincount(owners, weights=values, minlength=clips)
    return bootstrap(np.column_stack([sums, np.bincount(owners, minlength=clips)]), ratio)
