"""The Beam flags that a Dataflow job of a configuration needs beside those that its user gave.

    flags = (*given, *worker_flags(config, streaming=False, given=given))

Each stage says by resource hints what it needs, and Dataflow starts workers that fit ("right fitting"); or all workers
are alike, and a service option gives each its GPU. Dataflow takes one of the two, and what contradicts it is refused
here rather than by a job that has begun. Flags that the user gave are never given again. Nothing in here changes a row.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from beam_pipeline.placement import is_loaded

if TYPE_CHECKING:
    from beam_pipeline.config import Config

_ONE_PROCESS, _MANY_PROCESSES = "no_use_multiple_sdk_containers", "use_multiple_sdk_containers"
_WORKER_ACCELERATOR = "worker_accelerator"

#: The machines that a GPU can stand in, by Compute Engine's rules, and the machine for so many of them. One kind of
#: worker decodes too, so L4s get the 8 vCPUs that a GPU's share of a larger machine has.
_MACHINES: Mapping[str, tuple[str, Mapping[int, str]]] = {
    "nvidia-l4": ("g2-", {1: "g2-standard-8", 2: "g2-standard-24", 4: "g2-standard-48", 8: "g2-standard-96"}),
    "nvidia-tesla-a100": ("a2-highgpu-|a2-megagpu-", {n: f"a2-highgpu-{n}g" for n in (1, 2, 4, 8)}),
    "nvidia-a100-80gb": ("a2-ultragpu-", {n: f"a2-ultragpu-{n}g" for n in (1, 2, 4, 8)}),
    "nvidia-h100-80gb": ("a3-highgpu-", {n: f"a3-highgpu-{n}g" for n in (1, 2, 4, 8)}),
    "nvidia-tesla-t4": ("n1-", {1: "n1-standard-8", 2: "n1-standard-16", 4: "n1-standard-32"}),
    "nvidia-tesla-v100": ("n1-", {1: "n1-standard-8", 2: "n1-standard-16", 4: "n1-standard-32", 8: "n1-standard-64"}),
}
#: vCPUs a GPU of the machine types that are named by their GPUs.
_VCPUS_A_GPU = {"a2-highgpu": 12, "a2-megagpu": 6, "a2-ultragpu": 12, "a3-highgpu": 26}
#: Of a worker whose machine type nobody named.
_VCPUS = 4
#: A batch that waits for the GPU has its pictures in memory, and each thread may have one.
_MOST_THREADS = 16

#: The image, a few videos at once, and the runner's own files. The service's own disk, of 25 or 30 GB, is full before.
_DISK_GB = 50


def worker_flags(config: Config, *, streaming: bool, given: Sequence[str]) -> tuple[str, ...]:
    """The flags that a Dataflow job needs and the user has not given.

    Args:
      given: Beam's flags, as the user wrote them.

    Raises:
      ValueError: flags and placement contradict each other, or ask for what Dataflow lacks; it says what to change.
    """
    asked, placement = _Asked.of(given), config.placement
    hints = _hints_of_stages(config)
    accelerators = {found for hint in hints if (found := hint.get("accelerator"))}
    if asked.resource_hints:
        hints = [*hints, asked.resource_hints]
        accelerators |= {found for name, found in asked.resource_hints.items() if name == "accelerator"}
    alike = placement.accelerator if placement.workers == "alike" else ""
    _check(config, asked, bool(hints), streaming)
    everywhere = asked.worker_accelerator or alike
    for accelerator in {*accelerators, *([everywhere] if everywhere else [])}:
        _check_driver(accelerator)

    flags: list[str] = []
    machine = asked.machine_type
    if alike and not asked.worker_accelerator:
        _check_prime(asked)
        service, machine = _one_kind(alike, machine)
        flags.append(f"--dataflow_service_options={_WORKER_ACCELERATOR}={service}")
        if machine and not asked.machine_type:
            flags.append(f"--machine_type={machine}")
    on_gpu = bool(accelerators or everywhere)
    one_process = asked.one_process
    if one_process is None:
        # Each process would load its models onto the GPU again, unless the machine's share one copy.
        shared = any("use_nvidia_mps" in one for one in (*accelerators, everywhere))
        one_process = on_gpu and placement.one_copy_per == "process" and not shared
        if one_process:
            flags.append(f"--experiments={_ONE_PROCESS}")
    if not asked.threads and (number := threads(one_process=one_process, streaming=streaming, machine_type=machine)):
        flags.append(f"--number_of_worker_harness_threads={number}")
    if not asked.disk_gb:
        flags.append(f"--disk_size_gb={disk_gb(config)}")
    if streaming and hints and not asked.autoscaling:
        # What right fitting needs of a stream; with Streaming Engine it is the default, which this states.
        flags.append("--autoscaling_algorithm=THROUGHPUT_BASED")
    return tuple(flags)


def threads(*, one_process: bool, streaming: bool, machine_type: str = "") -> int | None:
    """How many threads an SDK process is to have; None leaves it to Dataflow.

    Each thread may be decoding, in a child process that computes on its own (hundreds of MB), so a vCPU has work
    for one. A stream's threads are also those that join and commit, which must go on while others decode for an hour:
    it gets two a vCPU. Dataflow's own numbers are one thread a vCPU in batch, in a process each, and 12 threads in each
    of a stream's processes, of which there is one a vCPU.

    Args:
      one_process: whether the worker has one process, and not one a vCPU.
    """
    if not one_process:
        return 2 if streaming else None
    return min(vcpus(machine_type) * (2 if streaming else 1), _MOST_THREADS)


def vcpus(machine_type: str) -> int:
    """The vCPUs of a Compute Engine machine type, as far as its name tells."""
    if found := re.fullmatch(r"(a[23]-\w+)-(\d+)g", machine_type):
        return _VCPUS_A_GPU.get(found[1], _VCPUS) * int(found[2])
    found = re.search(r"-(\d+)(-\d+)?(-ext|-lssd)?$", machine_type)
    return int(found[1]) if found else _VCPUS


def disk_gb(config: Config) -> int:
    """The disk of a worker, in GB: a worker may come to load any of the models."""
    weights = sum(entry.download_gb for entry in config.models if is_loaded(entry))
    return _DISK_GB + 10 * math.ceil(weights / 10)


def remarks(config: Config, given: Sequence[str]) -> tuple[str, ...]:
    """What is worth telling before a job is launched, and does not stop it; a line each."""
    asked = _Asked.of(given)
    accelerators = [hint for hint in (*_hints_of_stages(config), asked.resource_hints) if "accelerator" in hint]
    if accelerators or asked.worker_accelerator or config.placement.accelerator:
        return ()
    large = [entry for entry in config.models if is_loaded(entry) and entry.memory_gb]
    if not large:
        return ()
    needs = max(entry.memory_gb for entry in large)
    how = "placement: {accelerator: 'type:nvidia-l4;count:1;install-nvidia-driver'}"
    return (f"{len(large)} models, of up to {needs:g} GiB, will run on CPU workers; for GPUs say {how}",)


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What the user's own flags say, as far as it matters here; "", 0 and None where they say nothing."""

    one_process: bool | None
    worker_accelerator: str
    resource_hints: Mapping[str, str]
    machine_type: str
    threads: int
    disk_gb: int
    autoscaling: str
    flexible: bool
    prime: bool

    @classmethod
    def of(cls, given: Sequence[str]) -> _Asked:
        from apache_beam.options.pipeline_options import (
            DebugOptions,
            GoogleCloudOptions,
            PipelineOptions,
            StandardOptions,
            WorkerOptions,
        )

        options = PipelineOptions(list(given))
        cloud, worker = options.view_as(GoogleCloudOptions), options.view_as(WorkerOptions)
        experiments = list(options.view_as(DebugOptions).experiments or ())
        services = [*(cloud.dataflow_service_options or ()), *experiments]
        # The service takes it under either name.
        accelerators = [one.partition("=")[2] for one in services if one.startswith(f"{_WORKER_ACCELERATOR}=")]
        hints = options.view_as(StandardOptions).resource_hints or ()
        return cls(
            one_process=_ONE_PROCESS in experiments if {_ONE_PROCESS, _MANY_PROCESSES} & set(experiments) else None,
            worker_accelerator=accelerators[-1] if accelerators else "",
            resource_hints=hints
            if isinstance(hints, Mapping)
            else {k: v for k, _, v in (h.partition("=") for h in hints)},
            machine_type=worker.machine_type or "",
            threads=options.view_as(DebugOptions).number_of_worker_harness_threads or 0,
            disk_gb=worker.disk_size_gb or 0,
            autoscaling=worker.autoscaling_algorithm or "",
            flexible=cloud.flexrs_goal == "COST_OPTIMIZED",
            prime="enable_prime" in services,
        )


