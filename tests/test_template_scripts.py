"""The scripts that prepare a project and build the images: what they ask of gcloud, which here only takes notes."""

import json
import os
import pathlib
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TEMPLATES = ROOT / "templates"
PROJECT = ("--project", "proj-test", "--region", "us-central1", "--uploads", "gs://ups", "--dataset", "gs://sets")
PROJECT += ("--bucket", "gs://workspace")
BUILD = (
    "--project",
    "proj-test",
    "--region",
    "us-central1",
    "--repository",
    "reelscribe",
    "--bucket",
    "gs://workspace",
)

#: Stands where gcloud is: notes what it is asked, and says that what is described exists or does not.
NOTES = """#!{python} -IS
import json, os, sys
asked = sys.argv[1:]
with open(os.environ["NOTES"], "a", encoding="utf-8") as notes:
    notes.write(json.dumps(asked) + "\\n")
there = os.environ["THERE"] == "yes"
if asked[:3] == ["compute", "regions", "describe"]:
    print("CPUS,72,3\\nNVIDIA_L4_GPUS," + ("8,0" if there else "0,0"))
elif asked[:4] == ["storage", "buckets", "notifications", "list"] and there:
    topic = "//pubsub.googleapis.com/projects/proj-test/topics/reelscribe-uploads"
    print(json.dumps([{{"Notification Configuration": {{"topic": topic}}}}]))
elif asked[:2] == ["projects", "describe"]:
    print("123456")
elif "describe" in asked and not there:
    sys.exit(1)
"""


@pytest.fixture
def noted(tmp_path, monkeypatch):
    """Run a script with the stand-in; return what it printed and what it asked."""
    stand_in = tmp_path / "bin" / "gcloud"
    stand_in.parent.mkdir()
    stand_in.write_text(NOTES.format(python=sys.executable), encoding="utf-8")
    stand_in.chmod(stand_in.stat().st_mode | stat.S_IXUSR)
    notes = tmp_path / "notes.jsonl"

    def run(script: str, *args: str, there: bool = False) -> tuple[subprocess.CompletedProcess, list[list[str]]]:
        notes.write_text("", encoding="utf-8")
        env = {
            "PATH": f"{stand_in.parent}:{os.environ['PATH']}",
            "NOTES": str(notes),
            "THERE": "yes" if there else "no",
        }
        ran = subprocess.run(
            ["bash", str(TEMPLATES / script), *args], env=env, capture_output=True, text=True, timeout=60, cwd=tmp_path
        )
        return ran, [json.loads(line) for line in notes.read_text("utf-8").splitlines()]

    return run


def _shown(output: str) -> list[list[str]]:
    """The commands that a script printed."""
    return [shlex.split(line[2:])[1:] for line in output.splitlines() if line.startswith("+ gcloud ")]


def _verb(asked: Sequence[str]) -> str:
    return " ".join(word for word in asked[:4] if re.fullmatch(r"[a-z-]+", word) and not word.startswith("-"))


def _changes(asked: Sequence[Sequence[str]]) -> list[str]:
    return [_verb(one) for one in asked if not {"describe", "list"} & set(one)]


def test_a_new_project_gets_all_that_a_job_needs(noted):
    ran, asked = noted("project.sh", *PROJECT, "--launcher", "user:ada@example.org")
    assert ran.returncode == 0, ran.stderr
    made = [one for one in asked if "create" in one]
    assert sorted(" ".join(one[: one.index("create") + 2]) for one in made) == [
        "artifacts repositories create reelscribe",
        "beta services identity create --service=dataflow.googleapis.com",
        "compute firewall-rules create reelscribe-dataflow",
        "iam service-accounts create reelscribe-build",
        "iam service-accounts create reelscribe-worker",
        "pubsub subscriptions create reelscribe-uploads",
        "pubsub topics create reelscribe-uploads",
        "storage buckets create gs://sets",
        "storage buckets create gs://ups",
        "storage buckets create gs://workspace",
        "storage buckets notifications create gs://ups",
    ]
    assert ran.stderr == (
        "no quota for nvidia-l4 in us-central1: ask for NVIDIA_L4_GPUS at"
        " https://console.cloud.google.com/iam-admin/quotas?project=proj-test\n"
    )


