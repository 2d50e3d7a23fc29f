"""Which of many unit vectors hang together, found exactly and in bounded memory.

    near = Clusters(threshold=0.2); near.add(vectors, owners); near.join(); near.labels      # one label a vector

Two vectors of different owners that are nearer than the threshold belong together, and so do all that a chain of such
pairs joins. Every pair is looked at, so that the answer depends on the vectors alone and not on their order. What makes
that cheap is a bound: the distance between two projections is never greater than that between the vectors, nor is the
difference between the lengths of what the projection leaves out (Pythagoras). So pairs are compared in a few
dimensions, block by block, and only those that may be near are measured in all of them, in double precision.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import numpy as np

#: Dimensions that are compared first: the directions in which the vectors differ most. 264 bytes a vector in memory.
_DIRECTIONS = 63
#: Vectors that these directions are found from. Others would be as right, and slower.
_SAMPLE = 4096
_ROUNDS = 3
#: Larger products than of 16 MiB would be fetched from the system, page by page, each time.
_BLOCK, _CHUNK = 1024, 4096
#: Pairs that are measured at once, 2 x 20 kB each in double precision.
_PAIRS = 1024
#: What single precision may add to half a squared distance of some 66 products of at most 1.
_SLACK = 1e-5


class Clusters:
    """Unit vectors and which of them hang together; some may go and others come, and the answer stays the exact one.

    The vectors themselves wait on the disk (`TMPDIR`), 4 bytes a number; in memory each takes some 300 bytes.

    Args:
      threshold: Euclidean distance below which two vectors of different owners are neighbours.

    Attributes:
      labels: an int64 a vector, in the order in which they were added; equal for those that hang together.
    """

    def __init__(self, threshold: float):
        self.threshold = threshold
        self.labels = np.empty(0, np.int64)
        self._owners = np.empty(0, np.int64)
        self._file = tempfile.TemporaryFile(prefix="reelscribe-")  # noqa: SIM115  Lives as long as this.
        self._length = 0
        self._joined = 0
        self._low = np.empty((0, 0), np.float32)
        self._mean = np.empty(0)
        self._basis: np.ndarray | None = None
        self._members: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return len(self.labels)

    def close(self) -> None:
        """Give the disk back what it holds."""
        self._file.close()

    def add(self, vectors: np.ndarray, owners: np.ndarray) -> None:
        """Add vectors; `join` looks at them.

        Args:
          vectors: float32, one a row. owners: an int64 a vector; those of one owner are no neighbours of each other.
        """
        if not len(vectors):
            return
        if self._length not in (0, vectors.shape[1]):
            raise ValueError(f"vectors of {vectors.shape[1]} numbers cannot be compared with those of {self._length}")
        self._length = vectors.shape[1]
        # Not to the end: what a full disk cut short would shift all that comes after it.
        self._file.seek(4 * self._length * len(self))
        self._file.write(np.ascontiguousarray(vectors, np.float32).tobytes())
        self._file.flush()
        self.labels = np.concatenate([self.labels, np.arange(len(self), len(self) + len(vectors))])
        self._owners = np.concatenate([self._owners, owners])

    def remove(self, rows: np.ndarray) -> None:
        """Forget vectors; what hung together through them alone does so no more."""
        if not len(rows):
            return
        self._project()
        self._low[rows] = np.nan  # Nearer to nothing.
        torn = [label for label in np.unique(self.labels[rows]).tolist() if label in self._members]
        gone = set(rows.tolist())
        for label in torn:
            left = np.array([row for row in self._members.pop(label) if row not in gone], np.int64)
            self.labels[left] = left
            for number in range(0, len(left), _BLOCK):
                block = left[number : number + _BLOCK]
                for start in range(0, number + len(block), _CHUNK):
                    self._compare(block, left[start : start + _CHUNK])
        self.labels[rows] = rows

    def join(self) -> None:
        """Look at the vectors that were added since the last time: each against all before it."""
        self._project()
        for number in range(self._joined, len(self), _BLOCK):
            block = np.arange(number, min(number + _BLOCK, len(self)))
            for start in range(0, int(block[-1]) + 1, _CHUNK):
                self._compare(block, np.arange(start, min(start + _CHUNK, len(self))))
        self._joined = len(self)

    def distances(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """The Euclidean distances of the vectors in `rows` from those in `others`, pair by pair, in float64."""
        turns = [self._read(first) - self._read(second) for first, second in _in_turns(rows, others)]
        return np.concatenate([np.empty(0), *(np.linalg.norm(apart, axis=1) for apart in turns)])

    def _read(self, rows: np.ndarray) -> np.ndarray:
        """Some of the vectors, in double precision. Not by a memory map, whose pages would count as this process's."""
        found = np.empty((len(rows), self._length), np.float32)
        size = 4 * self._length
        for place, row in enumerate(rows.tolist()):
            found[place] = np.frombuffer(os.pread(self._file.fileno(), size, row * size), np.float32)
        return found.astype(np.float64)

    def _project(self) -> None:
        """Project what has not been yet."""
        if len(self._low) == len(self):
            return
        if self._basis is None:
            picked = np.unique(np.linspace(0, len(self) - 1, _SAMPLE).astype(np.int64))
            self._mean, self._basis = _directions(self._read(picked))
        rows = [self._low] if len(self._low) else []
        for start in range(len(self._low), len(self), _BLOCK):
            vectors = self._read(np.arange(start, min(start + _BLOCK, len(self))))
            rows.append(_projected(vectors, self._mean, self._basis))
        self._low = np.concatenate(rows)

    def _compare(self, rows: np.ndarray, others: np.ndarray) -> None:
        """Join those of `rows` with those of `others` that come before them, where they are neighbours."""
        one, other = self._low[rows], self._low[others]
        half = np.float32(-0.5)
        # Minus half the squared distance, as one product of matrices.
        left = np.column_stack([one, half * np.square(one).sum(1), np.ones(len(one), np.float32)])
        right = np.column_stack([other, np.ones(len(other), np.float32), half * np.square(other).sum(1)])
        hits = np.flatnonzero((left @ right.T).ravel() >= -(self.threshold**2) / 2 - _SLACK)
        a, b = rows[hits // len(others)], others[hits % len(others)]
        wanted = (b < a) & (self._owners[a] != self._owners[b]) & (self.labels[a] != self.labels[b])
        self._measure(a[wanted], b[wanted])

    def _measure(self, a: np.ndarray, b: np.ndarray) -> None:
        """Join those of some pairs that are neighbours; the pairs of one row of `a` stand together.

        Of each row first one pair is measured, then more and more: those that hang together by then need no measuring.
        Else a thousand copies would cost half a million pairs.
        """
        most = 1
        while len(a):
            starts = np.r_[True, np.diff(a) != 0]
            place = np.arange(len(a)) - np.flatnonzero(starts)[np.cumsum(starts) - 1]
            now = place < most
            for first, second in _in_turns(a[now], b[now]):
                near = self.distances(first, second) < self.threshold
                for row, neighbour in zip(first[near].tolist(), second[near].tolist(), strict=True):
                    self._unite(row, neighbour)
            left = ~now & (self.labels[a] != self.labels[b])
            a, b, most = a[left], b[left], 4 * most

    def _unite(self, row: int, neighbour: int) -> None:
        one, other = int(self.labels[row]), int(self.labels[neighbour])
        if one == other:
            return
        members, fewer = self._members.pop(one, [row]), self._members.pop(other, [neighbour])
        if len(members) < len(fewer):
            one, members, fewer = other, fewer, members
        self.labels[fewer] = one
        members += fewer
        self._members[one] = members


def _in_turns(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for at in range(0, len(a), _PAIRS):
        yield a[at : at + _PAIRS], b[at : at + _PAIRS]


def _directions(sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of some vectors, and an orthonormal basis of about the directions in which they differ most.

    By subspace iteration (Halko, Martinsson and Tropp 2011, algorithm 4.4). Any basis gives the same clusters.
    """
    mean = sample.mean(axis=0)
    vectors = sample - mean
    length = vectors.shape[1]
    if length <= _DIRECTIONS:
        return mean, np.eye(length)
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((length, _DIRECTIONS)))[0]
    for _ in range(_ROUNDS):
        basis = np.linalg.qr(vectors.T @ (vectors @ basis))[0]
    return mean, basis


def _projected(vectors: np.ndarray, mean: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """The coordinates of vectors along a basis, and the length of what it leaves out, in float32.

    Args:
      vectors: in double precision, since the root of a small difference would not be accurate otherwise.
    """
    centred = vectors - mean
    along = centred @ basis
    rest = np.sqrt(np.maximum(np.square(centred).sum(1) - np.square(along).sum(1), 0.0))
    return np.column_stack([along, rest]).astype(np.float32)
