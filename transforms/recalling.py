"""Recall what the dataset holds of a video, so that a run does only what is missing or shaped otherwise by now.

    sources | RecallVideos("out", run_id, fingerprints)      # -> Source, with what still counts in `earlier`

A stage's results count while its fingerprint does: an added teacher finds the shots, the clips and the other teachers'
captions there; a title that came late finds all but the captions of clips that it belongs to.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime
import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics

from transforms.measure_columns import BY_NAME
from transforms.parquet_files import is_delta_table, table_uri
from transforms.reading import Source
from transforms.records import Answers, Candidate, DeadLetter, Earlier, EarlierClip, RejectedSpan, Span
from transforms.rows import costs_the_clip
from transforms.schemas import FILTER_STAGE, HEAR_STAGE, TABLES
from transforms.scoring import SELECTOR
from transforms.single_rows import Fingerprints
from transforms.standing import Standing, rows_by_video
from transforms.tables import CurrentVideo

Row = Mapping[str, Any]
Rows = Mapping[str, Sequence[Row]]

#: How often rows are looked up again when a finishing run removed their file meanwhile.
_LOOKS = 5


@dataclasses.dataclass(frozen=True)
class Retry:
    """Which dead letters are worked on again; what is None counts as any.

    Attributes:
      stages: 'read', 'split', 'hear', 'embed', 'caption', 'score', 'measure', 'select', 'clean', 'media', or 'run',
        which stopped a whole job.
      classes: of their errors.
      failed_before: at this time or earlier.
      attempts_below: tried less often than this so far.
    """

    stages: frozenset[str] | None = None
    classes: frozenset[str] | None = None
    failed_before: datetime.datetime | None = None
    attempts_below: int | None = None

    def covers(self, letter: DeadLetter) -> bool:
        """Whether this one is worked on again."""
        return (
            (self.stages is None or letter.stage in self.stages)
            and (self.classes is None or letter.error_class in self.classes)
            and (self.failed_before is None or letter.failed_at <= self.failed_before)
            and (self.attempts_below is None or letter.attempt < self.attempts_below)
        )


def earlier_of(rows: Rows, fingerprints: Fingerprints, retry: Retry | None = None) -> Earlier:
    """What still counts of a video's rows.

    Args:
      rows: by table, all of one video, whose source is still of the same version.
      fingerprints: of the video as it would be made now.
      retry: dead letters to work on again, beside those of stages that are done again anyway.
    """
    (video,) = rows["videos"]
    same = {stage for stage, made_with in video["fingerprints"].items() if made_with == fingerprints[stage]}
    letters = [letter_of(row) for row in rows["failures"]]
    retried = [one for one in letters if _is_open(one, same) or (retry is not None and retry.covers(one))]
    settled = [one for one in letters if one not in retried]
    before_clips = [one for one in retried if one.stage in ("split", "embed")]
    lost = [row for row in rows["failures"] if costs_the_clip(letter_of(row))]
    dropped = [row for row in rows["rejected"] if row["stage"] == FILTER_STAGE]
    clips = None
    # A dead letter of before there were such columns does not say what its clip was.
    if "embed" in same and video["n_shots"] and not before_clips and all(row["embedding"] is not None for row in lost):
        of_clip = collections.defaultdict(list)
        for letter in settled:
            of_clip[letter.clip_id].append(letter)
        clips = tuple(
            EarlierClip(
                Span(row["start_s"], row["end_s"]),
                tuple(Span(shot["start_s"], shot["end_s"]) for shot in row["shots"]),
                tuple(row["embedding"]),
                _answers(row, "select" in same, of_clip[row["clip_id"]]),
            )
            for row in sorted([*rows["clips"], *dropped, *_once_a_clip(lost)], key=lambda row: row["start_s"])
        )
    spans = sorted((row for row in rows["rejected"] if row["stage"] != FILTER_STAGE), key=lambda row: row["start_s"])
    return Earlier(
        clips=clips,
        rejected=tuple(map(_rejected_of, spans)) if clips is not None else (),
        settled=tuple(settled),
        retried=tuple(retried),
        split_again=any(letter.stage == "split" for letter in retried),
        n_shots=video["n_shots"],
    )


def _is_open(letter: DeadLetter, same: set[str]) -> bool:
    """Whether its stage is done again because its fingerprint changed.

    Teachers look at their requests themselves, and so does whoever listens.
    """
    if letter.teacher is not None or letter.stage == HEAR_STAGE:
        return False
    return {"read": "split", "split": "split", "embed": "embed"}.get(letter.stage, "select") not in same


def _once_a_clip(lost: Iterable[Row]) -> Iterable[Row]:
    return {row["clip_id"]: row for row in lost}.values()


def _answers(row: Row, selected: bool, failures: Sequence[DeadLetter]) -> Answers:
    """What models answered about a clip, of its row, or of the dead letter or the rejected span that it ended as."""
    scores = tuple(one["matching_score"] for one in row["captions"])
    noted = row.get("made_with")
    made_with = {one["name"]: one["fingerprint"] for one in noted or ()}
    # Of before there was such a note, a row's scores count while nothing has changed.
    scored = SELECTOR in made_with if noted is not None else selected and "matching_score" in row
    return Answers(
        candidates=tuple(
            Candidate(
                one["teacher"], one["model"], one["revision"], one["prompt_id"], one["caption"], one["fingerprint"]
            )
            for one in row["captions"]
        ),
        scores=scores if scored else (),
        values={name: row[name] for name in BY_NAME if row.get(name) is not None},
        made_with=made_with,
        failures=tuple(failures),
    )


def letter_of(row: Row) -> DeadLetter:
    """The dead letter that a row of `failures` holds."""
    span = None if row["start_s"] is None else Span(row["start_s"], row["end_s"])
    names = {field.name for field in dataclasses.fields(DeadLetter)} & row.keys()
    return DeadLetter(**{name: row[name] for name in names}, span=span)


def _rejected_of(row: Row) -> RejectedSpan:
    span = Span(row["start_s"], row["end_s"])
    return RejectedSpan(row["video_id"], span, row["stage"], row["reason"], row["value"], row["threshold"])


class Memory:
    """Looks up videos in a dataset while others write to it."""

    def __init__(self, dataset_dir: str):
        self._dir = dataset_dir
        self._standing: dict[str, Standing] = {}
        self._lock = threading.Lock()

    def rows_of(self, video_ids: Sequence[str]) -> dict[str, Rows]:
        """All rows of those of the videos that stand, by video_id and table."""
        with self._lock:
            for _ in range(_LOOKS - 1):
                with contextlib.suppress(FileNotFoundError):
                    return self._look(video_ids)
            return self._look(video_ids)

    def _look(self, video_ids: Sequence[str]) -> dict[str, Rows]:
        if not is_delta_table(table_uri(self._dir, "videos")):
            return {}
        # Before the other tables: what it names stands in them.
        videos = self._table("videos")
        runs = {video_id: run_id for video_id in video_ids if (run_id := videos.run_of(video_id))}
        if not runs:
            return {}
        tables = [videos if name == "videos" else self._table(name) for name in TABLES]
        return dict(rows_by_video(tables, set(runs.items())))

    def _table(self, name: str) -> Standing:
        if name not in self._standing:
            self._standing[name] = Standing(self._dir, name)
        self._standing[name].refresh()
        return self._standing[name]


@dataclasses.dataclass
class RecallVideos(beam.PTransform):
    """Attach to each source what the dataset holds of it; drop those of which nothing is left to do.

    Source in, at most one Source out for each; bounded or unbounded.

    Args:
      dataset_dir: where the tables stand, or will. run_id: whose worker remembers.
      fingerprints: of a source, stage by stage.
      retry: None drops what is unchanged, whatever failed in it; else just these dead letters are worked on again.
    """

    dataset_dir: str
    run_id: str
    fingerprints: Callable[[Source], Fingerprints]
    retry: Retry | None = None

    def expand(self, sources: beam.PCollection[Source]) -> beam.PCollection[Source]:
        return (
            sources
            | "Batch" >> beam.BatchElements(min_batch_size=1, max_batch_size=64)
            | "Recall" >> beam.ParDo(_Recall(self)).with_output_types(Source)
        )


@functools.lru_cache(maxsize=1)
def _memory_of(dataset_dir: str, run_id: str) -> Memory:
    """One memory a worker and run: what stands is read once, however many bundles ask."""
    return Memory(dataset_dir)


class _Recall(beam.DoFn):
    def __init__(self, wanted: RecallVideos):
        self._dir, self._run_id = wanted.dataset_dir, wanted.run_id
        self._fingerprints, self._retry = wanted.fingerprints, wanted.retry

    def setup(self) -> None:
        self._memory = _memory_of(self._dir, self._run_id)

    def process(self, batch: Sequence[Source]) -> Iterator[Source]:
        known = self._memory.rows_of([source.video_id for source in batch])
        for source in batch:
            recalled = recall(source, known.get(source.video_id), self._fingerprints(source), self._retry)
            if recalled is not None:
                yield recalled
            else:
                Metrics.counter("reelscribe/recall", "unchanged").inc()


def recall(source: Source, rows: Rows | None, fingerprints: Fingerprints, retry: Retry | None) -> Source | None:
    """The source with what is known of it, or None when nothing is left to do."""
    if rows is None:
        return source
    video = CurrentVideo.of(rows["videos"][0])
    left = is_left(source, video, fingerprints)
    if video.etag != source.etag:
        return source if left else None
    earlier = earlier_of(rows, fingerprints, retry)
    return dataclasses.replace(source, earlier=earlier) if left or earlier.retried else None


def is_left(source: Source, video: CurrentVideo | None, fingerprints: Fingerprints) -> bool:
    """Whether there is something to do for a source, given what stands of it, whatever failed in that.

    One that is gone costs no rows: whoever wants these to go takes the video down.

    Args:
      fingerprints: of the source as it would be made now.
    """
    if video is None:
        return True
    if video.etag != source.etag:
        return bool(source.etag)
    return dict(video.fingerprints) != dict(fingerprints)