def test_rights_are_the_least_that_do(noted):
    _, asked = noted("project.sh", *PROJECT, "--launcher", "user:ada@example.org")
    granted = set()
    for one in asked:
        if "add-iam-policy-binding" in one:
            flags = dict(word[2:].split("=", 1) for word in one if word.startswith("--") and "=" in word)
            member = flags["member"].removesuffix("@proj-test.iam.gserviceaccount.com").partition(":")[2]
            granted.add((member, flags["role"], one[one.index("add-iam-policy-binding") + 1]))
    assert granted == {
        ("reelscribe-worker", "roles/dataflow.worker", "proj-test"),
        ("reelscribe-worker", "roles/dataflow.viewer", "proj-test"),
        ("reelscribe-worker", "roles/storage.objectViewer", "gs://ups"),
        ("reelscribe-worker", "roles/storage.objectUser", "gs://sets"),
        ("reelscribe-worker", "roles/storage.objectUser", "gs://workspace"),
        ("reelscribe-worker", "roles/artifactregistry.reader", "reelscribe"),
        ("reelscribe-worker", "roles/pubsub.subscriber", "reelscribe-uploads"),
        ("reelscribe-worker", "roles/pubsub.viewer", "reelscribe-uploads"),
        ("reelscribe-build", "roles/logging.logWriter", "proj-test"),
        ("reelscribe-build", "roles/storage.objectUser", "gs://workspace"),
        ("reelscribe-build", "roles/artifactregistry.writer", "reelscribe"),
        ("ada@example.org", "roles/dataflow.developer", "proj-test"),
        ("ada@example.org", "roles/compute.viewer", "proj-test"),
        ("ada@example.org", "roles/storage.objectUser", "gs://workspace"),
        ("ada@example.org", "roles/iam.serviceAccountUser", "reelscribe-worker@proj-test.iam.gserviceaccount.com"),
    }


