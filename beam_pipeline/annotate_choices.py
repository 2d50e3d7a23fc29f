"""What people may choose between for a clip: its captions, each once, shuffled, and nothing that says whose they are.

    choices = shuffled(choices_of(row["captions"]), seed=7, clip_id=row["clip_id"])
    key = seal(Task(row["clip_id"], choices))       # goes along with the task; unseal(key) gives the task back

A task carries its own key, so that its judgement can be read without a second file: the names of the teachers in it are
compressed and spelled in base64, which nobody reads by chance.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import itertools
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from transforms.by_source import place_of
from transforms.judgements import Choice, same_words

#: What people can be asked about a clip's captions, with the version of the keys that say so.
CHOOSE = {"best": 1, "every-good": 2}

#: A key that unpacks to more was not written here: eight captions of a paragraph each are some 10 kB.
_LONGEST = 1 << 20


class SealError(ValueError):
    """A key that is none of ours, or was changed."""


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """What somebody is asked: which of these captions fits this clip best, or which fit it.

    Attributes:
      extras: those of the names in `choices` that are no teachers of the dataset.
      choose: one of `CHOOSE`.
    """

    clip_id: str
    choices: tuple[Choice, ...]
    extras: tuple[str, ...] = ()
    choose: str = "best"

    @property
    def is_every_good(self) -> bool:
        """Whether any number of captions may be chosen."""
        return self.choose == "every-good"


def choices_of(captions: Sequence[Mapping[str, Any]], extras: Mapping[str, str] | None = None) -> tuple[Choice, ...]:
    """The captions of a clip that differ in their words, as the first teacher wrote them, with all who said so.

    Args:
      captions: candidates, as `clips` has them.
      extras: captions of other models, by name.

    >>> choices_of([{"teacher": "a", "caption": "A dog."}, {"teacher": "b", "caption": "a dog"}], {"c": "A cat"})
    (Choice(caption='A dog.', teachers=('a', 'b')), Choice(caption='A cat', teachers=('c',)))
    """
    said = [(one["teacher"], one["caption"]) for one in captions] + list((extras or {}).items())
    first: dict[str, str] = {}
    who: dict[str, list[str]] = {}
    for name, caption in said:
        if words := same_words(caption):
            first.setdefault(words, " ".join(caption.split()))
            who.setdefault(words, []).append(name)
    return tuple(Choice(first[words], tuple(dict.fromkeys(names))) for words, names in who.items())


def shuffled(choices: Sequence[Choice], *, seed: int, clip_id: str) -> tuple[Choice, ...]:
    """An order that depends on the seed, the clip and each caption's words alone."""
    return tuple(sorted(choices, key=lambda one: place_of(f"choice {seed} {clip_id}", same_words(one.caption))))


def alikeness(captions: Sequence[str]) -> float:
    """How alike captions are, from 0 (no word in common) to 1: the mean over all pairs of their words' Jaccard index.

    Words, not a model's embeddings: it needs none, and is the same to the last digit on every machine, so that the
    same clips fall into the same strata.

    >>> alikeness(["a dog runs", "A dog runs.", "two cats"])
    0.3333333333333333
    """
    words = [frozenset(re.findall(r"\w+", caption.casefold())) for caption in captions]
    pairs = list(itertools.combinations(words, 2))
    return sum(len(a & b) / len(a | b) if a | b else 1.0 for a, b in pairs) / len(pairs) if pairs else 1.0


def seal(task: Task) -> str:
    """The task as text from which nobody reads a teacher's name without taking pains."""
    told = [
        CHOOSE[task.choose],
        task.clip_id,
        [[one.caption, list(one.teachers)] for one in task.choices],
        list(task.extras),
    ]
    packed = zlib.compress(json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode(), 9)
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def unseal(key: str) -> Task:
    """The task that a key was made of.

    Raises:
      SealError: it is no key, or a later version's.
    """
    try:
        packed = base64.b64decode(key.strip() + "=" * (-len(key.strip()) % 4), altchars=b"-_", validate=True)
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(packed, _LONGEST)
        if not unpacker.eof:
            raise SealError("it is cut short, or longer than any that we write")
        version, clip_id, choices, extras = json.loads(text)
        choose = {number: name for name, number in CHOOSE.items()}.get(version)
        if choose is None:
            raise SealError("it is of a later version")
        found = tuple(Choice(caption, tuple(names)) for caption, names in choices)
        task = Task(clip_id, found, tuple(extras), choose)
        texts = [clip_id, *task.extras, *(text for one in task.choices for text in (one.caption, *one.teachers))]
        if not all(isinstance(text, str) for text in texts) or len(task.choices) < 2:
            raise SealError("it is none that this version writes")
    except (ValueError, TypeError, RecursionError, zlib.error, binascii.Error) as error:
        raise SealError(f"the key {key[:16]!r}... can't be read: {error}") from error
    return task
