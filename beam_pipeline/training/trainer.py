"""A selector's fine-tuning through Transformers' Trainer, on one device or many.

    training = Training(trainable, examples, options, "models/selector/v1.unfinished")
    before = training.score(examples.validation)
    training.run()                                       # then the trainable has the weights of the best epoch
    after = training.score(examples.validation)

What a clip is trained with depends on the seed, the epoch and the clip alone: not on the number of loading processes,
nor on whether the run was interrupted.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import importlib
import math
import os
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from beam_pipeline.training.checkpoints import run_to_best
from beam_pipeline.training.examples import Examples
from beam_pipeline.training.scored import Scored, Scores, agreement, readable, score_examples
from beam_pipeline.training.trainable import Example, Recipe, Trainable

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
#: Loading processes unless told, where there are as many cores; each holds its own open reels.
WORKERS = 4
#: For which processes of a training wait for each other: the first alone reads the dataset's tables.
PATIENCE = datetime.timedelta(hours=2)
#: Steps between two lines of the training log, at the most.
LOG_EVERY = 50


def join_devices() -> Any:
    """This process's place among those of the training: `accelerate.PartialState`."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)


def loading_processes() -> int:
    """Of a device, unless told."""
    return min(WORKERS, len(os.sched_getaffinity(0)))


class TrainingError(ValueError):
    """Options that do not fit each other or this machine; the message says what to do."""


class NothingReadable(RuntimeError):
    """No clip's reel can be read."""


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """How it is trained, beside the recipe.

    Attributes:
      recipe: the trainable's, as the user changed it.
      precision: one of `PRECISIONS`. checkpointing: compute activations twice rather than keep them.
      accumulate: passes a step; a batch's other captions are those of one pass on one device.
      max_steps: stop there, whatever the epochs. patience: stop after so many epochs without a better one.
      workers: loading processes a device; None: as fits. tensorboard: a directory.
    """

    recipe: Recipe
    seed: int = 0
    precision: str = "auto"
    checkpointing: bool = False
    accumulate: int = 1
    max_steps: int | None = None
    workers: int | None = None
    tensorboard: str | None = None
    patience: int | None = None

    def batch_of_device(self, devices: int) -> int:
        """Examples that one device takes at once."""
        share, rest = divmod(self.recipe.batch, devices * self.accumulate)
        if rest or not share:
            parts = " times ".join(f"{count} {what}" for count, what in self._parts(devices))
            raise TrainingError(f"a batch of {self.recipe.batch} can't be shared evenly by {parts}; change --batch")
        return share

    def _parts(self, devices: int) -> Iterator[tuple[int, str]]:
        yield devices, "device" if devices == 1 else "devices"
        yield self.accumulate, "pass" if self.accumulate == 1 else "passes"


def precision_of(asked: str) -> str:
    """`auto` is bf16 where the GPU computes in it, fp16 on older ones, fp32 on a CPU."""
    import torch

    if asked != "auto":
        if asked == "fp16" and not torch.cuda.is_available():
            raise TrainingError("--precision fp16 needs a GPU; take bf16 or fp32")
        return asked
    if not torch.cuda.is_available():
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def check_machine(options: TrainOptions) -> None:
    """Refuse what this machine can't do.

    Raises:
      TrainingError: the message says what to do. ModuleNotFoundError: a package is not installed.
    """
    precision_of(options.precision)
    if options.tensorboard:
        importlib.import_module("torch.utils.tensorboard")


def check_options(trainable: Trainable, options: TrainOptions) -> None:
    """Refuse what this selector or this machine can't do, before anything is written or computed.

    Raises:
      TrainingError: the message says what to do. ModuleNotFoundError: a package is not installed.
    """
    check_machine(options)
    if options.checkpointing:
        try:
            trainable.use_checkpointing()
        except ValueError as error:
            raise TrainingError(f"--gradient-checkpointing: {error}") from error


