"""The table of judgements: one commit, no leftovers, nothing of what was taken down; and the labels read from it."""

import dataclasses
import datetime
import pathlib

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from dataset_rows import video_rows
from deltalake import DeltaTable
from exported_dataset import entomb

from beam_pipeline.verify import verify
from transforms.annotations import ClipCaptions, annotations_of, labels_of
from transforms.committing import Committer
from transforms.finalising import finalise
from transforms.judgements import (
    ANNOTATIONS,
    Choice,
    Judgement,
    annotator_digest,
    check_annotations,
    create_annotations,
    drop_annotations,
    judgements_of,
    store,
)
from transforms.lease import LeaseLost, WriterLease

EARLY = datetime.datetime(2026, 3, 9, 12, tzinfo=datetime.UTC)
CHOICES = (Choice("a dog runs", ("lite-frame",)), Choice("not a dog runs", ("lite-text",)))


def judgement(clip_id="a_1000_9000", by="anna", chosen=0, **more):
    video_id = clip_id.split("_")[0]
    told = {"better_caption": None, "extras": (), "lead_time_s": 2.5, "annotated_at": EARLY, "source": "f" * 64}
    return Judgement(clip_id, video_id, by, **{"choices": CHOICES, "chosen": chosen, **told, **more})


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "set"
    with WriterLease(folder, owner="r1"):
        Committer(folder).commit([video_rows("a"), video_rows("b")])
        finalise(folder)
    return folder


def stored(dataset, *judgements):
    with WriterLease(dataset, owner="annotate-1"):
        return dataclasses.astuple(store(dataset, judgements))


def files_of(dataset):
    return sorted((dataset / "annotations").glob("*.parquet"))


def test_judgements_come_back_as_they_were(dataset):
    said = [
        judgement(),
        judgement(by="bob", chosen=None, better_caption="zwei Hunde", lead_time_s=None, annotated_at=None),
        judgement("b_11000_19000", chosen=1, choices=CHOICES[::-1], extras=("lite-text",)),
    ]
    assert stored(dataset, *said) == (3, 0, 0, 0)
    assert sorted(judgements_of(dataset), key=lambda one: (one.clip_id, one.annotator)) == said
    row = pyarrow.dataset.dataset(str(dataset / "annotations"), format="parquet").to_table().to_pylist()[1]
    assert (row["chosen_teachers"], row["chosen_caption"], row["schema_version"]) == ([], None, 2)
    assert row["good_captions"] is None
    assert verify(dataset) == []
    assert list(check_annotations(dataset)) == []


def test_who_reads_the_bare_files_sees_what_the_table_says(dataset):
    stored(dataset, judgement(), judgement(by="bob"))
    later = EARLY + datetime.timedelta(days=1)
    assert stored(dataset, judgement(chosen=1, annotated_at=later), judgement(by="cleo")) == (1, 1, 0, 0)
    rows = pyarrow.dataset.dataset(list(map(str, files_of(dataset)))).to_table()
    assert rows.schema.equals(ANNOTATIONS)
    assert {row["annotator"]: row["chosen_caption"] for row in rows.to_pylist()} == {
        "anna": "not a dog runs", "bob": "a dog runs", "cleo": "a dog runs",
    }  # fmt: skip
    assert rows.num_rows == 3


def test_the_same_words_in_another_order_are_the_same_question(dataset):
    stored(dataset, judgement())
    turned = judgement(chosen=1, choices=CHOICES[::-1])
    assert stored(dataset, turned) == (0, 0, 1, 0)
    assert stored(dataset, judgement(choices=(*CHOICES, Choice("mine", ("student",))))) == (1, 0, 0, 0)


def test_nothing_is_written_without_the_lease(dataset):
    with pytest.raises(LeaseLost):
        store(dataset, [judgement()])
    assert list(judgements_of(dataset)) == []


def test_a_file_that_a_killed_import_left_goes_with_the_next_and_a_strangers_stays(dataset):
    stored(dataset, judgement())
    orphan = dataset / "annotations" / "part-00000-dead-c000.zstd.parquet"
    orphan.write_bytes(files_of(dataset)[0].read_bytes())
    (dataset / "annotations" / "notes.txt").write_text("mine")
    stored(dataset, judgement(by="bob"))
    assert not orphan.exists()
    assert (dataset / "annotations" / "notes.txt").read_text() == "mine"
    assert len(list(judgements_of(dataset))) == 2


