"""ImageNet's labels as readable phrases, in groups and kinds: "a golden retriever" is "a dog" is "an animal".

    labels = load_labels()
    labels.phrases[207], labels.groups[207], labels.kinds[207]

The names come with torchvision's weight metadata; `phrases/labels.yaml` holds our grouping and wording.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
from collections.abc import Iterable, Iterator

import numpy as np
import yaml

COUNT = 1000
FALLBACK = "an object"


@dataclasses.dataclass(frozen=True)
class Labels:
    """The 1000 labels in class order.

    Attributes:
      phrases: noun phrases with their article ("a golden retriever", "blue jeans").
      groups, kinds: of each label, as noun phrases.
      group_names, kind_names: each once, in the order of the file.
      group_of, kind_of: indices into these, arrays of length 1000.
    """

    phrases: tuple[str, ...]
    groups: tuple[str, ...]
    kinds: tuple[str, ...]
    group_names: tuple[str, ...]
    kind_names: tuple[str, ...]
    group_of: np.ndarray
    kind_of: np.ndarray

    def by_group(self, probabilities: np.ndarray) -> np.ndarray:
        """The probability of each group, from that of each label."""
        return np.bincount(self.group_of, weights=probabilities, minlength=len(self.group_names))

    def by_kind(self, probabilities: np.ndarray) -> np.ndarray:
        """The probability of each kind, from that of each label."""
        return np.bincount(self.kind_of, weights=probabilities, minlength=len(self.kind_names))


def with_article(noun: str) -> str:
    """ "a beagle", "an otter"; by spelling, which is right for all labels that have no wording of their own."""
    vowel = noun[0].lower() in "aeio" and not noun.startswith("Euro")
    return f"{'an' if vowel else 'a'} {noun}"


def expand(ranges: Iterable[int | str]) -> Iterator[int]:
    """The numbers that a list such as [3, "7-9"] names."""
    for entry in ranges:
        first, _, last = str(entry).partition("-")
        yield from range(int(first), int(last or first) + 1)


@functools.cache
def load_labels() -> Labels:
    """Read names, groups and wording."""
    from torchvision.models import MobileNet_V2_Weights

    names = MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"]
    worded = yaml.safe_load((importlib.resources.files("model_handlers") / "phrases/labels.yaml").read_text("utf-8"))
    groups, kinds = [FALLBACK] * COUNT, [FALLBACK] * COUNT
    for entry in worded["groups"]:
        for label in expand(entry["labels"]):
            groups[label], kinds[label] = entry["group"], entry["kind"]
    phrases = tuple(worded["words"].get(label) or with_article(name) for label, name in enumerate(names))
    group_names, kind_names = tuple(dict.fromkeys(groups)), tuple(dict.fromkeys(kinds))
    return Labels(
        phrases=phrases,
        groups=tuple(groups),
        kinds=tuple(kinds),
        group_names=group_names,
        kind_names=kind_names,
        group_of=np.array([group_names.index(group) for group in groups]),
        kind_of=np.array([kind_names.index(kind) for kind in kinds]),
    )
