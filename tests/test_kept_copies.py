"""Copies of objects are kept on this machine: fetched once, within bounds, and nobody else's."""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from transforms import kept_copies, objects
from transforms.kept_copies import keep, kept_copy, new_copy
from transforms.objects import ObjectChanged, Version

URI = "gs://bucket/reels/a.arrow"
NAME = "reels/a.arrow"


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """The folder of the copies, for this test alone; it is not there yet."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"reelscribe-kept-{os.getuid()}"


def put(gcs, name: str, content: bytes) -> tuple[str, Version]:
    return f"gs://bucket/{name}", Version(gcs.put(name, content), len(content))


def fetched(gcs) -> list[str]:
    """The names of the objects whose content was asked for."""
    return [path.rpartition("/")[2] for method, path in gcs.asked if path.startswith("/download/")]


def kept(folder) -> dict[str, int]:
    """The names and sizes of what lies in the folder."""
    return {path.name: path.stat().st_size for path in folder.iterdir()}


def content_of(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def age(path: str, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_copy_is_fetched_once_a_version(gcs):
    uri, first = put(gcs, NAME, b"one")
    path = kept_copy(uri, first)
    assert content_of(path) == b"one"
    assert kept_copy(uri, first) == path
    assert len(fetched(gcs)) == 1
    second = Version(gcs.put(NAME, b"three"), 5)
    newer = kept_copy(uri, second)
    assert newer != path and content_of(newer) == b"three"
    assert kept_copy(uri, first) == path, "an older version is still here, though the bucket has it no more"
    assert len(fetched(gcs)) == 2


def test_a_size_that_is_not_known_is_no_obstacle(gcs):
    uri, version = put(gcs, NAME, b"one")
    assert content_of(kept_copy(uri, Version(version.generation, 0))) == b"one"


def test_another_process_takes_the_copy_that_is_there(gcs, tmp_path):
    uri, version = put(gcs, NAME, b"one")
    asked = "from transforms.objects import Version\nfrom transforms.kept_copies import kept_copy\n"
    asked += f"print(kept_copy({uri!r}, {version!r}))"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, env=environment, timeout=120)
    assert told.returncode == 0, told.stderr
    assert kept_copy(uri, version) == told.stdout.strip()
    assert len(fetched(gcs)) == 1


def test_many_at_once_all_get_a_whole_copy_and_one_stays(gcs, folder):
    content = os.urandom(2 << 20)
    uri, version = put(gcs, NAME, content)
    found: list[bytes] = []

    def fetch() -> None:
        with open(kept_copy(uri, version), "rb") as file:
            found.append(file.read())

    threads = [threading.Thread(target=fetch) for _ in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert found == [content] * 6
    assert list(kept(folder).values()) == [len(content)]


def test_the_longest_untouched_go_first_when_there_is_no_room_and_never_the_newest(gcs, folder, monkeypatch):
    monkeypatch.setattr(kept_copies, "KEPT_BYTES", 25)
    copies = [put(gcs, f"reels/{name}.arrow", name.encode() * 10) for name in "abc"]
    paths = [kept_copy(*one) for one in copies[:2]]
    age(paths[0], 20)
    age(paths[1], 10)
    kept_copy(*copies[0])  # Looked at again: now the other one is older.
    paths.append(kept_copy(*copies[2]))
    assert [os.path.exists(path) for path in paths] == [True, False, True]
    large = kept_copy(*put(gcs, "reels/large.arrow", b"x" * 100))
    assert [os.path.join(folder, name) for name in kept(folder)] == [large]
    assert kept_copy(*copies[1]) == paths[1], "what was swept away is fetched again"
    assert fetched(gcs)[-1] == "reels%2Fb.arrow"


def test_whoever_has_a_copy_open_keeps_it(gcs, monkeypatch):
    monkeypatch.setattr(kept_copies, "KEPT_BYTES", 15)
    path = kept_copy(*put(gcs, "reels/a.arrow", b"a" * 10))
    with open(path, "rb") as file:
        age(path, 10)
        kept_copy(*put(gcs, "reels/b.arrow", b"b" * 10))
        assert not os.path.exists(path)
        assert file.read() == b"a" * 10


def test_a_reel_that_is_open_survives_that_its_copy_is_swept_away(gcs, tmp_path, monkeypatch):
    from report_dataset import write_reel

    from transforms.reel import Reel

    write_reel(tmp_path, "a", 4.0, (64, 36))
    local = tmp_path / "reels" / "a.arrow"
    gcs.put(NAME, local.read_bytes())
    monkeypatch.setattr(kept_copies, "KEPT_BYTES", 1)
    reel, its_twin = Reel.open(URI), Reel.open(str(local))
    for path in (tmp_path / f"reelscribe-kept-{os.getuid()}").iterdir():
        age(str(path), 10)
    kept_copy(*put(gcs, "reels/b.arrow", b"b" * 10))
    assert len(list((tmp_path / f"reelscribe-kept-{os.getuid()}").iterdir())) == 1
    assert reel.jpegs(range(len(reel.times))) == its_twin.jpegs(range(len(its_twin.times)))


def test_frames_of_one_reel_are_remembered_however_often_it_is_asked_for(gcs, tmp_path):
    """What a reel's frames are remembered under must not change when its copy is looked at."""
    from report_dataset import write_reel

    from model_handlers.frames import open_reel

    write_reel(tmp_path, "a", 4.0, (64, 36))
    gcs.put(NAME, (tmp_path / "reels" / "a.arrow").read_bytes())
    first = open_reel(URI)
    assert open_reel(URI) is first
    assert open_reel(first.key[0]) is first, "nor by the path with its generation"


