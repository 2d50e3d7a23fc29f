"""What waits for its round in a watch: of each video its newest version, the one that waits longest first.

backlog = Backlog(); backlog.add(feed.arrivals(1.0)); backlog.take(WatchOptions(), busy=set())      # -> [Arrival, ...]
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable

from beam_pipeline.feeds import Arrival


@dataclasses.dataclass(frozen=True)
class WatchOptions:
    """How a watch goes about it; nothing in here changes a row of the dataset.

    Attributes:
      at_once: rounds beside each other.
      round_videos, round_bytes: what a round holds at the most; a larger file is a round of its own.
      quiet_s: finish the run (sweep, compact, write the card) when nothing came for so long.
      run_videos: and after so many videos.
      idle_exit_s: end the watch when nothing came for so long; None: never.
    """

    at_once: int = 2
    round_videos: int = 8
    round_bytes: int = 256 << 20
    quiet_s: float = 60.0
    run_videos: int = 1000
    idle_exit_s: float | None = None


class Backlog:
    """Videos that wait for their round, the one that waits longest first; of a video only its newest version."""

    def __init__(self) -> None:
        self._waiting: dict[str, Arrival] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, video_id: str) -> bool:
        return video_id in self._waiting

    def add(self, arrivals: Iterable[Arrival]) -> None:
        """Let these wait; each is newer than what waits of its video."""
        for arrival in arrivals:
            before = self._waiting.get(arrival.source.video_id)
            self._waiting[arrival.source.video_id] = before.joined(arrival) if before else arrival

    def put_back(self, arrivals: Iterable[Arrival]) -> None:
        """Let these wait again, behind the others; what came of their videos meanwhile is newer."""
        for arrival in arrivals:
            newer = self._waiting.pop(arrival.source.video_id, None)
            self._waiting[arrival.source.video_id] = arrival.joined(newer) if newer else arrival

    def take(self, options: WatchOptions, busy: set[str]) -> list[Arrival]:
        """The next round: none of the videos that are `busy` or pause; one that stopped a round before is alone.

        The more wait, the larger it is: with few of them, one that turns out slow shall hold up none.
        """
        most = min(options.round_videos, math.ceil(len(self._waiting) / options.round_videos))
        chosen: list[Arrival] = []
        size = 0
        for video_id, arrival in self._waiting.items():
            if video_id in busy or time.monotonic() < arrival.not_before:
                continue
            size += arrival.source.size_bytes
            if chosen and (arrival.tries or size > options.round_bytes):
                break
            chosen.append(arrival)
            if arrival.tries or len(chosen) >= most:
                break
        for arrival in chosen:
            del self._waiting[arrival.source.video_id]
        return chosen

    def take_all(self) -> list[Arrival]:
        """Everything."""
        taken = list(self._waiting.values())
        self._waiting.clear()
        return taken

    def oldest_s(self, under_way: Iterable[Arrival] = ()) -> float:
        """For how long the video that waits longest has been there, these included."""
        now = time.time()
        return max(0.0, now - min((one.since for one in (*self._waiting.values(), *under_way)), default=now))
