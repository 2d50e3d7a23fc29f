"""Objects are written and deleted whole, on a condition, and the service may stumble meanwhile."""

import os
import threading
import time

import pytest

from transforms import objects
from transforms.objects import (
    ABSENT,
    ObjectChanged,
    Refused,
    StorageError,
    Version,
    delete,
    list_objects,
    read_bytes,
    stat,
    upload,
    write,
    writing,
)

URI = "gs://bucket/sets/a.json"
NAME = "sets/a.json"


def _written(uri: str, content: bytes, replacing: str | None, folder) -> str:
    return write(uri, content, replacing)


def _uploaded(uri: str, content: bytes, replacing: str | None, folder) -> str:
    (folder / "file").write_bytes(content)
    return upload(str(folder / "file"), uri, replacing)


@pytest.fixture(params=[_written, _uploaded])
def put(request, tmp_path):
    """Both ways to write an object, as put(content, replacing)."""
    return lambda content, replacing=None: request.param(URI, content, replacing, tmp_path)


def content_of(generation: str) -> bytes:
    return read_bytes(URI, generation, 1 << 24)


def test_what_is_written_has_the_generation_that_is_returned(gcs, put):
    first = put(b"one")
    assert stat(URI) == Version(first, 3)
    second = put(b"three")
    assert stat(URI) == Version(second, 5) and int(second) > int(first)
    assert content_of(second) == b"three"


def test_what_must_be_absent_is_written_once(gcs, put):
    generation = put(b"mine", ABSENT)
    with pytest.raises(ObjectChanged, match=rf"^{URI} changed since it was listed$"):
        put(b"theirs", ABSENT)
    assert stat(URI) == Version(generation, 4)
    delete(URI)
    assert content_of(put(b"again", ABSENT)) == b"again"


def test_only_the_generation_that_is_named_is_replaced(gcs, put):
    first = put(b"one", ABSENT)
    second = put(b"two", first)
    for wrong in (first, str(int(second) + 1)):
        with pytest.raises(ObjectChanged):
            put(b"three", wrong)
    gcs.remove(NAME)
    with pytest.raises(ObjectChanged):
        put(b"three", second)
    assert gcs.names() == []


def test_one_of_many_writers_at_once_wins(gcs):
    before, won, lost = write(URI, b"before"), [], []

    def race(number: int) -> None:
        try:
            won.append((write(URI, b"%d" % number, before), b"%d" % number))
        except ObjectChanged:
            lost.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    ((generation, content),) = won
    assert (len(lost), stat(URI), content_of(generation)) == (7, Version(generation, 1), content)


def test_more_than_one_request_takes_keeps_its_condition(gcs, put):
    """Beyond 8 MiB Google's client begins an upload first; the condition must hold at its end, too."""
    content = os.urandom(9 << 20)
    generation = put(content, ABSENT)
    assert content_of(generation) == content
    gcs.before_write = lambda name: gcs.put(name, b"faster")
    with pytest.raises(ObjectChanged):
        put(content, generation)
    assert stat(URI) == Version(gcs.generation(NAME), 6)


def test_a_generation_that_is_named_is_the_only_one_deleted(gcs):
    first = write(URI, b"one")
    second = write(URI, b"two")
    with pytest.raises(ObjectChanged, match=rf"^{URI} changed since it was listed$"):
        delete(URI, first)
    assert NAME in gcs
    delete(URI, second)
    delete(URI, second)
    delete(URI)
    assert gcs.names() == []


def test_a_block_that_raises_sends_nothing(gcs):
    with pytest.raises(KeyError), writing(URI) as file:
        file.write(b"x" * 100)
        raise KeyError
    assert gcs.asked == []


def answers_lost(gcs, times: int) -> list[str]:
    """Lose the answers to the next so many writes, after they were stored."""
    lost: list[str] = []

    def lose(name: str) -> None:
        if len(lost) < times:
            lost.append(name)
            raise ConnectionAbortedError

    gcs.after_write = lose
    return lost


def test_a_write_whose_answer_is_lost_is_repeated(gcs, put):
    lost = answers_lost(gcs, 1)
    generation = put(b"once")
    assert (lost, stat(URI)) == ([NAME], Version(generation, 4))


def test_a_repeated_write_finds_itself_in_its_way_and_leaves_that_to_the_caller(gcs, put):
    """Nobody but the caller can tell whether what is there is what it wrote."""
    answers_lost(gcs, 1)
    with pytest.raises(ObjectChanged):
        put(b"mine", ABSENT)
    assert content_of(gcs.generation(NAME)) == b"mine"


