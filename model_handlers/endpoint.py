"""A client of an OpenAI-compatible endpoint: many chats at once, each with a deadline and retries, at a bounded rate.

    endpoint = Endpoint("http://localhost:8000/v1", "qwen", Terms(concurrent=8))
    answers, work = endpoint.ask([lambda: [{"role": "user", "content": "Hello"}]])     # one a chat, in order

A chat is composed when its turn comes, so that only those under way take memory. What became of each is a `Reply`, a
`Lost` (its own fault), a `Silent` (nobody answered, whatever was tried), or an error of the environment.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import random
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from model_handlers.endpoint_answers import (
    MAX_ANSWER_BYTES,
    ChatError,
    EndpointError,
    NoAnswer,
    Reply,
    Told,
    judge,
    retry_after,
    unsupported_field,
)
from model_handlers.endpoint_keys import is_key, read_secret

FIRST_DELAY_S, MAX_DELAY_S = 1.0, 60.0
CONNECT_S = 10.0
#: Asked when nobody of a batch was answered; short, and without a picture.
PROBE = [{"role": "user", "content": "Answer with the word yes."}]
LOOPBACK = ("localhost", "127.0.0.1", "::1")

Messages = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Terms:
    """How an endpoint is asked.

    Attributes:
      key_env: the name of the environment variable that holds the key; it is read at each request and kept nowhere.
      key_secret: the name of the secret that holds it, which goes before; it is read when the client is made.
      timeout_s: of one request, from connecting to the last byte. attempts: requests for one answer at the most.
      requests_per_minute: None is as many as there are. concurrent: requests under way at once.
      max_tokens: of an answer. fields: further ones of the request's body.
    """

    key_env: str = ""
    key_secret: str = ""
    timeout_s: float = 120.0
    attempts: int = 6
    requests_per_minute: float | None = None
    concurrent: int = 8
    max_tokens: int = 64
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def key_name(self) -> str:
        """Where the key stands, for people."""
        return self.key_secret or self.key_env

    @property
    def patience_s(self) -> float:
        """For one answer, in requests and in waiting between them; a longer Retry-After is not waited for."""
        return self.attempts * max(self.timeout_s, MAX_DELAY_S)


@dataclasses.dataclass
class Work:
    """What asking cost: seconds of each request, and seconds it waited as the rate or the endpoint wished before it."""

    requests_s: list[float] = dataclasses.field(default_factory=list)
    waits_s: list[float] = dataclasses.field(default_factory=list)
    tokens: int = 0
    retries: int = 0


@dataclasses.dataclass(frozen=True)
class Lost:
    """A chat that could not be composed, that the endpoint refused, or whose answer is unusable."""

    error: Exception


@dataclasses.dataclass(frozen=True)
class Silent:
    """A chat that was not answered by the last attempt."""

    error: NoAnswer


Answer = Reply | Lost | Silent | BaseException


class Bucket:
    """Tokens for requests, `per_minute` of them a minute; a second's worth of them can be saved up."""

    def __init__(self, per_minute: float, now: float):
        self._per_s = per_minute / 60.0
        self._most = max(1.0, self._per_s)
        self._left, self._at = self._most, now

    def take(self, now: float) -> float:
        """Take a token, on credit where there is none; the seconds until it is really there."""
        self._left = min(self._most, self._left + (now - self._at) * self._per_s) - 1.0
        self._at = now
        return max(0.0, -self._left / self._per_s)


def backoff_s(attempt: int, wished_s: float | None) -> float:
    """The pause after an attempt, the first being 0: doubling and jittered, and never shorter than what was wished."""
    pause = min(MAX_DELAY_S, FIRST_DELAY_S * 2.0**attempt) * random.uniform(0.75, 1.25)
    return pause if wished_s is None else max(pause, wished_s + random.uniform(0.0, min(1.0, 0.1 * wished_s)))


class _Visit:
    """One batch of chats: what it cost, and the error of the environment that ended it."""

    def __init__(self) -> None:
        self.work = Work()
        self.broken: EndpointError | None = None