def test_a_copy_that_was_made_here_is_kept_without_asking(gcs, folder):
    with new_copy() as aside:
        assert os.path.dirname(aside) == str(folder) and not os.path.exists(aside)
        with open(aside, "wb") as file:
            file.write(b"made here")
        generation = objects.upload(aside, URI, objects.ABSENT)
        keep(aside, URI, generation)
    assert content_of(kept_copy(URI, Version(generation, 9))) == b"made here"
    assert fetched(gcs) == []


def test_what_was_not_kept_in_the_end_is_removed(folder):
    with pytest.raises(KeyError), new_copy() as aside:
        with open(aside, "wb") as file:
            file.write(b"half")
        raise KeyError
    assert kept(folder) == {}


@pytest.mark.parametrize("name", ["0123.tmp", "0123.tmp.part", ".0123.tmp.4711.tmp"])
def test_what_a_killed_process_left_goes_after_an_hour(gcs, folder, name):
    """A copy that was being fetched, and a reel that was being written."""
    with new_copy():
        pass
    for age_s, prefix in ((3500, ""), (3700, "f")):
        path = folder / (f".f{name[1:]}" if prefix and name[0] == "." else prefix + name)
        path.write_bytes(b"x")
        age(str(path), age_s)
    kept_copy(*put(gcs, NAME, b"one"))
    assert sorted(size for size in kept(folder).values()) == [1, 3]
    assert (folder / name).exists()


def test_what_is_being_fetched_is_not_swept_away(gcs, folder, monkeypatch):
    """Another process looks for room while this one's copy, of a slow server say, has no name yet."""
    monkeypatch.setattr(kept_copies, "KEPT_BYTES", 1)
    uri, version = put(gcs, NAME, os.urandom(3 << 20))
    other = put(gcs, "reels/other.arrow", b"other")
    part = threading.Event()

    def meanwhile(name: str) -> None:
        if name == NAME and not part.is_set():
            part.set()
            for path in folder.iterdir():
                age(str(path), 60)
            kept_copy(*other)

    gcs.before_read = meanwhile
    path = kept_copy(uri, version)
    assert os.path.getsize(path) == 3 << 20


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_folder_that_others_can_look_into_is_refused(gcs, folder, mode):
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(PermissionError, match="must be a directory that is yours alone; remove it, or set TMPDIR"):
        kept_copy(*put(gcs, NAME, b"one"))
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("what", ["link", "file", "dangling link"])
def test_what_is_no_folder_of_ones_own_is_refused(gcs, folder, what, tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    if what == "file":
        folder.write_text("")
    else:
        folder.symlink_to(tmp_path / ("elsewhere" if what == "link" else "nowhere"))
    with pytest.raises(PermissionError, match="must be a directory that is yours alone; remove it, or set TMPDIR"):
        kept_copy(*put(gcs, NAME, b"one"))
    assert os.listdir(tmp_path / "elsewhere") == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(gcs, folder):
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)
    with pytest.raises(PermissionError, match="must be a directory that is yours alone"):
        kept_copy(*put(gcs, NAME, b"one"))


def test_the_folder_is_made_for_its_owner_alone_whatever_the_mask(gcs, folder):
    before = os.umask(0)
    try:
        kept_copy(*put(gcs, NAME, b"one"))
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_disk_without_room_is_told_and_leaves_nothing(gcs, folder):
    uri, version = put(gcs, NAME, b"one")
    size = shutil.disk_usage(tempfile.gettempdir()).free * 2
    with pytest.raises(OSError, match=rf"has no room for {URI} .*; free some, or set TMPDIR") as caught:
        kept_copy(uri, Version(version.generation, size))
    assert (caught.value.errno, kept(folder)) == (errno.ENOSPC, {})


def test_copies_make_room_for_what_is_fetched_next_on_a_small_disk(gcs, folder, monkeypatch):
    """A worker's disk for temporary files may be smaller than KEPT_BYTES: its copies are not what fills it."""
    disk, answer = 50, type(shutil.disk_usage("/"))

    def usage(path: str):
        used = sum(kept(folder).values())
        return answer(disk, used, disk - used)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    for number in range(10):
        path = kept_copy(*put(gcs, f"reels/{number}.arrow", b"x" * 20))
        assert os.path.getsize(path) == 20


def test_an_object_that_is_replaced_before_or_while_it_is_fetched_is_never_kept(gcs, folder):
    uri, version = put(gcs, NAME, b"one")
    gcs.put(NAME, b"two")
    with pytest.raises(ObjectChanged):
        kept_copy(uri, version)
    version = Version(gcs.generation(NAME), 3)
    gcs.lenient, gcs.before_read = True, lambda name: gcs.put(name, b"six")
    with pytest.raises(ObjectChanged):
        kept_copy(uri, version)
    assert kept(folder) == {}
    gcs.before_read = lambda name: None
    gcs.remove(NAME)
    with pytest.raises(FileNotFoundError, match=rf"^there is no {URI}$"):
        kept_copy(uri, version)
    assert kept(folder) == {}


def test_a_copy_swept_away_the_moment_it_is_wanted_is_fetched_again(gcs, monkeypatch):
    uri, version = put(gcs, NAME, b"one")
    os.unlink(kept_copy(uri, version))
    assert content_of(kept_copy(uri, version)) == b"one"
    assert len(fetched(gcs)) == 2
