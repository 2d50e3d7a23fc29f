"""What people judged of clips: which teachers' captions are good or best, or that all are bad.

    judgements = read_judgements("annotations.jsonl")
    people = gather(judgements)         # {clip_id: Judged(votes={"lite-scene": 1.0}, all_bad=False, ...)}

Read from CSV or JSON lines with the columns `clip_id`, `annotator` (optional) and `chosen_teachers`: names with commas
between them or a JSON list, empty where all captions are bad. `all_bad` (true or false) may say so instead. Rows of a
dataset's annotations have the same columns.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import datetime
import io
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import pyarrow.parquet as pq

from beam_pipeline.evaluate_references import BadInput
from transforms.files import Directory, read, reading
from transforms.judgements import TABLE, same_words
from transforms.parquet_files import delta_table, is_delta_table, table_files, table_uri

_YES = frozenset({"true", "1", "yes"})
_NO = frozenset({"false", "0", "no", ""})
#: Older and shorter names of the column of teachers.
_CHOSEN = ("chosen_teachers", "teachers", "chosen")
_COLUMNS = frozenset(
    {"clip_id", "annotator", "all_bad", "choices", "extras", "good_captions", "annotated_at", *_CHOSEN}
)


@dataclasses.dataclass(frozen=True, slots=True)
class Judgement:
    """One person's judgement of one clip.

    Attributes:
      teachers: who said what this person chose; nobody where all are bad.
      captions: what there was to choose, where that is known, but for captions of others than the dataset's teachers.
      has_extras: such captions stood among them, so that a selector could not have chosen the same.
      groups: `teachers`, caption by caption, where every good one was asked for.
      question: whether every good one was asked for, and of which captions; empty where that is not known.
      said_at: when, as a time stamp; 0 where that is not known.
    """

    clip_id: str
    teachers: tuple[str, ...]
    all_bad: bool
    annotator: str = ""
    captions: tuple[str, ...] = ()
    has_extras: bool = False
    groups: tuple[tuple[str, ...], ...] = ()
    question: tuple[bool, tuple[str, ...]] = dataclasses.field(default=(False, ()), compare=False)
    said_at: float = dataclasses.field(default=0.0, compare=False)

    def is_of(self, captions: Iterable[str]) -> bool:
        """Whether what was judged still stands among a clip's captions."""
        return set(map(same_words, self.captions)) <= set(map(same_words, captions))


