"""What waits for its round: how much of it makes one, and what a newer version of a video does."""

import dataclasses
import time
from collections.abc import Iterable

import pytest
from quick_watch import arrival

from beam_pipeline.backlog import Backlog, WatchOptions
from beam_pipeline.feeds import Arrival


def waiting(*arrivals: Arrival) -> Backlog:
    backlog = Backlog()
    backlog.add(arrivals)
    return backlog


def ids(arrivals: Iterable[Arrival]) -> list[str]:
    return [one.source.video_id for one in arrivals]


MANY = [arrival(f"v{number}") for number in range(9)]
LARGE = arrival("large", size=900)
TRIED = arrival("tried", tries=1)


@pytest.mark.parametrize(
    ("there", "busy", "rounds"),
    [
        ([], set(), [[]]),
        (MANY[:3], set(), [["v0"], ["v1"], ["v2"], []]),
        (MANY, set(), [["v0", "v1", "v2"], ["v3", "v4"], ["v5"]]),
        (MANY, {"v0", "v2"}, [["v1", "v3", "v4"]]),
        ([*MANY[:3], LARGE, *MANY[3:]], set(), [["v0", "v1", "v2"], ["large"], ["v3", "v4"]]),
        ([*MANY[:2], TRIED, *MANY[2:]], set(), [["v0", "v1"], ["tried"], ["v2", "v3"]]),
        ([TRIED, *MANY], set(), [["tried"], ["v0", "v1", "v2"]]),
        ([arrival("pauses", tries=1, not_before=time.monotonic() + 1e6), *MANY], set(), [["v0", "v1", "v2"]]),
    ],
)
def test_a_round_is_as_large_as_what_waits_asks_for_and_never_mixes_what_must_be_alone(there, busy, rounds):
    options = WatchOptions(round_videos=4, round_bytes=100)
    backlog = waiting(*there)
    assert [ids(backlog.take(options, busy)) for _ in rounds] == rounds


def test_of_a_video_only_the_newest_version_waits_and_answers_for_all_messages():
    first, second = arrival("a", "1"), arrival("a", "2")
    backlog = waiting(first, arrival("b"), dataclasses.replace(second, since=first.since + 60))
    (taken,) = backlog.take(WatchOptions(), set())
    assert (taken.source.etag, taken.since, taken.receipts) == ("2", first.since, ("a-1", "a-2"))
    # What is put back is older than what came meanwhile, and its failures were the old version's.
    backlog.add([arrival("a", "3")])
    backlog.put_back([dataclasses.replace(taken, tries=2)])
    b, a = backlog.take_all()
    assert (ids([b]), a.source.etag, a.tries, a.receipts) == (["b"], "3", 0, ("a-1", "a-2", "a-3"))
