"""The Cloud Storage of the tests keeps the promises of the real one, to Google's client and to deltalake."""

import concurrent.futures
import http.client
import os
import pathlib
import re
import subprocess
import sys
import threading
import time

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError
from gcs_xml import Told

ROWS = pa.schema([("video_id", pa.string()), ("n", pa.int64())])
TABLE = "gs://bucket/ds/clips"


@pytest.fixture
def bucket(gcs):
    """Google's client of the bucket that `gcs` serves."""
    from google.cloud import storage

    return storage.Client(project="test").bucket("bucket")


def rows(*numbers: int) -> pa.Table:
    return pa.table({"video_id": [f"v{n}" for n in numbers], "n": list(numbers)}, schema=ROWS)


def put_if_absent(gcs, bucket, api: str, content: bytes) -> str:
    """Write gs://bucket/lock if nobody has; tell who won."""
    from google.api_core.exceptions import PreconditionFailed
    from google.cloud.storage.exceptions import InvalidResponse

    try:
        if api == "xml":
            status, _, _ = gcs.xml("PUT", "lock", content, x_goog_if_generation_match="0")
            return {200: "won", 412: "lost"}[status]
        if api == "json":
            bucket.blob("lock").upload_from_string(content, if_generation_match=0)
        else:
            with bucket.blob("lock").open("wb", if_generation_match=0) as file:
                file.write(content)
        return "won"
    except PreconditionFailed:
        return "lost"
    except InvalidResponse as error:  # what a file that is open for writing raises
        assert error.response.status_code == 412
        return "lost"


@pytest.mark.parametrize("apis", [["xml"], ["json"], ["resumable"], ["xml", "json", "resumable"]])
def test_of_those_who_put_if_absent_at_once_exactly_one_wins(gcs, bucket, apis):
    who = apis * (6 // len(apis))
    all_here = threading.Barrier(len(who), timeout=30)
    gcs.before_write = lambda name: all_here.wait()  # each has been let in before any is stored
    with concurrent.futures.ThreadPoolExecutor(len(who)) as pool:
        asked = [pool.submit(put_if_absent, gcs, bucket, api, f"{n}".encode()) for n, api in enumerate(who)]
        ends = [each.result() for each in asked]
    assert sorted(ends) == ["lost"] * (len(who) - 1) + ["won"]
    assert gcs.xml("GET", "lock")[2] == str(ends.index("won")).encode()


def test_looking_and_writing_are_one_step_of_the_store(monkeypatch):
    pytest.importorskip("gcp_storage_emulator", reason="needs gcp-storage-emulator of the extra dev")
    from gcs_store import Store

    store = Store("http://nowhere", lambda name: None, lambda name: None)
    store.create_bucket("bucket", {})
    pause = store.safe_id  # called between the look and the write: others get their turn
    monkeypatch.setattr(store, "safe_id", lambda name: time.sleep(0.02) or pause(name))
    all_here = threading.Barrier(4, timeout=30)

    def write(content: bytes) -> str:
        store.wanted = "0"
        all_here.wait()
        try:
            store.write("bucket", "lock", content, "text/plain")
        except Told as told:
            return str(told.status)
        return "won"

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(write, [b"a", b"b", b"c", b"d"])) == ["412", "412", "412", "won"]


def test_what_is_written_by_one_api_is_read_by_the_other(gcs, bucket):
    content = bytes(range(256)) * 50 + b"\r\n\r--x--\n"
    for name in ["a b#c?.bin", "Ünï/100%.bin", "a//b", "a/b", "../up", "x&<y>"]:
        blob = bucket.blob(name)
        blob.upload_from_string(content + name.encode())
        status, headers, body = gcs.xml("GET", name.replace("?", "%3F")) if "?" not in name else (200, None, None)
        if body is not None:
            assert (status, body) == (200, content + name.encode())
            assert headers["x-goog-generation"] == str(blob.generation) == gcs.generation(name)
            assert gcs.xml("PUT", name, b"by xml")[0] == 200
            assert bucket.blob(name).download_as_bytes() == b"by xml"  # `blob` would ask for the generation it wrote
    named = re.findall(rb"<Key>(.*?)</Key>", gcs.xml("GET", "?list-type=2")[2])
    assert [n.decode() for n in named] == ["../up", "a b#c?.bin", "a//b", "a/b", "x&amp;&lt;y&gt;", "Ünï/100%.bin"]
    assert [blob.name for blob in bucket.list_blobs()] == gcs.names()


def test_files_go_up_and_come_down_whole_by_every_way_of_googles_client(gcs, bucket, tmp_path):
    path = tmp_path / "nine.bin"
    path.write_bytes(os.urandom(9_000_000))  # more than 8 MB: a resumable upload
    bucket.blob("file").upload_from_filename(str(path), if_generation_match=0)
    with bucket.blob("stream").open("wb", chunk_size=2**20, if_generation_match=0) as file:
        file.write(path.read_bytes())
    for name in ["file", "stream"]:
        assert bucket.blob(name).download_as_bytes() == path.read_bytes()
        with bucket.blob(name).open("rb", chunk_size=2**20) as file:
            assert file.read() == path.read_bytes()
    assert bucket.get_blob("stream").size == 9_000_000
    assert bucket.copy_blob(bucket.blob("file"), bucket, "copy").size == 9_000_000


