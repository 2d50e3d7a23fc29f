"""Resolve what `.[local,gcp,demo,dev,transnet]` needs on several Pythons and print one constraints file.

    python .ci/constraints.py --pair torch=2.13.0 torchvision=0.28.0 -- python3.11 python3.12 > constraints.txt

A pin that differs between the Pythons is printed once for each, with a marker.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict

HEADER = """\
# What `pip install '.[{extras}]'` brings on Linux x86-64 with Python {pythons}; the tests ran with it.
# Refreshed by `make constraints`.
"""

EXACT = """\
# {names} are pinned by arbitrary equality (===). `==2.13.0` also accepts `2.13.0+cpu` where pip can find
# such a build, and torchvision from the registry, built for the other torch, then fails at import with
# `operator torchvision::nms does not exist`. `===` takes the registry's pair: a CUDA build, which runs on CPUs too.
# The pair's numbers stand in the Makefile; bump both.
"""


def main(argv: list[str] | None = None) -> int:
    """Print the constraints file; exit 1 when an interpreter can't resolve the extras."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--extras", default="local,gcp,demo,dev,transnet")
    parser.add_argument("--pair", nargs="*", default=[], metavar="NAME=VERSION", help="pinned by arbitrary equality")
    parser.add_argument("--keep", action="append", default=[], metavar="FILE", help="stay within these constraints")
    parser.add_argument("pythons", nargs="+", metavar="PYTHON", help="interpreters that have pip")
    chosen = parser.parse_args(argv)
    exact = dict(pin.split("=", 1) for pin in chosen.pair)
    resolved: dict[str, dict[str, str]] = {}
    for python in chosen.pythons:
        version = subprocess.run(
            [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True
        )
        if version.returncode:
            print(f"no {python} here: left out", file=sys.stderr)
            continue
        resolved[version.stdout.strip()] = _resolve(python, chosen.extras, exact, chosen.keep)
    if not resolved:
        return 1
    print(HEADER.format(extras=chosen.extras, pythons=", ".join(sorted(resolved, key=_order))), end="")
    print(EXACT.format(names=" and ".join(exact)) if exact else "")
    print("\n".join(merge(resolved, exact)))
    return 0


def merge(resolved: dict[str, dict[str, str]], exact: dict[str, str]) -> list[str]:
    """One line a pin: {python: {name: version}} -> sorted `name==version` lines, with markers where Pythons differ."""
    pins: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for python, versions in sorted(resolved.items(), key=lambda pair: _order(pair[0])):
        for name, version in versions.items():
            pins[name][version].append(python)
    lines = []
    for name in sorted(pins):
        equals = "===" if name in exact else "=="
        for version, pythons in pins[name].items():
            marker = ""
            if len(pythons) < len(resolved):
                marker = "; " + " or ".join(f'python_version == "{python}"' for python in pythons)
            lines.append(f"{name}{equals}{version}{marker}")
    return lines


def _resolve(python: str, extras: str, exact: dict[str, str], keep: list[str]) -> dict[str, str]:
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        wanted = [f".[{extras}]", *(f"{name}==={version}" for name, version in exact.items())]
        kept = [word for path in keep for word in ("-c", path)]
        quiet = ["--quiet", "--dry-run", "--ignore-installed", "--report", report.name]
        subprocess.run([python, "-m", "pip", "install", *quiet, *kept, *wanted], check=True, stdout=sys.stderr)
        found = json.loads(report.read())["install"]
    versions = {re.sub(r"[-_.]+", "-", f["metadata"]["name"]).lower(): f["metadata"]["version"] for f in found}
    del versions["reelscribe"]
    return versions


def _order(python: str) -> tuple[int, ...]:
    return tuple(int(part) for part in python.split("."))


if __name__ == "__main__":
    sys.exit(main())
