"""Selectors beside people: agreement, shares and abstention counted by hand."""

import json

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from report_dataset import candidate, clip, video, write_dataset

from beam_pipeline.cli import main
from beam_pipeline.evaluate_bootstrap import Interval
from beam_pipeline.evaluate_judgements import Judged, Judgement, gather, read_judgements, stored_judgements
from beam_pipeline.evaluate_references import BadInput
from beam_pipeline.evaluate_scoring import Scorer
from beam_pipeline.evaluate_selection import STORED, JudgedClip, evaluate_selection
from model_handlers.base import ElementwiseHandler
from model_handlers.catalogue import Entry


def three(first: float, second: float, third: float):
    """Candidates of three teachers, the last two of whom say the same."""
    return [candidate("a", "a dog", first), candidate("b", "a cat", second), candidate("c", "a cat", third)]


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(
        tmp_path / "set",
        videos=[video("v", 50.0)],
        clips=[
            clip("v", 0.0, 1.0, three(0.9, 0.1, 0.1)),
            clip("v", 1.0, 2.0, three(0.9, 0.1, 0.1)),
            clip("v", 2.0, 3.0, three(0.1, 0.9, 0.9)),
            clip("v", 3.0, 4.0, three(0.2, 0.1, 0.1), abstained=True),
            clip("v", 4.0, 5.0, three(0.2, 0.1, 0.1), abstained=True),
        ],
    )


def said(number: int, *teachers: str, annotator: str = "", **more) -> Judgement:
    return Judgement(f"v-{number * 1000}-{(number + 1) * 1000}", teachers, not teachers, annotator, **more)


#: Agree, disagree, agree (b's words are c's), all bad and seen, good and taken for bad though the choice agrees.
JUDGEMENTS = [said(0, "a"), said(1, "b", "c"), said(2, "c"), said(3), said(4, "a")]


def test_agreement_abstention_and_shares_are_those_counted_by_hand(dataset):
    found = evaluate_selection(dataset, JUDGEMENTS, [])
    row = found.rows[STORED]
    assert (found.clips, found.all_bad) == (5, 1)
    assert row.recall_at_1.value == 3 / 4
    assert (row.abstained.value, row.precision.value, row.recall.value) == (2 / 5, 1 / 2, 1.0)
    # a dog | a cat, twice | ... : chance is 1/3, 2/3, 2/3 and 1/3.
    assert found.chance.value == pytest.approx(1 / 2)
    assert {teacher: (by["people"].value, by[STORED].value) for teacher, by in found.shares.items()} == {
        "a": (2 / 4, 3 / 4),
        "b": (0.5 / 4, 0.5 / 4),
        "c": (1.5 / 4, 0.5 / 4),
    }
    assert found.another_person == Interval(None)


def test_what_scores_are_worth_is_counted_by_caption_and_for_the_chosen_ones(dataset):
    found = evaluate_selection(dataset, JUDGEMENTS, []).worth[STORED]
    # Of two captions a clip: .9 good and .1, .9 and .1 good, .1 and .9 good, .2 and .1, .2 good and .1.
    assert found.captions.captions == 10
    assert found.captions.brier == pytest.approx((0.02 + 1.62 + 0.02 + 0.05 + 0.65) / 10)
    assert found.brier.value == pytest.approx(found.captions.brier)
    assert found.chosen.brier == pytest.approx((0.01 + 0.81 + 0.01 + 0.04 + 0.64) / 5)
    # Five at .1, two at .2, three at .9, of which one, one and two are good.
    assert found.captions.ece == pytest.approx((5 * 0.1 + 2 * 0.3 + 3 * abs(0.9 - 2 / 3)) / 10)


def test_a_caption_is_good_that_most_people_marked_though_another_is_better():
    people = Judged({"a": 0.75, "b": 0.25}, False, (frozenset("ab"), frozenset("ab"), frozenset("a")))
    one = JudgedClip(None, {"a": "a dog", "b": "a cat", "c": "a cat", "d": "rain"}, people, {})
    assert [teacher for teacher in one.captions if one.is_good(teacher)] == ["a", "b", "c"]


def test_scores_that_are_no_probabilities_have_no_calibration(dataset):
    write_dataset(dataset, videos=[video("w", 9.0)], clips=[clip("w", 0.0, 1.0, three(1.5, 0.1, 0.1))])
    judgements = [*JUDGEMENTS, Judgement("w-0-1000", ("a",), False)]
    found = evaluate_selection(dataset, judgements, [])
    assert found.worth == {} and "ECE" not in found.text()
    assert "the dataset's: scores that are no probabilities have no calibration" in found.notes


def test_another_selector_chooses_among_the_same_captions(dataset):
    class Cats(ElementwiseHandler):
        def load(self):
            return object()

        def answer(self, requests, model):
            return [tuple(0.4 * ("cat" in one.text) for one in request.candidates) for request in requests]

    handler = Cats("cats")
    scorer = Scorer(Entry("cats", "", "", "", "", lambda: handler), handler, handler.load_model(), abstain_below=0.5)
    found = evaluate_selection(dataset, JUDGEMENTS, [scorer])
    row = found.rows["cats"]
    assert row.recall_at_1.value == 2 / 4
    assert (row.abstained.value, row.precision.value, row.recall.value) == (1.0, 1 / 5, 1.0)
    # It loses the first and the last clip and wins the second: one of four in all.
    (gain,) = found.gains.values()
    assert (list(found.gains), gain.value) == (["cats - the dataset's"], -1 / 4)
    assert gain.low < -1 / 4 < gain.high


