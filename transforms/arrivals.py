"""Sources that go on coming: told by a bucket's notifications, or found by looking into the bucket now and then.

    watched = pipeline | WatchSubscription("projects/p/subscriptions/uploads")      # .sources, .gone, .refused
    sources = pipeline | WatchPattern("gs://uploads/**/*.mp4", every_s=30)

Here bounded and unbounded input part ways, and nowhere else: both give the `Source` records that `find_sources` gives.
A runner has to be able to stream: locally BundleBasedDirectRunner for a subscription, which acknowledges what it pulls
at once, so that a kill loses it; Dataflow does not. A pattern takes a runner that honours Beam's Watch.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam import pvalue
from apache_beam.coders import PickleCoder
from apache_beam.io.watch import PollFn, PollResult, Watch, after_total_of, never
from apache_beam.metrics import Metrics
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Duration, Timestamp

from transforms.allowed import told_by
from transforms.joining import as_it_is
from transforms.notifications import Notification, parse_notification, sources_of
from transforms.objects import is_object
from transforms.reading import find_sources
from transforms.sources import NothingFound, Source, is_overtaken
from transforms.subscriptions import check_subscription
from transforms.tables import own_folders
from transforms.tombstones import barred

#: Pub/Sub delivers what is not acknowledged for a week, but most duplicates come within minutes.
FORGET_AFTER_S = 3600.0
_TOMBSTONES_EVERY_S = 30.0
_GONE, _REFUSED = "gone", "refused"


@dataclasses.dataclass(frozen=True, slots=True)
class RefusedMessage:
    """A message that is no notification of a bucket, or of one that may not be read, and why."""

    message_id: str
    attributes: tuple[tuple[str, str], ...]
    problem: str


class Watched(NamedTuple):
    """What `WatchSubscription` gives: `sources` of Source, `gone` of Notification, `refused` of RefusedMessage."""

    sources: beam.PCollection[Source]
    gone: beam.PCollection[Notification]
    refused: beam.PCollection[RefusedMessage]


@dataclasses.dataclass
class WatchSubscription(beam.PTransform):
    """Turn a bucket's notifications into sources, each version of a video and of its text once.

    Unbounded. A notification gives the videos that it concerns as they are in the bucket now, often none; deletes and
    archives come out as `gone`, messages that are something else as `refused`. Where the bucket cannot be asked, the
    runner repeats the bundle. Sources have the time at which they were looked at, not that of their messages.

    Args:
      subscription: projects/PROJECT/subscriptions/NAME.
      forget_after_s: a duplicate that comes later than this is a source once more.
      allowed: the buckets that may be told of; none stands for any.
    """

    subscription: str
    forget_after_s: float = FORGET_AFTER_S
    allowed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__init__()
        check_subscription(self.subscription)
        if not self.forget_after_s > 0:
            raise ValueError(f"forget_after_s must be more than 0, not {self.forget_after_s!r}")

    def expand(self, pipeline: pvalue.PBegin) -> Watched:
        from apache_beam.io.gcp.pubsub import ReadFromPubSub

        messages = pipeline | "Pull" >> ReadFromPubSub(subscription=self.subscription, with_attributes=True)
        told = messages | "Look" >> beam.FlatMap(_look, told_by(self.allowed)).with_outputs(
            _GONE, _REFUSED, main="sources"
        )
        # A message may have waited for hours, and what is behind the watermark would be forgotten at once.
        now = told["sources"] | "Now" >> beam.Map(stamped).with_output_types(Source)
        sources = now | "Newest" >> KeepNewest(self.subscription, self.forget_after_s)
        return Watched(
            sources,
            told[_GONE] | "Gone" >> beam.Map(as_it_is).with_output_types(Notification),
            told[_REFUSED] | "Refused" >> beam.Map(as_it_is).with_output_types(RefusedMessage),
        )


def _look(message: Any, buckets: Collection[str]) -> Iterator[Any]:
    attributes = dict(message.attributes or {})
    try:
        notification = parse_notification(attributes, buckets)
    except ValueError as error:
        _count("messages_refused")
        refused = RefusedMessage(message.message_id or "", tuple(sorted(attributes.items())), str(error))
        yield pvalue.TaggedOutput(_REFUSED, refused)
        return
    _count(f"notifications_{notification.kind}")
    if notification.kind in ("delete", "archive"):
        yield pvalue.TaggedOutput(_GONE, notification)
        return
    found = sources_of(notification)
    if not found:
        _count("notifications_skipped")
    yield from found


def stamped(source: Source, clock: Callable[[], float] = time.time) -> TimestampedValue:
    """The source as of now, whenever it was told of."""
    return TimestampedValue(source, clock())


def supersedes(source: Source, etag: str, text_version: str) -> bool:
    """Whether a source is news to who has seen this version of its object and text.

    A lower generation was overwritten meanwhile. One that has gone (etag "") is no news where there was one: what
    became of that is told when it is read.
    """
    if source.etag == etag:
        return bool(etag) and source.text_version != text_version
    return not is_overtaken(source.etag, etag)


@dataclasses.dataclass
class KeepNewest(beam.PTransform):
    """Drop sources that have come already, or that a newer version of the same video has overtaken.

    Source of objects in, at most one Source out a version of the video and its text; bounded or unbounded.

    Args:
      name: its own within a pipeline.
      forget_after_s: how long a video is remembered, in event time since its last news.
    """

    name: str
    forget_after_s: float

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, sources: beam.PCollection[Source]) -> beam.PCollection[Source]:
        keyed = sources | "Key" >> beam.Map(lambda source: (source.video_id, source)).with_output_types(
            tuple[str, Source]
        )
        return keyed | "Remember" >> beam.ParDo(_remembering(self.name, self.forget_after_s)).with_output_types(Source)


def _remembering(name: str, forget_after_s: float) -> beam.DoFn:
    """Make the stateful DoFn; its timer is named after it, as timers of one name disturb each other (see joining)."""
    seen_spec = ReadModifyWriteStateSpec("seen", PickleCoder())
    forget_spec = TimerSpec(f"forget_{hashlib.sha256(name.encode()).hexdigest()[:12]}", TimeDomain.WATERMARK)

    class Remembering(beam.DoFn):
        """State a video: the versions of its object and its text that went through last."""

        def process(
            self,
            keyed: tuple[str, Source],
            timestamp=beam.DoFn.TimestampParam,
            seen=beam.DoFn.StateParam(seen_spec),
            forget=beam.DoFn.TimerParam(forget_spec),
        ) -> Iterable[Source]:
            source = keyed[1]
            before = seen.read()
            if before is not None and not supersedes(source, *before):
                _count("sources_known")
                return
            seen.write((source.etag, source.text_version))
            forget.set(timestamp + Duration(seconds=forget_after_s))
            yield source

        @on_timer(forget_spec)
        def forget_video(self, seen=beam.DoFn.StateParam(seen_spec)) -> None:
            seen.clear()

    return Remembering()


@dataclasses.dataclass
class DropTakenDown(beam.PTransform):
    """Drop the sources that have a tombstone; what is taken down while it runs counts within half a minute.

    The dataset's own files are dropped, too: where it stands in the bucket that is watched, each of its clip files is
    an upload, and would be cut into clips in its turn. Source in, at most one Source out; bounded or unbounded. A
    tombstone that can't be read raises.
    """

    output: str

    def expand(self, sources: beam.PCollection[Source]) -> beam.PCollection[Source]:
        return sources | "Allowed" >> beam.Filter(_is_allowed, self.output)


def _is_allowed(source: Source, output: str) -> bool:
    if source.uri.startswith(own_folders(output)):
        _count("own")
        return False
    is_barred = _barred_of(output, int(time.monotonic() // _TOMBSTONES_EVERY_S))(source)
    if is_barred:
        _count("taken_down")
    return not is_barred


@functools.lru_cache(maxsize=1)
def _barred_of(output: str, turn: int) -> Callable[[Source], bool]:
    """The tombstones as they were when this turn's first source came."""
    return barred(output)


