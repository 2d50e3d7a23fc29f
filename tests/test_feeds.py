"""What a watch is fed with: folders that fill, and a bucket's notifications."""

import json
import os
import pathlib
import time

import pytest
from fake_pubsub import FakePubSub
from test_notifications import attributes_of

from beam_pipeline import subscription_feed
from beam_pipeline.feeds import Arrival, FolderFeed
from beam_pipeline.subscription_feed import SubscriptionFeed
from transforms.reading import InputError, find_sources, video_id_of
from transforms.subscriptions import SubscriptionError

OLD = 1_000_000_000


def names(arrivals: list[Arrival]) -> list[str]:
    return [os.path.basename(arrival.source.uri) for arrival in arrivals]


def put(path: pathlib.Path, content: str = "x", mtime: float = OLD) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    os.utime(path, (mtime, mtime))
    return path


def always_looking(*inputs: object, **options: object) -> FolderFeed:
    return FolderFeed([str(one) for one in inputs], **{"poll_s": 0.0, "settle_s": 60.0, **options})


def test_a_file_that_was_old_at_the_first_look_counts_at_once_and_only_once(tmp_path):
    put(tmp_path / "a.mp4")
    feed = always_looking(tmp_path)
    (arrival,) = feed.arrivals(0)
    assert arrival == Arrival(find_sources([str(tmp_path)]).sources[0], arrival.since)
    assert 0 <= time.time() - arrival.since < 5, "how late it is counts from when it was seen"
    assert feed.arrivals(0) == []


def test_a_file_that_grows_is_not_taken_and_is_when_it_has_been_steady(tmp_path):
    feed = always_looking(tmp_path, settle_s=0.5)
    path = put(tmp_path / "a.mp4", "", mtime=time.time())
    for _ in range(4):
        with path.open("a") as file:
            file.write("more")
        grown = time.time()
        assert feed.arrivals(0) == []
        time.sleep(0.2)
    # Nor is one whose time stays what it was, as some programs set it before they write.
    path.write_text("even more")
    os.utime(path, (OLD, OLD))
    grown, came = time.time(), []
    assert feed.arrivals(0) == []
    while not came and time.time() < grown + 20:
        came = feed.arrivals(0)
    assert names(came) == ["a.mp4"] and time.time() - grown >= 0.5


def test_text_beside_a_file_must_be_steady_too(tmp_path):
    put(tmp_path / "a.mp4")
    put(tmp_path / "a.vtt", mtime=time.time())
    feed = always_looking(tmp_path)
    assert feed.arrivals(0) == []
    put(tmp_path / "b.mp4")
    put(tmp_path / "b.vtt")
    assert names(feed.arrivals(0)) == ["b.mp4"]


@pytest.mark.parametrize("marker", [".done", "done"])
@pytest.mark.parametrize("name", ["a.mp4.done", "a.done"])
def test_with_a_marker_a_file_counts_when_it_is_there_and_not_before(tmp_path, name, marker):
    put(tmp_path / "a.mp4")
    feed = always_looking(f"{tmp_path}/*", marker=marker)
    assert feed.arrivals(0) == []
    put(tmp_path / name)
    assert names(feed.arrivals(0)) == ["a.mp4"]
    # Written anew: the marker is of what was there before.
    put(tmp_path / "a.mp4", "newer", mtime=OLD + 5)
    assert feed.arrivals(0) == []
    put(tmp_path / name, mtime=OLD + 6)
    assert names(feed.arrivals(0)) == ["a.mp4"]


def test_a_file_that_changed_or_got_text_comes_again_in_its_new_version(tmp_path):
    put(tmp_path / "a.mp4")
    feed = always_looking(tmp_path, settle_s=0.001)
    (first,) = feed.arrivals(0)

    def next_one() -> Arrival:
        came = []
        while not came:
            came = feed.arrivals(0)
        assert feed.arrivals(0) == []
        return came[0]

    put(tmp_path / "a.json", '{"title": "Late"}')
    second = next_one()
    put(tmp_path / "a.mp4", "longer", OLD + 1)
    third = next_one()
    assert [one.source.video_id for one in (second, third)] == [first.source.video_id] * 2
    assert (first.source.metadata, second.source.metadata) == (None, str(tmp_path / "a.json"))
    assert [one.source.etag for one in (first, second, third)] == [f"1-{OLD}000000000"] * 2 + [f"6-{OLD + 1}000000000"]