class Training:
    """One training, on all devices that `torchrun` or `accelerate launch` gave; else on one.

    Args:
      folder: where checkpoints stand meanwhile. tell: called with each epoch's line, on the first rank alone.

    Raises:
      TrainingError: options that can't be met.
    """

    def __init__(
        self,
        trainable: Trainable,
        examples: Examples,
        options: TrainOptions,
        folder: str,
        tell: Callable[[str], None] | None = None,
    ):
        from accelerate import PartialState

        from beam_pipeline.training.hooks import build_trainer

        check_options(trainable, options)
        self.trainable, self.examples, self.options, self._folder = trainable, examples, options, folder
        self.unread: dict[str, str] = {}
        state = PartialState()
        self.rank, self.devices = state.process_index, state.num_processes
        self.batch = options.batch_of_device(self.devices)
        self._trainer = build_trainer(self, folder, tell if state.is_main_process and tell else _silent)

    @property
    def steps_an_epoch(self) -> int:
        return math.ceil(len(self.examples.train) / self.options.recipe.batch)

    def run(self, resume: bool = False) -> None:
        """Train; with `resume` from the last whole checkpoint, if there is one.

        Raises:
          NothingReadable: no clip's reel can be read. Diverged: no epoch is better than any other.
        """
        run_to_best(self._trainer, self._folder, resume, self.options.patience, "epoch")
        from accelerate.utils import gather_object

        self.unread = dict(gather_object([*self.unread.items(), *self._trainer.model.unread.items()]))

    @property
    def history(self) -> list[dict[str, Any]]:
        """What was logged, in order."""
        return list(self._trainer.state.log_history)

    @property
    def best_epoch(self) -> float:
        """The epoch whose weights the trainable has after `run`."""
        state = self._trainer.state
        best = [one for one in state.log_history if one.get("step") == state.best_global_step and "eval_rank" in one]
        return float(best[0]["epoch"]) if best else float(state.epoch or 0)

    def score(self, examples: Sequence[Example]) -> Scored:
        """The scores of examples, to which all ranks have to come."""
        from accelerate.utils import gather_object

        with self._trainer.accelerator.autocast():
            mine = score_examples(self.trainable, examples[self.rank :: self.devices], self.batch, self._note_unread)
        told = gather_object([(self.rank, mine)])
        scores: list[Scores] = [None] * len(examples)
        for rank, part in told:
            scores[rank :: self.devices] = part.scores
        read = [sum(one is not None for one in part.scores) for _, part in told]
        total = sum(part.loss * count for (_, part), count in zip(told, read, strict=True))
        return Scored(tuple(scores), total / sum(read) if sum(read) else 0.0)

    def _note_unread(self, clip_id: str, error: BaseException) -> None:
        self.unread[clip_id] = why(error)

    def watch(self) -> dict[str, float]:
        """What is known of an epoch: loss and agreement on the validation part, and by what the best one is kept.

        Of epochs with the same agreement that with the lower loss is better: few clips give few different values.
        """
        scored = self.score(self.examples.validation)
        found = agreement(self.examples.validation, scored.scores).value or 0.0
        return {
            "eval_loss": scored.loss,
            "eval_agreement": found,
            "eval_rank": found - 1e-6 * math.atan(scored.loss),
        }


def why(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def announcer(state: Any) -> Callable[[str], None]:
    """What tells people a line at once; of other ranks than the first it tells nothing."""
    return functools.partial(print, flush=True) if state.is_main_process else _silent


def _silent(line: str) -> None:
    """What other ranks than the first say."""


def tell_idle(state: Any, tell: Callable[[str], None]) -> None:
    """Tell how to use all GPUs of this machine where some are idle."""
    import torch

    used, count = state.num_processes, torch.cuda.device_count()
    if count > used:
        are = "is" if used == 1 else "are"
        tell(f"{used} of {count} GPUs {are} used; torchrun --nproc-per-node {count} uses all of them")


class Preparing(Protocol):
    """What makes tensors of examples: a selector's trainable, or a student's."""

    def prepare(self, example: Any, rng: random.Random | None = None) -> Any:
        """What the network wants of one example."""

    def collate(self, prepared: Any) -> dict[str, Any]:
        """A batch out of prepared examples."""


class PreparedExamples:
    """A map-style dataset for a DataLoader: place `epoch * n + index` is an example as that epoch sees it.

    Args:
      examples: each has a `clip`.
    """

    def __init__(self, trainable: Preparing, examples: Sequence[Any], seed: int):
        self._trainable, self._examples, self._seed = trainable, examples, seed

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, place: int) -> tuple[Any, dict[str, str]]:
        """An example, and why those that should have stood there can't be read: the next one takes their place.

        Raises:
          NothingReadable: none can.
        """
        epoch, index = divmod(place, len(self._examples))
        unread: dict[str, str] = {}
        for step in range(len(self._examples)):
            one = self._examples[(index + step) % len(self._examples)]
            chance = random.Random(f"{self._seed} {epoch} {one.clip.clip_id}")
            try:
                return self._trainable.prepare(one, chance), unread
            except Exception as error:
                if not readable(error):
                    raise
                unread[one.clip.clip_id] = why(error)
        raise NothingReadable(f"no clip's reel can be read, such as {': '.join(next(iter(unread.items())))}")

    def collate(self, found: Sequence[tuple[Any, dict[str, str]]]) -> dict[str, Any]:
        """What the model is called with."""
        unread = {clip_id: reason for _, theirs in found for clip_id, reason in theirs.items()}
        return {"batch": self._trainable.collate([prepared for prepared, _ in found]), "unread": unread}


class EpochOrder:
    """A sampler: every epoch has an order of its own, which the seed and its number alone decide."""

    def __init__(self, count: int, seed: int):
        self._count, self._seed, self._epoch = count, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = int(epoch)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        order = list(range(self._count))
        random.Random(f"order {self._seed} {self._epoch}").shuffle(order)
        return iter([self._epoch * self._count + index for index in order])
