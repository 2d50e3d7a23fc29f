"""The main of the template on a runner of this machine: launched, it leaves everything else to its pipeline."""

# ruff: noqa: F811 (a test names the fixtures that it imports)

import functools
import json
import pathlib

import pytest
from bucket_sets import URI, check_plain_readers, config_of, records, videos  # noqa: F401
from fake_dataflow import FakeDataflow
from sameness import differences

from beam_pipeline import flex_template
from beam_pipeline.cli import main
from beam_pipeline.verify import audit
from transforms import lease
from transforms.dataflow_jobs import job_is_running
from transforms.lease import read_lease
from transforms.reading import video_id_of

pytestmark = pytest.mark.usefixtures("temporary")

HERE = ["--runner=FnApiRunner", "--job_name=nightly"]
IDS = {name: video_id_of(f"gs://bucket/up/{name}") for name in ("red.mp4", "more/green.mp4", "page.mp4")}


@pytest.fixture
def uploaded(gcs, videos, tmp_path) -> str:
    """Videos, and others' files, in a bucket; a configuration beside them. Its address."""
    for name, content in (
        ("up/red.mp4", videos["red"]),
        ("up/red.json", b'{"title": "Red, then blue"}'),
        ("up/more/green.mp4", videos["green"]),
        ("up/page.mp4", b"<html></html>"),
        ("up/notes.txt", b"not a video"),
        ("configs/mine.yaml", pathlib.Path(config_of(tmp_path, "lite-frame")).read_bytes()),
    ):
        gcs.put(name, content)
    return "gs://bucket/configs/mine.yaml"


def test_a_launched_job_lists_its_inputs_and_finishes_the_dataset_by_itself(gcs, uploaded, tmp_path, capsys):
    asked = ["--command=curate", "--input=gs://bucket/up/,gs://bucket/up/more/*.mp4", f"--config={uploaded}"]
    assert flex_template.main([*asked, f"--output={URI}", "--fast=false", "--limit=", *HERE]) == 0
    other = str(tmp_path / "set")
    assert main(["curate", "--input", "gs://bucket/up/", "--output", other, "--config", uploaded]) == 0
    assert differences(URI, other) == []
    assert audit(URI).breaches == []
    check_plain_readers(URI)
    assert read_lease(URI) is None
    (record,), (own,) = records(URI), records(other)
    assert (record["status"], record["command"], record["input"]) == (
        "done",
        "curate",
        ["gs://bucket/up/", "gs://bucket/up/more/*.mp4"],
    )
    outcomes = {one["video_id"]: one["outcome"] for one in record["inputs"]}
    assert outcomes == {IDS["red.mp4"]: "committed", IDS["more/green.mp4"]: "committed", IDS["page.mp4"]: "failed"}
    counted = ("inputs", "skipped", "committed", "unchanged", "failed", "clips", "clip_ms", "video_ms", "videos ok")
    assert [record["counts"][name] for name in counted] == [own["counts"][name] for name in counted]


@pytest.fixture
def dataflow(monkeypatch):
    """Dataflow, as Beam and leases ask it."""
    from apache_beam.internal.gcp import auth

    monkeypatch.setattr(auth._Credentials, "_credentials_init", True)
    monkeypatch.setattr(auth._Credentials, "_credentials", None)
    with FakeDataflow() as service:
        monkeypatch.setattr(lease, "job_is_running", functools.partial(job_is_running, endpoint=service.url))
        yield service


def on_dataflow(service: FakeDataflow, folder: pathlib.Path, *more: str) -> list[str]:
    """The options that Google's launcher adds."""
    (folder / "staging").mkdir(exist_ok=True)
    options = {
        "runner": "DataflowRunner",
        "project": "proj-test",
        "region": "us-central1",
        "job_name": "nightly",
        "template_location": folder / "job_object",
        "staging_location": folder / "staging",
        "temp_location": folder / "temporary",
        "dataflow_endpoint": service.url,
        "sdk_location": "container",
        "sdk_container_image": "example.test/worker",
    }
    return ["--no_auth", *(f"--{name}={value}" for name, value in options.items()), *more]


SUBSCRIPTION = "--subscription=projects/proj-test/subscriptions/uploads"
JOB = "projects/proj-test/locations/us-central1/jobs/nightly"


@pytest.fixture
def page(gcs) -> str:
    """The parameter that names a bucket's folder with a page in it, that is no video."""
    gcs.put("up/page.mp4", b"<html></html>")
    return "--input=gs://bucket/up/"


