"""Where a watch gets its videos from: folders that are looked into again and again, or a subscription.

    feed = FolderFeed(["uploads/"], settle_s=10); feed.arrivals(wait_s=5)      # -> [Arrival(source, since), ...]
    feed = SubscriptionFeed("projects/p/subscriptions/uploads")

A feed gives the same `Source` records as a listing does. What it gave is either done or released: a released video
comes again, and so does one that was under way when the watch was killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import posixpath
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from transforms.allowed import named_by
from transforms.objects import StorageError, is_object
from transforms.reading import InputError, Source, add_source, find_sources
from transforms.sources import NothingFound

_log = logging.getLogger(__name__)

#: How programs call what they have not finished; a pattern such as `uploads/*` would match it.
_UNFINISHED = (".part", ".partial", ".tmp", ".crdownload", ".download", ".filepart")


@dataclasses.dataclass(frozen=True, slots=True)
class Arrival:
    """A version of a video that came.

    Attributes:
      since: when it came to be there, in seconds since the epoch.
      receipts: which messages told.
      tries: rounds that stopped with it in them. not_before: when the next one may begin, by the monotonic clock.
    """

    source: Source
    since: float
    receipts: tuple[str, ...] = ()
    tries: int = 0
    not_before: float = 0.0

    def joined(self, newer: Arrival) -> Arrival:
        """This video in its newer version, known for as long as this one, and answering for both."""
        receipts = (*self.receipts, *newer.receipts)
        return dataclasses.replace(newer, since=min(self.since, newer.since), receipts=receipts)


class Feed(Protocol):
    """What a watch asks of a source of videos.

    `inputs` are as the record of a run names them; `events` is what was told beside arrivals, for that record.
    `has_looked`: whether what it gave so far is an answer; until then nobody knows that nothing came.
    """

    inputs: tuple[str, ...]
    events: list[dict[str, Any]]

    @property
    def has_looked(self) -> bool: ...

    def arrivals(self, wait_s: float) -> list[Arrival]:
        """Wait up to so long for videos; return those that came, whole and each version once."""
        ...

    def done(self, arrivals: Iterable[Arrival]) -> None:
        """These are committed, or there was nothing to do: they need not come again."""
        ...

    def release(self, arrivals: Iterable[Arrival]) -> None:
        """These were not worked on: they shall come again."""
        ...

    def keep(self) -> None:
        """Say that the work on what came goes on; called now and then."""
        ...

    def recorded(self) -> None:
        """All `events` so far stand in the record of a run: what told them need not come again."""
        ...


class _Seen(NamedTuple):
    """A version of a video and of its text: steady since when, as far as its files tell, and seen when."""

    version: tuple[str, str]
    steady_since: float
    at: float


class FolderFeed:
    """Looks into directories, patterns, `gs://` folders again and again.

    A local file counts when it is whole: it has not changed for `settle_s`, or its marker stands beside it. An object
    in Cloud Storage is whole when it is there. Hidden and unfinished files (a.mp4.part) never count.

    Args:
      inputs: as `find_sources` takes them; there need not be anything yet.
      poll_s: from one look to the next.
      settle_s: how long size and time of a file, and the text beside it, must have been steady.
      marker: a suffix, such as ".done"; then a file counts as soon as FILE.done or its stem with .done is there, and
        not before. A marker that is older than the file is of the file's earlier version.
      allowed: buckets that manifests may name objects of, beside those that `inputs` name.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        *,
        poll_s: float = 5.0,
        settle_s: float = 10.0,
        marker: str = "",
        allowed: Iterable[str] = (),
    ):
        self.inputs = tuple(inputs)
        self._buckets = named_by(self.inputs, allowed)
        self.events: list[dict[str, Any]] = []
        self._poll_s, self._settle_s = poll_s, settle_s
        self._marker = f".{marker.removeprefix('.')}" if marker else ""
        self._looks = 0
        self._next_look = 0.0
        self._given: dict[str, tuple[str, str]] = {}
        self._seen: dict[str, _Seen] = {}

    @property
    def has_looked(self) -> bool:
        return self._looks > 0

    def arrivals(self, wait_s: float) -> list[Arrival]:
        left = self._next_look - time.monotonic()
        if left > 0:
            time.sleep(min(left, wait_s))
            return []
        try:
            return self._look()
        except (InputError, StorageError) as error:
            # A mistake shows at the first look. Later a manifest may be half written, or the bucket away for a while.
            if not self._looks:
                raise
            _log.warning("could not look: %s", error)
            return []
        finally:
            self._looks += 1
            self._next_look = time.monotonic() + self._poll_s

    def _look(self) -> list[Arrival]:
        sources = self._find()
        now = time.time()
        # What has gone is forgotten, so that a file which comes back counts again.
        self._seen = {video_id: self._seen_now(source, now) for video_id, source in sources.items()}
        self._given = {video_id: version for video_id, version in self._given.items() if video_id in sources}
        came = []
        for video_id, source in sources.items():
            seen = self._seen[video_id]
            if self._given.get(video_id) != seen.version and self._is_whole(source, now - seen.steady_since):
                self._given[video_id] = seen.version
                came.append(Arrival(source, seen.at))
        return came

    def _find(self) -> dict[str, Source]:
        """What is there now, by video_id; of two inputs that name one video the first counts."""
        found: dict[str, Source] = {}
        for one in self.inputs:
            try:
                for source in find_sources([one], allowed=self._buckets).sources:
                    name = posixpath.basename(source.uri)
                    marked = self._marker and name.endswith(self._marker)
                    known = source.video_id in found and found[source.video_id].uri == source.uri
                    if not (known or name.startswith(".") or name.lower().endswith(_UNFINISHED) or marked):
                        add_source(found, source)
            except NothingFound as error:
                if not self._looks:
                    _log.warning("%s; it counts once it is there", error)
        return found

    def _seen_now(self, source: Source, now: float) -> _Seen:
        version = (source.etag, source.text_version)
        before = self._seen.get(source.video_id)
        if before is not None and before.version == version:
            return before
        return _Seen(version, now if before is not None else min(now, _changed_at(source, now)), now)

    def _is_whole(self, source: Source, steady_s: float) -> bool:
        if is_object(source.uri):
            return True
        if self._marker:
            markers = (source.uri + self._marker, os.path.splitext(source.uri)[0] + self._marker)
            return any(_is_newer(marker, source.uri) for marker in markers)
        return steady_s >= self._settle_s

    def done(self, arrivals: Iterable[Arrival]) -> None:
        pass

    def release(self, arrivals: Iterable[Arrival]) -> None:
        for arrival in arrivals:
            self._given.pop(arrival.source.video_id, None)

    def keep(self) -> None:
        pass

    def recorded(self) -> None:
        pass


def _is_newer(marker: str, path: str) -> bool:
    """Whether a marker stands there and is not older than the file, if that is still there."""
    with contextlib.suppress(OSError, ValueError):
        marked_at = os.stat(marker).st_mtime_ns
        with contextlib.suppress(OSError):
            return marked_at >= os.stat(path).st_mtime_ns
        return True
    return False


def _changed_at(source: Source, now: float) -> float:
    """When a local file, or text beside it, changed last."""
    beside = [one for one in (source.uri, source.subtitles, source.metadata) if one and not is_object(one)]
    times = []
    for path in beside:
        with contextlib.suppress(OSError, ValueError):
            times.append(os.stat(path).st_mtime)
    return max(times, default=now)
