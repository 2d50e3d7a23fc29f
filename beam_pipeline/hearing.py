"""The speech model that a configuration asks for: which weights, what their licence allows, and where it stands.

    choice = speech_choice("models/whisper-small")                     # choice.entry, choice.hints
    videos | HearVideos(speech_of(output), *placed(choice.entry), made_with)

Nobody listens unless it is asked for; a configuration without leaves the rows as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from beam_pipeline.choosing import HINTS, Choice, check_word, hints_of, licence_of
from model_handlers.catalogue import Entry
from model_handlers.listening import VERSION, Listener
from model_handlers.speech import SpeechSettings
from transforms.sound import sound_of

_OF_MODEL = ("weights", "revision", "dtype")
_KEYS = (*_OF_MODEL, "licence", "commercial", *HINTS)

#: Billions of parameters of OpenAI's checkpoints, by the table of their model card, and what the hub sends, in GB.
_SIZES = {"tiny": (0.04, 0.2), "base": (0.07, 0.3), "small": (0.24, 1.0), "medium": (0.77, 3.1)}
_SIZES |= {"large": (1.55, 6.2), "large-v2": (1.55, 6.2), "large-v3": (1.55, 3.1), "large-v3-turbo": (0.81, 1.6)}
_PUBLISHER = "openai/whisper-"


def speech_choice(asked: Any) -> Choice | None:
    """The model that a configuration's `speech` means; None where it asks for none.

    Args:
      asked: the weights, or a mapping of `weights`, and perhaps `revision`, `dtype`, `licence`, `commercial`,
        `accelerator` and `min_ram`.

    Raises:
      ValueError: it can't be meant; the message says what could. WeightsError: no such weights.
    """
    if asked is None or asked is False:
        return None
    values = {"weights": asked} if isinstance(asked, str) else asked
    if not isinstance(values, Mapping) or not values.get("weights"):
        raise ValueError(
            f"speech needs weights: of a Whisper model, a directory, gs://, or a hub id with a revision, not {asked!r}"
        )
    for key in values:
        check_word("key of speech", key, _KEYS)
    of_model: dict[str, Any] = {key: values[key] for key in _OF_MODEL if key in values}
    settings = SpeechSettings(**of_model)
    hints = hints_of(values)
    size, (licence, restricted) = _size(settings.weights), _licence(settings.weights, values)
    return Choice(
        Entry(
            name="speech",
            model=settings.weights,
            revision=settings.version(),
            licence=licence,
            summary="what is said in videos without subtitles, by a Whisper model",
            factory=functools.partial(Listener, sound=sound_of),
            prompt_id=f"{VERSION}/{settings.dtype}/{settings.max_new_tokens}",
            settings=settings,
            restricted=restricted,
            parameters_b=size[0],
            download_gb=size[1],
        ),
        hints,
    )


def _size(weights: str) -> tuple[float, float]:
    """Of a checkpoint of OpenAI's; those of English alone (`.en`) are as large."""
    return _SIZES.get(weights.removeprefix(_PUBLISHER).removesuffix(".en"), (0.0, 0.0))


def _licence(weights: str, values: Mapping[str, Any]) -> tuple[str, str]:
    """The licence, and why it restricts what the text may be used for; "" where it does not."""
    known = "licence" not in values and "commercial" not in values and weights.startswith(_PUBLISHER)
    if known and weights.removeprefix(_PUBLISHER).removesuffix(".en") in _SIZES:
        return "MIT" if weights.endswith("-turbo") else "Apache-2.0", ""
    return licence_of("speech", values)
