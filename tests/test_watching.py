"""A watch's rounds: what becomes of those that stop, of slow ones, and what the records say meanwhile."""

import itertools
import json
import threading
import time
from collections.abc import Iterator

import pytest
from fake_pubsub import FakePubSub
from quick_watch import CONFIG, NO_REELS, ListFeed, QuickJob, arrival, etags, letters, quick, run, until
from run_records import newest_run, records
from test_notifications import attributes_of

from beam_pipeline import watching
from beam_pipeline.feeds import Arrival
from beam_pipeline.subscription_feed import SubscriptionFeed
from beam_pipeline.takedown import take_down
from beam_pipeline.verify import audit
from beam_pipeline.watching import WatchOptions, watch
from transforms.lease import WriterLease
from transforms.tables import current_videos

__all__ = ["quick"]


def test_what_comes_is_committed_and_told_done_once_and_what_is_unchanged_costs_no_round(quick, tmp_path):
    (summary,) = run(ListFeed([arrival("a"), arrival("b")], [arrival("c")]), tmp_path)
    assert summary.outcomes == {"a": "committed", "b": "committed", "c": "committed"}
    assert sorted(QuickJob.worked) == [["a 1"], ["b 1"], ["c 1"]]
    again = ListFeed([arrival("a"), arrival("b", "2"), arrival("c")])
    (summary,) = run(again, tmp_path)
    assert summary.outcomes == {"a": "unchanged", "b": "committed", "c": "unchanged"}
    assert QuickJob.worked[3:] == [["b 2"]]
    assert sorted(again.finished) == ["a-1", "b-2", "c-1"] and again.released == []
    counts = newest_run(tmp_path)["counts"]
    assert [counts[name] for name in ("inputs", "committed", "unchanged", "failed")] == [3, 1, 2, 0]


def test_a_round_that_stops_is_split_up_and_the_poisoned_video_alone_is_set_aside(quick, tmp_path):
    quick.setattr(QuickJob, "stops_at", {"bad 1"})
    stop = threading.Event()

    def batches() -> Iterator[list[Arrival]]:
        yield [arrival("a"), arrival("bad"), arrival("c")]
        yield from until(lambda: QuickJob.worked.count(["bad 1"]) == watching.TRIES)
        assert letters(tmp_path) == [], "perhaps it is not the video"
        yield [arrival("d")]
        yield from until(lambda: letters(tmp_path))
        stop.set()

    feed = ListFeed.of(batches())
    (summary,) = run(feed, tmp_path, stop, round_videos=2, at_once=1, quiet_s=60, idle_exit_s=None)
    assert QuickJob.worked[0] == ["a 1", "bad 1"], "together at first"
    assert sorted(QuickJob.worked[1:]) == [["a 1"], *[["bad 1"]] * watching.TRIES, ["c 1"], ["d 1"]]
    assert summary.outcomes == {"a": "committed", "c": "committed", "d": "committed", "bad": "failed"}
    assert letters(tmp_path) == [("run", "bad", "OSError", "the card is on fire at bad")]
    assert sorted(feed.finished) == ["a-1", "bad-1", "c-1", "d-1"]
    # It is left to a redrive, and a new version of it is not held to the old one's failures.
    quick.setattr(QuickJob, "worked", [])
    run(ListFeed([arrival("bad"), arrival("d")]), tmp_path)
    assert QuickJob.worked == []
    run(ListFeed([arrival("bad", "2")]), tmp_path)
    assert (QuickJob.worked, letters(tmp_path)) == ([["bad 2"]], [])


def test_a_poisoned_video_without_others_is_set_aside_when_all_is_quiet(quick, tmp_path):
    quick.setattr(QuickJob, "stops_at", {"bad 1"})
    (summary,) = run(ListFeed([arrival("bad")]), tmp_path)
    assert (summary.outcomes, len(QuickJob.worked)) == ({"bad": "failed"}, watching.TRIES + 1)
    assert letters(tmp_path) == [("run", "bad", "OSError", "the card is on fire at bad")]


