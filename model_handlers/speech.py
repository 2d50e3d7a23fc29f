"""Speech to text with times, by a Whisper checkpoint through Transformers (Radford et al., 2022, arXiv 2212.04356).

    transcriber = load_transcriber(SpeechSettings("models/whisper-small"))
    transcriber.transcribe(chunks)             # [Spoken(start_s=0.0, end_s=2.4, text="Hello."), ...]

Sound is read window by window of 30 s, as the model was trained; the next window begins where the last whole sentence
ended (section 3.8 there), so that none is cut in two. Decoding is greedy: two runs say the same. In silence Whisper
invents words, and then repeats itself: windows without sound are skipped, and text that repeats itself is left out.
"""

from __future__ import annotations

import dataclasses
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from model_handlers.devices import Device, choose_device
from model_handlers.nearest import nearest
from model_handlers.pretrained import load_model, load_part
from model_handlers.resident import computing, loaded_once
from model_handlers.settings import Settings
from model_handlers.weights import WeightsError

RATE = 16_000
WINDOW_S = 30.0
#: Seconds from one timestamp token to the next.
PRECISION_S = 0.02
#: Peaks below this are silence (-60 dB of full scale): the noise of 16 bits lies at -96, of a quiet room near -60.
SILENT_BELOW = 0.001
#: Text that zlib makes this many times shorter repeats itself (section 4.5 there).
LOOPING_FROM = 2.4
#: Tokens before a window's own: start, language, task.
PROMPT_TOKENS = 4


@dataclasses.dataclass(frozen=True)
class SpeechSettings(Settings):
    """How Whisper is loaded; `max_new_tokens` are of a window: all that published decoders have room for."""

    max_new_tokens: int = 444


@dataclasses.dataclass(frozen=True, slots=True)
class Spoken:
    """What was said from `start_s` to `end_s`, in seconds from the first sample."""

    start_s: float
    end_s: float
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Parsed:
    """What the tokens of a window say.

    Attributes:
      spoken: (start_s, end_s, text tokens) in order, in seconds of the window.
      read_s: up to where the window is done with; the next one begins there.
    """

    spoken: tuple[tuple[float, float, tuple[int, ...]], ...]
    read_s: float


def parse(tokens: Sequence[int], *, ending: int, first: int, window_s: float, last: bool = False) -> Parsed:
    """Read the tokens that a window was decoded to.

    Args:
      tokens: text tokens are below `ending`, timestamps from `first` (0 s) up; those between are of no consequence.
      window_s: the window's length. last: nothing comes behind it, so that an unfinished sentence is all there is.
    """
    found: list[tuple[float, float, tuple[int, ...]]] = []
    start_s, words, trailing = 0.0, [], False
    for token in tokens:
        if token < ending:
            words.append(token)
        elif token >= first:
            time_s = min((token - first) * PRECISION_S, window_s)
            if words:
                found.append((start_s, max(start_s, time_s), tuple(words)))
            # A timestamp that opens the next sentence, of which there is no word yet.
            trailing = not words
            start_s, words = time_s, []
    if words and (last or not found):
        return Parsed((*found, (start_s, window_s, tuple(words))), window_s)
    if words or (trailing and found and not last):
        read_s = found[-1][1] if words else start_s
        # A window that tells nothing of where it stopped is done with, or it would be read for ever.
        return Parsed(tuple(found), read_s or window_s)
    return Parsed(tuple(found), window_s)


def is_looping(text: str) -> bool:
    """Whether a text says the same again and again."""
    written = text.encode()
    return len(written) / len(zlib.compress(written)) > LOOPING_FROM


