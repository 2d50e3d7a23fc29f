"""One version of a video at a time, in a stream where the next may come while the first is still worked on.

    sources | OneVersionAtATime("uploads", "out", fingerprints)      # Source in, Source out, some of them later

Under way at once, two versions would be worked on twice over, and share a reel. So the later one is held back until the
dataset shows the earlier one, which it then builds upon: a title that came late costs captions, and no second decode.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.coders import PickleCoder
from apache_beam.metrics import Metrics
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.transforms.window import TimestampedValue

from transforms.arrivals import FORGET_AFTER_S, stamped, supersedes
from transforms.finding import beside
from transforms.sources import Source, is_overtaken, object_source
from transforms.standing import Standing
from transforms.tables import create_tables

_LOOK_EVERY_S = 2.0
#: Bundles of one worker process share what they read of the table.
_looking = threading.Lock()

Begun = tuple[str, Mapping[str, str], float]


def as_it_is_now(source: Source) -> Source:
    """The same object as the bucket holds it now, with the text beside it; of etag "" if it has gone."""
    try:
        return object_source(source.uri, beside(source.uri))
    except FileNotFoundError:  # the bucket has gone, too
        return dataclasses.replace(source, etag="", text_version="")


@dataclasses.dataclass
class OneVersionAtATime(beam.PTransform):
    """Hold a version of a video back while an earlier one is under way, which ends when the dataset shows it.

    Source in; out the same, stamped with the time at which they go, but of those held back the newest alone. Unbounded.
    A version that the dataset never shows is given up after `give_up_after_s`; it then counts as `given_up`. That an
    object has gone is no news while a version of it is under way: what became of that is told when it is read.

    Args:
      name: its own within a pipeline.
      output: the dataset. fingerprints: of a source, as its row in `videos` will have them.
      again: looks at a source anew when it is let go after another one, as it may be older than that; None: it goes
        as it came.
      clock: seconds since the epoch.
    """

    name: str
    output: str
    fingerprints: Callable[[Source], Mapping[str, str]]
    again: Callable[[Source], Source] | None = None
    give_up_after_s: float = FORGET_AFTER_S
    clock: Callable[[], float] = time.time

    def expand(self, sources: beam.PCollection[Source]) -> beam.PCollection[Source]:
        keyed = sources | "Key" >> beam.Map(lambda one: (one.video_id, one)).with_output_types(tuple[str, Source])
        return keyed | "Hold" >> beam.ParDo(_holding(self)).with_output_types(Source)


def _holding(how: OneVersionAtATime) -> beam.DoFn:
    """Make the stateful DoFn; its timers are named after it, as timers of one name disturb each other (see joining)."""
    output, fingerprints, again, give_up_after_s, clock = (
        *(how.output, how.fingerprints, how.again),
        *(how.give_up_after_s, how.clock),
    )
    begun_spec = ReadModifyWriteStateSpec("begun", PickleCoder())
    held_spec = ReadModifyWriteStateSpec("held", PickleCoder())
    look_spec = TimerSpec(f"look_{how.name}", TimeDomain.REAL_TIME)
    # Of the watermark, but set by the clock, which the watermark is never ahead of. A real-time timer would hold the
    # watermark back until it fires, and with it the end of a drain.
    forget_spec = TimerSpec(f"forget_begun_{how.name}", TimeDomain.WATERMARK)

    class Holding(beam.DoFn):
        """State a video: the version that is under way with the time it began, and the one that is held back."""

        def process(
            self,
            keyed: tuple[str, Source],
            begun=beam.DoFn.StateParam(begun_spec),
            held=beam.DoFn.StateParam(held_spec),
            look=beam.DoFn.TimerParam(look_spec),
            forget=beam.DoFn.TimerParam(forget_spec),
        ) -> Iterable[TimestampedValue]:
            source = keyed[1]
            _count("sources")
            before, waiting = begun.read(), held.read()
            if waiting is None and not _is_under_way(output, source.video_id, before, clock, give_up_after_s):
                yield self._let_go(again(source) if again and before is not None else source, begun, forget)
                return
            if waiting is not None or not source.etag:
                _count("sources_overtaken")
            if source.etag and (waiting is None or supersedes(source, waiting.etag, waiting.text_version)):
                held.write(source)
                _tell_held(output, source.video_id)
            if source.etag and waiting is None:
                look.set(clock() + _LOOK_EVERY_S)

        @on_timer(look_spec)
        def look_again(
            self,
            begun=beam.DoFn.StateParam(begun_spec),
            held=beam.DoFn.StateParam(held_spec),
            look=beam.DoFn.TimerParam(look_spec),
            forget=beam.DoFn.TimerParam(forget_spec),
        ) -> Iterable[TimestampedValue]:
            source = held.read()
            if source is None:
                return
            if _is_under_way(output, source.video_id, begun.read(), clock, give_up_after_s):
                look.set(clock() + _LOOK_EVERY_S)
                return
            held.clear()
            yield self._let_go(again(source) if again else source, begun, forget)

        def _let_go(self, source: Source, begun: Any, forget: Any) -> TimestampedValue:
            now = (source.etag, dict(fingerprints(source)), clock())
            _tell_begun(output, source.video_id, now)
            if source.etag:
                begun.write(now)
                forget.set(now[2] + give_up_after_s)
            else:
                # It has gone: it ends as a dead letter at once, or costs nothing where rows stand.
                begun.clear()
            return stamped(source, clock)

        @on_timer(forget_spec)
        def forget_begun(self, begun=beam.DoFn.StateParam(begun_spec), held=beam.DoFn.StateParam(held_spec)) -> None:
            before = begun.read()
            if held.read() is None and before is not None and clock() - before[2] >= give_up_after_s:
                begun.clear()

    return Holding()


def _is_under_way(
    output: str, video_id: str, begun: Begun | None, clock: Callable[[], float], give_up_after_s: float
) -> bool:
    if begun is None:
        return False
    if clock() - begun[2] >= give_up_after_s:
        _count("given_up")
        return False
    return not _shown(output, {video_id: begun})


def _shown(output: str, begun: Mapping[str, Begun]) -> set[str]:
    """Those of the videos of which the dataset shows the version that was begun, or one that has overtaken it."""
    with _looking:
        try:
            videos = _videos_of(output)
            videos.refresh()
            standing = videos.current(begun.keys())
        except FileNotFoundError:  # files were joined meanwhile: the next look finds the new ones
            return set()
    return {
        video_id
        for video_id, (etag, fingerprints, _) in begun.items()
        if (video := standing.get(video_id))
        and (
            (video.etag == etag and dict(video.fingerprints) == dict(fingerprints))
            # The committer leaves it at that.
            or is_overtaken(etag, video.etag)
        )
    }


@functools.lru_cache(maxsize=1)
def _videos_of(output: str) -> Standing:
    """The table `videos`, whose files a worker reads once."""
    create_tables(output)
    return Standing(output, "videos")


class UnderWay:
    """What this process let go and the dataset does not show yet: what a stop waits for where the runner is in here.

        with UnderWay("out") as under_way: ...; len(under_way)

    Beam's metrics cannot tell: its local runner for streams (2.77) counts the first bundle of each step alone.
    """

    def __init__(self, output: str):
        self._output = output
        self.begun: dict[str, Begun] = {}
        self.held: set[str] = set()

    def __enter__(self) -> UnderWay:
        _followed[self._output] = self
        return self

    def __exit__(self, *_: object) -> None:
        del _followed[self._output]

    def __len__(self) -> int:
        with _telling:
            begun = dict(self.begun)
        shown = _shown(self._output, begun) if begun else set()
        with _telling:
            self.begun = {one: told for one, told in self.begun.items() if one not in shown or told != begun[one]}
            return len(self.begun.keys() | self.held)


_followed: dict[str, UnderWay] = {}
_telling = threading.Lock()


def _tell_begun(output: str, video_id: str, begun: Begun) -> None:
    with _telling:
        if output in _followed:
            _followed[output].held.discard(video_id)
            _followed[output].begun[video_id] = begun


def _tell_held(output: str, video_id: str) -> None:
    with _telling:
        if output in _followed:
            _followed[output].held.add(video_id)


def _count(name: str) -> None:
    Metrics.counter("reelscribe/watch", name).inc()
