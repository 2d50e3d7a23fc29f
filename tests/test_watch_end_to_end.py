"""`reelscribe watch` as a user runs it: real little videos come while it runs; it is stopped, hung up and killed."""

import dataclasses
import functools
import os
import pathlib
import random
import signal
import time

import pytest
from fake_pubsub import TOPIC, FakePubSub
from pubsub_emulator import emulator_path, running_emulator
from run_records import records
from sameness import differences
from synthetic import make_video, repeat_video
from test_notifications import attributes_of, upload
from watch_process import Watch, curate, statuses, watch_out

from beam_pipeline import subscription_feed
from beam_pipeline.feeds import FolderFeed
from beam_pipeline.subscription_feed import SubscriptionFeed
from beam_pipeline.verify import audit
from transforms.reading import video_id_of
from transforms.subscriptions import Subscription
from transforms.tables import current_videos, read_table

VTT = "WEBVTT\n\n00:00.500 --> 00:01.500\nThis is red.\n"


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> dict[str, bytes]:
    """Little videos by their colour; `slow` takes seconds to decode."""
    folder = tmp_path_factory.mktemp("videos")
    made = {}
    for colour in ("red", "green", "blue", "yellow", "grey"):
        shots = [(1.5, colour), (1.5, "white")] if colour == "red" else [(2.0, colour)]
        made[colour] = make_video(folder / f"{colour}.mp4", shots, size=(160, 90), drift_px=3).read_bytes()
    short = make_video(folder / "short.mp4", [(2.0, "green")], size=(640, 360))
    made["slow"] = repeat_video(folder / "slow.mp4", short, 15).read_bytes()
    return made


