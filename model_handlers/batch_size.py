"""How many requests go through a model at once: found by measuring, from one upwards.

size = BatchSize(most=64)
size.passed(count=1, bytes_taken=900_000_000, room=20_000_000_000)      # now 2, then 4, ...
"""

from __future__ import annotations

import dataclasses

#: Of the room that is left, for what a batch of other pictures and texts may need beyond the one measured.
USABLE = 0.85
#: Full batches without trouble, until twice as many requests are tried again.
CALM = 16


@dataclasses.dataclass
class BatchSize:
    """Grows by doubling while what was measured says that twice as many fit; halves when memory runs out.

    Attributes:
      most: never more.
      size: what the next batch may hold.
      ceiling: found by running out of memory; tried again after `CALM` full batches, as it may have been one large
        request, or a neighbour on the GPU. calm: such batches since.
    """

    most: int
    size: int = 1
    ceiling: int | None = None
    calm: int = 0

    def passed(self, count: int, bytes_taken: int, room: int) -> None:
        """A batch of `count` requests went through.

        Args:
          bytes_taken: at its peak, beyond what stood there before. room: what was left before it, in bytes.
        """
        if self.ceiling and count >= self.ceiling:
            self.calm += 1
            if self.calm >= CALM:
                self.ceiling, self.calm = min(self.most, 2 * self.ceiling), 0
        # What a batch takes whatever its size is counted once a request: the estimate errs on the safe side.
        fitting = int(room * USABLE / max(bytes_taken / count, 1.0))
        limit = max(1, min(self.most, fitting, self.ceiling or self.most))
        self.size = min(limit, self.size * 2 if count >= self.size else self.size)

    def overflowed(self, count: int) -> None:
        """A batch of `count` requests ran out of memory."""
        self.ceiling, self.calm = max(1, count // 2), 0
        self.size = min(self.size, self.ceiling)
