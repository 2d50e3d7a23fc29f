"""Clips for a student: which are learned from, on which side they fall, and any of them there at once."""

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_dataset import candidate, clip, video, write_dataset
from taught_dataset import write_taught

from beam_pipeline.training.examples import ExamplesError, SplitShares
from beam_pipeline.training.student_rows import Rules, StudentRows, select
from model_handlers.student_inputs import Texts

SHARES = SplitShares(0.2, 0.2, 0)
EVEN = SplitShares(0.3, 0.3, 0)


@pytest.fixture
def ruled(tmp_path):
    """Twelve sources; of the first four clips each falls under another rule, and the fifth has no reel."""
    names = [f"v{number}" for number in range(12)]
    told = [{"matching_score": 0.3}, {"abstained": True}, {"duplicate_of": "v5-0-2000"}, {"caption": "  "}, {}]
    more = {name: columns for name, columns in zip(names, told, strict=False)}
    clips = [
        clip(
            name, 0.0, 2.0, [candidate("t", f"caption of {name}", 0.5)], subtitles=f"words of {name}", title=f"T {name}"
        )
        | more.get(name, {})
        for name in names
    ]
    films = [video(name, 2.0, description=f"about {name}") for name in names]
    folder = write_dataset(tmp_path / "set", videos=films, clips=clips)
    (folder / "reels").mkdir()
    for name in names:
        if name != "v4":
            (folder / "reels" / f"{name}.arrow").write_bytes(b"")
    return folder


def chosen(found):
    return sorted(one for part in ("train", "validation", "test") for one in StudentRows(found.path(part)).clip_ids())


def left_out(found):
    return {why: count for why, count in found.left_out.items() if count}


def ids(*numbers):
    return sorted(f"v{number}-0-2000" for number in numbers)


ALWAYS = {"clips have no reel": 1, "clips have no caption": 1, "near-duplicates": 1}
ABSTAINED = {"clips of which the selector found no caption good": 1}


@pytest.mark.parametrize(
    ("rules", "numbers", "dropped"),
    [
        (Rules(), [0, *range(5, 12)], ALWAYS | ABSTAINED),
        (Rules(keep_abstained=True), [0, 1, *range(5, 12)], ALWAYS),
        (Rules(min_score=0.43), range(5, 12), ALWAYS | ABSTAINED | {"clips whose score is not above 0.43": 1}),
    ],
)
def test_rules_choose_clips_and_what_they_leave_out_is_counted_by_its_reason(ruled, tmp_path, rules, numbers, dropped):
    found = select([ruled], rules, EVEN, str(tmp_path))
    assert (chosen(found), left_out(found)) == (ids(*numbers), dropped)
    assert sum(found.clips.values()) == sum(found.sources.values()) == len(list(numbers))


def test_row_holds_the_texts_of_its_clip_and_of_its_video(ruled, tmp_path):
    found = select([ruled], Rules(), EVEN, str(tmp_path))
    rows = {one.clip.clip_id: one for part in found.clips for one in StudentRows(found.path(part))}
    one = rows["v7-0-2000"]
    assert (one.caption, one.texts) == ("caption of v7", Texts("T v7", "about v7", "words of v7"))
    assert (one.clip.reel, one.clip.span.start_s, one.clip.span.end_s) == (str(ruled / "reels" / "v7.arrow"), 0.0, 2.0)


def test_subset_is_all_that_is_learned_from(ruled, tmp_path):
    names = [f"v{number}" for number in range(5, 12)]
    table = pa.table({"clip_id": [f"{name}-0-2000" for name in names[:6]], "video_id": names[:6]})
    pq.write_table(table, tmp_path / "some.parquet")
    found = select([ruled], Rules(subset=str(tmp_path / "some.parquet")), EVEN, str(tmp_path))
    assert chosen(found) == ids(*range(5, 11))


def test_source_that_stands_in_two_datasets_counts_once(ruled, tmp_path):
    (tmp_path / "once").mkdir()
    once, twice = (select([ruled] * count, Rules(), EVEN, str(tmp_path)) for count in (1, 1))
    both = select([ruled, ruled], Rules(), EVEN, str(tmp_path / "once"))
    assert (chosen(both), both.fingerprint) == (chosen(once), once.fingerprint)
    assert both.left_out["clips are of sources that stand twice"] == 12
    assert once.fingerprint == twice.fingerprint


def test_source_falls_where_its_name_does_and_another_seed_changes_nothing_but_the_sides(ruled, tmp_path):
    sides = {}
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        found = select([ruled], Rules(), SplitShares(0.3, 0.3, seed), str(tmp_path / str(seed)))
        sides[seed] = (
            found.fingerprint,
            {part: list(StudentRows(found.path(part)).clip_ids()) for part in found.clips},
        )
    assert sides[0][0] == sides[1][0]
    assert sides[0][1] != sides[1][1]


def test_any_row_is_there_at_once_also_in_another_process(tmp_path):
    write_taught(tmp_path / "set", 600)
    found = select([tmp_path / "set"], Rules(), SHARES, str(tmp_path))
    rows = StudentRows(found.path("train"))
    ids = list(rows.clip_ids())
    # More than a batch of the file, so that places of two batches are asked for.
    assert len(ids) == found.clips["train"] > 256
    other = pickle.loads(pickle.dumps(rows))
    assert [other[at].clip.clip_id for at in (0, 255, 256, len(ids) - 1)] == [ids[0], ids[255], ids[256], ids[-1]]
    with pytest.raises(IndexError):
        rows[len(ids)]
    assert rows.owners().tolist() == list(range(len(ids)))
    drawn = rows.drawn(5, seed=0)
    assert [one.clip.clip_id for one in drawn] == [one.clip.clip_id for one in other.drawn(5, seed=0)]
    assert np.diff([ids.index(one.clip.clip_id) for one in drawn]).min() > 0


@pytest.mark.parametrize(
    ("rules", "shares", "told"),
    [
        (
            Rules(min_score=0.9),
            EVEN,
            r"none of the clips of .* is left: 8 clips whose score is not above 0.9; lower --min-score",
        ),
        (Rules(), SplitShares(0.01, 0.0, 0), "8 clips are of too few sources: none falls to validation; take another"),
    ],
)
def test_too_little_to_learn_from_is_told_with_what_to_do(ruled, tmp_path, rules, shares, told):
    with pytest.raises(ExamplesError, match=told):
        select([ruled], rules, shares, str(tmp_path))


def test_dataset_without_reels_is_told_with_what_to_do(tmp_path):
    write_taught(tmp_path / "set", 8, missing=range(8))
    with pytest.raises(ExamplesError, match="8 clips have no reel; run curate again without --reels drop"):
        select([tmp_path / "set"], Rules(), SHARES, str(tmp_path))
