"""Teachers that vLLM serves on the worker's own GPU, started by Beam's vLLM handler and asked as any endpoint is.

    settings = VllmSettings("Qwen/Qwen2.5-VL-7B-Instruct", revision="...", server_flags={"max-model-len": 8192})
    clips | RunInference(VllmTeacher("qwen-vllm", settings))         # answers the caption

One server a machine, whatever the number of its worker processes. Beam's handler itself is not asked: it gives up a
whole batch for one request, and knows neither pictures nor failures of single clips.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import uuid
from collections.abc import Mapping

from model_handlers.endpoint import Endpoint
from model_handlers.endpoint_chats import Correspondent
from model_handlers.endpoint_teacher import RemoteSettings, RemoteTeacher, kept, terms_of
from model_handlers.vllm_server import VllmServer

#: What may be said of the server: how much of the machine it uses, and what changes its numbers. Everything else is
#: refused, as among its flags are some that run a model's code or read pickles, and its parser knows abbreviations.
MACHINE_FLAGS = (
    "gpu-memory-utilization",
    "tensor-parallel-size",
    "pipeline-parallel-size",
    "max-num-seqs",
    "max-num-batched-tokens",
    "max-model-len",
    "enforce-eager",
    "cpu-offload-gb",
    "swap-space",
)
SHAPING_FLAGS = ("quantization", "kv-cache-dtype", "mm-processor-kwargs")


@dataclasses.dataclass(frozen=True)
class VllmSettings(RemoteSettings):
    """How vLLM serves a model, and how it is asked.

    Attributes:
      server_flags: more of `vllm serve`, by name without dashes, such as {"max-model-len": 8192}; None is a flag
        without a value.
    """

    concurrent: int = 32
    server_flags: Mapping[str, str | int | float | None] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.server_flags, Mapping):
            raise ValueError(f"server_flags must be a mapping of names to values, not {self.server_flags!r}")
        for name, value in self.server_flags.items():
            if name not in (*MACHINE_FLAGS, *SHAPING_FLAGS):
                known = ", ".join((*MACHINE_FLAGS, *SHAPING_FLAGS))
                raise ValueError(f"server_flags must not hold {name!r}; known: {known}")
            if isinstance(value, bool) or not isinstance(value, str | int | float | None):
                raise ValueError(f"the server flag {name} must be a text, a number or null, not {value!r}")

    def wording(self) -> str:
        shaping = json.dumps([super().wording(), [self.server_flags.get(name) for name in SHAPING_FLAGS]])
        return hashlib.sha256(shaping.encode()).hexdigest()[:8]


def server_flags(settings: VllmSettings, revision: str) -> dict[str, str | None]:
    """The flags of vLLM's server that follow from the settings, and those that they name."""
    flags: dict[str, str | None] = {
        # Any other machine would be let in otherwise.
        "host": "127.0.0.1",
        "served-model-name": settings.weights,
        "dtype": settings.dtype,
        "load-format": "safetensors",
        "seed": "0",
    }
    if revision:
        flags["revision"] = revision
    if "V" in settings.inputs.split("-"):
        flags["limit-mm-per-prompt"] = json.dumps({"image": settings.frames})
    return flags | {name: None if value is None else str(value) for name, value in settings.server_flags.items()}


class VllmTeacher(RemoteTeacher):
    """Asks a model that vLLM serves on this machine for a caption of a clip's frames and, by `inputs`, its text."""

    settings: VllmSettings

    def __init__(self, name: str, settings: VllmSettings):
        super().__init__(name, settings)
        #: Under this name Beam finds the one that the processes of a machine share, which must be no other job's.
        self.identifier = f"reelscribe-{name}-{uuid.uuid4().hex}"

    def create_client(self) -> Correspondent:
        return kept(self.model_key, self._serve)

    def share_model_across_processes(self) -> bool:
        return True

    def _serve(self) -> Correspondent:
        place = self.settings.place()
        server = VllmServer(place.path, server_flags(self.settings, place.revision))
        endpoint = Endpoint(server.url, self.settings.weights, terms_of(self.settings), server.find)
        return Correspondent(endpoint, self.settings, self.settings.asked())
