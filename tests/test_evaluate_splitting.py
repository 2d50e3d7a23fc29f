"""The paper's Table 2 on videos whose cuts are known: rows, figures, boundaries, and what is left out."""

import base64
import dataclasses
import hashlib
import html
import itertools
import json
import math
import re
import xml.etree.ElementTree

import hypothesis
import pytest
from fakes import CornerEmbedder, Model
from hypothesis import strategies as st
from synthetic import make_video

from beam_pipeline import evaluate_plots as plots
from beam_pipeline.cli import main
from beam_pipeline.config import load_config
from beam_pipeline.evaluate_measures import Measured, covered_s, measure, pooled
from beam_pipeline.evaluate_splitting import Evaluation
from beam_pipeline.evaluate_tables import table
from beam_pipeline.evaluate_videos import (
    Cutting,
    Embedder,
    RunningLpips,
    Setting,
    Study,
    choose_detectors,
    choose_embedders,
    cuttings,
    event_edges,
)
from model_handlers import catalogue
from model_handlers.catalogue import Entry, Thresholds
from transforms import transnet
from transforms.boundary_scores import Counts
from transforms.detection import THRESHOLDS, SplittingConfig
from transforms.records import Cue, Failure, MediaFacts, Shot, ShotFeatures, Span, SplitVideo, Video
from transforms.stitching import StitchingConfig, stitch
from transforms.truth import Truth, cut_at

#: Nothing is dropped and nothing trimmed: what is left is which shots are joined.
JOIN_ONLY = StitchingConfig(
    transition_distance=1.0,
    stitch_distance=0.6,
    min_event_s=0.0,
    still_distance=None,
    redundant_distance=None,
    max_clip_s=1000.0,
    trim_fraction=0.0,
)


def at(angle: float) -> tuple[float, float]:
    return (math.cos(angle), math.sin(angle))


def study(seconds: list[float], cues: tuple[Cue, ...] = (), features=None, shots=None) -> Study:
    """A video at 25 frames a second whose shots last so long."""
    ends = list(itertools.accumulate(seconds))
    spans = list(zip([0.0, *ends], ends, strict=False))
    made = [Shot(n, round(25 * a), round(25 * b), a, b, a, b - 0.04) for n, (a, b) in enumerate(spans)]
    video = Video("v", "/v.mp4", "1-1", 1, cues=cues)
    split = SplitVideo(video, MediaFacts(ends[-1], 320, 180, 25.0, "h264"), tuple(made), "/v.arrow")
    return Study(split, shots or {}, features or {}, [n / 25 for n in range(round(25 * ends[-1]))])


def looks(one: Study, angles: list[tuple[float, float]]) -> dict[int, ShotFeatures]:
    pairs = zip(one.split.shots, angles, strict=True)
    return {shot.index: ShotFeatures(shot, at(first), at(last)) for shot, (first, last) in pairs}


CALIBRATED = Thresholds(1.1, 0.7, 0.2, 0.4)


def entry(name: str, factory=CornerEmbedder, thresholds: Thresholds | None = CALIBRATED) -> Entry:
    return Entry(name, "m", "1", "MIT", "for tests", factory, thresholds=thresholds)


def test_each_method_cuts_the_video_up_in_its_own_way():
    cues = (Cue(-1.0, 1.0, "early"), Cue(1.0, 2.0, "next"), Cue(5.5, 9.0, "late"), Cue(20.0, 30.0, "after the end"))
    bare = study([2.0, 2.0, 2.0], cues, shots={"content": [(0, 50, 0.0, 2.0), (50, 150, 2.0, 6.0)]})
    one = dataclasses.replace(bare, features={"corner": looks(bare, [(0.0, 0.1), (0.1, 0.2), (2.0, 2.0)])})
    rules = dataclasses.replace(JOIN_ONLY, trim_fraction=0.25)
    setting = Setting(SplittingConfig(), (SplittingConfig(),), (Embedder(entry("corner"), None, None, rules),))
    assert cuttings(one, setting) == {
        "subtitle alignment": Cutting((Span(0.0, 1.0), Span(1.0, 2.0), Span(5.5, 6.0)), (25, 50, 138)),
        "content alone": Cutting((Span(0.0, 2.0), Span(2.0, 6.0)), (50,)),
        # The edges are the event's, before the trim.
        "content + stitching by corner": Cutting((Span(1.0, 3.0), Span(4.5, 5.5)), (100,)),
    }


