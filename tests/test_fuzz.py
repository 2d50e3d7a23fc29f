"""Thousands of spoilt videos: each ends as whole, partial or failed, and nothing but that video pays for it."""

import collections
import dataclasses
import functools
import itertools
import json
import math
import os
import pathlib
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes import CornerEmbedder, EchoTeacher, LengthSelector
from mutations import faults_of_sentence, mutate, small_videos
from synthetic import make_video

from beam_pipeline.config import Config, load_config
from beam_pipeline.curating import curate
from beam_pipeline.verify import audit
from model_handlers.catalogue import Entry
from transforms import child
from transforms.child import Limits, decode
from transforms.detection import SplittingConfig
from transforms.media_errors import MediaError
from transforms.records import Video
from transforms.reel import Reel
from transforms.splitting import split_of
from transforms.stitching import StitchingConfig
from transforms.tables import read_table

SEED = 1
THREADS = 3
LIMITS = Limits(deadline_s=60, stall_s=20, memory_bytes=1 << 30)
#: A killed process is waited for; starting the next one belongs to the next file.
SLACK_S = 5.0
CONFIG = dataclasses.asdict(SplittingConfig())
MOST_BYTES = 600_000


@dataclasses.dataclass(frozen=True)
class Ending:
    """What became of a spoilt file: `ok`, `partial`, or the class of its error; `faults` should be none."""

    name: str
    kind: str
    seconds: float
    faults: tuple[str, ...]


def sources(folder: pathlib.Path) -> list[pathlib.Path]:
    """Small videos of every container: made on the spot, and real ones where the folder of real media is there."""
    made = small_videos(folder)
    real = pathlib.Path(__file__).parents[2] / "shared" / "videos"
    found = sorted(path for path in real.rglob("*.*") if path.suffix not in (".json", ".srt"))
    return made + [path for path in found if 0 < path.stat().st_size < MOST_BYTES]


def spoilt(number: int, good: list[pathlib.Path], folder: pathlib.Path) -> tuple[pathlib.Path, str]:
    """Write the spoilt file of this number, the same one at every run, and say what was done to which file."""
    dice = random.Random(f"{SEED}/{number}")
    path = dice.choice(good)
    raw, how = mutate(path.read_bytes(), dice)
    target = folder / f"{number}{path.suffix}"
    target.write_bytes(raw)
    return target, f"{number}: {path.parent.name}/{path.name}, {how}"


def ending_of(path: pathlib.Path, name: str, reels: pathlib.Path) -> Ending:
    """Split a file in the decoding process and look for whatever must not be."""
    reel = reels / f"{path.name}.arrow"
    began = time.monotonic()
    try:
        summary = decode("split", {"path": str(path), "reel": str(reel), "etag": "1-1", "config": CONFIG}, LIMITS)
    except MediaError as error:
        seconds = time.monotonic() - began
        faults = faults_of_sentence(str(error), str(path))
        if reel.exists():
            faults.append("a reel was left")
        kind = type(error).__name__
        if kind == "DecoderFailed":
            faults.append(f"an error that nobody foresaw: {error}")
    except Exception as error:
        return Ending(name, "raised", time.monotonic() - began, (f"{name}: {error!r}",))
    else:
        seconds = time.monotonic() - began
        kind = "partial" if summary["damage"] else "ok"
        faults = list(faults_of_split(summary, str(path), str(reel)))
        reel.unlink(missing_ok=True)
    if seconds > LIMITS.deadline_s + SLACK_S:
        faults.append(f"took {seconds:.1f} s")
    return Ending(name, kind, seconds, tuple(f"{name}: {fault}" for fault in faults))


def faults_of_split(summary: dict, path: str, reel_path: str) -> Iterator[str]:
    """What is wrong with an answer: its reel, its shots, its numbers, what it says of damage."""
    reel = Reel.open(reel_path)
    if reel.summary != summary:
        yield "the reel holds another summary"
    split = split_of(Video("v", path, "1-1", 0), reel_path, summary)
    shots = split.shots
    if not shots or shots[0].start_frame != 0 or shots[-1].end_frame != summary["frames"]:
        yield "the shots do not cover the frames"
    if any(a.end_frame != b.start_frame or a.end_s != b.start_s for a, b in itertools.pairwise(shots)):
        yield "the shots do not touch"
    if not all(s.start_s <= s.first_s <= s.last_s < s.end_s for s in shots):
        yield "a shot's times are out of order"
    if reel.times != sorted(set(reel.times)) or not {s.first_s for s in shots} <= set(reel.times):
        yield "the reel's times are out of order or lack a boundary frame"
    facts = split.media
    numbers = [facts.duration_s, facts.fps, *(s.start_s for s in shots), shots[-1].end_s]
    if not all(map(math.isfinite, numbers)) or facts.width <= 0 or facts.height <= 0 or facts.fps <= 0:
        yield f"numbers that cannot be: {facts}"
    json.dumps(summary, allow_nan=False)
    if split.damage:
        yield from faults_of_sentence(split.damage, path)