def test_a_takedown_leaves_nothing_of_a_video_in_rows_files_or_log(dataset):
    stored(dataset, judgement(), judgement("b_1000_9000"), judgement("b_11000_19000", better_caption="secretly"))
    with WriterLease(dataset, owner="takedown-1"):
        assert drop_annotations(dataset, ["b"]) == 2
        assert drop_annotations(dataset, ["b"]) == 0
    assert [one.clip_id for one in judgements_of(dataset)] == ["a_1000_9000"]
    assert sum(pq.read_metadata(file).num_rows for file in files_of(dataset)) == 1
    for path in (dataset / "annotations").rglob("*"):
        if path.is_file():
            assert not any(word in path.read_bytes() for word in (b"b_1000_9000", b"b_11000_19000", b"secretly")), path
    assert list(check_annotations(dataset)) == []


def test_a_dataset_that_nobody_judged_has_no_table_and_no_labels(dataset):
    assert list(judgements_of(dataset)) == []
    assert annotations_of(dataset).labels == ()
    assert list(check_annotations(dataset)) == []
    with WriterLease(dataset, owner="takedown-1"):
        assert drop_annotations(dataset, ["a"]) == 0
    assert not (dataset / "annotations").exists()


def test_a_row_that_stands_twice_is_a_breach(dataset):
    stored(dataset, judgement())
    (rows,) = map(pq.read_table, files_of(dataset))
    from deltalake import write_deltalake

    write_deltalake(str(dataset / "annotations"), rows, mode="append")
    assert list(check_annotations(dataset)) == [f"annotations: annotation_id {judgement().annotation_id} stands twice"]


def test_the_log_keeps_bounds_of_digests_alone(dataset):
    stored(dataset, judgement())
    actions = DeltaTable(str(dataset / "annotations")).get_add_actions(flatten=True)
    assert [name for name in actions.schema.names if name.startswith(("min.", "max."))] == [
        "min.annotation_id", "max.annotation_id",
    ]  # fmt: skip


def test_every_good_caption_is_kept_and_is_another_question_than_which_is_best(dataset):
    said = [
        judgement(),
        judgement(chosen=None, good=frozenset({0, 1})),
        judgement(by="bob", chosen=None, good=frozenset()),
    ]
    assert stored(dataset, *said) == (3, 0, 0, 0)
    assert sorted(judgements_of(dataset), key=lambda one: (one.annotator, one.good is not None)) == said
    rows = pyarrow.dataset.dataset(list(map(str, files_of(dataset)))).to_table().to_pylist()
    assert sorted((row["annotator"], row["good_captions"], row["chosen_teachers"]) for row in rows[1:]) == [
        ("anna", ["a dog runs", "not a dog runs"], ["lite-frame", "lite-text"]), ("bob", [], []),
    ]  # fmt: skip
    assert {row["chosen_caption"] for row in rows[1:]} == {None}
    turned = judgement(chosen=None, choices=CHOICES[::-1], good=frozenset({0, 1}))
    assert stored(dataset, turned) == (0, 0, 1, 0)
    assert stored(dataset, judgement(chosen=None, good=frozenset({1}))) == (0, 1, 0, 0)


def write_earlier(dataset, *judgements):
    """The table as the first version wrote it."""
    from deltalake import write_deltalake

    earlier = pa.schema(list(ANNOTATIONS)[:-1])
    configuration = {"delta.dataSkippingStatsColumns": "annotation_id", "delta.checkpointInterval": "20"}
    table = DeltaTable.create(dataset / "annotations", earlier, name="annotations", configuration=configuration)
    rows = [{**one.row(EARLY), "schema_version": 1} for one in judgements]
    for row in rows:
        del row["good_captions"]
        write_deltalake(table, pa.Table.from_pylist([row], earlier), mode="append")


def test_a_table_of_the_first_version_is_read_and_audited_as_it_is(dataset):
    said = [judgement(), judgement(by="bob", chosen=None)]
    write_earlier(dataset, *said)
    assert sorted(judgements_of(dataset), key=lambda one: one.annotator) == said
    assert list(check_annotations(dataset)) == []
    assert verify(dataset) == []
    assert annotations_of(dataset).ties == 1


