"""Reels in a bucket: two attempts at a video, replaced reels, and the copies on this machine."""

# ruff: noqa: F811 (a test names the fixtures that it imports)

import dataclasses
import pathlib
import shutil
from collections.abc import Callable

import pytest
from bucket_sets import SETS, URI, videos  # noqa: F401

from beam_pipeline.cli import main
from transforms import objects
from transforms.child import Limits
from transforms.detection import SplittingConfig
from transforms.files import list_files, name_of
from transforms.kept_copies import kept_copy
from transforms.lease import WriterLease
from transforms.media_errors import source_version
from transforms.objects import StorageError
from transforms.records import Earlier, Video
from transforms.reel import Reel, ReelError
from transforms.shots import split_local

pytestmark = pytest.mark.usefixtures("temporary")


@pytest.fixture
def video(tmp_path, videos) -> Video:
    path = tmp_path / "red.mp4"
    path.write_bytes(videos["red"])
    return Video("red-1", str(path), source_version(str(path)), path.stat().st_size)


REELS = f"{URI}/reels"
REEL = f"{REELS}/red-1.arrow"


def split(video: Video) -> tuple:
    return split_local(video, REELS, SplittingConfig(), Limits())


def forget_copies(temporary: pathlib.Path) -> None:
    for one in temporary.glob("reelscribe-kept-*"):
        shutil.rmtree(one)


def during_the_first_upload(gcs, what: Callable[[], object]) -> list:
    """Do something while a reel is being uploaded for the first time, before it stands; return what came of it."""
    results: list = []

    def meanwhile(name: str) -> None:
        if "/reels/" in name and not results:
            results.append(None)
            results[0] = what()

    gcs.before_write = meanwhile
    return results


def test_of_two_attempts_at_a_video_the_slow_one_takes_the_reel_of_the_other(gcs, video, temporary):
    faster = during_the_first_upload(gcs, lambda: split(video))
    slow, was_there = split(video)
    ((fast, fast_was_there),) = faster
    assert (was_there, fast_was_there) == (True, False)
    assert slow.reel == fast.reel == f"{REEL}#{gcs.generation(f'{SETS}reels/red-1.arrow')}"
    assert slow.shots == fast.shots
    forget_copies(temporary)
    times = {round(time_s, 6) for time_s in Reel.open(slow.reel).times}
    assert len(times) == len(Reel.open(fast.reel).times) == 32
    (folder,) = temporary.glob("reelscribe-kept-*")
    assert [one.suffix for one in folder.iterdir()] == [""], "nothing but the copy is left behind"


def test_a_reel_that_is_replaced_is_still_read_by_the_clips_that_were_cut_by_it(gcs, video, temporary):
    first, _ = split(video)
    again = dataclasses.replace(video, earlier=Earlier(None, (), (), (), split_again=True, n_shots=2))
    second, was_there = split(again)
    assert not was_there and second.reel != first.reel
    assert Reel.open(first.reel).times == Reel.open(second.reel).times
    forget_copies(temporary)
    assert Reel.open(REEL).path == second.reel
    with pytest.raises(ReelError, match=rf"^no readable reel at {first.reel}: .*; run curate again to split the video"):
        Reel.open(first.reel)


def test_a_reel_of_another_version_that_was_faster_is_no_reel_of_this_one(gcs, video):
    theirs = during_the_first_upload(gcs, lambda: gcs.put(f"{SETS}reels/red-1.arrow", b"of another version"))
    with pytest.raises(StorageError, match=rf"^{REEL} is being replaced by another writer; try again$"):
        split(video)
    assert gcs.generation(f"{SETS}reels/red-1.arrow") == theirs[0]
    again, was_there = split(video)
    assert not was_there and len(again.shots) == 2


def test_a_reel_whose_upload_is_told_twice_is_taken_for_what_it_is(gcs, video):
    """The answer to the upload is lost, and its repetition finds itself in its way."""
    lost: list[str] = []

    def lose(name: str) -> None:
        if "/reels/" in name and not lost:
            lost.append(name)
            raise ConnectionAbortedError

    gcs.after_write = lose
    found, _ = split(video)
    assert found.reel == f"{REEL}#{gcs.generation(f'{SETS}reels/red-1.arrow')}"
    assert [name_of(path) for path in list_files(REELS)] == ["red-1.arrow"]


def test_the_copies_on_this_machine_of_a_reel_that_is_taken_down_go_with_it(gcs, tmp_path, temporary):
    from dataset_rows import video_rows
    from report_dataset import write_reel

    from transforms.committing import Committer
    from transforms.finalising import finalise

    with WriterLease(URI, "r1"):
        Committer(URI).commit([video_rows("a-1"), video_rows("b-2")])
        finalise(URI)
    for video_id in ("a-1", "b-2"):
        write_reel(tmp_path, video_id, 2.0, (64, 36))
        gcs.put(f"{SETS}reels/{video_id}.arrow", (tmp_path / "reels" / f"{video_id}.arrow").read_bytes())
        Reel.open(f"{URI}/reels/{video_id}.arrow")
    (folder,) = temporary.glob("reelscribe-kept-*")
    assert len(list(folder.iterdir())) == 2
    assert main(["takedown", URI, "--video", "b-2"]) == 0
    (left,) = folder.iterdir()
    version = objects.stat(f"{URI}/reels/a-1.arrow")
    assert str(left) == kept_copy(f"{URI}/reels/a-1.arrow", version)
