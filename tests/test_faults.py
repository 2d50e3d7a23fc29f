"""What goes wrong around a run: a disk that fills, sources that go or change under it, models that fail now and then.

After each the dataset is sound, what stood stands, and the next run leaves it as if nothing had happened.
"""

import collections
import contextlib
import dataclasses
import functools
import json
import pathlib
import random
import resource
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import pytest
from apache_beam.ml.inference.base import ModelHandler
from dataset_rows import video_rows
from deltalake.exceptions import DeltaError
from fakes import CornerEmbedder, EchoTeacher, LengthSelector, Model
from sameness import differences
from synthetic import make_video, repeat_video
from watch_process import config_in, curate, statuses, watch_out

from beam_pipeline.cli import main
from beam_pipeline.config import Config, load_config
from beam_pipeline.curating import curate as curate_with
from beam_pipeline.feeds import Arrival, FolderFeed
from beam_pipeline.job import JobOptions
from beam_pipeline.redriving import redrive
from beam_pipeline.verify import audit
from model_handlers.catalogue import Entry
from transforms import child
from transforms.committing import Committer, finalise
from transforms.lease import WriterLease
from transforms.recalling import Retry
from transforms.records import CaptionedClip, Clip, EmbedRequest, Vector
from transforms.schemas import VideoRows
from transforms.tables import current_videos, read_table

FULL = 100_000


