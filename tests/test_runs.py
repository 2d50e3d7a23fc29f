"""The record of a run, and how what stopped it is told."""

import json
import os
import pathlib

import pytest

from beam_pipeline.config import load_config
from beam_pipeline.progress import told
from beam_pipeline.runs import RunRecord, new_run_id, records_of, root_cause
from beam_pipeline.takedown_records import read_records
from beam_pipeline.verify_runs import read_runs
from transforms.reading import Source

BEAMS = """Traceback (most recent call last):
  File "shots.py", line 59, in split_local
RuntimeError: the decoder cannot work here: OSError: [Errno 28] No space left on device
Traceback (most recent call last):
  File "reel.py", line 80, in add
OSError: [Errno 28] No space left on device
 [while running 'Curate/Detect shots/Split/FlatMap(_split)']
"""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError(BEAMS), "OSError: [Errno 28] No space left on device"),
        (ValueError("simple"), "ValueError: simple"),
        (KeyError(), "KeyError()"),
    ],
)
def test_what_stopped_a_job_is_told_in_a_line(error, expected):
    assert root_cause(error) == expected


def test_a_record_says_how_the_run_began_and_how_it_ended(tmp_path):
    record = RunRecord.begin(str(tmp_path), "run-1", load_config(), ["in/", "gs://b/in/"], {"limit": None})
    begun = json.loads(pathlib.Path(record.path).read_text())
    assert (begun["status"], begun["finished_at"], begun["input"]) == (
        "running",
        None,
        [os.path.abspath("in"), "gs://b/in/"],
    )
    assert begun["config"]["fingerprint"] == load_config().fingerprint()
    assert {model["name"] for model in begun["models"]} >= {"lite-frame", "conse", "efficientnet-lite0"}
    record.fail(RuntimeError(BEAMS))
    record.finish("failed", {"a": "committed"}, [Source("a", "/a.mp4"), Source("b", "/b.mp4")], counts={"clips": 2})
    ended = json.loads(pathlib.Path(record.path).read_text())
    assert [(one["video_id"], one["outcome"]) for one in ended["inputs"]] == [("a", "committed"), ("b", "pending")]
    assert (ended["status"], ended["counts"], ended["error"]["message"]) == (
        "failed", {"clips": 2}, "OSError: [Errno 28] No space left on device",
    )  # fmt: skip
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["run-1.json"]


def test_run_ids_are_their_own_and_safe():
    ids = {new_run_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(one) == 22 and one.replace("-", "").replace("T", "").isalnum() for one in ids)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((0, 10, {}, 0.0), "0/10 videos, 0 clips, 0 failed, 0.0 videos/min, -"),
        (
            (5, 10, {"clips": 7, "videos failed": 1}, 60.0),
            "5/10 videos, 7 clips, 1 failed, 5.0 videos/min, 0:01:00 left",
        ),
    ],
)
def test_progress_tells_videos_clips_failures_rate_and_time_left(arguments, expected):
    assert told(*arguments) == expected


def test_a_record_that_is_nested_without_end_is_none(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "r1.json").write_text("[" * 100_000)
    assert list(records_of(tmp_path)) == []
    assert read_records(tmp_path) == {}
    _, (breach,) = read_runs(tmp_path)
    assert breach.startswith("runs/r1.json: it can't be read: RecursionError: ")
