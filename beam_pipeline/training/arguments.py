"""The commands `train ...`, and `train selector`: its arguments.

arguments.add_to(command)               # `command` is called as (name, run, summary)
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

from beam_pipeline.training import cover_command, student_command
from beam_pipeline.training.commands import above_0, add_shared, check_places, check_precision, told, write_figures
from beam_pipeline.usage import (
    Parser,
    UsageError,
    dataset_folder,
    fraction,
    load_config_of,
    positive,
    whole,
)

Command = Callable[..., argparse.ArgumentParser]
Commands = dict[str, argparse.ArgumentParser]

_TRAIN = "learn from what people chose, or from the captions of a dataset"
_SELECTOR = "fine-tune a selector on imported annotations; writes a new version below --output"


def add_to(command: Command) -> None:
    """Add the commands."""
    train = command("train", _selector, _TRAIN)
    kinds = train.add_subparsers(metavar="WHAT", required=True, parser_class=Parser)
    add_selector(kinds)
    cover_command.add_to(kinds)
    student_command.add_to(kinds)
    train.set_defaults(kinds=list(kinds.choices), noun="kind of training")


def add_selector(kinds: Any) -> None:
    """Add `train selector`; `kinds` are the subparsers of `train`."""
    made = kinds.add_parser("selector", help=_SELECTOR, description=_SELECTOR, allow_abbrev=False)
    made.set_defaults(parser=made, run=_selector)
    add = made.add_argument
    add("dataset", nargs="+", metavar="DIR", help="datasets whose clips people judged")
    add("--selector", metavar="NAME", help="of the catalogue (default: the configuration's; of lite: lite-projection)")
    add("--profile", help="a built-in profile (default lite)")
    add("--config", metavar="FILE.yaml", help="a configuration; where its selector has weights, they are trained on")
    add(
        "--validation", type=fraction, default=0.1, metavar="SHARE", help="of the sources, to keep the best epoch (0.1)"
    )
    add("--test", type=fraction, default=0.1, metavar="SHARE", help="of the sources, to judge it by at the end (0.1)")
    add("--epochs", type=above_0, metavar="N", help="over all training clips (default: the selector's recipe)")
    add("--batch", type=positive, metavar="N", help="clips a step, over all devices and passes (default: its recipe's)")
    add("--learning-rate", type=above_0, metavar="X", help="at its highest (default: the selector's recipe)")
    add("--weight-decay", type=above_0, metavar="X", help="of AdamW (default: the selector's recipe)")
    add("--patience", type=positive, metavar="N", help="stop after so many epochs without a better one")
    add("--workers", type=whole, metavar="N", help="loading processes a device (4; none where a selector needs none)")
    add("--calibration", default="temperature", metavar="KIND", help="temperature, isotonic or none (temperature)")
    add_shared(made)


def _selector(args: argparse.Namespace, commands: Commands) -> int:
    return told("train selector", "whole epoch", args.output, lambda: _train(args))


def _train(args: argparse.Namespace) -> int:
    from beam_pipeline.training.calibration import KINDS
    from beam_pipeline.training.examples import SplitShares
    from beam_pipeline.training.fitting import Wanted, fit
    from beam_pipeline.training.opening import check_trainable
    from beam_pipeline.training.trainer import TrainOptions
    from model_handlers.nearest import nearest

    check_precision(args)
    if args.calibration not in KINDS:
        raise UsageError(f"there is no calibration {args.calibration!r}; {nearest(args.calibration, KINDS)}")
    check_places(args, ["tensorboard"])
    entry, note = _entry_of(args)
    check_trainable(entry)
    datasets = [dataset_folder(one) for one in args.dataset]
    changes = {
        name: getattr(args, name)
        for name in ("epochs", "batch", "learning_rate", "weight_decay")
        if getattr(args, name) is not None
    }

    def options(recipe: Any) -> TrainOptions:
        return TrainOptions(
            recipe=dataclasses.replace(recipe, **changes),
            checkpointing=args.gradient_checkpointing,
            **{
                name: getattr(args, name)
                for name in ("seed", "precision", "accumulate", "max_steps", "workers", "tensorboard", "patience")
            },
        )

    shares = SplitShares(args.validation, args.test, args.seed)
    found = fit(Wanted(datasets, entry, shares, args.output, args.resume, options, note, args.calibration))
    return write_figures(args, found)


def _entry_of(args: argparse.Namespace) -> tuple[Any, str]:
    """The selector to train, and what has to be said of the choice."""
    from beam_pipeline.choosing import choose

    config = load_config_of(args)
    named = args.selector is not None and args.selector != config.selector.name
    if not named and (args.selector or config.selector.name != "conse"):
        return config.selector, ""
    try:
        entry = choose("selector", args.selector or "lite-projection", complete=False).entry
    except ValueError as error:
        raise UsageError(str(error)) from error
    return entry, "" if args.selector else "conse has nothing to train; lite-projection starts from it"
