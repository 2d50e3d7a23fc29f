"""A Pub/Sub subscription that is pulled from: a message is gone only when it is acknowledged.

    subscription = Subscription("projects/my-project/subscriptions/uploads")
    for message in subscription.pull(max_messages=100, wait_s=10): ...
    subscription.extend(ids, 600)          # still at work
    subscription.acknowledge(ids)          # done: the rows are committed
    subscription.release(ids)              # not done: somebody else may have it now

What is pulled and not acknowledged within the subscription's deadline is delivered again, and so survives a kill. With
PUBSUB_EMULATOR_HOST set, Google's client goes there, without credentials.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import importlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

_NAME = re.compile(r"projects/[a-z][a-z0-9.:-]{4,61}[a-z0-9]/subscriptions/[A-Za-z][A-Za-z0-9._~+%-]{2,254}")
#: For one request with its repetitions.
_TIMEOUT_S = 60.0
#: A request may have 512 KiB; an id takes up to 200 bytes.
_IDS_A_REQUEST = 1000
#: What Pub/Sub allows, in seconds.
MAX_EXTENSION_S = 600


class SubscriptionError(ValueError):
    """A subscription that cannot be pulled from: the user's to mend."""


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """A delivery of a message; `ack_id` is this delivery's, `message_id` the message's."""

    ack_id: str
    message_id: str
    attributes: Mapping[str, str]
    payload: bytes
    published: datetime.datetime | None


def check_subscription(name: str) -> str:
    """Return the name if it is one. Raises SubscriptionError if not."""
    if not _NAME.fullmatch(name):
        raise SubscriptionError(f"{name!r} is no subscription; write projects/PROJECT/subscriptions/NAME")
    return name


@dataclasses.dataclass(frozen=True)
class Subscription:
    """A subscription by its full name, projects/PROJECT/subscriptions/NAME.

    Every method raises SubscriptionError where the subscription is missing or closed to us, and what Google's client
    raises (`GoogleAPIError`) where Pub/Sub is away for more than a minute.
    """

    name: str

    def __post_init__(self) -> None:
        check_subscription(self.name)

    def pull(self, max_messages: int = 100, wait_s: float = 10.0) -> list[Message]:
        """Wait up to `wait_s` for messages; return what is there then, at most `max_messages`, often fewer."""
        from google.api_core.exceptions import DeadlineExceeded

        with _asking(self.name) as client:
            try:
                request = {"subscription": self.name, "max_messages": max_messages}
                answer = client.pull(request=request, timeout=wait_s, retry=_retry(wait_s))
            except DeadlineExceeded:  # none came
                return []
        return [_message(received) for received in answer.received_messages]

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """Have these deliveries' messages never delivered again."""
        with _asking(self.name) as client:
            for some in _requests(ack_ids):
                request = {"subscription": self.name, "ack_ids": some}
                client.acknowledge(request=request, timeout=_TIMEOUT_S, retry=_retry(_TIMEOUT_S))

    def extend(self, ack_ids: Sequence[str], seconds: int) -> None:
        """Keep these deliveries' messages from being delivered again for `seconds` from now, at most 600."""
        if not 0 <= seconds <= MAX_EXTENSION_S:
            raise ValueError(f"a deadline is extended by 0 to {MAX_EXTENSION_S} s, not by {seconds}")
        with _asking(self.name) as client:
            for some in _requests(ack_ids):
                request = {"subscription": self.name, "ack_ids": some, "ack_deadline_seconds": seconds}
                client.modify_ack_deadline(request=request, timeout=_TIMEOUT_S, retry=_retry(_TIMEOUT_S))

    def release(self, ack_ids: Sequence[str]) -> None:
        """Have these deliveries' messages delivered again at once."""
        self.extend(ack_ids, 0)


def _message(received: Any) -> Message:
    message = received.message
    published = message.publish_time
    return Message(
        ack_id=received.ack_id,
        message_id=message.message_id,
        attributes=dict(message.attributes),
        payload=bytes(message.data),
        published=datetime.datetime.fromtimestamp(published.timestamp(), datetime.UTC) if published else None,
    )


def _requests(ack_ids: Iterable[str]) -> Iterator[list[str]]:
    left = iter(ack_ids)
    while some := list(itertools.islice(left, _IDS_A_REQUEST)):
        yield some


def _retry(deadline_s: float) -> Any:
    from google.api_core.exceptions import Aborted, ServiceUnavailable, Unknown
    from google.api_core.retry import Retry, if_exception_type

    return Retry(predicate=if_exception_type(Aborted, ServiceUnavailable, Unknown), initial=0.1, timeout=deadline_s)


@contextlib.contextmanager
def _asking(name: str) -> Iterator[Any]:
    """A client, whose errors that a user can mend become ours."""
    importlib.import_module("google.cloud.pubsub_v1")
    from google.api_core.exceptions import NotFound, PermissionDenied, Unauthenticated
    from google.auth.exceptions import DefaultCredentialsError

    try:
        yield _client(os.getpid(), os.environ.get("PUBSUB_EMULATOR_HOST"))
    except NotFound as error:
        told = f"create it: gcloud pubsub subscriptions create {name} --topic=TOPIC"
        raise SubscriptionError(f"there is no subscription {name}; {told}") from error
    except (PermissionDenied, Unauthenticated) as error:
        told = "it takes the role roles/pubsub.subscriber"
        raise SubscriptionError(f"{name} may not be pulled from; {told}") from error
    except DefaultCredentialsError as error:
        told = "gcloud auth application-default login"
        raise SubscriptionError(f"there are no credentials to pull from {name} with; run: {told}") from error


@functools.cache
def _client(process: int, emulator: str | None) -> Any:
    from google.cloud import pubsub_v1  # type: ignore[attr-defined]

    return pubsub_v1.SubscriberClient()
