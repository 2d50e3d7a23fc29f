"""A stream on Dataflow, as far as it can be seen from here: launched, followed and drained by Beam's own client."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable
from typing import Any, ClassVar

from run_records import records

from beam_pipeline import streaming
from beam_pipeline.config import load_config
from beam_pipeline.job import JobOptions
from beam_pipeline.streaming import Uploads, stream


class Dataflow(http.server.BaseHTTPRequestHandler):
    """The service as Beam's own client sees it: one job, which runs until it is asked to drain."""

    asked: ClassVar[list[tuple[str, Any]]] = []
    state: ClassVar[str] = ""
    on_launch: ClassVar[Callable[[], None]]

    def answer(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
        if self.command != "GET":
            self.asked.append((self.command, body))
            Dataflow.state = {"POST": "JOB_STATE_RUNNING", "PUT": "JOB_STATE_DRAINED"}[self.command]
        if self.command == "POST":
            Dataflow.on_launch()
        job = {"id": "job-1", "name": "x", "projectId": "proj-test", "location": "r", "currentState": Dataflow.state}
        answer = json.dumps({"metrics": []} if "/metrics" in self.path else job).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = answer

    def log_message(self, *_: object) -> None:
        pass


def test_a_stop_drains_the_job_on_dataflow_and_only_then_gives_the_lease_back(tmp_path, monkeypatch):
    from apache_beam.internal.gcp import auth
    from google.cloud.dataflow_v1beta3 import JobState

    monkeypatch.setattr(auth._Credentials, "_credentials_init", True)
    monkeypatch.setattr(auth._Credentials, "_credentials", None)
    monkeypatch.setattr(streaming, "_NOTE_EVERY_S", 0.1)
    (tmp_path / "staging").mkdir()
    stop, output = threading.Event(), tmp_path / "out"
    held: list[bool] = []
    said: list[str] = []

    def launched() -> None:
        held.append((output / ".lease").exists())
        stop.set()

    Dataflow.asked.clear()
    Dataflow.on_launch = staticmethod(launched)
    with http.server.ThreadingHTTPServer(("localhost", 0), Dataflow) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        flags = {
            "runner": "DataflowRunner",
            "project": "proj-test",
            "region": "us-central1",
            "job_name": "x",
            "staging_location": tmp_path / "staging",
            "temp_location": tmp_path / "temporary",
            "dataflow_endpoint": f"http://localhost:{server.server_port}",
            "sdk_location": "container",
            "sdk_container_image": "example.test/image",
        }
        options = JobOptions(beam_flags=("--no_auth", *(f"--{name}={value}" for name, value in flags.items())))
        uploads = Uploads("projects/proj-test/subscriptions/uploads")
        stream(uploads, str(output), load_config("lite"), options, stop, say=said.append)
        server.shutdown()
    (_, launch), (_, change) = Dataflow.asked
    assert (launch["type"], change) == (2, {"requestedState": JobState.JOB_STATE_DRAINING})
    assert said == ["draining job job-1: what was pulled is finished and committed"]
    assert (held, (output / ".lease").exists()) == ([True], False)
    (record,) = records(output)
    assert (record["status"], record["inputs"]) == ("done", [])
