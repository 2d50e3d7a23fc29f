"""The command line as a user meets it: exit statuses, one-line errors, nearest right names."""

import re
import signal
import socket
import sys
import threading

import pytest
from dataset_rows import failed_rows, video_rows

from beam_pipeline import job_commands
from beam_pipeline.cli import main
from beam_pipeline.job import pipeline_options, quiet_workers
from beam_pipeline.usage import check_runner
from transforms import objects
from transforms.committing import Committer
from transforms.lease import WriterLease

SUBSCRIPTION = "projects/my-project/subscriptions/uploads"
CURATE = ["curate", "--input", "x", "--output", "OUT"]
WATCH = ["watch", "--subscription", SUBSCRIPTION, "--output", "OUT"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which command? curate, watch, redrive, launch, shots, verify"),
        (["curat"], "there is no command 'curat'; did you mean 'curate'?"),
        (["curate", "--output", "x"], "--input"),
        (["curate", "--input", "nope.mp4", "--output", "OUT"], "there is no file or directory 'nope.mp4'"),
        (["curate", "--input", "x", "--output", "OUT", "--profil", "lite"], "did you mean '--profile'?"),
        (
            ["curate", "--input", "x", "--output", "OUT", "--direct_num_worker=2"],
            "did you mean '--direct_num_workers'?",
        ),
        (["curate", "--input", "x", "--output", "OUT", "--profile", "light"], "did you mean 'lite'?"),
        (["curate", "--input", "x", "--output", "OUT", "--detector", "contnt"], "content"),
        (["curate", "--input", "x", "--output", "OUT", "--limit", "0"], "'0' is not a number from 1 up"),
        (["curate", "--input", "x", "--output", "OUT", "--max-failed-fraction", "2"], "not a number from 0 to 1"),
        (["curate", "--input", "x", "--output", "s3://bucket/x"], "s3://bucket/x is neither a directory nor gs://"),
        ([*CURATE, "--lmit", "2"], "unknown argument '--lmit'; did you mean '--limit'?"),
        ([*CURATE, "--job_nam=x"], "unknown argument '--job_nam=x'; did you mean '--job_name'?"),
        ([*CURATE, "--xyzzy"], "unknown argument '--xyzzy'; see reelscribe curate --help"),
        ([*CURATE, "--direct_num_workers=many"], "argument --direct_num_workers: invalid int value: 'many'"),
        ([*CURATE, "--runner", "FooRunner"], "there is no runner 'FooRunner'; did you mean "),
        ([*CURATE, "--runner", "nowhere.FooRunner"], "--runner nowhere.FooRunner cannot be loaded: No module named"),
        ([*CURATE, "--runner", "DataflowRunner"], "DataflowRunner cannot run this: Missing GCS path option: temp_loc"),
        ([*WATCH, "--runner", "FlinkRuner"], "there is no runner 'FlinkRuner'; did you mean 'FlinkRunner'?"),
        ([*WATCH, "--runner", "DataflowRunner", "--project=my-project"], "this: Missing required option: region\n"),
        ([*WATCH, "--marker", ".done"], "--marker is for --input"),
        ([*WATCH, "--settle", "5"], "--settle is for --input"),
        ([*WATCH, "--poll", "5"], "--poll is for --input"),
        (
            ["redrive", "OUT", "--stage", "caption,scor"],
            "there is no stage 'scor'; did you mean 'score'? Known: read, ",
        ),
        (["redrive", "OUT", "--older-than", "99999999d"], "'99999999d' is longer than a hundred years"),
        (["redrive", "OUT", "--older-than", "36526d"], "'36526d' is longer than a hundred years"),
        (["redrive", "gs://bucket/a b"], "can't stand in 'gs://bucket/a b'; write gs://BUCKET/FOLDER in letters"),
        (["redrive", "s3://bucket/x", "--dry-run"], "s3://bucket/x is neither a directory nor gs://BUCKET/FOLDER"),
        (["verify", "gs://bucket/a b"], "can't stand in 'gs://bucket/a b'; write gs://BUCKET/FOLDER in letters"),
        (["report", "gs://bucket/a b"], "can't stand in 'gs://bucket/a b'; write gs://BUCKET/FOLDER in letters"),
        (
            ["takedown", "s3://bucket/x", "--video", "a"],
            "s3://bucket/x is neither a directory nor gs://BUCKET/FOLDER",
        ),
        (["verify", "OUT", "--htm", "x"], "unknown argument '--htm'; see reelscribe verify --help"),
        (["shots", "x.mp4", "--detector", "adaptiv"], "adaptive"),
        (["evaluate"], "which evaluation? splitting"),
        (["evaluate", "spliting", "x.mp4"], "there is no evaluation 'spliting'; did you mean 'splitting'?"),
        (["evaluate", "splitting"], "SRC"),
        (["evaluate", "splitting", "x.mp4", "--detektors", "hash"], "did you mean '--detectors'?"),
        (["calibrate", "x.mp4", "--html"], "--html"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.delenv("CLOUDSDK_COMPUTE_REGION", raising=False)
    arguments = [str(tmp_path / "out") if word == "OUT" else word for word in arguments]
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("reelscribe: ")
    assert told.err.count("\n") == 1
    assert message in told.err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def failures(tmp_path):
    """A dataset of a video with one caption missing, and two that could not be opened, whose files are there."""
    folder = tmp_path / "set"
    for name in "abc":
        (tmp_path / f"{name}.mp4").write_bytes(b"no video")
    with WriterLease(folder, "r1"):
        rows = [failed_rows(name, uri=str(tmp_path / f"{name}.mp4")) for name in "ab"]
        Committer(folder).commit([*rows, video_rows("c", etag="")])
    return folder


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--profile", "light"], "did you mean 'lite'?"),
        ([], "has no record of a run; say --profile or --config"),
        (["--profile", "lite", "--limt", "2"], "did you mean '--limit'?"),
        (["--profile", "lite", "--runner", "FooRunner"], "there is no runner 'FooRunner'"),
    ],
)
@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_a_redrive_is_checked_alike_dry_or_not_and_before_it_writes(failures, flags, message, dry, capsys):
    assert main(["redrive", str(failures), *flags, *dry]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert message in told.err
    assert not (failures / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "lines"),
    [
        (
            [],
            [
                "     1 caption  ValueError (attempt 1)",
                "     2 split    ValueError (attempt 1)",
                "3 dead letters of 3 videos",
            ],
        ),
        (
            ["--stage", "split", "--limit", "1"],
            ["     1 split    ValueError (attempt 1)", "1 dead letters of 1 videos"],
        ),
        (["--class", "Typo"], ["0 dead letters of 0 videos", "the failures there are of class ValueError"]),
    ],
)
def test_a_dry_run_takes_as_many_videos_as_asked_for_and_names_the_classes_there(failures, flags, lines, capsys):
    assert main(["redrive", str(failures), "--dry-run", "--profile", "lite", *flags]) == 0
    assert capsys.readouterr().out.splitlines() == lines