def test_a_table_of_the_first_version_gets_the_new_column_with_the_next_import(dataset):
    write_earlier(dataset, judgement(), judgement(by="bob", chosen=1))
    name, digest = DeltaTable(dataset / "annotations").metadata().id, annotator_digest(dataset, "anna")
    good = judgement(by="cleo", chosen=None, good=frozenset({0}))
    assert stored(dataset, judgement(), good) == (1, 0, 1, 0)
    assert sorted(judgements_of(dataset), key=lambda one: one.annotator) == [
        judgement(), judgement(by="bob", chosen=1), good,
    ]  # fmt: skip
    for file in files_of(dataset):
        assert pq.read_schema(file).equals(ANNOTATIONS), "bare files have the same columns"
    table = DeltaTable(dataset / "annotations")
    assert table.metadata().configuration == {
        "delta.dataSkippingStatsColumns": "annotation_id", "delta.checkpointInterval": "20",
    }  # fmt: skip
    # Else all that the same people say later would be of strangers.
    assert (table.metadata().id, annotator_digest(dataset, "anna")) == (name, digest)
    assert list(check_annotations(dataset)) == []
    versions = {row["annotator"]: row["schema_version"] for row in pyarrow.dataset.dataset(files_of(dataset)).to_table(
        columns=["annotator", "schema_version"]).to_pylist()}  # fmt: skip
    assert versions == {"anna": 1, "bob": 1, "cleo": 2}
    version = table.version()
    stored(dataset, judgement(by="dora"))
    assert DeltaTable(dataset / "annotations").version() == version + 1, "widened once"


def test_a_takedown_from_a_table_of_the_first_version_needs_no_new_column(dataset):
    write_earlier(dataset, judgement(), judgement("b_1000_9000"))
    with WriterLease(dataset, owner="takedown-1"):
        assert drop_annotations(dataset, ["b"]) == 1
    assert list(judgements_of(dataset)) == [judgement()]
    assert list(check_annotations(dataset)) == []


def test_making_the_table_again_keeps_it(dataset):
    create_annotations(dataset)
    first = DeltaTable(str(dataset / "annotations")).metadata().id
    stored(dataset, judgement())
    stored(dataset, judgement(annotated_at=EARLY + datetime.timedelta(1)))
    create_annotations(dataset)
    assert DeltaTable(str(dataset / "annotations")).metadata().id == first


HERE = ClipCaptions("a", frozenset({"a dog runs", "not a dog runs", "another"}))


def label(*votes, **more):
    """The label that these votes of as many people make; of what is a list in `more`, everybody has one."""
    said = [
        judgement(by=f"p{at}", chosen=vote, **{k: v[at] if isinstance(v, list) else v for k, v in more.items()})
        for at, vote in enumerate(votes)
    ]
    return labels_of(said, {"a_1000_9000": HERE})


@pytest.mark.parametrize(
    ("votes", "chosen", "counts"),
    [
        ((0,), 0, (1, 0, 0)),
        ((0, 1, 1), 1, (1, 2, 0)),
        ((None, None, 1), None, (0, 1, 2)),
        ((0, 0, 1, None), 0, (2, 1, 1)),
    ],
)
def test_what_most_people_say_is_the_label(votes, chosen, counts):
    (found,) = label(*votes).labels
    assert (found.chosen, found.votes) == (chosen, counts)
    assert found.chosen_teachers == (() if chosen is None else CHOICES[chosen].teachers)


@pytest.mark.parametrize("votes", [(0, 1), (0, None), (0, 1, None), (0, 0, 1, 1, None)])
def test_ties_have_no_label_and_are_counted(votes):
    found = label(*votes)
    assert (found.labels, found.ties) == ((), 1)


THREE = (*CHOICES, Choice("another", ("lite-x",)))


def good_label(*marks, choices=THREE):
    """What these marks of as many people make, who were asked for every good caption."""
    return label(*(None,) * len(marks), choices=choices, good=[frozenset(one) for one in marks])