@dataclasses.dataclass(frozen=True)
class Judged:
    """What all who judged a clip make of it.

    Attributes:
      votes: the share of those who found any caption good that chose each teacher's; one who chose two captions gives
        each half, and so do teachers who said the same share it.
      all_bad: most found all of them bad.
      by_annotator: who chose which teachers; empty for those who found all bad.
      is_every_good: they were asked for every good caption.
    """

    votes: Mapping[str, float]
    all_bad: bool
    by_annotator: tuple[frozenset[str], ...]
    is_every_good: bool = False

    @property
    def best(self) -> frozenset[str]:
        """The teachers whose captions are right to choose; none where all are bad.

        Those with most votes, however many others their voters chose; where every good caption was asked for, all that
        more than half of the people marked, as training has it.
        """
        people = {teacher: sum(teacher in chosen for chosen in self.by_annotator) for teacher in self.votes}
        most = max(people.values(), default=0)
        if self.is_every_good:
            most = min(most, len(self.by_annotator) // 2 + 1)
        return frozenset(teacher for teacher, count in people.items() if count >= most)


def read_judgements(path: str) -> list[Judgement]:
    """The judgements of a file.

    Raises:
      BadInput: it holds none that can be read. FileNotFoundError: there is no such file.
    """
    try:
        text = read(path).decode("utf-8-sig")
        rows: Iterable[Mapping[str, Any]]
        if path.lower().endswith(".csv"):
            rows = csv.DictReader(io.StringIO(text, newline=""))
        else:
            rows = (json.loads(line) for line in text.splitlines() if line.strip())
        found = list(of_rows(rows))
    except (KeyError, TypeError, AttributeError, ValueError, csv.Error, RecursionError) as error:
        raise BadInput(f"cannot read judgements from {path}: {' '.join(str(error).split())[:200]}") from error
    if not found:
        raise BadInput(f"{path} holds no judgements")
    return found


def of_rows(rows: Iterable[Mapping[str, Any]]) -> Iterator[Judgement]:
    """The judgements that rows stand for.

    Raises:
      BadInput: a row lacks a column, or contradicts itself.
    """
    for row in rows:
        column = next((name for name in _CHOSEN if name in row), None)
        if "clip_id" not in row or (column is None and "all_bad" not in row):
            raise BadInput(f"a row has {', '.join(map(str, row))}: it needs clip_id and chosen_teachers")
        teachers = _teachers(row[column]) if column else ()
        all_bad = _all_bad(row["all_bad"]) if row.get("all_bad") is not None else not teachers
        if all_bad == bool(teachers):
            said = "all_bad, and chosen teachers" if all_bad else "neither all_bad nor a chosen teacher"
            raise BadInput(f"the judgement of {row['clip_id']} has {said}")
        extras = set(row.get("extras") or ())
        choices = row.get("choices") or ()
        captions = tuple(one["caption"] for one in choices if set(one["teachers"]) - extras)
        good = set(row.get("good_captions") or ())
        groups = tuple(tuple(one["teachers"]) for one in choices if one["caption"] in good)
        annotator = str(row.get("annotator") or "")
        question = (row.get("good_captions") is not None, tuple(sorted(same_words(one["caption"]) for one in choices)))
        moment = row.get("annotated_at")
        said_at = moment.timestamp() if isinstance(moment, datetime.datetime) else 0.0
        yield Judgement(
            str(row["clip_id"]), teachers, all_bad, annotator, captions, bool(extras), groups, question, said_at
        )


def _teachers(told: Any) -> tuple[str, ...]:
    if told is None:
        return ()
    if isinstance(told, str):
        told = json.loads(told) if told.startswith("[") else told.split(",")
    return tuple(dict.fromkeys(str(name).strip() for name in told if str(name).strip()))


def _all_bad(told: Any) -> bool:
    word = str(told).strip().lower()
    if word not in _YES | _NO:
        raise BadInput(f"all_bad is true or false, not {told!r}")
    return word in _YES


def gather(judgements: Iterable[Judgement]) -> dict[str, Judged]:
    """Bring together what several people said of a clip; of one person's judgements the last counts.

    A clip is all bad where more than half say so. Where exactly half do, it isn't: somebody found a good one. Of
    several questions about a clip that counts which most people answered, of equals the last one, as for training.
    """
    by_clip: dict[str, dict[Any, dict[str, Judgement]]] = collections.defaultdict(lambda: collections.defaultdict(dict))
    for number, one in enumerate(judgements):
        # Those who gave no name are taken for different people.
        by_clip[one.clip_id][one.question][one.annotator or f"\0{number}"] = one
    found = {}
    for clip_id, asked in by_clip.items():
        most = max(asked, key=lambda question: _weight(asked[question].values()))
        told = list(asked[most].values())
        good = [one.groups or (one.teachers,) for one in told if not one.all_bad]
        votes: dict[str, float] = collections.defaultdict(float)
        for groups in good:
            for teachers in groups:
                for teacher in teachers:
                    votes[teacher] += 1 / len(teachers) / len(groups) / len(good)
        all_bad = 2 * (len(told) - len(good)) > len(told)
        chosen = tuple(frozenset(one.teachers) for one in told)
        found[clip_id] = Judged({} if all_bad else dict(votes), all_bad, chosen, most[0])
    return found


def _weight(answers: Collection[Judgement]) -> tuple[int, float, tuple[bool, tuple[str, ...]]]:
    """How much the answers to one question count beside those to another."""
    return len(answers), max(one.said_at for one in answers), next(iter(answers)).question


def stored_judgements(dataset: Directory) -> list[Judgement] | None:
    """Those that were imported into a dataset; None where none ever were."""
    uri = table_uri(dataset, TABLE)
    if not is_delta_table(uri):
        return None
    files = table_files(delta_table(uri), dataset, TABLE)
    return [one for file in files for one in of_rows(_rows_of(file))]


def _rows_of(file: str) -> Iterator[dict[str, Any]]:
    with reading(file) as opened:
        for batch in pq.ParquetFile(opened).iter_batches():
            yield from batch.select([name for name in batch.schema.names if name in _COLUMNS]).to_pylist()
