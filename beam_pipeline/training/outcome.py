"""What came of a training: agreement with people before and after, and the files of a version.

outcome = Outcome(entry, examples, recipe, before, after, ...)
print(outcome.text("models/selector/v1"))
finish(trainable, outcome, "models/selector/v1.unfinished", "models/selector/v1")
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from beam_pipeline.evaluate_bootstrap import Interval
from beam_pipeline.evaluate_tables import table
from beam_pipeline.training import calibration
from beam_pipeline.training.examples import Examples
from beam_pipeline.training.runs import in_yaml
from beam_pipeline.training.scored import Scored, agreement, chance, gain
from beam_pipeline.training.trainable import Trainable
from model_handlers.catalogue import Entry

SELECTOR, CARD, TEST_CLIPS, HISTORY = "selector.json", "README.md", "test_clips.txt", "train.jsonl"
SCHEMA_VERSION = 1
#: The parts by which a training is judged. The best epoch was chosen by the first, so the second is the fairer one.
JUDGED = ("validation", "test")


@dataclasses.dataclass(frozen=True)
class Compared:
    """One part before and after training: R@1 with people, the paired gain, and what a blind draw would have."""

    clips: int
    untrained: Interval
    trained: Interval
    gain: Interval
    chance: Interval

    def as_json(self) -> dict[str, Any]:
        intervals = ("untrained", "trained", "gain", "chance")
        return {"clips": self.clips} | {name: getattr(self, name).as_json() for name in intervals}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A training that is over.

    Attributes:
      recipe: all that shaped it, as written to `selector.json`.
      before, after: scores of the parts in `JUDGED`; those after are of the best epoch.
      best_epoch: that one. history: what the Trainer logged. unread: by clip_id, why it could not be read.
      calibration: the kind of curve from scores to probabilities.
    """

    entry: Entry
    examples: Examples
    recipe: Mapping[str, Any]
    before: Mapping[str, Scored]
    after: Mapping[str, Scored]
    best_epoch: float
    history: Sequence[Mapping[str, Any]] = ()
    unread: Mapping[str, str] = dataclasses.field(default_factory=dict)
    calibration: str = calibration.KINDS[0]

    @functools.cached_property
    def compared(self) -> dict[str, Compared]:
        """What became of each part that has examples."""
        found = {}
        for name in JUDGED:
            part = self.examples.parts[name]
            if part:
                before, after = self.before[name].scores, self.after[name].scores
                found[name] = Compared(
                    clips=sum(one.chosen is not None for one in part),
                    untrained=agreement(part, before),
                    trained=agreement(part, after),
                    gain=gain(part, before, after),
                    chance=chance(part),
                )
        return found

    @property
    def is_better(self) -> bool:
        """Whether it agrees more with people on the clips that it was not trained on, as far as is known."""
        return (self.compared["validation"].gain.value or 0.0) > 0

    @functools.cached_property
    def learned(self) -> dict[str, Any]:
        """What the trained selector's scores are worth, by the validation part."""
        return calibration.finish(self.after["validation"].scores, self.examples.validation, self.calibration)

    def selector(self) -> dict[str, Any]:
        """What `selector.json` says; without a time, so that the same training writes the same bytes."""
        counts = self.examples.counts()
        return {
            "schema_version": SCHEMA_VERSION,
            "selector": self.entry.listed_name,
            "base": {"model": self.entry.model, "revision": self.entry.revision},
            "trained_on": {
                "fingerprint": self.examples.fingerprint,
                "examples": {name: count["clips"] for name, count in counts.items()},
                "sources": {name: count["sources"] for name, count in counts.items()},
                "all_bad": {name: count["all_bad"] for name, count in counts.items()},
                "unread": len(self.unread),
            },
            "recipe": dict(self.recipe),
            "metrics": {"best_epoch": self.best_epoch}
            | {name: one.as_json() for name, one in self.compared.items()}
            | self.learned["metrics"],
            "calibration": self.learned["calibration"],
            "abstain_below": self.learned["abstain_below"],
        }

    def profile_line(self, path: str) -> str:
        """What a profile says to choose this version."""
        return f"selector: {{name: {self.entry.listed_name}, weights: {in_yaml(path)}}}"

    def as_json(self, path: str) -> dict[str, Any]:
        """What `--json` writes."""
        return self.selector() | {"path": path, "is_better": self.is_better}

    def text(self, path: str) -> str:
        """The table that is printed at the end."""
        lines = table(["R@1 with people", "clips", "untrained", "trained", "gain", "chance"], list(self._rows()))
        lines += ["", "hundredths, with 95 % bootstrap intervals over clips; the gain's is paired"]
        lines += [f"the weights are those of epoch {self.best_epoch:g}, the best on the validation part"]
        if self.unread:
            clip_id, reason = next(iter(sorted(self.unread.items())))
            lines.append(f"{len(self.unread):,} clips could not be read and were left out, such as {clip_id}: {reason}")
        lines += ["", *self.worth()]
        return "\n".join([*lines, "", self.verdict, f"{path}; in a profile:", f"  {self.profile_line(path)}"])

    def worth(self) -> Iterator[str]:
        """What a score says, and when all captions are said to be bad, in a few lines."""
        told = self.learned["metrics"]
        before, after = (told["calibration"]["captions"][when] for when in ("before", "after"))
        if after is not None:
            was = f", {before['ece']:.3f} before" if before else ""
            best = told["calibration"]["chosen"]["after"]
            of_best = f" ({best['ece']:.3f} of each clip's best caption)" if best else ""
            off = f"off by {after['ece']:.3f} in the mean on held-out sources"
            yield f"scores are probabilities now, {off}{of_best}{was}"
        if (limit := self.learned["abstain_below"]) is not None:
            found = told["all_bad"]
            rates = f"precision {found['precision']:.2f}, recall {found['recall']:.2f} on held-out sources"
            yield f"below {limit:.3f} it says that all captions are bad: {rates}"
        yield from told["notes"]

    @property
    def verdict(self) -> str:
        """Whether it is better, in a sentence that nobody reads over."""
        found = self.compared.get("test") or self.compared["validation"]
        part = "test" if "test" in self.compared else "validation"
        if not self.is_better:
            return "NOT BETTER than untrained on the validation clips: have more clips judged before you use it"
        if found.gain.low is not None and found.gain.low > 0:
            return f"better than untrained on the {part} clips, beyond chance"
        return f"better on the validation clips, but on the {part} clips the interval of the gain holds 0"

    def _rows(self) -> Iterator[list[str]]:
        for name, one in self.compared.items():
            told = (one.untrained.told(scale=100), one.trained.told(scale=100), one.gain.told("+.1f", scale=100))
            yield [name, f"{one.clips:,}", *told, one.chance.told(scale=100).partition(" ")[0]]


def finish(trainable: Trainable, outcome: Outcome, folder: str, path: str) -> None:
    """Write all files of a version.

    Args:
      folder: where it stands until it is whole. path: what it will be called.
    """
    from beam_pipeline.training.card import card

    trainable.write(folder)
    _write(folder, SELECTOR, json.dumps(outcome.selector(), indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    _write(folder, CARD, card(outcome, path))
    _write(folder, TEST_CLIPS, "".join(f"{one.clip.clip_id}\n" for one in outcome.examples.test))
    _write(folder, HISTORY, "".join(json.dumps(one, sort_keys=True) + "\n" for one in outcome.history))


def _write(folder: str, name: str, text: str) -> None:
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        file.write(text)
