"""The commands that take clips out of a dataset (`stats`): their arguments, and how their errors are told."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable

from beam_pipeline.usage import UsageError, complain, dataset_folder

Command = Callable[..., argparse.ArgumentParser]
Commands = dict[str, argparse.ArgumentParser]


def add_to(command: Command) -> None:
    """Add the commands; `command` is called as (name, run, summary)."""
    stats = command("stats", _told(_stats), "tell a dataset in the figures of the paper's Table 1")
    stats.add_argument("dataset", metavar="DIR")
    stats.add_argument("--json", metavar="FILE", help="write the figures there, too")


def _told(run: Callable[[argparse.Namespace], str]) -> Callable[[argparse.Namespace, Commands], int]:
    """Make a command of what returns the lines to print: its errors are told in one."""

    def told(args: argparse.Namespace, commands: Commands) -> int:
        from beam_pipeline.runs import root_cause
        from transforms.objects import StorageError
        from transforms.tables import NoDataset
        from transforms.tombstones import TombstoneError

        try:
            print(run(args))
        except (NoDataset, StorageError, TombstoneError) as error:
            return complain(str(error), 1)
        except (UsageError, ModuleNotFoundError, BrokenPipeError):
            raise
        except Exception as error:
            logging.getLogger(__name__).info("%s failed", args.command, exc_info=True)
            return complain(f"{args.command} failed: {root_cause(error)} (--verbose tells more)", 1)
        return 0

    return told


def _stats(args: argparse.Namespace) -> str:
    from beam_pipeline.stats import dataset_stats, describe
    from transforms.files import write

    found = dataset_stats(dataset_folder(args.dataset))
    if args.json:
        write(args.json, (json.dumps(found.as_json(), indent=1, ensure_ascii=False) + "\n").encode())
    return describe(found)