@contextlib.contextmanager
def disk_full(after: int = FULL) -> Iterator[None]:
    """No file may grow beyond so many bytes, in this process and in those that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    child.close_idle()
    resource.setrlimit(resource.RLIMIT_FSIZE, (after, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        child.close_idle()


def noise(size: int, seed: int = 1) -> str:
    """Text that does not get much smaller when it is compressed."""
    return random.Random(seed).randbytes(size // 2).hex()


def large(table: str, size: int = 4 * FULL) -> VideoRows:
    """A video whose row in one table is larger than what the disk has room for."""
    rows, text = video_rows("large", "r2"), noise(size)
    video = {**rows.video, "description": text} if table == "videos" else rows.video
    changes = {
        "videos": {},
        "clips": {"clips": tuple({**row, "title": text} for row in rows.clips)},
        "rejected": {"rejected": tuple({**row, "reason": text} for row in rows.rejected)},
        "failures": {"failures": tuple({**row, "detail": text} for row in rows.failures)},
    }
    return dataclasses.replace(rows, video=video, **changes[table])


@pytest.mark.parametrize("table", ["clips", "rejected", "failures", "videos"])
def test_a_disk_that_fills_while_a_table_is_written_costs_the_commit_and_nothing_that_stands(table, tmp_path):
    with WriterLease(tmp_path, "r1"):
        Committer(tmp_path).commit([video_rows("a"), video_rows("b")])
        finalise(tmp_path)
    with pytest.raises((OSError, DeltaError), match="File too large"), WriterLease(tmp_path, "r2"), disk_full():
        Committer(tmp_path).commit([large(table), video_rows("c", "r2")])
    assert audit(tmp_path).breaches == [] and set(current_videos(tmp_path)) == {"a", "b"}
    with WriterLease(tmp_path, "r2"):
        Committer(tmp_path).commit([large(table), video_rows("c", "r2")])
        finalise(tmp_path)
    found = audit(tmp_path)
    assert found.breaches == []
    assert [found.counts[name] for name in ("videos", "clips", "rejected", "failures")] == [4, 8, 16, 4]
    assert found.counts["uncommitted"] == found.counts["stray_files"] == 0


def test_a_disk_that_fills_while_tables_are_compacted_loses_no_row(tmp_path):
    texts = {name: noise(FULL, seed) for seed, name in enumerate("abcde")}
    with pytest.raises((OSError, DeltaError), match="File too large"), WriterLease(tmp_path, "r1"):
        committer = Committer(tmp_path)
        for name, text in texts.items():
            committer.commit([video_rows(name, n_clips=1, caption=text)])
        with disk_full():
            finalise(tmp_path)
    assert audit(tmp_path).breaches == []
    rows = read_table(tmp_path, "clips", ["video_id", "caption"]).to_pylist()
    assert {row["video_id"]: row["caption"] for row in rows} == texts
    with WriterLease(tmp_path, "r2"):
        finalise(tmp_path)
    found = audit(tmp_path)
    assert (found.breaches, found.counts["clips"], found.counts["stray_files"]) == ([], 5, 0)
    assert len(list((tmp_path / "clips").glob("*.parquet"))) == 1


def test_a_disk_that_fills_while_a_reel_is_written_stops_the_run_and_the_same_command_finishes_it(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    make_video(tmp_path / "in" / "a.mp4", [(2.0, "red")], drift_px=3, size=(160, 90))
    make_video(tmp_path / "in" / "b.mp4", [(6.0, "blue")], drift_px=3, size=(640, 360))
    output = tmp_path / "out"
    command = ["curate", "--input", str(tmp_path / "in"), "--output", str(output), "--config", config_in(tmp_path)]
    with disk_full():
        assert main([*command, "--chunk-videos", "1"]) == 1
    told = capsys.readouterr().err
    assert "File too large" in told and "the same command goes on" in told
    assert audit(output).breaches == [] and statuses(output) == {"a.mp4": "ok"}
    assert [path.name for path in (output / "reels").iterdir() if not path.name.startswith("a-")] == []
    assert main(command) == 0
    assert "1 committed, 1 unchanged, 0 failed" in capsys.readouterr().out
    found = audit(output)
    assert (found.breaches, found.counts["clips"], found.counts["reels"]) == ([], 2, 2)


class Meddled(FolderFeed):
    """A folder in which files go and change as soon as they were listed, once each; `read` changes while it is read."""

    def __init__(self, folder: pathlib.Path, instead: bytes):
        super().__init__([str(folder)], poll_s=0.2, settle_s=0.3)
        self._folder, self._instead = folder, instead
        self._left = {"gone.mp4", "changed.mp4", "read.mp4"}

    def arrivals(self, wait_s: float) -> list[Arrival]:
        came = super().arrivals(wait_s)
        for name in [pathlib.Path(arrival.source.uri).name for arrival in came]:
            if name in self._left:
                self._left.remove(name)
                if name == "gone.mp4":
                    (self._folder / name).unlink()
                elif name == "changed.mp4":
                    (self._folder / name).write_bytes(self._instead)
                else:
                    threading.Thread(target=self._overwrite, args=(self._folder / name,), daemon=True).start()
        return came

    def _overwrite(self, path: pathlib.Path) -> None:
        reels = self._folder.parent / "set" / "reels"
        while not list(reels.glob(".read-*.tmp")):
            time.sleep(0.005)
        path.write_bytes(self._instead)


def test_sources_that_go_or_change_between_listing_and_reading_or_meanwhile_are_never_mixed_up(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    instead = make_video(tmp_path / "instead.mp4", [(2.0, "yellow")], drift_px=3, size=(160, 90)).read_bytes()
    for name in ("gone.mp4", "changed.mp4", "steady.mp4"):
        make_video(folder / name, [(3.0, "red")], drift_px=3, size=(160, 90))
    repeat_video(folder / "read.mp4", make_video(tmp_path / "short.mp4", [(2.0, "blue")], size=(640, 360)), 15)
    (summary,) = watch_out(tmp_path, Meddled(folder, instead))
    output = tmp_path / "set"
    assert audit(output).breaches == []
    assert statuses(output) == {"gone.mp4": "failed", "changed.mp4": "ok", "steady.mp4": "ok", "read.mp4": "ok"}
    (letter,) = read_table(output, "failures").to_pylist()
    assert (letter["stage"], letter["error_class"]) == ("read", "FileNotFoundError")
    assert letter["message"].endswith("gone.mp4 is not there (a broken link, or removed since it was listed)")
    assert collections.Counter(summary.outcomes.values()) == {"committed": 3, "failed": 1}
    # Both changed ones failed in the version that was listed, and were committed in the one that came then.
    assert summary.counts["failures split"] == 2 and len(summary.outcomes) == 4
    (folder / "gone.mp4").write_bytes(instead)
    (summary,) = watch_out(tmp_path, FolderFeed([str(folder)], poll_s=0.1, settle_s=0.1))
    assert collections.Counter(summary.outcomes.values()) == {"committed": 1, "unchanged": 3}
    assert differences(output, curate(tmp_path, folder)) == []


def unlucky(name: str, key: object) -> bool:
    """Whether this model fails on this request: a tenth of all, the same ones at every run."""
    return zlib.crc32(f"{name} {key}".encode()) % 10 == 0


class Moody:
    """Models that fail on a tenth of their requests until they are healed."""

    healed = False

    @classmethod
    def meets(cls, name: str, keys: Iterable[object]) -> None:
        for key in keys:
            if not cls.healed and unlucky(name, key):
                raise ConnectionError(f"{name} is away at {key}")


class MoodyTeacher(EchoTeacher):
    def answer(self, requests: Sequence[Clip], model: Model) -> Sequence[str]:
        Moody.meets(self.name, (clip.clip_id for clip in requests))
        return super().answer(requests, model)


class MoodySelector(LengthSelector):
    def answer(self, requests: Sequence[CaptionedClip], model: Model) -> Sequence[tuple[float, ...]]:
        Moody.meets(self.name, (captioned.clip.clip_id for captioned in requests))
        return super().answer(requests, model)


class MoodyEmbedder(CornerEmbedder):
    def answer(self, requests: Sequence[EmbedRequest], model: Model) -> Sequence[tuple[Vector, Vector]]:
        Moody.meets(self.name, (f"{request.video_id} {request.shot.index}" for request in requests))
        return super().answer(requests, model)


TEACHERS = ("one", "two", "three")


def moody_config(folder: pathlib.Path) -> Config:
    """The configuration of these tests, with models that fail now and then."""

    def entry(name: str, factory: Callable[[], ModelHandler]) -> Entry:
        return Entry(name, "fake", "1", "none", "moody", factory, prompt_id="p")

    return dataclasses.replace(
        load_config(file=config_in(folder)),
        teachers=tuple(entry(name, functools.partial(MoodyTeacher, name)) for name in TEACHERS),
        selector=entry("length", MoodySelector),
        embedder=entry("corner", MoodyEmbedder),
    )


def test_models_that_fail_on_a_tenth_of_all_requests_cost_just_those_and_a_redrive_makes_up_for_it(
    tmp_path, monkeypatch
):
    listed = tmp_path / "list.jsonl"
    with listed.open("w") as rows:
        for number in range(4):
            shots = [(1.2, ("red", "green", "blue", "white")[(turn + number) % 4]) for turn in range(12)]
            path = make_video(tmp_path / f"v{number}.mp4", shots, size=(160, 90), drift_px=3)
            rows.write(json.dumps({"uri": str(path), "video_id": f"v{number}"}) + "\n")
    output, config = tmp_path / "out", moody_config(tmp_path)

    summary = curate_with([str(listed)], str(output), config)
    assert audit(output).breaches == []
    assert set(summary.outcomes.values()) == {"committed"}, "partial, and none failed"
    letters = read_table(output, "failures").to_pylist()
    found = sorted((row["stage"], row["clip_id"] or row["video_id"], row["teacher"] or "") for row in letters)
    unembedded = [f"v{number}" for number in range(4) for shot in range(12) if unlucky("corner", f"v{number} {shot}")]
    chosen = read_table(output, "clips", ["clip_id"])["clip_id"].to_pylist()
    clips = {*chosen, *(row["clip_id"] for row in letters if row["clip_id"])}
    unscored = [clip for clip in clips if unlucky("length", clip)]
    uncaptioned = [(clip, teacher) for clip in clips for teacher in TEACHERS if unlucky(teacher, clip)]
    assert found == sorted(
        [("embed", video, "") for video in unembedded]
        + [("score", clip, "") for clip in unscored]
        + [("caption", clip, teacher) for clip, teacher in uncaptioned]
    )
    assert (len(clips) + len(unembedded), len(chosen) + len(unscored)) == (48, len(clips))
    assert (len(unembedded), len(unscored), len(uncaptioned)) == (5, 8, 11)

    monkeypatch.setattr(Moody, "healed", True)
    redriven, _ = redrive(str(output), Retry(), JobOptions(), config)
    assert len(redriven.letters) == len(letters)
    assert audit(output).breaches == [] and read_table(output, "failures").num_rows == 0
    curate_with([str(listed)], str(tmp_path / "lucky"), config)
    assert differences(output, tmp_path / "lucky") == []