def test_what_was_released_comes_again_and_what_is_done_does_not(tmp_path):
    put(tmp_path / "a.mp4")
    put(tmp_path / "b.mp4")
    feed = always_looking(tmp_path)
    a, b = feed.arrivals(0)
    feed.done([a])
    feed.release([b])
    assert feed.arrivals(0) == [b]


def test_a_file_that_went_and_came_back_counts_again(tmp_path):
    path = put(tmp_path / "a.mp4")
    feed = always_looking(tmp_path)
    assert names(feed.arrivals(0)) == ["a.mp4"]
    path.unlink()
    assert feed.arrivals(0) == []
    put(path)
    assert names(feed.arrivals(0)) == ["a.mp4"]


def test_places_that_are_not_there_yet_are_waited_for(tmp_path):
    feed = always_looking(tmp_path / "later", f"{tmp_path}/*.webm")
    assert feed.arrivals(0) == []
    put(tmp_path / "later" / "deep" / "a.mp4")
    put(tmp_path / "b.webm")
    put(tmp_path / "c.mp4")
    assert names(feed.arrivals(0)) == ["a.mp4", "b.webm"]


@pytest.mark.parametrize("pattern", ["", "/*", "/**", "/[.e]*"])
def test_hidden_and_unfinished_files_never_count(tmp_path, pattern):
    for name in (".a.mp4", "a.mp4.part", "b.mp4.crdownload", ".c.mp4.Xy12", "d.mp4.tmp", "E.MP4.PART", "e.mp4"):
        put(tmp_path / name)
    assert names(always_looking(f"{tmp_path}{pattern}").arrivals(0)) == ["e.mp4"]


def test_a_video_that_two_inputs_name_comes_once(tmp_path):
    path = put(tmp_path / "a.mp4")
    feed = always_looking(tmp_path, path, f"{tmp_path}/*.mp4")
    assert names(feed.arrivals(0)) == ["a.mp4"]
    assert feed.arrivals(0) == []
    lists = [
        put(tmp_path / f"{title}.jsonl", json.dumps({"uri": str(path), "video_id": "a", "title": title}))
        for title in ("One", "Two")
    ]
    feed = always_looking(*lists)
    assert [arrival.source.title for arrival in feed.arrivals(0)] == ["One"]
    assert feed.arrivals(0) == []


def test_a_video_whose_id_a_list_gives_to_another_one_comes_all_the_same(tmp_path):
    mine, other = put(tmp_path / "in" / "a.mp4"), put(tmp_path / "b.mp4")
    put(tmp_path / "list.jsonl", json.dumps({"uri": str(other), "video_id": video_id_of(str(mine))}))
    came = always_looking(tmp_path / "list.jsonl", tmp_path / "in").arrivals(0)
    assert {one.source.uri: one.source.problem is None for one in came} == {str(mine): True, str(other): False}


def test_a_look_costs_one_in_so_many_seconds_and_the_wait_in_between_is_kept(tmp_path):
    put(tmp_path / "a.mp4")
    feed = FolderFeed([str(tmp_path)], poll_s=0.6, settle_s=0.0)
    assert names(feed.arrivals(10)) == ["a.mp4"], "the first look is at once"
    put(tmp_path / "b.mp4")
    began, calls, came = time.monotonic(), 0, []
    while not came:
        came, calls = feed.arrivals(0.1), calls + 1
    assert names(came) == ["b.mp4"]
    assert time.monotonic() - began > 0.5 and calls < 9


def test_a_mistake_in_a_list_ends_the_watch_at_the_first_look_and_is_waited_out_later(tmp_path):
    listed = put(tmp_path / "list.jsonl", "{broken")
    with pytest.raises(InputError, match=r"list\.jsonl"):
        always_looking(listed).arrivals(0)
    put(tmp_path / "a.mp4")
    put(tmp_path / "b.mp4")
    put(listed, '{"uri": "a.mp4"}\n')
    feed = always_looking(listed)
    assert names(feed.arrivals(0)) == ["a.mp4"]
    put(listed, '{"uri": "a.mp4"}\n{"ur')
    assert feed.arrivals(0) == []
    put(listed, '{"uri": "a.mp4"}\n{"uri": "b.mp4"}\n')
    assert names(feed.arrivals(0)) == ["b.mp4"]


