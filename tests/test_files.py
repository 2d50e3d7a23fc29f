"""The verbs of a dataset's files say the same of a directory as of a folder in Cloud Storage."""

import os

import pytest

from transforms.files import (
    check_folder,
    exists,
    join,
    list_files,
    name_of,
    read,
    reading,
    remove,
    title_of,
    write,
    writing,
)


@pytest.fixture(params=["directory", "bucket"])
def folder(request, tmp_path):
    """A folder that is not there yet."""
    if request.param == "directory":
        return str(tmp_path / "sets" / "demo")
    request.getfixturevalue("gcs")
    return "gs://bucket/sets/demo"


def test_a_file_that_was_written_is_there_and_reads_the_same(folder):
    path = join(folder, "runs", "r.json")
    assert not exists(path)
    write(path, b"{}")
    assert (exists(path), read(path), list_files(join(folder, "runs"))) == (True, b"{}", {path: 2})
    write(path, b"")
    assert (exists(path), read(path), list_files(join(folder, "runs"))) == (True, b"", {path: 0})


def test_a_folder_lists_its_own_files_by_path_and_those_below_when_asked_for(folder):
    names = [".lease", "clips/.aside.tmp", "clips/_delta_log/0.json", "clips/b.parquet", "clips/a.parquet", "clips.txt"]
    for size, name in enumerate(names):
        write(join(folder, name), b"x" * size)
    sizes = {join(folder, name): size for size, name in enumerate(names)}

    def of(*wanted):
        return [(join(folder, name), sizes[join(folder, name)]) for name in wanted]

    assert list(list_files(join(folder, "clips")).items()) == of(
        "clips/.aside.tmp", "clips/a.parquet", "clips/b.parquet"
    )
    assert list_files(folder) == dict(of(".lease", "clips.txt"))
    assert list_files(folder, below=True) == sizes
    assert list_files(folder + "/") == list_files(folder)


def test_where_there_is_no_folder_nothing_is_listed_and_nothing_exists(folder):
    assert list_files(folder) == {}
    assert list_files(folder, below=True) == {}
    write(join(folder, "demo-2", "a"), b"x")
    assert list_files(join(folder, "demo")) == {}, "a folder is no beginning of a name"
    assert not exists(join(folder, "demo-2")), "a folder is no file"


def test_a_block_that_raises_leaves_nothing_behind(folder):
    path = join(folder, "README.md")
    with pytest.raises(RuntimeError, match=r"^half-way$"), writing(path) as file:
        file.write(b"x" * 100_000)
        raise RuntimeError("half-way")
    assert list_files(folder, below=True) == {}


def test_a_block_that_raises_leaves_the_older_file(folder):
    path = join(folder, "README.md")
    write(path, b"older")
    with pytest.raises(KeyboardInterrupt), writing(path) as file:
        file.write(b"newer")
        raise KeyboardInterrupt
    assert read(path) == b"older"
    assert list_files(folder, below=True) == {path: 5}


def test_the_older_file_stands_until_the_block_ends(folder):
    path = join(folder, "README.md")
    write(path, b"older")
    with writing(path) as file:
        file.write(b"newer and longer")
        file.flush()
        assert read(path) == b"older"
    assert list_files(folder, below=True) == {path: 16}


def test_what_is_written_may_go_back_and_forth(folder):
    """As writers of Parquet and of zip files do."""
    path = join(folder, "a.bin")
    with writing(path) as file:
        file.write(b"0123456789")
        file.seek(2)
        file.write(b"XY")
        assert file.tell() == 4
    assert read(path) == b"01XY456789"


def test_more_than_one_request_takes_is_written_and_read_whole(folder):
    """Google's client sends 8 MiB at once, and reads 4."""
    path, content = join(folder, "large.bin"), os.urandom(9 << 20)
    write(path, content)
    assert read(path) == content
    with reading(path) as file:
        file.seek((4 << 20) - 5)
        assert file.read(10) == content[(4 << 20) - 5 : (4 << 20) + 5]


def test_a_file_can_be_sought_in(folder):
    path = join(folder, "a.bin")
    write(path, b"0123456789")
    with reading(path) as file:
        assert file.seek(0, os.SEEK_END) == 10
        assert file.read(1) == b""
        assert file.seek(-3, os.SEEK_END) == 7
        assert (file.read(2), file.tell()) == (b"78", 9)
        file.seek(1)
        assert file.read() == b"123456789"


def test_an_empty_file_reads_as_nothing(folder):
    path = join(folder, "empty")
    write(path, b"")
    with reading(path) as file:
        assert (file.read(), file.seek(0, os.SEEK_END)) == (b"", 0)


def test_a_missing_file_is_not_found(folder):
    path = join(folder, "runs", "r.json")
    with pytest.raises(FileNotFoundError, match=r"r\.json"):
        read(path)
    with pytest.raises(FileNotFoundError, match=r"r\.json"), reading(path) as file:
        file.seek(0, os.SEEK_END)