def test_a_second_run_makes_nothing(noted):
    ran, asked = noted("project.sh", *PROJECT, there=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    # These say how things shall be, however often. The rules of a bucket that was there are its owner's.
    assert set(_changes(asked)) == {
        "services enable",
        "beta services identity create",
        "projects add-iam-policy-binding proj-test",
        "storage buckets add-iam-policy-binding",
        "artifacts repositories add-iam-policy-binding reelscribe",
        "pubsub subscriptions add-iam-policy-binding reelscribe-uploads",
        "compute networks subnets update",
    }
    assert "NVIDIA_L4_GPUS,8,0" in ran.stdout


def test_a_dry_run_shows_what_a_run_does_and_asks_nothing(noted):
    real, asked = noted("project.sh", *PROJECT, "--dead-letter")
    dry, nothing = noted("project.sh", *PROJECT, "--dead-letter", "--dry-run")
    assert (real.returncode, dry.returncode, nothing) == (0, 0, [])
    same = [[re.sub(r"/tmp/\S+|\b123456\b|PROJECT_NUMBER", "X", word) for word in one] for one in _shown(dry.stdout)]
    did = [one for one in asked if not {"describe", "list"} & set(one)]
    assert [one for one in same if "describe" not in one] == [
        [re.sub(r"/tmp/\S+|\b123456\b", "X", word) for word in one] for one in did
    ]


def test_the_lifecycle_deletes_temporary_objects_and_leaves_what_new_workers_fetch():
    text = (TEMPLATES / "project.sh").read_text("utf-8")
    rule = json.loads(re.search(r"<<'JSON'\n(.+)\nJSON", text).group(1))
    # Not staging/: Beam stages an artifact there (submission_environment_dependencies.txt), without which no worker
    # starts, and a watch runs for longer than two weeks.
    condition = {"age": 14, "matchesPrefix": ["temp/", "build/"]}
    assert rule == {"rule": [{"action": {"type": "Delete"}, "condition": condition}]}


@pytest.mark.parametrize("script", sorted(path.name for path in TEMPLATES.glob("*.sh")))
def test_no_list_is_empty_as_a_macs_bash_would_call_that_an_unbound_variable(script):
    assert "=()" not in (TEMPLATES / script).read_text("utf-8")


@pytest.mark.parametrize(
    ("script", "args", "told"),
    [
        ("project.sh", PROJECT[2:], "project.sh: --project is missing; see --help"),
        ("project.sh", (*PROJECT, "--colour", "red"), "project.sh: no option --colour; see --help"),
        ("project.sh", (*PROJECT, "--launcher"), "project.sh: --launcher wants a value"),
        ("project.sh", (*PROJECT, "--bucket=work"), "project.sh: --bucket is not of the form gs://NAME: work"),
        ("project.sh", (*PROJECT, "--bucket=gs://b/f"), "project.sh: --bucket is not of the form gs://NAME: gs://b/f"),
        ("build.sh", BUILD[2:], "build.sh: --project is missing; see --help"),
        ("build.sh", (*BUILD, "--models", "nowhere"), "build.sh: --models: no such folder: nowhere"),
        ("build.sh", (*BUILD, "--python=3.9"), "build.sh: --python is 3.11, 3.12 or 3.13, not 3.9"),
        ("build.sh", (*BUILD, "sources"), "build.sh: what is 'sources'? see --help"),
    ],
)
def test_bad_usage_is_told_in_one_line_before_anything_is_done(noted, script, args, told):
    ran, asked = noted(script, *args)
    assert (ran.returncode, ran.stderr, asked) == (2, told + "\n", [])


def test_a_build_uploads_the_sources_and_names_the_images(noted, tmp_path):
    (tmp_path / "weights").mkdir()
    ran, (upload, build) = noted("build.sh", *BUILD, "--models", "weights", "--tag", "t1", "--audit=strict")
    assert ran.returncode == 0, ran.stderr
    assert upload == ["storage", "rsync", "weights", "gs://workspace/models", "--recursive", "--project=proj-test"]
    assert build[:3] == ["builds", "submit", str(ROOT)]
    flags = dict(word[2:].split("=", 1) for word in build[3:])
    assert flags["config"] == str(TEMPLATES / "cloudbuild.yaml")
    assert flags["service-account"].endswith("/reelscribe-build@proj-test.iam.gserviceaccount.com")
    filled = dict(one.split("=", 1) for one in flags["substitutions"].removeprefix("^;^").split(";"))
    assert re.fullmatch(r"unknown|[0-9a-f]{40}(-changed)?", filled.pop("_REVISION"))
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", filled.pop("_VERSION"))
    assert filled == {
        "_IMAGES": "us-central1-docker.pkg.dev/proj-test/reelscribe",
        "_TAG": "t1",
        "_BUCKET": "gs://workspace",
        "_MODELS": "gs://workspace/models",
        "_EXTRAS": "local,gcp,endpoint,hygiene,ocr,transnet",
        "_PYTHON": "3.11",
        "_AUDIT": "strict",
    }
    assert ran.stdout.endswith("this build's own, for going back: gs://workspace/templates/t1/\n")


def test_gcloud_knows_every_command_and_flag_of_scripts_and_docs(noted, tmp_path):
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        pytest.skip("gcloud is not installed")
    project, _ = noted("project.sh", *PROJECT, "--dead-letter", "--launcher=user:ada@example.org", "--dry-run")
    build, _ = noted("build.sh", *BUILD, "--models", str(tmp_path), "--dry-run")
    # With values that keep the linter's own quoting simple; what is checked is commands, flags and choices.
    commands = [shlex.join(["gcloud", *one]) for one in _shown(project.stdout) + _shown(build.stdout)]
    commands += _of_docs((ROOT / "docs" / "dataflow.md").read_text("utf-8"))
    commands += ["gcloud pubsub topics create t --no-such-flag=1"]
    # One of a kind is enough, as every command loads its part of gcloud anew.
    kinds = {re.sub(r"(=| (?=gs:)).*?(?= --|$)", "", one): one for one in commands}
    file = tmp_path / "commands.json"
    file.write_text(json.dumps([{"command_string": one} for one in kinds.values()]), encoding="utf-8")
    env = {**os.environ, "CLOUDSDK_CONFIG": str(tmp_path / "config"), "CLOUDSDK_CORE_CHECK_GCE_METADATA": "false"}
    linted = subprocess.run(
        [gcloud, "meta", "lint-gcloud-commands", f"--commands-file={file}"],
        env=env,
        capture_output=True,
        text=True,
        timeout=150,
    )
    if "Invalid choice: 'lint-gcloud-commands'" in linted.stderr:
        pytest.skip("this gcloud has no linter of commands")
    results = json.loads(linted.stdout)
    wrong = {one["command_string"]: one["error_message"] for one in results if not one["success"]}
    assert list(wrong) == ["gcloud pubsub topics create t --no-such-flag=1"], wrong
    assert len(results) == len(kinds)
    assert {one.split()[1] for one in kinds} >= {"builds", "compute", "dataflow", "iam", "pubsub", "storage"}


def _of_docs(text: str) -> list[str]:
    """The gcloud commands of indented blocks, with their continued lines, and values for their variables."""
    values = {
        "P": "proj-test",
        "R": "us-central1",
        "UPLOADS": "gs://ups",
        "DATASET": "gs://sets",
        "WORK": "gs://workspace",
    }
    plain = re.sub(r"\$([A-Z]+)", lambda named: values.get(named[1], "value"), re.sub(r" \\\n\s+", " ", text))
    return re.findall(r"^    (gcloud .+)$", plain, re.MULTILINE)


def test_every_name_that_the_guide_uses_is_exported_at_its_top():
    text = (ROOT / "docs" / "dataflow.md").read_text("utf-8")
    top = text.partition("\n## ")[0]
    exported = set(re.findall(r"\b([A-Z]+)=", " ".join(re.findall(r"^    export (.+)$", top, re.MULTILINE))))
    assert set(re.findall(r"\$([A-Z_]+)", text)) - exported == set()


def test_cleaning_up_deletes_one_notification_and_not_all_of_a_bucket():
    (deleted,) = re.findall(r"buckets notifications delete (\S+)", (ROOT / "docs" / "dataflow.md").read_text("utf-8"))
    assert deleted == "projects/_/buckets/BUCKET/notificationConfigs/ID"


#: Stands where docker is: answers for two images whose versions the environment says.
DOCKER = """#!/bin/sh
echo "$*" >>"$NOTES"
case "$*" in
    *launcher*platform.python_version*) echo "$LAUNCHER" ;;
    *worker*platform.python_version*) echo "$WORKER" ;;
    *"$FAILS"*) exit 1 ;;
esac
"""


@pytest.mark.parametrize(
    ("worker", "fails", "status", "told"),
    [
        ("0.2.0 2.77.0 3.11", "nothing", 0, ""),
        (
            "0.2.0 2.77.0 3.12",
            "nothing",
            1,
            "launcher holds 0.2.0 2.77.0 3.11, worker 0.2.0 2.77.0 3.12 (reelscribe, Beam, Python): build both from one"
            " tree\n",
        ),
        ("0.2.0 2.77.0 3.11", "test -x /opt/apache/beam/boot", 1, ""),
        ("0.2.0 2.77.0 3.11", "reelscribe doctor", 1, ""),
    ],
)
def test_images_that_differ_or_lack_something_are_refused(tmp_path, worker, fails, status, told):
    docker = tmp_path / "docker"
    docker.write_text(DOCKER, encoding="utf-8")
    docker.chmod(0o755)
    env = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "NOTES": str(tmp_path / "notes"),
        "LAUNCHER": "0.2.0 2.77.0 3.11",
        "WORKER": worker,
        "FAILS": fails.removeprefix("test ").removeprefix("reelscribe "),
    }
    command = ["bash", str(TEMPLATES / "check_images.sh"), "r/launcher:1", "r/worker:1"]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (status, told)
    assert (tmp_path / "notes").read_text("utf-8").count("--network none") >= 2
