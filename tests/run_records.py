"""The records of a dataset's runs, as the tests read them.

assert newest_run("out")["counts"]["committed"] == 1
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any


def records(dataset: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """All records, the one that was written last at the end: their own times are whole seconds."""
    paths = sorted(pathlib.Path(dataset).glob("runs/*.json"), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(path.read_text()) for path in paths]


def newest_run(dataset: str | os.PathLike[str]) -> dict[str, Any]:
    """The record that was written last."""
    return records(dataset)[-1]
