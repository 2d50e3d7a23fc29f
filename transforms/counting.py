"""Count what goes into a stage and what becomes of it: Beam counters that the record of a run tells stage by stage.

    with timed("read"): video = read_video(source)
    count("read", in_=1, out=1)          # namespace reelscribe/stages/read, counters "in" and "out"

What goes in comes out or fails: `in = out + failed`. `reused` says how much of it was an earlier run's work. Counters
are counted where the work is done, in whatever thread or process; Beam adds them up.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from apache_beam.metrics import Metrics

#: What the namespaces of these counters begin with; the stage follows, of a teacher's also "/" and its name.
STAGES = "reelscribe/stages/"

#: Counters that end so are microseconds.
MICROS = "_us"


def count(stage: str, **numbers: int) -> None:
    """Add to the counters of a stage; a trailing underscore keeps a name from being Python's (`in_`)."""
    for name, number in numbers.items():
        if number:
            Metrics.counter(STAGES + stage, name.removesuffix("_")).inc(number)


@contextlib.contextmanager
def timed(stage: str) -> Iterator[None]:
    """Count how long the block takes, as work of the stage. Not around a `yield`: what follows would count, too."""
    began = time.perf_counter()
    try:
        yield
    finally:
        count(stage, seconds_us=micros(time.perf_counter() - began))


def micros(seconds: float) -> int:
    """Seconds as whole microseconds, which counters can add."""
    return round(1e6 * seconds)