@pytest.mark.parametrize("command", ["curate", "watch"])
def test_a_launch_writes_the_job_and_leaves_the_lease_to_it(dataflow, page, tmp_path, capsys, command):
    source = {"watch": SUBSCRIPTION, "curate": page}[command]
    asked = [f"--command={command}", source, f"--output={URI}", *on_dataflow(dataflow, tmp_path)]
    assert flex_template.main(asked) == 0
    job = json.loads((tmp_path / "job_object").read_text())
    assert (job["name"], job["type"]) == (
        "nightly",
        {"curate": "JOB_TYPE_BATCH", "watch": "JOB_TYPE_STREAMING"}[command],
    )
    held = read_lease(URI)
    (record,) = records()
    assert (held.owner, held.job) == (record["run_id"], JOB)
    assert (record["status"], record["command"]) == ("running", command)
    assert not dataflow.asked, "the launcher of the template submits the job, not we"

    dataflow.add("nightly", state="JOB_STATE_RUNNING")
    assert flex_template.main([*asked, "--job_name=other"]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert f"{URI} is being written by {record['run_id']} (Dataflow job {held.job})" in told
    assert main(["takedown", URI, "--video", "some"]) == 1


def test_an_update_goes_on_with_the_run_of_the_job_that_it_replaces(dataflow, gcs, tmp_path, capsys):
    options = on_dataflow(dataflow, tmp_path)
    asked = ["--command=watch", SUBSCRIPTION, f"--output={URI}", *options]
    assert flex_template.main([*asked, "--update"]) == 2
    told = capsys.readouterr().err
    assert f"there is no job {JOB} that writes to {URI}" in told
    assert flex_template.main(asked) == 0
    owner = read_lease(URI).owner
    dataflow.add("nightly", state="JOB_STATE_CANCELLED")
    assert flex_template.main([*asked, "--update"]) == 2
    assert f"{JOB} has ended" in capsys.readouterr().err.splitlines()[-1]
    dataflow.add("nightly", state="JOB_STATE_RUNNING")
    # Told or not: where the service replaces a job by itself, the launcher sees a new one.
    for told in (["--update"], []):
        assert flex_template.main([*asked, *told]) == 0
    assert (read_lease(URI).owner, read_lease(URI).job[-7:]) == (owner, "nightly")
    assert len(records()) == 1


def test_an_update_that_fails_leaves_dataset_and_record_to_the_job_that_runs(dataflow, gcs, tmp_path, capsys):
    options = on_dataflow(dataflow, tmp_path)
    asked = ["--command=watch", SUBSCRIPTION, f"--output={URI}", *options]
    assert flex_template.main(asked) == 0
    dataflow.add("nightly", state="JOB_STATE_RUNNING")
    (before,) = records()
    assert flex_template.main([*asked, "--update", "--sdk_location=gone.tar.gz"]) == 1
    assert records() == [before]
    assert flex_template.main([*asked, "--job_name=other"]) == 1
    assert f"is being written by {before['run_id']} (Dataflow job {JOB})" in capsys.readouterr().err.splitlines()[-1]


def test_a_graph_that_cannot_be_handed_over_gives_the_lease_back_and_is_on_record(dataflow, page, tmp_path, capsys):
    options = [*on_dataflow(dataflow, tmp_path), "--sdk_location=gone.tar.gz"]
    assert flex_template.main([page, f"--output={URI}", *options]) == 1
    assert "the job could not be launched: " in capsys.readouterr().err.splitlines()[-1]
    (record,) = records()
    assert (record["status"], "gone.tar.gz" in record["error"]["message"]) == ("failed", True)
    assert read_lease(URI).expires_at == 0


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        (["--command=redrive"], "command is curate or watch, not 'redrive'"),
        (["--input=gs://bucket/up/"], "the following arguments are required: --output"),
        (["--input=gs://bucket/none/", f"--output={URI}"], "there is no object gs://bucket/none/"),
        (["--input=gs://bucket/up/", f"--output={URI}", "--fast=maybe"], "--fast cannot be 'maybe'"),
        (
            ["--input=gs://bucket/up/", f"--output={URI}", "--config=gs://bucket/no.yaml"],
            "cannot read the configuration",
        ),
        (["--input=gs://bucket/up/", "--output=gs://nowhere/set"], "nowhere"),
        (["--command=watch", "--subscription=uploads", f"--output={URI}"], "--subscription cannot be 'uploads'"),
        (
            [
                "--input=gs://bucket/up/",
                f"--output={URI}",
                "--runner=DataflowRunner",
                "--project=proj-test",
                "--job_name=A",
            ],
            "'A' is no job's name: small letters, digits and dashes",
        ),
    ],
)
def test_parameters_that_cannot_be_are_told_in_a_line_before_there_is_a_job(gcs, capsys, parameters, told):
    gcs.put("up/page.mp4", b"<html></html>")
    assert flex_template.main([*HERE, *parameters]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("reelscribe: ")
    assert told in line
    assert list(gcs.names()) == ["up/page.mp4"]


def test_switches_of_beam_come_as_the_service_writes_them_and_the_command_may_come_twice():
    given = ["--command=watch", SUBSCRIPTION, f"--output={URI}", "--fast=true", "--limit=", "--command=watch"]
    args, flags = flex_template.parsed(
        [*given, "--enable_hot_key_logging=true", "--no_auth=False", "--region=r", "--pre"]
    )
    assert (args.command, args.subscription, args.fast) == ("watch", SUBSCRIPTION.partition("=")[2], True)
    assert flags == ["--enable_hot_key_logging", "--region=r", "--pre"]


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("--use_public_ips=false", ["--no_use_public_ips"]),
        ("--no_use_public_ips=true", ["--no_use_public_ips"]),
        ("--no_use_public_ips=false", ["--use_public_ips"]),
        ("--update=false", []),
    ],
)
def test_a_switch_that_is_off_is_the_one_that_beam_has_for_it(given, taken):
    assert flex_template.switches([given]) == taken
