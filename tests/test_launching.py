"""`reelscribe launch`: what it asks of Dataflow, through Google's own client, and what it tells."""

import json
import re
import signal
import threading

import pytest
from fake_dataflow import FakeDataflow

from beam_pipeline import launching
from beam_pipeline.cli import main
from transforms import dataflow_jobs
from transforms.lease import WriterLease

# Else each launch would look for credentials to read the dataset's lease with.
pytestmark = pytest.mark.usefixtures("gcs")

SPEC = "gs://bucket/templates/reelscribe-curate.json"
PLACE = ["--project=proj-test", "--region=us-central1"]
CURATE = ["launch", "curate", f"--template={SPEC}", *PLACE, "--input=gs://uploads/", "--output=gs://datasets/talks"]
WATCH = [
    *[
        "launch",
        "watch",
        "--template=gs://bucket/templates/reelscribe-watch.json",
        *PLACE,
        "--output=gs://datasets/talks",
    ],
    "--subscription=projects/proj-test/subscriptions/uploads",
]


@pytest.fixture
def dataflow(monkeypatch):
    monkeypatch.setattr(launching, "POLL_S", 0.01)
    with FakeDataflow() as service:
        yield service


def asked_for(capsys, *argv):
    """What a dry run would ask for."""
    assert main([*argv, "--dry-run"]) == 0
    return json.loads(capsys.readouterr().out)


def complaint_of(capsys, *argv):
    assert main(list(argv)) == 2
    out, complaint = capsys.readouterr()
    assert (out, complaint.count("\n")) == ("", 1)
    return complaint.removeprefix("reelscribe: ").rstrip("\n")


def test_the_request_of_a_batch_job_is_exact(capsys):
    flags = [
        *["--job-name=nightly", "--measure=blur", "--filter=blur=..0.6", "--fast", "--limit=5"],
        *["--max_num_workers=20", "--num_workers=2", "--machine_type=g2-standard-8", "--disk_size_gb=100"],
        *["--service_account_email=worker@proj-test.iam.gserviceaccount.com", "--no_use_public_ips"],
        *["--subnetwork=regions/us-central1/subnetworks/s", "--labels=team=video", "--label=cost=low"],
        *[
            "--experiments=a,b",
            "--experiments=c",
            "--temp_location=gs://bucket/tmp",
            "--staging_location=gs://bucket/s",
        ],
        *["--dataflow_kms_key=projects/p/locations/l/keyRings/r/cryptoKeys/k", "--flexrs_goal=COST_OPTIMIZED"],
        *["--sdk_container_image=r.example/worker:2", "--autoscaling_algorithm=THROUGHPUT_BASED"],
        *["--dataflow_service_options=worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver"],
        *["--dataflow_service_options=enable_preflight_validation=false", "--number_of_worker_harness_threads=4"],
        *["--enable_hot_key_logging", "--launcher-machine-type=n2-standard-2"],
    ]
    assert asked_for(capsys, *CURATE, *flags) == {
        "projectId": "proj-test",
        "location": "us-central1",
        "launchParameter": {
            "jobName": "nightly",
            "containerSpecGcsPath": SPEC,
            "parameters": {
                "command": "curate",
                "input": "gs://uploads/",
                "output": "gs://datasets/talks",
                "measure": "blur",
                "filter": "blur=..0.6",
                "fast": "true",
                "limit": "5",
            },
            "environment": {
                "maxWorkers": 20,
                "numWorkers": 2,
                "machineType": "g2-standard-8",
                "diskSizeGb": 100,
                "serviceAccountEmail": "worker@proj-test.iam.gserviceaccount.com",
                "ipConfiguration": "WORKER_IP_PRIVATE",
                "subnetwork": "regions/us-central1/subnetworks/s",
                "additionalUserLabels": {"team": "video", "cost": "low"},
                "additionalExperiments": ["a", "b", "c"],
                "tempLocation": "gs://bucket/tmp",
                "stagingLocation": "gs://bucket/s",
                "kmsKeyName": "projects/p/locations/l/keyRings/r/cryptoKeys/k",
                "flexrsGoal": "FLEXRS_COST_OPTIMIZED",
                "sdkContainerImage": "r.example/worker:2",
                "autoscalingAlgorithm": "AUTOSCALING_ALGORITHM_BASIC",
                "launcherMachineType": "n2-standard-2",
                "additionalPipelineOptions": [
                    "dataflow_service_options=worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver,"
                    "enable_preflight_validation=false",
                    "number_of_worker_harness_threads=4",
                    "enable_hot_key_logging=true",
                ],
            },
        },
    }


