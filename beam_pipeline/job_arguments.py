"""What `curate`, `watch` and `redrive` can be told: their arguments, and the configuration that these ask for.

    curate_arguments(parser); args = parser.parse_args(); config = load_config_of(args, changes_of(args))

The template's parameters are made from the same parsers, so that a flag means the same wherever a job runs.
"""

from __future__ import annotations

import argparse
from typing import Any

from beam_pipeline import logs
from beam_pipeline.usage import UsageError, add_allow_bucket, duration, fraction, names, positive, seconds
from model_handlers.nearest import nearest
from transforms.clip_settings import MODES

COMMERCIAL = "refuse models whose licence restricts what their captions may be used for"
DETECTORS = "content, adaptive, hash, histogram or transnet"
WRITE_CLIPS = "write each clip to a file of its own, below DIR/media: copy the stream where that is exact, or encode"
DEDUPE = "mark clips that look like those of other videos, and copies of videos (the embedder's own threshold)"
FILTER = "keep clips whose COLUMN is MIN..MAX, A,B or !A,B, like blur=..0.6; the others go to rejected; repeatable"
VIDEO_FILTER = "likewise of whole videos, before they are split, like height=480.. or duration_s=..7200; repeatable"
FAST = "decode without the codec's loop filter: quicker, but a cut may be missed or moved"

#: What a dead letter's stage may be.
STAGES = ("read", "split", "hear", "embed", "caption", "score", "select", "measure", "clean", "media", "run")

#: How often `--input` is looked into, and how long a file must be steady, where nothing is said.
POLL_S, SETTLE_S = 5.0, 10.0

_BEAMS = "Any option of Apache Beam may follow, such as --direct_num_workers=4."
_COMMIT_WITHIN = "how long a finished video may wait for others to be committed with, on a --runner that streams (30)"


def curate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `curate`."""
    parser.add_argument(
        "--input", nargs="+", action="extend", required=True, metavar="SRC", help="files, directories, globs, manifests"
    )
    _dataset_arguments(parser)
    parser.add_argument("--limit", type=positive, metavar="N", help="take only the first N inputs")
    _chunks(parser)
    _metrics(parser)


def watch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `watch`."""
    add = parser.add_argument
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--input", nargs="+", action="extend", metavar="SRC", help="directories, globs, gs:// folders to look into"
    )
    which.add_argument("--subscription", metavar="SUB", help="projects/P/subscriptions/S of a bucket's notifications")
    _dataset_arguments(parser)
    add("--poll", type=seconds, metavar="SECONDS", help="from one look into --input to the next (5)")
    add("--settle", type=seconds, metavar="SECONDS", help="a file counts when steady for so long (10)")
    add("--marker", metavar="SUFFIX", help="a file counts when FILE.SUFFIX stands beside it, and not before")
    add("--at-once", type=positive, default=2, metavar="N", help="rounds beside each other (2)")
    add("--round-videos", type=positive, default=8, metavar="N", help="videos a round at the most (8)")
    add("--quiet", type=seconds, default=60.0, metavar="SECONDS", help="finish the dataset when quiet for so long (60)")
    add("--idle-exit", type=seconds, metavar="SECONDS", help="end when nothing came for so long (default: never)")
    add("--commit-within", type=seconds, default=30.0, metavar="SECONDS", help=_COMMIT_WITHIN)
    _metrics(parser)


def redrive_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `redrive`."""
    add = parser.add_argument
    add("output", metavar="DIR", help="the dataset")
    add("--stage", type=stages, metavar="A,B", help=", ".join(STAGES[:-1]) + " or run (it stopped a whole job)")
    add("--class", type=names, dest="classes", metavar="A,B", help="classes of errors, as the failures name them")
    add("--older-than", type=duration, metavar="TIME", help="failed so long ago: 90s, 30m, 2h, 7d")
    add("--max-attempts", type=positive, metavar="N", help="leave what failed N times already")
    add("--dry-run", action="store_true", help="say what would be run again, and do nothing")
    add("--limit", type=positive, metavar="N", help="take only N videos")
    _config_arguments(parser, "the last run's")
    _clip_files(parser)
    add_allow_bucket(parser)
    _chunks(parser)


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
    add_allow_bucket(parser)


def _clip_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--write-clips", choices=MODES, help=WRITE_CLIPS)
    parser.add_argument("--dedupe", action="store_true", help=DEDUPE)


def _measures(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--measure", type=names, action="extend", metavar="A,B", help="fill the columns of these measures; or all")
    add("--filter", type=rule, action="append", metavar="RULE", help=FILTER)
    add("--video-filter", type=rule, action="append", metavar="RULE", help=VIDEO_FILTER)


def _metrics(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--metrics-port", type=port, metavar="PORT", help="serve metrics for Prometheus there (0: any free port)")
    add("--metrics-host", metavar="HOST", help="and at this address (127.0.0.1)")


def _chunks(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--chunk-videos", type=positive, default=32, metavar="N", help="videos committed together (default 32)")
    add("--max-failed-fraction", type=fraction, default=0.5, metavar="X", help="exit 1 above this (default 0.5)")


def _config_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    add = parser.add_argument
    add("--profile", help=f"a built-in profile (default {default}; see `reelscribe profiles`), or a FILE.yaml")
    add("--config", metavar="FILE.yaml", help="a configuration; may extend a profile")
    add("--commercial-only", action="store_true", help=COMMERCIAL)
    logs.add_argument(parser)
    parser.epilog = _BEAMS


def changes_of(args: argparse.Namespace) -> dict[str, Any]:
    """What the flags of `curate` and `watch` change of a configuration, by section."""
    flags = {"detector": args.detector, "rules": args.splitting, "fast": args.fast}
    given = {key: value for key, value in flags.items() if value}
    asked = {"splitting": given, "measures": dict.fromkeys(args.measure or (), True)}
    asked |= _changes_of_rules(args)
    changes = {section: values for section, values in asked.items() if values}
    return {**changes, **changes_of_files(args)}


def _changes_of_rules(args: argparse.Namespace) -> dict[str, Any]:
    """What --filter and --video-filter change of a configuration."""
    from beam_pipeline.filters import together

    try:
        return {"filters": together(args.filter or ()), "video_filters": together(args.video_filter or ())}
    except ValueError as error:
        raise UsageError(str(error)) from error


def changes_of_files(args: argparse.Namespace) -> dict[str, Any]:
    """What --write-clips and --dedupe change of a configuration."""
    files = {"write_clips": {"mode": args.write_clips}} if args.write_clips else {}
    # A threshold that the configuration names stays.
    return {**files, "duplicates": {}} if args.dedupe else files


def rule(text: str) -> tuple[str, dict[str, Any]]:
    """A rule that clips must keep to, like blur=..0.6."""
    from beam_pipeline.filters import parsed

    try:
        return parsed(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


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
