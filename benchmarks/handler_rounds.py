"""The contenders of `benchmarks/handlers.py`, and how they are measured: one model, the same clips, in turns.

    measured = measure("clip-vit-h", folder, clips, Effort(rounds=3, batch=32, tokens=32), say=print)

Imported by name, never run: Beam finds what it carries to its worker by the names of this module, and the worker, in
the same process, writes to the objects that stand here.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.ml.inference.base import RunInference
from apache_beam.options.pipeline_options import PipelineOptions

from benchmarks.gpu_gauge import GpuGauge, uuid_of
from benchmarks.handler_checkpoints import gigabytes
from benchmarks.handler_clips import Sample, request
from model_handlers.answers import UnusableAnswer
from model_handlers.chat_teacher import ChatTeacher
from model_handlers.devices import Device, free_unused, is_out_of_memory
from model_handlers.image_teachers import CaptionerTeacher
from model_handlers.resident import PREPARING_THREADS, Network, Raw, ResidentHandler
from model_handlers.settings import Settings
from model_handlers.tower_embedder import TowerEmbedder
from model_handlers.umt_selector import UmtSelector, UmtSettings
from transforms.records import Outcome


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much is measured. rounds: of all contenders in turn. batch: the most clips in one. tokens: an answer's."""

    rounds: int
    batch: int
    tokens: int


@dataclasses.dataclass
class Seen:
    """What a network did: the size of each batch, seconds in `forward`, tokens, refused answers, bytes at the peak."""

    batches: list[int] = dataclasses.field(default_factory=list)
    forward_s: float = 0.0
    tokens: int = 0
    refused: int = 0
    peak_bytes: int = 0


class Watched:
    """A network as it is, but what it does is seen, and an answer that is refused counts as one.

    Random weights talk nonsense; finding that out costs as much as finding a caption.
    """

    def __init__(self, network: Network, device: Device):
        self.network: Any = network
        self.device = device
        self.seen = Seen()

    def prepare(self, request: Any) -> Any:
        return self.network.prepare(request)

    def forward(self, prepared: Sequence[Any]) -> Raw:
        began = time.perf_counter()
        raw = self.network.forward(prepared)
        synchronise(self.device)
        self.seen.forward_s += time.perf_counter() - began
        self.seen.batches.append(len(prepared))
        self.seen.tokens += raw.tokens
        self.seen.peak_bytes = max(self.seen.peak_bytes, self.device.peak())
        return raw

    def finish(self, request: Any, raw: Any) -> Any:
        try:
            return self.network.finish(request, raw)
        except UnusableAnswer as refusal:
            self.seen.refused += 1
            return refusal.raw

    def start(self) -> None:
        """Look anew."""
        self.seen = Seen()
        self.device.start_peak()

    def release(self) -> None:
        """Let go of the model, whoever still holds its handler."""
        self.network = None
        free_unused()


#: The networks that handlers loaded, by their `model_key`.
_watched: dict[str, Watched] = {}


class Watching(ResidentHandler[Any, Any]):
    """Puts a handler's network where the benchmark finds it, so that all contenders run the same copy."""

    def network(self, device: Device) -> Watched:
        watched = _watched[self.model_key] = Watched(super().network(device), device)
        return watched


class WatchedCaptioner(Watching, CaptionerTeacher):
    """An image captioner."""


class WatchedChat(Watching, ChatTeacher):
    """A vision-language model."""


class WatchedTower(Watching, TowerEmbedder):
    """An embedder."""


class WatchedUmt(Watching, UmtSelector):
    """A selector."""


def handler(model: str, folder: pathlib.Path, effort: Effort) -> Watching:
    """Our handler of a model, as a profile would build it, on a checkpoint of `handler_checkpoints`."""
    asked: dict[str, Any] = {"weights": str(folder), "max_batch": effort.batch, "max_new_tokens": effort.tokens}
    if model == "umt-l16":
        asked["weights"] = str(folder / "model.safetensors")
        return WatchedUmt(model, UmtSettings(**asked, tokenizer=str(folder), frames=12))
    kinds: dict[str, tuple[type[Watching], int]] = {
        "blip2-opt-2.7b": (WatchedCaptioner, 1),
        "qwen2.5-vl-7b": (WatchedChat, 16),
        "clip-vit-h": (WatchedTower, 2),
    }
    kind, frames = kinds[model]
    return kind(model, Settings(**asked, frames=frames))