def test_a_condition_that_is_not_met_is_refused_by_both_apis(gcs, bucket):
    from google.api_core.exceptions import NotFound, PreconditionFailed
    from google.cloud.storage.exceptions import InvalidResponse

    first = gcs.put("a", b"first")
    second = int(gcs.put("a", b"second"))
    blob = bucket.blob("a")
    for wrong in [0, int(first)]:
        for attempt in [
            lambda: blob.upload_from_string(b"x", if_generation_match=wrong),  # noqa: B023
            lambda: blob.open("wb", if_generation_match=wrong).close(),  # noqa: B023
            lambda: blob.delete(if_generation_match=wrong),  # noqa: B023
            lambda: blob.download_as_bytes(if_generation_match=wrong),  # noqa: B023
            lambda: blob.reload(if_generation_match=wrong),  # noqa: B023
        ]:
            with pytest.raises((PreconditionFailed, InvalidResponse), match="412"):
                attempt()
        for method in ["PUT", "DELETE", "GET"]:
            assert gcs.xml(method, "a", x_goog_if_generation_match=str(wrong))[0] == 412
    assert (gcs.names(), gcs.generation("a")) == (["a"], str(second))
    assert gcs.xml("PUT", "a", b"third", x_goog_if_generation_match=str(second))[0] == 200
    blob.upload_from_string(b"fourth", if_generation_match=int(gcs.generation("a")))
    assert blob.generation > second > int(first)
    blob.delete(if_generation_match=blob.generation)
    assert gcs.names() == []
    with pytest.raises(NotFound):
        blob.delete()
    assert [gcs.xml(method, "a")[0] for method in ["GET", "HEAD", "DELETE"]] == [404, 404, 404]
    assert int(gcs.put("a", b"again")) > second, "a generation is never given twice, nor a smaller one"


def test_a_condition_that_is_not_kept_is_told_not_ignored(gcs, bucket):
    from google.api_core.exceptions import MethodNotImplemented

    gcs.put("a", b"x")
    with pytest.raises(MethodNotImplemented, match="ifMetagenerationMatch"):
        bucket.blob("a").reload(if_metageneration_match=1)
    assert gcs.xml("GET", "a", x_goog_if_metageneration_match="1")[0] == 501


def test_listings_come_in_pages_by_both_apis(gcs, bucket):
    gcs.page_size = 2
    names = [f"up/{n}" for n in range(5)] + ["up/sub/a", "up/sub/b", "up/tub/a"]
    for name in [*names, "other"]:
        gcs.put(name, b"x")
    assert [blob.name for blob in bucket.list_blobs(prefix="up/")] == names
    listing = bucket.list_blobs(prefix="up/", delimiter="/")
    assert ([blob.name for blob in listing], sorted(listing.prefixes)) == (names[:5], ["up/sub/", "up/tub/"])
    assert [b.name for b in bucket.list_blobs(start_offset="up/3", end_offset="up/sub/b")] == ["up/3", "up/4", names[5]]
    for n in range(6):
        write_deltalake(TABLE, rows(n), mode="append")
    assert sorted(DeltaTable(TABLE).to_pyarrow_table()["n"].to_pylist()) == [0, 1, 2, 3, 4, 5]


def test_a_delta_table_lives_in_the_bucket_through_all_that_is_done_with_it(gcs):
    assert not DeltaTable.is_deltatable(TABLE)
    table = DeltaTable.create(TABLE, schema=ROWS, configuration={"delta.logRetentionDuration": "interval 0 days"})
    assert DeltaTable.is_deltatable(TABLE) and not DeltaTable.is_deltatable("gs://bucket/ds/cl")
    for n in range(4):
        write_deltalake(TABLE, rows(2 * n, 2 * n + 1), mode="append")
    write_deltalake(TABLE, rows(0), mode="overwrite", predicate="video_id = 'v0'")
    table.update_incremental()
    before = set(table.file_uris())
    table.create_write_transaction([], mode="append", schema=table.schema(), partition_by=[])
    assert table.optimize.compact()["numFilesAdded"] == 1
    assert len(table.file_uris()) == 1

    def vacuum(dry_run: bool, full: bool) -> list[str]:
        return table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=dry_run, full=full)

    gcs.put("ds/clips/orphan.parquet", b"left by a killed writer")
    gone = {uri.rpartition("/")[2] for uri in before}
    assert {name.rpartition("/")[2] for name in vacuum(dry_run=True, full=False)} >= gone
    assert set(gcs.names("ds/clips/part-")) >= {f"ds/clips/{name}" for name in gone}
    vacuum(dry_run=False, full=True)
    kept = table.file_uris()[0].removeprefix("gs://bucket/")
    assert [name for name in gcs.names("ds/clips/") if "/_delta_log/" not in name] == [kept]

    log = "ds/clips/_delta_log/"
    table.create_checkpoint()
    assert f"{log}_last_checkpoint" in gcs and f"{log}{table.version():020}.checkpoint.parquet" in gcs
    versions = [name for name in gcs.names(log) if name.endswith(".json")]
    time.sleep(1.1)  # what is older than 0 days, by a clock of whole seconds
    table.cleanup_metadata()
    assert set(gcs.names(log)) < {*versions, *gcs.names(log)}
    assert sorted(DeltaTable(TABLE).to_pyarrow_table()["n"].to_pylist()) == list(range(8))