def test_a_video_without_subtitles_has_no_alignment_to_them_and_embedded_ones_count():
    bare = study([2.0])
    setting = Setting(SplittingConfig(), (), ())
    assert cuttings(bare, setting) == {}
    split = dataclasses.replace(bare.split, embedded_cues=(Cue(0.5, 1.5, "hello"),))
    found = cuttings(dataclasses.replace(bare, split=split), setting)
    assert found == {"subtitle alignment": Cutting((Span(0.5, 1.5),), (13, 38))}


@hypothesis.given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 3), st.booleans()), min_size=1, max_size=12))
@hypothesis.settings(deadline=None, max_examples=200)
def test_edges_lie_exactly_where_the_rules_end_an_event(angles):
    one = study([1.0] * len(angles))
    found = looks(one, [(first, last) for first, last, _ in angles])
    features = {n: Failure("E", "m", "") if angles[n][2] else found[n] for n in found}
    stitched = stitch(one.split, features, JOIN_ONLY)
    starts = {clip.span.start_s for clip in stitched.clips}
    starts |= {row.span.start_s for row in stitched.rejected}
    starts |= {letter.span.start_s for letter in stitched.dead_letters}
    assert set(event_edges(one.split, features, JOIN_ONLY)) == {round(25 * start) for start in starts} - {0}


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [([], 0.0), ([(0, 2), (2, 3)], 3.0), ([(4, 6), (0, 5)], 6.0), ([(0, 9), (1, 2)], 9.0), ([(0, 1), (5, 6)], 2.0)],
)
def test_overlapping_clips_cover_their_seconds_once(spans, seconds):
    assert covered_s(Span(*span) for span in spans) == seconds


def test_measures_are_pooled_clip_by_clip_and_boundary_by_boundary():
    changes = {Span(0.0, 2.0): 0.2, Span(2.0, 6.0): None, Span(0.0, 3.0): 0.6}
    truth = Truth("a", (cut_at(50),))
    one = measure(Cutting((Span(0.0, 2.0), Span(2.0, 6.0)), (51,)), 8.0, changes.__getitem__, truth)
    other = measure(Cutting((Span(0.0, 3.0),), ()), 4.0, changes.__getitem__, None)
    both = pooled([one, other])
    assert one.boundaries == {0: Counts(0, 1, 1), 1: Counts(1, 0, 0), 2: Counts(1, 0, 0)}
    assert (both.videos, both.judged, both.clips, both.boundaries) == (2, 1, 3, one.boundaries)
    assert both.mean_s == 3.0
    assert both.mean_lpips == pytest.approx(0.4)
    assert both.kept == 9 / 12
    assert pooled([other]).boundaries == {}


def test_a_method_that_made_nothing_has_no_means():
    nothing = measure(Cutting((), ()), 5.0, None, None)
    assert (nothing.clips, nothing.mean_s, nothing.mean_lpips, nothing.kept) == (0, None, None, 0.0)


def test_all_detectors_are_compared_and_one_whose_package_is_missing_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(transnet, "available", lambda: False)
    configured = SplittingConfig(detector="adaptive", threshold=4.0)
    chosen, notes = choose_detectors(None, configured)
    assert [one.detector for one in chosen] == [name for name in THRESHOLDS if name != "transnet"]
    assert {one.detector: one.threshold for one in chosen} == {
        name: 4.0 if name == "adaptive" else value for name, value in THRESHOLDS.items() if name != "transnet"
    }
    missing = "the detector transnet is not installed; run: pip install 'reelscribe[transnet]'"
    assert notes == [missing]
    with pytest.raises(ValueError, match=re.escape(missing)):
        choose_detectors(["transnet"], configured)


def test_a_detector_named_twice_is_compared_once_and_an_unknown_one_is_told():
    chosen, notes = choose_detectors(["content", "ContentDetector"], SplittingConfig())
    assert (chosen, notes) == ([SplittingConfig()], [])
    with pytest.raises(ValueError, match="did you mean 'adaptive'"):
        choose_detectors(["adaptiv"], SplittingConfig())


def _no_package():
    raise ModuleNotFoundError("No module named 'imagebind'", name="imagebind")


