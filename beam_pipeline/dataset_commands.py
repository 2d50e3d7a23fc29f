"""The commands that take clips out of a dataset (`stats`, `split`, `export`): their arguments, how errors are told."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable

from beam_pipeline.usage import UsageError, complain, dataset_folder, fraction, positive, score, whole
from model_handlers.nearest import nearest

Command = Callable[..., argparse.ArgumentParser]
Commands = dict[str, argparse.ArgumentParser]


def add_to(command: Command) -> None:
    """Add the commands; `command` is called as (name, run, summary)."""
    stats = command("stats", _told(_stats), "tell a dataset in the figures of the paper's Table 1")
    stats.add_argument("dataset", metavar="DIR")
    stats.add_argument("--json", metavar="FILE", help="write the figures there, too")

    split = command("split", _told(_split), "split a dataset into train, val and test, disjoint by source")
    add = split.add_argument
    add("dataset", metavar="DIR")
    _output(split, "train.parquet, val.parquet, test.parquet and split.json")
    add("--val", type=fraction, default=0.05, metavar="SHARE", help="of the sources (0.05)")
    add("--test", type=fraction, default=0.05, metavar="SHARE", help="of the sources (0.05)")
    add("--seed", type=whole, default=0, metavar="N", help="another one, another split (0)")
    add("--min-score", type=score, metavar="S", help="only clips whose matching score is greater (0.43 in Panda-70M)")
    add("--max-clips-per-source", type=positive, metavar="K", help="at most so many clips of a source, by lot")
    add("--limit", type=positive, metavar="N", help="at most so many clips in all")
    add("--balance", metavar="COLUMN", help="a text column of clips, whose values shall be even")

    export = command("export", _told(_export), "write a dataset's clips in another ecosystem's format")
    add = export.add_argument
    add("dataset", metavar="DIR")
    add("--to", required=True, metavar="FORMAT", help="panda70m-csv, webdataset or tfrecord")
    _output(export, "the files and shards.json")
    add(
        "--subset", metavar="FILE.parquet", help="only its clips: a part of `split`, or any file with clip_id, video_id"
    )
    add("--frames", type=positive, metavar="N", help="JPEG frames of clips that have no file of their own")
    add("--embeddings", action="store_true", help="the clips' embeddings, too")
    add("--shard-clips", type=positive, metavar="N", help="at most so many clips in a file (10000)")
    add("--shard-mb", type=positive, metavar="N", help="at most about so many MB in a file (1000)")


def _output(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--output", required=True, metavar="OUT", help=f"a new folder for {what}")
    parser.add_argument("--overwrite", action="store_true", help="replace what the same command wrote there before")


def _told(run: Callable[[argparse.Namespace], str]) -> Callable[[argparse.Namespace, Commands], int]:
    """Make a command of what returns the lines to print: its errors are told in one."""

    def told(args: argparse.Namespace, commands: Commands) -> int:
        from beam_pipeline.runs import root_cause
        from transforms.by_source import SubsetError
        from transforms.new_folders import FolderError
        from transforms.objects import StorageError
        from transforms.tables import NoDataset
        from transforms.tombstones import TombstoneError

        try:
            print(run(args))
        except (NoDataset, StorageError, TombstoneError) as error:
            return complain(str(error), 1)
        except (FolderError, SubsetError) as error:
            raise UsageError(str(error)) from error
        except (UsageError, ModuleNotFoundError, BrokenPipeError):
            raise
        except Exception as error:
            logging.getLogger(__name__).info("%s failed", args.command, exc_info=True)
            return complain(f"{args.command} failed: {root_cause(error)} (--verbose tells more)", 1)
        return 0

    return told


def _stats(args: argparse.Namespace) -> str:
    from beam_pipeline.stats import dataset_stats, describe
    from transforms.files import write

    found = dataset_stats(dataset_folder(args.dataset))
    if args.json:
        write(args.json, (json.dumps(found.as_json(), indent=1, ensure_ascii=False) + "\n").encode())
    return describe(found)


def _split(args: argparse.Namespace) -> str:
    from beam_pipeline.split import MANIFEST, SplitOptions, describe, split_dataset
    from transforms.new_folders import check_new

    names = ("val", "test", "seed", "min_score", "max_clips_per_source", "limit", "balance")
    try:
        options = SplitOptions(**{name: getattr(args, name) for name in names})
    except ValueError as error:
        raise UsageError(str(error)) from error
    dataset, output = dataset_folder(args.dataset), dataset_folder(args.output)
    check_new(output, MANIFEST, dataset, overwrite=args.overwrite)
    return describe(split_dataset(dataset, output, options), output)


def _export(args: argparse.Namespace) -> str:
    from beam_pipeline.export import MANIFEST, ExportOptions, describe, export, forms, has_pictures
    from transforms.new_folders import check_new

    if args.to not in forms():
        raise UsageError(f"there is no format {args.to!r}; {nearest(args.to, forms())}")
    for flag in ("frames", "embeddings", "shard_clips", "shard_mb"):
        if getattr(args, flag) and not has_pictures(args.to):
            raise UsageError(f"--{flag.replace('_', '-')} is not for {args.to}, which is one file of text")
    given = {
        name: getattr(args, name) for name in ("subset", "frames", "embeddings", "shard_clips") if getattr(args, name)
    }
    if args.shard_mb:
        given["shard_bytes"] = args.shard_mb * 1_000_000
    dataset, output = dataset_folder(args.dataset), dataset_folder(args.output)
    check_new(output, MANIFEST, dataset, overwrite=args.overwrite)
    return describe(export(dataset, output, ExportOptions(args.to, **given)), output)
