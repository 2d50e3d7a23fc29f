"""Bad usage in one line with the nearest right word: what every command's arguments share.

parser = Parser(prog="reelscribe"); parser.add_argument("--limit", type=positive)
"""

from __future__ import annotations

import argparse
import datetime
import difflib
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from model_handlers.nearest import nearest
from transforms.allowed import bucket_of
from transforms.files import check_folder, list_files
from transforms.objects import NoCredentials, Refused, is_object

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

    from beam_pipeline.config import Config

#: Tried with Beam 2.77 and dask 2026.8; see docs/runners.md.
_DASK = (
    "Beam's Dask runner loses results without a word (batches, files, tagged outputs); leave --runner out, or see "
    "docs/runners.md"
)
_LONGEST = datetime.timedelta(days=36525)


class UsageError(ValueError):
    """A mistake in the command line or the configuration: one line, exit status 2."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line and name the nearest right word."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(message)


def positive(text: str) -> int:
    """A whole number from 1 up."""
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 up")
    return int(text)


def whole(text: str) -> int:
    """A whole number from 0 up."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 up")
    return int(text)


def score(text: str) -> float:
    """A matching score: any finite number."""
    value = _number(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def _number(text: str) -> float:
    """What a text says, not-a-number where it says none: that is within no bounds."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def names(text: str) -> list[str]:
    """Names between commas, at least one."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise argparse.ArgumentTypeError("needs names, with commas between them")
    return found


def check_words(arguments: Sequence[str], commands: dict[str, argparse.ArgumentParser]) -> None:
    """Check the word that chooses a command, and the one after it where the command has several kinds.

    Raises:
      UsageError: it is missing, or none of those known; the nearest one is named.
    """
    words = [word for word in arguments if not word.startswith("-")]
    asked = bool({"-h", "--help", "--version"} & set(arguments))
    _check_word("command", words[:1], list(commands), asked)
    kinds = commands[words[0]].get_default("kinds") if words else None
    if kinds:
        _check_word(commands[words[0]].get_default("noun") or "evaluation", words[1:2], kinds, asked)


def _check_word(what: str, words: Sequence[str], known: Sequence[str], asked: bool) -> None:
    if not words and not asked:
        raise UsageError(f"which {what}? {', '.join(known)} (see reelscribe --help)")
    if words and words[0] not in known:
        near = difflib.get_close_matches(words[0], known, n=1, cutoff=0.0)[0]
        raise UsageError(f"there is no {what} {words[0]!r}; did you mean {near!r}?")


def flags_of(parser: argparse.ArgumentParser) -> list[str]:
    """All flags that the parser knows."""
    return [flag for action in parser._actions for flag in action.option_strings]


def unknown_flag(flag: str, command: str, own: Sequence[str], beams: Sequence[str] = ()) -> str:
    """Say that a flag is none of those known, and which was probably meant: a command's own, else one of Beam's.

    Beam has hundreds: one of them is near whatever was written, so it must be nearer than one of ours.
    """
    name = flag.partition("=")[0]
    near = difflib.get_close_matches(name, own, n=1, cutoff=0.6)
    near = near or difflib.get_close_matches(name, beams, n=1, cutoff=0.8)
    advice = f"did you mean {near[0]!r}?" if near else f"see reelscribe {command} --help"
    return f"unknown argument {flag!r}; {advice}"


def complain(message: str, status: int) -> int:
    """Say what is wrong, in a line; return the exit status."""
    print(f"reelscribe: {message}", file=sys.stderr)
    return status


def duration(text: str) -> datetime.timedelta:
    """A stretch of time, at most a hundred years: 90s, 30m, 2h or 7d."""
    found = re.fullmatch(r"(\d+)([smhd])", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no stretch of time; write it like 90s, 30m, 2h or 7d")
    number, unit_s = int(found[1]), {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]
    if number * unit_s > _LONGEST.total_seconds():
        raise argparse.ArgumentTypeError(f"{text!r} is longer than a hundred years")
    return datetime.timedelta(seconds=number * unit_s)


def link_time(text: str) -> datetime.timedelta:
    """How long signed links hold: at most 7 days."""
    lasting = duration(text)
    if not datetime.timedelta(0) < lasting <= datetime.timedelta(days=7):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time up to 7d, for which links can be signed")
    return lasting


def seconds(text: str) -> float:
    """A number of seconds, above 0."""
    value = _number(text)
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def bucket(text: str) -> str:
    """A bucket's name, with or without gs:// before it; or * for any."""
    try:
        return bucket_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_allow_bucket(parser: argparse.ArgumentParser) -> None:
    """Add --allow-bucket, of every command that reads manifests or notifications."""
    told = "read gs://BUCKET, too, where a manifest or a notification names it; repeatable; * for any"
    parser.add_argument("--allow-bucket", type=bucket, action="append", metavar="BUCKET", help=told)


def dataset_folder(text: str) -> str:
    """Return the DIR of a dataset: a directory, or a folder in a bucket that can be reached.

    Raises:
      UsageError: it is neither, there is no such bucket, or it is closed to us.
      StorageError: Cloud Storage cannot be asked now.
    """
    try:
        folder = check_folder(text)
        if is_object(folder):
            list_files(folder)
        return folder
    except (ValueError, FileNotFoundError, Refused, NoCredentials) as error:
        raise UsageError(str(error)) from error


def check_beam_flags(flags: Sequence[str], command: str, own: Sequence[str]) -> None:
    """Refuse what neither the command nor Beam knows: Beam itself would drop it without a word."""
    beams = beam_parser()
    try:
        _, unknown = beams.parse_known_args(list(flags))
    except json.JSONDecodeError as error:  # Of a value that Beam itself reads, and not its parser.
        raise UsageError(f"a value among {' '.join(flags)} is not what Apache Beam takes: {error}") from error
    if unknown:
        raise UsageError(unknown_flag(unknown[0], command, own, flags_of(beams)))


def beam_parser() -> argparse.ArgumentParser:
    """A parser of all options that Beam has."""
    from apache_beam.options.pipeline_options import PipelineOptions

    beams = Parser(add_help=False, allow_abbrev=False, conflict_handler="resolve")
    for options in PipelineOptions.__subclasses__():
        options._add_argparse_args(beams)  # type: ignore[arg-type]
    return beams


def check_runner(options: PipelineOptions) -> None:
    """Refuse a runner that does not exist, that lacks an option, or that loses results; asks no service.

    Args:
      options: are changed by it; give it some of its own.

    Raises:
      UsageError: with what Beam says of it.
    """
    from apache_beam.options.pipeline_options import GoogleCloudOptions, StandardOptions, TestOptions
    from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
    from apache_beam.runners.runner import create_runner

    name = str(options.view_as(StandardOptions).runner)
    known = StandardOptions.KNOWN_RUNNER_NAMES
    if "dask" in name.lower():
        raise UsageError(_DASK)
    try:
        runner = create_runner(name)
    except ImportError as error:
        if "dataflow" in name.lower():
            raise UsageError(f"{name} is not installed; run: pip install 'reelscribe[gcp]'") from error
        raise UsageError(f"--runner {name} cannot be loaded: {_one_line(error)}") from error
    except (AttributeError, TypeError, ValueError) as error:
        if "." in name or name.lower() in map(str.lower, known):
            raise UsageError(f"--runner {name} cannot be loaded: {_one_line(error)}") from error
        raise UsageError(f"there is no runner {name!r}; {nearest(name, known)}") from error
    if any("dask" in kind.__name__.lower() for kind in type(runner).__mro__):
        raise UsageError(_DASK)
    _check_environment(options, type(runner).__name__)
    validator, cloud = PipelineOptionsValidator(options, runner), options.view_as(GoogleCloudOptions)
    options.view_as(TestOptions).dry_run = True  # Or it looks into the buckets.
    if cloud.project and validator.is_service_runner():
        # Without a place that it can use Beam makes a bucket, which is for the job to do.
        for place in ("temp_location", "staging_location"):
            if validator.validate_gcs_path(cloud, place):
                setattr(cloud, place, "gs://made-by-beam/")
    if faults := validator.validate():
        raise UsageError(f"{name} cannot run this: {'; '.join(_one_line(fault).rstrip('.') for fault in faults)}")


def _check_environment(options: PipelineOptions, runner: str) -> None:
    """Refuse workers that cannot start, as far as Beam's own options tell: it would say so in a hundred lines."""
    from apache_beam.options.pipeline_options import PortableOptions, WorkerOptions

    portable = options.view_as(PortableOptions)
    kind = (portable.environment_type or "DOCKER").upper()
    if runner != "PortableRunner":
        return
    if kind == "PROCESS" and portable.job_endpoint in (None, "embed"):
        raise UsageError("the job server inside this process starts no PROCESS; take --environment_type=LOOPBACK")
    image = (
        portable.environment_config
        or portable.lookup_environment_option("docker_container_image")
        or options.view_as(WorkerOptions).sdk_container_image
    )
    if kind == "DOCKER" and not image:
        raise UsageError(
            "workers would start in Beam's own image, which lacks reelscribe; name one that has it with "
            "--sdk_container_image, or take --environment_type=LOOPBACK"
        )


def _one_line(told: object) -> str:
    return " ".join(str(told).split())


def load_config_of(args: argparse.Namespace, changes: Mapping[str, Mapping[str, Any]] | None = None) -> Config:
    """The configuration that --profile, --config and --commercial-only ask for; with changes, by section."""
    from beam_pipeline.config import ConfigError, load_config

    try:
        commercial_only = getattr(args, "commercial_only", False)
        return load_config(args.profile, args.config, changes, commercial_only=commercial_only)
    except ConfigError as error:
        raise UsageError(str(error)) from error
