"""A model that stays on its device and answers batches: pictures are prepared by threads while the device computes.

class Shouting:                                             # a network: three small steps
    def prepare(self, request): return request.clip_id      # a thread, on the CPU: frames, tokens
    def forward(self, prepared): return Raw([text.upper() for text in prepared])     # the device, one batch
    def finish(self, request, raw): return raw              # one answer; what raises here costs this request

outcomes, work = Resident(Shouting(), device, most=64).respond(requests)

Batches grow to what the device holds, by `batch_size.BatchSize`. A batch that runs out of memory is halved and goes on;
one that fails in another way is tried request by request, so that a bad one costs itself.
"""

from __future__ import annotations

import collections
import concurrent.futures
import copy
import dataclasses
import os
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Generic, Protocol, Self, TypeVar

from apache_beam.metrics import Metrics

from model_handlers.base import ENVIRONMENT_ERRORS, ElementwiseHandler, loading
from model_handlers.batch_size import BatchSize
from model_handlers.devices import Device, choose_device, free_unused, is_broken, is_out_of_memory
from model_handlers.settings import Settings
from transforms.records import AnswerT, Failure, Outcome, RequestT

#: On a CPU a larger batch computes no faster, and its pictures take memory.
CPU_BATCH = 4
PREPARING_THREADS = min(16, os.cpu_count() or 1)
#: How many of a device's batches there are in one of Beam's. Within it the next pictures are prepared meanwhile;
#: between two the device waits, which with a single one would cost it half of its time.
BATCHES_AHEAD = 8

NetworkRequestT = TypeVar("NetworkRequestT", contravariant=True)
NetworkAnswerT = TypeVar("NetworkAnswerT", covariant=True)
LoadedT = TypeVar("LoadedT")


_loaded: weakref.WeakValueDictionary[Hashable, Any] = weakref.WeakValueDictionary()
#: One batch at a time on a GPU, whatever models stand on it: two would share its speed and add up their memory.
computing: dict[str, threading.Lock] = collections.defaultdict(threading.Lock)


def loaded_once(key: Hashable, load: Callable[[], LoadedT]) -> LoadedT:
    """What `load` gives, shared by all who ask under the same key for as long as one of them holds it.

    Two teachers with other inputs but the same weights have one copy of them on a GPU.
    """
    with loading:
        kept = _loaded.get(key)
        if kept is None:
            kept = _loaded[key] = load()
        return kept


class DeviceTooSmall(RuntimeError):
    """Not even one request fits on the device: no retry helps, so the job stops."""


@dataclasses.dataclass(frozen=True, slots=True)
class Raw:
    """What a network made of a batch: one value a request, in order, and the tokens it generated for all of them."""

    values: Sequence[Any]
    tokens: int = 0


class Network(Protocol[NetworkRequestT, NetworkAnswerT]):
    """What a family of models implements; see the module's docstring."""

    def prepare(self, request: NetworkRequestT) -> Any: ...

    def forward(self, prepared: Sequence[Any]) -> Raw: ...

    def finish(self, request: NetworkRequestT, raw: Any) -> NetworkAnswerT: ...


@dataclasses.dataclass
class Work:
    """What answering cost.

    Attributes:
      batches: the size of each batch that went through the device. compute_s: of the device.
      wait_s: for the device, while another thread's batch was on it. tokens: generated.
      out_of_memory: batches that were halved.
    """

    batches: list[int] = dataclasses.field(default_factory=list)
    compute_s: float = 0.0
    wait_s: float = 0.0
    tokens: int = 0
    out_of_memory: int = 0


