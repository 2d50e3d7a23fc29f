"""The parameters of the Flex Templates: those flags of `curate` and `watch` that mean something on Dataflow.

    for parameter in parameters_of("curate"): parameter.name, parameter.kind, parameter.regex
    written("curate", args)                                     # {"input": "gs://uploads/", "fast": "true", ...}
    arguments(parameters_of("curate"), {"fast": "true", ...})   # ["--fast", ...], for the command's own parser

They are made from the parsers of the commands. What argparse does not know (how a value looks, where it belongs in the
console's form) stands in the table `FORMS`.
"""

from __future__ import annotations

import argparse
import dataclasses
import decimal
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from beam_pipeline.job_arguments import curate_arguments, watch_arguments
from beam_pipeline.usage import Parser, UsageError, positive, seconds
from model_handlers.nearest import nearest

#: The commands that there is a template of, with what adds their arguments.
COMMANDS: Mapping[str, Callable[[argparse.ArgumentParser], None]] = {
    "curate": curate_arguments,
    "watch": watch_arguments,
}

_ROUNDS = "it is about rounds on one machine, and on Dataflow each video goes its own way"
_WHOLE = "an object in a bucket is whole when it is there"
#: Flags that mean nothing on Dataflow, by their destination, and why.
ABSENT: Mapping[str, str] = {
    "chunk_videos": "on Dataflow all videos go through one pipeline, which commits each as soon as it is done",
    "max_failed_fraction": "nothing waits for the job that could exit; its record in runs/ counts what failed",
    "metrics_port": "workers come and go; Dataflow shows the same counters as metrics of the job",
    "metrics_host": "workers come and go; Dataflow shows the same counters as metrics of the job",
    "log_format": "Cloud Logging keeps the entries of workers with their fields",
    "settle": _WHOLE,
    "marker": _WHOLE,
    "at_once": _ROUNDS,
    "round_videos": _ROUNDS,
    "quiet": _ROUNDS,
    "idle_exit": "a streaming job runs until it is drained",
}

_GS = r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]"
_GS_PATHS = rf"^{_GS}(/[^\n\r]*)?(,{_GS}(/[^\n\r]*)?)*$"
_NUMBERS: Mapping[Any, str] = {
    positive: r"^0*[1-9][0-9]*$",
    seconds: r"^([0-9]*[1-9][0-9]*([.][0-9]+)?|[0-9]*[.][0-9]*[1-9][0-9]*)$",
}
_RULES = r"^ *[a-z][a-z0-9_]* *=[^\n\r]+$"
#: Where the next rule begins; commas also stand between the values of one.
_NEXT_RULE = re.compile(r", *(?=[a-z][a-z0-9_]* *=)")
#: A comma may stand in an object's name.
_NEXT_URI = re.compile(r", *(?=gs://)")


@dataclasses.dataclass(frozen=True)
class Form:
    """What argparse does not know of a parameter.

    Attributes:
      label: in the console. group: of the console's form.
      kind: the name of a ParameterType, where neither choices, switches nor numbers tell it.
      regex: that its value must match; "" takes that of its kind.
      told: in place of the flag's help.
      parted: what stands between values of a list; None: it is none, or its parser parts it itself.
    """

    label: str
    group: str
    kind: str = ""
    regex: str = ""
    told: str = ""
    parted: re.Pattern[str] | None = None


