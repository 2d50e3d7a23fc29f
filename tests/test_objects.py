"""Objects of Cloud Storage, through Google's own client and an emulator in this process."""

import errno
import os
import shutil
import subprocess
import sys

import pytest

from transforms import objects
from transforms.objects import (
    NoCredentials,
    ObjectChanged,
    Refused,
    StorageError,
    Version,
    download,
    list_objects,
    literal_prefix,
    parts_of,
    pattern_of,
    read_bytes,
    stat,
)

ODD_NAMES = ["a b#c?.mp4", "Ünï/视频 100%.mp4", "brackets[1].mp4", "a//b.mp4", "plus+and&amp.mp4"]


def test_an_object_is_looked_at_and_an_absent_one_is_none(gcs):
    generation = gcs.put("a.mp4", b"12345")
    assert stat("gs://bucket/a.mp4") == Version(generation, 5)
    assert stat("gs://bucket/gone.mp4") is None
    assert stat("gs://no-such-bucket/a.mp4") is None


def test_a_new_version_is_another_generation(gcs):
    first, second = gcs.put("a.mp4", b"one"), gcs.put("a.mp4", b"two")
    assert stat("gs://bucket/a.mp4") == Version(second, 3) and int(second) > int(first)


def test_a_listing_takes_any_prefix_and_leaves_out_placeholders_of_folders(gcs):
    names = ["up/", "up/a.mp4", "up/ab.mp4", "up/sub/", "up/sub/c.mp4", "other.mp4"]
    versions = {f"gs://bucket/{name}": Version(gcs.put(name, name), len(name)) for name in names}
    inside = ["gs://bucket/up/a.mp4", "gs://bucket/up/ab.mp4", "gs://bucket/up/sub/c.mp4"]
    assert list_objects("gs://bucket/up/") == {uri: versions[uri] for uri in inside}
    assert list(list_objects("gs://bucket/up/a")) == inside[:2]
    assert list(list_objects("gs://bucket/up/", children_only=True)) == inside[:2]
    assert sorted(list_objects("gs://bucket/")) == ["gs://bucket/other.mp4", *inside]
    assert list_objects("gs://bucket/nothing/") == {}


def test_a_listing_of_a_bucket_that_is_not_there_says_so(gcs):
    with pytest.raises(FileNotFoundError, match=r"^there is no bucket gs://no-such-bucket$"):
        list_objects("gs://no-such-bucket/up/")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_names_like_others(gcs, tmp_path, name):
    uri, version = f"gs://bucket/{name}", Version(gcs.put(name, b"content"), 7)
    assert stat(uri) == version
    assert list_objects("gs://bucket/") == {uri: version}
    assert read_bytes(uri, version.generation, 7) == b"content"
    download(uri, version, str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("gs://bucket/a/b.mp4", ("bucket", "a/b.mp4")),
        ("gs://my-bucket.example.org", ("my-bucket.example.org", "")),
        ("gs://bucket/", ("bucket", "")),
        ("gs://bucket//a", ("bucket", "/a")),
        ("gs:///a.mp4", None),
        ("gs://Bucket/a.mp4", None),
        ("gs://b*/a.mp4", None),
        ("s3://bucket/a.mp4", None),
    ],
)
def test_a_uri_is_a_bucket_and_a_name(uri, parts):
    if parts is None:
        with pytest.raises(ValueError, match="names no bucket; write gs://BUCKET/NAME"):
            parts_of(uri)
    else:
        assert parts_of(uri) == parts


@pytest.mark.parametrize(
    ("glob", "matches", "differs"),
    [
        ("up/*.mp4", ["up/a.mp4", "up/.mp4"], ["up/sub/a.mp4", "up/a.mp4x", "a.mp4"]),
        ("up/**/*.mp4", ["up/a.mp4", "up/x/y/a.mp4"], ["upx/a.mp4"]),
        ("up/**", ["up/a", "up/x/y"], ["up"]),
        ("a?.mp4", ["a1.mp4", "aü.mp4"], ["a.mp4", "a/.mp4", "a12.mp4"]),
        ("a[0-2]*", ["a1", "a2xyz"], ["a3", "a/"]),
        ("a[!0-2].b", ["a3.b"], ["a1.b", "a/.b"]),
        ("a[]x].b", ["a].b", "ax.b"], ["a.b"]),
        ("a[1.b", ["a[1.b"], ["a1.b"]),
        ("a.b+(c)", ["a.b+(c)"], ["aXb+(c)", "a.bb(c)"]),
        ("a\n*", ["a\nb"], ["a"]),
    ],
)
def test_patterns_match_as_in_a_shell(glob, matches, differs):
    assert [name for name in [*matches, *differs] if pattern_of(glob).fullmatch(name)] == matches


@pytest.mark.parametrize(
    ("pattern", "prefix"),
    [
        ("gs://b/up/*.mp4", "gs://b/up/"),
        ("gs://b/up/a*.mp4", "gs://b/up/a"),
        ("gs://b/up/a.m*", "gs://b/up/a."),
        ("gs://b/up/a.b.m?4", "gs://b/up/a.b."),
        ("gs://b/day.1/x[12].mp4", "gs://b/day.1/x"),
        ("gs://my.bucket/*", "gs://my.bucket/"),
        ("gs://b/whole.mp4", "gs://b/whole."),
    ],
)
def test_what_is_listed_for_a_pattern_holds_the_side_cars_of_its_matches(pattern, prefix):
    assert literal_prefix(pattern) == prefix


