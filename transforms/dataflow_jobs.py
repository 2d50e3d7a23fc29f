"""Jobs of Dataflow by their names: whether one still runs, asked of the service.

    job = JobName("my-project", "us-central1", "nightly")
    str(job)                                  # "projects/my-project/locations/us-central1/jobs/nightly"
    job_is_running("my-project", "us-central1", "nightly")

Of the jobs of a project and a region that have not ended no two have the same name, so a name says which is meant; a
job's id is known to nobody before the service has made it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
from collections.abc import Iterator
from typing import Any, Self

#: What Dataflow takes as the name of a job.
NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
#: For one request, and for a request with its repetitions.
_TIMEOUT_S, _RETRY_S = 30.0, 90.0
_PAGE = 100
_FULL_NAME = re.compile(r"projects/([^/\s]+)/locations/([^/\s]+)/jobs/([^/\s]+)")

#: What a job no longer leaves. Of all others it must be assumed that its workers write, or will: one that is STOPPED
#: "has not yet started", by the reference.
ENDED = frozenset(f"JOB_STATE_{state}" for state in ("DONE", "FAILED", "CANCELLED", "UPDATED", "DRAINED"))


class DataflowError(RuntimeError):
    """Dataflow refuses, or cannot be asked: told in a line with what to do."""


class NoCredentials(DataflowError):
    """Nobody says who we are."""


class NoSuchJob(DataflowError):
    """There is no such job, template or project."""


class Unreachable(DataflowError):
    """Dataflow does not answer, or stumbles: it may later."""


class JobExists(DataflowError):
    """A job of this name has not ended yet."""


@dataclasses.dataclass(frozen=True, slots=True)
class JobName:
    """A job by its name: among those that have not ended there is one at the most."""

    project: str
    region: str
    name: str

    def __str__(self) -> str:
        return f"projects/{self.project}/locations/{self.region}/jobs/{self.name}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` gave. Raises ValueError where it is none."""
        found = _FULL_NAME.fullmatch(text)
        if not found:
            raise ValueError(f"{text!r} is no job; write projects/PROJECT/locations/REGION/jobs/NAME")
        return cls(*found.groups())


def job_is_running(project: str, region: str, job_name: str, endpoint: str | None = None) -> bool:
    """Ask whether a job of that name has not ended; one that waits for its launcher or its workers counts.

    Args, Raises: as of `states_of`.
    """
    return bool(states_of(project, region, job_name, endpoint) - ENDED)


def can_be_updated(project: str, region: str, job_name: str, endpoint: str | None = None) -> bool:
    """Ask whether a job of that name runs, beside one that may be waiting to replace it.

    Beam looks for it, too, and where there is none it goes on looking without an end.
    """
    return bool(states_of(project, region, job_name, endpoint) & {"JOB_STATE_RUNNING", "JOB_STATE_DRAINING"})


def states_of(project: str, region: str, job_name: str, endpoint: str | None = None) -> set[str]:
    """Ask for the states of all jobs of that name.

    Args:
      endpoint: where to ask instead of Dataflow, like Beam's --dataflow_endpoint; http://localhost:PORT in tests.

    Raises:
      DataflowError: the service refuses, or cannot be asked, which is no answer either way.
    """
    # Not `from google.cloud import dataflow_v1beta3`: what is missing should be a ModuleNotFoundError with its name.
    from google.cloud.dataflow_v1beta3 import types

    # Not those that are ACTIVE alone: what that means of jobs that are queued is nowhere written.
    request = types.ListJobsRequest(
        project_id=project, location=region, name=job_name, filter=types.ListJobsRequest.Filter.ALL, page_size=_PAGE
    )
    with asking(str(JobName(project, region, job_name))) as limits:
        jobs = jobs_client(endpoint).list_jobs(request, **limits)
        return {job.current_state.name for job in jobs if job.name == job_name}


@contextlib.contextmanager
def asking(what: str, role: str = "roles/dataflow.viewer on the project") -> Iterator[dict[str, Any]]:
    """Give the limits that every request has; errors of Google's clients become ours.

    Args:
      what: is asked for. role: whoever asks needs it, with where.
    """
    from google.api_core import exceptions as api
    from google.api_core.retry import Retry, if_exception_type
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError

    passing = if_exception_type(api.ServiceUnavailable, api.GatewayTimeout, api.BadGateway, api.TooManyRequests)
    try:
        yield {"timeout": _TIMEOUT_S, "retry": Retry(predicate=passing, initial=0.5, timeout=_RETRY_S)}
    except api.NotFound as error:
        raise NoSuchJob(f"Dataflow does not find {what}: {_line(error)}") from error
    except (api.AlreadyExists, api.Conflict) as error:
        raise JobExists(f"there is already {what}: {_line(error)}") from error
    except (api.Forbidden, api.Unauthorized) as error:
        raise DataflowError(f"{what} is closed to us ({_line(error)}); it takes {role}") from error
    except DefaultCredentialsError as error:
        told = "gcloud auth application-default login"
        raise NoCredentials(f"there are no credentials to ask Dataflow for {what} with; run: {told}") from error
    except api.TooManyRequests as error:
        raise Unreachable(f"the project's quota does not allow {what} now: {_line(error)}") from error
    except api.ClientError as error:
        raise DataflowError(f"Dataflow refuses {what}: {_line(error)}") from error
    except (api.GoogleAPIError, GoogleAuthError, OSError) as error:
        raise Unreachable(f"Dataflow cannot be asked for {what} now: {_line(error)}") from error


def jobs_client(endpoint: str | None = None) -> Any:
    """The client for jobs."""
    return client_of("JobsV1Beta3Client", endpoint)


def client_of(kind: str, endpoint: str | None) -> Any:
    """A client of Dataflow's by the name of its class; one a process."""
    return _client(kind, endpoint, os.getpid())


@functools.cache
def _client(kind: str, endpoint: str | None, process: int) -> Any:
    from google.api_core.client_options import ClientOptions
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import dataflow_v1beta3

    made = getattr(dataflow_v1beta3, kind)
    if not endpoint:
        return made()
    # As Beam reads the same option: what runs on this machine is spoken to in plain HTTP, and needs no account.
    if "localhost" in endpoint:
        options = ClientOptions(api_endpoint=endpoint.rstrip("/"))
        return made(transport="rest", credentials=AnonymousCredentials(), client_options=options)
    return made(client_options=ClientOptions(api_endpoint=re.sub("^https?://", "", endpoint).rstrip("/")))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500]
