"""`reelscribe train teachers-cover`: its arguments, and where judgements and costs come from.

cover_command.add_to(kinds)        # the subparsers of `train`
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from beam_pipeline.usage import UsageError, complain, dataset_folder, names, positive
from model_handlers.nearest import nearest

if TYPE_CHECKING:
    from beam_pipeline.training.cover import Cost, JudgedClip

_COVER = "which teachers a dataset needs: greedy set cover over the clips that people judged, with coverage and cost"
#: No name of --extra is this.
NONE = "none"


def add_to(kinds: Any) -> None:
    """Add the command; `kinds` are the subparsers of `train`."""
    made = kinds.add_parser("teachers-cover", help=_COVER, description=_COVER, allow_abbrev=False)
    add = made.add_argument
    add("dataset", metavar="DIR")
    add("--teachers", type=positive, metavar="N", help="take so many (default: until one adds less than 1 point)")
    told = "judgements as CSV or JSONL (default: those that were imported into the dataset)"
    add("--annotations", metavar="FILE", help=told)
    told = "models of `annotate export --extra` that count as teachers; none: not one (default: all that were judged)"
    add("--extras", type=names, metavar="A,B", help=told)
    add("--rates", metavar="FILE.yaml", help="seconds a clip by teacher, as for `estimate`; goes before what runs took")
    add("--json", metavar="FILE", help="write the figures there, too")
    add("--html", metavar="FILE", help="write a self-contained page with the table and the curve")
    add("--verbose", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    made.set_defaults(parser=made, run=run)


def run(args: argparse.Namespace, commands: Mapping[str, argparse.ArgumentParser]) -> int:
    """Choose teachers; the status is 1 when people found no caption good.

    Raises:
      UsageError: something on the command line cannot be used, or nobody has judged anything.
    """
    from beam_pipeline.estimate_entries import EntryError
    from beam_pipeline.evaluate_arguments import check_places, tell
    from beam_pipeline.evaluate_references import BadInput
    from beam_pipeline.runs import root_cause
    from beam_pipeline.training.cover import pool_of
    from beam_pipeline.training.cover_study import study_cover
    from transforms.objects import StorageError
    from transforms.tables import NoDataset
    from transforms.tombstones import TombstoneError

    try:
        dataset = dataset_folder(args.dataset)
        check_places(args)
        judged, notes = _of_file(args.annotations) if args.annotations else _of_dataset(dataset, args.extras)
        pool = pool_of(judged)
        if args.teachers and args.teachers > len(pool):
            raise UsageError(f"--teachers {args.teachers}: people judged captions of {len(pool)} alone")
        costs, more = costs_of(dataset, pool, args.rates)
        return tell(args, study_cover(judged, costs, wanted=args.teachers, notes=[*notes, *more]))
    except (NoDataset, StorageError, TombstoneError) as error:
        return complain(str(error), 1)
    except (BadInput, EntryError) as error:
        raise UsageError(" ".join(str(error).split())) from error
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UsageError(f"cannot read {error.filename}: {error.strerror or error}") from error
    except (UsageError, ModuleNotFoundError, BrokenPipeError):
        raise
    except Exception as error:
        logging.getLogger(__name__).info("train teachers-cover failed", exc_info=True)
        return complain(f"train teachers-cover failed: {root_cause(error)} (--verbose tells more)", 1)


def _of_file(path: str) -> tuple[list[JudgedClip], list[str]]:
    from beam_pipeline.evaluate_judgements import read_judgements
    from beam_pipeline.training.cover import of_judgements

    found, undecided = of_judgements(read_judgements(path))
    if not found:
        raise UsageError(
            f"{path}: of none of {undecided:,} clips people agree on a good caption, or that there is none"
        )
    return found, _told({"judged clips are left out, since people do not agree on them": undecided})


def _of_dataset(dataset: str, wanted: Sequence[str] | None) -> tuple[list[JudgedClip], list[str]]:
    """The clips that were judged, and what is left out.

    Args:
      wanted: models of `annotate export --extra` that count as teachers; None: all that there are.
    """
    from beam_pipeline.training.cover import of_labels
    from transforms.annotations import clip_captions, labels_of
    from transforms.judgements import judgements_of
    from transforms.tables import Snapshot

    Snapshot.open(dataset)  # Says what is wrong where there is no dataset.
    said = list(judgements_of(dataset))
    if not said:
        raise UsageError(
            f"nobody has judged clips of {dataset}; ask with `reelscribe annotate export {dataset} "
            "--choose every-good`, or name a file of judgements with --annotations"
        )
    known = {name for one in said for name in one.extras}
    extras = _extras(wanted, known)
    # Where one of them was not among the captions, nobody could find it good.
    usable = [one for one in said if extras <= set(one.extras)]
    if not usable:
        together = " and ".join(sorted(extras))
        raise UsageError(f"captions of {together} never stood among each other; say which count with --extras")
    found = labels_of(usable, clip_captions(dataset, {one.clip_id for one in usable}), every_good_first=True)
    if not found.labels:
        raise UsageError(
            f"no judged clip of {dataset} counts: of {found.ties:,} people do not agree, {found.gone:,} are gone"
        )
    others = ", ".join(sorted(extras))
    return of_labels(found.labels, known - extras), _told(
        {
            f"judgements are left out, as captions of {others} were not among them (--extras)": len(said) - len(usable),
            "judged clips are left out, since people do not agree on them": found.ties,
            "judged clips are not in the dataset any more": found.gone,
            "clips were captioned anew, or by other teachers, since they were judged; what was judged counts": sum(
                not label.is_current for label in found.labels
            ),
        }
    ) + [f"{name} is no teacher of the dataset yet; name it as your configuration does" for name in sorted(extras)]


def _extras(wanted: Sequence[str] | None, known: Collection[str]) -> set[str]:
    if wanted is None:
        return set(known)
    if list(wanted) == [NONE]:
        return set()
    for name in wanted:
        if name not in known:
            raise UsageError(
                f"--extras: people judged no captions of {name!r}; {nearest(name, [*sorted(known), NONE])}"
            )
    return set(wanted)


def _first(found: Sequence[str], most: int = 6) -> str:
    """The first few names, and how many there are more."""
    rest = len(found) - most
    return ", ".join(found[:most]) + (f" and {rest} more" if rest > 0 else "")


def _told(counts: Mapping[str, int]) -> list[str]:
    return [f"{count:,} {what}" for what, count in counts.items() if count]


def costs_of(dataset: str, pool: Sequence[str], rates: str | None) -> tuple[dict[str, Cost], list[str]]:
    """What each teacher takes for a clip, as far as somebody told or measured it, and how to get the rest.

    A teacher that is asked about a part of the clips only takes as much less for a clip of the dataset.

    Raises:
      EntryError: the file of rates cannot be meant.
    """
    from beam_pipeline.estimate_commands import measured_at
    from beam_pipeline.estimate_entries import Entries, read_entries
    from beam_pipeline.estimate_rates import TEACHER
    from beam_pipeline.estimate_stages import choose_rates
    from beam_pipeline.training.cover import Cost

    entered = read_entries(rates) if rates else Entries()
    try:
        measured = measured_at(dataset)
    except UsageError:  # No run of it tells its seconds: of a template's job, or of files that were put together.
        measured = []
    chosen = choose_rates({"teachers": list(pool)}, measured, entered.rates, {}).rates
    found = {}
    for name in pool:
        rate = chosen.get(TEACHER + name)
        if rate is not None:
            seconds = rate.seconds * (1.0 if rate.share is None else rate.share)
            found[name] = Cost(gpu_s=seconds) if rate.on == "gpu" else Cost(cpu_s=seconds)
    notes = []
    if used := sorted({chosen[TEACHER + name].source for name in found}):
        notes.append(f"seconds a clip, of one vCPU or one GPU, are of {', '.join(used)}")
    for one in measured:
        if one.weak and f"run {one.run_id}" in used:
            notes.append(f"run {one.run_id} is a weak basis: {'; '.join(one.weak)}")
    if missing := [name for name in pool if name not in found]:
        notes.append(
            f"nobody measured what a clip takes {_first(missing)}: run reelscribe curate with it over ten videos, "
            "into this dataset, or enter it in --rates FILE.yaml (teachers: {NAME: {gpu_s: SECONDS}})"
        )
    strange = sorted(stage.removeprefix(TEACHER) for stage in entered.rates if stage.startswith(TEACHER))
    if strange := [name for name in strange if name not in pool]:
        notes.append(f"{rates} has rates of {', '.join(strange)}, of whom nobody judged captions")
    return found, notes