def test_rows_that_need_a_multipart_upload_come_back(gcs):
    content = [os.urandom(2_500_000) for _ in range(10)]
    write_deltalake(TABLE, pa.table({"reel": pa.array(content, pa.binary())}))
    assert len([method for method, _ in gcs.asked if method == "POST"]) == 2, "begun and completed"
    assert DeltaTable(TABLE).to_pyarrow_table()["reel"].to_pylist() == content


def test_two_writers_of_one_table_keep_every_row_once(gcs):
    DeltaTable.create(TABLE, schema=ROWS)

    def write(writer: int) -> None:
        for n in range(5):
            write_deltalake(TABLE, rows(10 * writer + n), mode="append")

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(write, [0, 1]))
    table = DeltaTable(TABLE)
    assert sorted(table.to_pyarrow_table()["n"].to_pylist()) == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]
    assert table.version() == 10


def test_failures_are_those_that_the_test_asked_for(gcs, bucket):
    from google.api_core.exceptions import Forbidden

    write_deltalake(TABLE, rows(1))
    gcs.refuse = 403
    with pytest.raises((DeltaError, OSError), match="403 Forbidden"):
        DeltaTable(TABLE)
    for attempt in [lambda: bucket.blob("a").upload_from_string(b"x"), lambda: list(bucket.list_blobs())]:
        with pytest.raises(Forbidden):
            attempt()
    gcs.refuse = None
    gcs.stall = 0.3
    begun = time.monotonic()
    assert [gcs.xml("GET", "none")[0], bucket.blob("none").exists()] == [404, False]
    assert 0.6 <= time.monotonic() - begun < 5
    gcs.stall = 0.0
    gcs.break_off_after = 10
    assert DeltaTable(TABLE).to_pyarrow_table() == rows(1), "read again where it broke off"


def test_hooks_are_called_with_each_name_that_is_written_or_read(gcs, bucket):
    called = []
    for hook in ["before_read", "before_write", "after_write"]:
        setattr(gcs, hook, lambda name, hook=hook: called.append((hook, name, name in gcs)))
    gcs.xml("PUT", "x", b"1")
    bucket.blob("j").upload_from_string(b"2")
    gcs.put("quiet", b"3")
    gcs.xml("GET", "x")
    bucket.blob("j").download_as_bytes()
    written = [(hook, name, hook == "after_write") for name in "xj" for hook in ["before_write", "after_write"]]
    assert called == [*written, ("before_read", "x", True), ("before_read", "j", True)]


def test_a_write_whose_hook_raises_gets_no_answer(gcs):
    def raising(name: str) -> None:
        raise OSError("the test says so")

    gcs.before_write = raising
    with pytest.raises(http.client.RemoteDisconnected):
        gcs.xml("PUT", "never stored", b"1")
    gcs.before_write = lambda name: None
    gcs.after_write = raising
    with pytest.raises(http.client.RemoteDisconnected):
        gcs.xml("PUT", "stored", b"1")
    assert gcs.names() == ["stored"]


def test_the_variables_that_it_prints_lead_any_process_there():
    server = pathlib.Path(__file__).with_name("gcs_emulator.py")
    told = subprocess.Popen([sys.executable, str(server), "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert told.stdout is not None
        lines = [told.stdout.readline() for _ in range(3)]
        # It reads no rows: a process that read some by pyarrow now and then aborts when it ends, on local disks, too.
        program = (
            "import deltalake, pyarrow, google.cloud.storage as s\n"
            f"deltalake.write_deltalake({TABLE!r}, pyarrow.table({{'n': [1, 2]}}))\n"
            "names = [b.name for b in s.Client(project='test').bucket('bucket').list_blobs()]\n"
            f"print(deltalake.DeltaTable({TABLE!r}).version(), len(names))\n"
        )
        script = "".join(lines) + 'exec "$0" -c "$1"\n'
        done = subprocess.run(
            ["/bin/sh", "-c", script, sys.executable, program], capture_output=True, text=True, timeout=60
        )
        assert (done.stdout, done.returncode) == ("0 2\n", 0), done.stderr
    finally:
        told.terminate()
        told.wait(10)
