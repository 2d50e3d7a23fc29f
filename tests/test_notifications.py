"""A bucket's notifications: what they say, what they lead to, and how they are pulled."""

import datetime

import pytest
from fake_pubsub import PROJECT, TOPIC, FakePubSub
from gcs_emulator import Bucket
from pubsub_emulator import emulator_path, running_emulator

from transforms.notifications import Notification, parse_notification, sources_of
from transforms.reading import read_video, video_id_of
from transforms.subscriptions import Subscription, SubscriptionError

ATTRIBUTES = {
    "notificationConfig": "projects/_/buckets/bucket/notificationConfigs/1",
    "eventType": "OBJECT_FINALIZE",
    "payloadFormat": "JSON_API_V1",
    "bucketId": "bucket",
    "objectId": "up/a b.mp4",
    "objectGeneration": "1712345678901234",
    "eventTime": "2026-03-01T12:00:00.250000Z",
}
TIME = datetime.datetime(2026, 3, 1, 12, 0, 0, 250000, datetime.UTC)


def attributes_of(name: str, event: str = "OBJECT_FINALIZE", generation: str = "1") -> dict[str, str]:
    return {**ATTRIBUTES, "eventType": event, "objectId": name, "objectGeneration": generation}


def upload(bucket: Bucket, pubsub: FakePubSub, name: str, content: bytes | str) -> str:
    """Put a file into gs://bucket/up/ and have it told; return its generation."""
    generation = bucket.put(f"up/{name}", content)
    pubsub.publish(attributes_of(f"up/{name}", generation=generation))
    return generation


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("finalize", None, None, False)),
        ({"overwroteGeneration": "17"}, ("finalize", None, "17", False)),
        ({"eventType": "OBJECT_DELETE"}, ("delete", None, None, True)),
        ({"eventType": "OBJECT_DELETE", "overwrittenByGeneration": "18"}, ("delete", "18", None, False)),
        ({"eventType": "OBJECT_ARCHIVE"}, ("archive", None, None, True)),
        ({"eventType": "OBJECT_METADATA_UPDATE", "payloadFormat": "NONE"}, ("metadata_update", None, None, False)),
        ({"custom": "attribute", "eventTime": "2026-03-01T13:00:00.25+01:00"}, ("finalize", None, None, False)),
    ],
)
def test_a_notification_says_what_happened_to_which_version(changes, expected):
    found = parse_notification(ATTRIBUTES | changes)
    kind, overwritten_by, overwrote, removed = expected
    generation = "1712345678901234"
    assert found == Notification(kind, "gs://bucket/up/a b.mp4", generation, TIME, overwritten_by, overwrote)
    assert found.removed == removed


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"eventType": None}, "it has no eventType"),
        ({"eventType": "OBJECT_EATEN"}, "eventType is 'OBJECT_EATEN'"),
        ({"payloadFormat": "XML"}, "payloadFormat is 'XML'"),
        ({"bucketId": None}, "it has no bucketId"),
        ({"bucketId": "a/b"}, "bucketId and objectId are 'a/b' and 'up/a b.mp4'"),
        ({"bucketId": "../etc"}, "bucketId and objectId are '../etc' and 'up/a b.mp4'"),
        ({"objectId": ""}, "it has no objectId"),
        ({"objectId": "a\nb.mp4"}, r"bucketId and objectId are 'bucket' and 'a\nb.mp4'"),
        ({"objectGeneration": "7; DROP"}, "objectGeneration is '7; DROP', not a number"),
        ({"objectGeneration": "9" * 20}, f"objectGeneration is '{'9' * 20}', not a number"),
        ({"overwroteGeneration": "x"}, "overwroteGeneration is 'x', not a number"),
        ({"eventTime": "yesterday"}, "eventTime is 'yesterday', not a time"),
        ({"eventTime": "0001-01-01T00:00:00+23:59"}, "eventTime is '0001-01-01T00:00:00+23:59', not a time"),
        ({"eventTime": "2026-03-01T12:00:00"}, "eventTime is '2026-03-01T12:00:00', without a time zone"),
        ({"eventType": "x" * 500}, f"eventType is '{'x' * 80}'"),
    ],
)
def test_anything_else_is_refused_in_a_plain_sentence(changes, told):
    attributes = {name: value for name, value in (ATTRIBUTES | changes).items() if value is not None}
    with pytest.raises(ValueError) as caught:
        parse_notification(attributes)
    assert str(caught.value) == f"not a notification of a bucket: {told}"


def sources(name: str, event: str = "OBJECT_FINALIZE", generation: str = "1"):
    return sources_of(parse_notification(attributes_of(name, event, generation)))


def test_a_video_that_came_is_taken_as_it_is_now_whatever_the_notification_says(gcs):
    old = gcs.put("up/a.mp4", b"old")
    new = gcs.put("up/a.mp4", b"newer")
    words = gcs.put("up/a.vtt", "WEBVTT\n")
    (late,) = sources("up/a.mp4", generation=old)
    (current,) = sources("up/a.mp4", generation=new)
    assert late == current
    assert (current.video_id, current.etag, current.size_bytes) == (video_id_of("gs://bucket/up/a.mp4"), new, 5)
    assert (current.subtitles, current.subtitles_version) == ("gs://bucket/up/a.vtt", words)


def test_a_video_that_has_gone_since_ends_as_a_dead_letter(gcs):
    (source,) = sources("up/a.mp4")
    with pytest.raises(FileNotFoundError, match=r"gs://bucket/up/a.mp4 is not there"):
        read_video(source)


