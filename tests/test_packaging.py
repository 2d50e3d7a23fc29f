"""What is shipped, what it asks for, and the two commands of the README."""

import ast
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("beam_pipeline", "model_handlers", "transforms")
#: The extras of `make install`.
INSTALLED = tuple(re.search(r"^EXTRAS := (.+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)[1].split(","))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """The distribution, built from a copy of the sources."""
    sources, built = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("built")
    for name in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, sources / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        built,
        sources,
    ]
    made = subprocess.run(command, capture_output=True, text=True, timeout=170)
    assert made.returncode == 0, made.stderr[-2000:]
    (file,) = built.iterdir()
    return zipfile.ZipFile(file)


def _metadata(wheel: zipfile.ZipFile, name: str) -> str:
    return wheel.read(next(n for n in wheel.namelist() if n.endswith(f".dist-info/{name}"))).decode()


def _requirements(wheel: zipfile.ZipFile) -> list[Requirement]:
    return [Requirement(line) for line in Parser().parsestr(_metadata(wheel, "METADATA")).get_all("Requires-Dist", [])]


def _of(extra: str, requirements: list[Requirement]) -> set[str]:
    return {
        canonicalize_name(r.name)
        for r in requirements
        if r.marker is None or (extra and r.marker.evaluate({"extra": extra}))
    }


def test_the_wheel_holds_every_file_of_the_three_packages_and_nothing_else(wheel):
    ours = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == ours
    assert "beam_pipeline/profiles/lite.yaml" in ours


def test_the_console_script_and_the_licence_are_declared(wheel):
    assert "reelscribe = beam_pipeline.cli:main" in _metadata(wheel, "entry_points.txt").splitlines()
    declared = Parser().parsestr(_metadata(wheel, "METADATA"))
    assert (declared["Name"], declared["Requires-Python"]) == ("reelscribe", ">=3.11")
    assert "Apache License" in (ROOT / "LICENSE").read_text("utf-8")


def test_the_base_install_brings_neither_torch_nor_beam(wheel):
    assert _of("", _requirements(wheel)) == {"numpy", "pyarrow", "deltalake", "pillow", "pyyaml", "jinja2", "pysubs2"}
    assert {"torch", "torchvision", "transformers"} & _of("launcher", _requirements(wheel)) == set()


def test_every_package_that_the_code_imports_is_asked_for_by_an_extra(wheel):
    requirements = _requirements(wheel)
    provided = Parser().parsestr(_metadata(wheel, "METADATA")).get_all("Provides-Extra", [])
    # What no module of the packages may need.
    extras = set(provided) - {"tensorflow", "dev"}
    asked = set().union(*(_of(extra, requirements) for extra in extras))
    # markupsafe is half of jinja2; spaCy is installed by whoever names a pipeline of it (docs/hygiene.md).
    asked |= {"markupsafe", "spacy"}
    owners = packages_distributions()
    missing = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for top in _tops(path) - set(sys.stdlib_module_names) - set(PACKAGES):
                names = {canonicalize_name(name) for name in owners.get(top, [])}
                if not (names or {top}) & asked and top != "google":
                    missing.add(f"{path.relative_to(ROOT)}: {top} of {sorted(names)}")
    assert missing == set()


def _tops(path: pathlib.Path) -> set[str]:
    tops = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            tops |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            tops.add(node.module.partition(".")[0])
    return tops


def _pins(file: str) -> dict[str, list[Requirement]]:
    pins: dict[str, list[Requirement]] = {}
    for line in (ROOT / file).read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            pins.setdefault(canonicalize_name(Requirement(line).name), []).append(Requirement(line))
    return pins


@pytest.mark.parametrize(
    ("file", "extras", "pythons"),
    [
        (
            "constraints.txt",
            INSTALLED,
            ("3.11", "3.12", "3.13"),
        ),
        ("constraints-tensorflow.txt", ("tensorflow",), ("3.11", "3.12")),
    ],
)
def test_the_constraints_pin_all_that_the_extras_ask_for_within_their_ranges(wheel, file, extras, pythons):
    pins = _pins(file)
    for python in pythons:
        for asked in _requirements(wheel):
            for extra in extras:
                if asked.marker is None or asked.marker.evaluate({"extra": extra, "python_version": python}):
                    held = [
                        pin
                        for pin in pins.get(canonicalize_name(asked.name), [])
                        if pin.marker is None or pin.marker.evaluate({"python_version": python})
                    ]
                    assert len(held) == 1, f"{asked} on {python}: {held}"
                    version = next(iter(held[0].specifier)).version
                    assert asked.specifier.contains(version, prereleases=True), f"{held[0]} is outside {asked}"


def test_the_constraints_name_no_host_no_path_and_the_pair_by_arbitrary_equality():
    for file in ("constraints.txt", "constraints-tensorflow.txt"):
        text = (ROOT / file).read_text("utf-8")
        assert re.findall(r"://|^-|@|file:|\+cpu$", text, re.MULTILINE) == []
    pins, makefile = _pins("constraints.txt"), (ROOT / "Makefile").read_text("utf-8")
    for name in ("torch", "torchvision"):
        version = re.search(rf"^{name.upper()} := (\S+)$", makefile, re.MULTILINE).group(1)
        assert [str(pin) for pin in pins[name]] == [f"{name}==={version}"]


def test_pins_that_differ_between_pythons_are_marked():
    spec = importlib.util.spec_from_file_location("resolve", ROOT / ".ci" / "constraints.py")
    resolve = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(resolve)
    resolved = {"3.9": {"a": "1", "b": "1"}, "3.10": {"a": "1", "b": "2"}, "3.11": {"a": "1", "b": "2", "torch": "3"}}
    assert resolve.merge(resolved, {"torch": "3"}) == [
        "a==1",
        'b==1; python_version == "3.9"',
        'b==2; python_version == "3.10" or python_version == "3.11"',
        'torch===3; python_version == "3.11"',
    ]


@pytest.fixture
def checkout(tmp_path: pathlib.Path) -> pathlib.Path:
    if shutil.which("make") is None:
        pytest.skip("needs make")
    for name in ("Makefile", "setup.py", "constraints.txt", "constraints-tensorflow.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def _make(checkout: pathlib.Path, *goals: str) -> subprocess.CompletedProcess[str]:
    # Free of an outer make, whose flags would travel in the environment.
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}
    return subprocess.run(["make", *goals], cwd=checkout, capture_output=True, text=True, timeout=60, env=quiet)


def _fake_python(folder: pathlib.Path, script: str) -> str:
    fake = folder / "some-python"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    return f"PYTHON={fake}"


def test_an_old_python_and_a_missing_venv_are_told_before_anything_is_installed(checkout):
    old = _make(checkout, "install", _fake_python(checkout, '[ "$1" = --version ] && echo Python 3.9.1; exit 1'))
    assert (old.returncode, "Python 3.11 or newer is needed" in old.stdout, "Python 3.9.1" in old.stdout) == (
        2,
        True,
        True,
    )
    bare = _make(checkout, "install", _fake_python(checkout, 'case "$2" in *ensurepip*) exit 1;; esac; exit 0'))
    assert (bare.returncode, "apt install python3-venv" in bare.stdout) == (2, True)
    assert not (checkout / ".venv").exists()


def test_install_does_nothing_until_the_requirements_change(checkout):
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / ".installed").touch()
    assert _make(checkout, "-q", "install").returncode == 0
    later = (checkout / ".venv" / ".installed").stat().st_mtime + 10
    os.utime(checkout / "constraints.txt", (later, later))
    assert _make(checkout, "-q", "install").returncode == 1


def test_demo_and_test_run_what_the_readme_says(checkout):
    demo = _make(checkout, "-n", "demo").stdout
    steps = [
        "beam_pipeline.demo demo-output/footage",
        "curate --input demo-output/footage",
        "report demo-output/dataset",
    ]
    places = [demo.index(step) for step in steps]
    assert places == sorted(places)
    assert "-m pytest -n 2 --dist loadfile -m 'not slow and not soak'" in _make(checkout, "-n", "test").stdout


def test_the_ci_script_runs_and_is_plain_bash():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script], timeout=20).returncode == 0
    assert "make lint test" in script.read_text("utf-8")
