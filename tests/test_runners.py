"""The main job on other runners than the embedded one as it is by default: the same rows, or refused beforehand."""

import contextlib
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import yaml
from sameness import differences
from synthetic import make_video

from beam_pipeline.cli import main
from beam_pipeline.job import pipeline_options
from beam_pipeline.usage import UsageError, check_runner
from beam_pipeline.verify import audit
from transforms.tables import read_table

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = {
    "extends": "lite",
    "teachers": ["lite-frame"],
    "stitching": {"still_distance": None, "redundant_distance": None, "min_event_s": 1.0},
}
SINGLE = ("--direct_num_workers=1", "--direct_running_mode=in_memory")
LOOPBACK = "--environment_type=LOOPBACK"


@pytest.fixture(scope="module")
def uploads(tmp_path_factory) -> pathlib.Path:
    """A video of two clips, and a page that is none."""
    folder = tmp_path_factory.mktemp("runners")
    (folder / "in").mkdir()
    make_video(folder / "in" / "a.mp4", shots=[(2.0, "red"), (2.0, "blue")], drift_px=3)
    (folder / "in" / "page.mp4").write_text("<html></html>")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return folder


@pytest.fixture(scope="module")
def expected(uploads: pathlib.Path) -> pathlib.Path:
    """What the embedded runner makes of them, in one thread."""
    return curate(uploads, "expected", *SINGLE)


def curate(folder: pathlib.Path, name: str, *flags: str) -> pathlib.Path:
    places = ["--input", str(folder / "in"), "--output", str(folder / name)]
    assert main(["curate", *places, "--config", str(folder / "config.yaml"), *flags]) == 0
    return folder / name


@contextlib.contextmanager
def job_server(folder: pathlib.Path) -> Iterator[str]:
    """Beam's own job server, in a process of its own, at its address."""
    port = folder / "port"
    flags = ["--port=0", f"--port_file={port}", f"--staging_dir={folder / 'staging'}"]
    command = [sys.executable, "-m", "apache_beam.runners.portability.local_job_service_main", *flags]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT) as server:
        try:
            until = time.monotonic() + 60
            while not (port.exists() and port.read_text()):
                assert server.poll() is None and time.monotonic() < until, (folder / "log").read_text()
                time.sleep(0.1)
            yield f"localhost:{port.read_text()}"
        finally:
            server.terminate()


def test_the_rows_that_the_runners_are_compared_by_are_these(expected):
    clips = read_table(expected, "clips").to_pylist()
    assert [(row["start_s"], row["end_s"]) for row in sorted(clips, key=lambda row: row["start_s"])] == [
        (pytest.approx(0.2), pytest.approx(1.8)),
        (pytest.approx(2.2), pytest.approx(3.8)),
    ]
    assert [row["error_class"] for row in read_table(expected, "failures").to_pylist()] == ["NotAVideo"]


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("threads", ["--direct_num_workers=2", "--direct_running_mode=multi_threading"]),
        ("embed", ["--runner=PortableRunner", "--job_endpoint=embed", LOOPBACK]),
    ],
)
def test_a_runner_of_this_process_gives_the_same_rows(uploads, expected, name, flags):
    dataset = curate(uploads, name, *flags)
    assert differences(expected, dataset) == []
    assert audit(dataset).breaches == []


@pytest.mark.slow
def test_processes_give_the_same_rows(uploads, expected):
    """Through the command itself: its processes import the module that began them."""
    command = [sys.executable, "-m", "beam_pipeline.cli", "curate", "--input", str(uploads / "in"), "--output"]
    flags = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    config = ["--config", str(uploads / "config.yaml")]
    subprocess.run([*command, str(uploads / "processes"), *config, *flags], check=True, cwd=ROOT, timeout=300)
    assert differences(expected, uploads / "processes") == []
    assert audit(uploads / "processes").breaches == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [
        [LOOPBACK],
        [
            "--environment_type=beam:env:harness_subprocess_python:v1",
            f"--environment_config={sys.executable} -m apache_beam.runners.worker.sdk_worker_main",
        ],
    ],
)
def test_a_job_server_gives_the_same_rows_wherever_its_workers_run(uploads, expected, environment, tmp_path):
    with job_server(tmp_path) as address:
        dataset = curate(
            over(uploads, tmp_path), "out", "--runner=PortableRunner", f"--job_endpoint={address}", *environment
        )
    assert differences(expected, dataset) == []
    assert audit(dataset).breaches == []


def over(uploads: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """A folder of its own over the same files: ids are derived from where they are, so these are linked to."""
    (folder / "in").symlink_to(uploads / "in")
    (folder / "config.yaml").write_text((uploads / "config.yaml").read_text())
    return folder


@pytest.mark.parametrize("name", ["dask", "DaskRunner", "apache_beam.runners.dask.dask_runner.DaskRunner"])
def test_the_dask_runner_is_refused_whatever_it_is_called(name, tmp_path, capsys):
    arguments = ["curate", "--input", str(tmp_path), "--output", str(tmp_path / "out"), f"--runner={name}"]
    assert main(arguments) == 2
    assert capsys.readouterr().err == (
        "reelscribe: Beam's Dask runner loses results without a word (batches, files, tagged outputs); "
        "leave --runner out, or see docs/runners.md\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_runner_built_upon_dasks_is_refused_too(monkeypatch):
    from apache_beam.runners.direct import direct_runner

    kind = type("DaskRunner", (direct_runner.BundleBasedDirectRunner,), {})
    monkeypatch.setattr(direct_runner, "Renamed", type("Renamed", (kind,), {}), raising=False)
    with pytest.raises(UsageError, match="Dask runner loses results"):
        check_runner(pipeline_options(["--runner=apache_beam.runners.direct.direct_runner.Renamed"]))


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--job_endpoint=embed"], "workers would start in Beam's own image, which lacks reelscribe; "),
        (["--job_endpoint=localhost:8099", "--environment_type=DOCKER"], "workers would start in Beam's own image"),
        (
            ["--job_endpoint=embed", "--environment_type=PROCESS", "--environment_option=process_command=/opt/boot"],
            "the job server inside this process starts no PROCESS; take --environment_type=LOOPBACK",
        ),
    ],
)
def test_workers_that_cannot_start_are_refused_beforehand(flags, told):
    with pytest.raises(UsageError, match=f"^{re.escape(told)}"):
        check_runner(pipeline_options(["--runner=PortableRunner", *flags]))


@pytest.mark.parametrize(
    "flags",
    [
        [LOOPBACK],
        ["--sdk_container_image=registry/image:1"],
        ["--environment_type=DOCKER", "--environment_option=docker_container_image=registry/image:1"],
        ["--environment_type=PROCESS", "--environment_option=process_command=/opt/boot"],
    ],
)
def test_workers_of_a_job_server_that_may_start_are_left_to_it(flags):
    check_runner(pipeline_options(["--runner=PortableRunner", "--job_endpoint=localhost:8099", *flags]))
