"""`reelscribe evaluate splitting` and `reelscribe calibrate`: from names on the command line to tables and files.

status = evaluate_splitting(args, config)        # prints the table; 1 when no video could be measured
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from beam_pipeline import evaluate_plots as plots
from beam_pipeline.calibrate import Calibration, calibrate
from beam_pipeline.config import Config
from beam_pipeline.evaluate_splitting import Evaluation, evaluate
from beam_pipeline.evaluate_videos import Setting, choose_detectors, choose_embedders
from beam_pipeline.usage import UsageError
from model_handlers.weights import WeightsError
from transforms.reading import Source, find_sources
from transforms.truth import Truth, TruthError, read_truth, truth_of

if TYPE_CHECKING:
    from model_handlers.perceptual import Lpips

#: LPIPS compares frames a second apart; a thinner reel would put the same frame on both sides.
LEAST_REEL_FPS = 2.0


def evaluate_splitting(args: argparse.Namespace, config: Config) -> int:
    """Compare subtitle alignment, detectors alone and our splitting; return the exit status.

    Raises:
      UsageError: a name, a file or a truth on the command line.
    """
    with _usage():
        splitting = dataclasses.replace(config.splitting, reel_fps=max(LEAST_REEL_FPS, config.splitting.reel_fps))
        sources = _sources(args)
        truths = tuple(truth for path in args.truth for truth in read_truth(path))
        _check_truths(truths, sources)
        detectors, notes = choose_detectors(args.detectors, splitting)
        embedders, more = choose_embedders(args.embedders, config)
        lpips = _lpips(args.lpips or config.lpips)
        _check_places(args)
    setting = Setting(splitting, tuple(detectors), tuple(embedders))
    with _reels(args.output) as reels:
        found = evaluate(sources, setting, reels, lpips, truths)
    if lpips is None:
        more = [*more, "LPIPS is not measured: give its weights with --lpips"]
    found = dataclasses.replace(found, notes=(*notes, *more, *found.notes))
    return _tell(args, found, bool(found.videos))


def calibrate_stitching(args: argparse.Namespace, config: Config) -> int:
    """Sweep an embedder's stitching threshold; return the exit status.

    Raises:
      UsageError: a name or a file on the command line.
    """
    with _usage():
        splitting = dataclasses.replace(config.splitting, reel_fps=max(LEAST_REEL_FPS, config.splitting.reel_fps))
        sources = _sources(args)
        embedders, _ = choose_embedders([args.embedder or config.embedder.name], config)
        detectors, _ = choose_detectors([splitting.detector], splitting)
        lpips = _lpips(args.lpips or config.lpips)
        _check_places(args)
    setting = Setting(splitting, tuple(detectors), tuple(embedders))
    with _reels(args.output) as reels:
        found = calibrate(sources, setting, reels, lpips)
    return _tell(args, found, found.measured)


@contextlib.contextmanager
def _usage() -> Iterator[None]:
    """Tell what is wrong with the arguments as bad usage; nothing has been decoded yet."""
    try:
        yield
    except (ValueError, WeightsError) as error:
        raise UsageError(" ".join(str(error).split())) from error
    except OSError as error:
        raise UsageError(f"cannot use {error.filename}: {error.strerror or error}") from error


def _sources(args: argparse.Namespace) -> Sequence[Source]:
    found = find_sources(args.src, args.limit, getattr(args, "allow_bucket", None) or ())
    if not found.sources:
        raise UsageError(f"there is no video in {', '.join(args.src)}")
    return found.sources


def _check_truths(truths: Sequence[Truth], sources: Sequence[Source]) -> None:
    known = [truth_of(truths, source.uri) for source in sources]
    if truths and not any(known):
        named = ", ".join(truth.name for truth in truths[:3]) + (", ..." if len(truths) > 3 else "")
        raise TruthError(f"no video here is named as in the truth: {named}")


def _lpips(weights: str | None) -> Lpips | None:
    if weights is None:
        return None
    from model_handlers.perceptual import load_lpips

    return load_lpips(weights)


def _check_places(args: argparse.Namespace) -> None:
    """Find out before the work whether its results can be written."""
    if args.output:
        if "://" in args.output:
            raise UsageError(f"cannot write to {args.output}: --output is a local directory")
        os.makedirs(args.output, exist_ok=True)
    if args.html:
        os.makedirs(os.path.dirname(os.path.abspath(args.html)), exist_ok=True)
        if os.path.isdir(args.html):
            raise UsageError(f"cannot write {args.html}: it is a directory; --html is a file")


@contextlib.contextmanager
def _reels(output: str | None) -> Iterator[str]:
    """A folder for the reels: kept with the results, for the next evaluation to use again, or of this run alone."""
    if output:
        yield os.path.join(output, "reels")
    else:
        with tempfile.TemporaryDirectory(prefix="reelscribe-") as folder:
            yield folder


def _tell(args: argparse.Namespace, found: Evaluation | Calibration, measured: bool) -> int:
    print(found.text())
    if args.output:
        plots.write(os.path.join(args.output, f"{args.study}.json"), json.dumps(found.as_json(), indent=1) + "\n")
        drawing = found.drawing()
        if drawing is not None:
            plots.write(os.path.join(args.output, f"{args.study}.svg"), plots.standalone(drawing))
    if args.html:
        plots.write(args.html, found.html())
        print(args.html)
    return 0 if measured else 1


#: By the name of what they write.
STUDIES = {"splitting": evaluate_splitting, "calibration": calibrate_stitching}
