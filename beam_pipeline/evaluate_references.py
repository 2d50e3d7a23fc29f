"""What people wrote about clips: references, in the forms in which the field exchanges them.

    references = read_references("captions_val2014.json")
    found = match(references, clips)        # found.captions: {clip_id: ("a dog runs on grass", ...)}

Known forms: COCO captions JSON (`images`, `annotations`), MSR-VTT JSON (`videos`, `sentences`), lists of
`{"video": ..., "caption": [...]}` as of MSVD, `{name: [caption, ...]}`, Panda-70M's CSV (a row a source, lists in its
cells), and plain CSV or JSON lines with a caption beside a `clip_id`, `uri`, `file`, `video` or `video_id`, and
`start_s` and `end_s` if it is about a part only.
"""

from __future__ import annotations

import ast
import collections
import csv
import dataclasses
import hashlib
import heapq
import io
import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from transforms.files import read
from transforms.records import Span

#: What a row may call the clip or the video it is about, the most exact first.
KEYS = ("clip_id", "uri", "file", "file_name", "video", "video_id", "videoID", "image_id", "key")
CAPTIONS = ("captions", "caption", "sentence", "text", "description")
#: One row of Panda-70M's CSV holds the captions of a whole source.
_LONGEST_CELL = 64 * 2**20


class BadInput(ValueError):
    """What somebody named for an evaluation cannot be used; the message says what is expected."""


class ReferencesError(BadInput):
    """A file that holds no references."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reference:
    """One caption that somebody wrote: what it is about by name, and of which part, if not of all."""

    key: str
    caption: str
    span: Span | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Named:
    """A clip as references may name it."""

    clip_id: str
    video_id: str
    uri: str
    span: Span


@dataclasses.dataclass(frozen=True)
class Matched:
    """The captions of clips by clip_id, each caption once, and what found no partner.

    Attributes:
      without: clips that no reference is about. unused: references that are about no clip.
      ambiguous: names that fit several videos, whose references are left out.
      shared: clips whose references are about their whole video, of which there are other clips, too.
    """

    captions: Mapping[str, tuple[str, ...]]
    without: int
    unused: int
    ambiguous: tuple[str, ...]
    shared: int

    def notes(self) -> list[str]:
        """What a reader has to know, line by line."""
        lines = []
        if self.without:
            lines.append(f"{self.without:,} clips have no reference and are left out")
        if self.unused:
            lines.append(f"{self.unused:,} references are about no clip here")
        if self.ambiguous:
            lines.append(
                f"{len(self.ambiguous):,} names fit several videos, such as {self.ambiguous[0]}; their references are "
                "left out: name them by clip_id or uri"
            )
        if self.shared:
            lines.append(f"{self.shared:,} clips are measured by references to their whole video, which has others")
        return lines


def read_references(path: str) -> list[Reference]:
    """The references of a file, in its order.

    Raises:
      ReferencesError: it holds none that can be read. OSError: there is no such file.
    """
    try:
        text = read(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ReferencesError(f"{path} is not UTF-8 text") from error
    try:
        # A caption of punctuation alone is no caption, and the tokenizers leave nothing of it.
        found = [one for one in _read(path, text) if any(map(str.isalnum, one.caption))]
    except (
        KeyError,
        TypeError,
        AttributeError,
        ValueError,
        SyntaxError,
        csv.Error,
        RecursionError,
        MemoryError,
    ) as error:
        if isinstance(error, ReferencesError):
            raise
        raise ReferencesError(f"cannot read references from {path}: {' '.join(str(error).split())[:200]}") from error
    if not found:
        raise ReferencesError(f"{path} holds no references: rows need one of {', '.join(KEYS)} and a caption")
    return found


def _read(path: str, text: str) -> Iterator[Reference]:
    if path.lower().endswith((".csv", ".tsv")):
        csv.field_size_limit(_LONGEST_CELL)
        # Lines end where the file ends them: a caption in quotes may hold a line break.
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if path.lower().endswith(".tsv") else ",")
        for row in rows:
            yield from _of_panda(row) if _is_panda(row) else _of_row(row)
    elif path.lower().endswith((".jsonl", ".ndjson")):
        for line in filter(str.strip, text.splitlines()):
            yield from _of_row(json.loads(line))
    else:
        yield from _of_json(json.loads(text))


def _of_json(content: Any) -> Iterator[Reference]:
    if isinstance(content, list):
        for row in content:
            yield from _of_row(row)
    elif "sentences" in content:
        for row in content["sentences"]:
            yield from _of_row(row)
    elif "annotations" in content:
        names = {row["id"]: str(row.get("file_name") or row["id"]) for row in content.get("images") or ()}
        for row in content["annotations"]:
            yield from _captions(names.get(row["image_id"], str(row["image_id"])), row["caption"], None)
    else:
        for key, captions in content.items():
            yield from _captions(key, captions, None)


def _of_row(row: Mapping[str, Any]) -> Iterator[Reference]:
    key = next((row[name] for name in KEYS if row.get(name) not in (None, "")), None)
    told = next((row[name] for name in CAPTIONS if row.get(name) not in (None, "", [])), None)
    if key is None or told is None:
        if not any(name in row for name in KEYS) or not any(name in row for name in CAPTIONS):
            raise ReferencesError(
                f"a row has {', '.join(map(str, row))}: it needs one of {', '.join(KEYS)} and a caption"
            )
        return
    start, end = row.get("start_s"), row.get("end_s")
    span = None if start in (None, "") or end in (None, "") else Span(float(start), float(end))
    yield from _captions(str(key), told, span)


def _is_panda(row: Mapping[str, Any]) -> bool:
    return {"videoID", "timestamp", "caption"} <= set(row)


def _of_panda(row: Mapping[str, str]) -> Iterator[Reference]:
    """Panda-70M's form: a row a source, a Python list of captions and one of ["0:00:15.982", "0:00:36.503"] pairs."""
    stamps, captions = ast.literal_eval(row["timestamp"]), ast.literal_eval(row["caption"])
    for stamp, caption in zip(stamps, captions, strict=True):
        start, end = (_seconds(time) for time in stamp)
        yield from _captions(row["videoID"], caption, Span(start, end))


