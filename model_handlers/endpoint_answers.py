"""What an OpenAI-compatible endpoint said: an answer, a refusal, something to ask again, or a wrong configuration.

    reply = judge(Told(200, b'{"choices": ...}'), url, model, key_env)       # or raises

Whose fault it is decides: `ChatError` costs the chat, `NoAnswer` is asked again, `EndpointError` stops the job.
"""

from __future__ import annotations

import dataclasses
import email.utils
import json
import math
import re
from typing import Any

#: Of an answer and of an error; a caption has a thousandth of it.
MAX_ANSWER_BYTES = 1 << 20
SENTENCE_CHARACTERS = 300
NOTE_CHARACTERS = 2000

#: The request is at fault: too long, malformed, a picture that cannot be read.
OF_THE_REQUEST = (400, 413, 414, 415, 422)
#: It may go well the next time: a timeout, a conflict, too early, too many.
OF_THE_MOMENT = (408, 409, 425, 429)
#: Codes in the body that say more than the status: no retry and no other clip would fare better.
OF_THE_ACCOUNT = ("insufficient_quota", "billing_not_active", "invalid_api_key", "model_not_found")

_UNSUPPORTED = re.compile(r"[Uu]nsupported (?:parameter|value): '(\w+)'")


class EndpointError(RuntimeError):
    """The endpoint is down, or wrongly configured; one line that says what to check. The job can't go on."""


class NoAnswer(RuntimeError):
    """No answer this time.

    Attributes:
      wished_s: the pause that was asked for. overloaded: others should pause as well.
      unreachable: the url where nobody listens.
    """

    def __init__(self, message: str, wished_s: float | None = None, overloaded: bool = False, *, unreachable: str = ""):
        super().__init__(message)
        self.wished_s, self.overloaded, self.unreachable = wished_s, overloaded, unreachable


class ChatError(ValueError):
    """A chat that the endpoint does not answer usefully; `raw` is the answer, whose beginning becomes a note."""

    def __init__(self, message: str, raw: str = ""):
        super().__init__(message)
        self.raw = writable(raw)
        if raw:
            self.add_note(f"the answer was: {self.raw[:NOTE_CHARACTERS]}")


class RequestRefused(ChatError):
    """The endpoint finds fault with the request."""


class AnswerRefused(ChatError):
    """The model or its filter declined to answer."""


class BadAnswer(ChatError):
    """The answer isn't one of a chat."""


@dataclasses.dataclass(frozen=True)
class Reply:
    """What the model said, and how many tokens that took."""

    text: str
    tokens: int


@dataclasses.dataclass(frozen=True)
class Told:
    """A response. `secret`: the key, which no message may repeat. `wished_s`: its Retry-After."""

    status: int
    body: bytes
    wished_s: float | None = None
    location: str = ""
    secret: str = dataclasses.field(default="", repr=False)


def judge(told: Told, url: str, model: str, key_env: str) -> Reply:
    """The reply in a response.

    Raises:
      ChatError: it costs this chat. NoAnswer: ask again. EndpointError: the configuration is wrong.
    """
    if told.status == 200:
        return read_reply(told.body)
    sentence, code = sentence_of(told)
    heard = f"({told.status}: {sentence})" if sentence else f"({told.status})"
    if told.status == 401 or code == "invalid_api_key":
        how = f"set {key_env} to a valid key on every worker" if key_env else "name its variable as key_env"
        raise EndpointError(f"{url} wants a key {heard}; {how}")
    if told.status == 403:
        raise EndpointError(f"{url} forbids it {heard}; check what the key in {key_env or 'key_env'} may use")
    if told.status == 404 or code == "model_not_found":
        raise EndpointError(f"{url} has no model {model!r} {heard}; check weights, and url, which often ends in /v1")
    if told.status == 402 or code in OF_THE_ACCOUNT:
        raise EndpointError(f"{url} has no credit left for the key in {key_env or 'key_env'} {heard}")
    if 300 <= told.status < 400:
        place = " ".join(told.location.split("?")[0].split())[:SENTENCE_CHARACTERS]
        raise EndpointError(f"{url} redirects to {place or 'nowhere'}, where no key is sent; write that into url")
    if told.status in OF_THE_REQUEST:
        raise RequestRefused(f"the endpoint refuses this clip {heard}", _text(told))
    if told.status in OF_THE_MOMENT or told.status >= 500:
        overloaded = told.status == 429 or told.wished_s is not None
        raise NoAnswer(f"{url} is not able to answer {heard}", told.wished_s, overloaded)
    raise EndpointError(f"{url} answers in an unknown way {heard}; check that it is the base of a chat endpoint")


def read_reply(body: bytes) -> Reply:
    """The model's text in the body of a successful response.

    Raises:
      BadAnswer: it is too long, isn't JSON, or holds no text. AnswerRefused: the model declined.
    """
    raw = body.decode("utf-8", "replace")
    if len(body) > MAX_ANSWER_BYTES:
        raise BadAnswer(f"the answer is longer than {MAX_ANSWER_BYTES} bytes", raw)
    answer = _parsed(body)
    if not isinstance(answer, dict):
        raise BadAnswer("the answer is not a JSON object", raw)
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise BadAnswer("the answer has no choices", raw)
    text, refusal, reason = message.get("content"), message.get("refusal"), choice.get("finish_reason")
    if reason == "content_filter" or refusal:
        why = "its filter" if reason == "content_filter" else "the model"
        raise AnswerRefused(f"{why} declined to caption this clip", str(refusal or text or raw))
    if not isinstance(text, str) or not text.strip():
        if reason == "length":
            raise BadAnswer("the answer ended before its first word; raise max_new_tokens", raw)
        raise BadAnswer("the answer holds no text", raw)
    usage = answer.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else 0
    return Reply(writable(text), tokens if type(tokens) is int and 0 <= tokens < 1 << 31 else 0)


def sentence_of(told: Told) -> tuple[str, str]:
    """What an error says, on one line and without the key, and its code; either may be empty."""
    answer = _parsed(told.body)
    error: Any = answer
    for name in ("error", "detail"):
        if isinstance(error, dict) and name in error:
            error = error[name]
    code = error.get("code") if isinstance(error, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    if not isinstance(message, str):
        message = json.dumps(message) if message is not None else _text(told)
    if told.secret:
        message = message.replace(told.secret, "[key]")
    return " ".join(writable(message).split())[:SENTENCE_CHARACTERS], code if isinstance(code, str) else ""


def unsupported_field(told: Told) -> str:
    """The field of the request that the model does not take, or nothing.

    Reasoning models of OpenAI's own take `max_completion_tokens` for `max_tokens`, and no temperature.
    """
    found = _UNSUPPORTED.search(sentence_of(told)[0]) if told.status == 400 else None
    return found.group(1) if found else ""


def retry_after(header: str | None, now: float) -> float | None:
    """Seconds that a Retry-After header asks for, of either form; None where there is none that can be meant.

    Args:
      now: seconds since the epoch.
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return None if math.isnan(seconds) else max(0.0, seconds)


def writable(text: str) -> str:
    """The text without lone halves of characters, which can stand in JSON, and in no table."""
    return text.encode("utf-8", "ignore").decode("utf-8")


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _text(told: Told) -> str:
    text = told.body.decode("utf-8", "replace")
    return text.replace(told.secret, "[key]") if told.secret else text
