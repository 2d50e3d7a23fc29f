"""The commands `annotate export` and `annotate import`: their arguments, and how errors are told."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable

from beam_pipeline.usage import Parser, UsageError, complain, dataset_folder, positive, score, whole
from model_handlers.nearest import nearest

Command = Callable[..., argparse.ArgumentParser]
Commands = dict[str, argparse.ArgumentParser]

_EXPORT = "sample clips and ask people which of their captions is the best, or which are good"
_IMPORT = "store what people answered, and say how far they agree"


def add_to(command: Command) -> None:
    """Add the commands; `command` is called as (name, run, summary)."""
    annotate = command("annotate", _export, "have people judge captions, blind, with Label Studio or a spreadsheet")
    kinds = annotate.add_subparsers(metavar="WHAT", required=True, parser_class=Parser)

    export = _kind(kinds, "export", _export, _EXPORT)
    add = export.add_argument
    add("--to", required=True, metavar="FORM", help="label-studio, csv or jsonl")
    add("--output", required=True, metavar="OUT", help="a new folder for the questions, their media, annotate.json")
    add("--overwrite", action="store_true", help="replace what the same command wrote there before")
    add("--choose", default="best", metavar="WHAT", help="best: one caption; every-good: as many as are good (best)")
    add("--clips", required=True, type=positive, metavar="N", help="how many to ask about, at most")
    add("--seed", type=whole, default=0, metavar="N", help="another one, another sample (0)")
    add("--extra", action="append", default=[], metavar="FILE.csv", help="captions of another model; repeatable")
    add("--media", choices=("copy", "link"), default="copy", help="link: leave clip files where they are (copy)")
    add("--frames", type=positive, default=8, metavar="N", help="pictures of clips that have no file (8)")
    add("--subset", metavar="FILE.parquet", help="only its clips: a part of `split`, or any with clip_id, video_id")
    add("--min-score", type=score, metavar="S", help="only clips whose matching score is greater (0.43 in Panda-70M)")
    add("--max-clips-per-source", type=positive, metavar="K", help="at most so many clips of a source, by lot")
    add("--skip-judged", action="store_true", help="none about which the dataset knows what somebody said")

    take = _kind(kinds, "import", _import, _IMPORT)
    take.add_argument("files", nargs="+", metavar="FILE", help="Label Studio's JSON, JSON-MIN, CSV; our csv, jsonl")
    where = "a name for the server, where several are used: each numbers its people from 1"
    take.add_argument("--from", dest="origin", default="", metavar="NAME", help=where)
    take.add_argument("--strict", action="store_true", help="store nothing if anything is wrong; exit status 1")
    annotate.set_defaults(kinds=list(kinds.choices), noun="annotate command")


def _kind(
    kinds: argparse._SubParsersAction[Parser], name: str, run: Callable[[argparse.Namespace], int], summary: str
) -> argparse.ArgumentParser:
    made = kinds.add_parser(name, help=summary, description=summary, allow_abbrev=False)
    made.add_argument("dataset", metavar="DIR")
    made.add_argument("--verbose", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    made.set_defaults(parser=made, run=_told(run), what=f"annotate {name}")
    return made


def _told(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace, Commands], int]:
    """Make a command of what prints and returns its exit status: its errors are told in one line."""

    def told(args: argparse.Namespace, commands: Commands) -> int:
        from beam_pipeline.annotate_answers import AnswerError
        from beam_pipeline.annotate_clips import AskError
        from beam_pipeline.runs import root_cause
        from transforms.by_source import SubsetError
        from transforms.lease import LeaseHeld
        from transforms.new_folders import FolderError
        from transforms.objects import StorageError
        from transforms.tables import NoDataset
        from transforms.tombstones import TombstoneError

        try:
            return run(args)
        except (NoDataset, StorageError, TombstoneError, LeaseHeld) as error:
            return complain(str(error), 1)
        except (AnswerError, AskError, FolderError, SubsetError) as error:
            raise UsageError(str(error)) from error
        except (UsageError, ModuleNotFoundError, BrokenPipeError):
            raise
        except Exception as error:
            logging.getLogger(__name__).info("%s failed", args.what, exc_info=True)
            return complain(f"{args.what} failed: {root_cause(error)} (--verbose tells more)", 1)

    return told


def _export(args: argparse.Namespace) -> int:
    from beam_pipeline.annotate_choices import CHOOSE
    from beam_pipeline.annotate_clips import AskOptions
    from beam_pipeline.annotate_export import MANIFEST, describe, export_questions
    from beam_pipeline.annotate_forms import FORMS
    from transforms.files import name_of
    from transforms.new_folders import check_new

    if args.to not in FORMS:
        raise UsageError(f"there is no form {args.to!r}; {nearest(args.to, list(FORMS))}")
    if args.choose not in CHOOSE:
        raise UsageError(f"--choose: there is no {args.choose!r}; {nearest(args.choose, list(CHOOSE))}")
    extras = {name_of(path).rpartition(".")[0] or name_of(path): path for path in args.extra}
    if len(extras) < len(args.extra):
        raise UsageError("--extra: two files are called alike; each is named after its model")
    names = ("clips", "choose", "seed", "frames", "subset", "min_score", "max_clips_per_source", "skip_judged")
    options = AskOptions(
        args.to, extras=extras, link=args.media == "link", **{name: getattr(args, name) for name in names}
    )
    dataset, output = dataset_folder(args.dataset), dataset_folder(args.output)
    check_new(output, MANIFEST, dataset, overwrite=args.overwrite)
    print(describe(export_questions(dataset, output, options), output))
    return 0


def _import(args: argparse.Namespace) -> int:
    from beam_pipeline.annotate_import import import_answers

    done = import_answers(dataset_folder(args.dataset), args.files, origin=args.origin, strict=args.strict)
    print(done.describe())
    if done.stored is None:
        return complain(f"nothing was stored, as {len(done.problems)} problems were found and --strict is given", 1)
    return 0
