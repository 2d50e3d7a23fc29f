"""Ask an `EndpointServer` through the teacher, and read what came of it.

server, quick = endpoint_asking.server, endpoint_asking.quick      # fixtures, for the module that names them
(outcome,) = ask(teacher_for(server, attempts=2), clips[:1])
told(outcome)                                                      # (None, "NoAnswer", "no answer after ...")
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from endpoint_server import FRAMES, EndpointServer

from model_handlers import endpoint
from model_handlers.endpoint_teacher import EndpointSettings, EndpointTeacher
from transforms.records import Clip, Outcome

#: An API key, which must show nowhere.
KEY = "sk-proj-THE-KEY-ITSELF"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between requests are short, and no key of this machine is used."""
    monkeypatch.setattr(endpoint, "FIRST_DELAY_S", 0.02)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def server() -> Iterator[EndpointServer]:
    """An endpoint that answers well until a test says otherwise."""
    with EndpointServer() as running:
        yield running


def settings_for(url: str, **changes: Any) -> EndpointSettings:
    """Settings for an endpoint with the model `tiny`."""
    return EndpointSettings(**{"url": url, "weights": "tiny", "frames": FRAMES, "timeout_s": 20.0, **changes})


def teacher_for(server: EndpointServer, **changes: Any) -> EndpointTeacher:
    """A teacher that asks this server."""
    return EndpointTeacher("remote", settings_for(server.url, **changes))


def ask(teacher: EndpointTeacher, batch: Sequence[Clip]) -> list[Outcome[Clip, str]]:
    """What a teacher makes of a batch, through Beam's own run_inference."""
    return list(teacher.run_inference(batch, teacher.load_model()))


def captions(outcomes: Sequence[Outcome[Clip, str]]) -> list[str | None]:
    """The answers alone."""
    return [outcome.answer for outcome in outcomes]


def told(outcome: Outcome[Clip, str]) -> tuple[str | None, str | None, str | None]:
    """The answer, or the failure's class and message."""
    failure = outcome.failure
    return (outcome.answer, failure and failure.error_class, failure and failure.message)
