"""How busy a GPU is while something runs on it, as nvidia-smi tells it.

    with GpuGauge(uuid_of("cuda:0")) as gauge:
        began = time.perf_counter(); work(); ended = time.perf_counter()
    gauge.mean(began, ended)           # per cent, or None where there was nobody to ask

"Busy" is the share of time in which some kernel ran: a GPU that is 100 % busy may still compute far below its peak.
"""

from __future__ import annotations

import statistics
import subprocess
import threading
import time
from typing import Self

QUERY = ("nvidia-smi", "--query-gpu=uuid,utilization.gpu", "--format=csv,noheader,nounits")
EVERY_S = 0.2
DEADLINE_S = 5.0


class GpuGauge:
    """Samples a GPU on a thread of its own.

    Args:
      uuid: of the GPU; without one there is nothing to sample.
    """

    def __init__(self, uuid: str | None):
        self._uuid = uuid
        self._samples: list[tuple[float, float]] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="gpu-gauge", daemon=True)

    def __enter__(self) -> Self:
        if self._uuid is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._uuid is not None:
            self._thread.join(2 * DEADLINE_S)

    def mean(self, began_s: float, ended_s: float) -> float | None:
        """Per cent between two readings of `time.perf_counter`; None where no sample falls between them."""
        values = [value for at, value in list(self._samples) if began_s <= at <= ended_s]
        return statistics.fmean(values) if values else None

    def _sample(self) -> None:
        while not self._done.wait(EVERY_S):
            try:
                told = subprocess.run(QUERY, capture_output=True, text=True, timeout=DEADLINE_S, check=True).stdout
            except subprocess.TimeoutExpired:
                continue
            except (OSError, subprocess.CalledProcessError):
                # It is not there, or has nothing to tell; it won't be another time.
                return
            value = busy_of(told, str(self._uuid))
            if value is not None:
                self._samples.append((time.perf_counter(), value))


def uuid_of(device: str) -> str | None:
    """What nvidia-smi knows a device of torch by; None of a CPU."""
    import torch

    return str(torch.cuda.get_device_properties(device).uuid) if device.startswith("cuda") else None


def busy_of(told: str, uuid: str) -> float | None:
    """The per cent of the GPU of this id in what nvidia-smi told, or of the only one there is.

    None where it does not know, as of a part of a GPU.
    """
    rows = [[cell.strip() for cell in line.split(",")] for line in told.splitlines() if "," in line]
    own = [row for row in rows if uuid in row[0]] or (rows if len(rows) == 1 else [])
    return float(own[0][1]) if own and own[0][1].isdigit() else None
