"""The doctor: what it finds on this machine, and that each fault carries the command that mends it."""

import dataclasses
import http.server
import stat
import subprocess
import sys
import threading
import time
import types

import pytest

from beam_pipeline import checks as doctor_checks
from beam_pipeline import doctor, doctor_models
from beam_pipeline.checks import Check, print_checks
from beam_pipeline.doctor import diagnose
from model_handlers import catalogue
from model_handlers.base import ElementwiseHandler
from model_handlers.catalogue import Entry


def test_this_machine_passes_with_every_model_of_the_default_profile_loaded(tmp_path):
    from beam_pipeline.config import load_config

    config = load_config()
    checks = diagnose(output=str(tmp_path / "not" / "yet" / "there"))
    assert [check for check in checks if check.state == "fail"] == []
    models = [check.name for check in checks if check.name.startswith("model ")]
    assert models == [f"model {e.name}" for e in (config.embedder, *config.teachers, config.selector)]
    names = [check.name for check in checks if not check.name.startswith("model ")]
    assert names == [
        "python", "packages base", "packages local", "packages gcp", "memory", "cores", "decoding", "encoding",
        "configuration", "licences", "gpu", "output", "space",
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_an_old_python_fails():
    assert doctor.check_python((3, 10, 13)).state == "fail"
    assert doctor.check_python((3, 11, 0)) == Check("python", "ok", "3.11.0")


def test_missing_packages_name_their_extra():
    checks = list(
        doctor.check_packages({"": ("json",), "local": ("json", "nowhere", "nowhere.below"), "gcp": ("gone",)})
    )
    assert checks == [
        Check("packages base", "ok", "all of reelscribe is installed"),
        Check("packages local", "fail", "missing: nowhere, nowhere.below", "pip install 'reelscribe[local]'"),
        Check("packages gcp", "ok", "not installed; only gs:// and Dataflow need it"),
    ]


def test_the_modules_the_doctor_looks_for_are_what_the_extras_bring():
    from importlib.metadata import packages_distributions

    owners = packages_distributions()
    for extra, modules in doctor.MODULES.items():
        for module in modules:
            top = module.partition(".")[0]
            assert doctor._installed(module) or extra == "gcp"
            assert top == "google" or len(owners.get(top, [])) >= 1, f"{module} belongs to no distribution"


def test_missing_decoders_warn_and_a_missing_h264_fails():
    lacking = list(doctor.check_codecs({"H.264": ("h264",), "Odd": ("no_such_codec",)}, ("no_such_encoder",)))
    assert [(check.name, check.state) for check in lacking] == [("decoding", "warn"), ("encoding", "warn")]
    assert lacking[0].what.endswith("cannot decode Odd")
    assert {check.fix for check in lacking} == {doctor.REINSTALL_AV}
    assert next(doctor.check_codecs({"H.264": ("no_such_codec",)})).state == "fail"


def test_an_unknown_profile_is_told_with_the_nearest_name():
    (check,) = doctor_models.check_models("lit", None)
    assert (check.name, check.state) == ("configuration", "fail")
    assert "did you mean 'lite'" in check.what


class _Broken(ElementwiseHandler):
    def __init__(self, message: str):
        super().__init__("broken")
        self.message = message

    @property
    def model_key(self) -> str:
        return self.message

    def load(self):
        raise RuntimeError(self.message)


def test_weights_in_a_bucket_that_nobody_may_read_are_mended_by_logging_in(monkeypatch, tmp_path):
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    def nobody(*_, **__):
        raise DefaultCredentialsError("none")

    monkeypatch.setattr(google.auth, "default", nobody)
    config = tmp_path / "mine.yaml"
    config.write_text('{extends: lite, selector: {name: siglip2-base, weights: "gs://models/siglip2"}}')
    (check,) = doctor_models.check_models(None, str(config))
    assert (check.state, check.fix) == ("fail", "gcloud auth application-default login")


@pytest.mark.parametrize(
    ("message", "fix"),
    [
        ("weights differ", "pip install --force-reinstall 'reelscribe[local]'"),
        (
            "operator torchvision::nms does not exist",
            "pip install --force-reinstall -c constraints.txt torch torchvision",
        ),
    ],
)
def test_a_model_that_does_not_load_is_a_finding_with_its_fix(message, fix):
    entry = Entry("broken", "m", "1", "MIT", "breaks", lambda: _Broken(message))
    found = list(doctor_models.load_each([entry, entry]))
    assert [(check.name, check.state, check.what) for check in found] == [
        ("model broken", "fail", f"RuntimeError: {message}")
    ] * 2
    assert all(check.fix.startswith(fix) for check in found)


def test_a_gpu_that_torch_cannot_use_is_told(tmp_path):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'Some GPU'\n")
    smi.chmod(smi.stat().st_mode | stat.S_IXUSR)
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        assert doctor.check_gpu(str(smi)).state == "ok"
        return
    check = doctor.check_gpu(str(smi))
    assert (check.state, check.what.partition(" is there")[0]) == ("warn", "Some GPU")
    assert check.fix != ""
    assert doctor.check_gpu(str(tmp_path / "no-smi")) == Check("gpu", "ok", "none; the job runs on the CPU")


class _Endpoint(http.server.BaseHTTPRequestHandler):
    """Answers as its server's `plan` says, and keeps the keys that it was shown."""

    def do_GET(self):
        self.server.keys.append(self.headers.get("Authorization"))
        self.send_response(self.server.plan)
        if self.server.plan == 302:
            self.send_header("Location", self.path)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("plan", "state", "words"),
    [
        (200, "ok", "answers (200)"),
        (401, "fail", "refuses the key"),
        (404, "fail", "answers 404"),
        (302, "fail", "answers 302"),
        (503, "fail", "answers 503"),
    ],
)
def test_an_endpoint_is_asked_for_its_models_before_a_job(monkeypatch, plan, state, words):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Endpoint)
    server.plan, server.keys = plan, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("SOME_KEY", "sk-secret\n")
    url = f"http://127.0.0.1:{server.server_port}/v1"
    entry = catalogue.teacher("endpoint").changed(weights="m", url=url, key_env="SOME_KEY")
    check = doctor_models.check_files(entry)
    server.shutdown()
    server.server_close()
    assert (check.state, server.keys) == (state, ["Bearer sk-secret"])
    assert check.what.endswith(words) and "sk-secret" not in str(check)


