"""The last step of a pipeline: when it comes, what it leaves, and that it may come twice."""

import importlib.metadata
import json

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing import test_stream
from dataset_rows import video_rows
from run_records import records

from beam_pipeline import job
from beam_pipeline.config import load_config
from beam_pipeline.finishing import FinishRun
from beam_pipeline.job import JobOptions
from beam_pipeline.runs import RunRecord
from transforms.committing import Committer
from transforms.files import exists, remove
from transforms.lease import LeaseLost, WriterLease, read_lease
from transforms.reading import Source
from transforms.tables import create_tables

RUN = "20261122T101500-3f9a1c"
SEEN: list[tuple[str, str]] = []


@pytest.fixture
def launched(tmp_path) -> str:
    """A dataset in which a run has committed two videos, of which a job is to make an end."""
    output = str(tmp_path / "set")
    with WriterLease(output, RUN) as lease:
        create_tables(output)
        RunRecord.begin(output, RUN, load_config("lite"), ["gs://b/in/"], {}, "curate")
        for name in ("v1", "v2"):
            Committer(output, owner=RUN).commit([video_rows(name, RUN)])
        lease.leave_to_job()
    return output


def finish(output: str) -> FinishRun:
    return FinishRun(load_config("lite"), output, RUN, JobOptions())


def note(video_id: str, output: str) -> str:
    (record,) = records(output)
    SEEN.append((video_id, record["status"]))
    return video_id


def test_a_stream_is_finished_when_it_is_drained_and_not_before(launched):
    SEEN.clear()
    stream = test_stream.TestStream().advance_watermark_to(0)
    for name in ("v1", "v2"):
        stream = stream.add_elements([name]).advance_processing_time(3600)
    options = PipelineOptions(["--runner=BundleBasedDirectRunner", "--streaming"])
    with beam.Pipeline(options=options) as pipeline:
        committed = pipeline | stream.advance_watermark_to_infinity() | beam.Map(note, launched)
        _ = (committed,) | finish(launched)
    assert SEEN == [("v1", "running"), ("v2", "running")]
    (record,) = records(launched)
    assert (record["status"], [(one["video_id"], one["outcome"]) for one in record["inputs"]]) == (
        "done",
        [("v1", "committed"), ("v2", "committed")],
    )
    assert read_lease(launched) is None


def run(output: str, *listed: str, skipped: int = 0) -> None:
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        committed = pipeline | "Videos" >> beam.Create(["v1", "v2"])
        sources = pipeline | "Sources" >> beam.Create([Source(name, f"gs://b/in/{name}.mp4") for name in listed])
        skips = pipeline | "Skipped" >> beam.Create([skipped])
        _ = (committed, sources, skips) | finish(output)


def test_a_step_that_the_runner_repeats_finds_the_run_finished_and_leaves_it(launched):
    run(launched, "v1", "v2", skipped=3)
    (record,) = records(launched)
    assert (record["counts"]["skipped"], record["counts"]["committed"], record["counts"]["clips"]) == (3, 2, 4)
    assert record["stages"] is None
    run(launched, "v1", "v2", "v3")
    assert records(launched) == [record]


def test_a_source_without_a_row_is_a_bug_that_is_told_and_the_lease_stays_to_say_so(launched):
    with pytest.raises(RuntimeError, match=r"without a result for gs://b/in/v3\.mp4"):
        run(launched, "v1", "v2", "v3")
    assert (read_lease(launched).owner, records(launched)[0]["status"]) == (RUN, "running")
    run(launched, "v1", "v2")  # As the runner would, and here with better luck.
    assert (read_lease(launched), records(launched)[0]["status"]) == (None, "done")


def test_a_job_whose_dataset_has_gone_to_another_writer_finishes_nothing(launched):
    (record,) = records(launched)
    remove(f"{launched}/.lease")
    with WriterLease(launched, "other"), pytest.raises(LeaseLost, match=f"{RUN} has no lease on"):
        run(launched, "v1", "v2")
    assert records(launched) == [record]


def test_a_step_that_failed_after_the_record_was_closed_writes_the_card_when_it_is_repeated(launched, monkeypatch):
    def full(*_: object, **__: object) -> str:
        raise OSError("no room for the card")

    with monkeypatch.context() as patch:
        patch.setattr(job, "write_card", full)
        with pytest.raises(Exception, match="no room for the card"):
            run(launched, "v1", "v2")
    assert records(launched)[0]["status"] == "done"
    run(launched, "v1", "v2")
    assert (exists(f"{launched}/README.md"), read_lease(launched)) == (True, None)


def test_the_record_tells_the_configuration_of_the_graph_that_finished_and_what_its_workers_had(launched):
    # As a launcher without torch would have begun it, for a graph that an update has replaced.
    before = RunRecord.read(launched, RUN)
    before.values |= {"config": {}, "versions": {"torch": None}, "models": []}
    before.write()
    run(launched, "v1", "v2")
    (record,) = records(launched)
    config = load_config("lite")
    assert record["config"] == json.loads(json.dumps(config.as_json()))
    assert record["versions"]["torch"] == importlib.metadata.version("torch")
    assert [one["name"] for one in record["models"]] == [entry.name for entry in config.models]
