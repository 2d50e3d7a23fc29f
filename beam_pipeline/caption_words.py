"""The words of captions, and captions that are told again, counted batch by batch in bounded memory.

words = Vocabulary(); words.add(batch["caption"]); words.top()
repeats = Repeats(); repeats.add(batch["caption"]); repeats.share
"""

from __future__ import annotations

import collections
import hashlib
import re
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from transforms.judgements import same_words

#: How many different words are kept apart. English captions have some 100,000; beyond this it is noise.
MOST_WORDS = 1_000_000

#: How many different captions are kept apart; of more a share of them is, drawn by their digests.
MOST_CAPTIONS = 500_000

_TOP = 20
_LONGEST_WORD = 64

#: Letters and digits of any script, with apostrophes and hyphens inside a word.
_NO_WORD = r"[^\p{L}\p{M}\p{N}'’-]+"

#: Said in every caption whatever it shows, so the list of frequent words leaves them out.
_STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be been being by for from has have he her his i in into is it its of on or she that the "
        "their there they this to was were while who with",
    )
)


class Vocabulary:
    """Counts words, up to so many different ones.

    >>> words = Vocabulary(); words.add(pa.array(["A dog's ball. A BALL!"])); words.counts["ball"]
    2
    """

    def __init__(self, most: int = MOST_WORDS):
        self.counts: collections.Counter[str] = collections.Counter()
        self.is_capped = False
        self.total = 0
        self._most = most

    def add(self, captions: pa.Array) -> None:
        """Count the words of some captions, whatever their case."""
        words = pc.list_flatten(pc.split_pattern_regex(pc.utf8_lower(captions), _NO_WORD))
        words = pc.utf8_slice_codeunits(pc.utf8_trim(words, "'’-"), 0, _LONGEST_WORD)
        for word, count in counted(words):
            self.total += count if word else 0
            if word in self.counts or len(self.counts) < self._most:
                self.counts[word] += count
            elif word:
                self.is_capped = True
        self.counts.pop("", None)

    def top(self, number: int = _TOP) -> dict[str, int]:
        """The most frequent words that say something, equally frequent ones by the alphabet."""
        telling = ((word, count) for word, count in self.counts.items() if word not in _STOP_WORDS)
        return dict(sorted(telling, key=by_count)[:number])


class Repeats:
    """Counts how many clips have a caption that another clip has, too; case, blanks and a last full stop aside.

    Exact up to so many different captions. Of more, only those count whose digests end in a number of zero bits, one
    more each time that there are too many: an even draw from all captions, whatever their order (Gibbons, 2001).

    >>> repeats = Repeats(); repeats.add(pa.array(["A dog.", "a dog", "A cat."])); repeats.share
    0.6666666666666666
    """

    def __init__(self, most: int = MOST_CAPTIONS):
        self._counts: dict[int, int] = {}
        self._most, self._mask = most, 0

    @property
    def is_estimated(self) -> bool:
        """Whether some captions stand for all."""
        return self._mask > 0

    @property
    def share(self) -> float | None:
        """Of clips with such a caption; None where there are none."""
        clips = sum(self._counts.values())
        return sum(count for count in self._counts.values() if count > 1) / clips if clips else None

    def add(self, captions: pa.Array) -> None:
        """Count the captions of some clips."""
        for caption, count in counted(captions):
            digest = hashlib.blake2b(same_words(caption).encode(), digest_size=8).digest()
            number = int.from_bytes(digest, "big")
            if number & self._mask:
                continue
            self._counts[number] = self._counts.get(number, 0) + count
            while len(self._counts) > self._most:
                self._mask = 2 * self._mask + 1
                self._counts = {one: times for one, times in self._counts.items() if not one & self._mask}


def counted(values: pa.Array) -> Iterable[tuple[Any, int]]:
    """The values that there are, each with how often it is."""
    found = pc.drop_null(values).value_counts()
    return zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True)


def by_count(pair: tuple[Any, int]) -> tuple[int, Any]:
    """A key to sort counts by: the most frequent first, equally frequent ones by what is counted."""
    return -pair[1], pair[0]
