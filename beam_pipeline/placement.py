"""Where the models of a job stand: each on workers of its own, or several taking turns on one GPU.

    placement = Placement(teachers="together", models_at_once=1)
    placement = Placement(accelerator="type:nvidia-l4;count:1;install-nvidia-driver", min_ram="30GB")

Nothing in here changes a row of the dataset. What a Dataflow job needs beside the hints is `worker_shape`'s.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from model_handlers.catalogue import Entry
from model_handlers.endpoint_teacher import EndpointSettings

TEACHERS = ("apart", "together")
COPIES = ("process", "machine")
WORKERS = ("fitted", "alike")

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
      workers: "fitted": every stage has workers of its own kind, which its resource hints ask for; "alike": one kind of
        worker does everything, each with the accelerator, and no stage has hints.
      accelerator, min_ram: resource hints for every stage with a model, as Beam has them; a model may have its own. A
        model that only computes on the CPU, or elsewhere, gets no accelerator.
      decode_min_ram: the same for the stages that decode videos: the splitter, and the one that writes clip files.
    """

    teachers: str = "apart"
    models_at_once: int | None = None
    clips_per_turn: int = 256
    one_copy_per: str = "process"
    gpus: int = 1
    workers: str = "fitted"
    accelerator: str = ""
    min_ram: str = ""
    decode_min_ram: str = ""

    def __post_init__(self) -> None:
        for name, allowed in (("teachers", TEACHERS), ("one_copy_per", COPIES), ("workers", WORKERS)):
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
        check_hints({name: getattr(self, name) for name in ("accelerator", "min_ram") if getattr(self, name)})
        if self.decode_min_ram:
            check_hints({"min_ram": self.decode_min_ram}, "decode_min_ram")
        # Not left out without a word: the machine type alone says what workers of one kind have.
        if self.workers == "alike" and (named := [n for n in ("min_ram", "decode_min_ram") if getattr(self, n)]):
            raise ValueError(f"{named[0]} is for workers: fitted; of workers that are alike say --machine_type instead")

    @property
    def hints(self) -> dict[str, str]:
        """Resource hints for a stage whose model has none of its own."""
        return self._fitted(accelerator=self.accelerator, min_ram=self.min_ram)

    @property
    def decode_hints(self) -> dict[str, str]:
        """Resource hints for a stage that decodes videos: never an accelerator."""
        return self._fitted(min_ram=self.decode_min_ram)

    def _fitted(self, **hints: str) -> dict[str, str]:
        if self.workers == "alike":
            return {}
        return {name: value for name, value in hints.items() if value}

    def hints_of(self, entry: Entry, hints: Mapping[str, str]) -> dict[str, str]:
        """What is left of the resource hints of a model's stage.

        Args:
          hints: those of the model and, where it has none, of the placement (`Config.hints_of`).
        """
        kept = self._fitted(**hints)
        if not is_loaded(entry) and kept.get("accelerator") == self.accelerator:
            kept.pop("accelerator", None)
        return kept


def is_loaded(entry: Entry) -> bool:
    """Whether a model is loaded onto the device of its stage; the others are asked elsewhere, or know the CPU alone."""
    return entry.settings is not None and not isinstance(entry.settings, EndpointSettings)


def check_hints(hints: Mapping[str, object], called: str = "min_ram") -> None:
    """Raise `ValueError` for a resource hint that can't be meant; Beam itself looks at none but min_ram."""
    accelerator, min_ram = hints.get("accelerator"), hints.get("min_ram")
    if accelerator is not None and not (isinstance(accelerator, str) and _ACCELERATOR.fullmatch(accelerator)):
        like = "type:nvidia-l4;count:1;install-nvidia-driver"
        raise ValueError(f"accelerator must be like {like}, not {accelerator!r}")
    if min_ram is not None and not (isinstance(min_ram, str) and _RAM.fullmatch(min_ram)):
        raise ValueError(f"{called} must be like 30GB, not {min_ram!r}")
