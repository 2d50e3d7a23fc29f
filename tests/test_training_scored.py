"""Agreement with people before and after, counted by hand."""

import numpy as np
import pytest
from tiny_trainable import ColourTrainable, coloured

from beam_pipeline.training.scored import agreement, chance, gain, hits, score_examples
from beam_pipeline.training.trainable import Example

EXAMPLES = [Example(None, ("a", "b", "c"), chosen) for chosen in (0, 1, None, 2)]
BEFORE = [(0.9, 0.1, 0.1), (0.9, 0.1, 0.1), (0.9, 0.1, 0.1), (0.9, 0.1, 0.1)]
AFTER = [(0.9, 0.1, 0.1), (0.1, 0.9, 0.1), (0.1, 0.9, 0.1), None]


def test_hits_are_of_clips_with_a_good_caption_and_unread_ones_are_none():
    assert hits(EXAMPLES, BEFORE).tolist() == [1.0, 0.0, 0.0]
    assert np.array_equal(hits(EXAMPLES, AFTER), [1.0, 1.0, float("nan")], equal_nan=True)


def test_agreement_and_gain_are_over_the_clips_that_could_be_read():
    assert agreement(EXAMPLES, BEFORE).value == pytest.approx(1 / 3)
    assert agreement(EXAMPLES, AFTER).value == 1.0
    # Of the two clips read both times one was lost before.
    assert gain(EXAMPLES, BEFORE, AFTER).value == 1 / 2
    assert chance(EXAMPLES).value == pytest.approx(1 / 3)


def test_clip_whose_reel_is_missing_costs_its_own_scores_alone(tmp_path):
    examples = coloured(tmp_path, 6, missing=[2])
    trainable, failed = ColourTrainable(), []
    scored = score_examples(trainable, examples, 4, lambda clip_id, error: failed.append(clip_id))
    assert ([one is None for one in scored.scores], failed) == ([False, False, True, False, False, False], ["clip-002"])
    alone = score_examples(trainable, examples[5:], 1)
    assert alone.scores[0] == pytest.approx(scored.scores[5], abs=1e-6)
    assert trainable.module.training


def test_mistake_in_the_program_is_no_unreadable_clip(tmp_path):
    class Mistaken(ColourTrainable):
        def prepare(self, example, rng=None):
            raise KeyError("a mistake")

    with pytest.raises(KeyError, match="a mistake"):
        score_examples(Mistaken(), coloured(tmp_path, 2), 2)
