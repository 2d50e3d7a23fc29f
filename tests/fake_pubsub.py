"""Pub/Sub in this process, spoken to by Google's own clients: topics, subscriptions, leases that run out.

    with FakePubSub(ack_deadline_s=10) as pubsub:                   # sets PUBSUB_EMULATOR_HOST
        subscription = pubsub.subscribe("uploads")                  # projects/proj-test/subscriptions/uploads
        pubsub.publish({"eventType": "OBJECT_FINALIZE", ...})       # -> the message's id
        pubsub.advance(10)                                          # leases run out

A message that is pulled and not acknowledged is delivered again when its lease runs out, under another ack id; an ack
id of a lease that ran out acknowledges nothing.
"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent import futures
from typing import Any, Self

PROJECT = "projects/proj-test"
TOPIC = f"{PROJECT}/topics/notifications"


@dataclasses.dataclass
class _Queue:
    """A subscription: what waits, and what is leased as {ack id: (message, until)}."""

    topic: str
    ack_deadline_s: float
    waiting: list[Any] = dataclasses.field(default_factory=list)
    leased: dict[str, tuple[Any, float]] = dataclasses.field(default_factory=dict)
    acknowledged: list[str] = dataclasses.field(default_factory=list)

    def expire(self, now: float) -> None:
        for ack_id in [one for one, (_, until) in self.leased.items() if until <= now]:
            self.waiting.append(self.leased.pop(ack_id)[0])


class FakePubSub:
    """A gRPC server; `pull_wait_s` is how long a pull waits for a first message (the real one takes up to 90 s)."""

    def __init__(self, ack_deadline_s: float = 10.0, pull_wait_s: float = 0.2):
        self.ack_deadline_s, self.pull_wait_s = ack_deadline_s, pull_wait_s
        self.queues: dict[str, _Queue] = {}
        self.topics: dict[str, Any] = {}
        self.pulls = 0
        self._ahead_s = 0.0
        self._changed = threading.Condition()
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        import grpc
        from google.pubsub_v1 import types

        def rpc(answer: Callable, request: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(answer, request.deserialize, lambda made: _bytes_of(made))

        services = {
            "google.pubsub.v1.Publisher": {
                "CreateTopic": rpc(self._create_topic, types.Topic),
                "Publish": rpc(self._publish, types.PublishRequest),
            },
            "google.pubsub.v1.Subscriber": {
                "CreateSubscription": rpc(self._create_subscription, types.Subscription),
                "DeleteSubscription": rpc(self._delete_subscription, types.DeleteSubscriptionRequest),
                "Pull": rpc(self._pull, types.PullRequest),
                "Acknowledge": rpc(self._acknowledge, types.AcknowledgeRequest),
                "ModifyAckDeadline": rpc(self._modify_ack_deadline, types.ModifyAckDeadlineRequest),
            },
        }
        self._server = grpc.server(futures.ThreadPoolExecutor(16))
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(name, methods) for name, methods in services.items()]
        )
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self._before = os.environ.get("PUBSUB_EMULATOR_HOST")
        os.environ["PUBSUB_EMULATOR_HOST"] = f"127.0.0.1:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is None:
            os.environ.pop("PUBSUB_EMULATOR_HOST", None)
        else:
            os.environ["PUBSUB_EMULATOR_HOST"] = self._before
        self._server.stop(0).wait()

    def subscribe(self, name: str, topic: str = TOPIC) -> str:
        """Create a subscription; return its full name."""
        full = f"{PROJECT}/subscriptions/{name}"
        self.queues[full] = _Queue(topic, self.ack_deadline_s)
        return full

    def publish(self, attributes: Mapping[str, str], payload: bytes = b"", topic: str = TOPIC) -> str:
        """Publish a message to all subscriptions of the topic; return its id."""
        from google.pubsub_v1 import types

        request = types.PublishRequest(topic=topic, messages=[types.PubsubMessage(data=payload, attributes=attributes)])
        return self._publish(request, None).message_ids[0]

    def advance(self, seconds: float) -> None:
        """Let so much time pass for the leases."""
        with self._changed:
            self._ahead_s += seconds

    def _now(self) -> float:
        return time.monotonic() + self._ahead_s

    def left(self, subscription: str) -> int:
        """How many messages of a subscription are not acknowledged."""
        with self._changed:
            return len(self.queues[subscription].waiting) + len(self.queues[subscription].leased)

    def _create_topic(self, request: Any, context: Any) -> Any:
        self.topics[request.name] = request
        return request

    def _create_subscription(self, request: Any, context: Any) -> Any:
        deadline_s = request.ack_deadline_seconds or self.ack_deadline_s
        self.queues[request.name] = _Queue(request.topic, deadline_s)
        return request

    def _delete_subscription(self, request: Any, context: Any) -> Any:
        from google.protobuf import empty_pb2

        self.queues.pop(request.subscription, None)
        return empty_pb2.Empty()

    def _publish(self, request: Any, context: Any) -> Any:
        from google.pubsub_v1 import types

        ids = []
        with self._changed:
            for sent in request.messages:
                ids.append(str(next(self._numbers)))
                message = types.PubsubMessage(
                    data=sent.data,
                    attributes=dict(sent.attributes),
                    message_id=ids[-1],
                    publish_time=datetime.datetime.now(datetime.UTC),
                )
                for queue in self.queues.values():
                    if queue.topic == request.topic:
                        queue.waiting.append(message)
            self._changed.notify_all()
        return types.PublishResponse(message_ids=ids)

    def _pull(self, request: Any, context: Any) -> Any:
        from google.pubsub_v1 import types

        until = time.monotonic() + self.pull_wait_s
        with self._changed:
            self.pulls += 1
            queue = self._queue(request.subscription, context)
            queue.expire(self._now())
            while not queue.waiting and (left := until - time.monotonic()) > 0:
                self._changed.wait(min(left, 0.05))
                queue.expire(self._now())
            received = []
            for message in queue.waiting[: request.max_messages]:
                ack_id = f"ack-{next(self._numbers)}"
                queue.leased[ack_id] = (message, self._now() + queue.ack_deadline_s)
                received.append(types.ReceivedMessage(ack_id=ack_id, message=message))
            del queue.waiting[: len(received)]
        return types.PullResponse(received_messages=received)

    def _acknowledge(self, request: Any, context: Any) -> Any:
        from google.protobuf import empty_pb2

        with self._changed:
            queue = self._queue(request.subscription, context)
            queue.expire(self._now())
            for ack_id in request.ack_ids:
                if ack_id in queue.leased:
                    queue.acknowledged.append(queue.leased.pop(ack_id)[0].message_id)
        return empty_pb2.Empty()

    def _modify_ack_deadline(self, request: Any, context: Any) -> Any:
        from google.protobuf import empty_pb2

        with self._changed:
            queue = self._queue(request.subscription, context)
            queue.expire(self._now())
            for ack_id in request.ack_ids:
                if ack_id in queue.leased:
                    message, _ = queue.leased[ack_id]
                    queue.leased[ack_id] = (message, self._now() + request.ack_deadline_seconds)
            queue.expire(self._now())
            self._changed.notify_all()
        return empty_pb2.Empty()

    def _queue(self, subscription: str, context: Any) -> _Queue:
        import grpc

        if subscription not in self.queues:
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no subscription {subscription}")
        return self.queues[subscription]


def _bytes_of(message: Any) -> bytes:
    serialize = getattr(type(message), "serialize", None)
    return serialize(message) if serialize else message.SerializeToString()
