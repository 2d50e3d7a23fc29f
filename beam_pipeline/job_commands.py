"""The commands that write a dataset (`curate`, `watch`, `redrive`), and how their errors are told."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from beam_pipeline.job_arguments import (
    POLL_S,
    SETTLE_S,
    changes_of,
    changes_of_files,
    curate_arguments,
    redrive_arguments,
    watch_arguments,
)
from beam_pipeline.usage import (
    UsageError,
    check_beam_flags,
    check_runner,
    complain,
    dataset_folder,
    flags_of,
    load_config_of,
)

if TYPE_CHECKING:
    from beam_pipeline.config import Config
    from beam_pipeline.job import JobOptions, Summary
    from beam_pipeline.redriving import Redriven
    from beam_pipeline.streaming import Uploads

Command = Callable[..., argparse.ArgumentParser]


def add_to(command: Command) -> None:
    """Add the commands; `command` is called as (name, run, summary, takes_beam_flags)."""
    curate_arguments(command("curate", _curate, "turn videos into a dataset", takes_beam_flags=True))
    watch_arguments(command("watch", _watch, "the same as videos come, until it is stopped", takes_beam_flags=True))
    redrive_arguments(command("redrive", _redrive, "run again just what failed", takes_beam_flags=True))


def _curate(args: argparse.Namespace, commands: dict[str, argparse.ArgumentParser]) -> int:
    from beam_pipeline.curating import curate

    with _told() as outcome:
        config, options = _prepared(args, commands)
        with _observed(args, options) as options:
            summary = curate(args.input, args.output, config, options)
        outcome.status = _summarise(summary, args)
    return outcome.status


@contextlib.contextmanager
def _observed(args: argparse.Namespace, options: JobOptions) -> Iterator[JobOptions]:
    """Serve metrics of the job meanwhile, if that was asked for."""
    if args.metrics_port is None:
        if args.metrics_host is not None:
            raise UsageError("--metrics-host needs --metrics-port")
        yield options
        return
    from beam_pipeline.exposition import LOCAL, exposed

    with exposed(args.metrics_port, args.metrics_host or LOCAL) as board:
        print(f"metrics at {board.url}", file=sys.stderr, flush=True)
        yield dataclasses.replace(options, observer=board.follow)


def _redrive(args: argparse.Namespace, commands: dict[str, argparse.ArgumentParser]) -> int:
    from beam_pipeline.config import ConfigError
    from beam_pipeline.redriving import find_failed, last_config, redrive
    from transforms.recalling import Retry
    from transforms.tables import open_table

    age = datetime.datetime.now(datetime.UTC) - args.older_than if args.older_than else None
    of_stages, classes = (frozenset(one) if one else None for one in (args.stage, args.classes))
    retry = Retry(of_stages, classes, age, args.max_attempts)
    with _told() as outcome:
        args.output = dataset_folder(args.output)
        open_table(args.output, "videos")  # Or a configuration would be asked for first.
        try:
            files = changes_of_files(args)
            named = args.profile or args.config
            config = load_config_of(args, files) if named else last_config(args.output, files)
        except ConfigError as error:
            raise UsageError(str(error)) from error
        _, options = _prepared(args, commands, config)
        if args.dry_run:
            print(_describe(find_failed(args.output, retry, options.allow_buckets), args))
            return outcome.status
        redriven, summary = redrive(args.output, retry, options, config)
        print(_describe(redriven, args))
        outcome.status = _summarise(summary, args)
    return outcome.status


def _describe(redriven: Redriven, args: argparse.Namespace) -> str:
    """What --limit leaves of a redrive; where that is nothing, which classes there are to choose from."""
    from transforms.tables import read_table

    taken = {source.video_id for source in redriven.sources[: args.limit]} | set(redriven.out_of_reach)
    letters = tuple(one for one in redriven.letters if one.video_id in taken)
    told = dataclasses.replace(redriven, letters=letters).describe()
    if letters:
        return told
    there = sorted(set(read_table(args.output, "failures", ["error_class"])["error_class"].to_pylist()))
    return f"{told}\nthe failures there are of class {', '.join(there)}" if there else told


def _watch(args: argparse.Namespace, commands: dict[str, argparse.ArgumentParser]) -> int:
    from beam_pipeline.feeds import FolderFeed
    from beam_pipeline.job import describe, is_embedded
    from beam_pipeline.subscription_feed import SubscriptionFeed
    from beam_pipeline.watching import WatchOptions, watch

    stop = threading.Event()
    with _told() as outcome, contextlib.ExitStack() as until_stopped:
        if args.subscription:
            of_folders = {"--poll": args.poll, "--settle": args.settle, "--marker": args.marker}
            if given := [flag for flag, value in of_folders.items() if value is not None]:
                raise UsageError(f"{given[0]} is for --input: a --subscription tells of uploads when they are whole")
        config, options = _prepared(args, commands)
        options = until_stopped.enter_context(_observed(args, options))
        if not is_embedded(options):
            print("\n".join(describe(_stream(args, config, options, stop))))
            return outcome.status
        feed = (
            SubscriptionFeed(args.subscription, allowed=options.allow_buckets)
            if args.subscription
            else FolderFeed(
                args.input,
                poll_s=args.poll or POLL_S,
                settle_s=args.settle or SETTLE_S,
                marker=args.marker or "",
                allowed=options.allow_buckets,
            )
        )
        how = WatchOptions(
            at_once=args.at_once,
            round_videos=args.round_videos,
            quiet_s=args.quiet,
            idle_exit_s=args.idle_exit,
        )
        _stop_politely(stop)
        for summary in watch(feed, args.output, config, options, how, stop):
            print("\n".join(describe(summary)), flush=True)
    return outcome.status


def _stream(args: argparse.Namespace, config: Config, options: JobOptions, stop: threading.Event) -> Summary:
    """Watch as one pipeline, on a runner that can stream."""
    from beam_pipeline.streaming import stream

    uploads = uploads_of(args)
    _stop_politely(stop)
    return stream(
        uploads, args.output, config, options, stop, commit_within_s=args.commit_within, idle_exit_s=args.idle_exit
    )


def uploads_of(args: argparse.Namespace) -> Uploads:
    """What a `watch` on a runner that can stream is told of."""
    from beam_pipeline.streaming import Uploads

    patterns, allowed = tuple(args.input or ()), tuple(args.allow_bucket or ())
    return Uploads(args.subscription, patterns, args.poll or POLL_S, allowed)


def _stop_politely(stop: threading.Event) -> None:
    """Let the first signal finish what is under way, and the second one end it all."""
    terminal = sys.stderr  # By the time of the signal it is kept from the workers, and from us.
    told = "reelscribe: stopping: what is under way is finished and committed; once more ends it now"

    def once(number: int, frame: Any) -> None:
        stop.set()
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, signal.default_int_handler)
        with contextlib.suppress(RuntimeError):  # It came amidst another line, which cannot be told twice at once.
            print(told, file=terminal, flush=True)

    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, once)


def _prepared(
    args: argparse.Namespace, commands: dict[str, argparse.ArgumentParser], config: Config | None = None
) -> tuple[Config, JobOptions]:
    """Check what was asked for before any work."""
    from beam_pipeline.job import is_embedded, pipeline_options
    from transforms.detection import check_installed

    check_beam_flags(args.beam_flags, args.command, flags_of(commands[args.command]))
    check_runner(pipeline_options(args.beam_flags))
    if config is None:
        config = load_config_of(args, changes_of(args))
    args.output = dataset_folder(args.output)
    args.beam_flags = shaped(args.beam_flags, config, args.command)
    options = job_options(args)
    if is_embedded(options):
        check_installed(config.splitting)
    # A scheduler's polite stop is an interrupt like any other.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return config, options


def shaped(flags: Sequence[str], config: Config, command: str) -> list[str]:
    """Beam's flags with those that the workers of a job on Dataflow need; on other runners just as they are.

    Raises:
      UsageError: flags and configuration contradict each other.
    """
    from beam_pipeline.job import is_dataflow, pipeline_options

    return [*flags, *needed_flags(flags, config, command)] if is_dataflow(pipeline_options(flags)) else list(flags)


def needed_flags(flags: Sequence[str], config: Config, command: str) -> tuple[str, ...]:
    """What a job on Dataflow needs beside the flags that were given; what is worth knowing of it is told.

    Raises:
      UsageError: flags and configuration contradict each other.
    """
    from beam_pipeline.worker_shape import remarks, worker_flags

    try:
        needed = worker_flags(config, streaming=command == "watch", given=flags)
    except ValueError as error:
        raise UsageError(str(error)) from error
    for remark in remarks(config, flags):
        complain(remark, 0)
    return needed


def job_options(args: argparse.Namespace) -> JobOptions:
    """How a job is to run, as its command was told; `beam_flags` are the whole of Beam's."""
    from beam_pipeline.job import JobOptions

    return JobOptions(
        chunk_videos=getattr(args, "chunk_videos", JobOptions.chunk_videos),
        limit=getattr(args, "limit", None),
        keep_reels=getattr(args, "reels", "keep") == "keep",
        beam_flags=tuple(args.beam_flags),
        allow_buckets=tuple(args.allow_bucket or ()),
    )


