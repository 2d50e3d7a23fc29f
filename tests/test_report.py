"""The report as it is written: exact counts, an exact leaderboard, bounded size, hostile text escaped."""

from __future__ import annotations

import html.parser
import io
import math
import pathlib
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image
from report_dataset import HOSTILE, candidate, clip, failure, rejected, video, write_dataset, write_reel, write_run

from beam_pipeline.report import clock, gather, lasting, moment, size, write_report
from beam_pipeline.report_contents import legible, load, newest_run, sample_clips, sample_videos, spans_by_video
from beam_pipeline.report_drawings import Bins, bins, histogram, score_bar, ticks, timeline
from beam_pipeline.report_pictures import MAX_SHEET_BYTES, ContactSheets
from beam_pipeline.report_statistics import Rejects, Standing, Totals, failure_groups, leaderboard, rejects, totals
from transforms.reel import ReelFrame, ReelWriter
from transforms.tables import NoDataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Three videos, four clips, two teachers that caption and one that only fails."""
    directory = tmp_path_factory.mktemp("report") / "three-videos"
    write_dataset(
        directory,
        videos=[video("a", 20.0), video("b", 10.0, "partial", title="Harbour"), video("c", None, "failed")],
        clips=[
            clip("a", 0.0, 4.0, [candidate("frame", "a dog runs", 0.5), candidate("text", "two words", 0.25)]),
            clip("a", 4.0, 14.0, [candidate("text", "a cat", 0.875), candidate("frame", "one", 0.75)]),
            clip("b", 1.0, 3.0, [candidate("frame", "a boat on the sea", 0.125)], abstained=True),
            clip("b", 3.0, 9.0, [candidate("text", "a ship sails", 0.75), candidate("frame", "noise", 0.0)]),
        ],
        rejected=[
            rejected("a", 14.0, 16.0, "stitch", "too short", 2.0, 2.5),
            rejected("a", 16.0, 17.0, "stitch", "too short", 1.0, 2.5),
            rejected("a", 17.0, 20.0, "trim", "trimmed", None, None),
            rejected("b", 0.0, 1.0, "stitch", "too short", 1.5, 2.0),
        ],
        failures=[
            failure("split", "c", "UnreadableMedia", "it is truncated"),
            failure("split", "b", "PartlyDecoded", "the end is missing", start_s=9.0, end_s=10.0),
            failure(
                "caption", "a", "ValueError", "no answer", teacher="mute", clip_id="a-0-4000", start_s=0.0, end_s=4.0
            ),
            failure("caption", "b", "ValueError", "no answer", teacher="mute", clip_id="b-1000-3000"),
            failure("caption", "b", "ValueError", "another", teacher="text", clip_id="b-1000-3000"),
        ],
    )
    for video_id in ("a", "b"):
        write_reel(directory, video_id, 20.0, (160, 90))
    write_run(directory, "older", started_at="2026-01-01T10:00:00+00:00", finished_at="2026-01-01T10:00:50+00:00")
    write_run(
        directory,
        started_at="2026-01-02T10:00:00+00:00",
        finished_at="2026-01-02T10:00:10+00:00",
        status="done",
        counts={
            "clips": 4,
            "video_ms": 25_000,
            "caption captions": 7,
            "caption not_applicable": 1,
            "score": {"clips": 4},
        },
        seconds={"split": 3.5, "caption": 4.0},
        bytes={"split": 123_456},
        inputs=[{"uri": f"videos/{number}.mp4"} for number in range(1000)],
    )
    return directory


def visible_text(page: str) -> str:
    """What a reader sees: the text of a page outside script and style, white space folded."""

    class Reader(html.parser.HTMLParser):
        depth, parts = 0, None

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            self.depth += tag in ("script", "style")

        def handle_endtag(self, tag: str) -> None:
            self.depth -= tag in ("script", "style")

        def handle_data(self, data: str) -> None:
            if not self.depth:
                told.append(data)

    told: list[str] = []
    Reader().feed(page)
    return " ".join(" ".join(told).split())


def test_totals_count_every_table(dataset):
    tables = load(str(dataset))
    assert totals(tables.clips, tables.videos, tables.rejected, tables.failures) == Totals(
        videos=3,
        videos_by_status={"ok": 1, "partial": 1, "failed": 1},
        source_s=30.0,
        clips=4,
        clips_s=22.0,
        abstained=1,
        rejected=4,
        rejected_s=7.0,
        failures=5,
    )


def test_leaderboard_ranks_by_selective_rate_and_keeps_the_teacher_that_only_failed(dataset):
    tables = load(str(dataset))
    assert leaderboard(tables.clips, tables.failures) == [
        Standing("frame", "models/frame", 4, 2, 0.5, (0.5 + 0.75 + 0.125 + 0.0) / 4, 0.25, (3 + 1 + 5 + 1) / 4, 0),
        Standing("text", "models/text", 3, 2, 0.5, (0.25 + 0.875 + 0.75) / 3, (0.125 + 0.75) / 2, (2 + 2 + 3) / 3, 1),
        Standing("mute", "", 0, 0, 0.0, None, None, None, 2),
    ]


def test_leaderboard_leaves_scores_that_are_no_numbers_out_of_its_means(tmp_path):
    candidates = [candidate("frame", "a", math.nan), candidate("frame", "b", None), candidate("frame", "c", 0.5)]
    row = clip("a", 0.0, 1.0, candidates[2:], margin=math.nan) | {"captions": candidates}
    tables = load(str(write_dataset(tmp_path / "d", videos=[video("a", 1.0)], clips=[row])))
    assert leaderboard(tables.clips, tables.failures) == [
        Standing("frame", "models/frame", 3, 1, 1.0, 0.5, None, 1.0, 0)
    ]


def test_rejects_are_grouped_by_rule_with_quantiles_against_the_thresholds(dataset):
    stitch, trim = rejects(load(str(dataset)).rejected)
    assert (stitch.stage, stitch.reason, stitch.spans, stitch.seconds) == ("stitch", "too short", 3, 4.0)
    assert stitch.quantiles == pytest.approx((1.1, 1.5, 1.9))
    assert stitch.thresholds == (2.0, 2.5)
    assert trim == Rejects("trim", "trimmed", 1, 3.0, None, ())


def test_failures_are_grouped_with_examples_that_differ(dataset):
    groups = failure_groups(load(str(dataset)).failures)
    found = [
        (g.stage, g.error_class, g.letters, g.videos, g.teachers, [e["message"] for e in g.examples]) for g in groups
    ]
    assert found[0] == ("caption", "ValueError", 3, {"a", "b"}, {"mute", "text"}, ["no answer", "another"])
    assert sorted(found[1:]) == [
        ("split", "PartlyDecoded", 1, {"b"}, set(), ["the end is missing"]),
        ("split", "UnreadableMedia", 1, {"c"}, set(), ["it is truncated"]),
    ]


def test_failing_teacher_does_not_mark_the_span_as_failed(dataset):
    spans = spans_by_video(load(str(dataset)), ["a", "b"])
    assert [span for span in spans["a"] if span[0] == "failed"] == []
    assert spans["b"] == [("rejected", 0.0, 1.0), ("accepted", 1.0, 3.0), ("accepted", 3.0, 9.0), ("failed", 9.0, 10.0)]


def test_newest_run_is_the_one_that_began_last_and_broken_records_are_passed_over(dataset):
    for name, text in (("broken", "{"), ("list", "[]")):
        (dataset / "runs" / f"{name}.json").write_text(text)
    run = newest_run(str(dataset), load(str(dataset)).videos)
    assert (run.run_id, run.status, run.n_runs, run.wall_s, run.video_s, run.rate) == (
        "run-1",
        "done",
        2,
        10.0,
        25.0,
        2.5,
    )
    assert [(s.name, s.seconds, s.counted, s.size_bytes) for s in run.stages] == [
        ("split", 3.5, "", 123_456),
        ("caption", 4.0, "captions 7, not applicable 1", None),
        ("score", None, "clips 4", None),
    ]
    assert run.counts == (("clips", "4"), ("video seconds", "25.0"))
    assert "videos/39.mp4" in run.record and "videos/40.mp4" not in run.record and "… and 960 more" in run.record


def test_run_without_any_known_key_is_no_error(tmp_path):
    directory = write_dataset(tmp_path / "d")
    write_run(directory, "odd", counts=None, seconds=[1], bytes="many", started_at=5)
    run = newest_run(str(directory), load(str(directory)).videos)
    assert (run.run_id, run.wall_s, run.rate, run.stages, run.counts) == ("odd", None, None, (), ())
    assert "Run odd" in visible_text(pathlib.Path(write_report(str(directory))).read_text())


def test_report_says_what_the_tables_hold(dataset):
    path = write_report(str(dataset))
    assert path == str(dataset / "report.html")
    page = pathlib.Path(path).read_text()
    text = visible_text(page)
    assert "Videos 3 1 ok 1 partial 1 failed Clips 4 1 abstained Footage in clips 22.0 s of 30.0 s of video" in text
    assert "Rejected 7.0 s 4 spans Failures 5 dead letters Speed 2.5× times real time" in text
    assert "a dog runs frame score 0.500 margin 0.250 a.mp4 0:00.000 – 0:04.000 4.0 s" in text
    assert "frame 0.500 a dog runs text 0.250 two words" in text
    assert "frame models/frame 50.0 % 2 4 0.344 0.250 2.5 0" in text
    assert "stitch too short 3 4.0 s 57.1 % 1.1 1.5 1.9 2, 2.5" in text
    assert len(re.findall(r'<article class="clip"', page)) == 4
    assert len(re.findall(r'src="data:image/jpeg;base64,', page)) == 4


def test_report_goes_where_it_is_told_and_leaves_nothing_beside(dataset, tmp_path):
    target = tmp_path / "new" / "folder" / "page.html"
    assert write_report(str(dataset), html=str(target)) == str(target)
    assert [path.name for path in target.parent.iterdir()] == ["page.html"]


def test_two_reports_of_one_dataset_are_the_same_bytes(dataset, tmp_path):
    first, second = (write_report(str(dataset), html=str(tmp_path / name)) for name in ("1.html", "2.html"))
    assert pathlib.Path(first).read_bytes() == pathlib.Path(second).read_bytes()


def test_page_names_no_address_but_its_own_and_no_event_attributes(dataset):
    page = pathlib.Path(write_report(str(dataset))).read_text()
    assert re.findall(r"""(?:src|href|action)=["'](?!data:|#)[^"']*""", page) == []
    assert re.findall(r"<[^>]*\son[a-z]+=", page) == []
    assert re.findall(r"<[^>]*\sstyle=", page) == []
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page).group(1)
    assert policy.startswith("default-src &#39;none&#39;; img-src data:; style-src &#39;sha256-")


