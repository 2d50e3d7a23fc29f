"""Which vectors hang together: the same as by comparing every pair, whatever comes, goes, and in which order."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.neighbours import Clusters


def unit(count, dimensions, seed, spread):
    """Vectors round a few centres."""
    draw = np.random.default_rng(seed)
    centres = draw.standard_normal((max(1, count // 6), dimensions))
    found = centres[draw.integers(len(centres), size=count)] + spread * draw.standard_normal((count, dimensions))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def partition(labels, rows):
    """Rows that hang together, as a set of sets."""
    groups = {}
    for label, row in zip(labels[rows].tolist(), rows.tolist(), strict=True):
        groups.setdefault(label, set()).add(row)
    return {frozenset(group) for group in groups.values()}


def by_every_pair(vectors, owners, threshold, rows):
    """The same by measuring all pairs in double precision."""
    labels = np.arange(len(vectors))
    for a in rows:
        for b in rows:
            apart = np.linalg.norm(vectors[a].astype(float) - vectors[b])
            if owners[a] != owners[b] and apart < threshold and labels[a] != labels[b]:
                labels[labels == labels[b]] = labels[a]
    return partition(labels, rows)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 40),
    dimensions=st.sampled_from([2, 5, 63, 64, 100]),
    seed=st.integers(0, 10_000),
    spread=st.sampled_from([0.0, 0.02, 0.1]),
    threshold=st.sampled_from([0.05, 0.2, 0.6, 1.5]),
    cuts=st.lists(st.integers(0, 40), max_size=3),
    removed=st.sets(st.integers(0, 39)),
)
def test_clusters_are_those_that_all_pairs_make(count, dimensions, seed, spread, threshold, cuts, removed):
    vectors = unit(count, dimensions, seed, spread)
    owners = np.random.default_rng(seed + 1).integers(0, max(2, count // 2), count)
    clusters, edges = Clusters(threshold), sorted({0, count, *(cut for cut in cuts if cut < count)})
    for start, end in itertools.pairwise(edges):
        clusters.add(vectors[start:end], owners[start:end])
        clusters.join()
    rows = np.arange(count)
    assert partition(clusters.labels, rows) == by_every_pair(vectors, owners, threshold, rows)
    gone = np.array(sorted(row for row in removed if row < count), np.int64)
    clusters.remove(gone)
    left = np.setdiff1d(rows, gone)
    assert partition(clusters.labels, left) == by_every_pair(vectors, owners, threshold, left)
    clusters.add(vectors[gone], owners[gone])
    clusters.join()
    again = np.arange(count, count + len(gone))
    back = {frozenset(row if row < count else gone[row - count] for row in group) for group in
            partition(clusters.labels, np.concatenate([left, again]))}  # fmt: skip
    assert back == by_every_pair(vectors, owners, threshold, rows)
    clusters.close()


def test_a_chain_of_neighbours_hangs_together_and_breaks_where_a_link_goes():
    angles = np.radians([0, 10, 20, 30, 40])
    clusters = Clusters(0.2)
    clusters.add(np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32), np.arange(5))
    clusters.join()
    assert partition(clusters.labels, np.arange(5)) == {frozenset(range(5))}
    clusters.remove(np.array([2]))
    assert partition(clusters.labels, np.array([0, 1, 3, 4])) == {frozenset([0, 1]), frozenset([3, 4])}


def test_blocks_and_chunks_leave_no_pair_out():
    vectors = unit(9000, 96, 5, 0.02)
    owners = np.arange(9000) // 2
    # A copy in the first block of one in the last chunk.
    vectors[8999] = vectors[3]
    clusters = Clusters(1e-3)
    clusters.add(vectors, owners)
    clusters.join()
    assert clusters.labels[8999] == clusters.labels[3]
    assert len(np.unique(clusters.labels)) == 8999


class Counted(Clusters):
    """How many pairs were measured in all dimensions."""

    measured = 0

    def distances(self, rows, others):
        self.measured += len(rows)
        return super().distances(rows, others)


def test_a_thousand_copies_cost_no_million_measured_pairs():
    clusters = Counted(0.2)
    clusters.add(np.repeat(unit(1, 80, 1, 0.0), 3000, axis=0), np.arange(3000))
    clusters.join()
    assert len(np.unique(clusters.labels)) == 1
    assert clusters.measured < 20_000


def test_few_pairs_are_measured_of_vectors_that_are_far_apart():
    clusters = Counted(0.2)
    draw = np.random.default_rng(2)
    vectors = draw.standard_normal((3000, 512)) * (1 / np.sqrt(np.arange(1, 513)))
    clusters.add((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), np.arange(3000))
    clusters.join()
    assert (clusters.measured, len(np.unique(clusters.labels))) == (0, 3000)


def test_distances_are_those_of_double_precision():
    vectors = unit(50, 1280, 3, 0.1)
    clusters = Clusters(0.2)
    clusters.add(vectors, np.arange(50))
    found = clusters.distances(np.arange(49), np.arange(1, 50))
    assert found == pytest.approx(np.linalg.norm(vectors[:-1].astype(float) - vectors[1:], axis=1), abs=1e-12)


def test_vectors_of_another_length_are_refused():
    clusters = Clusters(0.2)
    clusters.add(np.ones((1, 3), np.float32), np.zeros(1, np.int64))
    with pytest.raises(ValueError, match="vectors of 4 numbers cannot be compared with those of 3"):
        clusters.add(np.ones((1, 4), np.float32), np.zeros(1, np.int64))
