"""Several models that take turns on one GPU: the least recently used ones make room.

    handler = TakeTurns({"blip2-opt-2.7b": blip, "llava-next-video-7b": llava}, at_once=1, per_turn=256)
    named_clips | RunInference(handler, model_identifier=handler.identifier)     # (name, clip) -> (name, Outcome)

Like Beam's `KeyedModelHandler` with its `max_models_per_worker_hint`, which was tried first. There every model is an
object of Beam's own server, which leaves a socket, two threads and two files behind at each eviction, refuses a model
for good once it has failed to load, and lets threads and processes evict what another one is loading.
"""

from __future__ import annotations

import collections
import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from apache_beam.ml.inference.base import ModelHandler

from model_handlers.base import loading
from model_handlers.resident import Resident, ResidentHandler, Work, count_work
from transforms.records import AnswerT, Outcome, RequestT

Named = tuple[str, RequestT]
NamedOutcome = tuple[str, Outcome[RequestT, AnswerT]]

_kept: dict[str, Turns] = {}


class Turns:
    """The models that are in memory, and whose turn it is; safe between threads, and through a proxy for processes.

    Args:
      members: a handler a name. at_once: models in memory at once.
    """

    def __init__(self, members: Mapping[str, ResidentHandler], at_once: int):
        self._members, self._at_once = members, at_once
        # The least recently used one first.
        self._models: collections.OrderedDict[str, Resident] = collections.OrderedDict()
        self._turn = threading.Lock()

    def respond(self, batch: Sequence[Named]) -> tuple[list[NamedOutcome], list[tuple[str, Work]]]:
        """An outcome for each request, and what each model's answers cost; one batch at a time."""
        by_name: dict[str, list[Any]] = collections.defaultdict(list)
        for name, request in batch:
            by_name[name].append(request)
        outcomes: list[NamedOutcome] = []
        costs = []
        with self._turn:
            # Those in memory first, as loading another one may evict them.
            for name in sorted(by_name, key=lambda name: name not in self._models):
                answered, work = self._model(name).respond(by_name[name])
                outcomes += [(name, outcome) for outcome in answered]
                costs.append((name, work))
        return outcomes, costs

    def _model(self, name: str) -> Resident:
        if name not in self._models:
            while len(self._models) >= self._at_once:
                self._models.popitem(last=False)
            # It gives back to the device what the evicted ones held.
            with loading:
                self._models[name] = self._members[name].load()
        self._models.move_to_end(name)
        return self._models[name]


class TakeTurns(ModelHandler[Named, NamedOutcome, Turns]):
    """A handler of (name, request), answered by (name, outcome), in another order.

    Args:
      members: a handler a name.
      at_once: models in memory at once; None: all of them.
      per_turn: requests of each member that are gathered before the models take turns. Where models are evicted, each
        turn loads one, so that it should be worth it; they are small, as pixels stay in the reels.
      by_machine: the processes of a machine share the models, instead of loading each its own.
    """

    def __init__(
        self,
        members: Mapping[str, ResidentHandler],
        *,
        at_once: int | None = None,
        per_turn: int = 256,
        by_machine: bool = False,
    ):
        self._members, self._at_once, self._per_turn = dict(members), at_once or len(members), per_turn
        self._by_machine = by_machine
        self._env_vars: dict[str, str] = {}
        self._key = "|".join(sorted(handler.model_key for handler in members.values())) + f"|{self._at_once}"
        #: Beam keeps what is shared under this; with the same for two pipelines one would get the other's.
        self.identifier = f"reelscribe-{uuid.uuid4().hex}"

    def load_model(self) -> Turns:
        with loading:
            # For the life of the worker, as some runners build their stages anew for every bundle.
            return _kept.setdefault(self._key, Turns(self._members, self._at_once))

    def run_inference(
        self, batch: Sequence[Named], model: Turns, inference_args: Mapping[str, Any] | None = None
    ) -> Iterable[NamedOutcome]:
        outcomes, costs = model.respond(batch)
        for name, work in costs:
            count_work(self._members[name].get_metrics_namespace(), work)
        return outcomes

    def share_model_across_processes(self) -> bool:
        return self._by_machine

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        size = self._per_turn * len(self._members)
        return {"min_batch_size": size, "max_batch_size": size}

    def get_num_bytes(self, batch: Sequence[Named]) -> int:
        return 512 * len(batch)

    def get_metrics_namespace(self) -> str:
        return "reelscribe/together"
