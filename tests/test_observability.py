"""What a job logs, as lines for people or as JSON; and what Prometheus is told, against the record of the run."""

import contextlib
import io
import json
import logging
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from synthetic import make_video

from beam_pipeline import logs
from beam_pipeline.cli import main
from beam_pipeline.config import load_config
from beam_pipeline.exposition import COUNTERS, Board, totals_of
from beam_pipeline.job import JobOptions, running
from beam_pipeline.verify import audit

TEACHERS = ["lite-scene", "lite-text"]
RULES = {"still_distance": None, "redundant_distance": None, "min_event_s": 1.0}


def write_config(folder: pathlib.Path) -> str:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"extends": "lite", "stitching": RULES, "teachers": TEACHERS}))
    return str(path)


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    return logging.getLogger("transforms.rows").makeRecord(
        "transforms.rows", logging.INFO, "rows.py", 1, message, args, None, extra=extra
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, with ümlauts", "plain, with ümlauts"),
        ("two\nlines\r\n", "two\\nlines\\r\\n"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("para\u2029graph", "para\\u2029graph"),
        ("next\x85line", "next\\x85line"),
    ],
)
def test_text_of_others_stays_on_its_line(text, expected):
    assert logs.one_line(text) == expected
    assert logs.OneLine("%(levelname)s %(message)s").format(record("of %s", text)) == f"INFO of {expected}"


def test_what_libraries_log_for_people_keeps_its_lines():
    theirs = logging.LogRecord("apache_beam", logging.ERROR, "x.py", 1, "a\nb", (), None)
    assert logs.OneLine("%(levelname)s %(message)s").format(theirs) == "ERROR a\nb"


def test_a_json_line_says_what_it_is_about_and_nothing_else():
    given = record("dead letter: %s", "a\nb \udc80", video_id="v", clip_id=None, teacher="t", attempt=2, colour="red")
    given.created = 1_000_000_000.25
    with logs.bound(run_id="r-1"):
        line = logs.JsonLines().format(given)
    assert line.isascii() and "\n" not in line
    assert json.loads(line) == {
        "time": "2001-09-09T01:46:40.250+00:00",
        "level": "INFO",
        "logger": "transforms.rows",
        "message": "dead letter: a\nb \udc80",
        "run_id": "r-1",
        "video_id": "v",
        "teacher": "t",
        "attempt": 2,
    }
    assert "run_id" not in json.loads(logs.JsonLines().format(given))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["one\ntwo\n"], [("INFO", "one"), ("INFO", "two")]),
        (["1/2 vid", "eos", "\n"], [("INFO", "1/2 videos")]),
        (["\r\x1b[2K1/2\r2/2\n", "\n"], [("INFO", "2/2")]),
        (["reelscribe: no such file\n"], [("ERROR", "no such file")]),
        (["reelscribe: stopping: once more ends it now\n"], [("WARNING", "stopping: once more ends it now")]),
        (["without an end"], [("INFO", "without an end")]),
    ],
)
def test_whatever_is_written_to_standard_error_becomes_lines_of_the_log(written, expected, monkeypatch):
    err = io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    with logs.set_up(verbose=False, form="json"):
        for text in written:
            sys.stderr.write(text)
    assert sys.stderr is err
    found = [json.loads(line) for line in err.getvalue().splitlines()]
    assert [(one["level"], one["message"]) for one in found] == expected