def test_several_people_are_one_vote_a_clip_and_another_persons_agreement_is_told(dataset):
    judgements = [
        *(said(0, "a", annotator=who) for who in ("x", "y")),
        said(0, "b", annotator="z"),
        said(1, annotator="x"),
        said(1, annotator="y"),
        said(1, "b", annotator="z"),
    ]
    people = gather(judgements)
    assert people["v-0-1000"] == Judged(
        {"a": pytest.approx(2 / 3), "b": pytest.approx(1 / 3)},
        False,
        (frozenset("a"), frozenset("a"), frozenset("b")),
    )
    assert people["v-0-1000"].best == {"a"}
    assert people["v-1000-2000"] == Judged({}, True, (frozenset(), frozenset(), frozenset("b")))
    # x against y and z: a or b, a tie, a hit; y likewise; z's choice against two for a: none.
    assert evaluate_selection(dataset, judgements, []).another_person.value == pytest.approx(2 / 3)


def test_the_last_judgement_of_a_person_counts_and_half_is_not_all_bad():
    found = gather([said(0, annotator="x"), said(0, "a", annotator="x"), said(0, annotator="y")])
    assert found["v-0-1000"] == Judged({"a": 1.0}, False, (frozenset("a"), frozenset()))


def test_judgements_of_other_clips_and_of_captions_that_are_gone_are_left_out_and_told(dataset):
    told = [
        said(0, "a", captions=("A  dog.", "a cat")),
        said(1, "a", captions=("a horse", "a cat")),
        said(2, "a", has_extras=True),
        said(70, "a"),
    ]
    found = evaluate_selection(dataset, told, [])
    assert found.clips == 1
    assert found.notes[2:] == (
        "1 judged clips are not in the dataset",
        "1 judgements are of captions that their clips have no more",
        "1 judgements had captions of others among them, which a selector cannot choose; they are left out",
    )
    with pytest.raises(BadInput, match="people judged none of the clips as they stand"):
        evaluate_selection(dataset, told[1:], [])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("j.csv", 'clip_id,annotator,chosen_teachers\nc1,x,"a, b"\nc2,,\n'),
        (
            "j.jsonl",
            '{"clip_id": "c1", "annotator": "x", "chosen_teachers": ["a", "b"]}\n'
            '{"clip_id": "c2", "chosen_teachers": [], "all_bad": true}\n',
        ),
    ],
)
def test_judgements_are_read_from_either_form(tmp_path, name, text):
    (tmp_path / name).write_text(text, "utf-8")
    assert read_judgements(str(tmp_path / name)) == [Judgement("c1", ("a", "b"), False, "x"), Judgement("c2", (), True)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("clip,teacher\na,b\n", "a row has clip, teacher: it needs clip_id and chosen_teachers"),
        ("clip_id,chosen_teachers,all_bad\nc,a,true\n", "the judgement of c has all_bad, and chosen teachers"),
        ("clip_id,chosen_teachers,all_bad\nc,,false\n", "the judgement of c has neither all_bad nor a chosen teacher"),
        ("clip_id,chosen_teachers,all_bad\nc,a,perhaps\n", "all_bad is true or false, not 'perhaps'"),
        ("clip_id,chosen_teachers\n", "holds no judgements"),
    ],
)
def test_judgements_that_cannot_be_meant_are_told_in_one_line(dataset, tmp_path, capsys, text, told):
    (tmp_path / "j.csv").write_text(text, "utf-8")
    assert main(["evaluate", "selection", str(dataset), "--annotations", str(tmp_path / "j.csv")]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


def test_a_dataset_whose_clips_nobody_judged_is_told(dataset, capsys):
    assert main(["evaluate", "selection", str(dataset)]) == 2
    assert "nobody has judged clips of" in capsys.readouterr().err


def test_a_mistyped_dataset_is_told_as_none_rather_than_as_not_judged(tmp_path, capsys):
    assert main(["evaluate", "selection", str(tmp_path / "datset")]) == 1
    error = capsys.readouterr().err
    assert "datset is no dataset" in error and error.count("\n") == 1


def test_the_command_reads_the_datasets_own_annotations_and_writes_what_it_found(dataset, tmp_path, capsys):
    choices = [{"caption": "a dog", "teachers": ["a"]}, {"caption": "a cat", "teachers": ["b", "c"]}]
    rows = [
        {
            "annotation_id": str(number),
            "clip_id": one.clip_id,
            "annotator": "x",
            "chosen_teachers": list(one.teachers),
            "choices": choices,
            "extras": [],
        }
        for number, one in enumerate(JUDGEMENTS)
    ]
    write_deltalake(str(dataset / "annotations"), pa.Table.from_pylist(rows))
    assert stored_judgements(dataset)[3] == said(3, annotator="x", captions=("a dog", "a cat"))
    places = ["--json", str(tmp_path / "s.json"), "--html", str(tmp_path / "s.html")]
    assert main(["evaluate", "selection", str(dataset), *places]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[1].split()[:3] == ["the", "dataset's", "75.0"]
    written = json.loads((tmp_path / "s.json").read_text("utf-8"))
    assert written["rows"][STORED]["recall_at_1"]["value"] == 0.75
    assert written["selective_rates"]["a"]["people"]["value"] == 0.5
    page = (tmp_path / "s.html").read_text("utf-8")
    assert "<script" not in page and page.count("<svg") == 2
