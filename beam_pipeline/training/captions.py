"""The captions of a batch as networks read them, and what people said of them.

    told = read_captions(example, [["A dog."], ["A cat.", "It sleeps."]], tokens, lengths)
    batch = join_captions([told, ...])                   # `owners`, `chosen` and more, in one row
    per_caption = by_caption(per_piece, batch)           # as the handlers join the pieces of a long caption

In training a caption is one piece, cut where the text encoder ends; a clip that is only scored has captions in the
pieces that its selector reads, so that both give the same score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from beam_pipeline.training.trainable import Batch, Example

#: What `read_captions` says of an example, and `join_captions` of a batch.
Told = dict[str, Any]


def read_captions(
    example: Example, pieces: Sequence[Sequence[str]], tokens: Mapping[str, Any], lengths: Sequence[int]
) -> Told:
    """An example's captions as token numbers.

    Args:
      pieces: of each caption. tokens: `input_ids` and `attention_mask` of all pieces, (pieces, width) each.
      lengths: tokens of each piece.

    Raises:
      ValueError: there are no captions.
    """
    if not example.captions:
        raise ValueError(f"there are no captions to choose from for the clip {example.clip.clip_id}")
    rows = iter(tokens["input_ids"].numpy())
    words = [b"".join(next(rows).tobytes() for _ in parts) for parts in pieces]
    # Words that the network can't tell from good ones are good: it would be taught a thing and its opposite.
    right = {words[number] for number in example.right}
    return {
        **tokens,
        "pieces": [len(parts) for parts in pieces],
        "lengths": list(lengths),
        "words": words,
        "good": [word in right for word in words],
        "chosen": example.chosen,
        "source": example.clip.video_id,
    }


def join_captions(prepared: Sequence[Told]) -> Batch:
    """The captions of several examples in one row.

    Returns:
      `input_ids` and `attention_mask`, (pieces, width); `pieces_of`, (pieces,), the caption of each piece, and
      `lengths`, (pieces,), float32; `owners`, `chosen` (see `Batch`) and `good`, (captions,), bool; `words`,
      (captions,), in which equal captions have equal numbers; `sources`, (examples,), the same of the examples' videos.
    """
    import torch

    words = [word for one in prepared for word in one["words"]]
    counts = [len(one["words"]) for one in prepared]
    starts = [sum(counts[:place]) for place in range(len(counts))]
    chosen = [
        -1 if one["chosen"] is None else start + one["chosen"] for one, start in zip(prepared, starts, strict=True)
    ]
    pieces = torch.tensor([count for one in prepared for count in one["pieces"]])
    return {
        # First, as a trainer takes the length of the first tensor for the number of examples.
        "chosen": torch.tensor(chosen),
        **{name: torch.cat([one[name] for one in prepared]) for name in ("input_ids", "attention_mask")},
        "pieces_of": torch.arange(len(pieces)).repeat_interleave(pieces),
        "lengths": torch.tensor([length for one in prepared for length in one["lengths"]], dtype=torch.float32),
        "owners": torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)),
        "good": torch.tensor([good for one in prepared for good in one["good"]]),
        "words": torch.tensor(_numbered(words)),
        "sources": torch.tensor(_numbered([one["source"] for one in prepared])),
    }


def _numbered(values: Sequence[Any]) -> list[int]:
    numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
    return [numbers[value] for value in values]


def by_caption(values: Any, batch: Batch) -> Any:
    """Values of pieces, (..., pieces), as those of captions, (..., captions): means weighted by tokens."""
    return weighted_means(values, batch["pieces_of"], batch["lengths"], len(batch["owners"]))


def weighted_means(values: Any, groups: Any, weights: Any, count: int) -> Any:
    """The weighted mean of each of `count` groups of the last axis, (..., count)."""
    totals = weights.new_zeros(count).index_add(0, groups, weights)
    shares = values * (weights / totals[groups]).to(values.dtype)
    return values.new_zeros(*values.shape[:-1], count).index_add(-1, groups, shares)


def without_good(similarity: Any, batch: Batch) -> Any:
    """The contrast's numbers, (clips, captions), in which a clip's other good captions are no negatives of it.

    The paper's people name one caption; where they name more, pushing these away would teach what is wrong.
    """
    import torch

    captions = torch.arange(len(batch["owners"]), device=similarity.device)
    owners = batch["owners"]
    other = batch["good"] & (captions != batch["chosen"][owners])
    spared = torch.zeros_like(similarity, dtype=torch.bool)
    spared[owners[other], captions[other]] = True
    return similarity.masked_fill(spared, float("-inf"))