def _hints_of_stages(config: Config) -> list[Mapping[str, str]]:
    """The resource hints of all stages that have some."""
    placement = config.placement
    stages = [placement.hints_of(entry, config.hints_of(entry)) for entry in config.models]
    if any(one.model for one in config.measures.measures):
        stages.append(placement.hints)
    return [hints for hints in (placement.decode_hints, *stages) if hints]


def _check(config: Config, asked: _Asked, hinted: bool, streaming: bool) -> None:
    """Refuse what contradicts itself, by the limits that Dataflow's page on right fitting tells."""
    placement = config.placement
    alike = "write placement: {workers: alike} for one kind of worker"
    if placement.workers == "alike" and (own := [entry.name for entry, _ in config.hints]):
        raise ValueError(f"{own[0]} has resource hints of its own, but placement: {{workers: alike}}; drop one of them")
    if placement.workers == "alike" and asked.resource_hints:
        raise ValueError("placement: {workers: alike} has no resource hints; drop --resource_hints")
    if hinted and asked.worker_accelerator:
        raise ValueError(f"{_WORKER_ACCELERATOR} is not for stages with resource hints; drop it, or {alike}")
    if hinted and asked.flexible:
        raise ValueError("--flexrs_goal=COST_OPTIMIZED takes no resource hints; drop it, or the hints of placement:")
    if streaming and asked.flexible:
        raise ValueError("--flexrs_goal is for batch jobs; drop it")
    if streaming and hinted and asked.autoscaling == "NONE":
        raise ValueError(f"resource hints in a stream need autoscaling; drop --autoscaling_algorithm=NONE, or {alike}")
    if asked.one_process and any("use_nvidia_mps" in one for one in (placement.accelerator, asked.worker_accelerator)):
        raise ValueError(f"use_nvidia_mps is for several processes on a GPU; drop it, or {_ONE_PROCESS}")


