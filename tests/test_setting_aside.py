"""Videos that stopped a whole job: set aside as dead letters, and redriven without stopping anybody else."""

import dataclasses
import pathlib

import pytest
from quick_watch import CONFIG, NO_REELS, QuickJob, quick
from run_records import newest_run
from test_redriving import TEACHERS, captions, failing, failures, prepare, redrive

from beam_pipeline import redriving, watching
from beam_pipeline.config import Config, load_config
from beam_pipeline.job import Summary, running
from beam_pipeline.setting_aside import set_aside
from beam_pipeline.verify import verify
from transforms.committing import Committer
from transforms.reading import Source, local_source
from transforms.recalling import Retry
from transforms.tables import read_table

__all__ = ["quick"]


def stop_by(output: pathlib.Path, *sources: Source, config: Config = CONFIG) -> None:
    """Let these videos stop a job."""
    with running("watch", [], str(output), config, NO_REELS) as job:
        job.take(sources, sources)
        committer = Committer(job.output, owner=job.run_id)
        for source in sources:
            set_aside(job, committer, source, RuntimeError("Traceback:\nOSError: it is on fire [while running 'A']"))
        job.finish("done")


def test_a_video_that_stopped_the_job_is_tried_and_stops_it_no_more(tmp_path):
    folder = prepare(tmp_path)
    config = load_config(file=str(folder / "config.yaml"))
    stop_by(folder / "out", local_source(str(folder / "in" / "a.mp4")), config=config)
    assert failures(folder) == [("run", "", "OSError", 1)]
    with failing("lite-motion", error=MemoryError("no room")):
        redrive(folder, "--stage", "run")
    assert failures(folder) == [("run", "", "MemoryError", 2)]
    assert newest_run(folder / "out")["counts"]["failures run"] == 1
    redrive(folder)
    assert (failures(folder), captions(folder)) == ([], [TEACHERS] * 2)
    assert verify(folder / "out") == []


@pytest.fixture
def quick_redrive(quick, tmp_path):
    """Jobs of a redrive are quick ones too, over files that nobody decodes."""
    quick.setattr(redriving, "running", watching.running)
    (tmp_path / "in").mkdir()
    for name in "abcdefg":
        (tmp_path / "in" / f"{name}.mp4").write_bytes(b"no video")
    return quick


def of(folder: pathlib.Path, names: str) -> list[Source]:
    return [local_source(str(folder / "in" / f"{name}.mp4")) for name in names]


def at(folder: pathlib.Path, names: str) -> set[str]:
    """How a quick job knows the files of these names."""
    return {f"{source.video_id} {source.etag}" for source in of(folder, names)}


def redriven(folder: pathlib.Path) -> tuple[Summary, list[str]]:
    """What a redrive of everything came to, and the chunks that it worked on, by the files' names."""
    QuickJob.worked.clear()
    _, summary = redriving.redrive(str(folder / "out"), Retry(), NO_REELS)
    return summary, ["".join(sorted(one[0] for one in chunk)) for chunk in QuickJob.worked]


def attempts(folder: pathlib.Path) -> dict[str, int]:
    rows = read_table(str(folder / "out"), "failures").to_pylist()
    return {row["video_id"][0]: row["attempt"] for row in rows if row["stage"] == "run"}


def test_videos_that_stop_a_job_come_last_and_one_by_one_and_cost_nobody_else_anything(quick_redrive, tmp_path):
    stop_by(tmp_path / "out", *of(tmp_path, "abc"))
    others = [dataclasses.replace(source, etag="missing") for source in of(tmp_path, "de")]
    with running("curate", [], str(tmp_path / "out"), CONFIG, NO_REELS) as job:
        quick_job = QuickJob(**{field.name: getattr(job, field.name) for field in dataclasses.fields(job)})
        quick_job.work(others)
    quick_redrive.setattr(QuickJob, "stops_at", at(tmp_path, "ab"))
    summary, chunks = redriven(tmp_path)
    assert (chunks[0], sorted(chunks[1:])) == ("de", ["a", "b", "c"])
    became = {video_id[0]: outcome for video_id, outcome in summary.outcomes.items()}
    assert became == {"a": "failed", "b": "failed", "c": "committed", "d": "committed", "e": "committed"}
    assert (attempts(tmp_path), summary.counts["failures run"]) == ({"a": 2, "b": 2}, 2)
    quick_redrive.setattr(QuickJob, "stops_at", frozenset())
    (tmp_path / "in" / "a.mp4").write_bytes(b"another version")
    redriven(tmp_path)
    assert attempts(tmp_path) == {}
    assert verify(tmp_path / "out") == []


def test_three_in_a_row_that_stop_the_job_are_no_fault_of_theirs_and_one_that_is_mended_gets_through(
    quick_redrive, tmp_path
):
    stop_by(tmp_path / "out", *of(tmp_path, "abcdef"))
    quick_redrive.setattr(QuickJob, "stops_at", {"all"})
    with pytest.raises(RuntimeError, match="6 videos in a row stopped the job") as caught:
        redriven(tmp_path)
    assert "OSError: the card is on fire" in str(caught.value)
    assert attempts(tmp_path) == dict.fromkeys("abcdef", 1)
    assert newest_run(tmp_path / "out")["status"] == "failed"
    order = [chunk[0][0] for chunk in QuickJob.worked]
    quick_redrive.setattr(QuickJob, "stops_at", at(tmp_path, "".join(set(order) - {order[3]})))
    summary, chunks = redriven(tmp_path)
    assert (chunks, attempts(tmp_path)) == (order, {name: 2 for name in order if name != order[3]})
    assert list(summary.outcomes.values()).count("failed") == 5


def test_a_new_version_of_a_video_is_not_held_to_the_attempts_of_the_old_one(quick_redrive, tmp_path):
    stop_by(tmp_path / "out", *of(tmp_path, "a"))
    quick_redrive.setattr(QuickJob, "stops_at", {"all"})
    redriven(tmp_path)
    assert attempts(tmp_path) == {"a": 2}
    (tmp_path / "in" / "a.mp4").write_bytes(b"another version")
    redriven(tmp_path)
    assert attempts(tmp_path) == {"a": 1}
