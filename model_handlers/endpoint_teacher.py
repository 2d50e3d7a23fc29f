"""Teachers behind an OpenAI-compatible endpoint: vLLM, SGLang, or any server that answers chats about pictures.

    settings = EndpointSettings(url="http://gpu-1:8000/v1", weights="Qwen/Qwen2.5-VL-7B-Instruct", inputs="V-S-M")
    clips | RunInference(EndpointTeacher("qwen-remote", settings))          # answers the caption

Frames go as they stand in the reel, as JPEG in data URLs. A request that the endpoint refuses costs its clip; one that
it never answers does so too, as long as it answers others. Otherwise the endpoint is down, and the batch raises; what
was answered before that is remembered for the batch's next attempt.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
import threading
import urllib.parse
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Self, TypeVar

from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import RemoteModelHandler

from model_handlers.endpoint import Endpoint, Terms, Work
from model_handlers.endpoint_chats import ORDER, Correspondent
from model_handlers.endpoint_keys import check_secret
from model_handlers.prompts import Prompt, prompt
from model_handlers.settings import Settings
from transforms.records import Clip, Outcome

#: Fields of a request that are not for the settings to change.
OURS = ("model", "messages", "stream", "n", "max_tokens")

KeptT = TypeVar("KeptT")


@dataclasses.dataclass(frozen=True)
class RemoteSettings(Settings):
    """How a model of another process is asked.

    Attributes:
      timeout_s: the deadline of a request. attempts: requests for one clip at the most.
      concurrent: requests under way at once, of each worker process.
      request_fields: further fields of a request's body that the server knows, such as {"reasoning_effort": "low"};
        None takes out the field `temperature`, which is 0 otherwise.
    """

    timeout_s: float = 120.0
    attempts: int = 6
    concurrent: int = 8
    request_fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("timeout_s", self.timeout_s)
        for name in ("attempts", "concurrent"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number from 1 up, not {value!r}")
        if not isinstance(self.request_fields, Mapping) or any(not isinstance(key, str) for key in self.request_fields):
            raise ValueError(f"request_fields must be a mapping of names to values, not {self.request_fields!r}")
        if wrong := sorted(set(OURS) & set(self.request_fields)):
            raise ValueError(f"request_fields must not hold {wrong[0]}; that follows from the other settings")
        try:
            json.dumps(dict(self.request_fields), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"request_fields must be values that JSON knows: {error}") from error

    def checked(self) -> Self:
        if not self.weights:
            raise ValueError("weights must name the model, as the endpoint knows it")
        kept = super().checked()
        kept.asked().check(self.inputs)
        return kept

    def asked(self) -> Prompt:
        if self.prompt:
            return super().asked()
        return prompt("video-sentence" if self.frames > 1 else "frame-sentence")

    def prompt_id(self) -> str:
        return f"{self.asked().prompt_id}/{self.inputs}/{self.wording()}"

    def wording(self) -> str:
        shaping = json.dumps([super().wording(), ORDER, sorted(self.request_fields.items())])
        return hashlib.sha256(shaping.encode()).hexdigest()[:8]


@dataclasses.dataclass(frozen=True)
class EndpointSettings(RemoteSettings):
    """How an endpoint is asked.

    Attributes:
      url: the base, such as http://host:8000/v1. revision: what stands in `captions.revision`, as nobody asks the
        server which one it has.
      key_env: the name of the environment variable that holds the key on the workers; where it is unset, none is sent.
      key_secret: projects/P/secrets/S/versions/V instead, a secret of Secret Manager that the workers may read; on
        Dataflow there is nobody to set a variable.
      requests_per_minute: of each worker process; None is without a limit.
    """

    url: str = ""
    key_env: str = "OPENAI_API_KEY"
    key_secret: str = ""
    requests_per_minute: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.url != "":
            check_url(self.url)
        # A key that was written here by mistake must not get into a message.
        if not isinstance(self.key_env, str) or not re.fullmatch(r"([A-Z_][A-Z0-9_]*)?", self.key_env):
            raise ValueError("key_env must be the NAME of an environment variable, in capitals, never the key itself")
        check_secret(self.key_secret)
        if self.requests_per_minute is not None:
            check_positive("requests_per_minute", self.requests_per_minute)

    def checked(self) -> Self:
        check_url(self.url)
        return super().checked()

    def version(self) -> str:
        return self.revision or "as served"


def check_positive(name: str, value: Any) -> None:
    """Raise `ValueError` unless the value is a number above 0 that can be waited for."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:
        raise ValueError(f"{name} must be a number above 0, not {value!r}")


