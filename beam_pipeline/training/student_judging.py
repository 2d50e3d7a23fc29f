"""What a student says of clips, with their texts and without, and how good that is.

    said = say_all(model, preparer, inputs, examples, batch=32, speak=True, on_failure=note)
    tell_ways([said], CiderJudge())["with text"].cider

CIDEr is `reelscribe evaluate captions`'; the reference is the caption that the dataset holds, so it says how near the
student comes to its teachers, and not to people. Of one reference a clip it is lower than of the usual many.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from beam_pipeline.evaluate_bootstrap import Interval
from beam_pipeline.evaluate_metrics import cider
from beam_pipeline.evaluate_tokens import choose_tokenizer, is_installed, java
from beam_pipeline.training.scored import Failure, on_device, readable
from beam_pipeline.training.student_examples import Preparer
from beam_pipeline.training.student_rows import StudentExample
from beam_pipeline.training.trainer import TrainingError
from model_handlers.student_inputs import NO_LABEL, StudentInputs, Texts

WITH, WITHOUT = "with text", "without text"


@dataclasses.dataclass(frozen=True)
class Said:
    """What a student said of some clips, in the order of their ids.

    Attributes:
      loss: the mean cross-entropy of the references' tokens. cider: None where captions were not generated.
    """

    clip_ids: tuple[str, ...]
    captions: tuple[str, ...]
    references: tuple[str, ...]
    loss: float
    cider: Interval | None = None


@dataclasses.dataclass(frozen=True)
class Part:
    """What one rank's student said: triples of clip_id, caption and reference, and the sum of losses over tokens."""

    said: tuple[tuple[str, str, str], ...] = ()
    loss: float = 0.0
    tokens: int = 0


class CiderJudge:
    """CIDEr, which cuts each reference into words once.

    Raises:
      TrainingError: what it needs is not installed.
    """

    def __init__(self) -> None:
        if not is_installed("pycocoevalcap") or not (java() or is_installed("nltk")):
            raise TrainingError("CIDEr needs pip install 'reelscribe[evaluate]'; or take --no-cider, to go by the loss")
        self._tokenizer = choose_tokenizer()
        self._known: dict[str, str] = {}

    def __call__(self, told: Sequence[tuple[Sequence[str], Sequence[str]]]) -> list[Interval]:
        """CIDEr of several sets of captions with a reference each."""
        new = list(dict.fromkeys(text for _, references in told for text in references if text not in self._known))
        words = self._tokenizer([*(text for captions, _ in told for text in captions), *new])
        said = iter(words[: len(words) - len(new)])
        self._known |= dict(zip(new, words[len(words) - len(new) :], strict=True))
        return [
            cider([next(said) for _ in captions], [[self._known[text]] for text in references])
            if captions
            else Interval(None)
            for captions, references in told
        ]


def say_all(
    model: Any,
    preparer: Preparer,
    inputs: StudentInputs,
    examples: Sequence[StudentExample],
    batch: int,
    speak: bool,
    on_failure: Failure,
) -> dict[str, Part]:
    """Say something of each clip; by way, of which there is one where no clip has text.

    Args:
      batch: clips at once. speak: generate captions, too. on_failure: is told of each clip that can't be read.
    """
    import torch

    device, was_training = next(model.parameters()).device, model.training
    found: dict[str, list[Part]] = {WITHOUT: []}
    if any(one.texts != Texts() for one in examples):
        found[WITH] = []
    model.eval()
    try:
        for at in range(0, len(examples), batch):
            kept, prepared = [], []
            for one in examples[at : at + batch]:
                try:
                    prepared.append(preparer.prepare(one))
                    kept.append(one)
                except Exception as error:
                    if not readable(error):
                        raise
                    on_failure(one.clip.clip_id, error)
            for way, parts in found.items() if kept else ():
                tensors = on_device(preparer.describe(prepared, way == WITH), device)
                tokens = int((tensors["labels"] != NO_LABEL).sum())
                with torch.no_grad():
                    loss = float(model(**tensors).loss) * tokens
                seen = {name: tensor for name, tensor in tensors.items() if name != "labels"}
                longest = inputs.reading.caption_tokens
                said = inputs.words(model.generate(**seen, max_new_tokens=longest)) if speak else [""] * len(kept)
                ids = [one.clip.clip_id for one in kept]
                told = zip(ids, said, [one.caption for one in kept], strict=True)
                parts.append(Part(tuple(told), loss, tokens))
    finally:
        model.train(was_training)
    return {way: _joined(parts) for way, parts in found.items()}


def _joined(parts: Sequence[Part]) -> Part:
    said = sorted(one for part in parts for one in part.said)
    return Part(tuple(said), sum(part.loss for part in parts), sum(part.tokens for part in parts))


def tell_ways(ranks: Sequence[Mapping[str, Part]], judge: CiderJudge | None) -> dict[str, Said]:
    """What all ranks' students said together, with text first."""
    ways = [way for way in (WITH, WITHOUT) if any(way in rank for rank in ranks)]
    # A rank whose clips have no text said the same of them with it.
    joined = {way: _joined([rank.get(way, rank[WITHOUT]) for rank in ranks]) for way in ways}
    columns = {way: _columns(part) for way, part in joined.items()}
    ciders = judge([(captions, references) for _, captions, references in columns.values()]) if judge else []
    return {
        way: Said(*columns[way], joined[way].loss / max(1, joined[way].tokens), ciders[at] if judge else None)
        for at, way in enumerate(ways)
    }


def _columns(part: Part) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The ids, the captions and the references."""
    ids, captions, references = ([one[place] for one in part.said] for place in range(3))
    return tuple(ids), tuple(captions), tuple(references)
