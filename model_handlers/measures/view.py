"""What a measure looks at: the frames of one clip out of its reel, decoded once for all measures that ask.

view = ClipView(clip)
blur = measure.load()(view)          # -> {"blur": 0.31}
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from model_handlers.frames import open_reel
from transforms.records import Clip

FoundT = TypeVar("FoundT")


class ClipView:
    """The frames of a clip, as its reel holds them: two a second and more, the short side at most 448 pixels.

    Attributes:
      clip: the clip. reel: its reel, of the whole video.
      rows: the reel's rows in the clip, in time order; at least one.

    Raises:
      ReelError: the reel is missing or unreadable.
    """

    def __init__(self, clip: Clip):
        self.clip, self.reel = clip, open_reel(clip.reel)
        self.rows = self.reel.within(clip.span.start_s, clip.span.end_s)
        self._decoded: dict[int, np.ndarray] = {}
        self._made: dict[Callable[[ClipView], Any], Any] = {}

    def uniform(self, count: int) -> list[int]:
        """Up to `count` of the clip's rows, evenly over its time."""
        return self.reel.uniform(self.clip.span.start_s, self.clip.span.end_s, count)

    def pairs(self, count: int) -> list[tuple[int, int]]:
        """Up to `count` pairs of neighbouring rows of one shot, evenly over the clip."""
        found = [pair for pair in zip(self.rows, self.rows[1:], strict=False) if self._of_one_shot(*pair)]
        return (
            [found[(2 * place + 1) * len(found) // (2 * count)] for place in range(count)]
            if count < len(found)
            else found
        )

    def _of_one_shot(self, first: int, second: int) -> bool:
        return self.reel.shots[first] == self.reel.shots[second]

    def frames(self, rows: Sequence[int]) -> list[np.ndarray]:
        """The frames of these rows: uint8 RGB, (height, width, 3). They are shared: nobody may write into them."""
        missing = [row for row in dict.fromkeys(rows) if row not in self._decoded]
        self._decoded.update(zip(missing, self.reel.frames(missing), strict=True))
        return [self._decoded[row] for row in rows]

    def once(self, make: Callable[[ClipView], FoundT]) -> FoundT:
        """What `make` makes of this clip, made once for all measures that ask."""
        if make not in self._made:
            self._made[make] = make(self)
        return self._made[make]

    def times(self, rows: Iterable[int]) -> list[float]:
        """The presentation times of these rows, in seconds of the video."""
        return [self.reel.times[row] for row in rows]


#: From a clip to the values of a measure's columns; None where the clip does not allow it (one frame has no motion).
#: Whatever it raises costs this clip this measure.
Look = Callable[[ClipView], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Measure:
    """Something that can be measured of every clip.

    Attributes:
      name: what a configuration calls it. columns: of `clips`, that it fills.
      summary: one line for people.
      load: makes the function; a model, if there is one, is loaded here. Imports of heavy packages belong in there.
      version: counts the changes that make another value of the same clip.
      identity: what of its settings its values depend on.
      labels: the words that its column of text may hold.
      check: raises where what it needs is not installed; asked before a job begins.
      model, revision, licence: of its weights, if it has any. restricted: why these may not be used for any purpose.
    """

    name: str
    columns: tuple[str, ...]
    summary: str
    load: Callable[[], Look]
    version: int = 1
    identity: tuple[Any, ...] = ()
    labels: tuple[str, ...] = ()
    check: Callable[[], object] | None = None
    model: str = ""
    revision: str = ""
    licence: str = ""
    restricted: str = ""

    @property
    def fingerprint(self) -> str:
        """Changes when its values of the same clip would."""
        shaped_by = json.dumps([self.name, self.version, self.identity], sort_keys=True)
        return hashlib.sha256(shaped_by.encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Derived:
    """A column that is made of the columns of other measures.

    Attributes:
      name: what a configuration calls it. column: of `clips`, that it fills. summary: one line for people.
      needs: the measures that it is made of. make: from the values of a clip to the column's.
      version: counts the changes that make another value of the same columns. labels: the words that it may hold.
    """

    name: str
    column: str
    summary: str
    needs: tuple[str, ...]
    make: Callable[[Mapping[str, Any]], Any]
    version: int = 1
    labels: tuple[str, ...] = ()
