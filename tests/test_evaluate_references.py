"""References in the forms of the field, and which of a dataset's clips they are about."""

import json

import pytest

from beam_pipeline.evaluate_references import (
    Matched,
    Named,
    Reference,
    ReferencesError,
    match,
    read_references,
)
from transforms.records import Span

#: The shape of each form, as its data set publishes it.
COCO = {
    "images": [{"id": 391895, "file_name": "COCO_val2014_000000391895.jpg"}, {"id": 2, "file_name": "b.mp4"}],
    "annotations": [
        {"image_id": 391895, "id": 770337, "caption": "A man with a red helmet on a small moped on a dirt road. "},
        {"image_id": 2, "id": 1, "caption": "Somebody\n  runs."},
    ],
}
MSR_VTT = {
    "info": {},
    "videos": [{"video_id": "video0", "split": "train", "url": "u", "start time": 1.0, "end time": 2.0}],
    "sentences": [
        {"caption": "a car is shown", "video_id": "video0", "sen_id": 0},
        {"caption": "in the lab", "video_id": "video0", "sen_id": 1},
    ],
}
MSVD = [{"video": "eyhzD.avi", "caption": ["a boy plays.", "a man plays."]}, {"video": "f.avi", "caption": ["a boy."]}]
PANDA = (
    "videoID,url,timestamp,caption,matching_score\n"
    "\"---5AXYkwxI\",https://x,\"[['0:00:15.982', '0:00:36.503'], ['1:00:00.000', '1:00:02.500']]\","
    '"[\'A dog, running.\', ""It\'s a cat.""]","[0.46, 0.44]"\n'
)
JSFUSION = "key,vid_key,video_id,sentence\nret0,msr9770,video9770,a person is connecting something\n"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "coco.json",
            json.dumps(COCO),
            [
                ("COCO_val2014_000000391895.jpg", "A man with a red helmet on a small moped on a dirt road."),
                ("b.mp4", "Somebody runs."),
            ],
        ),
        ("msrvtt.json", json.dumps(MSR_VTT), [("video0", "a car is shown"), ("video0", "in the lab")]),
        (
            "msvd.json",
            json.dumps(MSVD),
            [("eyhzD.avi", "a boy plays."), ("eyhzD.avi", "a man plays."), ("f.avi", "a boy.")],
        ),
        ("names.json", json.dumps({"a": ["x", "y"], "b": "z"}), [("a", "x"), ("a", "y"), ("b", "z")]),
        (
            "panda.csv",
            PANDA,
            [
                ("---5AXYkwxI", "A dog, running.", Span(15.982, 36.503)),
                ("---5AXYkwxI", "It's a cat.", Span(3600.0, 3602.5)),
            ],
        ),
        ("jsfusion.csv", JSFUSION, [("video9770", "a person is connecting something")]),
        (
            "plain.csv",
            '\ufeffclip_id,caption,start_s,end_s\nc1,"a, b",,\nc2,c,1,2.5\n',
            [("c1", "a, b"), ("c2", "c", Span(1.0, 2.5))],
        ),
        ("lists.csv", 'uri,captions\n/v/a.mp4,"[""x"", ""y""]"\n', [("/v/a.mp4", "x"), ("/v/a.mp4", "y")]),
        (
            "rows.jsonl",
            '{"file": "a.mp4", "caption": "x"}\n\n{"clip_id": "c", "captions": ["y", "...", ""]}\n',
            [("a.mp4", "x"), ("c", "y")],
        ),
    ],
    ids=lambda one: one if isinstance(one, str) and len(one) < 20 else "",
)
def test_each_form_is_read(tmp_path, name, text, expected):
    (tmp_path / name).write_text(text, "utf-8")
    assert read_references(str(tmp_path / name)) == [Reference(*one) for one in expected]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.json", "{", "cannot read references from"),
        ("a.json", "[]", "holds no references"),
        ("a.jsonl", "[" * 5000, "cannot read references from"),
        ("a.csv", "name,words\na,b\n", "a row has name, words: it needs one of clip_id, uri, file"),
        ("a.jsonl", '{"file": "a", "caption": [1]}\n', "a caption of a is no text: 1"),
        ("a.csv", "videoID,timestamp,caption\na,__import__('os').getcwd(),b\n", "cannot read references from"),
    ],
)
def test_what_holds_no_references_is_told(tmp_path, name, text, told):
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(ReferencesError, match=told.replace("(", r"\(")):
        read_references(str(tmp_path / name))


def clip(video: str, start_s: float, end_s: float, folder: str = "/v") -> Named:
    return Named(f"{video}-{start_s:.0f}", f"id-{video}", f"{folder}/{video}.mp4", Span(start_s, end_s))


def test_the_most_exact_name_counts():
    references = [
        Reference("a-0", "by clip_id"),
        Reference("/v/b.mp4", "by uri"),
        Reference("id-c", "by video_id"),
        Reference("d.mp4", "by file name"),
        Reference("e", "by stem"),
        Reference("a.mp4", "less exact"),
    ]
    found = match(references, [clip(name, 0, 5) for name in "abcdef"])
    assert found == Matched(
        {
            "a-0": ("by clip_id",),
            "b-0": ("by uri",),
            "c-0": ("by video_id",),
            "d-0": ("by file name",),
            "e-0": ("by stem",),
        },
        without=1,
        unused=1,
        ambiguous=(),
        shared=0,
    )


def test_a_reference_to_a_part_belongs_to_the_clips_that_lie_in_it_by_more_than_half():
    references = [Reference("a", "first", Span(0, 10)), Reference("a", "second", Span(10, 20))]
    found = match(references, [clip("a", 1, 9), clip("a", 6, 14), clip("a", 8, 16), clip("a", 30, 35)])
    assert found.captions == {"a-1": ("first",), "a-8": ("second",)}
    assert (found.without, found.shared) == (2, 0)


def test_one_name_of_two_videos_is_left_out_and_told():
    found = match([Reference("a.mp4", "x")], [clip("a", 0, 5), clip("a", 6, 9, "/w")])
    assert (found.captions, found.ambiguous, found.without, found.unused) == ({}, ("a.mp4",), 2, 1)
    assert found.notes()[2].startswith("1 names fit several videos, such as a.mp4")


def test_clips_that_share_a_reference_to_their_whole_video_are_counted_and_equal_captions_are_one():
    found = match([Reference("a.mp4", "x"), Reference("a.mp4", "x")], [clip("a", 0, 5), clip("a", 6, 9)])
    assert found.captions == {"a-0": ("x",), "a-6": ("x",)}
    assert found.shared == 2
