"""Which clips people are asked about, between what they choose, and that neither depends on the order of files."""

import base64
import json
import math
import zlib

import numpy as np
import pytest

from beam_pipeline.annotate_choices import SealError, Task, alikeness, choices_of, seal, shuffled, unseal
from beam_pipeline.annotate_sample import Candidates, bounds, draw
from transforms.by_source import place_of
from transforms.judgements import Choice

TASK = Task("v-0-4000", (Choice("a cat", ("teacher-a", "student")), Choice("두 마리 개", ("teacher-b",))), ("student",))


def said(*captions):
    return [{"teacher": f"t{number}", "caption": caption} for number, caption in enumerate(captions)]


@pytest.mark.parametrize(
    ("captions", "choices"),
    [
        (["a cat", "A  cat.", "a dog"], [("a cat", ("t0", "t1")), ("a dog", ("t2",))]),
        (["a cat", "A CAT ."], [("a cat", ("t0", "t1"))]),
        (["", "  ", "a cat"], [("a cat", ("t2",))]),
        (["straße", "STRASSE"], [("straße", ("t0", "t1"))]),
    ],
)
def test_captions_of_the_same_words_are_one_choice_of_all_who_said_them(captions, choices):
    assert choices_of(said(*captions)) == tuple(Choice(*one) for one in choices)


def test_another_models_caption_is_a_choice_of_its_own_or_shares_one():
    assert choices_of(said("a cat"), {"student": "a dog"})[1] == Choice("a dog", ("student",))
    assert choices_of(said("a cat"), {"student": "A cat."}) == (Choice("a cat", ("t0", "student")),)


def test_the_order_shown_depends_on_seed_clip_and_words_alone():
    choices = choices_of(said("one", "two", "three", "four", "five"))
    order = shuffled(choices, seed=1, clip_id="v-0-1")
    assert order == shuffled(choices[::-1], seed=1, clip_id="v-0-1")
    fewer = tuple(one for one in choices if one.caption != "three")
    assert shuffled(fewer, seed=1, clip_id="v-0-1") == tuple(one for one in order if one.caption != "three")
    firsts = [shuffled(choices, seed=1, clip_id=f"v-{number}")[0].caption for number in range(1000)]
    assert {name: round(firsts.count(name), -2) for name in firsts} == dict.fromkeys(
        ("one", "two", "three", "four", "five"), 200
    )


@pytest.mark.parametrize(
    ("captions", "value"),
    [
        (["a b", "a b"], 1.0),
        (["a b", "c d"], 0.0),
        (["a b c", "b c d"], 0.5),
        (["A b!", "a, b"], 1.0),
        (["a", "a", "b"], 1 / 3),
        (["!", "?"], 1.0),
        (["a"], 1.0),
    ],
)
def test_likeness_is_the_mean_share_of_common_words_of_all_pairs(captions, value):
    assert alikeness(captions) == pytest.approx(value)


def test_a_key_gives_its_task_back_and_shows_no_name():
    key = seal(TASK)
    assert unseal(key) == TASK
    assert unseal(f" {key}\n") == TASK
    assert not any(name in key for name in ("teacher", "student", "cat"))


def forged(told):
    return base64.urlsafe_b64encode(zlib.compress(json.dumps(told).encode())).decode()


@pytest.mark.parametrize(
    "key",
    [
        "",
        "no key",
        seal(TASK)[:-4],
        forged([3, "v", [["a", ["t"]], ["b", ["t"]]], []]),
        forged([1, "v", [["a", ["t"]]], []]),
        forged([1, 7, [["a", ["t"]], ["b", ["t"]]], []]),
        forged([1, "v", [["a", [7]], ["b", ["t"]]], []]),
        forged("x" * (1 << 21)),
        base64.urlsafe_b64encode(zlib.compress(b"[" * 100_000)).decode(),
    ],
)
def test_what_is_no_key_of_ours_is_refused(key):
    with pytest.raises(SealError, match="can't be read"):
        unseal(key)


def made(count, seed=3):
    random = np.random.default_rng(0)
    lots = np.array([place_of(f"annotate {seed}", f"clip-{number}") for number in range(count)], np.uint64)
    margins = random.random(100_000)[:count]
    margins[::10] = math.nan
    return Candidates(lots, random.random(200_000)[100_000 : 100_000 + count], margins)


def test_every_stratum_gives_as_many_as_it_has_or_as_the_others():
    drawn = draw(made(5000), 600)
    assert len(drawn.positions) == 600
    assert {(one.alikeness, one.margin): one.drawn for one in drawn.strata} == {
        (alike, margin): 50 for alike in ("low", "middle", "high") for margin in ("low", "middle", "high", "none")
    }
    assert sum(one.clips for one in drawn.strata) == 5000


def test_no_clip_is_drawn_twice_and_a_smaller_dataset_is_drawn_whole():
    assert sorted(draw(made(50), 1000).positions) == list(range(50))
    assert draw(made(0), 10).positions == ()


def test_a_larger_sample_holds_the_smaller_one():
    small, large = (set(draw(made(5000), count).positions) for count in (300, 700))
    assert small <= large


def test_the_sample_of_a_dataset_that_grows_by_a_tenth_stays_for_the_most_part():
    before, after = (set(draw(made(count), 600).positions) for count in (5000, 5500))
    # A tenth of the lots are new and as low as any: as many have to go, and few besides.
    assert len(before & after) >= 510


def test_the_order_of_the_clips_does_not_matter():
    candidates = made(500)
    turned = Candidates(candidates.lots[::-1], candidates.alikeness[::-1], candidates.margins[::-1])
    assert [499 - at for at in draw(turned, 100).positions] == list(draw(candidates, 100).positions)


def test_bounds_are_terciles_in_two_digits():
    assert bounds([0.1, 0.2, 0.3, 0.4]) == (0.2, 0.3)
    assert bounds([0.001234] * 3) == (0.0012, 0.0012)
    assert bounds([math.nan]) == (0.0, 0.0)


def test_strata_are_called_by_what_their_clips_are():
    lots = np.arange(4, dtype=np.uint64)
    drawn = draw(Candidates(lots, np.array([0.1, 0.1, 0.9, 0.9]), np.array([0.01, 0.5, 0.01, math.nan])), 2)
    named = [("middle", "middle"), ("middle", "high"), ("high", "middle"), ("high", "none")]
    assert [(one.alikeness, one.margin) for one in drawn.strata] == named
    assert (sum(one.drawn for one in drawn.strata), drawn.alikeness_bounds) == (2, (0.1, 0.9))