def test_the_request_of_an_update_names_the_job_and_what_is_called_otherwise_now(capsys):
    flags = ["--job-name=uploads", "--update", '--transform-name-mapping={"Old": "New"}', "--commit-within=10"]
    launch = asked_for(capsys, *WATCH, *flags)["launchParameter"]
    assert launch == {
        "jobName": "uploads",
        "containerSpecGcsPath": "gs://bucket/templates/reelscribe-watch.json",
        "parameters": {
            "command": "watch",
            "subscription": "projects/proj-test/subscriptions/uploads",
            "output": "gs://datasets/talks",
            "commit_within": "10",
        },
        "environment": {},
        "update": True,
        "transformNameMappings": {"Old": "New"},
    }


WRONG = {
    "a local input": (["--input=/videos"], "--input must be in Cloud Storage, like gs://BUCKET/NAME, not '/videos'"),
    "a local output": (["--output=out"], "--output must be in Cloud Storage, like gs://BUCKET/NAME, not 'out'"),
    "a flag of rounds": (["--chunk-videos=3"], "--chunk-videos is not for Dataflow: on Dataflow all videos go"),
    "a flag of metrics": (["--metrics-port=0"], "--metrics-port is not for Dataflow: workers come and go"),
    "a slip": (["--max_num_worker=3"], "unknown argument '--max_num_worker=3'; did you mean '--max_num_workers'?"),
    "another runner's": (["--direct_num_workers=3"], "--direct_num_workers is for another runner"),
    "another runner": (["--runner=FlinkRunner"], "--runner is Dataflow's where a template is launched"),
    "code": (["--setup_file=setup.py"], "--setup_file is not for a launch: the template's images hold all code"),
    "a label": (["--labels=Team=x"], "'Team=x' is no label; write --labels=KEY=VALUE"),
    "two places": (["--worker_region=a", "--worker_zone=b"], "--worker_region and --worker_zone both say where"),
    "numbers": (["--num_workers=9", "--max_num_workers=3"], "--num_workers=9 is more than --max_num_workers=3"),
    "no workers": (["--max_num_workers=0"], "--max_num_workers must be a number from 1 up, not 0"),
    "a local place": (["--temp_location=/tmp"], "--temp_location must be in Cloud Storage"),
    "no JSON": (["--gcs_custom_audit_entries=x"], "a value among --gcs_custom_audit_entries=x is not what Apache Beam"),
    "a name": (["--job-name=Nightly"], "--job-name 'Nightly' is no name of a job"),
    "a project": (["--project=My Project"], "--project must be the id of a project"),
    "a region": (["--region=us-central1-a"], "--region must be a region, like us-central1, not 'us-central1-a'"),
    "a template": (["--template=curate.json"], "--template must be like gs://BUCKET/templates/reelscribe-curate.json"),
    "a profile": (["--profile=lit"], "there is no profile 'lit'; did you mean 'lite'?"),
    "a detector": (["--detector=contnt"], "there is no detector 'contnt'; did you mean 'content'?"),
    "a measure": (["--measure=blurr"], "there is no measure 'blurr'; did you mean 'blur'?"),
    "streaming": (["--enable_streaming_engine"], "--enable_streaming_engine is for watch; curate is batch"),
    "a configuration": (["--config=/no/such.yaml"], "cannot read the configuration /no/such.yaml: No such file"),
}


