"""The Trainer's checkpoints, as a run that was killed left them.

last_checkpoint("models/selector/v1.unfinished")        # ".../checkpoint-320", or None
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
from typing import Any

_NAME = re.compile(r"checkpoint-(\d+)")
#: What the Trainer writes last into a checkpoint.
LAST = "trainer_state.json"
#: Without these it would go on, but not as it would have.
_NEEDED = ("optimizer.pt", "scheduler.pt")


class Diverged(RuntimeError):
    """No weights are better than any other, as no loss is a number."""


def checkpoints_of(folder: str) -> list[str]:
    """The checkpoints in a folder, the earliest first, whole or not."""
    found = [(int(match[1]), name) for name in os.listdir(folder) if (match := _NAME.fullmatch(name))]
    return [os.path.join(folder, name) for _, name in sorted(found)]


def remove_checkpoint(path: str) -> None:
    """Remove one so that a kill meanwhile leaves none that looks whole."""
    if os.path.exists(os.path.join(path, LAST)):
        os.remove(os.path.join(path, LAST))
    shutil.rmtree(path)


def last_checkpoint(folder: str) -> str | None:
    """The last whole one; those that a kill cut short are removed, as the Trainer would take them for whole.

    So are those that a full disk or a lost machine damaged: an earlier one is better than none.
    """
    whole = None
    for path in checkpoints_of(folder):
        if _is_whole(path):
            whole = path
        else:
            shutil.rmtree(path)
    return whole


def _is_whole(checkpoint: str) -> bool:
    names = os.listdir(checkpoint)
    if not {LAST, *_NEEDED} <= set(names) or not any(name.endswith(".safetensors") for name in names):
        return False
    return all(_is_readable(os.path.join(checkpoint, name)) for name in names)


def _is_readable(path: str) -> bool:
    """Whether a file ends where it says that it does; what it holds is not read."""
    from safetensors import SafetensorError, safe_open

    try:
        if path.endswith(".safetensors"):
            with safe_open(path, "np"):
                return True
        if path.endswith(".json"):
            with open(path, encoding="utf-8") as file:
                return isinstance(json.load(file), dict)
        return not path.endswith((".pt", ".pth")) or zipfile.is_zipfile(path)
    except (OSError, ValueError, SafetensorError):
        return False


def has_ended(checkpoint: str, patience: int | None) -> bool:
    """Whether the training of a whole one stopped there, as so many epochs had been no better."""
    with open(os.path.join(checkpoint, LAST), encoding="utf-8") as file:
        told = json.load(file).get("stateful_callbacks", {}).get("EarlyStoppingCallback", {})
    return patience is not None and told.get("attributes", {}).get("early_stopping_patience_counter", 0) >= patience


def _find_last(folder: str) -> str | None:
    """The last whole one, told; the first rank removes what is not whole before the others look."""
    from accelerate import PartialState

    with PartialState().main_process_first():
        last = last_checkpoint(folder)
    if PartialState().is_main_process:
        where = (
            "from the beginning: there is no whole checkpoint" if last is None else f"after {os.path.basename(last)}"
        )
        print(f"goes on {where}", flush=True)
    return last


def run_to_best(trainer: Any, folder: str, resume: bool, patience: int | None, moment: str) -> None:
    """Train, and leave the network with its best weights.

    Args:
      trainer: Transformers'. resume: from the last whole checkpoint, if there is one.
      moment: what its weights are judged after, in a word for people.

    Raises:
      Diverged: no moment is better than any other.
    """
    last = _find_last(folder) if resume else None
    if last is not None and has_ended(last, patience):
        # One more moment could be a better one, which a training that nobody interrupted never saw.
        trainer.state = type(trainer.state).load_from_json(os.path.join(last, LAST))
        trainer.state.best_model_checkpoint = None
    else:
        trainer.train(resume_from_checkpoint=last)
    state = trainer.state
    if last is not None and state.best_model_checkpoint is None and state.best_global_step is not None:
        # None was left, or the folder has another path by now.
        state.best_model_checkpoint = os.path.join(folder, f"checkpoint-{state.best_global_step}")
        if os.path.isdir(state.best_model_checkpoint):
            trainer._load_best_model()
    best = state.best_model_checkpoint
    if best is None:
        raise Diverged(f"no {moment} has a validation loss that is a number: take a lower --learning-rate")
    if not os.path.isdir(best):
        # The Trainer would only warn, and leave the last weights in place of the best ones.
        raise RuntimeError(f"the best {moment}'s checkpoint {best} is gone")