class Transcriber:
    """A Whisper model on its device; safe between threads.

    Args:
      model: a `WhisperForConditionalGeneration` on `device`. processor: with its feature extractor and tokenizer.
      max_new_tokens: of a window.
    """

    def __init__(self, model: Any, processor: Any, device: Device, max_new_tokens: int):
        self._model, self._processor, self._device = model, processor, device
        self._most = min(max_new_tokens, model.config.max_target_positions - PROMPT_TOKENS)
        self._computing = computing[device.name] if device.is_gpu else threading.Lock()

    @property
    def languages(self) -> list[str]:
        """The codes of the languages that can be asked for ("de"); none for a model of English alone."""
        if not getattr(self._model.generation_config, "is_multilingual", False):
            return []
        return sorted(token.strip("<|>") for token in self._model.generation_config.lang_to_id)

    def transcribe(self, chunks: Iterable[np.ndarray], language: str | None = None) -> list[Spoken]:
        """What is said in a sound, in order.

        Args:
          chunks: the sound's samples piece by piece: mono, float32 in [-1, 1], 16,000 a second; any lengths, of which
            no more than 30 s and one chunk are held. language: its code; found out window by window if not given.

        Raises:
          ValueError: the samples are of another kind, or the model knows no such language.
        """
        self._check(language)
        found: list[Spoken] = []
        begin_s, window, last = 0.0, np.zeros(0, np.float32), False
        source = _checked(chunks)
        full = int(WINDOW_S * RATE)
        while not last or len(window):
            while not last and len(window) <= full:
                chunk = next(source, None)
                last = chunk is None
                window = window if chunk is None else np.concatenate([window, chunk])
            now = window[:full]
            if not len(now):
                break
            parsed = self._hear(now, language, last)
            found += [
                Spoken(round(begin_s + start_s, 3), round(begin_s + end_s, 3), text)
                for start_s, end_s, tokens in parsed.spoken
                if (text := self._text(tokens)) and not is_looping(text)
            ]
            read = min(max(round(parsed.read_s * RATE), 1), len(now))
            begin_s, window = begin_s + read / RATE, window[read:]
        return found

    def _hear(self, window: np.ndarray, language: str | None, last: bool) -> Parsed:
        window_s = len(window) / RATE
        if np.abs(window).max() < SILENT_BELOW:
            return Parsed((), window_s)
        config = self._model.generation_config
        tokens = self._generate(window, language)
        first = config.no_timestamps_token_id + 1
        return parse(tokens, ending=self._processor.tokenizer.eos_token_id, first=first, window_s=window_s, last=last)

    def _generate(self, window: np.ndarray, language: str | None) -> list[int]:
        import torch

        features = self._processor.feature_extractor(window, sampling_rate=RATE, return_tensors="pt").input_features
        # A model of English alone refuses to be told so.
        asked = {"language": language, "task": "transcribe"} if self.languages else {}
        with self._computing, torch.inference_mode():
            told = self._model.generate(
                features.to(self._device.name, self._device.dtype),
                return_timestamps=True,
                # This window once: where the next one begins is said by `parse`.
                force_unique_generate_call=True,
                max_new_tokens=self._most,
                do_sample=False,
                num_beams=1,
                **asked,
            )
        return told[0].tolist()

    def _text(self, tokens: Sequence[int]) -> str:
        return self._processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()

    def _check(self, language: str | None) -> None:
        if language is None or language in self.languages or (language == "en" and not self.languages):
            return
        if not self.languages:
            raise ValueError(f"this model knows English alone, not {language!r}; name a multilingual one")
        raise ValueError(f"this model knows no language {language!r}; {nearest(language, self.languages)}")


def _checked(chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for chunk in chunks:
        if chunk.ndim != 1 or chunk.dtype != np.float32:
            told = f"{chunk.dtype} of shape {chunk.shape}"
            raise ValueError(f"sound must be mono, float32 samples at {RATE} a second, not {told}")
        if not np.isfinite(chunk).all():
            raise ValueError("the sound holds samples that are no numbers")
        yield chunk


def load_transcriber(settings: SpeechSettings) -> Transcriber:
    """A Whisper checkpoint on its device, one copy of it a process.

    Raises:
      WeightsError: the checkpoint is missing, of another kind, or tells no times.
    """
    key = ("speech", settings.weights, settings.revision, settings.dtype, settings.max_new_tokens)
    return loaded_once(key, lambda: _load(settings))


def _load(settings: SpeechSettings) -> Transcriber:
    config = load_part("AutoConfig", settings)
    if config.model_type != "whisper":
        raise WeightsError(f"{settings.weights} is a {config.model_type} model; speech wants a Whisper checkpoint")
    device = choose_device(settings.dtype)
    model = load_model("WhisperForConditionalGeneration", settings, device)
    if getattr(model.generation_config, "no_timestamps_token_id", None) is None:
        raise WeightsError(f"{settings.weights} names no timestamps; it lacks Whisper's generation_config.json")
    return Transcriber(model, load_part("AutoProcessor", settings), device, settings.max_new_tokens)