def test_three_in_a_row_are_no_fault_of_the_videos_and_none_of_them_pays_for_it(quick, tmp_path):
    run(ListFeed([arrival("a")]), tmp_path)
    quick.setattr(QuickJob, "stops_at", {"all"})
    feed = ListFeed([arrival(name) for name in "abcde"])
    with pytest.raises(RuntimeError, match="3 videos in a row stopped their rounds") as caught:
        run(feed, tmp_path)
    assert "the card is on fire" in str(caught.value)
    assert etags(tmp_path) == {"a": ("1", "ok")} and letters(tmp_path) == []
    assert feed.finished == ["a-1"] and sorted(feed.released) == ["b-1", "c-1", "d-1", "e-1"]
    failed = newest_run(tmp_path)
    assert failed["status"] == "failed" and "the card is on fire" in failed["error"]["message"]
    quick.setattr(QuickJob, "stops_at", frozenset())
    (summary,) = run(ListFeed([arrival(name) for name in "abcde"]), tmp_path)
    assert list(summary.outcomes.values()).count("committed") == 4


def test_a_stop_finishes_what_is_under_way_and_leaves_the_rest_to_the_next_watch(quick, tmp_path):
    go, stop = threading.Event(), threading.Event()
    quick.setattr(QuickJob, "stops_at", {"bad 1"})
    quick.setattr(QuickJob, "waits_for", {"slow 1": go})
    quick.setattr(watching, "_FIRST_PAUSE_S", 100.0)

    def batches() -> Iterator[list[Arrival]]:
        yield [arrival("bad"), arrival("slow")]
        yield from until(lambda: len(QuickJob.worked) == 2)
        # It pauses before its next try.
        yield from itertools.repeat([], 20)
        assert len(QuickJob.worked) == 2
        threading.Timer(0.3, go.set).start()
        stop.set()

    feed = ListFeed.of(batches())
    (summary,) = run(feed, tmp_path, stop)
    assert summary.outcomes == {"slow": "committed"}
    assert (feed.finished, feed.released) == (["slow-1"], ["bad-1"])
    assert newest_run(tmp_path)["status"] == "done"


def test_a_newer_version_that_comes_while_the_older_one_fails_is_the_one_that_counts(quick, tmp_path):
    quick.setattr(QuickJob, "stops_at", {"a 1"})
    quick.setattr(watching, "_FIRST_PAUSE_S", 1.0)

    def batches() -> Iterator[list[Arrival]]:
        yield [arrival("a", "1")]
        yield from until(lambda: QuickJob.worked)
        yield [arrival("a", "2")]

    (summary,) = run(ListFeed.of(batches()), tmp_path)
    assert (summary.outcomes, etags(tmp_path)) == ({"a": "committed"}, {"a": ("2", "ok")})
    assert QuickJob.worked == [["a 1"], ["a 2"]]


def test_a_second_version_waits_until_the_first_is_committed_and_then_replaces_it(quick, tmp_path):
    go = threading.Event()
    quick.setattr(QuickJob, "waits_for", {"a 1": go})

    def batches() -> Iterator[list[Arrival]]:
        yield [arrival("a", "1")]
        yield from until(lambda: QuickJob.worked)
        yield [arrival("a", "2"), arrival("b")]
        yield from until(lambda: ["b 1"] in QuickJob.worked)
        assert ["a 2"] not in QuickJob.worked
        go.set()

    (summary,) = run(ListFeed.of(batches()), tmp_path)
    assert summary.outcomes == {"a": "committed", "b": "committed"}
    assert etags(tmp_path) == {"a": ("2", "ok"), "b": ("1", "ok")}
    assert current_videos(str(tmp_path))["a"].run_id == f"{summary.run_id}--2"


