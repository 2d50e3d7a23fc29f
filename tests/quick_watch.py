"""A watch without media and models: a feed that is a list, and jobs whose work commits made-up rows.

def test_something(quick, tmp_path):
    (summary,) = run(ListFeed([arrival("a")]), tmp_path)        # QuickJob.worked == [["a 1"]]
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar

import pytest
from dataset_rows import video_rows

from beam_pipeline import watching
from beam_pipeline.config import load_config
from beam_pipeline.feeds import Arrival
from beam_pipeline.job import Job, JobOptions, Summary, running
from beam_pipeline.pipeline import fingerprints_of
from beam_pipeline.verify import audit
from beam_pipeline.watching import WatchOptions, watch
from transforms.committing import Committer
from transforms.reading import Source
from transforms.schemas import VideoRows
from transforms.tables import current_videos, read_table

CONFIG = load_config("lite")


def arrival(name: str, etag: str = "1", size: int = 1, **changes: object) -> Arrival:
    source = Source(name, f"/uploads/{name}.mp4", etag=etag, size_bytes=size)
    return Arrival(source, time.time(), (f"{name}-{etag}",), **changes)


class ListFeed:
    """Gives these, a list of arrivals each time it is asked, and then nothing."""

    inputs = ("/uploads",)
    has_looked = True

    def __init__(self, *batches: list[Arrival]):
        self.events: list[dict] = []
        self.finished: list[str] = []
        self.released: list[str] = []
        self.batches = iter(batches)

    @classmethod
    def of(cls, batches: Iterator[list[Arrival]]) -> ListFeed:
        """One whose batches come from a generator, which may look about in between."""
        feed = cls()
        feed.batches = batches
        return feed

    def arrivals(self, wait_s: float) -> list[Arrival]:
        time.sleep(0.01)
        return next(self.batches, [])

    def done(self, arrivals: Iterable[Arrival]) -> None:
        self.finished += [receipt for one in arrivals for receipt in one.receipts]

    def release(self, arrivals: Iterable[Arrival]) -> None:
        self.released += [receipt for one in arrivals for receipt in one.receipts]

    def keep(self) -> None:
        pass

    def recorded(self) -> None:
        pass


def until(done: Callable[[], object], seconds: float = 15.0) -> Iterator[list[Arrival]]:
    """Batches of nothing until something is the case."""
    ends = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < ends, "waited in vain"
        yield []


class QuickJob(Job):
    """A job whose work commits made-up rows: what it stops at, or waits for, goes by the video."""

    stops_at: ClassVar[frozenset[str]] = frozenset()
    waits_for: ClassVar[dict[str, threading.Event]] = {}
    worked: ClassVar[list[list[str]]] = []

    def work(self, chunk: list[Source]) -> None:
        self.worked.append([f"{source.video_id} {source.etag}" for source in chunk])
        for source in chunk:
            name = f"{source.video_id} {source.etag}"
            if name in self.stops_at or "all" in self.stops_at:
                raise RuntimeError(f"Traceback:\nOSError: the card is on fire at {source.video_id} [while running 'A']")
            if name in self.waits_for:
                assert self.waits_for[name].wait(30)
        Committer(self.output).commit([self._rows(source) for source in chunk])

    def _rows(self, source: Source) -> VideoRows:
        rows = video_rows(source.video_id, self.run_id, n_clips=1, etag=source.etag)
        made_with = fingerprints_of(source, self.config)
        return dataclasses.replace(rows, video={**rows.video, "uri": source.uri, "fingerprints": made_with})


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Jobs of a watch are quick ones, and its pauses short."""

    @contextlib.contextmanager
    def quick_running(*args: object) -> Iterator[Job]:
        with running(*args) as job:
            yield QuickJob(**{field.name: getattr(job, field.name) for field in dataclasses.fields(Job)})

    monkeypatch.setattr(watching, "running", quick_running)
    monkeypatch.setattr(watching, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(watching, "_TICK_S", 0.05)
    monkeypatch.setattr(watching, "_BREATH_S", 0.0)
    for name, value in (("stops_at", frozenset()), ("waits_for", {}), ("worked", [])):
        monkeypatch.setattr(QuickJob, name, value)
    return monkeypatch


NO_REELS = JobOptions(keep_reels=False)


def run(feed, output: pathlib.Path, stop: threading.Event | None = None, **options: object) -> list[Summary]:
    """Watch until nothing comes any more; the dataset is sound then."""
    how = WatchOptions(**{"quiet_s": 0.3, "idle_exit_s": 0.1, **options})
    try:
        return list(watch(feed, str(output), CONFIG, NO_REELS, how, stop or threading.Event(), lambda line: None))
    finally:
        assert audit(str(output)).breaches == []


def etags(output: pathlib.Path) -> dict[str, tuple[str, str]]:
    return {video_id: (video.etag, video.status) for video_id, video in current_videos(str(output)).items()}


def letters(output: pathlib.Path) -> list[tuple[str, ...]]:
    rows = read_table(str(output), "failures").to_pylist()
    return sorted((r["stage"], r["video_id"], r["error_class"], r["message"]) for r in rows if r["stage"] != "caption")