class _Outcome:
    status = 0


@contextlib.contextmanager
def _told() -> Iterator[_Outcome]:
    """Tell what stops a command in a line, and leave the exit status that belongs to it."""
    from beam_pipeline.runs import root_cause
    from transforms.lease import LeaseHeld
    from transforms.objects import NoCredentials
    from transforms.reading import InputError
    from transforms.subscriptions import SubscriptionError
    from transforms.tables import NoDataset, OutputError
    from transforms.tombstones import TombstoneError

    outcome = _Outcome()
    try:
        yield outcome
    except (UsageError, ModuleNotFoundError):
        raise
    except (InputError, OutputError, SubscriptionError, NoCredentials) as error:
        raise UsageError(str(error)) from error
    except ImportError as error:
        if not (error.name or "").startswith("google."):
            raise
        raise UsageError(f"{' '.join(str(error).split())}; run: pip install 'reelscribe[gcp]'") from error
    except (LeaseHeld, NoDataset, TombstoneError) as error:
        outcome.status = complain(str(error), 1)
    except Exception as error:
        stands = "what is committed stands, and the same command goes on (--verbose tells more)"
        logging.getLogger(__name__).info("the job failed", exc_info=True)
        outcome.status = complain(f"the job failed: {root_cause(error)}; {stands}", 1)


def _summarise(summary: Summary, args: argparse.Namespace) -> int:
    from beam_pipeline.job import describe

    print("\n".join(describe(summary)))
    if summary.failed_fraction > args.max_failed_fraction:
        return complain(
            f"{summary.failed_fraction:.0%} of this run's videos failed, more than --max-failed-fraction allows; "
            f"see the failures: reelscribe report {args.output}",
            1,
        )
    return 0