def test_slow_rounds_give_their_places_to_others_as_often_as_there_are_places(quick, tmp_path):
    go = threading.Event()
    quick.setattr(watching, "_SLOW_S", 0.1)
    quick.setattr(QuickJob, "waits_for", {"slow 1": go, "slower 1": go})
    seen = []

    def batches() -> Iterator[list[Arrival]]:
        yield [arrival("slow"), arrival("a"), arrival("slower"), arrival("b")]
        yield from until(lambda: ["slower 1"] in QuickJob.worked)
        time.sleep(0.3)
        yield []
        seen.extend(one for (one,) in QuickJob.worked)
        go.set()

    (summary,) = run(ListFeed.of(batches()), tmp_path, at_once=1)
    assert seen == ["slow 1", "a 1", "slower 1"]
    assert summary.outcomes == dict.fromkeys(["slow", "a", "slower", "b"], "committed")


def test_a_run_ends_after_so_many_videos_and_the_next_one_begins(quick, tmp_path):
    summaries = run(ListFeed([arrival(f"v{number}") for number in range(5)]), tmp_path, run_videos=2, at_once=3)
    assert [list(summary.outcomes) for summary in summaries] == [["v0", "v1"], ["v2", "v3"], ["v4"]]
    assert [record["status"] for record in records(tmp_path)] == ["done"] * 3
    assert len({summary.run_id for summary in summaries}) == 3


def test_a_video_keeps_its_tries_when_a_run_ends_and_the_next_one_begins(quick, tmp_path):
    quick.setattr(QuickJob, "stops_at", {"bad 1"})
    summaries = run(ListFeed([arrival("bad"), *(arrival(f"v{number}") for number in range(5))]), tmp_path, run_videos=2)
    assert QuickJob.worked.count(["bad 1"]) == watching.TRIES + 1
    outcomes = [outcome for summary in summaries for outcome in summary.outcomes.items()]
    assert sorted(outcomes) == [("bad", "failed"), *((f"v{number}", "committed") for number in range(5))]


def test_a_watch_waits_for_another_writer(quick, tmp_path):
    quick.setattr(watching, "_LEASE_PAUSE_S", 0.05)
    said: list[str] = []
    lease = WriterLease(tmp_path, "somebody")
    lease.__enter__()

    def say(line: str) -> None:
        said.append(line)
        if "waiting: " in line:
            threading.Timer(0.3, lease.__exit__, [None]).start()

    options = WatchOptions(quiet_s=0.1, idle_exit_s=0.1)
    feed = ListFeed([arrival("a")])
    (summary,) = watch(feed, str(tmp_path), CONFIG, NO_REELS, options, threading.Event(), say)
    waiting = [line for line in said if "waiting: " in line]
    assert len(waiting) == 1 and "is being written by somebody" in waiting[0]
    assert (summary.outcomes, feed.finished) == ({"a": "committed"}, ["a-1"])
    assert audit(str(tmp_path)).breaches == []


def test_what_was_taken_down_is_not_worked_on_and_done_with(quick, tmp_path):
    run(ListFeed([arrival("a"), arrival("b")]), tmp_path)
    take_down(str(tmp_path), ["a"], None)
    feed = ListFeed([arrival("a", "2"), arrival("b", "2")])
    (summary,) = run(feed, tmp_path)
    assert (summary.outcomes, summary.skipped, sorted(feed.finished)) == ({"b": "committed"}, 1, ["a-2", "b-2"])
    assert set(etags(tmp_path)) == {"b"}


def test_how_it_goes_stands_in_the_record_while_it_goes(quick, tmp_path):
    go = threading.Event()
    quick.setattr(watching, "_NOTE_EVERY_S", 0.0)
    quick.setattr(QuickJob, "waits_for", {"a 1": go, "b 1": go})
    seen: list[dict] = []

    def batches() -> Iterator[list[Arrival]]:
        yield [arrival(name) for name in "abc"]
        yield from until(lambda: len(QuickJob.worked) == 2)
        yield []
        (path,) = (tmp_path / "runs").glob("*.json")
        seen.append(json.loads(path.read_text()))
        assert audit(str(tmp_path)).breaches == []
        go.set()

    (summary,) = run(ListFeed.of(batches()), tmp_path)
    assert (seen[0]["run_id"], seen[0]["command"], seen[0]["status"]) == (summary.run_id, "watch", "running")
    assert seen[0]["watch"]["backlog"] == 3 and 0 <= seen[0]["watch"]["oldest_s"] < 60
    (ended,) = records(tmp_path)
    lags = {name: ended["watch"].pop(name) for name in ("lag_s", "max_lag_s")}
    assert 0 < lags["lag_s"] <= lags["max_lag_s"] < 60
    assert (ended["status"], ended["watch"]) == ("done", {"backlog": 0, "oldest_s": 0.0, "events": []})