def test_a_stop_is_told_while_workers_are_kept_quiet(capsys):
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    stop = threading.Event()
    try:
        job_commands._stop_politely(stop)
        with quiet_workers():
            signal.raise_signal(signal.SIGTERM)
            print("a worker's words", file=sys.stderr)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    assert stop.is_set() is True
    assert capsys.readouterr().err == (
        "reelscribe: stopping: what is under way is finished and committed; once more ends it now\n"
    )


def test_what_dataflow_needs_is_checked_without_asking_anybody(monkeypatch):
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *name, **how: asked.append(name) or [])
    places = [[], ["--temp_location=gs://bucket/tmp"], ["--temp_location=/tmp", "--staging_location=/tmp"]]
    for place in places:
        flags = ["--runner=DataflowRunner", "--project=my-project", "--region=us-central1", *place]
        check_runner(pipeline_options(flags))
    assert asked == []


@pytest.mark.parametrize("command", ["curate", "redrive"])
def test_a_bucket_without_credentials_is_bad_usage(command, monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    objects._client.cache_clear()
    folder = tmp_path / "set"
    if command == "redrive":
        with WriterLease(folder, "r1"):
            Committer(folder).commit([failed_rows("a", uri="gs://bucket/a.mp4")])
    flags = {"curate": ["--input", "gs://bucket/a.mp4", "--output"], "redrive": ["--dry-run", "--profile", "lite"]}
    assert main([command, *flags[command], str(folder)]) == 2
    assert re.fullmatch(
        r"reelscribe: there are no credentials to reach gs://bucket/\S* with; "
        r"run: gcloud auth application-default login\n",
        capsys.readouterr().err,
    )


def test_a_package_of_googles_that_is_missing_is_named_in_full_with_its_extra(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "google.cloud.storage", None)
    arguments = ["curate", "--input", "gs://bucket/a.mp4", "--output", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert capsys.readouterr().err == (
        "reelscribe: google.cloud.storage is not installed; run: pip install 'reelscribe[gcp]'\n"
    )


def test_a_package_of_googles_that_is_too_old_is_told_with_its_extra(monkeypatch, tmp_path, capsys):
    monkeypatch.delattr("google.cloud.storage.retry.DEFAULT_RETRY")
    arguments = ["curate", "--input", "gs://bucket/a.mp4", "--output", str(tmp_path / "out")]
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("reelscribe: cannot import name 'DEFAULT_RETRY' from 'google.cloud.storage.retry'")
    assert told.endswith("; run: pip install 'reelscribe[gcp]'\n")
    assert told.count("\n") == 1


@pytest.mark.parametrize("command", ["verify", "report"])
def test_a_directory_that_is_no_dataset_is_told_so(command, tmp_path, capsys):
    assert main([command, str(tmp_path)]) == 1
    assert f"{tmp_path} is no dataset" in capsys.readouterr().err


def test_help_names_the_commands_that_are_there_and_no_others(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    commands = re.findall(r"^    (\w+) ", capsys.readouterr().out, re.MULTILINE)
    assert commands == [
        "curate",
        "watch",
        "redrive",
        "launch",
        "shots",
        "verify",
        "takedown",
        "report",
        "stats",
        "split",
        "export",
        "annotate",
        "train",
        "estimate",
        "evaluate",
        "calibrate",
        "doctor",
        "profiles",
        "teachers",
    ]


def test_profiles_names_the_profile_with_its_models_and_the_rules(capsys):
    assert main(["profiles"]) == 0
    told = capsys.readouterr().out
    for name in ("lite: ", "lite-frame", "efficientnet-lite0", "conse", "panda70m: ", "paper: ", "released: "):
        assert name in told


def test_teachers_says_of_each_what_it_sees_and_how_weak_it_is(capsys):
    from model_handlers import catalogue

    assert main(["teachers"]) == 0
    told = capsys.readouterr().out
    for entries in (catalogue.TEACHERS, catalogue.EMBEDDERS, catalogue.SELECTORS):
        for entry in entries.values():
            assert f"{entry.name}, inputs {entry.inputs}" in told
            assert entry.summary.split()[0] in told


def test_after_a_job_has_failed_its_other_workers_are_not_heard_but_the_command_is(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stderr", sys.stderr)  # Gives back what the failure leaves there.
    with pytest.raises(ZeroDivisionError), quiet_workers():
        raise ZeroDivisionError
    late = threading.Thread(target=lambda: print("Traceback of a worker", file=sys.stderr))
    late.start()
    late.join()
    print("reelscribe: the job failed", file=sys.stderr)
    assert capsys.readouterr().err == "reelscribe: the job failed\n"
