"""What Transformers' Trainer is given of ours: the network round a trainable, its data, and what it says.

trainer = build_trainer(training, folder, print)
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from beam_pipeline.training.trainable import Trainable

if TYPE_CHECKING:
    from beam_pipeline.training.trainer import Training, TrainOptions

#: A longer gradient is shortened to it; Transformers does so unless told.
MAX_GRAD_NORM = 1.0
#: Between two lines of a long epoch.
TELL_EVERY_S = 30.0


def build_network(trainable: Trainable) -> Any:
    """A `torch.nn.Module` whose forward pass is the trainable's loss; `unread` says which clips it never saw."""
    import torch

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = trainable.module
            self.unread: dict[str, str] = {}

        def forward(self, batch: dict[str, Any], unread: dict[str, str]) -> dict[str, Any]:
            self.unread |= unread
            return {"loss": trainable.losses(batch)["loss"]}

        def state_dict(self, *arguments: Any, **named: Any) -> Any:
            # Safetensors refuses two names of one tensor; whoever loads it has them tied again.
            seen: set[tuple[int, tuple[int, ...], tuple[int, ...]]] = set()
            kept = {}
            for name, tensor in super().state_dict(*arguments, **named).items():
                key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
                if tensor.numel() == 0 or key not in seen:
                    kept[name] = tensor
                    seen.add(key)
            return kept

    return Network()


def build_trainer(training: Training, folder: str, tell: Callable[[str], None]) -> Any:
    """The Trainer of a training, on this process's device."""
    from transformers import TrainingArguments

    from beam_pipeline.training.trainer import EpochOrder, PreparedExamples, loading_processes

    options, recipe = training.options, training.options.recipe
    workers = loading_processes() if options.workers is None else options.workers
    workers = 0 if training.trainable.remembers else workers
    seen = PreparedExamples(training.trainable, training.examples.train, options.seed)
    steps = training.steps_an_epoch
    total = options.max_steps or round(recipe.epochs * steps)

    class Ours(watching(training)):  # type: ignore[misc]
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return EpochOrder(len(seen), options.seed)

        def get_decay_parameter_names(self, model: Any) -> list[str]:
            decayed = training.trainable.decayed
            return [name for name, tensor in model.named_parameters() if decayed(name.removeprefix("module."), tensor)]

    args = TrainingArguments(
        **shared_arguments(options, training.batch, folder, workers, steps),
        lr_scheduler_type="cosine",
        # Of a short training a tenth, or it would end as it warms up.
        warmup_steps=min(round(recipe.warmup_epochs * steps), total // 10),
        eval_strategy="epoch",
        save_strategy="epoch",
        ddp_find_unused_parameters=False,
    )
    trainer = Ours(
        model=build_network(training.trainable),
        args=one_device(args),
        train_dataset=seen,
        eval_dataset=training.examples.validation,
        data_collator=seen.collate,
        callbacks=[teller(tell, _epoch)],
    )
    add_callbacks(trainer, options, training.rank)
    return trainer


def watching(training: Any) -> Any:
    """A Trainer's class that asks `training.watch` in place of an evaluation."""
    from transformers import Trainer

    class Watching(Trainer):
        def evaluate(self, *arguments: Any, **named: Any) -> dict[str, float]:
            found = training.watch()
            self.log(dict(found))
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
            return found

    return Watching


def shared_arguments(options: TrainOptions, batch: int, folder: str, workers: int, every: int) -> dict[str, Any]:
    """What every training tells the Trainer.

    Args:
      batch: of a device. workers: loading processes. every: steps between two evaluations.
    """
    import torch

    from beam_pipeline.training.trainer import LOG_EVERY, precision_of

    recipe, precision = options.recipe, precision_of(options.precision)
    return {
        "output_dir": folder,
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": options.accumulate,
        "learning_rate": recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
        "adam_beta1": recipe.betas[0],
        "adam_beta2": recipe.betas[1],
        "num_train_epochs": recipe.epochs,
        "max_steps": options.max_steps or -1,
        "max_grad_norm": MAX_GRAD_NORM,
        "seed": options.seed,
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "use_cpu": not torch.cuda.is_available(),
        "save_total_limit": 2,
        "load_best_model_at_end": True,
        # Or patience would begin anew.
        "restore_callback_states_from_checkpoint": True,
        "metric_for_best_model": "eval_rank",
        "greater_is_better": True,
        "logging_strategy": "steps",
        "logging_steps": max(1, min(LOG_EVERY, every)),
        "remove_unused_columns": False,
        "dataloader_num_workers": workers,
        "dataloader_persistent_workers": workers > 0,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "report_to": "none",
        "disable_tqdm": True,
        "log_level": "error",
    }


def one_device(args: Any) -> Any:
    """The arguments for one GPU without torchrun: the Trainer would part batches among all, which ours can't be."""
    args._n_gpu = min(args.n_gpu, 1)
    return args


def add_callbacks(trainer: Any, options: TrainOptions, rank: int) -> None:
    """Leave all that is said to ours; stop by patience, and draw curves, where that is wished."""
    import transformers
    from transformers import EarlyStoppingCallback, PrinterCallback, ProgressCallback

    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    if options.patience is not None:
        trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=options.patience))
    if options.tensorboard and rank == 0:
        from torch.utils.tensorboard import SummaryWriter
        from transformers.integrations import TensorBoardCallback

        os.makedirs(options.tensorboard, exist_ok=True)
        trainer.add_callback(TensorBoardCallback(SummaryWriter(log_dir=options.tensorboard)))
    transformers.utils.logging.disable_progress_bar()


def teller(tell: Callable[[str], None], told: Callable[[Any, Mapping[str, float], float | None], str]) -> Any:
    """A callback that tells each evaluation in a line, and between two of them that it goes on.

    Args:
      told: the line, of the Trainer's state, what was found, and the loss that was last logged.
    """
    from transformers import TrainerCallback

    class Teller(TrainerCallback):
        #: What the Trainer last logged; it does so every few steps.
        loss: float | None = None
        last = time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            if time.monotonic() - self.last >= TELL_EVERY_S:
                self.last = time.monotonic()
                loss = "" if self.loss is None else f", loss {float(self.loss):.4f}"
                tell(f"step {state.global_step:,} of {state.max_steps:,}{loss}")

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
            self.loss = (logs or {}).get("loss", self.loss)

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **more: Any) -> None:
            self.last = time.monotonic()
            best = metrics["eval_rank"] > (-math.inf if state.best_metric is None else state.best_metric)
            tell(f"{told(state, metrics, self.loss)}{', the best so far' if best else ''}")

    return Teller()


def _epoch(state: Any, metrics: Mapping[str, float], loss: float | None) -> str:
    said = "" if loss is None else f", loss {float(loss):.4f}"
    return (
        f"epoch {state.epoch or 0:g} of {state.num_train_epochs:g}{said}, "
        f"validation loss {metrics['eval_loss']:.4f}, R@1 {100 * metrics['eval_agreement']:.1f}"
    )
