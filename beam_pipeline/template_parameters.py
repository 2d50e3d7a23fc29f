"""A template's parameters and the command line they stand for: the same names, said in Dataflow's way.

    arguments_of(parser, ["--input=gs://a/,gs://b/", "--fast=true", "--runner=DataflowRunner"])
        # -> (["--input", "gs://a/", "gs://b/", "--fast"], ["--runner=DataflowRunner"])

A parameter is one text, `--name=value`: several values have commas between them, rules (`--filter`) semicolons; a
switch is `true` or `false`; what is left empty was not given. Names may have underscores for dashes.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from beam_pipeline.job_arguments import rule
from beam_pipeline.usage import UsageError

_TRUTH = {"true": True, "false": False}


def arguments_of(parser: argparse.ArgumentParser, given: Sequence[str]) -> tuple[list[str], list[str]]:
    """The command line of these parameters, and what of them the parser does not know: Beam's options.

    Raises:
      UsageError: a switch is neither true nor false.
    """
    known, own, beams = _by_name(parser), [], []
    for one in given:
        flag, _, value = one.partition("=")
        name = flag.removeprefix("--").replace("_", "-")
        if name not in known:
            beams.append(one)
        elif value:
            own += _spelled(f"--{name}", known[name], value)
    return own, beams


def _spelled(flag: str, action: argparse.Action, value: str) -> list[str]:
    if isinstance(action, argparse._StoreTrueAction):
        if value.lower() not in _TRUTH:
            raise UsageError(f"{flag} is true or false, not {value!r}")
        return [flag] if _TRUTH[value.lower()] else []
    if isinstance(action, argparse._ExtendAction | argparse._AppendAction):
        parts = [part.strip() for part in value.split(_between(action)) if part.strip()]
        return [f"{flag}={part}" for part in parts]
    return [f"{flag}={value}"]


def _between(action: argparse.Action) -> str:
    return ";" if action.type is rule else ","


def _by_name(parser: argparse.ArgumentParser) -> Mapping[str, argparse.Action]:
    """The parser's flags by name, without the dashes before it."""
    return {
        flag.removeprefix("--"): action
        for action in parser._actions
        for flag in action.option_strings
        if flag.startswith("--") and flag != "--help"
    }
