"""True shot boundaries in every format that people have them in, and what is wrong with a file in one line."""

import json

import numpy as np
import pytest

from transforms.truth import MAX_BYTES, Transition, Truth, TruthError, read_truth, truth_of

SCENES = "0\t99\n100\t184\n# a fade\n195 270\n271, 300\n"
OF_SCENES = (Transition(99, 100), Transition(184, 195), Transition(270, 271))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.json", "[76, 30, 30]", [Truth("a", (Transition(29, 30), Transition(75, 76)))]),
        ("a.json", '{"fps": 25, "cuts": [30], "frames": 250}', [Truth("a", (Transition(29, 30),), 250)]),
        (
            "a.json",
            '{"cuts": [202], "dissolves": [[126, 140]]}',
            [Truth("a", (Transition(125, 141), Transition(201, 202)))],
        ),
        (
            "a.json",
            '{"events": [{"start": 0, "end": 66, "cut": 33}, {"start": 66, "end": 122}]}',
            [Truth("a", (Transition(32, 33), Transition(65, 66)))],
        ),
        ("a.json", '{"scenes": [[0, 4], [5, 9], [12, 20]]}', [Truth("a", (Transition(4, 5), Transition(9, 12)))]),
        (
            "all.json",
            '{"note": "by eye", "x/b.mp4": [5], "c.mp4": {"cuts": []}, "d.mp4": {"fps": 25}}',
            [Truth("x/b.mp4", (Transition(4, 5),)), Truth("c.mp4", ())],
        ),
        (
            "clipshots.json",
            '{"b.mp4": {"transitions": [[3, 4], [466, 460], [9, 9]], "frame_num": 500.0}}',
            [Truth("b.mp4", (Transition(3, 4), Transition(9, 10), Transition(460, 466)), 500)],
        ),
        ("01_Pole-scenes.txt", SCENES, [Truth("01_Pole", OF_SCENES)]),
        ("pole.csv", "0,99\n100,184\n", [Truth("pole", (Transition(99, 100),))]),
        ("one.txt", "0 99\n", [Truth("one", ())]),
    ],
)
def test_every_format_gives_the_same_transitions(name, text, expected, tmp_path):
    (tmp_path / name).write_text(text)
    assert read_truth(str(tmp_path / name)) == tuple(expected)


def test_an_archive_of_arrays_gives_the_transitions_between_its_scenes(tmp_path):
    scenes = np.array([[0, 480], [525, 722], [723, 800]], dtype=np.int32)
    np.savez(tmp_path / "set.npz", **{"123/scenes": scenes, "123/prob": np.zeros(801)})
    assert read_truth(str(tmp_path / "set.npz")) == (Truth("123", (Transition(480, 525), Transition(722, 723))),)