@dataclasses.dataclass
class WatchPattern(beam.PTransform):
    """List a bucket again and again; give each version of a video and of its text once.

    Unbounded, unless `stop_after_s` is given. A poll is a listing: side-cars that come late make their video a source
    once more. Objects appear when they are whole. What was given is remembered for as long as the pipeline runs.

    Args:
      pattern: gs://BUCKET/, a folder, a pattern or a manifest; see `find_sources`. Nothing may be there yet.
      every_s: from poll to poll.
      allowed: buckets that a manifest may name objects of, beside its own.
    """

    pattern: str
    every_s: float = 30.0
    stop_after_s: float | None = None
    allowed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__init__()
        if not is_object(self.pattern):
            raise ValueError(f"{self.pattern!r} is not watched by listings; write gs://BUCKET/...")
        if not self.every_s > 0:
            raise ValueError(f"every_s must be more than 0, not {self.every_s!r}")

    def expand(self, pipeline: pvalue.PBegin) -> beam.PCollection[Source]:
        termination = never() if self.stop_after_s is None else after_total_of(self.stop_after_s)
        polled = (
            pipeline
            | "Pattern" >> beam.Create([self.pattern])
            | "Poll"
            >> Watch(
                _Poll(self.every_s, self.allowed), self.every_s, termination=termination, output_key_fn=_version_of
            )
        )
        return polled | "Source" >> beam.Map(lambda found: found[1]).with_output_types(Source)


class _Poll(PollFn):
    """One listing a call, not more often than every so many seconds.

    Beam's embedded runner (2.77) comes back at once, whatever interval it was given: then it waits here.
    """

    def __init__(self, every_s: float, allowed: tuple[str, ...] = ()):
        self._every_s, self._allowed = every_s, allowed
        self._last: float | None = None

    def __call__(self, pattern: str) -> PollResult[Source]:
        if self._last is not None:
            time.sleep(max(0.0, self._last + self._every_s - time.monotonic()))
        self._last = time.monotonic()
        now = Timestamp.now()
        try:
            sources = find_sources([pattern], allowed=self._allowed).sources
        except NothingFound:
            sources = ()
        return PollResult.incomplete(sources, timestamp=now).with_watermark(now)

    def default_output_coder(self) -> PickleCoder:
        return PickleCoder()


def _version_of(source: Source) -> tuple[str, str, str]:
    return source.video_id, source.etag, source.text_version


def _count(name: str) -> None:
    Metrics.counter("reelscribe/watch", name).inc()