def _no_weights():
    raise OSError("the weights\nare not here")


def test_embedders_that_cannot_be_loaded_are_left_out_with_the_reason(monkeypatch):
    known = [entry("corner"), entry("bare", _no_package), entry("far", _no_weights), entry("raw", thresholds=None)]
    config = load_config()
    monkeypatch.setattr(catalogue, "EMBEDDERS", {one.name: one for one in known})
    chosen, notes = choose_embedders(None, dataclasses.replace(config, stitching=JOIN_ONLY))
    assert [(one.entry.name, type(one.model)) for one in chosen] == [("corner", Model), ("raw", Model)]
    # Its own distances, and the rest of the configured rules: rules that are off stay off.
    assert chosen[0].rules == dataclasses.replace(JOIN_ONLY, transition_distance=1.1, stitch_distance=0.7)
    # Nobody has calibrated this one: it starts from the paper's.
    assert chosen[1].rules == dataclasses.replace(JOIN_ONLY, transition_distance=1.0, stitch_distance=0.6)
    assert notes == [
        "the embedder bare is left out: its packages are missing (reelscribe teachers)",
        "the embedder far is left out: the weights are not here",
    ]
    with pytest.raises(ModuleNotFoundError):
        choose_embedders(["bare"], config)
    with pytest.raises(ValueError, match="the embedder far cannot be loaded: the weights are not here"):
        choose_embedders(["far"], config)


SVG = "http://www.w3.org/2000/svg"
HOSTILE = '"><img src=x onerror=alert(1)>&.mp4'


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    """Two videos of known cuts, one with subtitles and a hostile name, and a page that claims to be a video."""
    folder = tmp_path_factory.mktemp("footage")
    make_video(folder / "a.mp4", [(2.0, "red"), (2.0, "blue"), (2.0, "green")])
    make_video(folder / HOSTILE, [(3.0, "yellow"), (3.0, "blue")], subtitles=[(1.0, 3.0, "Hi"), (4.0, 5.0, "Ho")])
    (folder / "page.mp4").write_text("<html>")
    return folder


@pytest.fixture(scope="module")
def evaluated(footage, tmp_path_factory):
    """One run of the command on all of it, without LPIPS."""
    folder = tmp_path_factory.mktemp("evaluated")
    (folder / "truth.json").write_text(json.dumps({"a.mp4": [50, 101], HOSTILE: [75, 100]}))
    rules = "transition_distance: 2, min_event_s: 0, still_distance: null, redundant_distance: null, trim_fraction: 0"
    (folder / "all.yaml").write_text(f"extends: lite\nstitching: {{{rules}}}\n")
    command = ["evaluate", "splitting", str(footage), "--truth", str(folder / "truth.json"), "--detectors"]
    command += ["content,adaptive", "--config", str(folder / "all.yaml")]
    status = main([*command, "--output", str(folder / "out"), "--html", str(folder / "page.html")])
    return status, folder


def test_the_command_measures_every_method_and_leaves_out_what_is_no_video(evaluated, footage):
    status, folder = evaluated
    found = json.loads((folder / "out" / "splitting.json").read_text())
    assert status == 0
    ours = "content + stitching by efficientnet-lite0"
    assert list(found["rows"]) == ["subtitle alignment", "content alone", "adaptive alone", ours]
    row = found["rows"]["content alone"]
    assert (row["videos"], row["clips"], row["mean_clip_s"], row["source_s"], row["kept"]) == (2, 5, 2.4, 12.0, 1.0)
    assert (row["max_running_lpips"], row["clips_with_lpips"], row["videos_with_truth"]) == (None, 0, 2)
    exact, near = row["boundaries"]["0"], row["boundaries"]["1"]
    assert (exact["right"], exact["wrong"], exact["missed"]) == (2, 1, 2)
    assert (near["right"], near["wrong"], near["missed"]) == (3, 0, 1)
    assert (near["precision"], near["recall"], near["f1"]) == (1.0, 0.75, round(6 / 7, 6))
    subtitles = found["rows"]["subtitle alignment"]
    assert (subtitles["videos"], subtitles["clips"], subtitles["mean_clip_s"], subtitles["kept"]) == (1, 2, 1.5, 0.5)
    # The cues begin and end at 1, 3, 4 and 5 s: frames 25, 75, 100 and 125, of which 75 and 100 are true.
    assert (subtitles["boundaries"]["0"]["right"], subtitles["boundaries"]["0"]["wrong"]) == (2, 2)
    assert found["rows"][ours]["kept"] == 1.0
    assert list(found["failed"]) == [str(footage / "page.mp4")]
    assert found["published"]["the paper's splitting"] == {"max_running_lpips": 0.256, "mean_clip_s": 7.9}
    assert sorted(path.suffix for path in (folder / "out" / "reels").iterdir()) == [".arrow", ".arrow"]