class Endpoint:
    """One endpoint, asked from one event loop on a thread of its own; its limits hold for all who call.

    Args:
      url: the base, such as http://host:8000/v1. model: its name there.
      find: gives the url anew after a connection was refused.

    Raises:
      EndpointError: the package httpx2 is missing, or the key's secret cannot be read.
    """

    def __init__(self, url: str, model: str, terms: Terms, find: Callable[[], str] | None = None):
        self._url, self._model, self._terms, self._find = url.rstrip("/"), model, terms, find
        self._fields: dict[str, Any] = {"max_tokens": terms.max_tokens, "temperature": 0, **terms.fields}
        self._client = _client(self._url, terms)
        self._secret = read_secret(terms.key_secret) if terms.key_secret else ""
        self._slots, self._finding = asyncio.Semaphore(terms.concurrent), asyncio.Lock()
        self._bucket = Bucket(terms.requests_per_minute, time.monotonic()) if terms.requests_per_minute else None
        self._quiet_until = 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()

    def ask(self, chats: Sequence[Callable[[], Messages]]) -> tuple[list[Answer], Work]:
        """What became of each chat, in order, and what it cost. Once the environment is at fault, no more are asked."""
        visit = _Visit()
        return self._run(self._ask_all(chats, visit)), visit.work

    def is_answering(self) -> bool:
        """Whether a short question gets an answer now, be it a refusal.

        Raises:
          EndpointError: see `judge`.
        """
        return self._run(self._probe())

    def close(self) -> None:
        """Close the connections and end the thread; nobody may be asking."""
        self._run(self._client.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, asking: Any) -> Any:
        future = asyncio.run_coroutine_threadsafe(asking, self._loop)
        try:
            return future.result()
        except BaseException:
            # Of this thread, such as a keyboard interrupt: nobody waits for the answers any more.
            future.cancel()
            raise

    async def _ask_all(self, chats: Sequence[Callable[[], Messages]], visit: _Visit) -> list[Answer]:
        return await asyncio.gather(*(self._ask(chat, visit) for chat in chats), return_exceptions=True)

    async def _ask(self, chat: Callable[[], Messages], visit: _Visit) -> Answer:
        spent_s = owed_s = 0.0
        for attempt in range(self._terms.attempts):
            async with self._slots:
                if visit.broken:
                    raise visit.broken
                try:
                    # Anew for each attempt: what waits for its next one keeps no pictures.
                    messages = await asyncio.to_thread(chat)
                except MemoryError:
                    raise
                except Exception as error:
                    return Lost(error)
                visit.work.waits_s.append(owed_s + await self._turn())
                began = time.monotonic()
                try:
                    reply = await self._post(messages, {})
                    visit.work.tokens += reply.tokens
                    return reply
                except ChatError as error:
                    return Lost(error)
                except EndpointError as error:
                    visit.broken = error
                    raise
                except NoAnswer as error:
                    last = error
                finally:
                    visit.work.requests_s.append(time.monotonic() - began)
                    spent_s += time.monotonic() - began
            pause_s = backoff_s(attempt, last.wished_s)
            if attempt + 1 == self._terms.attempts or spent_s + pause_s > self._terms.patience_s:
                break
            if last.unreachable == self._url and self._find:
                await self._find_again(last.unreachable, visit)
            owed_s = pause_s if last.overloaded else 0.0
            if last.overloaded:
                self._quiet_until = max(self._quiet_until, time.monotonic() + pause_s)
            visit.work.retries += 1
            await asyncio.sleep(pause_s)
            spent_s += pause_s
        return Silent(NoAnswer(f"no answer after {attempt + 1} requests in {spent_s:.0f} s; the last: {last}"))

    async def _find_again(self, lost: str, visit: _Visit) -> None:
        """Where the endpoint is now; starting it anew may take minutes, and one who looks does so for all."""
        async with self._finding:
            if lost == self._url and self._find:
                try:
                    self._url = (await asyncio.to_thread(self._find)).rstrip("/")
                except EndpointError as error:
                    visit.broken = error
                    raise

    async def _turn(self) -> float:
        """Wait until the rate allows a request and the endpoint wants one; the seconds that took."""
        began = time.monotonic()
        if self._bucket:
            await asyncio.sleep(self._bucket.take(began))
        while (quiet_s := self._quiet_until - time.monotonic()) > 0:
            await asyncio.sleep(quiet_s)
        return time.monotonic() - began

    async def _probe(self) -> bool:
        await self._turn()
        try:
            async with self._slots:
                await self._post(PROBE, {"max_tokens": 1})
        except NoAnswer:
            return False
        except ChatError:
            return True
        return True

    async def _post(self, messages: Messages, changes: Mapping[str, Any]) -> Reply:
        """One request's reply; a field of ours that the model does not know is given up, and the request made again."""
        while True:
            fields = {name: value for name, value in self._fields.items() if value is not None}
            for name in set(changes) & set(fields):
                fields[name] = changes[name]
            body = {"model": self._model, **fields, "messages": messages}
            told = await self._send(await asyncio.to_thread(lambda: json.dumps(body).encode()))  # noqa: B023
            unknown = unsupported_field(told)
            if unknown not in {"max_tokens", "temperature"} & set(fields) - set(self._terms.fields):
                return judge(told, self._url, self._model, self._terms.key_name)
            self._fields[unknown] = None
            if unknown == "max_tokens":
                self._fields["max_completion_tokens"] = self._terms.max_tokens

    async def _send(self, body: bytes) -> Told:
        import httpx2

        url, timeout_s = self._url, self._terms.timeout_s
        headers = self._headers()
        try:
            async with asyncio.timeout(timeout_s):
                async with self._client.stream(
                    "POST", f"{url}/chat/completions", content=body, headers=headers
                ) as sent:
                    parts, size = [], 0
                    async for part in sent.aiter_raw():
                        parts.append(part)
                        if (size := size + len(part)) > MAX_ANSWER_BYTES:
                            break
        except TimeoutError:
            raise NoAnswer(f"{url} gave no whole answer within {timeout_s:g} s") from None
        except httpx2.TransportError as error:
            told = " ".join(str(error).split()) or type(error).__name__
            gone = url if isinstance(error, httpx2.ConnectError) else ""
            raise NoAnswer(f"{url} can't be reached: {told}", unreachable=gone) from None
        secret = headers.get("Authorization", "").removeprefix("Bearer ")
        wished_s = retry_after(sent.headers.get("retry-after"), time.time())
        return Told(sent.status_code, b"".join(parts), wished_s, sent.headers.get("location", ""), secret)

    def _headers(self) -> dict[str, str]:
        # Compressed answers could grow without bound while they are unpacked.
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
        in_environment = os.environ.get(self._terms.key_env, "").strip() if self._terms.key_env else ""
        if key := self._secret or in_environment:
            if not is_key(key):
                raise EndpointError(f"{self._terms.key_name} holds no key but a text with blanks or odd characters")
            headers["Authorization"] = f"Bearer {key}"
        return headers


def _client(url: str, terms: Terms) -> Any:
    try:
        import httpx2
    except ImportError as error:
        raise EndpointError("teachers behind an endpoint need httpx2: pip install 'reelscribe[endpoint]'") from error
    return httpx2.AsyncClient(
        # The deadline of a request is ours, as this one starts anew with every part of an answer.
        timeout=httpx2.Timeout(None, connect=min(CONNECT_S, terms.timeout_s)),
        limits=httpx2.Limits(max_connections=terms.concurrent, max_keepalive_connections=terms.concurrent),
        # The key goes to the address that was configured and to no other.
        follow_redirects=False,
        # A proxy of the environment is for other hosts than this one.
        trust_env=urllib.parse.urlsplit(url).hostname not in LOOPBACK,
    )
