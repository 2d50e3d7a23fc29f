"""A stream on Dataflow, as far as it can be seen from here: launched, followed and drained by Beam's own client."""

from __future__ import annotations

import threading

from fake_dataflow import FakeDataflow
from run_records import records

from beam_pipeline import streaming
from beam_pipeline.config import load_config
from beam_pipeline.job import JobOptions
from beam_pipeline.streaming import Uploads, stream


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

    with FakeDataflow() as dataflow:
        dataflow.on_launch = launched
        flags = {
            "runner": "DataflowRunner",
            "project": "proj-test",
            "region": "us-central1",
            "job_name": "x",
            "staging_location": tmp_path / "staging",
            "temp_location": tmp_path / "temporary",
            "dataflow_endpoint": dataflow.url,
            "sdk_location": "container",
            "sdk_container_image": "example.test/image",
        }
        options = JobOptions(beam_flags=("--no_auth", *(f"--{name}={value}" for name, value in flags.items())))
        uploads = Uploads("projects/proj-test/subscriptions/uploads")
        stream(uploads, str(output), load_config("lite"), options, stop, say=said.append)
    (_, launch), (_, change) = dataflow.bodies
    assert (launch["type"], change) == (2, {"requestedState": JobState.JOB_STATE_DRAINING})
    assert said == ["draining job job-1: what was pulled is finished and committed"]
    assert (held, (output / ".lease").exists()) == ([True], False)
    (record,) = records(output)
    assert (record["status"], record["inputs"]) == ("done", [])