def test_the_page_runs_nothing_loads_nothing_and_shows_hostile_names_as_text(evaluated):
    page = (evaluated[1] / "page.html").read_text()
    assert (
        "<img" not in page and "<script" not in page and "http:" not in page.replace("http://www.w3.org/2000/svg", "")
    )
    assert html.escape(HOSTILE).replace("&quot;", "&#34;") in page
    assert "Content-Security-Policy" in page
    assert "left out: " in page and "published: PySceneDetect" in page


def test_the_table_is_printed_with_the_published_figures_and_the_reasons(footage, tmp_path, capsys):
    command = ["evaluate", "splitting", str(footage / "a.mp4"), str(footage / "page.mp4"), "--detectors", "content"]
    assert main([*command, "--embedders", "efficientnet-lite0"]) == 0
    told = capsys.readouterr().out
    lines = told.splitlines()
    assert lines[0].split() == ["method", "videos", "clips", "LPIPS", "mean", "s", "kept"]
    assert lines[1].split() == ["content", "alone", "1", "3", "-", "2.0", "100%"]
    assert "the paper's splitting                      1,000      -  0.256     7.9     -" in lines
    assert "LPIPS is not measured: give its weights with --lpips" in lines
    assert lines[-2] == "left out of all rows: 1 of 2 videos"
    assert lines[-1].startswith(f"left out: {footage / 'page.mp4'}: ")