def _seconds(time: str) -> float:
    """Of "0:00:15.982"."""
    seconds = 0.0
    for part in time.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds


def _captions(key: str, told: Any, span: Span | None) -> Iterator[Reference]:
    """One or several captions; a list may stand in a cell of a CSV as JSON."""
    if isinstance(told, str) and told.startswith("["):
        try:
            told = json.loads(told)
        except ValueError:
            told = [told]
    for caption in [told] if isinstance(told, str) else told:
        if not isinstance(caption, str):
            raise ReferencesError(f"a caption of {key} is no text: {str(caption)[:60]}")
        yield Reference(str(key), " ".join(caption.split()), span)


def match(references: Sequence[Reference], clips: Iterable[Named]) -> Matched:
    """Find the references of each clip: by its id, else by its video's URI, id, file name, or file name without suffix.

    One about a part of a video belongs to the clips that lie in it by more than half, and to none else.
    """
    by_key: dict[str, list[int]] = collections.defaultdict(list)
    for number, reference in enumerate(references):
        by_key[reference.key].append(number)
    found: dict[str, list[int]] = {}
    keys: dict[str, str] = {}
    videos: dict[str, set[str]] = collections.defaultdict(set)
    without = 0
    for clip in clips:
        key = next((name for name in names_of(clip) if name in by_key), None)
        if key is not None:
            videos[key].add(clip.uri)
        fitting = [number for number in by_key.get(key or "", ()) if _is_about(references[number], clip)]
        if key is None or not fitting:
            without += 1
            continue
        found[clip.clip_id], keys[clip.clip_id] = fitting, key
    # A clip's own id names it alone.
    ambiguous = {key for key, uris in videos.items() if len(uris) > 1}
    kept = {clip_id: numbers for clip_id, numbers in found.items() if keys[clip_id] not in ambiguous}
    clips_of = collections.Counter(keys[clip_id] for clip_id in kept)
    used = {number for numbers in kept.values() for number in numbers}
    return Matched(
        captions={
            clip_id: tuple(dict.fromkeys(references[number].caption for number in numbers))
            for clip_id, numbers in kept.items()
        },
        without=without + len(found) - len(kept),
        unused=len(references) - len(used),
        ambiguous=tuple(sorted(ambiguous)),
        shared=sum(
            clips_of[keys[clip_id]] > 1 and any(references[number].span is None for number in numbers)
            for clip_id, numbers in kept.items()
        ),
    )


def draw(clip_ids: Iterable[str], most: int, seed: int) -> frozenset[str]:
    """So many of the clips, by lot: the lots are of their ids, so that a growing dataset keeps most of those drawn."""
    return frozenset(
        heapq.nsmallest(most, clip_ids, key=lambda clip_id: hashlib.sha256(f"{seed} {clip_id}".encode()).digest())
    )


def parts(references: Sequence[Reference]) -> dict[str, list[Span | None]]:
    """The parts of videos that references are about, by the name they use; None is a whole one."""
    found: dict[str, dict[Span | None, None]] = collections.defaultdict(dict)
    for reference in references:
        found[reference.key][reference.span] = None
    return {key: list(spans) for key, spans in found.items()}


def names_of(clip: Named) -> Iterator[str]:
    """What references may call a clip, the most exact name first."""
    name = posixpath.basename(clip.uri)
    yield from (clip.clip_id, clip.uri, clip.video_id, name, posixpath.splitext(name)[0])


def _is_about(reference: Reference, clip: Named) -> bool:
    span = reference.span
    if span is None:
        return True
    shared = min(span.end_s, clip.span.end_s) - max(span.start_s, clip.span.start_s)
    return shared > clip.span.duration_s / 2