def decoders() -> set[int]:
    """The decoding processes that this process has, dead ones that nobody waited for among them."""
    mine = set()
    for folder in pathlib.Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and f"\nPPid:\t{os.getpid()}\n" in (folder / "status").read_text():
                command = (folder / "cmdline").read_bytes()
                if not command or b"transforms.decoder" in command:
                    mine.add(int(folder.name))
        except OSError:
            continue  # it ended meanwhile
    return mine


def run(count: int, tmp_path: pathlib.Path) -> list[Ending]:
    """Spoil and split `count` files from a few threads; check what holds for them together."""
    good = sources(tmp_path)
    videos, reels = tmp_path / "spoilt", tmp_path / "reels"
    videos.mkdir()
    reels.mkdir()
    child.close_idle()
    before = decoders()
    most, done = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.2):
            most = max(most, len(decoders() - before))

    def one(number: int) -> Ending:
        path, name = spoilt(number, good, videos)
        try:
            return ending_of(path, name, reels)
        finally:
            path.unlink()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(THREADS) as threads:
            endings = list(threads.map(one, range(count)))
    finally:
        done.set()
        watcher.join()
    assert os.listdir(reels) == []
    assert 1 <= most <= THREADS
    child.close_idle()
    assert decoders() == before
    return endings


def describe(endings: list[Ending]) -> str:
    """The tally, for the docs."""
    tally = collections.Counter(ending.kind for ending in endings)
    seconds = sorted(ending.seconds for ending in endings)
    lines = [f"{kind:24} {number}" for kind, number in tally.most_common()]
    slowest = max(endings, key=lambda ending: ending.seconds)
    middle, late = seconds[len(seconds) // 2], seconds[int(0.99 * len(seconds))]
    return "\n".join(
        [*lines, f"median {middle:.2f} s, 99 % {late:.2f} s, slowest {slowest.seconds:.1f} s ({slowest.name})"]
    )


def check(endings: list[Ending], count: int) -> None:
    faults = [fault for ending in endings for fault in ending.faults]
    assert faults == [], "\n".join([f"{len(faults)} faults", *faults])
    good = sum(ending.kind in ("ok", "partial") for ending in endings)
    failed = sum(ending.kind not in ("ok", "partial", "raised") for ending in endings)
    assert good + failed == count
    assert good > count // 4 and failed > count // 20


def test_a_sample_of_spoilt_videos_ends_in_good_order(tmp_path):
    check(run(70, tmp_path), 70)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_five_thousand_spoilt_videos_end_in_good_order(tmp_path, capsys):
    began = time.monotonic()
    endings = run(5000, tmp_path)
    with capsys.disabled():
        print(f"\n5000 spoilt videos in {(time.monotonic() - began) / 60:.1f} min\n{describe(endings)}")
    check(endings, 5000)


def test_mutations_are_the_same_at_every_run_and_every_one_changes_its_file(tmp_path):
    good = small_videos(tmp_path)
    raw = good[0].read_bytes()
    same = [mutate(raw, random.Random(f"{SEED}/{n}")) for n in range(200)]
    assert same == [mutate(raw, random.Random(f"{SEED}/{n}")) for n in range(200)]
    assert len({spoiled for spoiled, _ in same}) > 190


def quick_config() -> Config:
    """The lite profile with fake models: what is on trial is everything round them."""
    return dataclasses.replace(
        load_config("lite"),
        stitching=StitchingConfig(min_event_s=0.5, still_distance=None, redundant_distance=None),
        embedder=Entry("corner", "fake", "1", "MIT", "two corners", CornerEmbedder),
        teachers=(Entry("echo", "fake", "1", "MIT", "names the clip", functools.partial(EchoTeacher, "echo")),),
        selector=Entry("length", "fake", "1", "MIT", "likes it long", LengthSelector),
    )


def test_a_folder_of_good_and_spoilt_videos_makes_a_dataset_that_verifies(tmp_path):
    uploads, output = tmp_path / "in", tmp_path / "out"
    uploads.mkdir()
    made = small_videos(tmp_path)
    for number in range(40):
        spoilt(number, made, uploads)
    good = ("a.mp4", "b.mkv", "c.ts")
    for name in good:
        make_video(uploads / name, [(1.2, "red"), (1.2, "blue")], drift_px=3)

    first = curate([str(uploads)], str(output), quick_config())
    again = curate([str(uploads)], str(output), quick_config())

    assert audit(output).breaches == []
    videos = read_table(output, "videos").to_pylist()
    tally = collections.Counter("failed" if row["status"] == "failed" else "committed" for row in videos)
    assert collections.Counter(first.outcomes.values()) == tally and tally.total() == 43
    assert set(again.outcomes.values()) == {"unchanged"}
    status = {os.path.basename(row["uri"]): (row["status"], row["n_shots"], row["n_clips"]) for row in videos}
    assert [status[name] for name in good] == [("ok", 2, 2)] * 3
    for row in read_table(output, "failures").to_pylist():
        assert faults_of_sentence(row["message"], row["uri"]) == []
    assert sorted(path.name for path in (output / "reels").iterdir()) == sorted(
        f"{row['video_id']}.arrow" for row in videos if row["status"] != "failed"
    )