def test_objects_are_whole_as_they_are_and_each_generation_comes_once(gcs):
    feed = always_looking("gs://bucket/up/")
    assert feed.arrivals(0) == []
    first = gcs.put("up/a.mp4", b"one")
    gcs.put("up/notes.txt", b"x")
    assert [(arrival.source.uri, arrival.source.etag) for arrival in feed.arrivals(0)] == [
        ("gs://bucket/up/a.mp4", first)
    ]
    assert feed.arrivals(0) == []
    gcs.put("up/a.vtt", b"WEBVTT\n")
    assert [arrival.source.subtitles for arrival in feed.arrivals(0)] == ["gs://bucket/up/a.vtt"]
    second = gcs.put("up/a.mp4", b"two")
    assert [arrival.source.etag for arrival in feed.arrivals(0)] == [second]


@pytest.fixture
def pubsub():
    with FakePubSub(ack_deadline_s=10) as server:
        yield server


def uris(arrivals: list[Arrival]) -> list[str]:
    return [arrival.source.uri.rpartition("/")[2] for arrival in arrivals]


def test_a_message_is_acknowledged_when_all_its_videos_are_done(pubsub, gcs):
    feed = SubscriptionFeed(pubsub.subscribe("uploads"))
    for name in ("up/a.mkv", "up/a.mp4", "up/a.vtt"):
        gcs.put(name, b"x")
    side_car = pubsub.publish(attributes_of("up/a.vtt"))
    mkv, mp4 = feed.arrivals(1)
    assert uris([mkv, mp4]) == ["a.mkv", "a.mp4"]
    feed.done([mp4])
    (queue,) = pubsub.queues.values()
    assert queue.acknowledged == []
    feed.done([mkv])
    assert queue.acknowledged == [side_car]


def test_a_version_that_was_told_of_twice_answers_for_both_messages(pubsub, gcs):
    feed = SubscriptionFeed(pubsub.subscribe("uploads"))
    old = gcs.put("up/a.mp4", b"one")
    new = gcs.put("up/a.mp4", b"newer")
    # Out of order, and twice: whatever they say, they lead to what is there now.
    ids = [pubsub.publish(attributes_of("up/a.mp4", generation=one)) for one in (new, old, new)]
    came = feed.arrivals(1)
    assert [arrival.source.etag for arrival in came] == [new] * 3
    joined = came[0].joined(came[1]).joined(came[2])
    assert joined.source == came[0].source and len(set(joined.receipts)) == 3
    feed.done([joined])
    (queue,) = pubsub.queues.values()
    assert queue.acknowledged == ids


def test_what_is_no_upload_is_an_event_and_acknowledged_when_that_is_recorded(pubsub, gcs):
    feed = SubscriptionFeed(pubsub.subscribe("uploads"))
    gone = pubsub.publish(attributes_of("up/a.mp4", "OBJECT_DELETE", "7"))
    replaced = pubsub.publish({**attributes_of("up/b.mp4", "OBJECT_ARCHIVE", "8"), "overwrittenByGeneration": "9"})
    refused = pubsub.publish({"from": "somebody else"})
    other = pubsub.publish(attributes_of("up/notes.txt"))
    assert feed.arrivals(1) == []
    told = {"at": "2026-03-01T12:00:00.250000+00:00"}
    assert feed.events == [
        {"event": "delete", "uri": "gs://bucket/up/a.mp4", "generation": "7", "overwritten_by": None, **told},
        {"event": "archive", "uri": "gs://bucket/up/b.mp4", "generation": "8", "overwritten_by": "9", **told},
        {
            "event": "refused",
            "message_id": refused,
            "problem": "not a notification of a bucket: it has no eventType",
        },
    ]
    (queue,) = pubsub.queues.values()
    assert queue.acknowledged == [other]
    feed.recorded()
    assert sorted(queue.acknowledged) == sorted([other, gone, replaced, refused])


def test_deadlines_are_extended_at_once_and_while_the_work_goes_on(pubsub, gcs, monkeypatch):
    feed = SubscriptionFeed(pubsub.subscribe("uploads"))
    gcs.put("up/a.mp4", b"one")
    sent = pubsub.publish(attributes_of("up/a.mp4"))
    (arrival,) = feed.arrivals(1)
    pubsub.advance(100)
    assert feed.arrivals(0.3) == [], "the subscription's own ten seconds are over long ago"
    monkeypatch.setattr(feed, "_kept_at", time.monotonic() - 100)
    feed.keep()
    pubsub.advance(100)
    assert feed.arrivals(0.3) == []
    feed.done([arrival])
    (queue,) = pubsub.queues.values()
    assert queue.acknowledged == [sent]
    assert pubsub.left(feed._subscription.name) == 0


