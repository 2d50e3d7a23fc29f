"""What an endpoint is asked about a clip, and what its answer comes to.

    Correspondent(endpoint, settings, prompt("video-sentence")).respond(clips).outcomes

Frames go as they stand in the reel, as JPEG in data URLs: every server knows these, few know videos.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from model_handlers.answers import clean
from model_handlers.base import ENVIRONMENT_ERRORS
from model_handlers.endpoint import Endpoint, Lost, Messages, Silent, Work
from model_handlers.endpoint_answers import ChatError, EndpointError, NoAnswer, Reply
from model_handlers.frames import clip_rows, open_reel
from model_handlers.prompts import Prompt, fit
from model_handlers.settings import Settings
from transforms.records import Clip, Failure, Outcome

#: Stands before several pictures, as nothing else tells the model that they are one video.
ORDER = "The pictures are frames of one video clip, in order of time."
#: What was answered in batches that raised, kept for their next attempt: so many clips at the most.
REMEMBERED = 4096


def count_tokens(text: str) -> int:
    """An upper estimate of a text's tokens, as only the endpoint has its tokenizer: a token each three bytes of UTF-8.

    English has four and a half characters a token and other alphabets two to three (six bytes); a Chinese or Japanese
    character (three bytes) is about one.
    """
    return math.ceil(len(text.encode()) / 3)


def jpegs_of(clip: Clip, count: int) -> list[bytes]:
    """JPEG files of the clip's uniform frames as they stand in its reel; of one frame, a random one of its middle.

    Raises:
      ReelError: its reel is missing or unreadable.
    """
    reel = open_reel(clip.reel)
    return reel.jpegs(clip_rows(reel, clip, count))


def compose(clip: Clip, settings: Settings, wording: Prompt) -> Messages:
    """The chat that asks for a clip's caption: pictures first, then the prompt with as much of its text as fits.

    Raises:
      ReelError: the clip's reel is unreadable. NothingToTell, PromptTooLong: see `prompts.fit`.
    """
    asked = fit(wording, clip, settings.inputs, count_tokens, settings.text_tokens)
    seen: list[dict[str, Any]] = []
    if "V" in settings.inputs.split("-"):
        pictures = [base64.b64encode(jpeg).decode("ascii") for jpeg in jpegs_of(clip, settings.frames)]
        seen = [{"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{one}"}} for one in pictures]
        if len(seen) > 1:
            seen.insert(0, {"type": "text", "text": ORDER})
    return [_plain(message) for message in asked.messages(seen)]


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """A message without pictures holds a plain string, as some servers take nothing else in a system message."""
    content = message["content"]
    if isinstance(content, str) or any(part["type"] != "text" for part in content):
        return message
    return {**message, "content": "\n\n".join(part["text"] for part in content)}


@dataclasses.dataclass
class Told:
    """What came of a batch: an outcome a clip in order, or the error that it ends with; and what it cost."""

    outcomes: list[Outcome[Clip, str]]
    error: BaseException | None
    work: Work


class Correspondent:
    """Asks an endpoint about clips; safe between threads, and usable through a proxy from other processes."""

    def __init__(self, endpoint: Endpoint, settings: Settings, wording: Prompt):
        self._endpoint, self._settings, self._wording = endpoint, settings, wording
        self._remembered: dict[Clip, Outcome[Clip, str]] = {}
        self._lock = threading.Lock()

    def respond(self, batch: Sequence[Clip]) -> Told:
        """Ask about each clip of a batch, but not about those that it answered in an attempt that then failed."""
        with self._lock:
            outcomes = {clip: self._remembered[clip] for clip in batch if clip in self._remembered}
        # A clip that comes twice is asked about once.
        asked = [clip for clip in dict.fromkeys(batch) if clip not in outcomes]
        chats = [functools.partial(compose, clip, self._settings, self._wording) for clip in asked]
        answers, work = self._endpoint.ask(chats)
        failures: dict[Clip, Exception] = {}
        silent: list[NoAnswer] = []
        errors: list[BaseException] = []
        for clip, answer in zip(asked, answers, strict=True):
            if isinstance(answer, Reply):
                outcomes[clip] = finish(clip, answer)
            elif isinstance(answer, Lost) and isinstance(answer.error, ChatError):
                outcomes[clip] = Outcome(clip, failure=Failure.of(answer.error))
            elif isinstance(answer, Lost):
                failures[clip] = answer.error
            elif isinstance(answer, Silent):
                failures[clip] = answer.error
                silent.append(answer.error)
            else:
                errors.append(answer)
        # A clip on which the endpoint fails each time may stand alone in its batch; the job must not end of it.
        if silent and not errors and not outcomes and not self._is_answering(errors):
            errors.append(EndpointError(f"none of {len(silent)} clips was answered: {silent[0]}"))
        if errors:
            self._remember(outcomes)
            return Told([], errors[0], work)
        outcomes |= {clip: Outcome(clip, failure=Failure.of(error)) for clip, error in failures.items()}
        with self._lock:
            for clip in batch:
                self._remembered.pop(clip, None)
        return Told([outcomes[clip] for clip in batch], None, work)

    def _is_answering(self, errors: list[BaseException]) -> bool:
        """Whether the endpoint answers a question without a clip, so that the clips are to blame for its silence."""
        try:
            return self._endpoint.is_answering()
        except EndpointError as error:
            errors.append(error)
            return True

    def _remember(self, outcomes: Mapping[Clip, Outcome[Clip, str]]) -> None:
        with self._lock:
            self._remembered.update(outcomes)
            for clip in list(self._remembered)[:-REMEMBERED]:
                del self._remembered[clip]


def finish(clip: Clip, reply: Reply) -> Outcome[Clip, str]:
    """The caption in a reply, or why there is none."""
    try:
        return Outcome(clip, answer=clean(reply.text))
    except ENVIRONMENT_ERRORS:
        raise
    except Exception as error:
        return Outcome(clip, failure=Failure.of(error))
