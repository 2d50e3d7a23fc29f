"""Launches a template as a job of Dataflow, and follows the job until it ends.

launched = launch(request, endpoint=None)
print(*told(launched), sep=", ")
state = follow(launched, endpoint=None, say=print)          # "JOB_STATE_DONE"
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import time
from collections.abc import Callable
from typing import Any

from transforms import objects
from transforms.dataflow_jobs import ENDED, JobExists, NoSuchJob, Unreachable, asking, client_of, jobs_client

POLL_S = 15.0
#: For the one request that launches.
_LAUNCH_S = 120.0
#: How long the service may be out of reach before a follower gives up; the job goes on.
_PATIENCE_S = 600.0
#: In which a job has done what it was made for.
DONE = frozenset(["JOB_STATE_DONE", "JOB_STATE_DRAINED"])
_LAUNCHER = (
    "roles/dataflow.developer and roles/compute.viewer on the project, and roles/iam.serviceAccountUser on the workers'"
    " account"
)


@dataclasses.dataclass(frozen=True)
class Launched:
    """A job that the service has taken on."""

    project: str
    region: str
    name: str
    job_id: str
    streaming: bool

    @property
    def console(self) -> str:
        """Where the job is shown."""
        return f"https://console.cloud.google.com/dataflow/jobs/{self.region}/{self.job_id}?project={self.project}"

    def gcloud(self, verb: str) -> str:
        """The command that does something to the job: show, drain or cancel."""
        return f"gcloud dataflow jobs {verb} {self.job_id} --region={self.region} --project={self.project}"


def launch(request: Any, endpoint: str | None = None) -> Launched:
    """Ask Dataflow to launch a template.

    Raises:
      DataflowError: it refuses, or cannot be asked; whether there is a job now is then said as far as it is known.
    """
    parameter = request.launch_parameter
    try:
        with asking(f"a job {parameter.job_name} of {parameter.container_spec_gcs_path}", _LAUNCHER):
            # Once: a launch whose answer was lost may have made the job, and would find that it exists.
            client = client_of("FlexTemplatesServiceClient", endpoint)
            answer = client.launch_flex_template(request, timeout=_LAUNCH_S, retry=None)
    except JobExists as error:
        raise JobExists(f"{error}; drain or cancel that one, or say another --job-name") from error
    except NoSuchJob as error:
        update = ", and --job-name the job that runs" if parameter.update else ""
        raise NoSuchJob(f"{error}; templates/build.sh makes the template, --template names it{update}") from error
    streaming = dict(parameter.parameters).get("command") == "watch"
    return Launched(request.project_id, request.location, parameter.job_name, answer.job.id, streaming)


def told(launched: Launched) -> list[str]:
    """What to know of a job that was launched, line by line."""
    lines = [
        f"job       {launched.job_id} ({launched.name})",
        f"console   {launched.console}",
        f"follow    {launched.gcloud('show')}",
    ]
    return [*lines, *stopping(launched)]


def stopping(launched: Launched) -> list[str]:
    """How to stop a job, line by line."""
    drain = [f"drain     {launched.gcloud('drain')}"] if launched.streaming else []
    return [*drain, f"cancel    {launched.gcloud('cancel')}"]


def follow(
    launched: Launched,
    endpoint: str | None = None,
    say: Callable[[str], None] = print,
    poll_s: float = POLL_S,
) -> str:
    """Look after a job until it has ended, and tell each state that it takes on with the time; return the last.

    Raises:
      DataflowError: the service cannot be asked any more, or knows no such job. The job itself goes on.
    """
    from google.cloud.dataflow_v1beta3 import types

    request = types.GetJobRequest(project_id=launched.project, location=launched.region, job_id=launched.job_id)
    before, heard = "", time.monotonic()
    while True:
        try:
            with asking(f"job {launched.job_id}") as limits:
                state = jobs_client(endpoint).get_job(request, **limits).current_state.name
            heard = time.monotonic()
        except Unreachable as error:
            if time.monotonic() - heard > _PATIENCE_S:
                raise
            say(f"{_now()} {error}")
            state = before
        if state != before:
            say(f"{_now()} {state.removeprefix('JOB_STATE_').lower().replace('_', ' ')}")
            before = state
        if state in ENDED:
            return state
        time.sleep(poll_s)


def _now() -> str:
    return f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%SZ}"


def place_of(content: bytes, temp_location: str) -> str:
    """Where a configuration is put: named by what it says, so that the same one is uploaded once."""
    digest = hashlib.sha256(content).hexdigest()[:16]
    return f"{temp_location.rstrip('/')}/reelscribe/config-{digest}.yaml"


def put(content: bytes, uri: str) -> None:
    """Upload a configuration. Raises StorageError, Refused or FileNotFoundError."""
    # Also where it is there already: one that is about to expire would be gone when the launcher looks.
    objects.write(uri, content)