def put(path: pathlib.Path, content: bytes | str) -> float:
    """Write a file as most programs do, in place and bit by bit; return when it was whole."""
    raw = content.encode() if isinstance(content, str) else content
    with open(path, "wb") as file:
        for start in range(0, len(raw), max(1, len(raw) // 3)):
            file.write(raw[start : start + max(1, len(raw) // 3)])
            file.flush()
    return time.monotonic()


@dataclasses.dataclass
class Story:
    """What was seen of a watch: how long each video took to be visible, and what was when the slow one hung."""

    uploads: pathlib.Path
    output: pathlib.Path
    latency_s: dict[str, float]
    while_it_hung: dict[str, str]
    exit_status: int
    said: str
    undisturbed: pathlib.Path


@pytest.fixture(scope="module")
def story(videos, tmp_path_factory) -> Story:
    """A folder that fills while it is watched, with the defaults; one decoder hangs, and the watch is stopped."""
    folder = tmp_path_factory.mktemp("story")
    uploads = folder / "uploads"
    uploads.mkdir()
    latency_s: dict[str, float] = {}
    for name, colour in (("a.mp4", "red"), ("b.mp4", "blue"), ("broken.mp4", "grey")):
        put(uploads / name, videos[colour][: 500 if name == "broken.mp4" else None])
    with Watch(folder, "--input", uploads) as watch:

        def see(name: str, whole: float) -> None:
            latency_s[name] = time.monotonic() - whole + watch.until(lambda: name in statuses(watch.output))

        began = time.monotonic()
        see("b.mp4", began)
        watch.until(lambda: len(statuses(watch.output)) == 3)
        # The slow one, and what comes with it: a late side-car, an overwritten file, a file that nobody finished.
        put(uploads / "slow.mp4", videos["slow"])
        put(uploads / "a.vtt", VTT)
        (uploads / "c.mp4.part").write_bytes(videos["green"][:1000])
        put(uploads / "b.mp4", videos["yellow"])
        whole = put(uploads / "d.mp4", videos["green"])
        decoders: list[int] = []

        def hang() -> bool:
            decoders.extend(int(path.name.split(".")[-2]) for path in (watch.output / "reels").glob(".slow-*.tmp"))
            return bool(decoders)

        watch.until(hang)
        os.kill(decoders[0], signal.SIGSTOP)
        see("d.mp4", whole)
        # And what comes after it.
        os.rename(uploads / "c.mp4.part", folder / "aside")
        put(folder / "aside", videos["blue"])
        os.rename(folder / "aside", uploads / "e.mp4")
        see("e.mp4", time.monotonic())
        while_it_hung = statuses(watch.output)
        watch.tell(signal.SIGTERM)
        time.sleep(1.0)
        assert watch.ended is None, "it finishes what is under way"
        os.kill(decoders[0], signal.SIGCONT)
        status = watch.wait()
        said = watch.said
    return Story(uploads, watch.output, latency_s, while_it_hung, status, said, curate(folder, uploads))


def test_a_watch_that_is_told_to_stop_finishes_what_is_under_way_and_leaves_a_sound_dataset(story):
    assert story.exit_status == 0
    assert statuses(story.output) == {
        "a.mp4": "ok", "b.mp4": "ok", "broken.mp4": "failed", "d.mp4": "ok", "e.mp4": "ok", "slow.mp4": "ok",
    }  # fmt: skip
    assert audit(str(story.output)).breaches == []
    assert "stopping: what is under way is finished and committed" in story.said


def test_what_came_bit_by_bit_is_the_same_as_if_it_had_all_been_there(story):
    assert differences(story.output, story.undisturbed) == []
    clips = read_table(str(story.output), "clips").to_pylist()
    assert {row["subtitles"] for row in clips if row["uri"].endswith("a.mp4")} == {"This is red.", None}


def test_rows_are_visible_less_than_two_minutes_after_a_video_is_whole(story, capsys):
    with capsys.disabled():
        print(f"\nseconds from whole to visible: { {name: round(took, 1) for name, took in story.latency_s.items()} }")
    assert story.latency_s.keys() == {"b.mp4", "d.mp4", "e.mp4"} and max(story.latency_s.values()) < 120


def test_a_decoder_that_hangs_holds_up_neither_what_came_with_its_video_nor_what_came_after(story):
    assert story.while_it_hung.keys() == {"a.mp4", "b.mp4", "broken.mp4", "d.mp4", "e.mp4"}


def killed_at_random(story: Story, folder: pathlib.Path, kills: int, dice: random.Random) -> None:
    """Kill watches of the same folder, see that each leaves a sound dataset, and let a last one finish."""
    few = str(story.uploads / "[!s]*.mp4")
    output, struck = folder / "set", 0
    while struck < kills:
        with Watch(folder, "--input", few, "--settle", "0.1", "--quiet", "0.1", "--idle-exit", "0.1") as watch:
            before, until = len(statuses(output)), time.monotonic() + dice.uniform(2.0, 16.0)
            # The first ones when something was committed, the others whenever.
            while watch.ended is None and (len(statuses(output)) <= before if struck < 2 else time.monotonic() < until):
                time.sleep(0.02)
            time.sleep(dice.uniform(0.0, 0.5))
            if watch.ended is None:
                struck += 1
            else:
                # It was faster: what there was to kill it at is done.
                assert watch.ended == 0, watch.said[-3000:]
                output.rename(folder / f"finished-{time.monotonic_ns()}")
                continue
        if (output / "failures" / "_delta_log").is_dir():
            assert audit(str(output)).breaches == []
    watch_out(folder, FolderFeed([few], settle_s=0.1))
    assert audit(str(output)).breaches == []
    assert differences(output, story.undisturbed, but="slow-") == []


def test_a_watch_killed_twice_loses_nothing_and_doubles_nothing(story, tmp_path):
    killed_at_random(story, tmp_path, 2, random.Random(5))


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_watch_killed_at_25_instants_loses_nothing_and_doubles_nothing(story, tmp_path):
    killed_at_random(story, tmp_path, 25, random.Random(6))


@pytest.mark.slow
def test_notifications_in_any_order_and_a_kill_in_the_middle_make_the_dataset_of_an_undisturbed_run(
    gcs, videos, tmp_path
):
    with FakePubSub() as pubsub:
        subscription = pubsub.subscribe("uploads")
        send = functools.partial(upload, gcs, pubsub)
        send("a.mp4", videos["red"])
        old = send("b.mp4", videos["blue"])
        send("notes.txt", "no video")
        gone = send("gone.mp4", videos["green"])
        with Watch(tmp_path, "--subscription", subscription) as watch:
            watch.until(lambda: "gone.mp4" in statuses(watch.output))
            send("c.mp4", videos["grey"])
            send("d.mp4", videos["yellow"])
            watch.until(lambda: pubsub.left(subscription) and {"c.mp4", "d.mp4"} - statuses(watch.output).keys())
            watch.kill()
        assert audit(str(watch.output)).breaches == []
        new = send("b.mp4", videos["green"])
        for generation in (new, old):
            pubsub.publish(attributes_of("up/b.mp4", generation=generation))
        send("a.vtt", VTT)
        gcs.remove("up/gone.mp4")
        pubsub.publish(attributes_of("up/gone.mp4", "OBJECT_DELETE", gone))
        pubsub.advance(121)
        watch_out(tmp_path, SubscriptionFeed(subscription), idle_s=3.0)
        assert pubsub.left(subscription) == 0
    assert audit(str(watch.output)).breaches == []
    assert statuses(watch.output) == dict.fromkeys(["a.mp4", "b.mp4", "c.mp4", "d.mp4", "gone.mp4"], "ok")
    undisturbed = curate(tmp_path, "gs://bucket/up/")
    assert differences(watch.output, undisturbed, but="gone-") == []
    told = [event for run in records(watch.output) for event in run.get("watch", {}).get("events", [])]
    assert [(event["event"], event["uri"], event["generation"]) for event in told] == [
        ("delete", "gs://bucket/up/gone.mp4", gone)
    ]


@pytest.mark.slow
@pytest.mark.skipif(
    emulator_path() is None, reason="needs Google's Pub/Sub emulator (google-cloud-cli-pubsub-emulator)"
)
def test_googles_own_pubsub_feeds_a_watch_until_nothing_is_left(gcs, videos, tmp_path, monkeypatch):
    from google.cloud import pubsub_v1

    # What is not acknowledged shall come again before the test is over.
    monkeypatch.setattr(subscription_feed, "_KEPT_S", 10)
    with running_emulator(tmp_path) as host:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", host)
        publisher, subscriber = pubsub_v1.PublisherClient(), pubsub_v1.SubscriberClient()
        name = "projects/proj-test/subscriptions/uploads"
        publisher.create_topic(request={"name": TOPIC})
        subscriber.create_subscription(request={"name": name, "topic": TOPIC, "ack_deadline_seconds": 10})
        for content in (videos["red"], videos["green"]):
            generation = gcs.put("up/a.mp4", content)
            publisher.publish(TOPIC, b"", **attributes_of("up/a.mp4", generation=generation)).result()
        publisher.publish(TOPIC, b"", **attributes_of("up/c.mp4", "OBJECT_DELETE", "7")).result()
        (summary,) = watch_out(tmp_path, SubscriptionFeed(name))
        watched = time.monotonic()
        assert list(summary.outcomes.values()) == ["committed"]
        again, subscription = [], Subscription(name)
        while time.monotonic() < watched + 11:
            again += subscription.pull(wait_s=1.0)
        assert again == []
    assert audit(str(tmp_path / "set")).breaches == []
    assert current_videos(str(tmp_path / "set"))[video_id_of("gs://bucket/up/a.mp4")].etag == generation