def test_hostile_text_never_becomes_markup(tmp_path):
    directory = write_dataset(
        tmp_path / "d",
        videos=[video("a", 9.0, title=HOSTILE, uri=HOSTILE), video("b", None, "failed", uri=HOSTILE)],
        clips=[clip("a", 0.0, 4.0, [candidate("t", HOSTILE, 0.5)], title=HOSTILE, uri=HOSTILE, subtitles=HOSTILE)],
        rejected=[rejected("a", 4.0, 9.0, HOSTILE, HOSTILE, 1.0, 2.0)],
        failures=[
            failure(HOSTILE, "b", HOSTILE, HOSTILE, uri=HOSTILE, teacher=HOSTILE, detail=HOSTILE, clip_id=HOSTILE)
        ],
    )
    write_run(directory, started_at=HOSTILE, counts={HOSTILE: HOSTILE}, seconds={HOSTILE: 1}, config={HOSTILE: HOSTILE})
    page = pathlib.Path(write_report(str(directory))).read_text()
    assert "<img src=x" not in page
    assert "<b>bold" not in page
    assert page.count("</script") == 1
    assert visible_text(page).count("</script><img src=x onerror=") >= 14


def test_sample_takes_in_turn_from_every_video_and_says_what_it_left_out(tmp_path):
    clips = [clip("a", float(n), n + 1.0, [candidate("t", "x", 0.5)]) for n in range(10)]
    clips += [clip("b", 0.0, 1.0, [candidate("t", "x", 0.5)])]
    clips += [clip("c", float(n), n + 1.0, [candidate("t", "x", 0.5)]) for n in range(4)]
    directory = write_dataset(tmp_path / "d", videos=[video(v, 10.0) for v in "abc"], clips=clips[::-1])
    table = load(str(directory)).clips
    assert sample_clips(table, 6)["clip_id"].to_pylist() == [
        *("a-1000-2000", "a-5000-6000", "a-8000-9000", "b-0-1000", "c-1000-2000", "c-3000-4000")
    ]
    assert sample_clips(table, 2)["video_id"].to_pylist() == ["a", "c"]
    assert sample_clips(table, 0).num_rows == 0
    assert sample_clips(table, 15)["video_id"].to_pylist() == ["a"] * 10 + ["b"] + ["c"] * 4
    text = visible_text(pathlib.Path(write_report(str(directory), max_clips=2)).read_text())
    assert "This page shows 2 of 15 clips: a sample taken in turn from the videos, 2 of which appear" in text
    assert "t models/t 100.0 % 15 15" in text


