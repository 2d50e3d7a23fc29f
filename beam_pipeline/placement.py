"""Where the models of a job stand: each on workers of its own, or several taking turns on one GPU.

    placement = Placement(teachers="together", models_at_once=1)
    placement = Placement(accelerator="type:nvidia-l4;count:1;install-nvidia-driver", min_ram="30GB")

Nothing in here changes a row of the dataset.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

TEACHERS = ("apart", "together")
COPIES = ("process", "machine")

#: Dataflow's form; the service itself looks at the type.
_ACCELERATOR = re.compile(r"type:[\w-]+;count:\d+(;install-nvidia-driver(:[\w.-]+)?)?(;[\w-]+(:[\w.-]+)?)*")
_RAM = re.compile(r"\d+(\.\d+)?\s*[KMGT]i?B")


@dataclasses.dataclass(frozen=True)
class Placement:
    """How models share machines.

    Attributes:
      teachers: "apart": each teacher is a stage of its own, which may have a pool of workers of its own; "together":
        all of them take turns on one GPU.
      models_at_once: of teachers together, how many are in memory at once; the least recently used one makes room.
        None: all.
      clips_per_turn: of teachers together, the clips that each is given before the next one's turn, as far as the
        runner's bundles hold that many.
      one_copy_per: "process": each worker process loads its models, for runners with one process a GPU; "machine": the
        processes of a machine share one copy, which one of them keeps.
      gpus: of a machine, with a copy of each model on every one; where a machine shares its copies.
      accelerator, min_ram: resource hints for every stage with a model, as Beam has them; a model may have its own.
    """

    teachers: str = "apart"
    models_at_once: int | None = None
    clips_per_turn: int = 256
    one_copy_per: str = "process"
    gpus: int = 1
    accelerator: str = ""
    min_ram: str = ""

    def __post_init__(self) -> None:
        for name, allowed in (("teachers", TEACHERS), ("one_copy_per", COPIES)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be {' or '.join(allowed)}, not {getattr(self, name)!r}")
        for name in ("models_at_once", "clips_per_turn", "gpus"):
            number = getattr(self, name)
            if number is None and name == "models_at_once":
                continue
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ValueError(f"{name} must be a whole number from 1 up, not {number!r}")
        if self.models_at_once is not None and self.teachers != "together":
            raise ValueError("models_at_once is for teachers that are together; add teachers: together")
        if self.gpus > 1 and (self.one_copy_per != "machine" or self.teachers == "together"):
            raise ValueError("several gpus are for models apart with one_copy_per: machine")
        check_hints(self.hints)

    @property
    def hints(self) -> dict[str, str]:
        """Resource hints for a stage whose model has none of its own."""
        return {name: value for name in ("accelerator", "min_ram") if (value := getattr(self, name))}


def check_hints(hints: Mapping[str, object]) -> None:
    """Raise `ValueError` for a resource hint that can't be meant; Beam itself looks at none but min_ram."""
    accelerator, min_ram = hints.get("accelerator"), hints.get("min_ram")
    if accelerator is not None and not (isinstance(accelerator, str) and _ACCELERATOR.fullmatch(accelerator)):
        like = "type:nvidia-l4;count:1;install-nvidia-driver"
        raise ValueError(f"accelerator must be like {like}, not {accelerator!r}")
    if min_ram is not None and not (isinstance(min_ram, str) and _RAM.fullmatch(min_ram)):
        raise ValueError(f"min_ram must be like 30GB, not {min_ram!r}")