class TellsTwice(SubscriptionFeed):
    """A subscription that tells of a second delete when the first one stands in the record."""

    pubsub: FakePubSub

    def recorded(self) -> None:
        super().recorded()
        if watching._NOTE_EVERY_S == 0.0:
            self.pubsub.publish(attributes_of("up/b.mp4", "OBJECT_DELETE", "8"))
            # Not as often as this: the second one is written down when the run ends.
            watching._NOTE_EVERY_S = 1000.0


def test_deletes_alone_are_recorded_and_then_acknowledged(quick, tmp_path):
    quick.setattr(watching, "_NOTE_EVERY_S", 0.0)
    # A request that is given up takes messages with it: longer than the server waits.
    quick.setattr(watching, "_TICK_S", 1.0)
    with FakePubSub() as pubsub:
        subscription = pubsub.subscribe("uploads")
        pubsub.publish(attributes_of("up/a.mp4", "OBJECT_DELETE", "7"))
        feed = TellsTwice(subscription)
        feed.pubsub = pubsub
        (summary,) = run(feed, tmp_path, quiet_s=3, idle_exit_s=2)
        assert pubsub.left(subscription) == 0
    (record,) = records(tmp_path)
    events = [(one["event"], one["uri"], one["generation"]) for one in record["watch"]["events"]]
    deleted = [("delete", "gs://bucket/up/a.mp4", "7"), ("delete", "gs://bucket/up/b.mp4", "8")]
    assert (summary.outcomes, events) == ({}, deleted)
    assert record["input"] == [f"pubsub://{subscription}"]
    assert feed.events == [], "the next run has events of its own"


def test_a_watch_without_an_end_goes_on_after_it_was_quiet(quick, tmp_path):
    stop = threading.Event()

    def ended(runs: int) -> bool:
        return sum(record["status"] == "done" for record in records(tmp_path)) == runs

    def batches() -> Iterator[list[Arrival]]:
        yield [arrival("a")]
        yield from until(lambda: ended(1))
        yield [arrival("b")]
        yield from until(lambda: ended(2))
        stop.set()

    summaries = run(ListFeed.of(batches()), tmp_path, stop, idle_exit_s=None, quiet_s=0.1)
    assert [summary.outcomes for summary in summaries] == [{"a": "committed"}, {"b": "committed"}]


@pytest.mark.parametrize(("error", "status"), [(OSError("the feed broke"), "failed"), (KeyboardInterrupt(), None)])
def test_an_error_waits_for_what_is_under_way_and_an_interrupt_does_not(quick, tmp_path, error, status):
    go = threading.Event()
    quick.setattr(QuickJob, "waits_for", {"a 1": go})

    def batches() -> Iterator[list[Arrival]]:
        yield [arrival("a")]
        yield from until(lambda: QuickJob.worked)
        if status:
            threading.Timer(0.5, go.set).start()
        raise error

    feed = ListFeed.of(batches())
    began = time.monotonic()
    with pytest.raises(type(error)):
        run(feed, tmp_path)
    assert feed.released == ["a-1"] and time.monotonic() - began < 20
    assert newest_run(tmp_path)["status"] == (status or "interrupted")
    assert etags(tmp_path) == ({"a": ("1", "ok")} if status else {})
    go.set()


def test_a_feed_that_has_not_answered_yet_is_not_idle(quick, tmp_path):
    feed = ListFeed()
    feed.has_looked = False

    def batches():
        began = time.monotonic()
        while time.monotonic() - began < 1.0:
            yield []
        feed.has_looked = True
        yield [arrival("late")]

    feed.batches = batches()
    (summary,) = run(feed, tmp_path, quiet_s=0.1, idle_exit_s=0.2)
    assert summary.outcomes == {"late": "committed"}