def test_a_version_is_copied_whole_under_its_name(gcs, tmp_path):
    content = os.urandom(3_000_000)
    version = Version(gcs.put("a.mp4", content), len(content))
    download("gs://bucket/a.mp4", version, str(tmp_path / "a.mp4"))
    assert (tmp_path / "a.mp4").read_bytes() == content
    assert os.listdir(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_an_object_that_was_overwritten_is_never_copied_as_the_version_that_was_listed(gcs, tmp_path, when, lenient):
    gcs.lenient = lenient  # a server that ignores the condition, as emulators do
    version = Version(gcs.put("a.mp4", b"first"), 5)
    if when == "before":
        gcs.put("a.mp4", b"second")
    else:
        gcs.before_read = lambda name: gcs.put(name, b"second")
    with pytest.raises(ObjectChanged, match=r"^gs://bucket/a.mp4 changed since it was listed$"):
        download("gs://bucket/a.mp4", version, str(tmp_path / "a.mp4"))
    assert len(gcs.asked) == (2 if lenient else 1), "no content is sent by a server that keeps the condition"
    with pytest.raises(ObjectChanged):
        read_bytes("gs://bucket/a.mp4", version.generation, 100)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_an_object_that_was_removed_is_not_found(gcs, tmp_path, when):
    version = Version(gcs.put("a.mp4", b"first"), 5)
    if when == "before":
        gcs.remove("a.mp4")
    else:
        gcs.before_read = gcs.remove
    with pytest.raises(FileNotFoundError, match=r"^there is no gs://bucket/a.mp4$"):
        download("gs://bucket/a.mp4", version, str(tmp_path / "a.mp4"))
    assert os.listdir(tmp_path) == []


def test_no_more_is_read_of_a_small_object_than_it_may_have(gcs):
    generation = gcs.put("a.json", b"x" * 11)
    assert read_bytes("gs://bucket/a.json", generation, 11) == b"x" * 11
    with pytest.raises(ValueError, match=r"^gs://bucket/a.json is larger than 10 bytes$"):
        read_bytes("gs://bucket/a.json", generation, 10)
    assert read_bytes("gs://bucket/empty.vtt", gcs.put("empty.vtt", b""), 10) == b""


def test_a_copy_that_takes_too_long_is_given_up(gcs, tmp_path):
    version = Version(gcs.put("a.mp4", b"first"), 5)
    with pytest.raises(StorageError, match=r"^gs://bucket/a.mp4 was not copied here within -1 s$"):
        download("gs://bucket/a.mp4", version, str(tmp_path / "a.mp4"), deadline_s=-1)
    assert os.listdir(tmp_path) == []


def test_a_disk_without_room_is_told_before_the_copy_begins(gcs, tmp_path):
    size = shutil.disk_usage(tmp_path).free * 2
    with pytest.raises(OSError, match=r"has no room for gs://bucket/a.mp4 .*; free some, or set TMPDIR") as caught:
        download("gs://bucket/a.mp4", Version(gcs.put("a.mp4", b"first"), size), str(tmp_path / "a.mp4"))
    assert caught.value.errno == errno.ENOSPC
    assert [path for _, path in gcs.asked] == []


def test_missing_rights_and_a_service_that_stumbles_are_told_apart(gcs, monkeypatch):
    monkeypatch.setattr(objects, "_RETRY_S", 0.1)
    gcs.refuse = 403
    with pytest.raises(Refused, match=r"^gs://bucket/a.mp4 may not be read \(403 .*objectViewer on the bucket$"):
        stat("gs://bucket/a.mp4")
    gcs.refuse = 503
    with pytest.raises(StorageError, match=r"^gs://bucket/up/ cannot be read now: "):
        list_objects("gs://bucket/up/")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"^gs://bucket/a.mp4 cannot be read now: Timeout of 0.1s exceeded"):
        read_bytes("gs://bucket/a.mp4", "1", 10)


def test_a_stumble_is_not_told_at_all(gcs):
    generation, times = gcs.put("a.mp4", b"first"), []

    def stumble(name):
        times.append(name)
        gcs.refuse = 503 if len(times) == 1 else None

    gcs.before_read = stumble
    assert read_bytes("gs://bucket/a.mp4", generation, 5) == b"first"
    assert times == ["a.mp4", "a.mp4"]


def test_a_copy_goes_on_where_the_connection_broke_off(gcs, tmp_path):
    content = os.urandom(300_000)
    version = Version(gcs.put("a.mp4", content), len(content))
    gcs.break_off_after = 100_000
    download("gs://bucket/a.mp4", version, str(tmp_path / "a.mp4"))
    assert (tmp_path / "a.mp4").read_bytes() == content
    assert len([path for _, path in gcs.asked if path.startswith("/download/")]) == 2


def test_without_credentials_the_command_that_gives_them_is_told(monkeypatch):
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    objects._client.cache_clear()
    with pytest.raises(NoCredentials, match="run: gcloud auth application-default login"):
        stat("gs://bucket/a.mp4")


def test_without_the_client_library_the_package_is_named():
    barred = "import sys; sys.modules['google.cloud.storage'] = None\n"
    asked = "from transforms.objects import stat\ntry: stat('gs://bucket/a')\n"
    told = "except ModuleNotFoundError as error: print(error.name)"
    said = subprocess.run([sys.executable, "-c", barred + asked + told], capture_output=True, text=True, timeout=60)
    assert said.stdout == "google.cloud.storage\n", said.stderr
