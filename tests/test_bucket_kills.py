"""A run over a dataset in a bucket that is killed, or whose service goes down, is finished by the same command."""

# ruff: noqa: F811 (a test names the fixtures that it imports)

import json
import re
import threading
import time

import pytest
from bucket_sets import (  # noqa: F401
    SETS,
    URI,
    arguments,
    breaches,
    check_plain_readers,
    curate,
    ids,
    is_sweep,
    killing,
    local,
    mirror,
    one_line,
    uploads,
    videos,
)
from sameness import differences
from test_takedown import where_named

from beam_pipeline.cli import main
from beam_pipeline.verify import audit
from transforms import objects, parquet_files
from transforms.files import read
from transforms.tables import current_videos

KILLS = {
    "its record stands, and no table": ("after_write", lambda name: "/runs/" in name, True),
    "a reel is on its way": ("before_write", lambda name: "/reels/" in name, False),
    "a reel stands, and nothing else of its video": ("after_write", lambda name: "/reels/" in name, True),
    "its clips stand, and the video is not published": (
        "after_write",
        lambda name: re.search(r"/clips/_delta_log/0*1\.json", name) is not None,
        True,
    ),
    "a video is being published": (
        "before_write",
        lambda name: re.search(r"/videos/_delta_log/0*2\.json", name) is not None,
        False,
    ),
    "all is committed, and the card is not written": ("before_write", lambda name: name.endswith("README.md"), False),
}

pytestmark = pytest.mark.usefixtures("temporary")


@pytest.mark.slow
@pytest.mark.parametrize("when", KILLS)
def test_a_first_run_that_is_killed_is_finished_by_the_same_command(gcs, uploads, local, tmp_path, when):
    command = arguments(uploads, URI, tmp_path, "--chunk-videos", "1")
    with killing(gcs, *KILLS[when]) as run:
        run(command)
    assert breaches() == []
    assert main(command) == 0
    assert audit(URI).breaches == []
    assert differences(URI, local) == []
    check_plain_readers(URI)
    assert f"{SETS}.lease" not in gcs


REPLACING = {
    "it is replaced in the table, and its files still lie there": ("after_write", is_sweep, True),
    "a file of joined rows is on its way": (
        "before_write",
        lambda name: re.search(r"/clips/part-.*\.parquet", name) is not None,
        False,
    ),
    "the new rows of one video stand beside the old ones": (
        "after_write",
        lambda name: "/clips/_delta_log/" in name and not is_sweep(name),
        True,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("when", REPLACING)
def test_a_run_that_replaces_rows_and_is_killed_is_finished_by_the_same_command(gcs, uploads, tmp_path, when):
    assert curate(uploads, URI, tmp_path) == 0
    both = ("lite-frame", "lite-motion")
    command = arguments(uploads, URI, tmp_path, "--chunk-videos", "1", teachers=both)
    with killing(gcs, *REPLACING[when]) as run:
        run(command)
    assert audit(URI).breaches == []
    assert main(command) == 0
    assert audit(URI).breaches == []
    assert curate(uploads, tmp_path / "set", tmp_path, teachers=both) == 0
    assert differences(URI, tmp_path / "set") == []
    check_plain_readers(URI)


@pytest.mark.slow
def test_a_video_is_taken_down_whose_run_was_killed(gcs, uploads, tmp_path):
    red, green, page = ids(uploads, "red", "green", "page")
    with killing(gcs, *KILLS["its clips stand, and the video is not published"]) as run:
        run(arguments(uploads, URI, tmp_path, "--chunk-videos", "4"))
    assert any(red in name for name in gcs.names())
    assert main(["takedown", URI, "--video", red]) == 0
    assert audit(URI).breaches == []
    assert not any(red in name for name in gcs.names())
    assert where_named(mirror(gcs, tmp_path / "after"), {"id": red, "file": "red.mp4"}) == {
        "id": {"runs"},
        "file": set(),
    }
    assert curate(uploads, URI, tmp_path) == 0
    assert current_videos(URI).keys() == {green, page}
    assert audit(URI).breaches == []


@pytest.mark.slow
@pytest.mark.parametrize("status", [503, 403])
@pytest.mark.parametrize("first", ["/reels/", "/clips/_delta_log/00000000000000000000.json", "/clips/part-"])
def test_a_service_that_goes_down_amidst_a_run_ends_it_in_bounded_time_and_the_same_command_goes_on(
    gcs, uploads, local, tmp_path, capsys, monkeypatch, status, first
):
    monkeypatch.setattr(objects, "_RETRY_S", 0.5)
    monkeypatch.setattr(parquet_files, "_PATIENCE", {"max_retries": "2", "retry_timeout": "1s"})

    def break_down(name: str) -> None:
        if first in name:
            gcs.refuse = status

    gcs.after_write = break_down
    began = time.monotonic()
    assert curate(uploads, URI, tmp_path) == 1
    took = time.monotonic() - began
    gcs.after_write = None
    gcs.refuse = None
    told = one_line(capsys.readouterr().err)
    print(f"{status} after {first}: {took:.1f} s; {told}")
    assert told.startswith("the job failed: ") and str(status) in told
    assert ".lease" not in told, "what stopped the job, not what came of it"
    assert took < 120
    assert breaches() == []
    if f"{SETS}.lease" in gcs:  # Its process would have ended by now.
        lease = json.loads(read(f"{URI}/.lease"))
        gcs.put(f"{SETS}.lease", json.dumps({**lease, "expires_at": 0.0}))
    assert curate(uploads, URI, tmp_path) == 0
    assert differences(URI, local) == []


@pytest.mark.slow
def test_tables_outlast_a_service_that_is_down_for_some_seconds(gcs, uploads, local, tmp_path):
    def break_down(name: str) -> None:
        if "/clips/part-" in name and not gone:
            gone.append(name)
            gcs.refuse = 503
            threading.Timer(10.0, setattr, (gcs, "refuse", None)).start()

    gone: list[str] = []
    gcs.after_write = break_down
    assert curate(uploads, URI, tmp_path) == 0
    gcs.after_write = None
    assert len(gone) == 1
    assert differences(URI, local) == []