@pytest.mark.parametrize(
    ("marks", "good", "best", "votes"),
    [
        (({0, 2},), {0, 2}, {0, 2}, (1, 0, 1, 0)),
        (({0, 2}, {2}, {1, 2}), {2}, {2}, (1, 1, 3, 0)),
        (({0, 2}, {2}, {0, 2}), {0, 2}, {2}, (2, 0, 3, 0)),
        ((set(), set(), {1}), set(), set(), (0, 1, 0, 2)),
        ((set(), {1}, {1}), {1}, {1}, (0, 2, 0, 1)),
        ((set(),), set(), set(), (0, 0, 0, 1)),
    ],
)
def test_a_caption_is_good_that_more_than_half_of_the_people_marked(marks, good, best, votes):
    (found,) = good_label(*marks).labels
    assert (found.good, found.best, found.votes, found.is_every_good) == (good, best, votes, True)
    assert (found.chosen is None) == (not good)
    assert found.chosen is None or found.chosen in best


@pytest.mark.parametrize("marks", [({0}, {1}), (set(), {1}), ({0}, {1}, {2}), ({0}, {1}, set())])
def test_people_who_agree_on_no_caption_make_no_label(marks):
    found = good_label(*marks)
    assert (found.labels, found.ties) == ((), 1)


def test_of_captions_that_are_equally_good_one_is_chosen_by_its_words_alone():
    (one,) = good_label({0, 1, 2}).labels
    (turned,) = good_label({0, 1, 2}, choices=THREE[::-1]).labels
    assert one.choices[one.chosen] == turned.choices[turned.chosen]
    others = [Judgement(f"a_{at}_9000", "a", "p", THREE, None, None, (), None, None, "f", frozenset({0, 1, 2}))
              for at in range(300)]  # fmt: skip
    found = labels_of(others, {other.clip_id: HERE for other in others}).labels
    shares = [sum(one.chosen == at for one in found) for at in range(3)]
    assert min(shares) > 70


def test_where_the_best_was_asked_for_it_alone_is_known_to_be_good():
    (found,) = label(0, 1, 1).labels
    assert (found.good, found.best, found.is_every_good) == ({1}, {1}, False)
    assert label(None).labels[0].good == frozenset()


def test_of_a_clip_judged_in_both_forms_the_one_that_more_people_answered_counts_unless_good_ones_go_first():
    said = [judgement(by="p0"), judgement(by="p1"), judgement(by="p2", chosen=None, good=frozenset({1}))]
    assert labels_of(said, {"a_1000_9000": HERE}).labels[0].chosen == 0
    (found,) = labels_of(said, {"a_1000_9000": HERE}, every_good_first=True).labels
    assert (found.chosen, found.is_every_good) == (1, True)


def test_people_who_saw_the_captions_in_another_order_are_counted_together():
    said = [judgement(by="p0", chosen=0), judgement(by="p1", chosen=1, choices=CHOICES[::-1])]
    (found,) = labels_of(said, {"a_1000_9000": HERE}).labels
    assert (found.chosen, found.votes) == (0, (2, 0, 0))


def test_of_two_sets_of_captions_the_one_that_more_people_judged_counts_else_the_later():
    third = (*CHOICES, Choice("another", ("lite-x",)))
    later = EARLY + datetime.timedelta(days=1)
    said = [judgement(by="p0"), judgement(by="p1"), judgement(by="p2", chosen=2, choices=third, annotated_at=later)]
    assert labels_of(said, {"a_1000_9000": HERE}).labels[0].chosen == 0
    assert labels_of(said[1:], {"a_1000_9000": HERE}).labels[0].chosen == 2


def test_a_label_says_whether_the_clip_still_has_its_captions():
    assert label(0).labels[0].is_current is True
    gone = ClipCaptions("a", frozenset({"a dog runs"}))
    (found,) = labels_of([judgement()], {"a_1000_9000": gone}).labels
    assert (found.chosen, found.is_current) == (0, False)


def test_clips_that_are_gone_or_taken_down_have_no_label(dataset):
    stored(dataset, judgement(), judgement("b_1000_9000"), judgement("a_0_7"))
    found = annotations_of(pathlib.Path(dataset))
    assert ([one.clip_id for one in found.labels], found.gone) == (["a_1000_9000", "b_1000_9000"], 1)
    entomb(dataset, "b")
    found = annotations_of(dataset)
    assert ([one.clip_id for one in found.labels], found.gone) == (["a_1000_9000"], 2)