@pytest.mark.parametrize("side_car", ["up/a.vtt", "up/a.srt", "up/a.json"])
def test_a_side_car_that_came_late_leads_to_its_videos(gcs, side_car):
    for name in ("up/a.mp4", "up/a.mkv", "up/ab.mp4", "up/a.b.mp4", "up/a.txt", side_car):
        gcs.put(name, b"x")
    found = sources(side_car)
    assert [source.uri for source in found] == ["gs://bucket/up/a.mkv", "gs://bucket/up/a.mp4"]
    assert {source.subtitles or source.metadata for source in found} == {f"gs://bucket/{side_car}"}


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("up/a.mp4", "OBJECT_DELETE"),
        ("up/a.mp4", "OBJECT_ARCHIVE"),
        ("up/a.mp4", "OBJECT_METADATA_UPDATE"),
        ("up/notes.txt", "OBJECT_FINALIZE"),
        ("up/.hidden.mp4", "OBJECT_FINALIZE"),
        ("up/", "OBJECT_FINALIZE"),
        ("up/alone.vtt", "OBJECT_FINALIZE"),
    ],
)
def test_all_else_leads_to_nothing(gcs, name, event):
    for there in ("up/a.mp4", "up/notes.txt", "up/.hidden.mp4", "up/", "up/alone.vtt"):
        gcs.put(there, b"x")
    assert sources(name, event) == []


@pytest.mark.parametrize(
    "name", ["uploads", "projects/p/subscriptions/uploads", "projects/proj-test/topics/uploads", f"{PROJECT}/s"]
)
def test_a_name_that_is_no_subscriptions_is_told(name):
    with pytest.raises(SubscriptionError, match="is no subscription; write projects/PROJECT/subscriptions/NAME"):
        Subscription(name)


@pytest.fixture
def pubsub():
    with FakePubSub(ack_deadline_s=50) as server:
        yield server


def test_what_is_acknowledged_never_comes_again_and_what_is_not_does(pubsub):
    subscription = Subscription(pubsub.subscribe("uploads"))
    done, left = pubsub.publish(attributes_of("a.mp4"), b"payload"), pubsub.publish(attributes_of("b.mp4"))
    first = subscription.pull()
    assert [message.message_id for message in first] == [done, left]
    assert (first[0].attributes, first[0].payload) == (attributes_of("a.mp4"), b"payload")
    assert abs((datetime.datetime.now(datetime.UTC) - first[0].published).total_seconds()) < 60
    assert subscription.pull(wait_s=0.1) == []
    subscription.acknowledge([first[0].ack_id])
    pubsub.advance(51)
    (again,) = subscription.pull()
    assert (again.message_id, again.ack_id != first[1].ack_id) == (left, True)
    assert pubsub.left(subscription.name) == 1


def test_a_deadline_is_extended_while_there_is_work_and_given_back_when_there_is_none(pubsub):
    subscription = Subscription(pubsub.subscribe("uploads"))
    pubsub.publish(attributes_of("a.mp4"))
    (message,) = subscription.pull()
    pubsub.advance(40)
    subscription.extend([message.ack_id], 600)
    pubsub.advance(590)
    assert subscription.pull(wait_s=0.3) == []
    subscription.release([message.ack_id])
    assert [again.message_id for again in subscription.pull()] == [message.message_id]
    with pytest.raises(ValueError, match="extended by 0 to 600 s, not by 601"):
        subscription.extend([message.ack_id], 601)


def test_many_ids_are_acknowledged_in_requests_that_are_small_enough(pubsub):
    subscription = Subscription(pubsub.subscribe("uploads"))
    for number in range(1500):
        pubsub.publish(attributes_of(f"{number}.mp4"))
    taken = subscription.pull(max_messages=1500)
    assert len(taken) == 1500
    subscription.acknowledge([message.ack_id for message in taken])
    assert pubsub.left(subscription.name) == 0


def test_a_missing_subscription_is_told_with_the_command_that_makes_it(pubsub):
    with pytest.raises(SubscriptionError, match=f"there is no subscription {PROJECT}/subscriptions/nope; create it: "):
        Subscription(f"{PROJECT}/subscriptions/nope").pull()


@pytest.mark.skipif(
    emulator_path() is None, reason="needs Google's Pub/Sub emulator (google-cloud-cli-pubsub-emulator)"
)
def test_googles_own_emulator_does_the_same(gcs, tmp_path, monkeypatch):
    from google.cloud import pubsub_v1

    with running_emulator(tmp_path) as host:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", host)
        publisher, subscriber = pubsub_v1.PublisherClient(), pubsub_v1.SubscriberClient()
        subscription = Subscription(f"{PROJECT}/subscriptions/uploads")
        publisher.create_topic(name=TOPIC)
        subscriber.create_subscription(name=subscription.name, topic=TOPIC, ack_deadline_seconds=10)
        generation = gcs.put("up/a.mp4", b"x")
        for name in ("up/a.mp4", "up/notes.txt"):
            publisher.publish(TOPIC, b"", **attributes_of(name)).result(30)
        taken = []
        while len(taken) < 2:
            taken += subscription.pull(wait_s=10)
        found = [source for message in taken for source in sources_of(parse_notification(message.attributes))]
        assert [(source.uri, source.etag) for source in found] == [("gs://bucket/up/a.mp4", generation)]
        subscription.extend([taken[0].ack_id], 600)
        subscription.release([taken[1].ack_id])
        (again,) = subscription.pull(wait_s=10)
        assert again.message_id == taken[1].message_id
        subscription.acknowledge([taken[0].ack_id, again.ack_id])
        assert subscription.pull(wait_s=1) == []
        with pytest.raises(SubscriptionError, match="there is no subscription"):
            Subscription(f"{PROJECT}/subscriptions/nope").pull()
