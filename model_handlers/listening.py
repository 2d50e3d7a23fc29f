"""Speech as text: what is said in a video, as cues, like subtitles that somebody wrote.

    listener = Listener("speech", SpeechSettings("models/whisper-small"), sound=sound_of)
    videos | RunInference(listener)              # -> Outcome(request=SplitVideo, answer=(Cue(0.0, 2.4, "Hello."), ...))

Sound is large, so it is no part of a request: `sound` gets it where the model is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from model_handlers.base import ENVIRONMENT_ERRORS, ElementwiseHandler
from model_handlers.devices import is_broken
from model_handlers.speech import SpeechSettings, Transcriber, load_transcriber
from transforms.records import Cue, Failure, Outcome, SplitVideo

#: Gives the sound of a video in chunks of mono float32 samples, 16,000 a second, from the file's zero. What it raises
#: of a `ValueError` is that video's fault, all else the environment's.
Sound = Callable[[SplitVideo], contextlib.AbstractContextManager[Iterable[np.ndarray]]]

#: Counts the changes of what this makes of the same sound; videos are then heard again.
VERSION = 1


class Listener(ElementwiseHandler[SplitVideo, tuple[Cue, ...], Transcriber]):
    """Answers a split video with what is said in it.

    Args:
      name: which metrics and dead letters carry. settings: the model. sound: see `Sound`.
    """

    def __init__(self, name: str, settings: SpeechSettings, *, sound: Sound):
        # A video takes minutes: nothing is won by batches, and one that is repeated would repeat all of its videos.
        super().__init__(name, max_batch=1)
        self.settings, self._sound = settings, sound

    @property
    def model_key(self) -> str:
        return f"{super().model_key}:{self.settings}"

    def load(self) -> Transcriber:
        return load_transcriber(self.settings)

    def run_inference(
        self, batch: Sequence[SplitVideo], model: Transcriber, inference_args: Mapping[str, Any] | None = None
    ) -> Iterable[Outcome[SplitVideo, tuple[Cue, ...]]]:
        return [self._hear(split, model) for split in batch]

    def _hear(self, split: SplitVideo, model: Transcriber) -> Outcome[SplitVideo, tuple[Cue, ...]]:
        with contextlib.ExitStack() as stack:
            try:
                chunks = stack.enter_context(self._sound(split))
            except ValueError as error:
                return Outcome(split, failure=Failure.of(error))
            try:
                return Outcome(split, answer=cues_of(model, chunks, split.video.language))
            except (*ENVIRONMENT_ERRORS, OSError):
                raise
            except Exception as error:
                if is_broken(error):
                    raise
                return Outcome(split, failure=Failure.of(error))


def cues_of(model: Transcriber, chunks: Iterable[np.ndarray], language: str | None = None) -> tuple[Cue, ...]:
    """What is said in a sound, each text on one line, in order of time.

    Args:
      language: as whoever uploaded it says it. One that the model does not know is left to the model to find out.
    """
    told = model.transcribe(chunks, language_of(language, model.languages))
    cues = (Cue(one.start_s, one.end_s, " ".join(one.text.split())) for one in told)
    return tuple(sorted((cue for cue in cues if cue.text), key=lambda cue: (cue.start_s, cue.end_s)))


def language_of(told: str | None, known: Sequence[str]) -> str | None:
    """The code of a language that a model can be asked for, of what is told of a video ("de", "pt-BR", "EN_us").

    A model of English alone knows no codes and finds nothing out. It refuses other languages than English, of which it
    would make nonsense; so what is told is what it is asked for.

    >>> language_of("pt-BR", ["en", "pt"]), language_of("Klingon", ["en", "pt"]), language_of("de", [])
    ('pt', None, 'de')
    """
    code = (told or "").strip().lower().replace("_", "-").partition("-")[0]
    return code if code and (code in known or not known) else None
