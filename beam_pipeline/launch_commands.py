"""The command `launch`: everything is checked on this machine first, then a template becomes a job of Dataflow.

reelscribe launch curate --template gs://B/templates/reelscribe-curate.json --project P --region R
    --input gs://uploads/ --output gs://datasets/talks --temp_location gs://B/temp --max_num_workers 20
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from beam_pipeline.job_arguments import changes_of
from beam_pipeline.template_parameters import ABSENT, COMMANDS, written
from beam_pipeline.usage import Parser, UsageError, complain, flags_of, load_config_of

if TYPE_CHECKING:
    from beam_pipeline.config import Config
    from beam_pipeline.launch_request import Options

Command = Callable[..., argparse.ArgumentParser]
_SUMMARY = "launch a job of Dataflow from the template of a command"
_PROJECT = re.compile(r"([a-z][a-z0-9.-]*:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")
_REGION = re.compile(r"[a-z]+-[a-z]+[0-9]+")
_SPEC = re.compile(r"gs://[^/\s]+/[^\s]+[.]json")
_CONFIG_BYTES = 1 << 20
_BEAMS = "Any option of Apache Beam for Dataflow may follow, such as --max_num_workers=20."


def add_to(command: Command) -> None:
    """Add the command; `command` is called as (name, run, summary, takes_beam_flags)."""
    launching = command("launch", _launch, _SUMMARY, takes_beam_flags=True)
    kinds = launching.add_subparsers(dest="launched", metavar="COMMAND", required=True, parser_class=Parser)
    for name, add_arguments in COMMANDS.items():
        kind = kinds.add_parser(name, help=f"a job of `{name}`", allow_abbrev=False, epilog=_BEAMS)
        kind.add_argument("--verbose", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        add_arguments(kind)
        for action in kind._actions:
            if action.dest in ABSENT.keys() - {"log_format"}:
                action.help = argparse.SUPPRESS
        _own_arguments(kind, name)
        kind.set_defaults(parser=kind)


def _own_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    add = parser.add_argument
    template = f"gs://BUCKET/templates/reelscribe-{command}.json"
    add("--template", required=True, metavar="GS", help=f"the template's specification, like {template}")
    add("--project", required=True, metavar="P", help="the project that the job runs in")
    add("--region", required=True, metavar="R", help="and the region, like us-central1")
    add("--job-name", "--job_name", metavar="NAME", help="default: of the command, the dataset's folder and the time")
    add("--launcher-machine-type", metavar="TYPE", help="machine that builds the job graph (the service's default)")
    add(
        "--dry-run",
        "--dry_run",
        action="store_true",
        help="check everything, print the request as JSON, launch nothing",
    )
    add("--wait", action="store_true", help="follow the job until it ends; exit 1 if it fails")
    if command == "watch":
        add("--update", action="store_true", help="replace the running job of --job-name by this one")
        add(
            "--transform-name-mapping",
            "--transform_name_mapping",
            type=_mapping,
            default={},
            metavar="JSON",
            help='with --update: steps that have another name now, like {"old": "new"}',
        )


def _mapping(text: str) -> dict[str, str]:
    """A JSON object of texts."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(one, str) for one in found.values()):
        raise argparse.ArgumentTypeError(f'{text!r} is no mapping; write {{"old": "new"}}')
    return found


@dataclasses.dataclass(frozen=True)
class _Config:
    """A local configuration, to be uploaded: its content, and where to."""

    content: bytes
    uri: str


def _launch(args: argparse.Namespace, commands: dict[str, argparse.ArgumentParser]) -> int:
    from beam_pipeline import launching
    from beam_pipeline.launch_request import as_json, read_options, request_of
    from transforms.dataflow_jobs import DataflowError, NoCredentials
    from transforms.lease import LeaseHeld
    from transforms.objects import Refused, StorageError

    command = args.launched
    _check_places(args)
    options = read_options(args.beam_flags, f"launch {command}", flags_of(args.parser))
    _check_contradictions(args, options)
    try:
        config = _checked_config(args, options)
        request = request_of(_described(args, command), options)
        if args.dry_run:
            print(as_json(request))
            return 0
        if not getattr(args, "update", False):
            _check_free(args.output)
        if config:
            launching.put(config.content, config.uri)
        launched = launching.launch(request, options.endpoint)
    except (NoCredentials, Refused, FileNotFoundError) as error:
        raise UsageError(str(error)) from error
    except (DataflowError, StorageError, LeaseHeld) as error:
        return complain(str(error), 1)
    print("\n".join(launching.told(launched)), flush=True)
    return _followed(launched, options) if args.wait else 0


def _followed(launched: Any, options: Options) -> int:
    from beam_pipeline import launching
    from transforms.dataflow_jobs import DataflowError

    goes_on = "the job goes on; to stop it:"
    try:
        state = launching.follow(launched, options.endpoint, lambda line: print(line, flush=True), launching.POLL_S)
    except KeyboardInterrupt:
        complain("\n".join([f"no longer waiting, {goes_on}", *launching.stopping(launched)]), 130)
        return 130
    except DataflowError as error:
        return complain("\n".join([f"{error}; {goes_on}", *launching.stopping(launched)]), 1)
    if state in launching.DONE:
        return 0
    ended = state.removeprefix("JOB_STATE_").lower()
    return complain(f"the job ended {ended}; what is committed stands, and why it ended: {launched.console}", 1)


def _described(args: argparse.Namespace, command: str) -> Any:
    from beam_pipeline.launch_request import Launch, check_job_name, job_name_of

    now = datetime.datetime.now(datetime.UTC)
    return Launch(
        project=args.project,
        region=args.region,
        job_name=check_job_name(args.job_name or job_name_of(command, args.output, now)),
        template=args.template,
        parameters={"command": command, **written(command, args)},
        update=getattr(args, "update", False),
        renamed=getattr(args, "transform_name_mapping", {}),
        launcher_machine_type=args.launcher_machine_type or "",
    )


