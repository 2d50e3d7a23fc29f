"""`train student` from end to end: clips, a new version, training, and what came of it.

fit(Plan(["out"], Rules(), SplitShares(), wanted, options, "models/student"))
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from beam_pipeline.training.examples import SplitShares
from beam_pipeline.training.fitting import version_for
from beam_pipeline.training.hooks import MAX_GRAD_NORM
from beam_pipeline.training.runs import Version
from beam_pipeline.training.student_hooks import UNREAD
from beam_pipeline.training.student_judging import CiderJudge
from beam_pipeline.training.student_model import Wanted, WantedError
from beam_pipeline.training.student_outcome import JUDGED, Outcome, write
from beam_pipeline.training.student_rows import Rules, Selection, StudentRows, select
from beam_pipeline.training.student_trainer import StudentOptions, StudentTraining
from beam_pipeline.training.trainer import announcer, check_machine, join_devices, precision_of, tell_idle
from transforms.files import Directory

#: Where the clips' rows stand while a version is unfinished.
_ROWS = "rows"
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What shall be trained on what, and where it goes.

    Attributes:
      keep_frozen: whether the version holds the frozen parts, too, and so stands alone.
    """

    datasets: Sequence[Directory]
    rules: Rules
    shares: SplitShares
    wanted: Wanted
    options: StudentOptions
    output: str
    resume: bool = False
    keep_frozen: bool = True


def fit(plan: Plan) -> dict[str, Any] | None:
    """Train, write a version, and print what came of it; on other ranks than the first nothing is written or returned.

    Raises:
      ExamplesError, VersionError, TrainingError, WantedError: what was asked for can't be; the message says what to do.
    """
    from transformers import set_seed

    from model_handlers.student_parts import check_references

    state = join_devices()
    tell = announcer(state)
    options, wanted = plan.options, plan.wanted
    options.batch_of_device(state.num_processes)
    check_machine(options)
    precision = precision_of(options.precision)
    if options.cider:
        CiderJudge()
    versions = wanted.versions()
    with tempfile.TemporaryDirectory(prefix="reelscribe-") as aside:
        selection = _first(lambda: select(plan.datasets, plan.rules, plan.shares, aside))
        tell(selection.describe())
        tell_idle(state, tell)
        set_seed(options.seed)
        try:
            model, inputs = wanted.open(DTYPES[precision])
            if not plan.keep_frozen:
                check_references(model.config)
        except ValueError as error:
            raise WantedError(str(error)) from error
        recipe = recipe_of(plan)
        begun = {"parts": versions, "clips": selection.fingerprint, "recipe": recipe}
        version = version_for(plan.output, plan.resume, begun, tell)
        with version.kept_only_with_a_checkpoint():
            selection = _first(lambda: _move(selection, version))
    with version.kept_only_with_a_checkpoint():
        training = StudentTraining(model, inputs, selection, options, version.unfinished, tell)
        tell(_beginning(version, model, training))
        training.run(resume=plan.resume)
    said = {part: training.judge(part) for part in JUDGED if training.watched[part]}
    history = training.history
    unread = {clip_id: why for one in history for clip_id, why in one.get(UNREAD, {}).items()} | training.unread
    outcome = Outcome(wanted, versions, selection, recipe, said, training.best_step, history, unread)
    if not state.is_main_process:
        return None
    test = list(StudentRows(selection.path("test")).clip_ids())
    shutil.rmtree(os.path.join(version.unfinished, _ROWS))
    write(
        model,
        inputs,
        outcome,
        version.unfinished,
        version.path,
        keep_frozen=plan.keep_frozen,
        beams=options.beams,
        test=test,
    )
    path = version.finish()
    print(outcome.text(path))
    return outcome.as_json(path)


def recipe_of(plan: Plan) -> dict[str, Any]:
    """All that shapes the weights, beside the parts and the clips."""
    options = plan.options
    recipe = dataclasses.asdict(options.recipe) | {"betas": list(options.recipe.betas)}
    del recipe["warmup_epochs"]
    kept = ("seed", "precision", "accumulate", "max_steps", "patience", "evaluate_every", "watched", "cider")
    rules = {"min_score": plan.rules.min_score, "keep_abstained": plan.rules.keep_abstained}
    return (
        recipe
        | {name: getattr(options, name) for name in kept}
        | {"shares": dataclasses.asdict(plan.shares), "max_grad_norm": MAX_GRAD_NORM}
        | rules
        | plan.wanted.recipe()
    )


def _beginning(version: Version, model: Any, training: StudentTraining) -> str:
    """What is trained, in a line."""
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    frozen = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
    steps = training.steps
    return (
        f"{version.path}: {trained / 1e6:.1f} million weights are trained, {frozen / 1e6:.1f} million stay; "
        f"at most {steps.total:,} steps, {steps.warmup:,} of them warm-up"
    )


def _move(selection: Selection, version: Version) -> Selection:
    """Put the clips' rows beside the checkpoints, where all ranks find them."""
    folder = os.path.join(version.unfinished, _ROWS)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(selection.folder, folder)
    return dataclasses.replace(selection, folder=folder)


def _first(make: Callable[[], Selection]) -> Selection:
    """What the first rank makes, told to all; or why it could not."""
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    told: list[Any] = [None]
    if PartialState().is_main_process:
        try:
            told = [make()]
        except Exception as error:
            if PartialState().num_processes == 1:
                raise
            told = [error]
    broadcast_object_list(told)
    if isinstance(told[0], Exception):
        raise told[0]
    return told[0]
