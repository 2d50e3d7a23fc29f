"""Curate what comes, as it comes, on this machine: the recipe over small rounds of videos, each committed at its end.

    for summary in watch(FolderFeed(["uploads/"]), "dataset", config, JobOptions(), WatchOptions(), stop): ...

The embedded runner gives nothing out before a pipeline ends, so a stream is many short pipelines here; the commit makes
that exact. Rounds run beside each other and are small: a video that comes with few others has a round of its own, and
a round that takes long gives its place to another, so that a slow video holds up nobody. While nothing comes the
dataset is finished and free for other writers (`redrive`, `takedown`): a watch writes as a run that begins with an
arrival and ends when all is quiet, or after so many videos.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import datetime
import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from beam_pipeline.backlog import Backlog, WatchOptions
from beam_pipeline.config import Config
from beam_pipeline.feeds import Arrival, Feed
from beam_pipeline.job import Job, JobOptions, Summary, quiet_workers, running
from beam_pipeline.pipeline import fingerprints_of
from beam_pipeline.progress import standard_error
from beam_pipeline.runs import root_cause
from beam_pipeline.setting_aside import POISONED_IN_A_ROW, set_aside
from transforms.committing import committer_of
from transforms.lease import LeaseHeld
from transforms.reading import Source
from transforms.recalling import is_left
from transforms.schemas import base_run
from transforms.standing import Standing
from transforms.tables import check_output, current_videos
from transforms.tombstones import barred

_log = logging.getLogger(__name__)

#: How often a video that stops the whole round, alone in it, is tried before it becomes a dead letter.
TRIES = 3
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
#: A round that takes longer does not count as one of those beside each other; as many again may be like that.
_SLOW_S = 30.0
#: How long the loop waits for arrivals, or for rounds.
_TICK_S = 0.5
_NOTE_EVERY_S = 10.0
_LEASE_PAUSE_S = 15.0
_BREATH_S = 2.0


def watch(
    feed: Feed,
    output: str,
    config: Config,
    job_options: JobOptions,
    options: WatchOptions,
    stop: threading.Event,
    say: Callable[[str], None] | None = None,
) -> Iterator[Summary]:
    """Curate what a feed gives until `stop` is set; what is under way then is finished and committed.

    Args:
      say: is told a line now and then; default: standard error.

    Yields:
      A summary of each run that it wrote as, when that ends.

    Raises:
      OutputError: a dataset cannot stand at `output`. SubscriptionError, StorageError: the feed is closed to us.
      Exception: what stops every video; the dataset stands, and the same call goes on where this one stopped.
    """
    check_output(output, [])
    say = say or standard_error()
    backlog = Backlog()
    say(f"{_clock()} watching {', '.join(feed.inputs)}")
    told = ""
    idle_s = math.inf if options.idle_exit_s is None else options.idle_exit_s
    quiet_since = time.monotonic()
    try:
        with quiet_workers():
            while not stop.is_set() and (backlog or time.monotonic() - quiet_since < idle_s):
                if len(backlog) < options.run_videos:
                    backlog.add(feed.arrivals(_TICK_S))
                if not backlog and not feed.events:
                    if not feed.has_looked:
                        quiet_since = time.monotonic()
                    continue
                try:
                    with running("watch", feed.inputs, output, config, job_options) as job:
                        quiet_since = Rounds(job, feed, backlog, options, say).go_on(stop)
                        summary = job.finish("done")
                except LeaseHeld as error:
                    # Of one holder once: `since` tells runs apart, what comes after it changes all the time.
                    if told != (told := str(error).partition(". ")[0]):
                        say(f"{_clock()} waiting: {told}")
                    feed.keep()
                    stop.wait(_LEASE_PAUSE_S)
                else:
                    feed.events.clear()
                    yield summary
                    # Others who wait for the lease have a chance, however much comes.
                    stop.wait(_BREATH_S)
    finally:
        with contextlib.suppress(Exception):  # they come again in any case
            feed.release(backlog.take_all())


@dataclasses.dataclass(frozen=True)
class _Round:
    """A round under way, since when by the monotonic clock."""

    arrivals: Sequence[Arrival]
    began: float
    result: concurrent.futures.Future[None]


class Rounds:
    """The rounds of one run: started as videos come, looked after until they are committed."""

    def __init__(self, job: Job, feed: Feed, backlog: Backlog, options: WatchOptions, say: Callable[[str], None]):
        self._job, self._feed, self._backlog, self._options, self._say = job, feed, backlog, options, say
        self._videos = Standing(job.output, "videos")
        self._committer = committer_of(job.output, job.run_id)
        self._standing = current_videos(job.output)
        self._is_barred = barred(job.output)
        self._under_way: list[_Round] = []
        self._suspects: list[tuple[Arrival, BaseException]] = []
        self._noted_at = -math.inf
        self._taken = 0
        self._lags: dict[str, float] = {}

    def go_on(self, stop: threading.Event) -> float:
        """Work until it has been quiet for long enough, the run is full, or `stop` is set; then finish what began.

        Returns:
          Since when it has been quiet, by the monotonic clock.
        """
        try:
            quiet_since = self._until_the_end(stop)
            # When all is quiet no other video will tell whether it was these.
            if not stop.is_set() and not self._backlog:
                self._set_suspects_aside()
        except Exception:
            # Finishing sweeps up what a round is about to commit.
            concurrent.futures.wait([one.result for one in self._under_way])
            raise
        finally:
            self._backlog.put_back(self._arrivals())
        self._leave_what_waits()
        self._note(every_s=0.0)
        return quiet_since

    def _until_the_end(self, stop: threading.Event) -> float:
        quiet_s = min(self._options.quiet_s, self._options.idle_exit_s or math.inf)
        quiet_since = time.monotonic()
        while True:
            ending = stop.is_set() or self._is_full()
            if ending and not self._under_way:
                return quiet_since
            if not ending:
                self._start()
                if len(self._backlog) < self._options.run_videos:
                    self._backlog.add(self._feed.arrivals(_TICK_S))
            if self._under_way or self._backlog:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since >= quiet_s:
                return quiet_since
            self._collect(_TICK_S if ending or len(self._backlog) >= self._options.run_videos else 0.0)
            self._feed.keep()
            self._note(_NOTE_EVERY_S)

    def _is_full(self) -> bool:
        # What was taken counts, too: one video may come in a thousand versions.
        return max(self._taken, len(self._job.sources)) >= self._options.run_videos

    def _has_room(self) -> bool:
        slow = sum(time.monotonic() - one.began > _SLOW_S for one in self._under_way)
        return len(self._under_way) - min(slow, self._options.at_once) < self._options.at_once

    def _start(self) -> None:
        """Begin rounds as far as there is room for them, and something to do."""
        while self._has_room() and not self._is_full():
            taken = self._backlog.take(self._options, {arrival.source.video_id for arrival in self._arrivals()})
            if not taken:
                return
            arrivals = self._with_work_left(taken)
            if arrivals:
                self._begin(arrivals)

    def _begin(self, arrivals: Sequence[Arrival]) -> None:
        result: concurrent.futures.Future[None] = concurrent.futures.Future()

        def work() -> None:
            try:
                self._job.work([arrival.source for arrival in arrivals])
                result.set_result(None)
            except BaseException as error:
                result.set_exception(error)

        self._taken += len(arrivals)
        self._under_way.append(_Round(arrivals, time.monotonic(), result))
        # No pool: at its end that would wait for rounds even when somebody wants to be out of here at once.
        threading.Thread(target=work, name="round", daemon=True).start()

    def _with_work_left(self, taken: Sequence[Arrival]) -> list[Arrival]:
        """Those of the videos that there is something to do for; the others are done with."""
        job, allowed = self._job, [one for one in taken if not self._is_barred(one.source)]
        left = [one for one in allowed if self._is_left(one.source)]
        plan = [one.source for one in left]
        # One that is unchanged since an earlier round of this run stays what it came to there.
        job.take([one.source for one in allowed], plan, len(taken) - len(allowed))
        self._feed.done(one for one in taken if one not in left)
        if plan:
            check_output(job.output, [source.uri for source in plan])
        return left

    def _is_left(self, source: Source) -> bool:
        return is_left(source, self._standing.get(source.video_id), fingerprints_of(source, self._job.config))

    def _collect(self, wait_s: float) -> None:
        results = [one.result for one in self._under_way]
        if results:
            concurrent.futures.wait(results, timeout=wait_s, return_when=concurrent.futures.FIRST_COMPLETED)
        else:
            time.sleep(wait_s)
        for ended in [one for one in self._under_way if one.result.done()]:
            self._under_way.remove(ended)
            error = ended.result.exception()
            if error is None:
                self._settle(ended.arrivals)
            else:
                self._try_again(ended.arrivals, error)

    def _settle(self, arrivals: Sequence[Arrival]) -> None:
        """A round is committed: look what became of its videos, and tell."""
        ids = {arrival.source.video_id for arrival in arrivals}
        self._look_again(ids)
        self._feed.done(arrivals)
        became = collections.Counter(self._standing[video_id].status for video_id in ids if video_id in self._standing)
        lag_s = time.time() - min(arrival.since for arrival in arrivals)
        longest_s = max(lag_s, self._lags.get("max_lag_s", 0.0))
        self._lags = {"lag_s": round(lag_s, 1), "max_lag_s": round(longest_s, 1)}
        self._tell(f"committed {', '.join(f'{number} {status}' for status, number in sorted(became.items()))}", lag_s)
        # Others go through, so it is these videos.
        self._set_suspects_aside()

    def _look_again(self, video_ids: set[str]) -> None:
        self._videos.refresh()
        self._standing |= self._videos.current(video_ids)

    def _try_again(self, arrivals: Sequence[Arrival], error: BaseException) -> None:
        """A round stopped as a whole: its videos are tried one by one, later; one that does it alone is suspect."""
        _log.warning("a round of %d videos stopped", len(arrivals), exc_info=error)
        self._say(f"{_clock()} a round of {len(arrivals)} stopped ({root_cause(error)})")
        if len(arrivals) == 1 and arrivals[0].tries >= TRIES:
            self._suspects.append((arrivals[0], error))
            if len(self._suspects) >= POISONED_IN_A_ROW:
                raise RuntimeError(f"{len(self._suspects)} videos in a row stopped their rounds: {error}") from error
            return
        for arrival in arrivals:
            pause_s = random.uniform(0.5, 1.0) * min(_FIRST_PAUSE_S * 2**arrival.tries, _LONGEST_PAUSE_S)
            later = time.monotonic() + pause_s
            self._backlog.put_back([dataclasses.replace(arrival, tries=arrival.tries + 1, not_before=later)])

    def _set_suspects_aside(self) -> None:
        """Make videos that stop every round dead letters: these wait for somebody to mend what it was."""
        while self._suspects:
            arrival, error = self._suspects[0]
            video_id = arrival.source.video_id
            set_aside(self._job, self._committer, arrival.source, error)
            del self._suspects[0]
            self._look_again({video_id})
            self._feed.done([arrival])
            self._tell(f"set {video_id} aside, it stopped each of its rounds", time.time() - arrival.since)

    def _leave_what_waits(self) -> None:
        """What this run tried and did not bring to an end is an input of the next one."""
        for video_id in [one for one in self._job.planned if one in self._backlog]:
            stands = self._standing.get(video_id)
            if stands is None or base_run(stands.run_id) != self._job.run_id:
                self._job.planned.discard(video_id)
                del self._job.sources[video_id]

    def _arrivals(self) -> list[Arrival]:
        """What was taken from the backlog and has not come to its end."""
        under_way = [arrival for one in self._under_way for arrival in one.arrivals]
        return [*under_way, *(arrival for arrival, _ in self._suspects)]

    def _waiting(self) -> int:
        return len(self._backlog) + len(self._arrivals())

    def _tell(self, what: str, lag_s: float) -> None:
        clips = self._job.tally.counts["clips"]
        self._say(f"{_clock()} {what}; {clips} clips so far, {self._waiting()} waiting, lag {lag_s:.0f} s")

    def _note(self, every_s: float) -> None:
        """Write down how it goes, now and then, for whoever looks at the record of the run."""
        if time.monotonic() - self._noted_at < every_s:
            return
        self._noted_at = time.monotonic()
        oldest_s = round(self._backlog.oldest_s(self._arrivals()), 1)
        self._job.go_on_record(backlog=self._waiting(), oldest_s=oldest_s, **self._lags, events=list(self._feed.events))
        self._feed.recorded()


def _clock() -> str:
    return datetime.datetime.now().strftime("%H:%M:%S")
