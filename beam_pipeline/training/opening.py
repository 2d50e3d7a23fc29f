"""Which of the catalogue's selectors can be trained, and how.

trainable = open_trainable(choose("selector", "lite-projection", complete=False).entry)
"""

from __future__ import annotations

import importlib

from beam_pipeline.training.trainable import Trainable
from model_handlers.catalogue import Entry

#: By the class of the selector's handler, what makes its trainable form of an entry: `module:function`.
TRAINABLES = {
    "LiteProjectionSelector": "beam_pipeline.training.lite_projection:open_lite_projection",
    "DualEncoderSelector": "beam_pipeline.training.two_tower:open_two_tower",
    "VideoTextSelector": "beam_pipeline.training.two_tower:open_two_tower",
    "UmtSelector": "beam_pipeline.training.umt:open_umt",
}


class NotTrainable(ValueError):
    """A selector that has nothing to train; the message says which to take instead."""


def open_trainable(entry: Entry) -> Trainable:
    """Load a selector of the catalogue to be trained.

    Raises:
      NotTrainable: it has nothing to train. WeightsError: its weights are missing.
    """
    module, _, function = _opener(entry).partition(":")
    try:
        return getattr(importlib.import_module(module), function)(entry)
    except ValueError as error:
        # Of some models only the loaded checkpoint tells that it is of a kind that can't be trained.
        raise NotTrainable(str(error)) from error


def check_trainable(entry: Entry) -> None:
    """Raise `NotTrainable` unless the selector can be trained; loads nothing."""
    _opener(entry)


def _opener(entry: Entry) -> str:
    for kind in type(entry.build()).__mro__:
        if kind.__name__ in TRAINABLES:
            return TRAINABLES[kind.__name__]
    other = "take --selector lite-projection"
    if entry.name == "conse":
        raise NotTrainable(f"conse has nothing to train; {other}, which starts from it")
    raise NotTrainable(f"{entry.name} can't be trained; {other}")