@pytest.mark.parametrize(("flags", "told"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_meant_is_refused_here_in_a_line(flags, told, capsys):
    assert complaint_of(capsys, *CURATE, *flags).startswith(told)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--update"], "--update needs the --job-name of the job that is to be replaced"),
        (['--transform-name-mapping={"a": "b"}'], "--transform-name-mapping is for --update"),
        (
            ["--transform-name-mapping=a"],
            "argument --transform-name-mapping/--transform_name_mapping: 'a' is no mapping",
        ),
        (["--flexrs_goal=COST_OPTIMIZED"], "--flexrs_goal is for batch"),
        (["--poll=3"], "--poll is for --input"),
        (["--quiet=3"], "--quiet is not for Dataflow: it is about rounds on one machine"),
    ],
)
def test_what_a_watch_cannot_mean_is_refused_here_in_a_line(flags, told, capsys):
    assert complaint_of(capsys, *WATCH, *flags).startswith(told)


def test_a_launch_tells_the_job_and_how_to_follow_and_stop_it(dataflow, capsys):
    assert main([*WATCH, "--job-name=uploads", f"--dataflow_endpoint={dataflow.url}"]) == 0
    ((method, body),) = dataflow.bodies
    assert (method, body["launchParameter"]["jobName"]) == ("POST", "uploads")
    job = "job-1 --region=us-central1 --project=proj-test"
    assert capsys.readouterr().out.splitlines() == [
        "job       job-1 (uploads)",
        "console   https://console.cloud.google.com/dataflow/jobs/us-central1/job-1?project=proj-test",
        f"follow    gcloud dataflow jobs show {job}",
        f"drain     gcloud dataflow jobs drain {job}",
        f"cancel    gcloud dataflow jobs cancel {job}",
    ]


def test_what_is_sent_is_what_the_dry_run_printed(dataflow, capsys):
    argv = [*CURATE, "--job-name=nightly", "--max_num_workers=3", f"--dataflow_endpoint={dataflow.url}"]
    printed = asked_for(capsys, *argv)
    assert dataflow.asked == []
    assert main(argv) == 0
    ((_, url, body),) = dataflow.asked
    assert url.partition("?")[0] == "/v1b3/projects/proj-test/locations/us-central1/flexTemplates:launch"
    assert {"projectId": "proj-test", "location": "us-central1", **body} == printed


def waited(dataflow, *states):
    dataflow.passes["job-1"] = [f"JOB_STATE_{state}" for state in states]
    return main([*CURATE, "--wait", f"--dataflow_endpoint={dataflow.url}"])


def states_in(text):
    return [found[1] for line in text.splitlines() if (found := re.fullmatch(r"\d{4}-\d\d-\d\d [\d:]{8}Z (.*)", line))]


def test_waiting_tells_each_state_once_and_ends_with_the_job(dataflow, capsys):
    assert waited(dataflow, "QUEUED", "PENDING", "RUNNING", "RUNNING", "RUNNING", "DONE") == 0
    assert states_in(capsys.readouterr().out) == ["queued", "pending", "running", "done"]


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED", "UPDATED"])
def test_a_job_that_did_not_do_its_work_is_status_1_and_says_where_to_look(dataflow, capsys, state):
    assert waited(dataflow, "RUNNING", state) == 1
    out, complaint = capsys.readouterr()
    assert states_in(out) == ["running", state.lower()]
    assert complaint == (
        f"reelscribe: the job ended {state.lower()}; what is committed stands, and why it ended: "
        "https://console.cloud.google.com/dataflow/jobs/us-central1/job-1?project=proj-test\n"
    )


