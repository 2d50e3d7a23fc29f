"""The record of a run: `runs/RUN_ID.json`, written aside and renamed, so that it is whole at any instant.

record = RunRecord.begin(output, run_id, config, inputs, options); ...; record.finish("done", outcomes, sources)
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
import pathlib
import re
import secrets
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from transforms.tombstones import PREFIX

if TYPE_CHECKING:
    from beam_pipeline.config import Config
    from transforms.reading import Source

#: How an error ends a traceback: its class, a colon, what it says.
_ERROR_LINE = re.compile(r"(?:\w+\.)*[A-Z]\w*(?:Error|Exception|Exit|Lost|Held|Failed|Warning|NoDataset|Interrupt): ")

#: An address, or the name of a subscription.
_NO_PATH = re.compile(r"\w+://|projects/[^/]+/subscriptions/[^/]+$")

#: How much of a traceback a record keeps.
_TRACEBACK_CHARACTERS = 20_000

#: Whose versions can change a dataset's rows.
VERSIONED = ("reelscribe", "apache-beam", "av", "deltalake", "pyarrow", "scenedetect-headless", "torch", "transformers")


def new_run_id() -> str:
    """A name that sorts by time and is its own: 20261122T101500-3f9a1c."""
    return f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


@dataclasses.dataclass
class RunRecord:
    """What one run did to a dataset.

    Attributes:
      directory: of the dataset.
      values: the record's JSON object so far.
    """

    directory: str
    values: dict[str, Any]

    @classmethod
    def begin(
        cls,
        directory: str,
        run_id: str,
        config: Config,
        inputs: Sequence[str],
        options: Mapping[str, Any],
        command: str = "curate",
    ) -> RunRecord:
        """Open the record of a run and write it down, as running."""
        versions = {name: _version(name) for name in VERSIONED}
        models = [
            {"name": entry.name, "model": entry.model, "revision": entry.revision, "licence": entry.licence}
            for entry in config.models
        ]
        record = cls(
            directory,
            {
                "run_id": run_id,
                "command": command,
                "status": "running",
                "started_at": _now(),
                "finished_at": None,
                # Whole paths: a redrive looks there again, from wherever it is started.
                "input": [one if _NO_PATH.match(one) else os.path.abspath(one) for one in inputs],
                "options": dict(options),
                "config": config.as_json(),
                "versions": versions,
                "models": models,
            },
        )
        record.write()
        return record

    @property
    def path(self) -> pathlib.Path:
        return pathlib.Path(self.directory) / "runs" / f"{self.values['run_id']}.json"

    def finish(self, status: str, outcomes: Mapping[str, str], sources: Sequence[Source], **totals: Any) -> None:
        """Close the record.

        Args:
          status: 'done', 'failed' or 'interrupted'.
          outcomes: by video_id: 'committed', 'unchanged' or 'failed'; of a run that did not finish, only what is known.
          sources: the inputs, in order.
          totals: counts, seconds and bytes per stage.
        """
        self.values |= {"status": status, "finished_at": _now(), **totals}
        self.values["inputs"] = [
            {"video_id": source.video_id, "uri": source.uri, "outcome": outcomes.get(source.video_id, "pending")}
            for source in sources
        ]
        self.write()

    def fail(self, error: BaseException) -> None:
        """Note what stopped the run."""
        told = "".join(traceback.format_exception(error))
        self.values["error"] = {"message": root_cause(error), "traceback": told[-_TRACEBACK_CHARACTERS:]}

    def write(self) -> None:
        """Write the record aside and rename it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_suffix(".tmp")
        with open(aside, "w", encoding="utf-8") as file:
            json.dump(self.values, file, indent=1, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, self.path)


def records_of(directory: str | os.PathLike[str]) -> Iterator[tuple[pathlib.Path, dict[str, Any]]]:
    """The records of the runs that made a dataset, by name; not of takedowns, nor those that cannot be read."""
    for path in sorted(pathlib.Path(directory).glob("runs/*.json")):
        if path.name.startswith(PREFIX):
            continue
        with contextlib.suppress(OSError, ValueError):
            record = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(record, dict):
                yield path, record


def root_cause(error: BaseException) -> str:
    """What stopped a job, in a line: the innermost error of the traceback that a runner hands on as text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if _ERROR_LINE.match(line)]
    if causes:
        return causes[-1]
    return f"{type(error).__name__}: {lines[-1]}" if lines else repr(error)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
