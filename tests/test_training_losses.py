"""The losses against slow loops written from their formulas, and what a batch says of its captions."""

import dataclasses
import math
import random

import pytest
import torch
from lite_media import clip_of

from beam_pipeline.training.captions import by_caption, join_captions, read_captions, weighted_means, without_good
from beam_pipeline.training.losses import OTHER_WEIGHT, vtc, vtm
from beam_pipeline.training.trainable import Example

#: owners and chosen of a batch: captions in clips of 3, 1 and 2.
OWNERS = [0, 0, 0, 1, 2, 2]


def similarity(clips, captions, scale=3.0):
    drawn = random.Random(5)
    return [[scale * drawn.uniform(-1, 1) for _ in range(captions)] for _ in range(clips)]


def slow_vtc(table, owners, chosen, other):
    """-log of the chosen pair's share among its rivals, each times its weight, both ways."""
    by_clip, by_caption_ = [], []
    for clip, best in enumerate(chosen):
        if best < 0:
            continue
        right = math.exp(table[clip][best])
        rivals = sum(
            (1.0 if owner == clip else other) * math.exp(table[clip][caption]) for caption, owner in enumerate(owners)
        )
        by_clip.append(-math.log(right / rivals))
        rivals = sum((1.0 if row == clip else other) * math.exp(table[row][best]) for row in range(len(table)))
        by_caption_.append(-math.log(right / rivals))
    if not by_clip:
        return 0.0
    return (sum(by_clip) / len(by_clip) + sum(by_caption_) / len(by_caption_)) / 2


@pytest.mark.parametrize(
    ("owners", "chosen"),
    [
        (OWNERS, [1, 3, 5]),
        (OWNERS, [2, -1, 4]),
        (OWNERS, [-1, 3, -1]),
        (OWNERS, [-1, -1, -1]),
        ([0, 0], [1]),
        ([0], [0]),
    ],
    ids=["all good", "one all bad", "one good", "none good", "one clip", "one pair"],
)
@pytest.mark.parametrize("other", [OTHER_WEIGHT, 1.0])
def test_contrast_is_the_formula(owners, chosen, other):
    table = similarity(len(chosen), len(owners))
    found = vtc(torch.tensor(table), torch.tensor(owners), torch.tensor(chosen), other)
    assert float(found) == pytest.approx(slow_vtc(table, owners, chosen, other), abs=1e-5)


def test_an_unchosen_caption_pushes_a_hundred_times_as_hard_as_one_of_another_clip():
    table = torch.zeros(2, 4, requires_grad=True)
    vtc(table, torch.tensor([0, 0, 1, 1]), torch.tensor([0, -1])).backward()
    assert table.grad[0, 1] > 0
    assert float(table.grad[0, 1] / table.grad[0, 2]) == pytest.approx(1 / OTHER_WEIGHT, rel=1e-4)
    assert float(table.grad[0].sum()) == pytest.approx(float(-table.grad[1].sum()), abs=1e-6)


def test_a_batch_without_a_good_caption_gives_no_gradient_but_a_graph():
    table = torch.arange(8.0).reshape(2, 4).requires_grad_()
    vtc(table, torch.tensor([0, 0, 1, 1]), torch.tensor([-1, -1])).backward()
    assert table.grad.tolist() == [[0.0] * 4] * 2


@pytest.mark.parametrize(
    ("logits", "targets", "expected"),
    [
        ([0.0, 0.0], [1, 0], math.log(2)),
        ([2.0, 1.0, -1.0, 3.0], [1, 0, 0, 0], None),
        ([2.0, -1.0], [1, 1], None),
        ([2.0, -1.0], [0, 0], None),
    ],
)
def test_matches_and_mismatches_weigh_the_same(logits, targets, expected):
    costs = {1: [], 0: []}
    for logit, target in zip(logits, targets, strict=True):
        share = 1 / (1 + math.exp(-logit))
        costs[target].append(-math.log(share if target else 1 - share))
    means = [sum(found) / len(found) for found in costs.values() if found]
    found = float(vtm(torch.tensor(logits), torch.tensor(targets, dtype=torch.bool)))
    assert found == pytest.approx(sum(means) / len(means), abs=1e-6)
    assert expected is None or found == pytest.approx(expected, abs=1e-6)


def told(captions, chosen, good=(), pieces=None, rows=None, video="v"):
    """What `read_captions` makes of an example whose captions are these token rows."""
    rows = rows or [[number] for number in range(len(captions))]
    example = Example(
        dataclasses.replace(clip_of("r.arrow", 4, "c"), video_id=video), tuple(captions), chosen, frozenset(good)
    )
    tokens = {"input_ids": torch.tensor(rows), "attention_mask": torch.ones(len(rows), len(rows[0]))}
    return read_captions(example, pieces or [[caption] for caption in captions], tokens, [2] * len(rows))


def test_examples_are_joined_in_one_row_with_their_labels():
    batch = join_captions(
        [
            told(["a", "b", "c"], 1, {1, 2}, rows=[[7], [8], [9]]),
            told(["d"], None, rows=[[8]], video="w"),
            told(["e", "f"], 0, {0}, rows=[[7], [7]]),
        ]
    )
    # A trainer takes the first one's length for the number of examples.
    assert len(next(iter(batch.values()))) == 3
    assert batch["owners"].tolist() == OWNERS
    assert batch["chosen"].tolist() == [1, -1, 4]
    # The last two are the same to the network, so that the second can't be a mismatch.
    assert batch["good"].tolist() == [False, True, True, False, True, True]
    assert batch["words"].tolist() == [0, 1, 2, 1, 0, 0]
    assert batch["sources"].tolist() == [0, 1, 0]
    assert batch["input_ids"].tolist() == [[7], [8], [9], [8], [7], [7]]
    assert batch["pieces_of"].tolist() == [0, 1, 2, 3, 4, 5]


def test_of_a_clip_whose_captions_are_all_bad_none_is_good():
    assert told(["a", "b"], None, {0})["good"] == [False, False]


def test_an_example_without_captions_is_an_error():
    with pytest.raises(ValueError, match="no captions to choose from for the clip c"):
        told([], None, rows=[[0]])


def test_pieces_are_averaged_by_their_tokens():
    parts = [["a", "b"], ["c"]]
    batch = join_captions([told(["ab", "c"], 0, {0}, pieces=parts, rows=[[1], [2], [3]])])
    batch["lengths"] = torch.tensor([3.0, 1.0, 5.0])
    assert batch["pieces_of"].tolist() == [0, 0, 1]
    assert by_caption(torch.tensor([[4.0, 8.0, 1.0], [0.0, 2.0, 3.0]]), batch).tolist() == [[5.0, 1.0], [0.5, 3.0]]
    assert weighted_means(torch.tensor([6.0, 2.0]), torch.tensor([1, 1]), torch.tensor([1.0, 3.0]), 2).tolist() == [
        0,
        3,
    ]


def test_other_good_captions_of_a_clip_are_no_negatives_of_it():
    table = torch.tensor(similarity(2, 4))
    batch = join_captions([told(["a", "b", "c"], 0, {0, 1}), told(["d"], 0, {0}, rows=[[9]], video="w")])
    spared = without_good(table, batch)
    assert spared.isinf().tolist() == [[False, True, False, False], [False] * 4]
    left = [0, 2, 3]
    expected = slow_vtc([[row[place] for place in left] for row in table[:1].tolist()], [0, 0, 1], [0], OTHER_WEIGHT)
    first = float(vtc(spared[:1], batch["owners"], torch.tensor([0])))
    assert first == pytest.approx(expected, abs=1e-5)
