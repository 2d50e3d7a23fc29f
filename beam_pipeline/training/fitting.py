"""`train selector` from end to end: examples, a new version, training, and what came of it.

fit(Wanted(["out"], entry, SplitShares(), "models/selector", False, options))
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

from beam_pipeline.training.calibration import KINDS
from beam_pipeline.training.examples import SplitShares, examples_of
from beam_pipeline.training.hooks import MAX_GRAD_NORM
from beam_pipeline.training.opening import open_trainable
from beam_pipeline.training.outcome import JUDGED, Outcome, finish
from beam_pipeline.training.runs import Version, VersionError, new_version, take_up, unfinished_version
from beam_pipeline.training.trainable import Recipe
from beam_pipeline.training.trainer import Training, TrainOptions, announcer, check_options, join_devices, tell_idle
from model_handlers.catalogue import Entry
from transforms.files import Directory


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What shall be trained on what, and where it goes.

    Attributes:
      options: of the selector's recipe makes the options.
      note: what is said beforehand. calibration: the kind of curve from scores to probabilities.
    """

    datasets: Sequence[Directory]
    entry: Entry
    shares: SplitShares
    output: str
    resume: bool
    options: Callable[[Recipe], TrainOptions]
    note: str = ""
    calibration: str = KINDS[0]


def fit(wanted: Wanted) -> dict[str, Any] | None:
    """Train, write a version, and print what came of it; on other ranks than the first nothing is written or returned.

    Raises:
      ExamplesError, VersionError, TrainingError: what was asked for can't be; the message says what to do.
    """
    # Calibration would miss it only after hours of training.
    importlib.import_module("sklearn")
    from transformers import set_seed

    state = join_devices()
    tell = announcer(state)
    if wanted.note:
        tell(wanted.note)
    examples = examples_of(wanted.datasets, wanted.shares)
    tell(examples.describe())
    tell_idle(state, tell)
    # New layers begin with the same weights on every rank.
    set_seed(wanted.options(Recipe()).seed)
    trainable = open_trainable(wanted.entry)
    options = wanted.options(trainable.recipe)
    options.batch_of_device(state.num_processes)
    check_options(trainable, options)
    begun = {
        "selector": wanted.entry.identity,
        "annotations": examples.fingerprint,
        "recipe": recipe_of(options, wanted.shares),
    }
    version = version_for(wanted.output, wanted.resume, begun, tell)
    logging.getLogger(__name__).info("training into %s", version.unfinished)
    with version.kept_only_with_a_checkpoint():
        training = Training(trainable, examples, options, version.unfinished, tell)
        tell(f"{version.path}: {wanted.entry.name}, at most {_steps(training, options):,} steps")
        tell(f"scoring {len(examples.validation) + len(examples.test):,} clips untrained")
        before = {name: training.score(examples.parts[name]) for name in JUDGED}
        training.run(resume=wanted.resume)
    after = {name: training.score(examples.parts[name]) for name in JUDGED}
    outcome = Outcome(
        entry=wanted.entry,
        examples=examples,
        recipe=recipe_of(options, wanted.shares),
        before=before,
        after=after,
        best_epoch=training.best_epoch,
        history=training.history,
        unread=training.unread,
        calibration=wanted.calibration,
    )
    if not state.is_main_process:
        return None
    finish(trainable, outcome, version.unfinished, version.path)
    path = version.finish()
    print(outcome.text(path))
    return outcome.as_json(path)


def recipe_of(options: TrainOptions, shares: SplitShares) -> dict[str, Any]:
    """All that shapes the weights, beside the examples."""
    recipe = dataclasses.asdict(options.recipe)
    kept = {name: getattr(options, name) for name in ("seed", "precision", "accumulate", "max_steps", "patience")}
    recipe |= {"betas": list(options.recipe.betas), "max_grad_norm": MAX_GRAD_NORM}
    return recipe | kept | {"shares": dataclasses.asdict(shares)}


def version_for(output: str, resume: bool, begun: dict[str, Any], tell: Callable[[str], None]) -> Version:
    """The folder of a training; the first rank makes it, and tells the others, or why there is none.

    Args:
      resume: go on with the version that was left unfinished. begun: what has to be the same for that.

    Raises:
      VersionError: there is none to go on with, or it was begun with something else.
    """
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    told: list[Any] = [None]
    if PartialState().is_main_process:
        try:
            told = [_open_version(output, resume, begun, tell)]
        except VersionError as error:
            told = [error]
    broadcast_object_list(told)
    if isinstance(told[0], VersionError):
        raise told[0]
    return told[0]


def _open_version(output: str, resume: bool, begun: dict[str, Any], tell: Callable[[str], None]) -> Version:
    if resume:
        return take_up(output, begun)
    if (left := unfinished_version(output)) is not None:
        how = "was left unfinished (--resume goes on with it)"
        if left.is_trained_elsewhere():
            how = "is being trained by another process"
        tell(f"{left.unfinished} {how}; this is another version")
    version = new_version(output)
    version.begin(begun)
    version.hold()
    return version


def _steps(training: Training, options: TrainOptions) -> int:
    return options.max_steps or round(options.recipe.epochs * training.steps_an_epoch)
