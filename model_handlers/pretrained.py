"""Load a checkpoint through Transformers' own classes: safetensors alone, never code that came with it.

model = load_model("AutoModelForImageTextToText", settings, device)
processor = load_part("AutoProcessor", settings)
"""

from __future__ import annotations

import contextlib
import functools
import textwrap
from collections.abc import Iterator
from typing import Any

from model_handlers.devices import Device
from model_handlers.resident import loaded_once
from model_handlers.settings import Settings
from model_handlers.weights import WeightsError


def load_model(kind: str, settings: Settings, device: Device, **more: Any) -> Any:
    """A model on its device, ready to answer; one copy of it a process, whoever asks.

    Args:
      kind: a class of Transformers by name. more: for its `from_pretrained`.

    Raises:
      WeightsError: the files are missing, out of reach, or do not fit the class; the message says what to do.
    """
    key = (kind, settings.weights, settings.revision, settings.seen, device, tuple(sorted(more.items())))
    return loaded_once(key, lambda: _load_model(kind, settings, device, more))


def _load_model(kind: str, settings: Settings, device: Device, more: dict[str, Any]) -> Any:
    _let_padding_attend()
    model, report = _from_pretrained(
        kind, settings, dtype=device.dtype, use_safetensors=True, output_loading_info=True, **more
    )
    # Transformers fills in what is missing at random and only logs it; such captions would be noise.
    if missing := sorted(report["missing_keys"]):
        raise WeightsError(f"{settings.weights} lacks {len(missing)} tensors of {kind}, such as {missing[0]}")
    return model.to(device.name).eval().requires_grad_(False)


@functools.cache
def _let_padding_attend() -> None:
    """Give a row of padding, which may attend to nothing, everything to attend to; nobody reads what comes of it.

    Such rows stand in every batch that is padded on the left. Some of torch's kernels answer them with NaN, which the
    next layer's values carry into the rows that count; Transformers 5 no longer mends its masks.
    """
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    def mended(*arguments: Any, **named: Any) -> Any:
        mask = sdpa_mask(*arguments, **named)
        return mask if mask is None else mask | ~mask.any(dim=-1, keepdim=True)

    AttentionMaskInterface.register("sdpa", mended)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep Transformers from listing every tensor that half a model leaves out, and from drawing bars."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def load_part(kind: str, settings: Settings, **more: Any) -> Any:
    """A processor, tokenizer or configuration of a checkpoint.

    Raises:
      WeightsError: see `load_model`.
    """
    return _from_pretrained(kind, settings, **more)


def _from_pretrained(kind: str, settings: Settings, **more: Any) -> Any:
    import transformers
    from safetensors import SafetensorError

    place = settings.place()
    try:
        with _quietly():
            return getattr(transformers, kind).from_pretrained(place.path, **place.hub, **more)
    except AttributeError as error:
        if hasattr(transformers, kind):
            raise
        raise WeightsError(f"this Transformers ({transformers.__version__}) has no {kind}; upgrade it") from error
    except SafetensorError as error:
        raise WeightsError(f"{settings.weights} is not whole ({error}); copy it again") from error
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        # Of an unknown kind Transformers lists all that it knows.
        told = textwrap.shorten(str(error), 400, placeholder=" ...")
        raise WeightsError(f"{settings.weights} can't be loaded as {kind}: {told}") from error