def _check_free(output: str) -> None:
    """Raise `LeaseHeld` if somebody writes to the dataset; where we may not look, the launcher with its rights does."""
    from transforms.lease import check_free, read_lease
    from transforms.objects import Refused, StorageError

    try:
        held = read_lease(output)
    except (StorageError, Refused, FileNotFoundError):
        return
    check_free(output, held)


def _check_places(args: argparse.Namespace) -> None:
    for flag, value, form, example in (
        ("--project", args.project, _PROJECT, "the id of a project, like my-project"),
        ("--region", args.region, _REGION, "a region, like us-central1"),
        ("--template", args.template, _SPEC, f"like gs://BUCKET/templates/reelscribe-{args.launched}.json"),
    ):
        if not form.fullmatch(value):
            raise UsageError(f"{flag} must be {example}, not {value!r}")
    # Before the configuration, whose check may take a while; a local configuration is no parameter yet.
    read = argparse.Namespace(**vars(args))
    read.config = read.profile = None
    written(args.launched, read)


def _check_contradictions(args: argparse.Namespace, options: Options) -> None:
    streaming = args.launched == "watch"
    if streaming and "flexrs_goal" in options.fields:
        raise UsageError("--flexrs_goal is for batch: FlexRS delays a job, and a watch runs all the time")
    if not streaming and options.fields.get("enable_streaming_engine"):
        raise UsageError("--enable_streaming_engine is for watch; curate is batch")
    if not streaming:
        return
    if args.subscription and args.poll is not None:
        raise UsageError("--poll is for --input: a --subscription tells of uploads by itself")
    if args.update and not args.job_name:
        raise UsageError("--update needs the --job-name of the job that is to be replaced")
    if args.transform_name_mapping and not args.update:
        raise UsageError("--transform-name-mapping is for --update")


def _checked_config(args: argparse.Namespace, options: Options) -> _Config | None:
    """Load the configuration as the job will; a local file is to be uploaded, and `args` name its address then.

    Raises:
      UsageError: it cannot be meant, or there is no place to upload it to.
    """
    if args.profile and not args.config and args.profile.endswith((".yaml", ".yml")):
        args.profile, args.config = None, args.profile
    if not args.config:
        _check_workers(args, load_config_of(args, changes_of(args)))
        return None
    if args.config.startswith("gs://"):
        if args.dry_run:
            _warn(f"{args.config} was not looked into, as --dry-run needs no network")
        else:
            _load(args, _fetched(args.config))
        return None
    try:
        with open(args.config, "rb") as file:
            content = file.read(_CONFIG_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read the configuration {args.config}: {error.strerror}") from error
    if len(content) > _CONFIG_BYTES:
        raise UsageError(f"{args.config} is larger than {_CONFIG_BYTES >> 20} MiB; that is no configuration")
    _load(args, content)
    temporary = options.fields.get("temp_location")
    if not temporary:
        raise UsageError(
            f"--temp_location gs://BUCKET/FOLDER is needed to put {args.config} where the launcher sees it"
        )
    from beam_pipeline.launching import place_of

    config = _Config(content, place_of(content, temporary))
    args.config = config.uri
    return config


def _fetched(uri: str) -> bytes:
    from transforms.objects import read_bytes, stat

    version = stat(uri)
    if version is None:
        raise UsageError(f"there is no {uri}")
    try:
        return read_bytes(uri, version.generation, _CONFIG_BYTES)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _load(args: argparse.Namespace, content: bytes) -> None:
    """Check a configuration; what it says of this machine's folders is told, since it is meant for the images."""
    with _as_file(content) as path:
        named = argparse.Namespace(**{**vars(args), "config": path})
        local = sorted(_paths_in(content))
        try:
            config = load_config_of(named, changes_of(args))
        except UsageError as error:
            message = str(error).replace(path, args.config)
            absent = [one for one in local if one in message and not os.path.exists(one)]
            unasked = args.dry_run and "no credentials" in message
            if not absent and not unasked:
                raise UsageError(message) from error
            _warn(f"{args.config} could not be checked to its end here: {message}")
        else:
            _check_workers(args, config)
    for one in local:
        _warn(f"{args.config} names {one}: the template's images must hold it under this name")


def _check_workers(args: argparse.Namespace, config: Config) -> None:
    """Raise a `UsageError` where Beam's flags contradict the configuration: the launcher would find out too late."""
    from beam_pipeline.job_commands import needed_flags

    needed_flags(args.beam_flags, config, args.launched)


@contextlib.contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        file.write(content)
        file.flush()
        yield file.name


def _paths_in(content: bytes) -> set[str]:
    """What a configuration names of a machine: absolute paths, and relative ones that are here."""
    import yaml

    from model_handlers.inert_yaml import read_inert

    def texts(value: Any) -> Iterator[str]:
        if isinstance(value, Mapping):
            for one in value.values():
                yield from texts(one)
        elif isinstance(value, list):
            for one in value:
                yield from texts(one)
        elif isinstance(value, str) and "\n" not in value:
            yield value

    try:
        found = set(texts(read_inert(content.decode())))
    except (yaml.YAMLError, UnicodeDecodeError):
        return set()  # To be told by whoever loads it.
    return {one for one in found if one.startswith(("/", "~/")) or ("/" in one and os.path.exists(one))}


def _warn(message: str) -> None:
    print(f"reelscribe: note: {message}", file=sys.stderr)
