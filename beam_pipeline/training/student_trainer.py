"""A student's training through Transformers' Trainer, on one device or many.

    training = StudentTraining(model, inputs, selection, options, "models/student/v1.unfinished", print)
    training.run()                                       # then the model has the best weights
    training.judge("test")                               # {"with text": Said(...), "without text": Said(...)}

What a clip is trained with depends on the seed, the epoch and the clip alone: not on the number of loading processes,
nor on whether the run was interrupted.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Callable
from typing import Any

from beam_pipeline.training.checkpoints import run_to_best
from beam_pipeline.training.student_examples import WINDOW, ClipOrder, Preparer, StudentExamples
from beam_pipeline.training.student_features import Looking
from beam_pipeline.training.student_judging import CiderJudge, Said, say_all, tell_ways
from beam_pipeline.training.student_rows import Selection, StudentRows
from beam_pipeline.training.trainable import Recipe
from beam_pipeline.training.trainer import TrainOptions, why
from model_handlers.student_inputs import KEEP

#: Steps between two evaluations, and so what a kill may cost, unless an epoch is shorter.
EVALUATE_EVERY = 2000
#: With fewer steps in all, the warm-up is this share of them.
SHORT_WARMUP = 0.1


@dataclasses.dataclass(frozen=True, slots=True)
class StudentRecipe(Recipe):
    """The paper's numbers (section 3.4); what it does not tell (batch, epochs) is ours.

    Attributes:
      warmup_steps: from `first` of the learning rate to all of it. last: of it at the end of the cosine.
      keep_text: metadata and subtitles are each kept with this probability. window: see `ClipOrder`.
    """

    epochs: float = 4.0
    warmup_epochs: float = 0.0
    batch: int = 32
    learning_rate: float = 1e-4
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.99)
    warmup_steps: int = 2500
    first: float = 0.01
    last: float = 0.5
    keep_text: float = KEEP
    window: int = WINDOW


@dataclasses.dataclass(frozen=True)
class StudentOptions(TrainOptions):
    """How it is trained, beside the recipe.

    Attributes:
      evaluate_every: steps; None: an epoch, at most `EVALUATE_EVERY`. watched: clips of the validation part, drawn
        once, by which the best weights are known, and of the test part at the end.
      cider: whether captions are generated and measured; else the loss alone says which weights are best.
      features: a folder where the image encoder's states are kept, of at most `features_gb`.
      beams: of the search that is written beside the weights; while it is trained captions are said greedily.
    """

    recipe: Any = StudentRecipe()
    evaluate_every: int | None = None
    watched: int = 200
    cider: bool = True
    features: str | None = None
    features_gb: float = 20.0
    beams: int = 1


@dataclasses.dataclass(frozen=True)
class Steps:
    """How long a training is."""

    total: int
    evaluate_every: int
    warmup: int


def steps_of(clips: int, options: StudentOptions) -> Steps:
    """The steps of a training, of its warm-up, and between its evaluations.

    >>> steps_of(3200, StudentOptions())
    Steps(total=400, evaluate_every=100, warmup=40)
    """
    recipe = options.recipe
    epoch = math.ceil(clips / recipe.batch)
    total = options.max_steps or math.ceil(recipe.epochs * epoch)
    every = min(total, options.evaluate_every or min(epoch, EVALUATE_EVERY))
    return Steps(total, every, min(recipe.warmup_steps, math.ceil(SHORT_WARMUP * total)))


class StudentTraining:
    """One training, on all devices that `torchrun` or `accelerate launch` gave; else on one.

    Args:
      folder: where checkpoints stand meanwhile. tell: called with lines, on the first rank alone.

    Raises:
      TrainingError: options that can't be met.
    """

    def __init__(
        self,
        model: Any,
        inputs: Any,
        selection: Selection,
        options: StudentOptions,
        folder: str,
        tell: Callable[[str], None],
    ):
        from accelerate import PartialState

        from beam_pipeline.training.student_hooks import build_trainer, spare_frozen

        self.model, self.inputs, self.options, self.tell, self._folder = model, inputs, options, tell, folder
        self.unread: dict[str, str] = {}
        state = PartialState()
        self.rank, self.devices = state.process_index, state.num_processes
        self.batch = options.batch_of_device(self.devices)
        rows = StudentRows(selection.path("train"))
        self.steps = steps_of(len(rows), options)
        self.rows = rows
        self.watched = {
            part: StudentRows(selection.path(part)).drawn(options.watched, options.seed)
            for part in ("validation", "test")
        }
        self._looking = Looking(model, inputs, options.features, options.features_gb) if options.features else None
        shown = itertools.chain(rows, *self.watched.values())
        self.features = self._looking.open(one.clip for one in shown) if self._looking else None
        self.preparer = Preparer(inputs, self.features, options.recipe.keep_text)
        self.seen = StudentExamples(self.preparer, rows, options.seed)
        self.order = ClipOrder(rows.owners(), options.seed, options.recipe.window)
        self._judge = CiderJudge() if options.cider else None
        spare_frozen(model)
        self._trainer = build_trainer(self, folder)

    def run(self, resume: bool = False) -> None:
        """Train; with `resume` from the last whole checkpoint, if there is one.

        Raises:
          NothingReadable: no clip's reel can be read. Diverged: no evaluation is better than any other.
        """
        from accelerate.utils import gather_object

        if self._looking is not None and self.features is not None:
            self._looking.fill(self.features, self.tell)
        run_to_best(self._trainer, self._folder, resume, self.options.patience, "evaluation")
        self.unread = dict(gather_object([*self.unread.items()]))

    @property
    def history(self) -> list[dict[str, Any]]:
        """What was logged, in order."""
        return list(self._trainer.state.log_history)

    @property
    def best_step(self) -> int:
        """The step whose weights the model has after `run`."""
        return int(self._trainer.state.best_global_step or self._trainer.state.global_step)

    def judge(self, part: str) -> dict[str, Said]:
        """What the student says of the watched clips of a part, to which all ranks have to come; by way."""
        from accelerate.utils import gather_object

        told = self.watched[part]
        mine = told[self.rank :: self.devices]
        with self._trainer.accelerator.autocast():
            said = say_all(self.model, self.preparer, self.inputs, mine, self.batch, self.options.cider, self.note)
        parts = gather_object([said])
        return tell_ways(parts, self._judge)

    def watch(self) -> dict[str, float]:
        """What is known of a moment, and by what the best one is kept: the mean of CIDEr with text and without.

        Of moments with the same CIDEr that with the lower loss is better.
        """
        found = self.judge("validation")
        told = {}
        for way, said in found.items():
            name = way.replace(" ", "_")
            told[f"eval_loss_{name}"] = said.loss
            if said.cider is not None:
                told[f"eval_cider_{name}"] = said.cider.value or 0.0
        loss = statistics.fmean(said.loss for said in found.values())
        ciders = [value for name, value in told.items() if name.startswith("eval_cider")]
        rank = statistics.fmean(ciders) - 1e-6 * math.atan(loss) if ciders else -loss
        return {"eval_loss": loss, **told, "eval_rank": rank}

    def note(self, clip_id: str, error: BaseException) -> None:
        """Remember a clip that could not be read."""
        self.unread[clip_id] = why(error)