def test_a_key_that_no_header_may_hold_is_not_repeated(monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sk-first\nsk-second")
    url = "http://127.0.0.1:9/v1"
    entry = catalogue.teacher("endpoint").changed(weights="m", url=url, key_env="SOME_KEY")
    check = doctor_models.check_files(entry)
    assert check.state == "fail" and "sk-" not in str(check)


def test_the_papers_profile_is_told_though_a_file_is_missing(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    checks = {check.name: check for check in doctor_models.check_models("panda70m", None)}
    assert checks["model umt-l16"].state == "fail"
    assert checks["model umt-l16"].fix.startswith("in a --config file: {name: umt-l16, weights: ...}")
    assert checks["model blip2-opt-6.7b"].what.endswith("will be downloaded, 31.0 GB")
    assert "blip2-opt-2.7b: OPT's licence is for non-commercial research" in checks["licences"].what
    # The embedder, the selector and the three largest of eight teachers.
    assert checks["gpu memory"].what.startswith("about 59 GB for clip-vit-h, ")
    assert "with 3 teachers at once" in checks["gpu memory"].what


def test_weights_that_only_an_image_holds_are_not_said_to_be_downloaded(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    entry = catalogue.teacher("blip2-opt-2.7b").changed(weights="/models/blip2", revision="2026-11")
    check = doctor_models.check_files(entry)
    told = "there is no directory /models/blip2 on this machine; what runs the model must hold it"
    assert (check.state, check.what) == ("warn", told)


def test_an_output_that_cannot_be_written_fails_in_one_line(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    (check,) = doctor.check_output(str(tmp_path / "file" / "dataset"))
    assert (check.name, check.state) == ("output", "fail")
    assert check.what == f"can't write into {tmp_path / 'file'}: Not a directory"
    (elsewhere,) = doctor.check_output("s3://bucket/dataset")
    assert elsewhere.what == "s3://bucket/dataset is neither a directory nor gs://"


def test_a_bucket_is_tried_by_both_clients_and_left_as_it_was(gcs, monkeypatch):
    assert doctor.check_bucket("gs://bucket/talks") == Check("output", "ok", "gs://bucket/talks is writable")
    assert gcs.names() == []
    absent = doctor.check_bucket("gs://nobody/talks")
    assert (absent.what, absent.fix) == ("there is no bucket gs://nobody", "gcloud storage buckets create gs://nobody")
    unsafe = doctor.check_bucket("gs://bucket/a b")
    assert unsafe.what.startswith("a dataset can't stand in 'gs://bucket/a b'")
    gcs.refuse = 403
    refused = doctor.check_bucket("gs://bucket/talks")
    assert (refused.state, "roles/storage.objectUser" in refused.fix) == ("fail", True)
    gcs.refuse = None
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", "no key")
    locked_out = doctor.check_bucket("gs://bucket/talks")
    assert locked_out.what.startswith("Delta tables cannot reach gs://bucket/talks: ")
    assert "GOOGLE_APPLICATION_CREDENTIALS" in locked_out.fix


@pytest.mark.parametrize(("free_gb", "state"), [(0.5, "fail"), (5, "warn"), (500, "ok")])
def test_scarce_space_is_told(tmp_path, monkeypatch, free_gb, state):
    usage = types.SimpleNamespace(free=int(free_gb * 2**30))
    monkeypatch.setattr(doctor_checks.shutil, "disk_usage", lambda folder: usage)
    checks = doctor.check_output(str(tmp_path))
    assert [(check.name, check.state) for check in checks] == [("output", "ok"), ("space", state)]


def test_a_containers_memory_limit_counts(tmp_path):
    (tmp_path / "memory.max").write_text(f"{2 * 2**30}\n")
    check = doctor.check_memory(str(tmp_path / "memory.max"))
    assert (check.state, check.what.partition(";")[0]) == ("warn", "2.0 GB")
    (tmp_path / "memory.max").write_text("max\n")
    assert doctor.check_memory(str(tmp_path / "memory.max")) == doctor.check_memory(str(tmp_path / "absent"))


def test_missing_credentials_fail_within_the_deadline(monkeypatch, tmp_path):
    pytest.importorskip("google.cloud.storage")
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "no-such-key.json"))
    began = time.monotonic()
    check = doctor.check_credentials(deadline_s=15)
    assert time.monotonic() - began < 20
    assert (check.name, check.state, check.fix) == ("credentials", "fail", "gcloud auth application-default login")
    assert "no-such-key.json" in check.what


def test_a_search_for_credentials_that_hangs_is_ended(monkeypatch, tmp_path):
    pytest.importorskip("google.cloud.storage")
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(doctor.sys, "executable", str(slow))
    assert doctor.check_credentials(deadline_s=1).what == "no answer within 1 s"


def test_an_emulator_needs_no_credentials(monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9023")
    assert doctor.check_credentials().state == "ok"


def test_printing_shows_each_fix_and_a_failure_sets_the_exit_status(capsys):
    fine, odd, bad = (
        Check("a", "ok", "fine"),
        Check("long", "warn", "odd", "do this"),
        Check("b", "fail", "bad", "do that"),
    )
    assert print_checks([fine, odd, bad]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "ok    a     fine",
        "warn  long  odd",
        "            fix: do this",
        "fail  b     bad",
        "            fix: do that",
        "",
        "3 checks: 1 failed, 1 to look at",
    ]
    assert print_checks([fine, dataclasses.replace(odd, fix="")]) == 0
    assert print_checks([fine]) == 0
    assert capsys.readouterr().out.endswith("all is well\n")


def test_the_command_says_how_it_stands(tmp_path):
    asked = subprocess.run(
        [sys.executable, "-m", "beam_pipeline.cli", "doctor", "--profile", "nosuch", "--output", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert asked.returncode == 1
    assert "fail  configuration   there is no profile 'nosuch'" in asked.stdout
    assert asked.stderr == ""


def test_a_measure_by_a_model_of_the_hub_is_told_and_not_fetched(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("measures: {nsfw: true}\n")
    found = next(one for one in doctor_models.check_models(None, str(config)) if one.name == "model nsfw")
    assert (found.state, found.what) == (
        "ok",
        "Falconsai/nsfw_image_detection is fetched at first use, unless the hub's cache has it; licence Apache-2.0",
    )


def test_models_that_need_no_gpu_are_said_to_need_none():
    from beam_pipeline.config import load_config

    assert doctor_models.check_gpu_memory(load_config()).what == "none of these models needs a GPU's"