def test_videos_that_need_a_look_come_first(dataset):
    assert [row["video_id"] for row in sample_videos(load(str(dataset)).videos, 2)] == ["c", "b"]


def test_dataset_without_reels_has_a_report_without_pictures(dataset, tmp_path):
    directory = write_dataset(
        tmp_path / "d", videos=[video("a", 9.0)], clips=[clip("a", 0.0, 4.0, [candidate("t", "x", 0.5)])]
    )
    (directory / "reels").mkdir()
    (directory / "reels" / "a.arrow").write_bytes(b"no arrow file")
    page = pathlib.Path(write_report(str(directory))).read_text()
    assert "<img" not in page
    assert "No pictures: the reel of this video is not there." in page


def test_reel_is_never_looked_for_outside_the_dataset(dataset):
    assert ContactSheets(str(dataset)).sheet("a", 0.0, 4.0).frames == 5
    assert ContactSheets(str(dataset / "reels")).sheet("../reels/../a", 0.0, 4.0) is None


def test_sheet_shows_the_frames_of_its_span_in_order(dataset):
    sheet = ContactSheets(str(dataset)).sheet("a", 4.0, 14.0)
    picture = Image.open(io.BytesIO(sheet.jpeg))
    # Frames of 160 x 90 become 213 x 120; the frame at t seconds has number 2t, which gives its colour at the corner.
    assert (picture.size, sheet.frames) == ((5 * 213 + 4 * 4, 120), 5)
    corners = [picture.getpixel((217 * number + 3, 116)) for number in range(5)]
    expected = [((n * 37) % 256, (n * 71 + 90) % 256, (n * 13 + 160) % 256) for n in (10, 14, 18, 22, 26)]
    assert np.abs(np.subtract(corners, expected)).max() <= 12


