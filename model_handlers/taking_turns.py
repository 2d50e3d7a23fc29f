"""Several models that take turns on one GPU: the least recently used ones make room.

    handler = TakeTurns({"blip2-opt-2.7b": blip, "llava-next-video-7b": llava}, at_once=1, per_turn=256)
    named_clips | RunInference(handler, model_identifier=handler.identifier)     # (name, clip) -> (name, Outcome)

Beam's `KeyedModelHandler` keeps the models and evicts them; here stands what it leaves to its users: batches so large
that a model which was loaded has work, and one set of models for all pipelines of a job.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping
from typing import Any

from apache_beam.ml.inference.base import KeyedModelHandler, KeyModelMapping

from model_handlers.base import ElementwiseHandler
from transforms.records import AnswerT, Outcome, RequestT

_kept: dict[str, Any] = {}
_keeping = threading.Lock()
_taking_a_turn = threading.Lock()
_last_turn: dict[str, str] = {}


class TakeTurns(KeyedModelHandler[str, RequestT, Outcome[RequestT, AnswerT], Any]):
    """A handler of (name, request), answered by (name, outcome).

    Args:
      members: a handler a name.
      at_once: models in memory at once; None: all of them.
      per_turn: requests of each member that are gathered before the models take turns. Where models are evicted, each
        turn loads one, so that it should be worth it; they are small, as pixels stay in the reels.
    """

    def __init__(self, members: Mapping[str, ElementwiseHandler], *, at_once: int | None = None, per_turn: int = 256):
        # Beam logs a warning for every member that says how it wants to be batched; here it is not asked.
        mappings = [KeyModelMapping([name], _Member(handler)) for name, handler in members.items()]
        super().__init__(mappings)
        self._at_once, self._per_turn = at_once, per_turn
        self._env_vars: dict[str, str] = {}
        self._key = "|".join(sorted(handler.model_key for handler in members.values())) + f"|{at_once}"
        #: Beam keeps one model a machine under this; with the same for two pipelines they would share it.
        self.identifier = f"reelscribe-{uuid.uuid4().hex}"

    def load_model(self) -> Any:
        with _keeping:
            if self._key not in _kept:
                _kept[self._key] = _Turns(super().load_model(), self._at_once)
            return _kept[self._key]

    def run_inference(self, batch: Any, model: Any, inference_args: Any = None) -> Any:
        # One thread at a time: a model that another thread is using can't make room for the next one.
        with _taking_a_turn:
            # The model that is loaded already comes first.
            first = _last_turn.get(self._key)
            ordered = sorted(batch, key=lambda named: (named[0] != first, named[0]))
            _last_turn[self._key] = ordered[-1][0]
            return super().run_inference(ordered, model, inference_args)

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        size = self._per_turn * len(self._id_to_mh_map)
        return {"min_batch_size": size, "max_batch_size": size}

    def get_metrics_namespace(self) -> str:
        return "reelscribe/together"


class _Turns:
    """Beam's keeper of models, asked by one thread at a time: two of them can evict what the other is loading."""

    def __init__(self, models: Any, at_once: int | None):
        self._models, self._asking = models, threading.Lock()
        if at_once is not None:
            models.increment_max_models(at_once)

    def load(self, key: str) -> Any:
        with self._asking:
            return self._models.load(key)


class _Member(ElementwiseHandler):
    """A handler whose model is not kept for the life of the worker, so that it can be evicted."""

    def __init__(self, handler: ElementwiseHandler):
        super().__init__(handler.name, max_batch=handler.max_batch)
        self._handler = handler

    def load_model(self) -> Any:
        return self._handler.load()

    def run_inference(self, batch: Any, model: Any, inference_args: Any = None) -> Any:
        return self._handler.run_inference(batch, model, inference_args)

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        return {}

    def get_metrics_namespace(self) -> str:
        return self._handler.get_metrics_namespace()
