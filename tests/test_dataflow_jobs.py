"""Jobs of Dataflow by their names, asked for through Google's own client."""

import pytest
from fake_dataflow import FakeDataflow

from transforms import dataflow_jobs
from transforms.dataflow_jobs import NAME, DataflowError, JobName, NoCredentials, job_is_running

PLACE = ("proj-test", "us-central1")


@pytest.fixture
def dataflow():
    with FakeDataflow() as service:
        yield service


@pytest.mark.parametrize(
    ("state", "runs"),
    [
        ("QUEUED", True),
        ("PENDING", True),
        ("RUNNING", True),
        ("DRAINING", True),
        ("CANCELLING", True),
        ("RESOURCE_CLEANING_UP", True),
        ("UNKNOWN", True),
        ("DONE", False),
        ("FAILED", False),
        ("CANCELLED", False),
        ("DRAINED", False),
        ("UPDATED", False),
    ],
)
def test_a_job_runs_until_it_has_ended_even_while_it_waits(dataflow, state, runs):
    dataflow.add("nightly", f"JOB_STATE_{state}")
    assert job_is_running(*PLACE, "nightly", dataflow.url) is runs


def test_a_job_that_was_never_there_does_not_run_and_one_with_a_longer_name_is_another(dataflow):
    dataflow.add("nightly-2")
    assert job_is_running(*PLACE, "nightly", dataflow.url) is False


def test_the_one_that_runs_is_found_behind_pages_of_those_that_ended(dataflow, monkeypatch):
    dataflow.page_size = 2
    monkeypatch.setattr(dataflow, "_listing", _newest_last(dataflow))
    for _ in range(5):
        dataflow.add("nightly", "JOB_STATE_DONE")
    dataflow.add("nightly")
    assert job_is_running(*PLACE, "nightly", dataflow.url) is True
    assert len(dataflow.asked) == 3


def _newest_last(dataflow):
    """A listing in another order: the reference says that it may change."""

    def listing(query):
        begin = int(query.get("pageToken", ["0"])[0])
        jobs = list(dataflow.jobs.values())
        more = {"nextPageToken": str(begin + 2)} if begin + 2 < len(jobs) else {}
        return 200, {"jobs": jobs[begin : begin + 2], **more}

    return listing


def test_what_is_asked_names_the_job_and_the_place(dataflow):
    job_is_running(*PLACE, "nightly", dataflow.url)
    ((method, url, _),) = dataflow.asked
    path, _, query = url.partition("?")
    assert (method, path) == ("GET", "/v1b3/projects/proj-test/locations/us-central1/jobs")
    assert {"name=nightly", "filter=1", "pageSize=100"} <= set(query.split("&"))


def test_a_service_that_stumbles_is_asked_again(dataflow):
    dataflow.add("nightly")
    dataflow.stumbles = 1
    assert job_is_running(*PLACE, "nightly", dataflow.url) is True


def test_a_refusal_is_no_answer_and_says_which_role_is_missing(dataflow):
    dataflow.refuse = (403, "PERMISSION_DENIED", "dataflow.jobs.list is missing")
    with pytest.raises(DataflowError, match=r"jobs/nightly is closed to us .*it takes roles/dataflow.viewer") as told:
        job_is_running(*PLACE, "nightly", dataflow.url)
    assert "\n" not in str(told.value)


def test_a_service_that_is_not_there_is_no_answer(monkeypatch):
    monkeypatch.setattr(dataflow_jobs, "_RETRY_S", 0.2)
    with pytest.raises(DataflowError, match=r"^Dataflow cannot be asked for projects/proj-test/.*/jobs/nightly now: "):
        job_is_running(*PLACE, "nightly", "http://localhost:9")


def test_without_credentials_one_line_says_how_to_get_some(monkeypatch, tmp_path):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "absent.json"))
    with pytest.raises(NoCredentials, match=r"run: gcloud auth application-default login$"):
        job_is_running(*PLACE, "nightly")


def test_a_job_is_written_as_it_is_read():
    job = JobName("example.com:my-project", "us-central1", "nightly")
    assert str(job) == "projects/example.com:my-project/locations/us-central1/jobs/nightly"
    assert JobName.parse(str(job)) == job


@pytest.mark.parametrize("text", ["", "nightly", "projects/p/jobs/nightly", "projects/p/locations/r/jobs/a/b"])
def test_what_names_no_job_is_refused(text):
    with pytest.raises(ValueError, match="write projects/PROJECT/locations/REGION/jobs/NAME"):
        JobName.parse(text)


@pytest.mark.parametrize(
    ("name", "fits"),
    [("a", True), ("a-1", True), ("a" * 63, True), ("a" * 64, False), ("A", False), ("1a", False), ("a-", False)],
)
def test_names_of_jobs_are_those_that_dataflow_takes(name, fits):
    assert bool(NAME.fullmatch(name)) is fits
