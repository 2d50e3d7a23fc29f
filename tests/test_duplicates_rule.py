"""The rule of duplicates by itself: what stands for what, whose copy a file is, and which marks are wrong."""

import numpy as np
import pyarrow as pa
import pytest

from beam_pipeline.duplicates import valid_marks
from transforms.duplicates import (
    MARKS,
    VIDEO_MARKS,
    File,
    check_marks,
    check_threshold,
    decide_videos,
    ranks,
    same_size,
    twins,
)


@pytest.mark.parametrize("threshold", [0, -0.1, 2, float("nan"), True, "0.1", None])
def test_a_threshold_that_can_not_be_meant_is_refused(threshold):
    with pytest.raises(ValueError, match="a distance between unit vectors, above 0 and below 2"):
        check_threshold(threshold)


@pytest.mark.parametrize(
    ("labels", "places", "owners", "expected"),
    [
        ([], [], [], []),
        ([0], [0], [1], [-1]),
        ([0, 0], [1, 0], [1, 2], [1, -1]),
        ([5, 5, 5], [2, 1, 0], [1, 2, 3], [2, 2, -1]),
        ([5, 7, 5, 7], [0, 1, 2, 3], [1, 2, 3, 4], [-1, -1, 0, 1]),
        ([5, 5, 5], [0, 1, 2], [1, 2, 1], [-1, 0, -1]),
    ],
)
def test_the_first_of_a_label_stands_for_those_of_other_owners(labels, places, owners, expected):
    assert twins(*(np.array(column, np.int64) for column in (labels, places, owners))).tolist() == expected


def test_what_is_wrong_with_marks_is_told_in_plain_sentences():
    rows = {
        "clip_id": ["a1", "a2", "b1", "c1", "d1"],
        "video_id": ["a", "a", "b", "c", "d"],
        "duplicate_of": [None, "a1", "gone", "a1", "c1"],
    }
    assert check_marks(rows, "clip_id", orderly=True) == [
        "a2: it is called a duplicate of a1, which is of the same video",
        "b1: it is called a duplicate of gone, which does not stand",
        "d1: it is called a duplicate of c1, which is one itself",
    ]


def test_of_copies_of_a_file_the_best_stands_and_others_are_its_duplicates():
    files = [
        File("a", "", "1", 9, "failed", 0),
        File("b", "", "1", 9, "ok", 2),
        File("c", "", "1", 9, "ok", 2, "x"),
        File("d", "", "1", 9, "ok", 2),
        File("e", "", "1", 9, "ok", 2),
    ]
    asked = []

    def digest_of(file):
        asked.append(file.video_id)
        return {"a": "x", "b": "x", "d": "y", "e": None}[file.video_id]

    assert decide_videos(files, digest_of).to_pylist() == [
        {"video_id": "a", "content_hash": "x", "duplicate_of": "b"},
        {"video_id": "b", "content_hash": "x", "duplicate_of": None},
        {"video_id": "c", "content_hash": "x", "duplicate_of": "b"},
        {"video_id": "d", "content_hash": "y", "duplicate_of": None},
    ]
    assert asked == ["a", "b", "d", "e"]


def test_only_files_as_large_as_another_can_have_a_copy():
    sizes = {"a": 5, "b": 7, "c": 5, "d": 0, "e": 0}
    rows = [
        {"video_id": name, "uri": "", "etag": "", "size_bytes": size, "status": "ok", "n_clips": 0, "content_hash": ""}
        for name, size in sizes.items()
    ]
    found = same_size([pa.RecordBatch.from_pylist(rows[:2]), pa.RecordBatch.from_pylist(rows[2:])])
    assert [file.video_id for file in found] == ["a", "c"]


def test_the_longer_clip_goes_first_then_the_larger_then_the_one_whose_id_does():
    rows = [
        ("b", 8.0, 640, 360),
        ("a", 8.0004, 640, 360),  # As long, to the millisecond.
        ("c", 7.0, 1920, 1080),
        ("d", 8.0, 640, 361),
        ("e", 8.001, 10, 10),
    ]
    names = ("clip_id", "duration_s", "width", "height")
    clips = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
    assert ranks(clips).tolist() == [3, 2, 4, 1, 0]


def test_marks_hold_while_what_they_name_stands_itself_in_another_video():
    clips = pa.table(
        {
            "clip_id": ["a1", "a2", "b1", "c1", "d1"],
            "video_id": ["a", "a", "b", "c", "d"],
            "duplicate_of": [None, "a1", "a1", "gone", "b1"],
            "duplicate_distance": pa.array([None, 0.1, 0.2, 0.3, 0.4], pa.float32()),
        }
    )
    assert valid_marks(clips, MARKS)["clip_id"].to_pylist() == ["b1"]
    videos = pa.table(
        {
            "video_id": ["a", "b", "c", "d"],
            "content_hash": ["x", "x", "y", None],
            "duplicate_of": [None, "a", "gone", None],
        }
    )
    assert valid_marks(videos, VIDEO_MARKS).to_pylist() == [
        {"video_id": "a", "content_hash": "x", "duplicate_of": None},
        {"video_id": "b", "content_hash": "x", "duplicate_of": "a"},
        {"video_id": "c", "content_hash": "y", "duplicate_of": None},
    ]