def test_what_a_killed_watch_had_comes_again(pubsub, gcs):
    name = pubsub.subscribe("uploads")
    gcs.put("up/a.mp4", b"one")
    pubsub.publish(attributes_of("up/a.mp4"))
    pubsub.publish(attributes_of("up/gone.mp4", "OBJECT_DELETE", "7"))
    killed = SubscriptionFeed(name)
    assert uris(killed.arrivals(1)) == ["a.mp4"] and len(killed.events) == 1
    following = SubscriptionFeed(name)
    assert following.arrivals(0.3) == []
    pubsub.advance(121)
    assert uris(following.arrivals(1)) == ["a.mp4"] and following.events == killed.events


def test_what_was_released_comes_again_at_once_and_is_never_acknowledged(pubsub, gcs):
    feed = SubscriptionFeed(pubsub.subscribe("uploads"))
    for name in ("up/a.mkv", "up/a.mp4", "up/a.vtt"):
        gcs.put(name, b"x")
    pubsub.publish(attributes_of("up/a.vtt"))
    mkv, mp4 = feed.arrivals(1)
    feed.release([mkv])
    feed.done([mp4])
    assert pubsub.left(feed._subscription.name) == 1
    assert uris(feed.arrivals(1)) == ["a.mkv", "a.mp4"]


def test_a_bucket_that_cannot_be_looked_at_leaves_its_messages_to_come_again(pubsub, gcs):
    feed = SubscriptionFeed(pubsub.subscribe("uploads"))
    gcs.put("up/a.mp4", b"x")
    pubsub.publish(attributes_of("up/a.mp4"))
    gcs.refuse = 403
    with pytest.raises(PermissionError, match=r"roles/storage\.objectViewer"):
        feed.arrivals(1)
    gcs.refuse = None
    assert uris(feed.arrivals(1)) == ["a.mp4"]


def test_pubsub_may_be_away_for_a_moment_and_not_for_long(pubsub, monkeypatch):
    monkeypatch.setattr(subscription_feed, "_PULL_S", 0.5)
    feed = SubscriptionFeed(pubsub.subscribe("uploads"))
    assert feed.arrivals(5) == []
    pubsub._server.stop(0).wait()
    began = time.monotonic()
    assert feed.arrivals(2) == []
    assert time.monotonic() - began > 1.9, "not as fast as it goes"
    monkeypatch.setattr(subscription_feed, "_AWAY_S", 0.0)
    from google.api_core.exceptions import GoogleAPIError

    with pytest.raises(GoogleAPIError):
        feed.arrivals(5)


def test_a_subscription_that_is_missing_is_the_users_to_mend(pubsub):
    with pytest.raises(SubscriptionError, match="create it: gcloud pubsub subscriptions create"):
        SubscriptionFeed("projects/proj-test/subscriptions/nope").arrivals(0.1)


def test_a_message_that_comes_while_nobody_waits_is_not_lost_until_its_deadline(gcs):
    """A request that a client gives up is answered all the same, and what it answers is leased."""
    with FakePubSub(ack_deadline_s=600, pull_wait_s=2.0) as pubsub:
        feed = SubscriptionFeed(pubsub.subscribe("uploads"))
        for number in range(5):
            assert feed.arrivals(0.05) == []
            pubsub.publish(attributes_of(f"up/{number}.mp4", "OBJECT_DELETE", "7"))
            until = time.monotonic() + 10
            while len(feed.events) <= number and time.monotonic() < until:
                feed.arrivals(0.05)
            assert len(feed.events) == number + 1


def test_what_was_pulled_and_not_looked_at_is_released_too(pubsub):
    feed = SubscriptionFeed(pubsub.subscribe("uploads"))
    pubsub.publish(attributes_of("up/a.mp4"))
    assert feed.arrivals(0.0) == []
    (queue,) = pubsub.queues.values()
    until = time.monotonic() + 10
    while not (feed._pulling and feed._pulling.done()) and time.monotonic() < until:
        time.sleep(0.01)
    feed.release([])
    assert (len(queue.waiting), queue.leased) == (1, {})