def test_a_log_that_cannot_be_written_does_not_complain_to_itself(monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stderr", Full())
    with logs.set_up(verbose=False, form="json"):
        assert print("something", file=sys.stderr) is None


def test_an_error_that_nobody_expected_is_one_line_too(monkeypatch):
    err = io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    with pytest.raises(SystemExit, match="1"), logs.set_up(verbose=False, form="json"):
        raise RuntimeError("two\nlines")
    (line,) = map(json.loads, err.getvalue().splitlines())
    assert (line["level"], line["exception"].endswith("RuntimeError: two\nlines")) == ("ERROR", True)


@pytest.fixture(scope="module")
def uploads(tmp_path_factory) -> pathlib.Path:
    """A good video, and a file of noise whose name would forge a line of a log."""
    folder = tmp_path_factory.mktemp("in")
    make_video(folder / "good.mp4", shots=[(2.0, "red")], drift_px=3)
    (folder / "bad\nERROR forged.mp4").write_bytes(b"no video" * 500)
    return folder


def test_a_json_log_has_the_ids_of_every_dead_letter_and_commit(uploads, tmp_path, capfd):
    arguments = ["curate", "--input", str(uploads), "--output", str(tmp_path / "set"), "--config"]
    assert main([*arguments, write_config(tmp_path), "--log-format", "json"]) == 0
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    (run_path,) = (tmp_path / "set" / "runs").glob("*.json")
    run = json.loads(run_path.read_text())
    ours = [line for line in lines if line["logger"] != "beam_pipeline.stderr"]
    assert {line["run_id"] for line in ours} == {run["run_id"]}
    (letter,) = [line for line in lines if line.get("error_class")]
    bad, good = (one["video_id"] for one in sorted(run["inputs"], key=lambda one: one["outcome"], reverse=True))
    assert {name: letter[name] for name in ("level", "stage", "video_id", "error_class", "attempt")} == {
        "level": "INFO", "stage": "split", "video_id": bad, "error_class": "NotAVideo", "attempt": 1,
    }  # fmt: skip
    assert letter["message"] == f"dead letter: split of {bad}: NotAVideo: {letter['error']}"
    committed = {line["video_id"]: line["status"] for line in lines if line.get("stage") == "commit"}
    assert committed == {good: "ok", bad: "failed"}
    assert [line["status"] for line in lines if line["message"].startswith("run ")] == ["running", "done"]
    assert [line["level"] for line in lines if line["message"].startswith("2/2 videos, 1 clips")] == ["INFO"]


def test_for_people_a_job_says_what_it_always_said(uploads, tmp_path, capfd):
    arguments = ["curate", "--input", str(uploads), "--output", str(tmp_path / "set"), "--config"]
    assert main([*arguments, write_config(tmp_path)]) == 0
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("2/2 videos, 1 clips, 1 failed")


def test_a_mistake_is_told_in_the_form_that_was_asked_for(tmp_path, capfd):
    arguments = ["curate", "--input", str(tmp_path / "none"), "--output", str(tmp_path / "set"), "--log-format", "json"]
    assert main(arguments) == 2
    (line,) = map(json.loads, capfd.readouterr().err.splitlines())
    assert (line["level"], "none" in line["message"]) == ("ERROR", True)


@contextlib.contextmanager
def watching(*arguments: str):
    """A watch in a process of its own; gives it, and where its metrics are."""
    command = [sys.executable, "-m", "beam_pipeline.cli", "watch", *arguments, "--metrics-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            url = next(json.loads(line)["message"] for line in process.stderr if "metrics at" in line)
            yield process, url.removeprefix("metrics at ")
        finally:
            if process.poll() is None:
                process.kill()


def scrape(url: str) -> dict[str, float]:
    """Every sample by its name and labels."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        lines = answer.read().decode().splitlines()
    samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


def finished(output: pathlib.Path, number: int) -> list[dict]:
    """The records of the runs, once so many are done."""
    until = time.monotonic() + 90
    while True:
        found = [json.loads(path.read_text()) for path in sorted((output / "runs").glob("*.json"))]
        if len(found) == number and all(run["status"] == "done" for run in found):
            return found
        assert time.monotonic() < until, [run["status"] for run in found]
        time.sleep(0.1)


def test_prometheus_is_told_what_the_records_say_over_all_runs_of_a_watch(tmp_path):
    uploads, output = tmp_path / "in", tmp_path / "set"
    uploads.mkdir()
    make_video(uploads / "a.mp4", shots=[(2.0, "red")], drift_px=3)
    (uploads / "noise.mp4").write_bytes(b"no video" * 500)
    arguments = ["--input", str(uploads), "--output", str(output), "--config", write_config(tmp_path)]
    quick = ["--poll", "0.2", "--settle", "0.3", "--quiet", "1", "--log-format", "json"]
    with watching(*arguments, *quick) as (process, url):
        (first,) = finished(output, 1)
        make_video(tmp_path / "b.mp4", shots=[(2.0, "blue")], drift_px=3)
        (tmp_path / "b.mp4").rename(uploads / "b.mp4")
        runs = finished(output, 2)
        told = scrape(url)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert runs[0] == first
    for stage in ("read", "split", "embed", "stitch", "caption", "score", "commit"):
        for name in ("in", "out", "failed", "seconds"):
            expected = sum(run["stages"][stage][name] for run in runs)
            assert told[f'reelscribe_stage_{name}_total{{stage="{stage}"}}'] == pytest.approx(expected), (stage, name)
    counted = re.compile("reelscribe_(videos|dead_letters|clips|runs|teacher_clips)_total")
    assert {name: value for name, value in told.items() if counted.match(name)} == {
        'reelscribe_videos_total{status="ok"}': 2.0,
        'reelscribe_videos_total{status="failed"}': 1.0,
        'reelscribe_dead_letters_total{stage="split"}': 1.0,
        "reelscribe_clips_total": 2.0,
        "reelscribe_runs_total": 2.0,
        'reelscribe_teacher_clips_total{outcome="captions",teacher="lite-scene"}': 2.0,
        'reelscribe_teacher_clips_total{outcome="failed",teacher="lite-scene"}': 0.0,
        'reelscribe_teacher_clips_total{outcome="not_applicable",teacher="lite-scene"}': 0.0,
        'reelscribe_teacher_clips_total{outcome="reused",teacher="lite-scene"}': 0.0,
        'reelscribe_teacher_clips_total{outcome="captions",teacher="lite-text"}': 0.0,
        'reelscribe_teacher_clips_total{outcome="failed",teacher="lite-text"}': 0.0,
        'reelscribe_teacher_clips_total{outcome="not_applicable",teacher="lite-text"}': 2.0,
        'reelscribe_teacher_clips_total{outcome="reused",teacher="lite-text"}': 0.0,
    }  # fmt: skip
    assert audit(output).breaches == []


def test_what_a_watch_has_before_it_is_told_while_its_run_goes_on_and_no_longer(tmp_path):
    def gauges() -> dict[str, float]:
        lines = (line.rpartition(" ") for line in generate_latest(registry).decode().splitlines() if line[0] != "#")
        return {name: float(value) for name, _, value in lines if "_total" not in name}

    board, registry = Board(), CollectorRegistry()
    registry.register(board)
    assert gauges() == {}
    with running("watch", [], str(tmp_path), load_config("lite"), JobOptions(observer=board.follow)) as job:
        assert gauges() == {f'reelscribe_run{{run_id="{job.run_id}"}}': 1.0}
        job.go_on_record(backlog=3, oldest_s=12.5, lag_s=8.0, max_lag_s=9.5, events=[])
        assert gauges() == {
            f'reelscribe_run{{run_id="{job.run_id}"}}': 1.0,
            "reelscribe_backlog_videos": 3.0,
            "reelscribe_oldest_waiting_seconds": 12.5,
            "reelscribe_commit_lag_seconds": 8.0,
            "reelscribe_commit_lag_max_seconds": 9.5,
        }
        noted = json.loads(pathlib.Path(job.record.path).read_text())
        assert (noted["watch"]["backlog"], noted["stages"]["split"]["in"]) == (3, 0)
        assert "observer" not in noted["options"]
        job.finish("done")
    assert gauges() == {}


def test_each_total_has_its_counter():
    stage = {"in": 1, "out": 1, "failed": 0, "rejected": 0, "reused": 0, "seconds": 0.5, "bytes": 9}
    teacher = {"asked": 2, "captions": 1, "failed": 1, "not_applicable": 0, "reused": 3, "seconds": 0.25}
    totals = totals_of(
        {"videos ok": 1, "rejected trim": 2, "failures split": 3, "clips": 4, "video_ms": 5, "split videos_split": 6},
        {"split": stage, "caption": {"in": 1, "out": 1, "failed": 0, "seconds": 1.0, "teachers": {"t": teacher}}},
    )
    assert {name: len(values) for name, values in totals} == {
        name: len(labels) for name, (_, labels) in COUNTERS.items() if name != "reelscribe_runs"
    }
    assert totals["reelscribe_dead_letters", ("split",)] == 3
    assert totals["reelscribe_teacher_clips", ("t", "reused")] == 3


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    arguments = ["curate", "--input", str(tmp_path), "--output", str(tmp_path / "set"), "--metrics-port", "0"]
    assert main(arguments) == 2
    told = "reelscribe: prometheus_client is not installed; run: pip install 'reelscribe[metrics]'\n"
    assert capsys.readouterr().err == told
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--metrics-port", "70000"], "argument --metrics-port: '70000' is not a port from 0 to 65535"),
        (["--metrics-host", "0.0.0.0"], "--metrics-host needs --metrics-port"),
    ],
)
def test_an_address_that_cannot_be_is_told_before_any_work(flags, message, tmp_path, capsys):
    assert main(["curate", "--input", str(tmp_path), "--output", str(tmp_path / "set"), *flags]) == 2
    assert capsys.readouterr().err == f"reelscribe: {message}\n"


def test_a_port_that_is_taken_is_told_before_any_work(tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        flags = ["--metrics-port", where.partition(":")[2]]
        assert main(["curate", "--input", str(tmp_path), "--output", str(tmp_path / "set"), *flags]) == 2
    told = f"reelscribe: cannot serve metrics at {where} (Address already in use); take another --metrics-port\n"
    assert capsys.readouterr().err == told
