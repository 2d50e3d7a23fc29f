"""`reelscribe train student`: its arguments.

student_command.add_to(kinds)      # the subparsers of `train`
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from beam_pipeline.training.commands import above_0, add_shared, check_places, check_precision, told, write_figures
from beam_pipeline.usage import UsageError, dataset_folder, fraction, positive, score, whole

_STUDENT = "train a captioner on the captions of datasets; writes a new version below --output"
_PARTS = ("llm", "llm_revision", "vision", "vision_revision", "qformer", "qformer_revision", "lora", "frames")
_SIMPLE = ("seed", "precision", "accumulate", "max_steps", "workers", "tensorboard", "patience", "evaluate_every")


def add_to(kinds: Any) -> None:
    """Add the command; `kinds` are the subparsers of `train`."""
    made = kinds.add_parser("student", help=_STUDENT, description=_STUDENT, allow_abbrev=False)
    made.set_defaults(parser=made, run=run)
    add = made.add_argument
    add("dataset", nargs="*", metavar="DIR", help="datasets whose clips have captions and reels")
    add("--data", action="append", default=[], metavar="DIR", help="the same, as a flag")
    part = "a directory, gs://, or a hub id with"
    add("--llm", metavar="W", help=f"the language model it speaks through: {part} --llm-revision")
    add("--llm-revision", metavar="R", help="a hub's commit")
    add("--vision", metavar="W", help=f"the image encoder: {part} --vision-revision; or efficientnet-lite0")
    add("--vision-revision", metavar="R", help="a hub's commit")
    add("--qformer", metavar="W", help=f"a BLIP-2, whose Q-Former reads each frame: {part} --qformer-revision")
    add("--qformer-revision", metavar="R", help="a hub's commit")
    add("--from", dest="start", metavar="DIR", help="a student to go on from, instead of parts")
    add("--config", metavar="FILE.yaml", help="the same and sizes, see docs/student.md; flags go before it")
    add("--lora", type=positive, metavar="R", help="adapters of this rank in the language model, beyond the paper")
    add("--frames", type=positive, metavar="N", help="of a clip (8)")
    add(
        "--min-score",
        type=score,
        metavar="X",
        help="only clips whose matching score is above (the paper's, of UMT: 0.43)",
    )
    add("--keep-abstained", action="store_true", help="also clips of which the selector found no caption good")
    add("--subset", metavar="FILE.parquet", help="only its clips: a part of `split`, or any with clip_id, video_id")
    add(
        "--validation",
        type=fraction,
        default=0.05,
        metavar="SHARE",
        help="of the sources, to keep the best weights (0.05)",
    )
    add("--test", type=fraction, default=0.05, metavar="SHARE", help="of the sources, to judge it by at the end (0.05)")
    add("--epochs", type=above_0, metavar="N", help="over all training clips (4)")
    add("--batch", type=positive, metavar="N", help="clips a step, over all devices and passes (32)")
    add("--learning-rate", type=above_0, metavar="X", help="at its highest (1e-4, from 1e-6, to 5e-5 at the end)")
    add("--warmup-steps", type=whole, metavar="N", help="(2,500, at most a tenth of all)")
    add("--weight-decay", type=above_0, metavar="X", help="of AdamW (0.05)")
    add(
        "--keep-text",
        type=fraction,
        metavar="P",
        help="with this probability metadata and subtitles are each kept (0.5)",
    )
    add(
        "--evaluate-every",
        type=positive,
        metavar="N",
        help="steps; as often it can be gone on from (an epoch, at most 2,000)",
    )
    add("--sample", type=positive, default=200, metavar="N", help="held-out clips that are captioned to judge it (200)")
    add("--no-cider", action="store_true", help="generate no captions; go by the loss")
    add("--patience", type=positive, metavar="N", help="stop after so many evaluations without a better one")
    add("--beams", type=positive, default=1, metavar="N", help="of the search that the version is used with (1)")
    add("--cache-features", metavar="DIR", help="keep there what the image encoder says: later epochs are cheap")
    add("--cache-gb", type=above_0, default=20.0, metavar="X", help="that this may take (20)")
    add("--leave-out-frozen", action="store_true", help="write what was trained, and only name the parts that were not")
    add("--workers", type=whole, metavar="N", help="loading processes a device (4; none with --cache-features)")
    add_shared(made)


def run(args: argparse.Namespace, commands: Mapping[str, argparse.ArgumentParser]) -> int:
    """Train a student; see `commands.told`."""
    args.dataset = [*args.dataset, *args.data]
    if not args.dataset:
        raise UsageError("no dataset to learn from; name one: reelscribe train student DIR --output OUT ...")
    return told("train student", "evaluation", args.output, lambda: _train(args))


def _train(args: argparse.Namespace) -> int:
    # Loading processes are forked after the tokenizer's threads began; it would warn of that.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from beam_pipeline.training.examples import SplitShares
    from beam_pipeline.training.student_fitting import Plan, fit
    from beam_pipeline.training.student_model import read_wanted
    from beam_pipeline.training.student_rows import Rules

    check_precision(args)
    check_places(args, ["tensorboard", "cache-features"])
    # A variable of the shell that is not set is a flag that is not given.
    wanted = read_wanted(args.config, {name: getattr(args, name) or None for name in ("start", *_PARTS)})
    if wanted.start is not None and "://" not in wanted.start and not os.path.isdir(os.path.expanduser(wanted.start)):
        raise UsageError(f"there is no directory {wanted.start}; --from is a student's, such as models/student/v1")
    plan = Plan(
        datasets=[dataset_folder(one) for one in args.dataset],
        rules=Rules(args.min_score, args.keep_abstained, args.subset),
        shares=SplitShares(args.validation, args.test, args.seed),
        wanted=wanted,
        options=_options(args),
        output=args.output,
        resume=args.resume,
        keep_frozen=not args.leave_out_frozen,
    )
    return write_figures(args, fit(plan))


def _options(args: argparse.Namespace) -> Any:
    from beam_pipeline.training.student_trainer import StudentOptions, StudentRecipe

    named = ("epochs", "batch", "learning_rate", "weight_decay", "warmup_steps", "keep_text")
    changes = {name: getattr(args, name) for name in named if getattr(args, name) is not None}
    return StudentOptions(
        recipe=dataclasses.replace(StudentRecipe(), **changes),
        checkpointing=args.gradient_checkpointing,
        watched=args.sample,
        cider=not args.no_cider,
        features=args.cache_features,
        features_gb=args.cache_gb,
        beams=args.beams,
        **{name: getattr(args, name) for name in _SIMPLE},
    )
