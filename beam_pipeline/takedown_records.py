"""What the records of runs say of videos that are taken down: struck out.

    strike_out("out", Words({"a"}, {"/videos/a.mp4"}, {"Her Holiday"}))

In `inputs` a video keeps its id and outcome, so that the counts still add up, and loses its URI. What is told freely,
an error say, loses whatever names the video.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

from beam_pipeline.runs import record_paths, write_record
from transforms.files import Directory, join, list_files, read, remove

STRUCK = "(taken down)"

#: What tells no story, and must not change because a title is a word of it; inputs have rules of their own.
_NAMES = frozenset(["command", "run_id", "video_id", "clip_id", "videos", "sources", "absent"])
_FIGURES = frozenset(["status", "started_at", "finished_at", "versions", "models", "counts", "seconds", "bytes"])
_FIXED = _NAMES | _FIGURES | frozenset(["config", "input", "inputs"])

#: Shorter titles name nobody, but would be found in every text.
_SHORTEST = 3


@dataclasses.dataclass(frozen=True)
class Words:
    """What names the videos: their ids and URIs, and their uploaders' words, titles and descriptions."""

    videos: frozenset[str] = frozenset()
    uris: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()

    def strike(self, text: str) -> str:
        """Replace all that names one of the videos: its URI, its file's name, its title, its description."""
        for uri in sorted(self.uris, key=len, reverse=True):
            for form in (uri, repr(uri)[1:-1], urllib.parse.quote(uri)):
                text = text.replace(form, STRUCK)
        files = {pathlib.PurePosixPath(uri).name for uri in self.uris}
        for words in sorted({*files, *self.texts}, key=len, reverse=True):
            for form in dict.fromkeys((words, repr(words)[1:-1])):
                if len(form) >= _SHORTEST and form in text:
                    text = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", STRUCK, text)
        return text

    def names_input(self, given: str) -> bool:
        """Whether an input, as it stood on a command line, is the very file of one of the videos."""
        if {given, os.path.realpath(given)} & self.uris:
            return True
        # A relative one was meant from where that run began, which nobody knows now.
        relative = os.path.normpath(given).lstrip("./")
        return relative != "" and any(uri.endswith(f"/{relative}") for uri in self.uris)


def read_records(dataset_dir: Directory) -> dict[str, dict[str, Any]]:
    """The records of runs by path. One that can't be read is left out: `verify` tells of it."""
    records = {}
    for path in record_paths(dataset_dir):
        try:
            record = json.loads(read(path))
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            records[path] = record
    return records


def uris_in_records(dataset_dir: Directory, video_ids: frozenset[str]) -> set[str]:
    """The URIs under which runs list these videos, be it that they never committed them."""
    return {
        one["uri"]
        for record in read_records(dataset_dir).values()
        for one in _inputs(record)
        if one.get("video_id") in video_ids and isinstance(one.get("uri"), str)
    }


def strike_out(dataset_dir: Directory, words: Words) -> None:
    """Rewrite the records that name the videos. Killed at any instant, it may be run again and finishes.

    The URIs in `inputs` go last, since they tell a second call what to look for.
    """
    for path in list_files(join(dataset_dir, "runs")):
        if path.endswith(".tmp"):
            remove(path)  # Of a writer that was killed.
    for change in (_strike_texts, _strike_inputs):
        for path, record in read_records(dataset_dir).items():
            changed = change(record, words)
            if changed != record:
                write_record(path, changed)


def _strike_texts(record: Mapping[str, Any], words: Words) -> dict[str, Any]:
    changed = _walk(record, words.strike)
    if isinstance(record.get("input"), list):
        changed["input"] = [
            STRUCK if isinstance(one, str) and words.names_input(one) else one for one in record["input"]
        ]
    return changed


def _strike_inputs(record: Mapping[str, Any], words: Words) -> dict[str, Any]:
    if not _inputs(record):
        return dict(record)
    theirs = [one.get("video_id") in words.videos or one.get("uri") in words.uris for one in _inputs(record)]
    struck = [
        {**one, "uri": None} if is_theirs else one for one, is_theirs in zip(record["inputs"], theirs, strict=True)
    ]
    return {**record, "inputs": struck}


def _inputs(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    inputs = record.get("inputs")
    return inputs if isinstance(inputs, list) and all(isinstance(one, dict) for one in inputs) else []


def _walk(value: Any, change: Callable[[str], str]) -> Any:
    """Change every string in a JSON value, but for keys and what stands under one of `_FIXED`."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_walk(one, change) for one in value]
    if isinstance(value, dict):
        return {key: one if key in _FIXED else _walk(one, change) for key, one in value.items()}
    return value
