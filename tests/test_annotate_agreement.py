"""How far people agree, against the published examples of the measure."""

import pytest

from beam_pipeline.annotate_agreement import agreement, agreement_of
from beam_pipeline.annotate_import import Imported
from transforms.judgements import Choice, Judgement, Stored


def units(*coders):
    """Krippendorff's tables have a row a coder, and a star where one did not judge."""
    return [[name for name in unit if name != "*"] for unit in zip(*(coder.split() for coder in coders), strict=True)]


@pytest.mark.parametrize(
    ("judged", "alpha"),
    [
        # K. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), sections A, B and C.
        (units("0 1 0 0 0 0 0 0 1 0", "1 1 1 0 0 1 0 0 0 0"), 0.095),
        (units("a a b b d c c c e d d a", "b a b b b c c c e d d d"), 0.692),
        (
            units(
                "1 2 3 3 2 1 4 1 2 * * *",
                "1 2 3 3 2 2 4 1 2 5 * 3",
                "* 3 3 3 2 3 4 2 2 5 1 *",
                "1 2 3 3 2 4 4 1 2 5 1 *",
            ),
            0.743,
        ),
    ],
)
def test_alpha_equals_its_authors_examples(judged, alpha):
    assert round(agreement(judged).alpha, 3) == alpha


def test_agreement_of_pairs_is_told_for_units_that_two_judged():
    found = agreement([["a", "a", "b"], ["b", "b"], ["a"]])
    assert (found.units, found.observed) == (2, pytest.approx(3 / 5))
    assert agreement([["a"], []]) is None


THREE = tuple(Choice(f"caption {name}", (name,)) for name in "abc")
#: What each of three people marked of four clips.
MARKS = {"v1": ["a", "ab", ""], "v2": ["abc", "bc", "bc"], "v3": ["", "", ""], "v4": ["c", "ac", "c"]}


def marked(clip_id, by, names, choices=THREE):
    good = frozenset(at for at, one in enumerate(choices) if one.teachers[0] in names)
    return Judgement(clip_id, "v", by, choices, None, None, (), None, None, "f", good)


def test_sets_of_good_captions_are_compared_caption_by_caption_as_nltk_does():
    metrics = pytest.importorskip("nltk.metrics.agreement")
    said = [marked(clip, str(by), names) for clip, theirs in MARKS.items() for by, names in enumerate(theirs)]
    best, found = agreement_of(said)
    assert (best, found.units) == (None, 12)
    triples = [
        (one.annotator, f"{one.clip_id} {choice.caption}", at in one.good)
        for one in said
        for at, choice in enumerate(one.choices)
    ]
    task = metrics.AnnotationTask(triples)
    assert found.alpha == pytest.approx(task.alpha(), abs=1e-12)
    assert found.observed == pytest.approx(task.avg_Ao(), abs=1e-12)


def test_captions_that_were_shown_in_another_order_are_compared_by_their_words():
    _, found = agreement_of([marked("v1", "x", "a"), marked("v1", "y", "a", choices=THREE[::-1])])
    assert (found.units, found.observed, found.alpha) == (3, 1.0, 1.0)


def test_the_two_forms_are_two_agreements():
    best = [Judgement("v1", "v", by, THREE, 0, None, (), None, None, "f") for by in "xy"]
    one, other = agreement_of([*best, *(marked("v1", by, "ab") for by in "xy")])
    assert (one.units, one.observed, other.units, other.observed) == (1, 1.0, 3, 1.0)


def test_where_all_said_the_same_alpha_is_told_in_words():
    told = Imported(Stored(new=2), (), 0, 0, agreement=agreement([["a", "a"]])).describe()
    line = "agreement   100.0% of pairs, Krippendorff's alpha unknown, as all said the same, on 1 clips that two or"
    assert line in told
