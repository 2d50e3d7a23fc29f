"""The feed of a bucket's notifications: pulled, worked on, and acknowledged when the rows are committed.

feed = SubscriptionFeed("projects/p/subscriptions/s"); feed.arrivals(wait_s=5)      # -> [Arrival(source, since), ...]
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import threading
import time
from collections.abc import Collection, Iterable
from typing import Any

from beam_pipeline.feeds import Arrival
from transforms.allowed import told_by
from transforms.notifications import Notification, parse_notification, sources_of
from transforms.objects import Refused, StorageError
from transforms.subscriptions import Message, Subscription

_log = logging.getLogger(__name__)

#: After a kill, messages come again when this is over; a watch that lives asks for more in time.
_KEPT_S = 120
#: For how long Pub/Sub or Cloud Storage may give no answer before that ends the watch.
_AWAY_S = 600.0
#: How long one request for messages waits for some.
_PULL_S = 60.0
_FIRST_ANSWER_S = 10.0


class _Patience:
    """Bears that a service is away, for a while."""

    def __init__(self, service: str):
        self._service = service
        self._away_since: float | None = None
        self.answered = False

    def bear(self, error: Exception) -> None:
        """Note an error; raise it when there was nothing else for too long."""
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
            _log.warning("%s is away: %s", self._service, error)
        elif now - self._away_since > _AWAY_S:
            raise error

    def is_back(self) -> None:
        """It answered."""
        self._away_since, self.answered = None, True


class SubscriptionFeed:
    """Pulls a bucket's notifications; a message is acknowledged when the rows of all its videos are committed.

    Deletes and archives, and messages that are no notifications, are told in `events`, and acknowledged when these are
    recorded.

    Args:
      allowed: the buckets that may be told of; none stands for any. What tells of another one is refused.
    """

    def __init__(self, subscription: str, *, max_messages: int = 100, allowed: Collection[str] = ()):
        self.inputs: tuple[str, ...] = (f"pubsub://{subscription}",)
        self.events: list[dict[str, Any]] = []
        self._subscription = Subscription(subscription)
        self._max_messages, self._buckets = max_messages, told_by(allowed)
        #: Messages that are not acknowledged, and of how many videos they wait for each.
        self._open: dict[str, int] = {}
        self._told: list[str] = []
        #: Messages whose bucket is away: they come again when their deadline has passed.
        self._later: set[str] = set()
        self._pubsub, self._storage = _Patience("Pub/Sub"), _Patience("Cloud Storage")
        self._kept_at = time.monotonic()
        self._pulling: concurrent.futures.Future[list[Message]] | None = None
        self._pulls, self._began = 0, time.monotonic()

    @property
    def has_looked(self) -> bool:
        # A request that waits so long waits for messages, and not for a service that has a lot to do.
        return self._pulls > 0 or time.monotonic() - self._began > _FIRST_ANSWER_S

    def arrivals(self, wait_s: float) -> list[Arrival]:
        messages = self._pull(wait_s)
        if not messages:
            return []
        receipts = [message.ack_id for message in messages]
        came: list[Arrival] = []
        try:
            for message in messages:
                came += self._read(message)
                self.keep()
        except BaseException:
            self._forget(receipts)
            with contextlib.suppress(Exception):
                self._subscription.release(receipts)
            raise
        self._subscription.acknowledge([one for one in receipts if one not in self._open and one not in self._later])
        self._later.clear()
        return came

    def _pull(self, wait_s: float) -> list[Message]:
        """What the request for messages that is under way brings within so long.

        One that is given up may be answered all the same: what it brings is lost until its deadline, which may be ten
        minutes. So a request goes on when this returns, and the next call waits for it.
        """
        from google.api_core.exceptions import GoogleAPIError

        began = time.monotonic()
        if self._pulling is None:
            self._pulling = concurrent.futures.Future()
            # A daemon: at the end nobody waits for it.
            threading.Thread(target=self._request, args=(self._pulling,), name="pull", daemon=True).start()
        concurrent.futures.wait([self._pulling], timeout=wait_s)
        if not self._pulling.done():
            return []
        pulled, self._pulling = self._pulling, None
        self._pulls += 1
        try:
            messages = pulled.result()
        except GoogleAPIError as error:
            self._pubsub.bear(error)
            time.sleep(max(0.0, began + wait_s - time.monotonic()))
            return []
        self._pubsub.is_back()
        return messages

    def _request(self, pulled: concurrent.futures.Future[list[Message]]) -> None:
        try:
            messages = self._subscription.pull(self._max_messages, _PULL_S)
            # At once: a subscription's own deadline may be ten seconds, and each message is a look into the bucket.
            self._subscription.extend([message.ack_id for message in messages], _KEPT_S)
            pulled.set_result(messages)
        except BaseException as error:
            pulled.set_exception(error)

    def _read(self, message: Message) -> list[Arrival]:
        """The videos that a message leads to; it stays open until they, or the event that it tells, are recorded."""
        try:
            told = parse_notification(message.attributes, self._buckets)
        except ValueError as error:
            _log.warning("message %s is refused: %s", message.message_id, error)
            self._tell(message, {"event": "refused", "message_id": message.message_id, "problem": str(error)})
            return []
        if told.kind in ("delete", "archive"):
            self._tell(message, _event(told))
            return []
        try:
            sources = sources_of(told)
        except (Refused, StorageError) as error:
            # A missing role shows at the first look; later it may be one bucket of many.
            if isinstance(error, Refused) and not self._storage.answered:
                raise
            self._storage.bear(error)
            self._later.add(message.ack_id)
            return []
        self._storage.is_back()
        if sources:
            self._open[message.ack_id] = len(sources)
        return [Arrival(source, told.event_time.timestamp(), (message.ack_id,)) for source in sources]

    def _tell(self, message: Message, event: dict[str, Any]) -> None:
        self.events.append(event)
        self._told.append(message.ack_id)
        self._open[message.ack_id] = 1

    def recorded(self) -> None:
        self._settle(self._told)
        self._told = []

    def done(self, arrivals: Iterable[Arrival]) -> None:
        self._settle(receipt for arrival in arrivals for receipt in arrival.receipts)

    def _settle(self, receipts: Iterable[str]) -> None:
        finished = []
        for receipt in receipts:
            # One that was released is somebody else's now.
            if receipt in self._open:
                self._open[receipt] -= 1
                if not self._open[receipt]:
                    del self._open[receipt]
                    finished.append(receipt)
        self._subscription.acknowledge(finished)

    def release(self, arrivals: Iterable[Arrival]) -> None:
        receipts = list(dict.fromkeys(receipt for arrival in arrivals for receipt in arrival.receipts))
        self._forget(receipts)
        if self._pulling is not None and self._pulling.done():
            # Nobody has looked at these.
            receipts += [message.ack_id for message in self._pull(0.0)]
        self._subscription.release(receipts)

    def _forget(self, receipts: Iterable[str]) -> None:
        for receipt in receipts:
            self._open.pop(receipt, None)

    def keep(self) -> None:
        if self._open and time.monotonic() - self._kept_at > _KEPT_S / 4:
            self._kept_at = time.monotonic()
            self._subscription.extend(list(self._open), _KEPT_S)


def _event(told: Notification) -> dict[str, Any]:
    return {
        "event": told.kind,
        "uri": told.uri,
        "generation": told.generation,
        "overwritten_by": told.overwritten_by,
        "at": told.event_time.isoformat(),
    }
