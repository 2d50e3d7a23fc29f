"""Read what people answered: Label Studio's exports (JSON, JSON-MIN, CSV, TSV) and our own table and JSON Lines.

    read = read_answers("project-3.json"); read.answers[0].chosen; read.cancelled

Every answer carries its task's key (see `annotate_choices`), so nothing else is needed to know what was shown.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import datetime
import functools
import hashlib
import io
import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from beam_pipeline.annotate_choices import SealError, Task, unseal
from beam_pipeline.annotate_forms import RESULTS
from beam_pipeline.export_panda70m import as_was
from transforms.files import name_of, read


class AnswerError(ValueError):
    """A file in which no answers can be found; the message says why and what to do."""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What somebody answered.

    Attributes:
      chosen: the place of the best caption in the task's choices; None where all are bad.
      annotator: as the file names them.
      good: where every good one was asked for, their places, instead of `chosen`; empty where all are bad.
    """

    task: Task
    annotator: str
    chosen: int | None
    better_caption: str | None = None
    lead_time_s: float | None = None
    annotated_at: datetime.datetime | None = None
    good: frozenset[int] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Answers:
    """A file's answers.

    Attributes:
      source: SHA-256 of the file.
      cancelled: skipped by whoever was asked. unanswered: without a choice.
      broken: the clips of answers whose key or choice is none that was written, as far as they are known.
      contradictory: the clips of answers that all captions are bad, and that some are good.
    """

    answers: tuple[Answer, ...]
    source: str
    cancelled: int = 0
    unanswered: int = 0
    broken: tuple[str, ...] = ()
    contradictory: tuple[str, ...] = ()


class _Cancelled(Exception):
    """Skipped."""


class _Unanswered(Exception):
    """Nothing was chosen."""


