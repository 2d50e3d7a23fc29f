"""Teachers that vLLM serves: Beam's own handler starts a server process here, whose package `vllm` is ours."""

import contextlib
import importlib.util
import json
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import time

import apache_beam as beam
import pytest
from apache_beam.ml.inference.base import RunInference
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to
from endpoint_server import caption_of, write_clips, write_vllm

from model_handlers.endpoint_answers import EndpointError
from model_handlers.vllm_server import VllmServer
from model_handlers.vllm_teacher import MACHINE_FLAGS, SHAPING_FLAGS, VllmSettings, VllmTeacher, server_flags
from model_handlers.weights import WeightsError

FRAMES = 4

PARENT = """
import sys
from model_handlers.vllm_server import VllmServer
server = VllmServer("tiny", {"served-model-name": "tiny", "tell": sys.argv[1]})
print(server.url, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def vllm_path(tmp_path_factory):
    """A folder with the package, on the path of this process and of those that it starts."""
    pytest.importorskip("openai")
    folder = tmp_path_factory.mktemp("vllm")
    write_vllm(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield folder


@pytest.fixture(scope="module")
def parent(vllm_path):
    """A process that starts a server and waits; started early, as both take their time."""
    written = vllm_path / "parent.json"
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(written)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    ) as started:
        yield started, written
        started.kill()


@pytest.fixture(scope="module")
def teacher(vllm_path, parent):
    weights = vllm_path / "tiny"
    weights.mkdir()
    (weights / "config.json").write_text("{}")
    flags = {"max-model-len": 8192}
    settings = VllmSettings(str(weights), frames=FRAMES, concurrent=4, server_flags=flags)
    return VllmTeacher("qwen-vllm", settings)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips"), 6, FRAMES)


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not yet waited for does not."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_for(condition, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.05)
    return condition()


def told(teacher) -> dict:
    return json.loads((pathlib.Path(teacher.settings.weights) / "told.log").read_text())


def test_clips_are_captioned_by_a_server_that_beam_started(teacher, clips):
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
        outcomes = pipeline | beam.Create(clips) | RunInference(teacher, model_identifier=teacher.identifier)
        seen = outcomes | beam.Map(lambda outcome: (outcome.request.clip_id, outcome.answer, outcome.failure))
        assert_that(seen, equal_to([(f"clip-{n}", caption_of(n, FRAMES), None) for n in range(6)]))
    given = told(teacher)["given"]
    weights = teacher.settings.weights
    assert (given["--model"], given["--served-model-name"]) == (weights, weights)
    assert (given["--host"], given["--max-model-len"]) == ("127.0.0.1", "8192")


def test_server_that_died_is_started_anew_and_the_batch_is_answered(teacher, clips):
    model = teacher.load_model()
    before = told(teacher)["pids"]
    os.kill(before[0], signal.SIGKILL)
    outcomes = list(teacher.run_inference(clips, model))
    assert [outcome.answer for outcome in outcomes] == [caption_of(n, FRAMES) for n in range(6)]
    assert told(teacher)["pids"][0] != before[0]


def test_server_and_its_engine_end_when_their_parent_is_killed(parent):
    started, written = parent
    assert started.stdout.readline().startswith("http://localhost:")
    pids = json.loads(written.read_text())["pids"]
    assert [is_running(pid) for pid in pids] == [True, True]
    started.kill()
    assert wait_for(lambda: not any(map(is_running, pids)), 20)


@pytest.mark.slow
def test_server_that_does_not_start_raises_with_what_it_said(vllm_path):
    with pytest.raises(
        EndpointError, match=r"^the vLLM server does not start: Failed to start vLLM server\."
    ) as raised:
        VllmServer("broken", {})
    assert "no kernel image is available for execution on the device" in raised.value.__notes__[0]


@pytest.mark.slow
def test_server_that_is_closed_takes_its_processes_along_even_without_its_keeper(vllm_path, tmp_path):
    with VllmServer("tiny", {"served-model-name": "tiny", "tell": str(tmp_path / "told.json")}) as server:
        pids = json.loads((tmp_path / "told.json").read_text())["pids"]
        os.kill(server._keeper.pid, signal.SIGKILL)
        with pytest.raises(EndpointError, match="the vLLM server does not start: the process that keeps it has ended"):
            server.find()
    assert wait_for(lambda: not any(map(is_running, pids)), 5)


def test_missing_package_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "vllm" not in entry])
    if importlib.util.find_spec("vllm"):
        pytest.skip("vllm is installed here")
    with pytest.raises(EndpointError, match=r"^a teacher by vLLM needs vllm on every worker: pip install vllm openai$"):
        VllmServer("tiny", {})


def test_hub_id_without_a_revision_is_refused_before_a_server_starts():
    with pytest.raises(WeightsError, match="needs a pinned revision"):
        VllmTeacher("qwen", VllmSettings("Qwen/Qwen2.5-VL-7B-Instruct")).load_model()


def test_handler_travels_and_is_shared_by_the_processes_of_a_machine(teacher):
    copy = pickle.loads(pickle.dumps(teacher))
    assert (copy.name, copy.get_metrics_namespace()) == ("qwen-vllm", "reelscribe/qwen-vllm")
    assert copy.settings == teacher.settings
    assert (copy.share_model_across_processes(), copy.identifier) == (True, teacher.identifier)
    assert VllmTeacher("qwen-vllm", teacher.settings).identifier != teacher.identifier


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        (
            {"frames": 8, "dtype": "bfloat16"},
            {"dtype": "bfloat16", "limit-mm-per-prompt": '{"image": 8}', "revision": "abc"},
        ),
        (
            {"inputs": "S-M", "server_flags": {"max-model-len": 4096, "enforce-eager": None}},
            {"dtype": "auto", "max-model-len": "4096", "enforce-eager": None, "revision": "abc"},
        ),
    ],
)
def test_flags_of_the_server_follow_from_the_settings(changes, flags):
    usual = {"host": "127.0.0.1", "served-model-name": "Qwen/Qwen2.5-VL-7B-Instruct"}
    usual |= {"seed": "0", "load-format": "safetensors"}
    assert server_flags(VllmSettings("Qwen/Qwen2.5-VL-7B-Instruct", **changes), "abc") == usual | flags


def test_wording_follows_the_flags_that_shape_a_caption():
    wording = VllmSettings("tiny").wording()
    assert VllmSettings("tiny", server_flags={"gpu-memory-utilization": 0.8}).wording() == wording
    assert VllmSettings("tiny", server_flags={"quantization": "fp8"}).wording() != wording


KNOWN = ", ".join((*MACHINE_FLAGS, *SHAPING_FLAGS))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"model": "other"}, "server_flags must not hold 'model'; known: " + KNOWN),
        ({"trust-remote-code": None}, "server_flags must not hold 'trust-remote-code'; known: " + KNOWN),
        # vLLM's parser knows abbreviations.
        ({"trust-remote": None}, "server_flags must not hold 'trust-remote'; known: " + KNOWN),
        ({"load-format": "pt"}, "server_flags must not hold 'load-format'; known: " + KNOWN),
        ({"--seed": 1}, "server_flags must not hold '--seed'; known: " + KNOWN),
        ({"enforce-eager": True}, "the server flag enforce-eager must be a text, a number or null, not True"),
        (["seed"], "server_flags must be a mapping of names to values, not ['seed']"),
    ],
)
def test_server_flags_that_cannot_be_meant_are_refused_in_one_line(flags, message):
    with pytest.raises(ValueError) as raised:
        VllmSettings("tiny", server_flags=flags)
    assert str(raised.value) == message