def check_url(url: Any) -> None:
    """Raise `ValueError` unless the url is the http(s) base of an endpoint, without secrets."""
    like = "such as http://host:8000/v1"
    try:
        parts = urllib.parse.urlsplit(url if isinstance(url, str) else "")
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        whole = False
    # Neither of the first two messages repeats the url, as it may hold a password.
    if whole and "@" in parts.netloc:
        raise ValueError("url must hold no user and no password; put the key into the variable that key_env names")
    if whole and (parts.query or parts.fragment):
        raise ValueError(f"url must end with its path, {like}, without ? and #")
    if not whole or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"url must be an address, {like}, not {url!r}")
    if parts.path.rstrip("/").endswith("/completions"):
        raise ValueError(f"url must be the base, {like}, without /chat/completions")


_kept: dict[Hashable, Any] = {}
_keeping = threading.Lock()


def kept(key: str, make: Callable[[], KeptT]) -> KeptT:
    """What `make` gives, for the life of this process: its limits must hold for each bundle's handler together."""
    with _keeping:
        # A process that was forked off has no thread that would answer.
        place = (os.getpid(), key)
        if place not in _kept:
            _kept[place] = make()
        return _kept[place]


class RemoteTeacher(RemoteModelHandler[Clip, Outcome[Clip, str], Correspondent]):
    """A teacher that is asked over HTTP; subclasses create the client.

    Retries are the client's, clip by clip, as Beam's own would ask about a whole batch again and know no Retry-After.

    Args:
      name: the catalogue name. settings: how the model is asked.
    """

    def __init__(self, name: str, settings: RemoteSettings):
        # Beam's throttler holds back batches that follow a failed one; how long is its least wait.
        super().__init__(namespace=f"reelscribe/{name}", num_retries=0, retry_filter=_never, throttle_delay_secs=1)
        # Now, as a user's file of prompts is not there on a worker.
        self.name, self.settings = name, settings.checked()
        self._env_vars: dict[str, str] = {}

    @property
    def model_key(self) -> str:
        return f"{type(self).__qualname__}:{self.name}:{self.settings}"

    def request(
        self, batch: Sequence[Clip], model: Correspondent, inference_args: Mapping[str, Any] | None = None
    ) -> Iterable[Outcome[Clip, str]]:
        told = model.respond(batch)
        self._count(told.work)
        if told.error is not None:
            raise told.error
        return told.outcomes

    def _count(self, work: Work) -> None:
        namespace = self.get_metrics_namespace()
        Metrics.counter(namespace, "tokens").inc(work.tokens)
        Metrics.counter(namespace, "retries").inc(work.retries)
        for name, seconds in (("request_micro_secs", work.requests_s), ("rate_limit_wait_micro_secs", work.waits_s)):
            for one in seconds:
                Metrics.distribution(namespace, name).update(int(one * 1e6))
        # Clips wait for their turn together; Dataflow adds no workers for what is throttled.
        if waited_s := int(max(work.waits_s, default=0.0)):
            self.throttler.throttling_signaler.signal_throttled(waited_s)

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        return {"min_batch_size": self.settings.max_batch, "max_batch_size": self.settings.max_batch}

    def get_num_bytes(self, batch: Sequence[Clip]) -> int:
        return 512 * len(batch)

    def get_metrics_namespace(self) -> str:
        return f"reelscribe/{self.name}"


def _never(error: Exception) -> bool:
    return False


class EndpointTeacher(RemoteTeacher):
    """Asks a model behind an endpoint for a caption of a clip's frames and, by `settings.inputs`, its text."""

    settings: EndpointSettings

    def __init__(self, name: str, settings: EndpointSettings):
        super().__init__(name, settings)

    def create_client(self) -> Correspondent:
        settings = self.settings
        limits = terms_of(settings, settings.key_env, settings.requests_per_minute, settings.key_secret)
        return kept(
            self.model_key,
            lambda: Correspondent(Endpoint(settings.url, settings.weights, limits), settings, settings.asked()),
        )


def terms_of(
    settings: RemoteSettings, key_env: str = "", requests_per_minute: float | None = None, key_secret: str = ""
) -> Terms:
    """The client's terms in the settings."""
    return Terms(
        key_env=key_env,
        key_secret=key_secret,
        timeout_s=settings.timeout_s,
        attempts=settings.attempts,
        requests_per_minute=requests_per_minute,
        concurrent=settings.concurrent,
        max_tokens=settings.max_new_tokens,
        fields=dict(settings.request_fields),
    )
