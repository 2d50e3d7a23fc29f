"""The splitting rules as the paper, the published dataset and the released code have them: where they disagree, each.

RULES["paper"].events["min_event_s"]        # 2.0
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Rules:
    """A named set of splitting rules: what Panda-70M's paper, dataset and released code each use."""

    summary: str
    shots: Mapping[str, Any]
    events: Mapping[str, Any]


#: Where the paper, the published dataset and the released code disagree, each is a set of rules of its own.
RULES = {
    "paper": Rules(
        "as the paper says",
        {"max_shot_s": 5.0, "slice_s": 5.0, "first_fraction": 0.10, "last_fraction": 0.90},
        {"min_event_s": 2.0, "max_clip_s": 60.0, "trim_fraction": 0.1},
    ),
    "panda70m": Rules(
        "as the published dataset was made",
        {"max_shot_s": 7.0, "slice_s": 5.0, "first_fraction": 0.05, "last_fraction": 0.95},
        {"min_event_s": 2.5, "max_clip_s": 60.0, "trim_fraction": 0.1},
    ),
    "released": Rules(
        "the released code's defaults: redundant events stay, nothing is trimmed",
        {"max_shot_s": 7.0, "slice_s": 5.0, "first_fraction": 0.05, "last_fraction": 0.95},
        {"min_event_s": 2.0, "max_clip_s": 1200.0, "trim_fraction": 0.0, "redundant_distance": None},
    ),
}