def test_a_folder_is_read_file_by_file_and_what_is_no_truth_by_its_name_is_passed_over(tmp_path):
    (tmp_path / "b.txt").write_text("0 9\n10 20\n")
    (tmp_path / "a.json").write_text("[5]")
    (tmp_path / "README.md").write_text("by hand")
    assert read_truth(str(tmp_path)) == (Truth("a", (Transition(4, 5),)), Truth("b", (Transition(9, 10),)))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "[30, ", "no json: Expecting value"),
        ("a.json", "3", "neither a list of frames nor an object"),
        ("a.json", "[[0, 4], [5, 9]]", "cuts must be frame numbers from 0 up, not '[0, 4]'"),
        ("a.json", "[0, 30]", "0 is the first frame of the first shot"),
        ("a.json", '{"cuts": [1.5]}', "a: cuts must be frame numbers from 0 up, not '1.5'"),
        ("a.json", '{"cuts": [NaN]}', "not 'nan'"),
        ("a.json", '{"cuts": [true]}', "not 'True'"),
        ("a.json", '{"x.mp4": {"cuts": 7}}', "x.mp4: cuts must be a list of frames"),
        ("a.json", '{"x.mp4": {"transitions": [[1, 2, 3]]}}', "x.mp4: transitions must be a list of [first, last]"),
        ("a.json", '{"dissolves": [[9, 4]]}', "a: the dissolve [9, 4] must begin after frame 0 and end after that"),
        ("a.json", '{"events": [[0, 4]]}', "a: events must be a list of objects"),
        ("a.json", '{"x.mp4": {"fps": 25}}', "it names no video with cuts, dissolves, transitions, scenes, events"),
        ("a.json", "[" * 100_000, "no json: "),
        ("a.txt", "0 99\n100 to 184\n", "line 2 must be a shot's first and last frame, not '100 to 184'"),
        ("a.txt", "0 99\n90 184\n", "the shot 0 to 99 must end before the next one begins, at 90"),
        ("a.txt", "0 99\n100 90\n", "the shot 100 to 90 ends before it begins"),
        ("a.txt", "\n", "it holds no line"),
        ("a.npz", "not a zip", "no npz: "),
        ("a.xml", "<cuts/>", "its name must end in .json, .npz, .txt, .csv or .tsv"),
    ],
)
def test_a_bad_file_is_told_in_one_line_that_names_it(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(TruthError) as told:
        read_truth(str(tmp_path / name))
    assert message in str(told.value)
    assert str(tmp_path / name) in str(told.value)
    assert "\n" not in str(told.value)


def test_a_missing_file_and_an_empty_folder_are_told(tmp_path):
    with pytest.raises(TruthError, match=r"cannot read the truth .*gone\.json: No such file"):
        read_truth(str(tmp_path / "gone.json"))
    with pytest.raises(TruthError, match="holds no truth file"):
        read_truth(str(tmp_path))


def test_a_file_too_large_for_a_truth_is_not_read(tmp_path):
    with open(tmp_path / "a.json", "wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(TruthError, match="larger than 256 MB"):
        read_truth(str(tmp_path / "a.json"))


def test_an_archive_of_objects_is_refused_without_unpickling_it(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    np.savez(tmp_path / "a.npz", **{"v/scenes": np.array([[Hostile(), 1]], dtype=object)})
    with pytest.raises(TruthError, match="no npz: Object arrays cannot be loaded"):
        read_truth(str(tmp_path / "a.npz"))
    assert not (tmp_path / "ran").exists()


def test_an_archive_of_anything_but_pairs_of_whole_numbers_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", **{"v/scenes": np.zeros((4, 3))})
    with pytest.raises(TruthError, match=r"v/scenes must be whole numbers in two columns, not float64 \(4, 3\)"):
        read_truth(str(tmp_path / "a.npz"))


NAMED = [Truth(name, (Transition(n, n + 1),)) for n, name in enumerate(["a.mp4", "x/a.mp4", "b", "y/c.mp4", "a.mkv"])]


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("/videos/z/a.mp4", "a.mp4"),
        ("/videos/x/a.mp4", "x/a.mp4"),
        ("/videos/b.webm", "b"),
        ("/videos/y/c.mp4", "y/c.mp4"),
        ("/videos/z/c.mp4", None),
        ("/videos/za.mp4", None),
        ("/videos/a.webm", None),
    ],
)
def test_a_video_gets_the_truth_that_names_most_of_its_path(uri, name):
    found = truth_of(NAMED, uri)
    assert (found and found.name) == name


def test_two_truths_that_differ_on_one_video_are_an_error_and_a_repeated_one_is_not():
    with pytest.raises(TruthError, match=r"2 truths name /v/a\.mp4"):
        truth_of([NAMED[0], Truth("a.mp4", ())], "/v/a.mp4")
    assert truth_of([NAMED[0], NAMED[0]], "/v/a.mp4") == NAMED[0]


@pytest.mark.parametrize(
    ("file", "videos", "transitions"),
    [
        ("captions/autoshot_200.npz", 200, 2516),
        ("captions/clipshots_test_truth.json", 500, 7208),
        ("videos/reference_cuts.json", 7, 22),
        ("videos/built", 3, 93),
    ],
)
def test_the_fields_own_files_are_read_whole(file, videos, transitions, shared_dir):
    found = read_truth(str(shared_dir / file))
    assert (len(found), sum(len(truth.transitions) for truth in found)) == (videos, transitions)


def test_a_json_file_of_the_kind_written_by_hand_is_read_back(tmp_path):
    cuts = {"a.mp4": {"cuts": [3, 9]}}
    (tmp_path / "truth.json").write_text(json.dumps(cuts), encoding="utf-8-sig")
    assert read_truth(str(tmp_path / "truth.json")) == (Truth("a.mp4", (Transition(2, 3), Transition(8, 9))),)