def test_waiting_outlasts_a_service_that_stumbles(dataflow, capsys, monkeypatch):
    monkeypatch.setattr(dataflow_jobs, "_RETRY_S", 0.0)
    dataflow.on_launch = lambda: setattr(dataflow, "stumbles", 2)
    assert waited(dataflow, "RUNNING", "DONE") == 0
    told = states_in(capsys.readouterr().out)
    assert told[-2:] == ["running", "done"]
    assert all(line.startswith("Dataflow cannot be asked for job job-1 now: ") for line in told[:-2])
    assert len(told) == 4


def test_an_interrupt_leaves_the_job_running_and_says_how_to_stop_it(dataflow, capsys, monkeypatch):
    monkeypatch.setattr(launching, "POLL_S", 30.0)
    dataflow.passes["job-1"] = ["JOB_STATE_RUNNING"]
    threading.Timer(0.5, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
    assert main([*WATCH, "--wait", f"--dataflow_endpoint={dataflow.url}"]) == 130
    job = "job-1 --region=us-central1 --project=proj-test"
    assert capsys.readouterr().err.splitlines() == [
        "reelscribe: no longer waiting, the job goes on; to stop it:",
        f"drain     gcloud dataflow jobs drain {job}",
        f"cancel    gcloud dataflow jobs cancel {job}",
    ]
    assert dataflow.jobs["job-1"]["currentState"] == "JOB_STATE_RUNNING"


def refused(dataflow, capsys, *flags):
    assert main([*CURATE, "--job-name=nightly", f"--dataflow_endpoint={dataflow.url}", *flags]) == 1
    out, complaint = capsys.readouterr()
    assert (out, complaint.count("\n")) == ("", 1)
    return complaint.removeprefix("reelscribe: ").rstrip("\n")


def test_a_job_of_that_name_which_has_not_ended_is_told_with_what_to_do(dataflow, capsys):
    dataflow.add("nightly")
    told = refused(dataflow, capsys)
    assert told.startswith(f"there is already a job nightly of {SPEC}: 409 ")
    assert told.endswith("drain or cancel that one, or say another --job-name")


def test_a_template_that_is_not_there_is_told_with_what_to_do(dataflow, capsys):
    dataflow.templates = set()
    told = refused(dataflow, capsys)
    assert f"Unable to open template file: {SPEC}" in told
    assert told.endswith("templates/build.sh makes the template, --template names it")


def test_an_update_of_a_job_that_does_not_run_is_told_with_what_to_do(dataflow, capsys):
    assert main([*WATCH, "--update", "--job-name=uploads", f"--dataflow_endpoint={dataflow.url}"]) == 1
    assert capsys.readouterr().err.endswith("--template names it, and --job-name the job that runs\n")


def test_an_update_takes_the_place_of_the_job_that_runs(dataflow, capsys):
    dataflow.add("uploads")
    assert main([*WATCH, "--update", "--job-name=uploads", f"--dataflow_endpoint={dataflow.url}"]) == 0
    assert [job["currentState"] for job in dataflow.jobs.values()] == ["JOB_STATE_UPDATED", "JOB_STATE_QUEUED"]


@pytest.mark.parametrize(
    ("status", "name", "told"),
    [
        (403, "PERMISSION_DENIED", "is closed to us (403 "),
        (429, "RESOURCE_EXHAUSTED", "the project's quota does not allow a job nightly of "),
        (400, "INVALID_ARGUMENT", "Dataflow refuses a job nightly of "),
        (500, "INTERNAL", "Dataflow cannot be asked for a job nightly of "),
    ],
)
def test_refusals_of_the_service_are_one_line_and_status_1(dataflow, capsys, status, name, told):
    dataflow.refuse = (status, name, "the service's\nown words")
    complaint = refused(dataflow, capsys)
    assert told in complaint
    assert "the service's own words" in complaint
    assert len(dataflow.asked) == 1


def test_without_credentials_one_line_says_how_to_get_some(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent.json"))
    told = complaint_of(capsys, *CURATE)
    assert told.startswith("there are no credentials to ask Dataflow for a job reelscribe-curate-talks-")
    assert told.endswith("run: gcloud auth application-default login")


def test_a_dataset_that_somebody_writes_to_is_told_before_a_launch(dataflow, capsys):
    taken = [*CURATE[:-1], "--output=gs://bucket/talks", f"--dataflow_endpoint={dataflow.url}"]
    with WriterLease("gs://bucket/talks", "another"):
        assert main(taken) == 1
    assert "gs://bucket/talks is being written by another (pid" in capsys.readouterr().err
    assert dataflow.asked == []


def test_flags_that_contradict_the_configuration_are_told_before_a_launch(capsys, tmp_path):
    (tmp_path / "mine.yaml").write_text("placement: {workers: alike, accelerator: 'type:nvidia-l4;count:1'}\n")
    told = complaint_of(capsys, *CURATE, f"--config={tmp_path / 'mine.yaml'}", "--temp_location=gs://bucket/t")
    assert told == "type:nvidia-l4;count:1 has no driver, and models would run on the CPU; add ;install-nvidia-driver"


def test_a_local_configuration_is_uploaded_under_one_name_and_passed_by_its_address(dataflow, gcs, capsys, tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: lite\nabstain_below: 0.25\n")
    flags = [
        f"--config={tmp_path}/mine.yaml",
        "--temp_location=gs://bucket/tmp/",
        f"--dataflow_endpoint={dataflow.url}",
    ]
    for name in ("one", "two"):
        assert main([*CURATE, f"--job-name={name}", *flags]) == 0
    addresses = {body["launchParameter"]["parameters"]["config"] for _, body in dataflow.bodies}
    (name,) = gcs.names()
    assert addresses == {f"gs://bucket/{name}"}
    assert re.fullmatch(r"tmp/reelscribe/config-[0-9a-f]{16}\.yaml", name)
    assert gcs.xml("GET", name)[2] == b"extends: lite\nabstain_below: 0.25\n"


def test_a_configuration_in_a_bucket_is_checked_before_a_launch(dataflow, gcs, capsys):
    gcs.put("mine.yaml", "extends: lite\nabstain: 0.25\n")
    told = complaint_of(capsys, *CURATE, "--config=gs://bucket/mine.yaml", f"--dataflow_endpoint={dataflow.url}")
    assert told.startswith("there is no key 'abstain'; did you mean 'abstain_below'?")
    assert complaint_of(capsys, *CURATE, "--config=gs://bucket/no.yaml") == "there is no gs://bucket/no.yaml"
    assert dataflow.asked == []


def test_a_wrong_configuration_is_named_as_the_user_named_it(capsys, tmp_path):
    (tmp_path / "mine.yaml").write_text("- lite\n")
    path = f"{tmp_path}/mine.yaml"
    assert complaint_of(capsys, *CURATE, f"--config={path}") == f"{path} must be a mapping of keys to values"
    (tmp_path / "mine.yaml").write_text("teachers: &t [*t]\n")
    told = complaint_of(capsys, *CURATE, f"--config={path}")
    assert told == f"cannot read the configuration {path}: it stands for more than 100,000 values, or for itself"


def test_a_local_configuration_needs_a_place_to_be_put(capsys, tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: lite\n")
    told = complaint_of(capsys, *CURATE, f"--profile={tmp_path}/mine.yaml")
    assert told.startswith("--temp_location gs://BUCKET/FOLDER is needed to put ")


def test_folders_of_the_images_are_told_and_do_not_stop_a_launch(capsys, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: lite\nteachers: [lite-frame, {name: blip-base, weights: /models/blip}]\n")
    assert main([*CURATE, f"--config={path}", "--temp_location=gs://bucket/tmp", "--dry-run"]) == 0
    checked, named = capsys.readouterr().err.splitlines()
    assert checked.startswith(f"reelscribe: note: {path} could not be checked to its end here: there is no directory")
    assert named == f"reelscribe: note: {path} names /models/blip: the template's images must hold it under this name"
