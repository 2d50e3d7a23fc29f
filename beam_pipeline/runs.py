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
import re
import secrets
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from transforms.files import Directory, join, list_files, name_of, read, write
from transforms.tombstones import PREFIX

if TYPE_CHECKING:
    from beam_pipeline.config import Config
    from transforms.reading import Source

#: How an error ends a traceback: its class, a colon, what it says.
_ERROR_LINE = re.compile(r"(?:\w+\.)*[A-Z]\w*(?:Error|Exception|Exit|Lost|Held|Failed|Warning|NoDataset|Interrupt): ")

#: An address, or the name of a subscription.
_NO_PATH = re.compile(r"\w+://|projects/[^/]+/subscriptions/[^/]+$")

_BRANCH = re.compile(r"\s*(?:\x1b\[[0-9;]*m)*↳(?:\x1b\[[0-9;]*m)*\s*")

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
        record = cls(
            directory,
            {
                "run_id": run_id,
                "command": command,
                "status": "running",
                "started_at": now(),
                "finished_at": None,
                # Whole paths: a redrive looks there again, from wherever it is started.
                "input": [one if _NO_PATH.match(one) else os.path.abspath(one) for one in inputs],
            },
        )
        record.made_by(config, options)
        record.write()
        return record

    def made_by(self, config: Config, options: Mapping[str, Any]) -> None:
        """Say what makes the run's rows: its configuration, and what is installed here."""
        self.values |= {
            "options": dict(options),
            "config": config.as_json(),
            "versions": {name: _version(name) for name in VERSIONED},
            "cores": os.cpu_count(),
            "models": [
                {"name": entry.name, "model": entry.model, "revision": entry.revision, "licence": entry.licence}
                for entry in config.models
            ],
        }

    @classmethod
    def read(cls, directory: str, run_id: str) -> RunRecord:
        """The record of a run that was begun elsewhere. Raises FileNotFoundError."""
        return cls(directory, json.loads(read(record_path(directory, run_id))))

    @property
    def path(self) -> str:
        return record_path(self.directory, self.values["run_id"])

    def finish(self, status: str, outcomes: Mapping[str, str], sources: Sequence[Source], **totals: Any) -> None:
        """Close the record.

        Args:
          status: 'done', 'failed' or 'interrupted'.
          outcomes: by video_id: 'committed', 'unchanged' or 'failed'; of a run that did not finish, only what is known.
          sources: the inputs, in order.
          totals: counts, seconds and bytes per stage.
        """
        self.values |= {"status": status, "finished_at": now(), **totals}
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
        """Write the record down, whole."""
        write_record(self.path, self.values)


def record_path(directory: Directory, run_id: str) -> str:
    """Where the record of a run stands."""
    return join(directory, "runs", f"{run_id}.json")


def record_paths(directory: Directory) -> list[str]:
    """The records of runs and takedowns, by name."""
    return [path for path in list_files(join(directory, "runs")) if re.fullmatch(r"[^.].*\.json", name_of(path))]


def write_record(path: str, values: Mapping[str, Any]) -> None:
    """Write the record of a run or a takedown, so that it is whole at any instant."""
    write(path, json.dumps(values, indent=1, ensure_ascii=False).encode())


def records_of(directory: Directory) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records of the runs that made a dataset, by path; not of takedowns, nor those that cannot be read."""
    for path in record_paths(directory):
        if name_of(path).startswith(PREFIX):
            continue
        with contextlib.suppress(OSError, ValueError, RecursionError):
            record = json.loads(read(path))
            if isinstance(record, dict):
                yield path, record


def root_cause(error: BaseException) -> str:
    """What stopped a job, in a line: the innermost error of the traceback that a runner hands on as text."""
    # Delta tables draw what came of what as a tree, in colours, with the service's markup at its end.
    told = re.sub(r": <\?xml[^\n]*", "", _BRANCH.sub(": ", str(error)))
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    causes = [line for line in lines if _ERROR_LINE.match(line)]
    if causes:
        return causes[-1]
    return f"{type(error).__name__}: {lines[-1]}" if lines else repr(error)


def now() -> str:
    """The time, to the second, as records tell it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
