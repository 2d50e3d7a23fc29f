"""Dataflow in this process, spoken to by Google's own clients and by Beam: jobs that are launched, listed, changed.

    with FakeDataflow() as dataflow:                                  # --dataflow_endpoint={dataflow.url}
        dataflow.add("nightly", state="JOB_STATE_RUNNING")            # -> the job's id
        dataflow.passes["job-1"] = ["JOB_STATE_RUNNING", "JOB_STATE_DONE"]
        dataflow.refuse = (403, "PERMISSION_DENIED", "no rights")     # what all requests are answered with
        dataflow.asked                                                # [("POST", "/v1b3/...", body), ...]

Its answers have the forms of the service's REST reference. A template is launched if its file is among `templates`,
where that is not None; of jobs that have not ended no two have the same name.
"""

from __future__ import annotations

import http.server
import json
import re
import threading
import urllib.parse
from collections.abc import Callable
from typing import Any, Self

_JOBS = re.compile(r"/v1b3/projects/([^/]+)/locations/([^/]+)/jobs")
_JOB = re.compile(_JOBS.pattern + r"/([^/:]+)")
_TEMPLATES = re.compile(r"/v1b3/projects/([^/]+)/locations/([^/]+)/flexTemplates:launch")
_ENDED = {f"JOB_STATE_{state}" for state in ("DONE", "FAILED", "CANCELLED", "UPDATED", "DRAINED")}
#: What comes of what a job is asked to become; Google's clients write a state by its number.
_BECOMES = {5: "JOB_STATE_CANCELLED", 7: "JOB_STATE_DRAINED", 10: "JOB_STATE_CANCELLED"}

Answer = tuple[int, dict[str, Any]]


class FakeDataflow:
    """A server of its own port.

    Attributes:
      asked: each request's method, path with query, and body.
      jobs: by id, as the service tells them.
      passes: the states that a job takes on, one each time it is looked at; by id.
      refuse: (status, name of the status, message) of the answer to all requests; None: they are answered.
      stumbles: so many requests are answered with 503 first.
      templates: the specifications that there are; None: any.
      launched_as: the state of a job that was launched.
      on_launch: called when a job is made, before that is answered.
      page_size: the most jobs in a page of a listing.
    """

    def __init__(self, project: str = "proj-test", region: str = "us-central1") -> None:
        self.project, self.region = project, region
        self.asked: list[tuple[str, str, Any]] = []
        self.jobs: dict[str, dict[str, Any]] = {}
        self.passes: dict[str, list[str]] = {}
        self.refuse: tuple[int, str, str] | None = None
        self.stumbles = 0
        self.templates: set[str] | None = None
        self.launched_as = "JOB_STATE_QUEUED"
        self.on_launch: Callable[[], None] = lambda: None
        self.page_size = 50
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        self._server = http.server.ThreadingHTTPServer(("localhost", 0), _requests_to(self))
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://localhost:{self._server.server_port}"

    @property
    def bodies(self) -> list[tuple[str, Any]]:
        """What was asked for that changes something."""
        return [(method, body) for method, _, body in self.asked if method != "GET"]

    def add(self, name: str, state: str = "JOB_STATE_RUNNING", **fields: Any) -> str:
        """Let there be a job; return its id."""
        with self._lock:
            job_id = f"job-{len(self.jobs) + 1}"
            job = {"id": job_id, "name": name, "projectId": self.project, "location": self.region}
            self.jobs[job_id] = {**job, "currentState": state, **fields}
        return job_id

    def answer(self, method: str, url: str, body: Any) -> Answer:
        """Answer a request."""
        path, _, query = url.partition("?")
        with self._lock:
            self.asked.append((method, url, body))
            if self.stumbles:
                self.stumbles -= 1
                return _error(503, "UNAVAILABLE", "The service is currently unavailable.")
            if self.refuse:
                return _error(*self.refuse)
            place = _TEMPLATES.fullmatch(path) or _JOBS.match(path)
            if place is None:
                return _error(404, "NOT_FOUND", f"no such method: {path}")
            if place.groups()[:2] != (self.project, self.region):
                return _error(403, "PERMISSION_DENIED", f"(1f): Could not find {'/'.join(place.groups()[:2])}.")
            if _TEMPLATES.fullmatch(path):
                return self._launch(body)
            if path.endswith("/metrics"):
                return 200, {"metrics": []}
            if method == "POST":
                return self._make(body["name"], "JOB_STATE_RUNNING", body.get("type"))
            found = _JOB.match(path)
            return self._one(method, found[3], body) if found else self._listing(urllib.parse.parse_qs(query))

    def _launch(self, body: Any) -> Answer:
        launch = body["launchParameter"]
        spec = launch.get("containerSpecGcsPath")
        if self.templates is not None and spec not in self.templates:
            return _error(404, "NOT_FOUND", f"(2f): Unable to open template file: {spec}.")
        if body.get("validateOnly"):
            return 200, {}
        running = self._of_name(launch["jobName"])
        if launch.get("update") and not running:
            return _error(404, "NOT_FOUND", f"(3f): there is no running job {launch['jobName']} to update.")
        if running and not launch.get("update"):
            return _error(409, "ALREADY_EXISTS", f"(4f): There is already an active job named {launch['jobName']}.")
        for job in running:
            job["currentState"] = "JOB_STATE_UPDATED"
        status, job = self._make(launch["jobName"], self.launched_as, None)
        return status, {"job": job} if status == 200 else job

    def _make(self, name: str, state: str, kind: Any) -> Answer:
        if self._of_name(name):
            return _error(409, "ALREADY_EXISTS", f"(4f): There is already an active job named {name}.")
        job_id = self.add(name, state, **({} if kind is None else {"type": kind}))
        self.on_launch()
        return 200, self.jobs[job_id]

    def _of_name(self, name: str) -> list[dict[str, Any]]:
        return [job for job in self.jobs.values() if job["name"] == name and job["currentState"] not in _ENDED]

    def _one(self, method: str, job_id: str, body: Any) -> Answer:
        job = self.jobs.get(job_id)
        if job is None:
            return _error(404, "NOT_FOUND", f"(5f): Information about job {job_id} could not be found.")
        if method == "PUT":
            job["currentState"] = _BECOMES[body["requestedState"]]
        elif self.passes.get(job_id):
            job["currentState"] = self.passes[job_id].pop(0)
        return 200, job

    def _listing(self, query: dict[str, list[str]]) -> Answer:
        names, begin = query.get("name"), int(query.get("pageToken", ["0"])[0])
        listed = [job for job in self.jobs.values() if not names or job["name"] == names[0]]
        listed.sort(key=lambda job: job["currentState"] in _ENDED)
        page = listed[begin : begin + self.page_size]
        more = {"nextPageToken": str(begin + self.page_size)} if begin + self.page_size < len(listed) else {}
        return 200, {"jobs": page, **more}


def _error(status: int, name: str, message: str) -> Answer:
    return status, {"error": {"code": status, "message": message, "status": name}}


def _requests_to(service: FakeDataflow) -> type[http.server.BaseHTTPRequestHandler]:
    class Requests(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("content-length", 0))
            status, told = service.answer(self.command, self.path, json.loads(self.rfile.read(length) or b"{}"))
            text = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = _answer

        def log_message(self, *_: object) -> None:
            pass

    return Requests