class Resident(Generic[RequestT, AnswerT]):
    """A network on its device; safe between threads, and usable through a proxy from other processes.

    Args:
      network: what answers. device: where it stands. most: requests a batch at the most.
    """

    def __init__(self, network: Network[RequestT, AnswerT], device: Device, most: int):
        self._network, self._device = network, device
        self._size = BatchSize(most, size=1 if device.is_gpu else min(most, CPU_BATCH))
        self._computing = computing[device.name] if device.is_gpu else threading.Lock()
        self._preparing = concurrent.futures.ThreadPoolExecutor(PREPARING_THREADS, thread_name_prefix="prepare")
        self._answered = False

    def respond(self, requests: Sequence[RequestT]) -> tuple[list[Outcome[RequestT, AnswerT]], Work]:
        """One outcome a request, in order, and what it cost."""
        work = Work()
        outcomes: list[Outcome[RequestT, AnswerT]] = []
        waiting = collections.deque(requests)
        ahead: collections.deque[tuple[RequestT, concurrent.futures.Future]] = collections.deque()
        while waiting or ahead:
            # Twice the batch: one to compute, and the next one to be prepared meanwhile.
            while waiting and len(ahead) < 2 * self._size.size:
                request = waiting.popleft()
                ahead.append((request, self._preparing.submit(self._network.prepare, request)))
            now = [ahead.popleft() for _ in range(min(self._size.size, len(ahead)))]
            outcomes += self._answer([(request, self._result(prepared)) for request, prepared in now], work)
        return outcomes, work

    @staticmethod
    def _result(prepared: concurrent.futures.Future) -> Any | Failure:
        try:
            return prepared.result()
        except ENVIRONMENT_ERRORS:
            raise
        except Exception as error:
            return Failure.of(error)

    def _answer(self, batch: Sequence[tuple[RequestT, Any | Failure]], work: Work) -> list[Outcome[RequestT, AnswerT]]:
        able = [prepared for _, prepared in batch if not isinstance(prepared, Failure)]
        raws = iter(self._forward(able, work))
        return [
            Outcome(request, failure=prepared) if isinstance(prepared, Failure) else self._finish(request, next(raws))
            for request, prepared in batch
        ]

    def _finish(self, request: RequestT, raw: Any | Failure) -> Outcome[RequestT, AnswerT]:
        if isinstance(raw, Failure):
            return Outcome(request, failure=raw)
        try:
            return Outcome(request, answer=self._network.finish(request, raw))
        except ENVIRONMENT_ERRORS:
            raise
        except Exception as error:
            return Outcome(request, failure=Failure.of(error))

    def _forward(self, prepared: Sequence[Any], work: Work) -> list[Any | Failure]:
        """The network's value for each, or why it has none; halves a batch that is too large."""
        if not prepared:
            return []
        try:
            return list(self._compute(prepared, work).values)
        except ENVIRONMENT_ERRORS:
            raise
        except Exception as error:
            if is_broken(error):
                raise
            overflowed = is_out_of_memory(error)
            if overflowed:
                work.out_of_memory += 1
                self._size.overflowed(len(prepared))
            if len(prepared) == 1:
                if overflowed and not self._answered:
                    raise DeviceTooSmall(f"{self._device.name} has no room for a single request: {error}") from error
                return [Failure.of(error)]
        # Outside the handler: the error holds the frames of the failed batch, and they hold its tensors.
        if overflowed:
            free_unused()
        step = (len(prepared) + 1) // 2 if overflowed else 1
        parts = [prepared[start : start + step] for start in range(0, len(prepared), step)]
        return [value for part in parts for value in self._forward(part, work)]

    def _compute(self, prepared: Sequence[Any], work: Work) -> Raw:
        import torch

        asked = time.monotonic()
        with self._computing, torch.inference_mode():
            began = time.monotonic()
            work.wait_s += began - asked
            before, room = self._device.allocated(), self._device.room()
            self._device.start_peak()
            raw = self._network.forward(prepared)
            if len(raw.values) != len(prepared):
                raise RuntimeError(f"the network gave {len(raw.values)} values to {len(prepared)} requests")
            if room is not None:
                self._size.passed(len(prepared), self._device.peak() - before, room)
            work.compute_s += time.monotonic() - began
        self._answered = True
        work.batches.append(len(prepared))
        work.tokens += raw.tokens
        return raw


class ResidentHandler(ElementwiseHandler[RequestT, AnswerT, Resident[RequestT, AnswerT]], Generic[RequestT, AnswerT]):
    """A handler whose model is a `Resident`; subclasses make the network.

    Args:
      name: the catalogue name. settings: how the model is loaded and asked.
    """

    def __init__(self, name: str, settings: Settings):
        super().__init__(name, max_batch=settings.max_batch)
        self.settings = settings
        self.identifier: str | None = None
        self._copies = 1

    def shared_by_machine(self, copies: int = 1) -> Self:
        """This handler with `copies` of its model for all processes of a machine; each stands on a GPU of its own.

        Beam keeps them in one of the processes and sends it requests over a local socket.
        """
        shared = copy.copy(self)
        # Beam finds the copies under this name, which must be no other job's.
        shared.identifier, shared._copies = f"reelscribe-{self.name}-{uuid.uuid4().hex}", copies
        return shared

    def share_model_across_processes(self) -> bool:
        return self.identifier is not None

    def model_copies(self) -> int:
        return self._copies

    def load_model(self) -> Resident[RequestT, AnswerT]:
        # Beam keeps what is shared itself, and asks for each of the copies.
        if not self.identifier:
            return super().load_model()
        with loading:
            return self.load()

    @property
    def model_key(self) -> str:
        return f"{type(self).__qualname__}:{self.name}:{self.settings}"

    def network(self, device: Device) -> Network[RequestT, AnswerT]:
        """Load the network onto the device."""
        raise NotImplementedError

    def load(self) -> Resident[RequestT, AnswerT]:
        # What an evicted model held is room for this one, and tells which GPU has most.
        free_unused()
        device = choose_device(self.settings.dtype)
        return Resident(self.network(device), device, self.max_batch)

    def run_inference(
        self,
        batch: Sequence[RequestT],
        model: Resident[RequestT, AnswerT],
        inference_args: Mapping[str, Any] | None = None,
    ) -> Iterable[Outcome[RequestT, AnswerT]]:
        outcomes, work = model.respond(batch)
        count_work(self.get_metrics_namespace(), work)
        return outcomes

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        # Equal, or Beam starts at one and grows by its own clock; a bundle's last batch is smaller.
        size = BATCHES_AHEAD * self.max_batch
        return {"min_batch_size": size, "max_batch_size": size}


def count_work(namespace: str, work: Work) -> None:
    """Tell Beam's metrics what answering cost."""
    for size in work.batches:
        Metrics.distribution(namespace, "device_batch_size").update(size)
    Metrics.distribution(namespace, "compute_micro_secs").update(int(work.compute_s * 1e6))
    Metrics.distribution(namespace, "queue_wait_micro_secs").update(int(work.wait_s * 1e6))
    Metrics.counter(namespace, "tokens").inc(work.tokens)
    Metrics.counter(namespace, "out_of_memory_retries").inc(work.out_of_memory)