def test_nothing_measured_is_status_1(footage, capsys):
    assert main(["evaluate", "splitting", str(footage / "page.mp4"), "--detectors", "content"]) == 1
    assert "left out: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--truth", "gone.json"], "cannot read the truth gone.json: No such file"),
        (["--truth", "OTHER"], "no video here is named as in the truth: z.mp4"),
        (["--truth", "ONE", "--truth", "TWO"], "2 truths name "),
        (["--detectors", "contnt"], "there is no detector 'contnt'; did you mean 'content'?"),
        (["--detectors", ","], "needs names, with commas between them"),
        (["--embedders", "clp"], "there is no embedder 'clp'"),
        (["--lpips", "gone.safetensors"], "gone.safetensors"),
        (["--profile", "light"], "did you mean 'lite'?"),
        (["--html", "FOLDER"], "it is a directory; --html is a file"),
        (["--output", "gs://bucket/x"], "--output is a local directory"),
        (["--truths", "x"], "did you mean '--truth'?"),
        (["gone.mp4"], "there is no file or directory 'gone.mp4'"),
    ],
)
def test_bad_usage_is_one_line_and_status_2_before_anything_is_decoded(flags, message, footage, tmp_path, capsys):
    truths = {"OTHER": '{"z.mp4": [5]}', "ONE": '{"a.mp4": [5]}', "TWO": '{"a.mp4": [6]}'}
    for name, text in truths.items():
        (tmp_path / f"{name}.json").write_text(text)
    places = {name: str(tmp_path / f"{name}.json") for name in truths} | {"FOLDER": str(tmp_path)}
    arguments = [places.get(word, word) for word in flags]
    assert main(["evaluate", "splitting", str(footage / "a.mp4"), *arguments]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert told.err.startswith("reelscribe: ")
    assert message in told.err


def test_remembered_lpips_is_that_of_the_frames_themselves(shared_dir, footage, tmp_path):
    from model_handlers.perceptual import Lpips, load_lpips, rows_at_1fps
    from transforms.reel import Reel
    from transforms.splitting import split_video

    class Counting(Lpips):
        compared = 0

        def running(self, frames):
            Counting.compared += len(frames) - 1
            return super().running(frames)

    loaded = load_lpips(str(shared_dir / "models" / "lpips_alex_v0.1.safetensors"), "cpu")
    split_video(str(footage / "a.mp4"), str(tmp_path / "a.arrow"), SplittingConfig(), etag="1-1")
    reel = Reel.open(str(tmp_path / "a.arrow"))
    running = RunningLpips(Counting(loaded.network, "cpu"), reel)
    spans = [Span(0.0, 6.0), Span(2.0, 4.0), Span(0.0, 2.0), Span(0.0, 0.4), Span(0.0, 6.0)]
    expected = [loaded.max_running(reel.frames(rows_at_1fps(reel, span))) for span in spans]
    assert [running(span) for span in spans] == [None if value is None else pytest.approx(value) for value in expected]
    assert expected[3] is None
    # The spans inside the first one share its grid of seconds.
    assert Counting.compared == 5


def test_a_drawing_shows_each_point_and_stands_alone_as_xml():
    points = [
        plots.Point("content alone", 4.0, 0.25, "detector"),
        plots.Point("<b>", 4.0, 0.25, "own"),
        plots.Point("far to the right", 9.0, 0.25, "own"),
    ]
    drawing = plots.scatter(points, title="a & b", x_name="x", y_name="y", path=[(1.0, 0.1), (2.0, 0.2)])
    root = xml.etree.ElementTree.fromstring(plots.standalone(drawing))
    svg = f"{{{SVG}}}"
    titles = [mark.findtext(f"{svg}title") for mark in root.iter(f"{svg}circle")]
    assert titles == ["content alone: 4, 0.25", "<b>: 4, 0.25", "far to the right: 9, 0.25"]
    assert root.get("aria-label") == "a & b"
    assert root.findtext(f"{svg}style") == plots.DRAWING_STYLE
    labels = {one.text: one for one in root.iter(f"{svg}text") if one.get("class") == "label"}
    # Of two at one point the first stands to the right of it, the other to the left.
    starts = {text: float(label.get("x")) for text, label in labels.items()}
    marks = [float(mark.get("cx")) for mark in root.iter(f"{svg}circle")]
    assert starts["content alone"] == marks[0] + 10
    assert starts["<b>"] < marks[1]
    # No room to the right of this one.
    assert starts["far to the right"] < marks[2]


def test_many_labels_in_one_place_cover_neither_each_other_nor_the_mark():
    points = [plots.Point(f"method {n}", 4.0, 0.25 + n / 1000, "own") for n in range(12)]
    drawing = plots.scatter(points, title="t", x_name="x", y_name="y")
    labels = re.findall(r'class="label" x="([\d.]+)" y="([\d.]+)"', drawing)
    assert len(labels) == 12
    for (x, y), (other_x, other_y) in itertools.combinations([(float(x), float(y)) for x, y in labels], 2):
        assert abs(x - other_x) > 9 * plots.LETTER_PX or abs(y - other_y) >= 14 - 0.11


def test_a_drawing_of_one_point_or_none_has_axes_all_the_same():
    for points in ([], [plots.Point("only", 0.0, 0.0, "own")]):
        drawing = plots.scatter(points, title="t", x_name="x", y_name="y")
        root = xml.etree.ElementTree.fromstring(plots.standalone(drawing))
        numbers = [value for one in root.iter() for name, value in one.items() if name in ("x1", "y1", "cx", "cy")]
        assert len(numbers) > 2
        assert [value for value in numbers if not math.isfinite(float(value))] == []


def test_a_page_allows_its_own_style_alone():
    page = plots.page("t", [plots.paragraph("<i>")])
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src &#39;none&#39;; style-src &#39;sha256-{digest}&#39;" in page
    assert "<p>&lt;i&gt;</p>" in page
    assert " style=" not in page


def test_columns_are_aligned():
    rows = [["method", "n"], ["a", "10"], ["b", "9"]]
    assert table(rows[0], rows[1:]) == [f"{name:40}  {n:>2}" for name, n in rows]


def test_without_lpips_there_is_no_drawing():
    row = Measured(1, (2.0,), 2.0, 2.0)
    assert Evaluation({"/a.mp4": {"content alone": row}}, {}, ()).drawing() is None
    drawn = Evaluation({"/a.mp4": {"content alone": dataclasses.replace(row, lpips=(0.3,))}}, {}, ()).drawing()
    assert drawn.count("<circle") == 4
    assert "content alone: 2, 0.3<" in drawn
