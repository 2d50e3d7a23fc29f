"""The stitching threshold's frontier: a sweep, its table, its drawing, and the threshold it suggests."""

import dataclasses
import json

import pytest
from synthetic import make_video

from beam_pipeline.calibrate import THRESHOLDS, Calibration, suggest
from beam_pipeline.cli import main
from beam_pipeline.evaluate_measures import Measured


def step(length_s: float | None, lpips: float | None, clips: int = 4) -> Measured:
    lengths = (length_s,) * clips if length_s is not None else ()
    return Measured(1, lengths, 100.0, sum(lengths), (lpips,) * clips if lpips is not None else ())


@pytest.mark.parametrize(
    ("steps", "baseline", "expected"),
    [
        ([(0.0, step(4.0, 0.25)), (0.5, step(8.0, 0.26)), (1.0, step(12.0, 0.4))], 0.25, 0.5),
        ([(0.0, step(4.0, 0.25)), (0.5, step(8.0, 0.2626))], 0.25, 0.0),
        ([(0.0, step(4.0, 0.3)), (0.5, step(8.0, 0.4))], 0.25, None),
        ([(0.5, step(8.0, 0.25)), (0.6, step(8.0, 0.25))], 0.25, 0.5),
        ([(0.5, step(8.0, 0.25)), (0.6, step(7.0, 0.2))], 0.25, 0.5),
        ([(0.0, step(None, None)), (0.5, step(1.0, None)), (0.6, step(2.0, 0.1))], 0.25, 0.6),
        ([(0.5, step(8.0, 0.25))], None, None),
        ([], 0.25, None),
    ],
)
def test_the_longest_clips_within_five_percent_are_suggested(steps, baseline, expected):
    assert suggest(steps, baseline) == expected


CALIBRATION = Calibration(
    embedder="corner",
    current=1.0,
    detector=("content alone", step(4.0, 0.25)),
    steps=((0.0, step(4.0, 0.25)), (0.5, step(8.0, 0.26)), (1.0, step(12.0, 0.4))),
    failed={"/v/<b>.mp4": "no video"},
)


def test_the_table_marks_the_configured_and_the_suggested_threshold_and_says_why():
    lines = [line.split() for line in CALIBRATION.text().splitlines()]
    assert lines[0] == ["stitching", "by", "corner,", "1", "videos"]
    assert lines[3:7] == [
        ["content", "alone", "4", "0.250", "4.0", "16%"],
        ["0", "4", "0.250", "4.0", "16%"],
        ["0.5", "(suggested)", "4", "0.260", "8.0", "32%"],
        ["1", "(configured)", "4", "0.400", "12.0", "48%"],
    ]
    assert CALIBRATION.advice() == (
        "suggested: 0.5, the longest clips whose LPIPS is within 5% of content alone (0.250); configured: 1"
    )
    assert lines[-2] == ["left", "out:", "1", "of", "2", "videos"]
    assert lines[-1] == ["left", "out:", "/v/<b>.mp4:", "no", "video"]


def test_a_threshold_that_is_both_is_marked_once():
    both = dataclasses.replace(CALIBRATION, current=0.5)
    assert [row[0] for row in both.cells()] == ["content alone", "0", "0.5 (configured, suggested)", "1"]


def test_the_advice_says_when_there_is_none_to_give():
    worse = dataclasses.replace(CALIBRATION, detector=("content alone", step(4.0, 0.2)))
    assert worse.advice() == (
        "no threshold keeps LPIPS within 5% of content alone (0.200); the clips are no better than the shots here"
    )
    blind = dataclasses.replace(CALIBRATION, detector=("content alone", step(4.0, None)))
    assert blind.advice() == "no threshold can be suggested without LPIPS: give its weights with --lpips"
    assert blind.drawing() is None


def test_the_frontier_is_drawn_through_every_threshold_with_the_limit_and_the_marks():
    drawing = str(CALIBRATION.drawing())
    assert drawing.count('class="mark step"') == 3
    assert drawing.count("<polyline") == 1
    for told in ("content alone: 4, 0.25", "0.5 (suggested): 8, 0.26", "1 (configured): 12, 0.4", "content alone + 5%"):
        assert told in drawing
    page = CALIBRATION.html()
    assert "/v/&lt;b&gt;.mp4: no video" in page
    assert drawing in page


def test_the_command_sweeps_from_no_shot_joined_to_all_of_them(shared_dir, tmp_path, capsys):
    make_video(tmp_path / "a.mp4", [(2.0, "red"), (2.0, "blue"), (2.0, "green"), (2.0, "yellow")])
    (tmp_path / "page.mp4").write_text("<html>")
    rules = "transition_distance: 2, min_event_s: 0, still_distance: null, redundant_distance: null, trim_fraction: 0"
    (tmp_path / "all.yaml").write_text(f"extends: lite\nstitching: {{{rules}}}\n")
    weights = str(shared_dir / "models" / "lpips_alex_v0.1.safetensors")
    command = ["calibrate", str(tmp_path), "--embedder", "efficientnet-lite0", "--config", str(tmp_path / "all.yaml")]
    command += ["--lpips", weights, "--output", str(tmp_path / "out"), "--html", str(tmp_path / "page.html")]
    assert main(command) == 0
    told = capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert [one["stitch_distance"] for one in found["steps"]] == sorted({*THRESHOLDS, 0.88})
    clips = [one["clips"] for one in found["steps"]]
    assert (clips[0], clips) == (4, sorted(clips, reverse=True))
    assert [one["mean_clip_s"] for one in found["steps"]] == [round(8 / count, 6) for count in clips]
    assert {one["kept"] for one in found["steps"]} == {1.0}
    # A step that joins nothing is the detector's shots themselves.
    first, alone = found["steps"][0], found["detector"]
    assert (alone["name"], alone["clips"], alone["mean_clip_s"]) == ("content alone", 4, 2.0)
    assert first["max_running_lpips"] == alone["max_running_lpips"]
    assert 0 < alone["max_running_lpips"] < found["steps"][-1]["max_running_lpips"] or clips[-1] == 4
    assert (found["configured"], list(found["failed"])) == (0.88, [str(tmp_path / "page.mp4")])
    assert "0.88 (configured" in told
    assert (tmp_path / "out" / "calibration.svg").read_text().startswith("<svg ")
    assert str(tmp_path / "page.html") in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.mp4"], "there is no file or directory 'gone.mp4'"),
        (["A", "--embedder", "efficientnet"], "did you mean 'efficientnet-lite0'?"),
        (["A", "--embeder", "x"], "did you mean '--embedder'?"),
        (["A", "--limit", "0"], "'0' is not a number from 1 up"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(arguments, message, tmp_path, capsys):
    (tmp_path / "a.mp4").write_bytes(b"")
    assert main(["calibrate", *(str(tmp_path / "a.mp4") if word == "A" else word for word in arguments)]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert message in told.err