def synchronise(device: Device) -> None:
    """Wait until the device has done what it was told; a clock read before that would be wrong."""
    import torch

    if device.is_gpu:
        torch.cuda.synchronize(device.name)


@dataclasses.dataclass
class Passage:
    """What went through a pipeline, from the first request's arrival to the last answer."""

    began_s: float = 0.0
    ended_s: float = 0.0
    outcomes: list[Outcome] = dataclasses.field(default_factory=list)

    @property
    def seconds(self) -> float:
        return self.ended_s - self.began_s


_passage = Passage()


def _arrived(request: Any) -> Any:
    _passage.began_s = _passage.began_s or time.perf_counter()
    return request


def _answered(outcome: Outcome) -> None:
    _passage.outcomes.append(outcome)
    _passage.ended_s = time.perf_counter()


def through_beam(handler: Watching, requests: Sequence[Any]) -> Passage:
    """Contender a: `RunInference`. Its clock runs from the first request to the last answer."""
    global _passage
    _passage = passage = Passage()
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
        asked = pipeline | beam.Create(list(requests)) | "Arrived" >> beam.Map(_arrived)
        _ = asked | RunInference(handler) | "Answered" >> beam.Map(_answered)
    if len(passage.outcomes) != len(requests):
        raise RuntimeError(f"{len(passage.outcomes)} outcomes came of {len(requests)} requests")
    return passage


def forward_alone(watched: Watched, prepared: Sequence[Any], batch: int) -> float:
    """Contender b: seconds of the bare network over what was prepared beforehand; nothing can be faster."""
    import torch

    synchronise(watched.device)
    began = time.perf_counter()
    with torch.inference_mode():
        for start in range(0, len(prepared), batch):
            watched.forward(prepared[start : start + batch])
    synchronise(watched.device)
    return time.perf_counter() - began


def one_after_another(watched: Watched, requests: Sequence[Any], batch: int) -> float:
    """Contender b2: seconds of the loop that most people write: decode, preprocess, forward, and from the start."""
    import torch

    synchronise(watched.device)
    began = time.perf_counter()
    with torch.inference_mode():
        for start in range(0, len(requests), batch):
            asked = requests[start : start + batch]
            raw = watched.forward([watched.prepare(each) for each in asked])
            for each, value in zip(asked, raw.values, strict=True):
                watched.finish(each, value)
    synchronise(watched.device)
    return time.perf_counter() - began


