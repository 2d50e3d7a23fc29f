"""What the evaluations make of judgements of every good caption."""

import dataclasses

import pytest

from beam_pipeline.evaluate_judgements import gather, of_rows, stored_judgements
from transforms.annotations import ClipCaptions, labels_of, majority
from transforms.judgements import Choice, Judgement, store
from transforms.lease import WriterLease

CHOICES = (Choice("a dog", ("a",)), Choice("a cat", ("b", "c")), Choice("a cow", ("d",)))


def marked(by, *good):
    return Judgement("v-0-1", "v", by, CHOICES, None, None, (), None, None, "f", frozenset(good))


@pytest.fixture
def dataset(tmp_path):
    with WriterLease(tmp_path, owner="annotate-1"):
        store(tmp_path, [marked("x", 0, 1), marked("y", 1), marked("z", 1, 2), marked("w")])
    return tmp_path


def test_a_caption_that_most_people_marked_is_best_however_many_they_marked(dataset):
    told = {one.annotator: one for one in stored_judgements(dataset)}
    assert (told["x"].teachers, told["x"].groups) == (("a", "b", "c"), (("a",), ("b", "c")))
    assert (told["w"].teachers, told["w"].all_bad) == ((), True)
    judged = gather(told.values())["v-0-1"]
    assert judged.best == {"b", "c"}
    # Each of three people has one vote, for the captions that they marked in equal parts.
    assert judged.votes == {
        "a": pytest.approx(1 / 6), "b": pytest.approx(1 / 3), "c": pytest.approx(1 / 3), "d": pytest.approx(1 / 6),
    }  # fmt: skip


def test_every_caption_that_most_people_marked_is_right_as_in_training(tmp_path):
    said = [marked("x", 0, 1), marked("y", 0, 1), marked("z", 0, 2)]
    with WriterLease(tmp_path, owner="annotate-1"):
        store(tmp_path, said)
    label = majority(said, ClipCaptions("v", frozenset()))
    judged = gather(stored_judgements(tmp_path))["v-0-1"]
    assert judged.best == {name for at in label.good for name in CHOICES[at].teachers} == {"a", "b", "c"}


def test_of_two_questions_about_a_clip_that_counts_which_most_people_answered_as_in_training(tmp_path):
    best = [dataclasses.replace(marked(by), chosen=at, good=None) for by, at in (("x", 0), ("y", 0), ("z", 2))]
    said = [*best, marked("z", 0, 1, 2)]
    with WriterLease(tmp_path, owner="annotate-1"):
        store(tmp_path, said)
    (label,) = labels_of(said, {"v-0-1": ClipCaptions("v", frozenset())}).labels
    judged = gather(stored_judgements(tmp_path))["v-0-1"]
    assert (judged.best, label.chosen_teachers) == ({"a"}, ("a",))
    assert judged.votes == {"a": pytest.approx(2 / 3), "d": pytest.approx(1 / 3)}


def test_captions_that_equally_many_people_chose_are_both_best_whoever_said_them_too():
    rows = [{"clip_id": "v", "chosen_teachers": teachers} for teachers in (["a"], ["b", "c"])]
    judged = gather(of_rows(rows))["v"]
    assert judged.best == {"a", "b", "c"}
    assert judged.votes == {"a": 0.5, "b": 0.25, "c": 0.25}