def _check_driver(accelerator: str) -> None:
    if "nvidia" in accelerator.partition(";")[0] and ";install-nvidia-driver" not in accelerator:
        raise ValueError(f"{accelerator} has no driver, and models would run on the CPU; add ;install-nvidia-driver")


def _check_prime(asked: _Asked) -> None:
    if asked.prime:
        raise ValueError("Dataflow Prime chooses machines itself; drop enable_prime, or placement: {workers: alike}")


def _one_kind(accelerator: str, machine_type: str) -> tuple[str, str]:
    """The service option and the machine type of workers that are alike.

    Args:
      accelerator: as a resource hint, in which a machine type may stand; the service option has none.
      machine_type: that the user gave, if any.
    """
    parts = accelerator.split(";")
    named = [part.partition(":")[2] for part in parts if part.startswith("machine_type:")]
    kept = ";".join(part for part in parts if not part.startswith("machine_type:"))
    kind, count = parts[0].partition(":")[2], int(parts[1].partition(":")[2])
    machine = machine_type or (named[0] if named else "")
    if kind not in _MACHINES:
        return kept, machine
    series, machines = _MACHINES[kind]
    if machine and not re.match(series, machine):
        raise ValueError(f"{kind} stands in machines {series.replace('|', ' or ')}* alone, not in {machine}")
    return kept, machine or machines.get(count, "")
