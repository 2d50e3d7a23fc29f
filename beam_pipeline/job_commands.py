"""The commands that write a dataset (`curate`, `watch`, `redrive`): their arguments, and how their errors are told."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from beam_pipeline import logs
from beam_pipeline.usage import (
    UsageError,
    check_beam_flags,
    check_runner,
    complain,
    dataset_folder,
    duration,
    flags_of,
    fraction,
    load_config_of,
    names,
    positive,
    seconds,
)
from model_handlers.nearest import nearest
from transforms.clip_settings import MODES

if TYPE_CHECKING:
    from beam_pipeline.config import Config
    from beam_pipeline.job import JobOptions, Summary
    from beam_pipeline.redriving import Redriven

COMMERCIAL = "refuse models whose licence restricts what their captions may be used for"
DETECTORS = "content, adaptive, hash, histogram or transnet"
WRITE_CLIPS = "write each clip to a file of its own, below DIR/media: copy the stream where that is exact, or encode"
DEDUPE = "mark clips that look like those of other videos, and copies of videos (the embedder's own threshold)"
FILTER = "keep clips whose COLUMN is MIN..MAX, A,B or !A,B, like blur=..0.6; the others go to rejected; repeatable"
VIDEO_FILTER = "likewise of whole videos, before they are split, like height=480.. or duration_s=..7200; repeatable"
FAST = "decode without the codec's loop filter: quicker, but a cut may be missed or moved"

#: What a dead letter's stage may be.
STAGES = ("read", "split", "hear", "embed", "caption", "score", "select", "measure", "clean", "media", "run")

Command = Callable[..., argparse.ArgumentParser]
_BEAMS = "Any option of Apache Beam may follow, such as --direct_num_workers=4."
_POLL_S, _SETTLE_S = 5.0, 10.0
_COMMIT_WITHIN = "how long a finished video may wait for others to be committed with, on a --runner that streams (30)"


def add_to(command: Command) -> None:
    """Add the commands; `command` is called as (name, run, summary, takes_beam_flags)."""
    curating = command("curate", _curate, "turn videos into a dataset", takes_beam_flags=True)
    curating.add_argument(
        "--input", nargs="+", action="extend", required=True, metavar="SRC", help="files, directories, globs, manifests"
    )
    _dataset_arguments(curating)
    curating.add_argument("--limit", type=positive, metavar="N", help="take only the first N inputs")
    _chunks(curating)
    _metrics(curating)

    watching = command("watch", _watch, "the same as videos come, until it is stopped", takes_beam_flags=True)
    add = watching.add_argument
    which = watching.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--input", nargs="+", action="extend", metavar="SRC", help="directories, globs, gs:// folders to look into"
    )
    which.add_argument("--subscription", metavar="SUB", help="projects/P/subscriptions/S of a bucket's notifications")
    _dataset_arguments(watching)
    add("--poll", type=seconds, metavar="SECONDS", help="from one look into --input to the next (5)")
    add("--settle", type=seconds, metavar="SECONDS", help="a file counts when steady for so long (10)")
    add("--marker", metavar="SUFFIX", help="a file counts when FILE.SUFFIX stands beside it, and not before")
    add("--at-once", type=positive, default=2, metavar="N", help="rounds beside each other (2)")
    add("--round-videos", type=positive, default=8, metavar="N", help="videos a round at the most (8)")
    add("--quiet", type=seconds, default=60.0, metavar="SECONDS", help="finish the dataset when quiet for so long (60)")
    add("--idle-exit", type=seconds, metavar="SECONDS", help="end when nothing came for so long (default: never)")
    add("--commit-within", type=seconds, default=30.0, metavar="SECONDS", help=_COMMIT_WITHIN)

    _metrics(watching)

    redriving = command("redrive", _redrive, "run again just what failed", takes_beam_flags=True)
    add = redriving.add_argument
    add("output", metavar="DIR", help="the dataset")
    add("--stage", type=stages, metavar="A,B", help=", ".join(STAGES[:-1]) + " or run (it stopped a whole job)")
    add("--class", type=names, dest="classes", metavar="A,B", help="classes of errors, as the failures name them")
    add("--older-than", type=duration, metavar="TIME", help="failed so long ago: 90s, 30m, 2h, 7d")
    add("--max-attempts", type=positive, metavar="N", help="leave what failed N times already")
    add("--dry-run", action="store_true", help="say what would be run again, and do nothing")
    add("--limit", type=positive, metavar="N", help="take only N videos")
    _config_arguments(redriving, "the last run's")
    _clip_files(redriving)
    _chunks(redriving)


def _dataset_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--output", required=True, metavar="DIR", help="the dataset; an existing one is continued")
    _config_arguments(parser, "lite")
    add("--detector", help=f"shot detector: {DETECTORS}")
    add("--fast", action="store_true", help=FAST)
    add("--splitting", metavar="RULES", help="splitting rules: panda70m, paper or released")
    add("--reels", choices=["keep", "drop"], default="keep", help="keep the frame reels (the report shows them) or not")
    _measures(parser)
    _clip_files(parser)


def _clip_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--write-clips", choices=MODES, help=WRITE_CLIPS)
    parser.add_argument("--dedupe", action="store_true", help=DEDUPE)


def _measures(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--measure", type=names, action="extend", metavar="A,B", help="fill the columns of these measures; or all")
    add("--filter", type=rule, action="append", metavar="RULE", help=FILTER)
    add("--video-filter", type=rule, action="append", metavar="RULE", help=VIDEO_FILTER)


def _asked_of_rules(args: argparse.Namespace) -> dict[str, Any]:
    """What --filter and --video-filter change of a configuration."""
    from beam_pipeline.filters import together

    try:
        return {"filters": together(args.filter or ()), "video_filters": together(args.video_filter or ())}
    except ValueError as error:
        raise UsageError(str(error)) from error


def rule(text: str) -> tuple[str, dict[str, Any]]:
    """A rule that clips must keep to, like blur=..0.6."""
    from beam_pipeline.filters import parsed

    try:
        return parsed(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _config_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    add = parser.add_argument
    add("--profile", help=f"a built-in profile (default {default}; see `reelscribe profiles`), or a FILE.yaml")
    add("--config", metavar="FILE.yaml", help="a configuration; may extend a profile")
    add("--commercial-only", action="store_true", help=COMMERCIAL)
    logs.add_argument(parser)
    parser.epilog = _BEAMS


def _asked_of_files(args: argparse.Namespace) -> dict[str, Any]:
    """What --write-clips and --dedupe change of a configuration."""
    files = {"write_clips": {"mode": args.write_clips}} if args.write_clips else {}
    # A threshold that the configuration names stays.
    return {**files, "duplicates": {}} if args.dedupe else files


def stages(text: str) -> list[str]:
    """Stages of dead letters, between commas."""
    found = names(text)
    unknown = [name for name in found if name not in STAGES]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no stage {unknown[0]!r}; {nearest(unknown[0], STAGES)}")
    return found


def port(text: str) -> int:
    """A number of a TCP port; 0 stands for any that is free."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def _metrics(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--metrics-port", type=port, metavar="PORT", help="serve metrics for Prometheus there (0: any free port)")
    add("--metrics-host", metavar="HOST", help="and at this address (127.0.0.1)")