def test_a_file_that_goes_while_it_is_read_is_not_found_or_read_whole(folder):
    path = join(folder, "a.bin")
    write(path, os.urandom(9 << 20))
    try:
        with reading(path) as file:
            file.read(10)
            remove(path)
            assert len(file.read()) == (9 << 20) - 10
    except FileNotFoundError:
        assert not exists(path)


def test_an_error_of_the_block_is_not_taken_for_one_of_the_file(folder):
    path = join(folder, "a.bin")
    write(path, b"x")
    with pytest.raises(ZeroDivisionError), reading(path) as file:
        assert file.read() == b"x"
        raise ZeroDivisionError


def test_what_is_gone_may_be_removed_again(folder):
    kept, path = join(folder, "kept"), join(folder, "gone")
    for one in (kept, path):
        write(one, b"x")
    remove(path)
    remove(path)
    assert list_files(folder) == {kept: 1}


@pytest.mark.parametrize("name", ["ü.txt", "a b.json", "100%.json", "a%20b", "a#b", "a+b", "q?.json", "[x]*"])
def test_odd_names_are_names_like_others(folder, name):
    path = join(folder, name)
    write(path, b"odd")
    assert (list_files(folder), read(path), name_of(path)) == ({path: 3}, b"odd", name)
    remove(path)
    assert list_files(folder) == {}


@pytest.mark.parametrize(
    ("folder", "checked"),
    [
        ("out", "out"),
        ("out/", "out/"),
        ("../sets/a b#1", "../sets/a b#1"),
        ("/sets/ü", "/sets/ü"),
        ("gs://bucket", "gs://bucket"),
        ("gs://bucket/", "gs://bucket"),
        ("gs://bucket/sets/demo", "gs://bucket/sets/demo"),
        ("gs://bucket/sets/demo//", "gs://bucket/sets/demo"),
        (
            "gs://my-bucket.example.org/day=2024-05-06/v1.0_a+b~c",
            "gs://my-bucket.example.org/day=2024-05-06/v1.0_a+b~c",
        ),
        ("gs://bucket/...", "gs://bucket/..."),
    ],
)
def test_a_good_folder_loses_but_the_slashes_at_its_end(folder, checked):
    assert check_folder(folder) == checked


@pytest.mark.parametrize(
    "folder",
    [
        "gs://",
        "gs:///sets",
        "gs://Bucket/sets",
        "gs://bucket//sets",
        "gs://bucket/../other",
        "gs://bucket/sets/..",
        "gs://bucket/./sets",
        "gs://../sets",
        "gs://bucket/a b",
        "gs://bucket/a#1",
        "gs://bucket/a?b",
        "gs://bucket/a%20b",
        "gs://bucket/a%2e%2e",
        "gs://bucket/a*",
        "gs://bucket/[a]",
        "gs://bucket/{a}",
        "gs://bucket/a:b",
        "gs://bucket/a\\b",
        "gs://bucket/a\n",
        "gs://bucket/ü",
        "gs://user@bucket/a",
        "gs://bucket:80/a",
    ],
)
def test_a_folder_in_a_bucket_has_plain_letters_only(folder):
    with pytest.raises(ValueError, match=r"(?s)can't stand in .*; write gs://BUCKET/FOLDER in letters, digits"):
        check_folder(folder)


@pytest.mark.parametrize("folder", ["s3://bucket/a", "http://host/a", "GS://bucket/a", "file:///sets/a", "://"])
def test_an_address_of_another_kind_is_no_folder(folder):
    with pytest.raises(ValueError, match=r" is neither a directory nor gs://BUCKET/FOLDER$"):
        check_folder(folder)


@pytest.mark.parametrize(
    ("path", "name", "title"),
    [
        ("gs://bucket/sets/demo", "demo", "demo"),
        ("gs://bucket/sets/demo/", "", "demo"),
        ("gs://bucket", "bucket", "bucket"),
        ("/sets/demo", "demo", "demo"),
        ("/sets/demo/", "", "demo"),
        ("demo", "demo", "demo"),
    ],
)
def test_the_last_part_of_a_path_is_its_name(path, name, title):
    assert (name_of(path), title_of(path)) == (name, title)


def test_the_directory_one_stands_in_has_its_own_title(tmp_path, monkeypatch):
    (tmp_path / "talks").mkdir()
    monkeypatch.chdir(tmp_path / "talks")
    assert [title_of(one) for one in (".", "", "../talks/.")] == ["talks", "talks", "talks"]


def test_paths_are_joined_by_their_kind(tmp_path):
    assert join("gs://bucket/sets/", "runs", "r.json") == "gs://bucket/sets/runs/r.json"
    assert join("gs://bucket", "runs") == "gs://bucket/runs"
    assert join(tmp_path, "runs", "r.json") == os.path.join(str(tmp_path), "runs", "r.json")
