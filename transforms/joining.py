"""Join the parts of a whole by counting them, so that one slow video holds back no other.

    parts | JoinByCount("shots", lambda whole: len(whole.shots))   # (key, Whole(w)) and (key, Part(p)) -> Joined

A group-by-key in a stream waits for a window to close; a count knows when a group is complete. The whole says how many
parts belong to it; as soon as so many have come, in whatever order, the join emits. Parts that never come (an upstream
bug, a lost bundle) are caught by an event-time timer: once the watermark has passed the group's timestamp nothing more
of it can arrive, so the join emits what it has, and says how many parts are missing. No clock time is waited, and the
same code serves bounded and unbounded input. Whatever comes behind the watermark loses its parts: let a stream's
sources have the time at which they enter it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import apache_beam as beam
from apache_beam.coders import PickleCoder
from apache_beam.metrics import Metrics
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import (
    BagStateSpec,
    ReadModifyWriteStateSpec,
    TimerSpec,
    on_timer,
)
from apache_beam.utils.timestamp import Duration


@dataclasses.dataclass(frozen=True, slots=True)
class Whole:
    """The record that others belong to; it comes once."""

    record: Any


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """One of the records that belong to a whole."""

    record: Any


@dataclasses.dataclass(frozen=True, slots=True)
class Joined:
    """A whole with its parts, in the order in which they came. `missing` is 0 unless parts were lost upstream."""

    whole: Any
    parts: tuple[Any, ...]
    missing: int = 0


def _counting_join(name: str, expected: Callable[[Any], int]) -> beam.DoFn:
    """Make the stateful DoFn of one join.

    Its timer carries the join's name: Beam's embedded runner (2.77) keeps one buffer a timer name and pipeline, so two
    stages whose timers are called alike read each other's timers.
    """
    whole_spec = ReadModifyWriteStateSpec("whole", PickleCoder())
    parts_spec = BagStateSpec("parts", PickleCoder())
    count_spec = ReadModifyWriteStateSpec("count", PickleCoder())
    last_call_spec = TimerSpec(f"last_call_of_{name}", TimeDomain.WATERMARK)

    class CountingJoin(beam.DoFn):
        """State a key: the whole, the parts so far and their count; cleared when the group is emitted."""

        def process(
            self,
            keyed: tuple[str, Whole | Part],
            timestamp=beam.DoFn.TimestampParam,
            whole=beam.DoFn.StateParam(whole_spec),
            parts=beam.DoFn.StateParam(parts_spec),
            count=beam.DoFn.StateParam(count_spec),
            last_call=beam.DoFn.TimerParam(last_call_spec),
        ) -> Iterable[Joined]:
            _, arrived = keyed
            so_far = count.read() or 0
            if isinstance(arrived, Whole):
                whole.write(arrived.record)
            else:
                parts.add(arrived.record)
                so_far += 1
                count.write(so_far)
            last_call.set(timestamp + Duration(micros=1000))
            known = whole.read()
            if known is not None and so_far >= expected(known):
                yield Joined(known, tuple(parts.read()))
                for state in (whole, parts, count, last_call):
                    state.clear()

        @on_timer(last_call_spec)
        def close(
            self,
            whole=beam.DoFn.StateParam(whole_spec),
            parts=beam.DoFn.StateParam(parts_spec),
            count=beam.DoFn.StateParam(count_spec),
        ) -> Iterable[Joined]:
            known, found = whole.read(), tuple(parts.read())
            for state in (whole, parts, count):
                state.clear()
            if known is not None:
                missing = expected(known) - len(found)
                Metrics.counter("reelscribe/join", "parts_lost").inc(missing)
                yield Joined(known, found, missing)

    return CountingJoin()


@dataclasses.dataclass
class JoinByCount(beam.PTransform):
    """Join wholes with their parts by key.

    (key, Whole | Part) in, one `Joined` a key out; bounded or unbounded. Keys are strings and are used once. Breaks
    fusion first: a runner may keep a stateful stage on one worker, and the models upstream must not be kept there too.

    Args:
      name: of the join, its own within a pipeline.
      expected: how many parts belong to a whole.
    """

    name: str
    expected: Callable[[Any], int]

    def expand(self, keyed: beam.PCollection[tuple[str, Whole | Part]]) -> beam.PCollection[Joined]:
        return (
            keyed
            # Names the key's type, and so its coder, whatever the branches that were flattened inferred.
            | "Keyed" >> beam.Map(as_it_is).with_output_types(tuple[str, Any])
            | "Spread" >> beam.Reshuffle()
            | "Count" >> beam.ParDo(_counting_join(self.name, self.expected))
        )


def as_it_is(record: Any) -> Any:
    """The record itself: a step that does nothing names the type, and so the coder, of what passes."""
    return record
