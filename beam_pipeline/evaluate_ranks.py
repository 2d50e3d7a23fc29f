"""Ranks of retrieval between texts and videos, and what chance would make of them.

    ranks = text_to_video(scores, captions)     # of each (clip, text) pair; 1 is best
    recall(ranks, 5)                            # the share of pairs among the first five

A wrong answer with the same score counts as better than the right one: a selector that scores everything alike earns
nothing. A text that several clips share is right for each of them, so none of these counts as wrong for another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

#: Columns or rows that are compared at once, so that scores on disk need not fit into memory.
_AT_ONCE = 256


@dataclasses.dataclass(frozen=True)
class Texts:
    """The texts of a gallery, each once, and which clip has which.

    Attributes:
      texts: in the order of the score matrix' columns.
      of_clip: the columns of each clip, at least one.
    """

    texts: tuple[str, ...]
    of_clip: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, captions: Sequence[Sequence[str]]) -> Texts:
        """Of the captions of each clip."""
        columns: dict[str, int] = {}
        for told in captions:
            for text in told:
                columns.setdefault(text, len(columns))
        of_clip = tuple(tuple(columns[text] for text in dict.fromkeys(told)) for told in captions)
        return cls(tuple(columns), of_clip)

    @property
    def pairs(self) -> np.ndarray:
        """Each clip with each of its texts, (n, 2), in the order of the clips."""
        return np.array([(row, column) for row, columns in enumerate(self.of_clip) for column in columns]).reshape(
            -1, 2
        )

    @property
    def clips_of_text(self) -> list[list[int]]:
        found: list[list[int]] = [[] for _ in self.texts]
        for row, columns in enumerate(self.of_clip):
            for column in columns:
                found[column].append(row)
        return found


def text_to_video(scores: np.ndarray, texts: Texts) -> np.ndarray:
    """The rank of the right clip for each pair of `texts.pairs`, among that clip and all clips without the text.

    Args:
      scores: (clips, texts), higher fits better.
    """
    clips_of, pairs = texts.clips_of_text, texts.pairs
    ranks = np.zeros(len(pairs), np.int64)
    order = np.argsort(pairs[:, 1], kind="stable")
    for at in range(0, scores.shape[1], _AT_ONCE):
        block = np.asarray(scores[:, at : at + _AT_ONCE])
        within = order[np.searchsorted(pairs[order, 1], at) : np.searchsorted(pairs[order, 1], at + _AT_ONCE)]
        for number in within:
            row, column = pairs[number]
            fits = block[:, column - at]
            right = clips_of[column]
            ranks[number] = 1 + np.count_nonzero(fits >= fits[row]) - np.count_nonzero(fits[right] >= fits[row])
    return ranks


def video_to_text(scores: np.ndarray, texts: Texts) -> np.ndarray:
    """The rank of the best of each clip's own texts among that and all texts that are not its own."""
    ranks = np.zeros(len(texts.of_clip), np.int64)
    for at in range(0, len(ranks), _AT_ONCE):
        for row, fits in enumerate(np.asarray(scores[at : at + _AT_ONCE]), start=at):
            own = fits[list(texts.of_clip[row])]
            best = own.max()
            ranks[row] = 1 + np.count_nonzero(fits >= best) - np.count_nonzero(own >= best)
    return ranks


def recall(ranks: np.ndarray, most: int) -> float:
    """The share of ranks from 1 to `most`."""
    return float(np.mean(ranks <= most)) if len(ranks) else float("nan")


def chance_text_to_video(texts: Texts, most: int) -> float:
    """The recall of a selector that knows nothing: one clip among those without the text and itself."""
    clips, right = len(texts.of_clip), texts.clips_of_text
    others = np.array([clips - len(right[column]) for _, column in texts.pairs])
    return float(np.mean(np.minimum(1.0, most / (others + 1))))


def chance_video_to_text(texts: Texts, most: int) -> float:
    """The recall of a selector that knows nothing: any of a clip's own texts among the first drawn."""
    total = len(texts.texts)
    missed = np.ones(len(texts.of_clip))
    own = np.array([len(columns) for columns in texts.of_clip])
    for drawn in range(min(most, total)):
        missed *= np.maximum(total - own - drawn, 0) / (total - drawn)
    return float(np.mean(1 - missed))
