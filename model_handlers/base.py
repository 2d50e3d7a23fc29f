"""What every model handler here is: a Beam `ModelHandler` that answers each request or says why it could not.

class Shouter(ElementwiseHandler[Clip, str, object]):
    def load(self): ...
    def answer(self, requests, model): return [clip.clip_id.upper() for clip in requests]

clips | RunInference(Shouter("shouter"))      # -> Outcome(request=clip, answer="...") or Outcome(failure=...)
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from apache_beam.ml.inference.base import ModelHandler

from transforms.records import AnswerT, Failure, Outcome, RequestT

ModelT = TypeVar("ModelT")

#: Errors that say something of the machine rather than of the element: they raise, and the runner decides.
ENVIRONMENT_ERRORS = (MemoryError, KeyboardInterrupt, SystemExit)

_models: dict[str, Any] = {}
#: One model at a time: while one loads, Transformers changes torch's default number format for all threads.
loading = threading.RLock()


class ElementwiseHandler(
    ModelHandler[RequestT, Outcome[RequestT, AnswerT], ModelT], Generic[RequestT, AnswerT, ModelT]
):
    """A model handler whose failures cost one request, never the batch.

    Subclasses implement `load` and `answer`. A batch that raises is tried again request by request, and only those that
    raise alone become failures. Models are kept for the life of the worker under `model_key`, because some runners
    build their stages anew for every bundle and a launcher runs chunk after chunk.

    Args:
      name: the catalogue name, which metrics and dead letters carry.
      max_batch: requests a batch at the most.
    """

    def __init__(self, name: str, *, max_batch: int = 16):
        self.name = name
        self.max_batch = max_batch
        self._env_vars: dict[str, str] = {}

    @property
    def model_key(self) -> str:
        """Handlers with the same key share one loaded model."""
        return f"{type(self).__qualname__}:{self.name}"

    def load(self) -> ModelT:
        """Load the model; heavy imports belong in here."""
        raise NotImplementedError

    def answer(self, requests: Sequence[RequestT], model: ModelT) -> Sequence[AnswerT]:
        """One answer a request, in order."""
        raise NotImplementedError

    def load_model(self) -> ModelT:
        with loading:
            if self.model_key not in _models:
                _models[self.model_key] = self.load()
            return _models[self.model_key]

    def run_inference(
        self, batch: Sequence[RequestT], model: ModelT, inference_args: Mapping[str, Any] | None = None
    ) -> Iterable[Outcome[RequestT, AnswerT]]:
        try:
            answers = self._answer_all(batch, model)
        except ENVIRONMENT_ERRORS:
            raise
        except Exception as error:
            if len(batch) == 1:
                return [Outcome(batch[0], failure=Failure.of(error))]
        else:
            return [Outcome(request, answer=answer) for request, answer in zip(batch, answers, strict=True)]
        # Outside the handler: the error holds the frames of the failed batch, and they hold its tensors.
        return [outcome for request in batch for outcome in self.run_inference([request], model)]

    def _answer_all(self, batch: Sequence[RequestT], model: ModelT) -> Sequence[AnswerT]:
        answers = self.answer(batch, model)
        if len(answers) != len(batch):
            raise RuntimeError(f"{self.name} gave {len(answers)} answers to {len(batch)} requests")
        return answers

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        return {"min_batch_size": 1, "max_batch_size": self.max_batch}

    def get_num_bytes(self, batch: Sequence[RequestT]) -> int:
        """Requests are small; sizing them by pickling every batch would cost more than it tells."""
        return 512 * len(batch)

    def get_metrics_namespace(self) -> str:
        return f"reelscribe/{self.name}"
