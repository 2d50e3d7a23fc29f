"""The arguments of `reelscribe evaluate captions`, `retrieval` and `selection`, and what is done with them.

evaluate_arguments.add_to(kinds)        # the subparsers of `evaluate`
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
import tempfile
from typing import TYPE_CHECKING, Any, Protocol

from beam_pipeline.evaluate_references import BadInput
from beam_pipeline.usage import (
    UsageError,
    add_allow_bucket,
    complain,
    dataset_folder,
    load_config_of,
    names,
    positive,
    whole,
)
from model_handlers.nearest import nearest

if TYPE_CHECKING:
    from beam_pipeline.evaluate_gallery import Gallery

_CAPTIONS = "the chosen captions and each teacher's against references: BLEU-4, ROUGE-L, METEOR, CIDEr, BERTScore"

#: Clips of a dataset among which is searched unless told: as many as in the field's most used set (MSR-VTT 1k-A).
_CLIPS = 1000
_RETRIEVAL = "text to video and video to text by any selector, on any captions: R@1, R@5, R@10, median rank"

_SELECTION = "selectors beside people: agreement, teachers' shares, and whether all captions are bad"


class Study(Protocol):
    """What an evaluation found."""

    @property
    def measured(self) -> bool: ...
    def text(self) -> str: ...
    def as_json(self) -> dict[str, Any]: ...
    def html(self) -> str: ...


def add_to(kinds: Any) -> None:
    """Add the kinds of evaluation that look at captions; `kinds` are the subparsers of `evaluate`."""
    captions = _kind(kinds, "captions", _CAPTIONS)
    captions.add_argument("dataset", metavar="DIR")
    add = captions.add_argument
    add("--references", required=True, metavar="FILE", help="COCO or MSR-VTT JSON, Panda-70M's CSV, plain CSV or JSONL")
    add("--metrics", type=names, metavar="A,B", help="only these (default: all)")
    _sample(captions, "at most so many clips, by lot (default: all)")
    add("--no-teachers", action="store_true", help="the chosen captions alone")
    add("--bertscore-model", default="", metavar="FOLDER", help="a Transformers model (default: the sentence encoder)")
    add("--bertscore-layer", type=positive, metavar="N", help="whose vectors are compared (default: as recommended)")

    retrieval = _kind(kinds, "retrieval", _RETRIEVAL)
    add = retrieval.add_argument
    add("src", nargs="+", metavar="SRC", help="a dataset, or videos: files, directories, globs, manifests")
    add("--captions", metavar="FILE", help="captions of the clips or videos, in any form of references")
    _selectors(retrieval)
    _sample(retrieval, "at most so many videos, or clips of a dataset (1000 of these)")
    add("--reels", metavar="DIR", help="keep the reels of videos there for another run")
    _only(retrieval)
    add_allow_bucket(retrieval)

    selection = _kind(kinds, "selection", _SELECTION)
    selection.add_argument("dataset", metavar="DIR")
    told = "judgements as CSV or JSONL (default: those that were imported into the dataset)"
    selection.add_argument("--annotations", metavar="FILE", help=told)
    _selectors(selection)
    _only(selection)


def _sample(parser: argparse.ArgumentParser, limit: str) -> None:
    parser.add_argument("--limit", type=positive, metavar="N", help=limit)
    parser.add_argument("--seed", type=whole, default=0, metavar="N", help="another one, other clips of a dataset (0)")


def _only(parser: argparse.ArgumentParser) -> None:
    told = "only these clips of the dataset, one clip_id a line, such as a training's test_clips.txt"
    parser.add_argument("--clips", metavar="FILE", help=told)


def _selectors(parser: argparse.ArgumentParser) -> None:
    told = "of the catalogue, or NAME=WEIGHTS for a trained one (default: the configuration's)"
    parser.add_argument("--selector", type=names, metavar="A,B", help=told)
    parser.add_argument("--profile", help="a built-in profile (default lite)")
    parser.add_argument("--config", metavar="FILE.yaml", help="a configuration; may extend a profile")


def _kind(kinds: Any, name: str, summary: str) -> argparse.ArgumentParser:
    made = kinds.add_parser(name, help=summary, description=summary, allow_abbrev=False)
    made.add_argument("--verbose", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    made.add_argument("--json", metavar="FILE", help="write the figures there, too")
    made.add_argument("--html", metavar="FILE", help="write a self-contained page with tables and drawings")
    made.set_defaults(parser=made, study=name)
    return made


def run(args: argparse.Namespace) -> int:
    """Run the evaluation that was asked for; the status is 1 when nothing could be measured.

    Raises:
      UsageError: something on the command line cannot be used.
    """
    from model_handlers.weights import WeightsError
    from transforms.objects import StorageError
    from transforms.tables import NoDataset
    from transforms.tombstones import TombstoneError

    try:
        return STUDIES[args.study](args)
    except (NoDataset, StorageError, TombstoneError) as error:
        return complain(str(error), 1)
    except UsageError:
        raise
    except (BadInput, WeightsError) as error:
        raise UsageError(" ".join(str(error).split())) from error
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UsageError(f"cannot read {error.filename}: {error.strerror or error}") from error


def run_captions(args: argparse.Namespace) -> int:
    """`evaluate captions`: 1 when nothing could be measured.

    Raises:
      UsageError: a name, a file or a dataset on the command line.
    """
    from beam_pipeline.evaluate_bertscore import Judge
    from beam_pipeline.evaluate_captions import CaptionOptions, evaluate_captions
    from beam_pipeline.evaluate_metrics import METRICS
    from beam_pipeline.evaluate_references import read_references

    by_name = {metric.lower(): metric for metric in METRICS}
    for name in args.metrics or ():
        if name.lower() not in by_name:
            raise UsageError(f"there is no metric {name!r}; {nearest(name.lower(), list(by_name))}")
    wanted = tuple(dict.fromkeys(by_name[name.lower()] for name in args.metrics or METRICS))
    judge = Judge(args.bertscore_model, args.bertscore_layer)
    if "BERTScore" in wanted and judge.missing() is None:
        judge.used_layer()
    dataset, references = dataset_folder(args.dataset), read_references(args.references)
    check_places(args)
    options = CaptionOptions(wanted, judge, not args.no_teachers, args.limit, args.seed)
    return tell(args, evaluate_captions(dataset, references, options))


def run_retrieval(args: argparse.Namespace) -> int:
    """`evaluate retrieval`: 1 when no clip could be scored.

    Raises:
      UsageError, BadInput: a name, a file or a dataset on the command line.
    """
    from beam_pipeline.evaluate_gallery import dataset_gallery, video_gallery
    from beam_pipeline.evaluate_references import read_references
    from beam_pipeline.evaluate_retrieval import evaluate_retrieval
    from beam_pipeline.evaluate_scoring import load_scorers
    from transforms.reading import find_sources
    from transforms.sources import InputError

    config = load_config_of(args)
    references = read_references(args.captions) if args.captions else None
    check_places(args)
    if len(args.src) == 1 and _is_dataset(args.src[0]):
        only = clip_ids_of(args.clips) if args.clips else None
        most = args.limit or (_CLIPS if only is None else len(only))
        # All of them first: which are drawn of those that are named depends on no other.
        gallery = dataset_gallery(args.src[0].rstrip("/"), references, most if only is None else sys.maxsize, args.seed)
        if only is not None:
            gallery = restricted(gallery, only, args.clips, most, args.seed)
        return tell(args, evaluate_retrieval(gallery, load_scorers(args.selector, config)))
    if args.clips:
        raise UsageError(f"--clips names clips of a dataset, and {args.src[0]} is none; leave it out")
    if references is None:
        raise UsageError(f"{args.src[0]} is no dataset; of videos say with --captions FILE what is told of them")
    try:
        sources = find_sources(args.src, args.limit, args.allow_bucket or ()).sources
    except InputError as error:
        raise UsageError(str(error)) from error
    scorers = load_scorers(args.selector, config)
    with contextlib.ExitStack() as kept:
        reels = args.reels or kept.enter_context(tempfile.TemporaryDirectory(prefix="reelscribe-"))
        gallery = video_gallery(sources, references, config.splitting, reels)
        return tell(args, evaluate_retrieval(gallery, scorers))


def run_selection(args: argparse.Namespace) -> int:
    """`evaluate selection`: of the dataset's selection, and of each selector that is named.

    Raises:
      UsageError, BadInput: a name, a file or a dataset on the command line.
    """
    from beam_pipeline.evaluate_judgements import read_judgements, stored_judgements
    from beam_pipeline.evaluate_scoring import load_scorers
    from beam_pipeline.evaluate_selection import evaluate_selection
    from transforms.tables import Snapshot

    config, dataset = load_config_of(args), dataset_folder(args.dataset)
    Snapshot.open(dataset)  # Of no dataset nobody can have judged clips.
    told = read_judgements(args.annotations) if args.annotations else stored_judgements(dataset)
    if not told:
        raise UsageError(f"nobody has judged clips of {args.dataset}; name a file of judgements with --annotations")
    about = []
    if args.clips:
        only = clip_ids_of(args.clips)
        told = [one for one in told if one.clip_id in only]
        about.append(f"only the {len(only):,} clips that {args.clips} names")
        if not told:
            raise UsageError(f"nobody has judged any of the {len(only):,} clips that {args.clips} names")
    check_places(args)
    # The dataset's own selection needs no model; one that is named is asked anew.
    scorers = load_scorers(args.selector, config) if args.selector or args.profile or args.config else []
    return tell(args, evaluate_selection(dataset, told, scorers, about))


def clip_ids_of(path: str) -> frozenset[str]:
    """The clips that a file names, one a line; what follows a `#` is a remark.

    Raises:
      BadInput: it names none, or a line is no clip_id. FileNotFoundError: there is no such file.
    """
    from transforms.files import read
    from transforms.schemas import SAFE_ID

    try:
        lines = read(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is no text: it must name one clip_id a line") from error
    found = [name for line in lines if (name := line.partition("#")[0].strip())]
    if wrong := next((name for name in found if not SAFE_ID.fullmatch(name)), None):
        raise BadInput(f"{path} names {wrong[:60]!r}, which is no clip_id; write one a line")
    if not found:
        raise BadInput(f"{path} names no clip; write one clip_id a line")
    return frozenset(found)


def restricted(gallery: Gallery, only: frozenset[str], path: str, most: int, seed: int) -> Gallery:
    """The clips of a gallery that a file names, or so many of them by lot.

    Raises:
      BadInput: it names none of them.
    """
    from beam_pipeline.evaluate_references import draw

    named = {clip.clip_id for clip in gallery.clips} & only
    if not named:
        raise BadInput(f"none of the {len(only):,} clips that {path} names is in the dataset and has a caption")
    drawn = draw(named, most, seed)
    kept = [place for place, clip in enumerate(gallery.clips) if clip.clip_id in drawn]
    notes = [f"only the clips that {path} names: {len(named):,} of its {len(only):,} are in the dataset with a caption"]
    if len(drawn) < len(named):
        notes.append(f"{len(drawn):,} of {len(named):,} clips were drawn (--limit, --seed {seed})")
    return dataclasses.replace(
        gallery,
        clips=tuple(gallery.clips[place] for place in kept),
        captions=tuple(gallery.captions[place] for place in kept),
        notes=(*gallery.notes, *notes),
    )


def _is_dataset(place: str) -> bool:
    from transforms.parquet_files import is_delta_table, table_uri

    try:
        return is_delta_table(table_uri(place, "videos"))
    except ValueError:
        return False


def check_places(args: argparse.Namespace) -> None:
    """Find out before the work whether its results can be written."""
    for flag in ("json", "html"):
        place = getattr(args, flag)
        if place:
            try:
                os.makedirs(os.path.dirname(os.path.abspath(place)), exist_ok=True)
            except OSError as error:
                raise UsageError(f"cannot write {place}: {error.strerror or error}; --{flag} is a file") from error
            if os.path.isdir(place):
                raise UsageError(f"cannot write {place}: it is a directory; --{flag} is a file")


def tell(args: argparse.Namespace, found: Study) -> int:
    """Print what was found, and write it where it shall stand."""
    from beam_pipeline.evaluate_plots import write

    print(found.text())
    if args.json:
        write(args.json, json.dumps(found.as_json(), indent=1, ensure_ascii=False) + "\n")
    if args.html:
        write(args.html, found.html())
        print(args.html)
    return 0 if found.measured else 1


#: By the name of what they measure.
STUDIES = {"captions": run_captions, "retrieval": run_retrieval, "selection": run_selection}
