"""The losses of Panda-70M's selector (section 3.3): contrast with weighed negatives (VTC), and matching (VTM).

    loss = vtc(similarity, owners, chosen) + vtm(logits, targets)

`similarity` is (clips, captions), divided by the temperature already; `owners` and `chosen` are those of a `Batch`.
"""

from __future__ import annotations

from typing import Any

#: What a caption of another clip counts in the contrast; the chosen caption and the unchosen ones of its clip count 1.
OTHER_WEIGHT = 0.01


def vtc(similarity: Any, owners: Any, chosen: Any, other_weight: float = OTHER_WEIGHT) -> Any:
    """The contrast between clips and captions, both ways; nought where no clip of the batch has a good caption.

    A clip looks for its chosen caption among all captions of the batch: the unchosen ones of its own are hard
    negatives of weight 1, those of other clips weigh `other_weight`. A chosen caption looks for its clip among all
    clips; the others weigh `other_weight`. Clips whose captions are all bad are negatives only.

    Returns:
      A scalar.
    """
    import torch

    clips = torch.arange(len(similarity), device=similarity.device)
    good = chosen >= 0
    if not good.any():
        return similarity.sum() * 0.0
    own = clips[:, None] == owners[None, :]
    weights = torch.where(own, 1.0, other_weight).log().to(similarity.dtype)
    positives = chosen[good]
    by_clip = torch.nn.functional.cross_entropy((similarity + weights)[good], positives)
    by_caption = torch.nn.functional.cross_entropy((similarity + weights).T[positives], owners[positives])
    return (by_clip + by_caption) / 2


def vtm(logits: Any, targets: Any) -> Any:
    """The mean cross-entropy of "these belong together", in which matches and mismatches weigh the same.

    Of eight captions seven are mismatches: unweighed, a network that always says no would start near the optimum.

    Args:
      logits: (pairs,), of a match. targets: (pairs,), 1 for a match.

    Returns:
      A scalar; of a batch with pairs of one kind only, their mean.
    """
    import torch

    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none")
    kinds = [each[targets > 0.5], each[targets <= 0.5]]
    return torch.stack([kind.mean() for kind in kinds if len(kind)]).mean()