#: By destination; a flag of the commands is in here or in `ABSENT`.
FORMS: Mapping[str, Form] = {
    "input": Form(
        "Videos",
        "Source",
        "TEXT",
        _GS_PATHS,
        "gs:// folders (read recursively), patterns and manifests (.jsonl, .csv, .parquet); several between commas",
        _NEXT_URI,
    ),
    "subscription": Form(
        "Subscription",
        "Source",
        "PUBSUB_SUBSCRIPTION",
        r"^projects/[a-z][a-z0-9.:-]{4,61}[a-z0-9]/subscriptions/[A-Za-z][A-Za-z0-9._~+%-]{2,254}$",
        "projects/PROJECT/subscriptions/NAME of a bucket's notifications; either this or Videos, not both",
    ),
    "allow_bucket": Form(
        "Further buckets",
        "Source",
        "TEXT",
        r"^(([*]|(gs://)?[a-z0-9][a-z0-9._-]+/?)(, *|$))+$",
        parted=re.compile(r", *"),
    ),
    "output": Form(
        "Dataset",
        "Dataset",
        "GCS_WRITE_FOLDER",
        rf"^{_GS}(/[^\n\r]*)?$",
        "gs:// folder of the dataset; an existing one is continued, and one job at a time writes to it",
    ),
    "profile": Form(
        "Profile",
        "Models",
        "TEXT",
        rf"^([a-z0-9][a-z0-9_-]*|{_GS}/[^\n\r]+[.]ya?ml)$",
        "a built-in profile, or the gs:// address of a FILE.yaml; default lite",
    ),
    "config": Form(
        "Configuration",
        "Models",
        "GCS_READ_FILE",
        rf"^{_GS}/[^\n\r]+$",
        "gs:// address of a YAML file; may extend a profile",
    ),
    "commercial_only": Form("Commercial use only", "Models"),
    "detector": Form("Shot detector", "Splitting", "TEXT", r"^[a-z][a-z0-9_-]*$"),
    "fast": Form("Decode faster", "Splitting"),
    "splitting": Form("Splitting rules", "Splitting", "TEXT", r"^[a-z][a-z0-9_-]*$"),
    "measure": Form("Measures", "Measures and rules", "TEXT", r"^ *[a-z][a-z0-9_]*( *, *[a-z][a-z0-9_]*)* *$"),
    "filter": Form("Rules for clips", "Measures and rules", "TEXT", _RULES, parted=_NEXT_RULE),
    "video_filter": Form("Rules for videos", "Measures and rules", "TEXT", _RULES, parted=_NEXT_RULE),
    "dedupe": Form("Mark duplicates", "Measures and rules"),
    "write_clips": Form("Clip files", "Dataset"),
    "reels": Form("Frame reels", "Dataset"),
    "limit": Form("Number of videos", "Source"),
    "poll": Form("Seconds between looks", "Source", told="from one look into Videos to the next; default 5"),
    "commit_within": Form(
        "Commit within",
        "Dataset",
        told="how many seconds a finished video may wait for others to be committed with",
    ),
}


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A parameter of a template; `name` is the flag's, with underscores.

    Attributes:
      flag: of the command. kind: name of a ParameterType. regex: that its value must match.
      options: of an ENUM. default: as text, "" for none.
    """

    name: str
    flag: str
    form: Form
    told: str
    kind: str
    regex: str
    required: bool
    options: tuple[str, ...] = ()
    default: str = ""

    def fault(self, value: str) -> str:
        """Say in a line what is wrong with a value; "" if nothing is."""
        if re.fullmatch(self.regex, value):
            return ""
        if self.options:
            return f"{self.flag} must be {' or '.join(self.options)}, not {value!r}"
        if self.regex.startswith("^gs://"):
            parts = self.form.parted.split(value) if self.form.parted else [value]
            wrong = next(one for one in parts if not re.fullmatch(self.regex, one))
            if wrong.startswith("gs://"):
                return f"{self.flag} {wrong!r} names no bucket; write gs://BUCKET/NAME"
            return f"{self.flag} must be in Cloud Storage, like gs://BUCKET/NAME, not {wrong!r}: workers see no other"
        return f"{self.flag} cannot be {value!r} ({self.told})"


@functools.cache
def parser_of(command: str) -> argparse.ArgumentParser:
    """The parser of a command's arguments, without those of Beam."""
    parser = Parser(prog=f"reelscribe {command}", add_help=False, allow_abbrev=False)
    COMMANDS[command](parser)
    return parser


@functools.cache
def parameters_of(command: str) -> tuple[Parameter, ...]:
    """The parameters of a command's template, in the order of its flags.

    Raises:
      KeyError: a flag of the command is neither in `FORMS` nor in `ABSENT`.
    """
    return tuple(_parameter(action) for action in parser_of(command)._actions if action.dest not in ABSENT)