class _Contradictory(Exception):
    """All are bad, and some are good."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Raw:
    """An answer in the words of its file."""

    key: Any
    clip_id: Any
    choice: Any
    better: Any
    annotator: Any
    lead_time_s: Any = None
    annotated_at: Any = None
    cancelled: bool = False


def read_answers(path: str) -> Answers:
    """Read a file.

    Raises:
      AnswerError: it is none of the forms. OSError, StorageError: it cannot be read.
    """
    try:
        content = read(path)
    except FileNotFoundError as error:
        raise AnswerError(f"there is no file {path}") from error
    except IsADirectoryError as error:
        raise AnswerError(f"{path} is a folder; name the file in it that was exported") from error
    try:
        found = list(_raw_answers(path, content.decode("utf-8-sig")))
    except UnicodeDecodeError as error:
        raise AnswerError(f"{path} is no text in UTF-8; save it as CSV UTF-8, or export it as JSON") from error
    if found and not any(isinstance(raw.key, str) for raw in found):
        raise AnswerError(f"{path} has no `key` as `annotate export` wrote it; export the project that was made of it")
    return _checked(found, hashlib.sha256(content).hexdigest(), name_of(path).rpartition(".")[0] or name_of(path))


def _checked(found: Sequence[_Raw], source: str, file_title: str) -> Answers:
    answers: list[Answer] = []
    # Answers to one question follow one another, as a rule: they share the task.
    opened = functools.lru_cache(maxsize=64)(unseal)
    counts: collections.Counter[str] = collections.Counter()
    broken: list[str] = []
    contradictory: list[str] = []
    for raw in found:
        try:
            answers.append(_answer(raw, file_title, opened))
        except _Cancelled:
            counts["cancelled"] += 1
        except _Unanswered:
            counts["unanswered"] += 1
        except _Contradictory:
            contradictory.append(str(raw.clip_id))
        except (SealError, ValueError, TypeError):
            broken.append(str(raw.clip_id))
    return Answers(
        tuple(answers), source, counts["cancelled"], counts["unanswered"], tuple(broken), tuple(contradictory)
    )


def _answer(raw: _Raw, file_title: str, opened: Callable[[str], Task]) -> Answer:
    """Raises a ValueError where the answer does not go with its key."""
    if raw.cancelled:
        raise _Cancelled
    told = _choices(raw.choice)
    if not told:
        raise _Unanswered
    task = opened(raw.key if isinstance(raw.key, str) else "")
    # Rows of a table whose columns were sorted apart.
    if raw.clip_id is not None and raw.clip_id != task.clip_id:
        raise ValueError(f"the key is of {task.clip_id}")
    places = frozenset(_number(one, len(task.choices)) - 1 for one in told)
    if not task.is_every_good and len(places) > 1:
        raise ValueError("one caption was to be chosen")
    if -1 in places and len(places) > 1:
        raise _Contradictory
    good = places - {-1}
    better = " ".join(str(raw.better).split()) if raw.better is not None else ""
    annotator = "" if raw.annotator is None else str(raw.annotator).strip()
    return Answer(
        task=task,
        annotator=annotator or f"file {file_title}",
        chosen=None if task.is_every_good else next(iter(good), None),
        better_caption=better or None,
        lead_time_s=_seconds(raw.lead_time_s),
        annotated_at=_time(raw.annotated_at),
        good=good if task.is_every_good else None,
    )


def _choices(told: Any) -> list[str]:
    """The numbers that were chosen, as they were written: one, several with commas between them, or a list."""
    if isinstance(told, Mapping):  # As JSON-MIN and Label Studio's CSV have several.
        told = told.get("choices")
    if isinstance(told, str) and told.strip().startswith(("{", "[")):
        return _choices(json.loads(told))
    if isinstance(told, list):
        return [str(one) for one in told]
    return [] if told is None else re.split(r"[\s,;]+", str(told).strip(" \t\r\n,;")) if str(told).strip() else []


def _number(told: str, most: int) -> int:
    # A spreadsheet may write 3 as 3.0.
    number = float(told)
    if not number.is_integer() or not 0 <= number <= most:
        raise ValueError(f"there is no choice {told}")
    return int(number)


def _seconds(told: Any) -> float | None:
    try:
        value = float(told)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _time(told: Any) -> datetime.datetime | None:
    """A moment as ISO 8601 writes it, UTC where it names no zone; None for anything else."""
    try:
        time = datetime.datetime.fromisoformat(told)
    except (TypeError, ValueError):
        return None
    return (time if time.tzinfo else time.replace(tzinfo=datetime.UTC)).astimezone(datetime.UTC)


def _raw_answers(path: str, text: str) -> Iterator[_Raw]:
    kind = path.rpartition(".")[2].lower()
    try:
        if kind in ("jsonl", "ndjson"):
            # Not `splitlines`, which also ends lines at characters that captions may hold.
            yield from map(_ours, (_object(json.loads(line), path) for line in text.split("\n") if line.strip()))
        elif kind == "json":
            yield from _studio(json.loads(text), path)
        elif kind in ("csv", "tsv"):
            yield from _table(text, path)
        else:
            raise AnswerError(f"{path} is neither .json, .csv, .tsv nor .jsonl")
    except AnswerError:
        raise
    except (ValueError, RecursionError, csv.Error) as error:
        raise AnswerError(f"{path} can't be read as {kind}: {error}") from error


def _object(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise AnswerError(f"{path} holds no answers: {str(value)[:40]!r} stands where an object should")
    return value


def _studio(tasks: Any, path: str) -> Iterator[_Raw]:
    """Tasks as Label Studio exports them: as JSON with their annotations, as JSON-MIN an object an annotation."""
    if not isinstance(tasks, list):
        raise AnswerError(f"{path} is no export of Label Studio: it must be a list of tasks")
    for task in (_object(one, path) for one in tasks):
        if "annotations" not in task:
            yield _minimal(task)
            continue
        asked = task.get("data")
        asked = asked if isinstance(asked, Mapping) else {}
        for one in task["annotations"] if isinstance(task["annotations"], list) else ():
            yield _annotation(asked, _object(one, path))


def _annotation(asked: Mapping[str, Any], one: Mapping[str, Any]) -> _Raw:
    said: dict[str, Any] = {}
    results = one.get("result")
    for result in results if isinstance(results, list) else ():
        if isinstance(result, Mapping) and isinstance(result.get("value"), Mapping):
            said[str(result.get("from_name"))] = result["value"]
    by = one.get("completed_by")
    return _Raw(
        key=asked.get("key"),
        clip_id=asked.get("clip_id"),
        choice=next((said[name].get("choices") for name in RESULTS.values() if name in said), None),
        better=_text(said.get("better", {}).get("text")),
        annotator=(by.get("email") or by.get("id")) if isinstance(by, Mapping) else by,
        lead_time_s=one.get("lead_time"),
        annotated_at=one.get("updated_at") or one.get("created_at"),
        cancelled=bool(one.get("was_cancelled")),
    )


def _minimal(row: Mapping[str, Any]) -> _Raw:
    """A row of JSON-MIN, or of Label Studio's CSV: results by their names, among the fields of the task."""
    by = row.get("annotator")
    return _Raw(
        key=row.get("key"),
        clip_id=row.get("clip_id"),
        choice=next((row[name] for name in RESULTS.values() if row.get(name)), None),
        better=_text(row.get("better")),
        # Of tasks that nobody answered it is {}.
        annotator=None if isinstance(by, Mapping) else by,
        lead_time_s=row.get("lead_time"),
        annotated_at=row.get("updated_at") or row.get("created_at"),
    )


def _ours(row: Mapping[str, Any]) -> _Raw:
    return _Raw(row.get("key"), row.get("clip_id"), row.get("choice"), row.get("better_caption"), row.get("annotator"))


def _table(text: str, path: str) -> Iterator[_Raw]:
    csv.field_size_limit(sys.maxsize)  # Keys of many long captions are more than the 131,072 characters allowed.
    header = text.partition("\n")[0]
    # Spreadsheets write what their country's decimal comma leaves.
    delimiter = max((",", ";", "\t"), key=header.count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    columns = set(rows.fieldnames or ())
    studios = columns & set(RESULTS.values())
    if "key" not in columns or not studios | columns & {"choice"}:
        raise AnswerError(f"{path} has not the columns `key` and `choice` (or Label Studio's `best` or `good`)")
    for row in rows:
        if studios:
            yield _minimal(row)
        else:
            clip_id, better = row.get("clip_id"), row.get("better_caption")
            yield _ours({**row, "clip_id": as_was(clip_id) if clip_id else None, "better_caption": better})


def _text(said: Any) -> str | None:
    """One text, of several as Label Studio gives them."""
    return " ".join(map(str, said)) if isinstance(said, list) else said
