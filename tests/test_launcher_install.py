"""What the images install: the source distribution is whole, and the launcher's packages suffice for the graph."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import textwrap
import venv

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("beam_pipeline", "model_handlers", "transforms")
INSTALL = ROOT / "templates" / "install.sh"

#: Builds the graphs of three configurations and prints their sizes: what a launcher does, but for the service.
GRAPHS = """
    import json, sys
    import apache_beam as beam
    import beam_pipeline.flex_template, beam_pipeline.template_spec
    from beam_pipeline.config import load_config
    from beam_pipeline.pipeline import CurateVideos

    def graph(config):
        pipeline = beam.Pipeline(runner="FnApiRunner")
        _ = pipeline | beam.Create([]) | CurateVideos(config, "gs://sets/talks", "run-1")
        return len(pipeline.to_runner_api().components.transforms) > 100

    paper = {"selector": {"name": "umt-l16", "weights": "gs://weights/l16.pth", "sha256": "0" * 64}}
    built = [graph(load_config("lite")), graph(load_config("panda70m", changes=paper)), graph(load_config("modern"))]
    heavy = {"torch", "torchvision", "transformers", "rapidocr", "onnxruntime"} & set(sys.modules)
    print(json.dumps([built, sorted(heavy)]))
"""

#: Leaves of a site-packages folder what an extra asks for, as if nothing else were installed.
ONLY = """
    import importlib.machinery, importlib.metadata, sys
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    def closure(names):
        found, todo = set(), [Requirement(name) for name in names]
        seen = set()
        while todo:
            asked = todo.pop()
            if str(asked) in seen:
                continue
            seen.add(str(asked))
            try:
                wants = importlib.metadata.requires(asked.name) or []
            except importlib.metadata.PackageNotFoundError:
                continue
            found.add(canonicalize_name(asked.name))
            for want in map(Requirement, wants):
                if any(want.marker is None or want.marker.evaluate({"extra": one}) for one in (asked.extras or {""})):
                    todo.append(want)
        return found

    WANTED = closure(sys.argv[1].split(";")) | {"reelscribe"}
    OWNERS = importlib.metadata.packages_distributions()

    class Only(importlib.machinery.PathFinder):
        @classmethod
        def find_spec(cls, name, path=None, target=None):
            owners = {canonicalize_name(owner) for owner in OWNERS.get(name.partition(".")[0], ())}
            if owners and not owners & WANTED:
                return None
            return super().find_spec(name, path, target)

    sys.meta_path[:] = [Only if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]
"""


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> pathlib.Path:
    """The source distribution, built from a copy of the sources without a registry."""
    sources, built = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("built")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources / name)
    script = f"import setuptools.build_meta; print(setuptools.build_meta.build_sdist({str(built)!r}))"
    made = subprocess.run([sys.executable, "-c", script], cwd=sources, capture_output=True, text=True, timeout=120)
    assert made.returncode == 0, made.stderr[-2000:]
    return built / made.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def unpacked(sdist, tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.iterdir())


def _files(root: pathlib.Path) -> set[str]:
    return {
        path.relative_to(root).as_posix()
        for package in PACKAGES
        for path in (root / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def _extras(dockerfile: str) -> str:
    return re.search(r"^ARG EXTRAS=(\S+)$", (ROOT / "templates" / dockerfile).read_text("utf-8"), re.MULTILINE).group(1)


def _bare(folder: pathlib.Path, *paths: pathlib.Path | str) -> str:
    """An environment that sees these paths and the standard library alone; returns its interpreter."""
    venv.create(folder, with_pip=False, symlinks=True)
    packages = sysconfig.get_path("purelib", vars={"base": str(folder)})
    (pathlib.Path(packages) / "seen.pth").write_text("".join(f"{path}\n" for path in paths), encoding="utf-8")
    return str(folder / "bin" / "python")


def test_the_sdist_holds_every_file_of_the_packages_and_no_other(unpacked):
    assert _files(unpacked) == _files(ROOT)
    assert {"setup.py", "README.md", "LICENSE", "PKG-INFO"} <= {path.name for path in unpacked.iterdir()}


def test_the_sdist_builds_the_graphs_with_the_packages_of_the_launcher_alone(unpacked, tmp_path):
    # Beside what the launcher image holds this environment sees nothing: not torch, not the checkout.
    requirements = _requirements(unpacked, "launcher")
    assert "torch" not in {name.partition(">")[0] for name in requirements}
    python = _bare(tmp_path / "env", unpacked, sysconfig.get_path("purelib"))
    script = textwrap.dedent(ONLY) + textwrap.dedent(GRAPHS)
    ran = subprocess.run(
        [python, "-c", script, ";".join(requirements)], capture_output=True, text=True, timeout=150, cwd=tmp_path
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert json.loads(ran.stdout.splitlines()[-1]) == [[True, True, True], []]


def test_the_filter_of_that_test_hides_what_the_launcher_does_not_ask_for(unpacked, tmp_path):
    python = _bare(tmp_path / "env", unpacked, sysconfig.get_path("purelib"))
    script = textwrap.dedent(ONLY) + "import importlib.util\nprint(importlib.util.find_spec('torch'))\nimport torch\n"
    ran = subprocess.run(
        [python, "-c", script, ";".join(_requirements(unpacked, "launcher"))],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert ran.stdout == "None\n"
    assert "ModuleNotFoundError: No module named 'torch'" in ran.stderr


def _requirements(unpacked: pathlib.Path, extra: str) -> list[str]:
    """What an extra asks for, by the sdist's own metadata."""
    asked = re.findall(r"^Requires-Dist: (.+)$", (unpacked / "PKG-INFO").read_text("utf-8"), re.MULTILINE)
    plain = [line for line in asked if ";" not in line]
    return plain + [line.partition(";")[0].strip() for line in asked if f'extra == "{extra}"' in line.replace("'", '"')]


def test_install_says_how_it_is_called():
    ran = subprocess.run(["sh", str(INSTALL), "one"], capture_output=True, text=True, timeout=30)
    assert (ran.returncode, ran.stderr) == (2, "usage: install.sh WHEEL_OR_SDIST EXTRAS CONSTRAINTS\n")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("image", ["launcher", "worker"])
def test_the_install_step_of_an_image_runs_in_a_clean_environment(image, sdist, tmp_path):
    # The very script that the Dockerfiles run; some 1.3 GB for the launcher and 7 GB for the worker.
    environment, bill = tmp_path / "env", tmp_path / "bill" / "sbom.json"
    venv.create(environment, with_pip=True, symlinks=True)
    python = str(environment / "bin" / "python")
    surroundings = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    installed = subprocess.run(
        ["sh", str(INSTALL), str(sdist), _extras(f"{image}.Dockerfile"), str(ROOT / "constraints.txt")],
        env=surroundings | {"PYTHON": python, "SBOM": str(bill)},
        capture_output=True,
        text=True,
        timeout=3500,
    )
    assert installed.returncode == 0, installed.stderr[-3000:]
    assert "No broken requirements found." in installed.stdout

    ran = subprocess.run(
        [python, "-c", textwrap.dedent(GRAPHS)], capture_output=True, text=True, timeout=300, cwd=tmp_path
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    # Beam itself imports torch where it is; we don't before a model is loaded.
    assert json.loads(ran.stdout.splitlines()[-1]) == [[True, True, True], ["torch"] if image == "worker" else []]

    listed = {one["name"].lower() for one in json.loads(bill.read_text("utf-8"))["components"]}
    assert {"reelscribe", "apache-beam", "av", "pip"} <= listed
    assert ("torch" in listed, "cyclonedx-bom" in listed) == (image == "worker", False)