def by_batch_size(watched: Watched, prepared: Sequence[Any], most: int) -> dict[int, float | None]:
    """Clips a second of the bare network in batches of 1, 2, 4, ...; None where one does not fit, and then no more."""
    rates: dict[int, float | None] = {}
    size = 1
    while size <= min(most, len(prepared)):
        # Twice: the first batch of a size plans its kernels and finds its memory.
        some = prepared[: max(size, min(len(prepared), max(8, 2 * size)) // size * size)]
        try:
            forward_alone(watched, some[:size], size)
            rates[size] = len(some) / forward_alone(watched, some, size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            rates[size] = None
        if rates[size] is None:
            # Outside the handler, since the error holds the frames that hold the tensors.
            free_unused()
            break
        size *= 2
    return rates


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a model and its contenders did; rates are clips a second, one a round.

    Attributes:
      answered, refused: of the clips that went through Beam in a round; those refused are among those answered.
      failures: why clips were not. prepare_alone: the rate of a's threads when nothing else runs; a can't be faster.
      growth: the batches of the pass that warmed up; batches: of each round's a.
      forward_share: of a's time. gpu_busy: a round's mean, in per cent, None where nobody tells.
      peak_bytes: of a's tensors on the GPU, the model among them. by_size: see `by_batch_size`.
    """

    model: str
    clips: int
    answered: int
    refused: int
    failures: tuple[str, ...]
    through_beam: tuple[float, ...]
    forward_alone: tuple[float, ...]
    one_after_another: tuple[float, ...]
    prepare_alone: float
    growth: tuple[int, ...]
    batches: tuple[tuple[int, ...], ...]
    forward_share: tuple[float, ...]
    gpu_busy: tuple[float | None, ...]
    tokens_a_clip: float
    peak_bytes: int
    by_size: dict[int, float | None]
    load_s: float
    weights_gb: float


def measure(
    model: str, folder: pathlib.Path, samples: Sequence[Sample], effort: Effort, say: Callable[[str], None]
) -> Measured:
    """Load a model, warm it up, and let its contenders take turns.

    Raises:
      torch.OutOfMemoryError, DeviceTooSmall: it does not fit, or not in the batches that Beam's contender reached.
    """
    asked = handler(model, folder, effort)
    began = time.perf_counter()
    asked.load_model()
    watched = _watched.pop(asked.model_key)
    synchronise(watched.device)
    load_s = time.perf_counter() - began
    try:
        counts = _rounds(model, asked, watched, [request(model, sample) for sample in samples], effort, say)
        return Measured(model, len(samples), load_s=load_s, weights_gb=gigabytes(folder), **counts)
    finally:
        watched.release()


def _rounds(
    model: str, asked: Watching, watched: Watched, requests: Sequence[Any], effort: Effort, say: Callable[[str], None]
) -> dict[str, Any]:
    watched.start()
    # Enough for batches to grow from one to the most.
    warmed = through_beam(asked, requests[: 3 * effort.batch])
    growth = tuple(watched.seen.batches)
    if not growth:
        why = [outcome.failure.message for outcome in warmed.outcomes if outcome.failure]
        raise RuntimeError(f"no clip is answered: {why[0]}")
    batch = max(growth)
    began = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(PREPARING_THREADS) as threads:
        prepared = list(threads.map(watched.prepare, requests))
    prepare_s = time.perf_counter() - began
    forward_alone(watched, prepared[:batch], batch)
    one_after_another(watched, requests[:1], batch)
    rates: dict[str, list[float]] = {"through_beam": [], "forward_alone": [], "one_after_another": []}
    seen, shares, busy, peak, passage = [], [], [], 0, Passage()
    for number in range(effort.rounds):
        watched.start()
        with GpuGauge(uuid_of(watched.device.name)) as gauge:
            passage = through_beam(asked, requests)
        seen.append(watched.seen)
        busy.append(gauge.mean(passage.began_s, passage.ended_s))
        shares.append(watched.seen.forward_s / passage.seconds)
        peak = max(peak, watched.seen.peak_bytes)
        watched.start()
        spent = [passage.seconds, forward_alone(watched, prepared, batch), one_after_another(watched, requests, batch)]
        for name, seconds in zip(rates, spent, strict=True):
            rates[name].append(len(requests) / seconds)
        told = ", ".join(f"{name} {rate[-1]:.2f}" for name, rate in rates.items())
        say(f"{model}: round {number + 1} of {effort.rounds}, clips a second: {told}")
    failures = [outcome.failure.message for outcome in passage.outcomes if outcome.failure]
    answered = len(requests) - len(failures)
    return {
        **{name: tuple(each) for name, each in rates.items()},
        "prepare_alone": len(requests) / prepare_s,
        "answered": answered,
        "refused": seen[-1].refused,
        "failures": tuple(failures),
        "growth": growth,
        "batches": tuple(tuple(each.batches) for each in seen),
        "forward_share": tuple(shares),
        "gpu_busy": tuple(busy),
        "tokens_a_clip": seen[-1].tokens / max(answered, 1),
        "peak_bytes": peak,
        "by_size": by_batch_size(watched, prepared, effort.batch),
    }
