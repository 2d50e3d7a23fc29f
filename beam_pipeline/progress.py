"""Progress of a long run: a bar on a terminal, a plain line now and then elsewhere.

with Progress(total=100) as progress: progress.advance(10, counts)
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Self, TextIO

#: Seconds between two lines where there is no terminal.
LINE_EVERY_S = 10.0


def told(done: int, total: int, counts: Mapping[str, int], elapsed_s: float) -> str:
    """One line: videos, clips, failures, rate, time left."""
    rate = done / elapsed_s if elapsed_s > 0 else 0.0
    left = f"{_clock((total - done) / rate)} left" if rate else "-"
    return (
        f"{done}/{total} videos, {counts.get('clips', 0)} clips, {counts.get('videos failed', 0)} failed, "
        f"{rate * 60:.1f} videos/min, {left}"
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def standard_error() -> Callable[[str], None]:
    """What tells lines on standard error as that is now, wherever it is led later (see `job.quiet_workers`)."""
    stream = sys.stderr
    return lambda line: print(line, file=stream, flush=True)


class Progress:
    """Tells how far a run is, on standard error."""

    def __init__(self, total: int, stream: TextIO | None = None):
        self._total, self._stream = total, stream or sys.stderr
        self._done, self._began, self._last_line = 0, time.monotonic(), 0.0

    def __enter__(self) -> Self:
        if self._stream.isatty() and self._total:
            self._say(told(0, self._total, {}, 0.0))
        return self

    def advance(self, videos: int, counts: Mapping[str, int]) -> None:
        """Say that `videos` more are committed."""
        self._done += videos
        now = time.monotonic()
        if self._stream.isatty() or now - self._last_line >= LINE_EVERY_S or self._done == self._total:
            self._last_line = now
            self._say(told(self._done, self._total, counts, now - self._began))

    def _say(self, line: str) -> None:
        if self._stream.isatty():
            width = 24
            full = round(width * self._done / self._total) if self._total else width
            self._stream.write(f"\r\x1b[2K[{'#' * full}{'.' * (width - full)}] {line}")
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def __exit__(self, *_: object) -> None:
        if self._stream.isatty() and self._total:
            self._stream.write("\n")
