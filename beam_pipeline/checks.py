"""What the doctor finds: one check a line, with the command that mends it.

status = print_checks([Check("python", "ok", "3.11.0")])        # 1 when any failed
"""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from collections.abc import Sequence
from typing import Literal

State = Literal["ok", "warn", "fail"]


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: what was found, and for a fault the command that mends it."""

    name: str
    state: State
    what: str
    fix: str = ""


def print_checks(checks: Sequence[Check]) -> int:
    """Print a line a check, and under each fault its fix; return the exit status: 1 when any failed."""
    width = max((len(check.name) for check in checks), default=0)
    for check in checks:
        print(f"{check.state:4}  {check.name:{width}}  {check.what}")
        if check.fix:
            print(f"{'':4}  {'':{width}}  fix: {check.fix}")
    failed = sum(check.state == "fail" for check in checks)
    warned = sum(check.state == "warn" for check in checks)
    print(f"\n{len(checks)} checks: {failed} failed, {warned} to look at" if failed or warned else "\nall is well")
    return 1 if failed else 0


def nearest_folder(path: str) -> pathlib.Path:
    """The folder at `path`, or the nearest one above it that is there."""
    folder = pathlib.Path(path).absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def free_gb(path: str) -> float:
    """What is free, in GiB, where `path` is or would be."""
    return shutil.disk_usage(nearest_folder(path)).free / 2**30
