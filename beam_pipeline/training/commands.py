"""What the commands that train share: how errors are told, and what is checked and written beside the training.

return told("train selector", "whole epoch", args.output, lambda: train(args))
"""

from __future__ import annotations

import argparse
import errno
import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from beam_pipeline.usage import UsageError, complain, positive, whole
from model_handlers.nearest import nearest

_FULL = "the disk is full; make room"


def above_0(text: str) -> float:
    """A finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def add_shared(made: argparse.ArgumentParser) -> None:
    """Add what every training takes, whatever is trained."""
    add = made.add_argument
    add("--output", required=True, metavar="OUT", help="versions stand there: OUT/v1, OUT/v2 ...")
    add("--seed", type=whole, default=0, metavar="N", help="of the split, the order and the weights (0)")
    add("--resume", action="store_true", help="go on with the version that was not finished")
    add("--precision", default="auto", metavar="P", help="auto, fp32, bf16 or fp16 (auto: as the device computes best)")
    add("--gradient-checkpointing", action="store_true", help="less memory for more time")
    add("--accumulate", type=positive, default=1, metavar="N", help="passes a step, for less memory (1)")
    add("--max-steps", type=positive, metavar="N", help="stop there, whatever the epochs")
    add("--tensorboard", metavar="DIR", help="write curves for TensorBoard there")
    add("--json", metavar="FILE", help="write the figures there, too")
    add("--verbose", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def told(command: str, moment: str, output: str, train: Callable[[], int]) -> int:
    """Train; the status is 1 when that failed, 130 when it was interrupted.

    Args:
      moment: after which a training goes on, in words. output: where its versions stand.

    Raises:
      UsageError: something on the command line cannot be used.
    """
    from beam_pipeline.runs import root_cause
    from beam_pipeline.training.checkpoints import Diverged
    from beam_pipeline.training.examples import ExamplesError
    from beam_pipeline.training.opening import NotTrainable
    from beam_pipeline.training.runs import VersionError
    from beam_pipeline.training.student_model import WantedError
    from beam_pipeline.training.trainer import NothingReadable, TrainingError
    from model_handlers.weights import WeightsError
    from transforms.by_source import SubsetError
    from transforms.objects import StorageError
    from transforms.tables import NoDataset
    from transforms.tombstones import TombstoneError

    mistakes = (ExamplesError, SubsetError, NotTrainable, VersionError, TrainingError, WantedError, WeightsError)
    try:
        return train()
    except (NoDataset, StorageError, TombstoneError, NothingReadable, Diverged) as error:
        # A loading process's error comes with its traceback, whose last line is the error's.
        return complain(str(error).strip().splitlines()[-1].removeprefix(f"{_named(error)}: "), 1)
    except mistakes as error:
        raise UsageError(" ".join(str(error).split())) from error
    except (UsageError, ModuleNotFoundError, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        complain(f"interrupted; {_what_is_left(output, moment)}", 130)
        # Without waiting for loading processes, nor for torch's threads.
        os._exit(130)
    except Exception as error:
        logging.getLogger(__name__).info("%s failed", command, exc_info=True)
        failed = f"{command} failed: {_FULL if _is_full(error) else root_cause(error)}"
        return complain(f"{failed} ({_what_is_left(output, moment)}; --verbose tells more)", 1)


def _named(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"


def _what_is_left(output: str, moment: str) -> str:
    """What to do after a training that did not end."""
    from beam_pipeline.training.runs import unfinished_version

    if unfinished_version(output) is None:
        return "there is nothing yet to go on from: start it anew"
    return f"the same command with --resume goes on after the last {moment}"


def _is_full(error: BaseException) -> bool:
    """Whether a disk is full; torch and safetensors say so in words of their own."""
    full = isinstance(error, OSError) and error.errno == errno.ENOSPC
    return full or any(words in str(error) for words in ("os error 28", "unexpected pos", "PytorchStreamWriter failed"))


def check_precision(args: argparse.Namespace) -> None:
    """Raise `UsageError` where there is no such precision."""
    from beam_pipeline.training.trainer import PRECISIONS

    if args.precision not in PRECISIONS:
        raise UsageError(f"there is no precision {args.precision!r}; {nearest(args.precision, PRECISIONS)}")


def check_places(args: argparse.Namespace, folders: Sequence[str]) -> None:
    """Raise `UsageError` where the results can't be written; `folders` are flags that name one beside --output."""
    from beam_pipeline.training.runs import unfinished_version

    if "://" in args.output:
        raise UsageError(f"cannot train into {args.output}: --output is a local directory; copy the version when done")
    if args.json and os.path.isdir(args.json):
        raise UsageError(f"cannot write {args.json}; --json is a file")
    for flag in ("output", *folders):
        place = getattr(args, flag.replace("-", "_"))
        if place and os.path.isfile(place):
            raise UsageError(f"cannot write {place}; --{flag} is a directory")
        for dataset in args.dataset if place else ():
            real, within = os.path.realpath(dataset), os.path.realpath(place)
            if "://" not in dataset and os.path.commonpath([real, within]) == real:
                raise UsageError(f"cannot write into the dataset {dataset}; --{flag} is a directory outside of it")
    if args.resume and unfinished_version(args.output) is None:
        raise UsageError(f"nothing in {args.output} was left unfinished; leave out --resume")


def write_figures(args: argparse.Namespace, found: Mapping[str, Any] | None) -> int:
    """Write the figures of a version where the user wants them; return the exit status."""
    if found is None or not args.json:
        return 0
    try:
        os.makedirs(os.path.dirname(os.path.abspath(args.json)), exist_ok=True)
        with open(args.json, "w", encoding="utf-8") as file:
            file.write(json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    except OSError as error:
        return complain(f"{found['path']} is whole, but cannot write {args.json}: {error.strerror or error}", 1)
    return 0