def test_sheet_of_noise_stays_within_its_bytes(tmp_path):
    noise = np.random.default_rng(0)
    with ReelWriter(str(tmp_path / "reels" / "n.arrow"), etag="e", settings="s") as reel:
        for number in range(6):
            sink = io.BytesIO()
            Image.fromarray(noise.integers(0, 256, (448, 796, 3), dtype=np.uint8)).resize((213, 120)).save(sink, "PNG")
            reel.add(ReelFrame(float(number), number, 0, sink.getvalue()))
        reel.finish({})
    assert len(ContactSheets(str(tmp_path)).sheet("n", 0.0, 6.0).jpeg) <= MAX_SHEET_BYTES


def test_empty_dataset_has_a_report_that_says_so(tmp_path):
    directory = write_dataset(tmp_path / "empty")
    text = visible_text(pathlib.Path(write_report(str(directory))).read_text())
    assert "Videos 0 none yet Clips 0 none abstained Footage in clips 0.0 s of 0.0 s of video" in text
    for said in (
        "This dataset has no clips yet.",
        "No teacher has captioned a clip yet.",
        "Nothing was rejected.",
        "Nothing failed.",
    ):
        assert said in text


def test_directory_without_a_dataset_is_an_error_and_leaves_no_file(tmp_path):
    with pytest.raises(NoDataset, match="is no dataset"):
        write_report(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_negative_number_of_clips_is_refused(dataset):
    with pytest.raises(ValueError, match="max_clips is -1"):
        write_report(str(dataset), max_clips=-1)


def test_endless_text_is_cut(dataset):
    assert legible("x" * 1005) == "x" * 1000 + " … (5 more characters)"
    assert legible("a\x00b\x1b[31m\nc\td") == "a\ufffdb\ufffd[31m\nc\td"


def test_clips_are_rendered_one_by_one(dataset):
    cards = gather(str(dataset), 500)["clips"]
    assert next(cards)["clip_id"] == "a-0-4000"
    assert [card["clip_id"] for card in cards] == ["a-4000-14000", "b-1000-3000", "b-3000-9000"]


@pytest.mark.parametrize(
    ("values", "whole", "expected"),
    [
        ([3.0, 3.0, 3.0], False, Bins(3.0, 1.0, (3,), 0)),
        ([0.0, 0.1, 0.24, 0.25], False, Bins(0.0, 0.02, (1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2), 0)),
        ([1, 2, 2, 5], True, Bins(1.0, 1.0, (1, 2, 0, 0, 1), 0)),
        ([*range(1, 11)] * 100 + [1000], True, Bins(1.0, 1.0, (*[100] * 9, 101), 1)),
        ([-0.5, 0.5], False, Bins(-0.5, 0.05, (1, *[0] * 19, 1), 0)),
    ],
)
def test_bars_have_round_edges_and_hold_every_value(values, whole, expected):
    found = bins(np.asarray(values, dtype=float), whole=whole)
    assert (found.start, found.step) == pytest.approx((expected.start, expected.step))
    assert (found.counts, found.beyond) == (expected.counts, expected.beyond)
    assert sum(found.counts) == len(values)


def test_histogram_escapes_its_words_and_draws_a_bar_for_each_bin():
    drawn = histogram(np.array([1.0, 2.0, 2.0]), title="<words>", whole=True)
    assert "<words>" not in drawn
    assert drawn.count('class="bar"') == 2
    assert re.findall(r"<title>(.*?)</title>", drawn) == ["1: 1", "2: 2"]


def test_ticks_are_round_numbers_within_the_range():
    assert ticks(0, 13, 5) == pytest.approx([0, 5, 10])
    assert ticks(-0.1, 0.32, 5) == pytest.approx([-0.1, 0.0, 0.1, 0.2, 0.3])


def test_timeline_paints_touching_spans_without_gap_and_keeps_the_smallest_failure_visible():
    spans = [("rejected", 0.0, 5.0), ("accepted", 5.0, 10.0), ("failed", 7.0, 7.0001)]
    assert re.findall(r'class="(\w+)" d="([^"]*)"', timeline(10.0, spans, "x")) == [
        ("rejected", "M0 0h240v12h-240z"),
        ("accepted", "M240 0h96v12h-96zM337 0h143v12h-143z"),
        ("failed", "M336 0h1v12h-1z"),
    ]


def test_score_bar_lies_on_the_scale_and_never_leaves_it():
    assert [re.findall(r'fill" width="([\d.]+)"', score_bar(v, 0.0, 0.8))[0] for v in (None, -1.0, 0.2, 0.8, 2.0)] == [
        *("0.0", "0.0", "25.0", "100.0", "100.0")
    ]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.0, "0:00.000"), (59.9996, "1:00.000"), (95.982, "1:35.982"), (3723.5, "1:02:03.500"), (-0.5, "-0:00.500")],
)
def test_clock_reads_as_in_a_player(seconds, expected):
    assert clock(seconds) == expected


def test_amounts_are_told_in_the_unit_that_suits_them():
    assert [lasting(s) for s in (None, 8.47, 600.0, 9000.0, 600_480_000.0)] == [
        "–",
        "8.5 s",
        "10.0 min",
        "2.5 h",
        "166,800 h",
    ]
    assert [size(b) for b in (None, 999, 1500, 123_456_789, 2e15)] == ["–", "999 B", "1.5 kB", "123 MB", "2000 TB"]
    assert moment("2026-01-02T10:30:00+02:00") == "2026-01-02 08:30 UTC"
    assert moment("<soon>") == "<soon>"
