"""What came of a student's training: how near it comes to the captions it learned from, and the files of a version.

outcome = Outcome(wanted, versions, selection, recipe, {"test": training.judge("test")}, best_step=400)
write(model, inputs, outcome, "v1.unfinished", "models/student/v1", keep_frozen=True, beams=1, test=clip_ids)
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from beam_pipeline.evaluate_tables import table
from beam_pipeline.training.runs import in_yaml
from beam_pipeline.training.student_judging import Said
from beam_pipeline.training.student_model import Wanted
from beam_pipeline.training.student_rows import Selection

STUDENT, CARD, TEST_CLIPS, HISTORY = "student.json", "README.md", "test_clips.txt", "train.jsonl"
SCHEMA_VERSION = 1
#: The best weights were chosen by the first, so the second is the fairer one.
JUDGED = ("validation", "test")
_HEADER = ("held-out clips", "clips", "loss", "CIDEr")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A training that is over.

    Attributes:
      versions: of the parts it began with, by role. recipe: all else that shaped it.
      said: of the parts in `JUDGED`, by way (see `student_judging`); of the best weights.
      best_step: theirs. history: what the Trainer logged. unread: by clip_id, why it could not be read.
    """

    wanted: Wanted
    versions: Mapping[str, str]
    selection: Selection
    recipe: Mapping[str, Any]
    said: Mapping[str, Mapping[str, Said]]
    best_step: int
    history: Sequence[Mapping[str, Any]] = ()
    unread: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def student(self) -> dict[str, Any]:
        """What `student.json` says; without a time or a place, so that the same training writes the same bytes."""
        return {
            "schema_version": SCHEMA_VERSION,
            "parts": {
                role: {"weights": os.path.basename(part.weights.rstrip("/")), "version": self.versions[role]}
                for role, part in self.wanted.parts.items()
            },
            "trained_on": {
                "fingerprint": self.selection.fingerprint,
                "clips": dict(self.selection.clips),
                "sources": dict(self.selection.sources),
                "left_out": {why: count for why, count in self.selection.left_out.items() if count},
                "unread": len(self.unread),
            },
            "recipe": dict(self.recipe),
            "metrics": {"best_step": self.best_step}
            | {part: {way: _figures(said) for way, said in ways.items()} for part, ways in self.said.items()},
        }

    def profile_line(self, path: str) -> str:
        """What a profile says to caption with this version."""
        return f"teachers: [{{name: student, weights: {in_yaml(path)}}}]"

    def as_json(self, path: str) -> dict[str, Any]:
        """What `--json` writes."""
        return self.student() | {"path": path}

    def rows(self) -> Iterator[list[str]]:
        """The table of figures, CIDEr in hundredths."""
        for part, ways in self.said.items():
            for way, said in ways.items():
                cider = said.cider.told(scale=100) if said.cider is not None else "-"
                yield [f"{part}, {way}", f"{len(said.clip_ids):,}", f"{said.loss:.3f}", cider]

    def text(self, path: str) -> str:
        """The table that is printed at the end, with a caption of each way to look at."""
        lines = table(_HEADER, list(self.rows()))
        lines.append("")
        if any(said.cider is not None for ways in self.said.values() for said in ways.values()):
            lines.append(
                "CIDEr in hundredths against the dataset's own captions, with 95 % bootstrap intervals over clips"
            )
        lines += [f"the weights are those of step {self.best_step:,}, the best on the validation part"]
        if self.unread:
            clip_id, reason = min(self.unread.items())
            lines.append(f"{len(self.unread):,} clips could not be read and were left out, such as {clip_id}: {reason}")
        return "\n".join([*lines, "", f"{path}; in a profile:", f"  {self.profile_line(path)}"])


def _figures(said: Said) -> dict[str, Any]:
    cider = None if said.cider is None else said.cider.as_json()
    return {"clips": len(said.clip_ids), "loss": round(said.loss, 6), "cider": cider}


def write(
    model: Any,
    inputs: Any,
    outcome: Outcome,
    folder: str,
    path: str,
    *,
    keep_frozen: bool,
    beams: int,
    test: Iterable[str],
) -> None:
    """Write all files of a version.

    Args:
      folder: where it stands until it is whole. path: what it will be called.
      keep_frozen: whether the frozen parts are written, too. beams: of the search that is written.
      test: the ids of the test part's clips.
    """
    from transformers import GenerationConfig

    from beam_pipeline.training.student_card import card

    model.config.save_frozen = keep_frozen
    model.save_pretrained(folder)
    inputs.save(folder)
    end = {"eos_token_id": model.config.end_token_id, "pad_token_id": model.config.end_token_id}
    search = {"do_sample": False, "num_beams": beams, "max_new_tokens": inputs.reading.caption_tokens}
    GenerationConfig(**search, **end, bos_token_id=model.config.begin_token_id).save_pretrained(folder)
    _write(folder, STUDENT, [json.dumps(outcome.student(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"])
    _write(folder, CARD, [card(outcome, path, keep_frozen)])
    _write(folder, TEST_CLIPS, (f"{clip_id}\n" for clip_id in test))
    _write(folder, HISTORY, (json.dumps(one, sort_keys=True) + "\n" for one in outcome.history))


def _write(folder: str, name: str, lines: Iterable[str]) -> None:
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        file.writelines(lines)