def _parameter(action: argparse.Action) -> Parameter:
    form, flag = FORMS[action.dest], action.option_strings[-1]
    kind, regex, default = form.kind, form.regex, ""
    options: tuple[str, ...] = ()
    if isinstance(action, argparse._StoreTrueAction):
        kind, regex, default = "BOOLEAN", "^(true|false)$", "false"
    elif action.choices:
        options = tuple(str(one) for one in action.choices)
        kind, regex = "ENUM", f"^({'|'.join(options)})$"
    elif action.type in _NUMBERS:
        kind, regex = "NUMBER", _NUMBERS[action.type]
    if action.default is not None and not default:
        default = _text(action.default)
    told = form.told or str(action.help)
    told = told.replace("repeatable", "several between commas").replace("`reelscribe profiles`", "reelscribe profiles")
    # A flag that is one of several of which one is needed is not required by itself.
    return Parameter(action.dest, flag, form, told, kind, regex, bool(action.required), options, default)


def written(command: str, args: argparse.Namespace) -> dict[str, str]:
    """What a command was told, as the values of its template's parameters; what was left open is left to it.

    Raises:
      UsageError: a flag means nothing on Dataflow, or a value cannot be written between commas.
    """
    parser, parameters = parser_of(command), parameters_of(command)
    for action in parser._actions:
        # How this command logs is its own affair.
        if action.dest in ABSENT.keys() - {"log_format"} and getattr(args, action.dest) != action.default:
            raise UsageError(f"{action.option_strings[-1]} is not for Dataflow: {ABSENT[action.dest]}")
    for uri in args.input or ():
        # Each by itself: behind a comma a local path looks like the rest of an object's name.
        if fault := next(one for one in parameters if one.name == "input").fault(uri):
            raise UsageError(fault)
    values = {parameter.name: _text(getattr(args, parameter.name)) for parameter in parameters}
    found = {one.name: values[one.name] for one in parameters if values[one.name] not in ("", one.default)}
    read = parser.parse_args(arguments(parameters, found))
    for parameter in parameters:
        if getattr(read, parameter.name) != getattr(args, parameter.name):
            told = "a comma or an equals sign within a value cannot be told from one between values"
            raise UsageError(f"{parameter.flag} cannot be given to a template: {told}; write it into a --config file")
    return found


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        # Without an exponent, which the parameters' forms do not have.
        text = f"{decimal.Decimal(repr(value)):f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    if isinstance(value, list):
        return ",".join(_rule(*one) if isinstance(one, tuple) else str(one) for one in value)
    return str(value)


def _rule(column: str, said: Mapping[str, Any]) -> str:
    """A rule as its flag says it; the opposite of `filters.parsed`."""
    for key, sign in (("only", ""), ("without", "!")):
        if key in said:
            return f"{column}={sign}{','.join(map(_text, said[key]))}"
    return f"{column}={_text(said.get('min'))}..{_text(said.get('max'))}"


def arguments(parameters: Sequence[Parameter], values: Mapping[str, str]) -> list[str]:
    """What a command's parser takes, of the values of its template's parameters.

    Raises:
      UsageError: there is no such parameter, or its value cannot be meant.
    """
    known = {parameter.name: parameter for parameter in parameters}
    found: list[str] = []
    for name, value in values.items():
        if name not in known:
            raise UsageError(f"there is no parameter {name!r}; {nearest(name, list(known))}")
        if fault := known[name].fault(value):
            raise UsageError(fault)
        found += _flags(known[name], value)
    return found


def _flags(parameter: Parameter, value: str) -> Iterator[str]:
    if parameter.kind == "BOOLEAN":
        yield from [parameter.flag] if value == "true" else []
    elif parameter.form.parted:
        yield from (f"{parameter.flag}={one}" for one in parameter.form.parted.split(value))
    else:
        yield f"{parameter.flag}={value}"
