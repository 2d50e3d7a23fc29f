"""What Transformers' Trainer is given of a student: its clips, their order, its rates, and what it says.

trainer = build_trainer(training, folder)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from beam_pipeline.training.hooks import add_callbacks, one_device, shared_arguments, teller, watching
from beam_pipeline.training.trainer import loading_processes

if TYPE_CHECKING:
    from beam_pipeline.training.student_trainer import StudentTraining

#: Beside an evaluation in the log: by clip_id, why it could not be read so far.
UNREAD = "unread"


def spare_frozen(model: Any) -> None:
    """Let checkpoints leave out what never changes, where the configuration says from where it came."""
    from model_handlers.student_parts import check_references

    try:
        check_references(model.config)
    except ValueError:
        return
    model.config.save_frozen = False
    # What the Trainer looks at when it loads a checkpoint: missing tensors are then no surprise.
    model._leave_out()


def build_trainer(training: StudentTraining, folder: str) -> Any:
    """The Trainer of a training, on this process's device."""
    from accelerate.utils import gather_object

    class Ours(watching(training)):  # type: ignore[misc]
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return training.order

        def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **named: Any) -> Any:
            training.unread |= inputs.pop("unread", {})
            return super().compute_loss(model, inputs, *arguments, **named)

        def evaluate(self, *arguments: Any, **named: Any) -> dict[str, float]:
            found = super().evaluate(*arguments, **named)
            unread = dict(gather_object([*training.unread.items()]))
            if unread:
                # A checkpoint keeps what was logged: so they are known after an interruption, too.
                self.state.log_history[-1][UNREAD] = unread
            return found

        def get_decay_parameter_names(self, model: Any) -> list[str]:
            # Biases, gains of norms and what is added as it is are not drawn to nought.
            named = model.named_parameters()
            return [name for name, parameter in named if parameter.ndim == 2 and "positions" not in name]

    trainer = Ours(
        model=training.model,
        args=one_device(_arguments(training, folder)),
        train_dataset=training.seen,
        eval_dataset=training.watched["validation"],
        data_collator=training.seen.collate,
        callbacks=[_last_step(), teller(training.tell, _moment)],
    )
    add_callbacks(trainer, training.options, training.rank)
    return trainer


def _arguments(training: StudentTraining, folder: str) -> Any:
    from transformers import TrainingArguments

    options, recipe, steps = training.options, training.options.recipe, training.steps
    workers = loading_processes() if options.workers is None else options.workers
    if options.workers is None and training.features is not None:
        # What is kept is read faster than it is sent from another process.
        workers = 0
    return TrainingArguments(
        **shared_arguments(options, training.batch, folder, workers, steps.evaluate_every),
        lr_scheduler_type="cosine_warmup_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": recipe.last, "warmup_lr_rate": recipe.first},
        warmup_steps=steps.warmup,
        **_checkpointing(TrainingArguments, options.checkpointing),
        # A rank whose clips all lack text leaves what reads text without a gradient.
        ddp_find_unused_parameters=True,
        eval_strategy="steps",
        eval_steps=steps.evaluate_every,
        save_strategy="steps",
        save_steps=steps.evaluate_every,
    )


def _checkpointing(kind: Any, wanted: bool) -> dict[str, Any]:
    """The arguments that have activations computed twice; their earlier names warn, and go with Transformers 6."""
    if not wanted:
        return {}
    name = "activation" if "activation_checkpointing" in kind.__dataclass_fields__ else "gradient"
    return {f"{name}_checkpointing": True, f"{name}_checkpointing_kwargs": {"use_reentrant": False}}


def _last_step() -> Any:
    """A callback that has the last weights judged and kept, too, whatever the steps between evaluations."""
    from transformers import TrainerCallback

    class LastStep(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> Any:
            if state.global_step >= state.max_steps:
                control.should_evaluate = control.should_save = True
            return control

    return LastStep()


def _moment(state: Any, metrics: Mapping[str, float], loss: float | None) -> str:
    said = "" if loss is None else f"loss {float(loss):.4f}, "
    return f"step {state.global_step:,} of {state.max_steps:,}: {said}{watched(metrics)}"


def watched(metrics: Mapping[str, float]) -> str:
    """What an evaluation found, in words.

    >>> watched({"eval_loss": 2.5, "eval_cider_with_text": 0.5, "eval_cider_without_text": 0.25, "eval_rank": 0.4})
    'validation loss 2.5000, CIDEr 50.0 with text, 25.0 without text'
    """
    ciders = {name.removeprefix("eval_cider_"): value for name, value in metrics.items() if "_cider_" in name}
    told = ", ".join(f"{100 * value:.1f} {name.replace('_', ' ')}" for name, value in ciders.items())
    return f"validation loss {metrics['eval_loss']:.4f}{f', CIDEr {told}' if told else ''}"