def _chunks(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--chunk-videos", type=positive, default=32, metavar="N", help="videos committed together (default 32)")
    add("--max-failed-fraction", type=fraction, default=0.5, metavar="X", help="exit 1 above this (default 0.5)")


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
            files = _asked_of_files(args)
            named = args.profile or args.config
            config = load_config_of(args, files) if named else last_config(args.output, files)
        except ConfigError as error:
            raise UsageError(str(error)) from error
        _, options = _prepared(args, commands, config)
        if args.dry_run:
            print(_describe(find_failed(args.output, retry), args))
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
            SubscriptionFeed(args.subscription)
            if args.subscription
            else FolderFeed(
                args.input,
                poll_s=args.poll or _POLL_S,
                settle_s=args.settle or _SETTLE_S,
                marker=args.marker or "",
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
    from beam_pipeline.streaming import Uploads, stream

    uploads = Uploads(args.subscription, tuple(args.input or ()), args.poll or _POLL_S)
    _stop_politely(stop)
    return stream(
        uploads, args.output, config, options, stop, commit_within_s=args.commit_within, idle_exit_s=args.idle_exit
    )


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
    from beam_pipeline.job import JobOptions, is_embedded, pipeline_options
    from transforms.detection import check_installed

    check_beam_flags(args.beam_flags, args.command, flags_of(commands[args.command]))
    check_runner(pipeline_options(args.beam_flags))
    if config is None:
        flags = {"detector": args.detector, "rules": args.splitting, "fast": args.fast}
        given = {key: value for key, value in flags.items() if value}
        asked = {"splitting": given, "measures": dict.fromkeys(args.measure or (), True)}
        asked |= _asked_of_rules(args)
        changes = {section: values for section, values in asked.items() if values}
        config = load_config_of(args, {**changes, **_asked_of_files(args)})
    args.output = dataset_folder(args.output)
    options = JobOptions(
        chunk_videos=getattr(args, "chunk_videos", JobOptions.chunk_videos),
        limit=getattr(args, "limit", None),
        keep_reels=getattr(args, "reels", "keep") == "keep",
        beam_flags=tuple(args.beam_flags),
    )
    if is_embedded(options):
        check_installed(config.splitting)
    # A scheduler's polite stop is an interrupt like any other.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return config, options


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
