"""What a user enters of a job to come: rates and workers, in a YAML file, as flags, or as a benchmark measured them.

entries = read_entries("rates.yaml")        # entries.rates["caption/blip-base"].on == "gpu"
rates = read_handlers("handlers.json")      # of benchmarks/handlers.py --json
worker = parse_worker("gpu=g2-standard-8,vcpu=8,gpus=1,price=1.5")
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import statistics
from collections.abc import Mapping
from typing import Any

import yaml

from beam_pipeline.estimate import Worker
from beam_pipeline.estimate_rates import TEACHER, UNITS, Rate
from model_handlers.nearest import nearest
from transforms.files import name_of, read

_KEYS = ("stages", "teachers", "workers", "clips_per_hour", "shots_per_hour", "videos_per_hour")
_RATE_KEYS = ("cpu_s", "gpu_s", "pool", "share")
_WORKER_KEYS = ("machine", "vcpu", "gpus", "price", "start_min", "workers")
#: What the benchmark's models that are no teachers stand for, and what it asks them about: two frames, a clip.
_STAGE_OF = {"clip-vit-h": "embed", "umt-l16": "score"}


class EntryError(ValueError):
    """Something was entered that cannot be meant, told in one line."""


@dataclasses.dataclass(frozen=True)
class Entries:
    """What a file of a user's says. densities: of clips, shots and videos in an hour of video, where it tells them."""

    rates: Mapping[str, Rate] = dataclasses.field(default_factory=dict)
    workers: tuple[Worker, ...] = ()
    densities: Mapping[str, float] = dataclasses.field(default_factory=dict)


def read_entries(file: str) -> Entries:
    """Read a YAML file of rates and workers.

    Raises:
      EntryError: it is unreadable, has an unknown key, or a number that cannot be meant.
    """
    try:
        values = yaml.safe_load(read(file)) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise EntryError(f"cannot read {file}: {' '.join(str(error).split())}") from error
    _check_keys(values, _KEYS, file, "key")
    stages, teachers = values.get("stages") or {}, values.get("teachers") or {}
    _check_keys(stages, [stage for stage in UNITS if stage != "caption"], f"{file}: stages", "stage")
    _check_keys(teachers, None, f"{file}: teachers", "teacher")
    source = name_of(file)
    rates = {stage: _rate(said, f"{file}: {stage}", source) for stage, said in stages.items()}
    rates |= {TEACHER + str(name): _rate(said, f"{file}: {name}", source) for name, said in teachers.items()}
    workers = values.get("workers") or {}
    _check_keys(workers, None, f"{file}: workers", "pool")
    return Entries(
        rates=rates,
        workers=tuple(_worker(str(name), said, f"{file}: {name}") for name, said in workers.items()),
        densities={key: _number(values[key], f"{file}: {key}") for key in _KEYS[3:] if key in values},
    )


def read_handlers(file: str) -> dict[str, Rate]:
    """Read what `benchmarks/handlers.py --json` measured: GPU seconds a clip through `RunInference`.

    Raises:
      EntryError: it is no such file, or was measured with small stand-ins of the models.
    """
    try:
        found = json.loads(read(file))
        size, device, models = found["size"], str(found["device"]), found["models"]
        if size != "full":
            raise EntryError(
                f"{file} measured {size} stand-ins of the models; add --size full to benchmarks/handlers.py"
            )
        rates = {}
        for one in models:
            if one["failures"]:
                # Clips that were not answered took no time, or too much.
                continue
            seconds = 1 / statistics.median(one["through_beam"])
            name = one["model"]
            source = f"{name_of(file)} ({device})"
            stage = _STAGE_OF.get(name, TEACHER + name)
            if cores := re.match(r"CPU, (\d+) cores", device):
                rates[stage] = Rate(seconds * int(cores[1]), "cpu", source)
            else:
                rates[stage] = Rate(seconds, "gpu", source)
            # Not of another model in that place.
            if stage in _STAGE_OF.values():
                rates[stage] = dataclasses.replace(rates[stage], settings=name)
    except (OSError, UnicodeDecodeError, KeyError, TypeError, ZeroDivisionError, statistics.StatisticsError) as error:
        raise EntryError(f"{file} is not what benchmarks/handlers.py --json writes ({error!r})") from error
    except json.JSONDecodeError as error:
        raise EntryError(f"{file} is not what benchmarks/handlers.py --json writes ({error})") from error
    return rates


def parse_worker(text: str) -> Worker:
    """Read POOL=MACHINE,vcpu=N,price=P[,gpus=N][,start_min=M][,workers=N].

    Raises:
      EntryError: that is not what it looks like.
    """
    (name, _, machine), *rest = (part.strip().partition("=") for part in text.split(","))
    if not name or not machine:
        raise EntryError(f"--worker {text!r}: write it like gpu=g2-standard-8,vcpu=8,gpus=1,price=1.5")
    said: dict[str, Any] = {"machine": machine}
    for key, _, value in rest:
        try:
            said[key] = float(value)
        except ValueError:
            raise EntryError(f"--worker {text!r}: {key} needs a number, not {value!r}") from None
    return _worker(name, said, f"--worker {name}")


def _worker(name: str, said: Any, where: str) -> Worker:
    _check_keys(said, _WORKER_KEYS, where, "key")
    if missing := [key for key in ("machine", "vcpu", "price") if key not in said]:
        raise EntryError(f"{where} does not say {' and '.join(missing)}")
    workers = said.get("workers")
    return Worker(
        pool=name,
        machine=str(said["machine"]),
        vcpus=_whole(said["vcpu"], f"{where}: vcpu", 1),
        gpus=_whole(said.get("gpus", 0), f"{where}: gpus", 0),
        price=_number(said["price"], f"{where}: price", zero=True),
        start_min=_number(said.get("start_min", 0), f"{where}: start_min", zero=True),
        workers=None if workers is None else _whole(workers, f"{where}: workers", 1),
    )


def _rate(said: Any, where: str, source: str) -> Rate:
    _check_keys(said, _RATE_KEYS, where, "key")
    seconds = [key for key in ("cpu_s", "gpu_s") if key in said]
    if len(seconds) != 1:
        raise EntryError(f"{where} needs either cpu_s, seconds of one vCPU, or gpu_s, seconds of one GPU")
    share = said.get("share")
    pool = said.get("pool")
    return Rate(
        seconds=_number(said[seconds[0]], f"{where}: {seconds[0]}", zero=True),
        on=seconds[0].removesuffix("_s"),
        source=source,
        share=None if share is None else _number(share, f"{where}: share", zero=True),
        pool=None if pool is None else str(pool),
    )


def _check_keys(values: Any, known: Any, where: str, what: str) -> None:
    if not isinstance(values, Mapping):
        raise EntryError(f"{where} must be a mapping of keys to values")
    for key in values:
        if known is not None and key not in known:
            raise EntryError(f"{where}: there is no {what} {key!r}; {nearest(str(key), list(known))}")


def _number(value: Any, where: str, zero: bool = False) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise EntryError(f"{where} must be a number, not {value!r}")
    if value < 0 or (value == 0 and not zero):
        raise EntryError(f"{where} must be {'0 or more' if zero else 'above 0'}, not {value!r}")
    return float(value)


def _whole(value: Any, where: str, least: int) -> int:
    number = _number(value, where, zero=least == 0)
    if number != int(number):
        raise EntryError(f"{where} must be a whole number, not {value!r}")
    return int(number)