def test_a_request_that_never_arrives_is_repeated_with_its_condition(gcs, put):
    seen: list[str] = []

    def break_off(name: str) -> None:
        seen.append(name)
        if len(seen) == 1:
            raise ConnectionAbortedError

    gcs.before_write = break_off
    generation = put(b"mine", ABSENT)
    assert (seen, stat(URI)) == ([NAME, NAME], Version(generation, 4))


@pytest.mark.parametrize("lost", ["request", "answer"])
def test_a_block_that_is_sent_again_is_sent_from_its_beginning(gcs, lost):
    seen: list[str] = []

    def break_off(name: str) -> None:
        seen.append(name)
        if len(seen) == 1:
            raise ConnectionAbortedError

    setattr(gcs, "before_write" if lost == "request" else "after_write", break_off)
    content = os.urandom(300_000)
    with writing(URI) as file:
        file.write(content)
        file.seek(17)
    assert (seen, content_of(gcs.generation(NAME))) == ([NAME, NAME], content)


def test_missing_rights_name_the_role_that_gives_them(gcs, put):
    generation = write(URI, b"x")
    gcs.refuse = 403
    with pytest.raises(
        Refused, match=rf"^{URI} may not be written \(403 .*; it takes the role roles/storage.objectUser"
    ):
        put(b"y")
    with pytest.raises(
        Refused, match=rf"^{URI} may not be deleted \(403 .* role roles/storage.objectUser on the bucket$"
    ):
        delete(URI)
    with pytest.raises(
        Refused, match=rf"^{URI} may not be read \(403 .* role roles/storage.objectViewer on the bucket$"
    ):
        read_bytes(URI, generation, 1)
    gcs.refuse = None
    assert content_of(generation) == b"x"


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_service_that_stumbles_for_a_while_is_waited_for(gcs, put, status):
    gcs.refuse = status
    threading.Timer(0.3, lambda: setattr(gcs, "refuse", None)).start()
    generation = put(b"in the end", ABSENT)
    assert stat(URI) == Version(generation, 10)
    gcs.refuse = status
    threading.Timer(0.3, lambda: setattr(gcs, "refuse", None)).start()
    delete(URI, generation)
    assert gcs.names() == []


def test_a_service_that_stays_down_is_told_in_one_line(gcs, put, monkeypatch):
    monkeypatch.setattr(objects, "_RETRY_S", 0.2)
    gcs.refuse = 503
    began = time.monotonic()
    with pytest.raises(StorageError, match=rf"^{URI} cannot be written now: [^\n]+$"):
        put(b"x", ABSENT)
    with pytest.raises(StorageError, match=rf"^{URI} cannot be deleted now: [^\n]+$"):
        delete(URI)
    with pytest.raises(StorageError, match=rf"^{URI} cannot be written now: [^\n]+$"), writing(URI) as file:
        file.write(b"x")
    assert time.monotonic() - began < 10


def test_a_service_that_does_not_answer_runs_into_a_time_limit(gcs, put, monkeypatch):
    monkeypatch.setattr(objects, "_TIMEOUT_S", (0.2, 0.2))
    monkeypatch.setattr(objects, "_RETRY_S", 0.5)
    gcs.stall = 1.5
    began = time.monotonic()
    with pytest.raises(StorageError, match=rf"^{URI} cannot be written now: [^\n]+$"):
        put(b"x")
    assert time.monotonic() - began < 5
    gcs.stall = 0.0


def test_no_bucket_is_told_by_its_name(gcs, put):
    with pytest.raises(FileNotFoundError, match=r"^there is no gs://no-such-bucket/a$"):
        write("gs://no-such-bucket/a", b"x")
    with pytest.raises(FileNotFoundError, match=r"^there is no gs://no-such-bucket/a$"):
        write("gs://no-such-bucket/a", b"x", ABSENT)
    with pytest.raises(FileNotFoundError), writing("gs://no-such-bucket/a") as file:
        file.write(b"x")
    delete("gs://no-such-bucket/a")
    with pytest.raises(ValueError, match="names no bucket; write gs://BUCKET/NAME"):
        write("gs://B/a", b"x")


def test_a_file_that_is_not_there_is_not_taken_for_an_object(gcs, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.arrow"):
        upload(str(tmp_path / "nowhere.arrow"), URI)
    assert gcs.names() == []


def test_readers_see_the_older_object_until_the_newer_is_whole(gcs, put):
    older = put(b"older")
    seen: list[tuple[Version | None, bytes]] = []
    gcs.before_write = lambda name: seen.append((stat(URI), content_of(older)))
    newer = put(b"newer one")
    assert seen == [(Version(older, 5), b"older")]
    assert list_objects("gs://bucket/sets/") == {URI: Version(newer, 9)}
