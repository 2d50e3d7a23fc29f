"""A folder of files is there as a whole or not at all, and nobody's files are overwritten."""

import hashlib
import json
import os

import pytest

from transforms.new_folders import FolderError, check_new, new_folder


def fill(output, names, content=b"rows"):
    with new_folder(str(output), "shards.json") as folder:
        for name in names:
            with folder.writing(name) as (file, entry):
                file.write(content)
                entry["rows"] = 1
        folder.finish({"format": "some"})


@pytest.fixture(params=["here", "gs://bucket"])
def root(request, tmp_path, gcs):
    return tmp_path if request.param == "here" else request.param


def _files(place):
    from transforms.files import list_files

    return sorted(path.rpartition("/")[2] for path in list_files(place, below=True))


def test_the_manifest_lists_the_files_with_their_digests(root):
    fill(f"{root}/out", ["b.tar", "a.tar"])
    from transforms.files import read

    assert json.loads(read(f"{root}/out/shards.json")) == {
        "format": "some",
        "files": [
            {"name": name, "rows": 1, "bytes": 4, "sha256": hashlib.sha256(b"rows").hexdigest()}
            for name in ("a.tar", "b.tar")
        ],
    }


def test_what_was_written_before_is_replaced_file_by_file(root):
    fill(f"{root}/out", ["a.tar", "b.tar"])
    check_new(f"{root}/out", "shards.json", f"{root}/set", overwrite=True)
    fill(f"{root}/out", ["a.tar", "c.tar"], b"more")
    assert _files(root) == ["a.tar", "c.tar", "shards.json"]


def test_what_fails_leaves_nothing_behind(root):
    with pytest.raises(OSError, match="No space"), new_folder(f"{root}/out", "shards.json") as folder:
        with folder.writing("a.tar") as (file, _):
            file.write(b"rows")
        with folder.writing("b.tar") as (file, _):
            raise OSError("No space left on device")
    assert _files(root) == []


def test_what_fails_here_leaves_what_was_there_before(tmp_path):
    fill(tmp_path / "out", ["a.tar"])
    with pytest.raises(OSError, match="No space"), new_folder(str(tmp_path / "out"), "shards.json") as folder:
        with folder.writing("a.tar") as (file, _):
            file.write(b"other")
        raise OSError("No space left on device")
    assert (tmp_path / "out" / "a.tar").read_bytes() == b"rows"
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize(
    ("output", "overwrite", "message"),
    [
        ("out", False, "out is there already; add --overwrite to replace it"),
        ("foreign", True, "foreign holds something else; take another --output"),
        ("mixed", True, "mixed also holds notes.txt, which would be lost; take another --output"),
        ("set/clips/out", True, "is the dataset's own"),
        ("set/media", True, "is the dataset's own"),
        ("set", True, "stands in .*set, which would be replaced"),
        (".", True, "stands in .*, which would be replaced"),
        ("set/../set/reels/x", True, "is the dataset's own"),
        ("file", True, "file is a file; --output is a folder"),
    ],
)
def test_a_folder_that_must_not_be_written_to_is_refused(tmp_path, output, overwrite, message):
    fill(tmp_path / "out", ["a.tar"])
    fill(tmp_path / "mixed", ["a.tar"])
    (tmp_path / "mixed" / "notes.txt").write_text("mine")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "set").mkdir()
    with pytest.raises(FolderError, match=message):
        check_new(str(tmp_path / output), "shards.json", str(tmp_path / "set"), overwrite=overwrite)


@pytest.mark.parametrize("output", ["new", "empty", "set/exports/new", "set-2"])
def test_a_folder_that_holds_nothing_may_be_written_to(tmp_path, output):
    (tmp_path / "empty").mkdir()
    (tmp_path / "set").mkdir()
    check_new(str(tmp_path / output), "shards.json", str(tmp_path / "set"))
    fill(tmp_path / output, ["a.tar"])
    assert sorted(os.listdir(tmp_path / output)) == ["a.tar", "shards.json"]


@pytest.mark.parametrize("output", ["gs://bucket/set/clips/x", "gs://bucket/set", "gs://bucket"])
def test_a_dataset_in_a_bucket_is_not_written_into(gcs, output):
    with pytest.raises(FolderError, match="dataset"):
        check_new(output, "shards.json", "gs://bucket/set")
