"""The figures of Table 1: exact, without what was taken down or is not committed, in bounded memory."""

import html
import json
import pathlib
import re

import pyarrow as pa
import pytest
from dataset_rows import failed_rows, video_rows
from deltalake import write_deltalake
from report_dataset import candidate, clip, rejected, video, write_dataset

from beam_pipeline.caption_words import Repeats, Vocabulary
from beam_pipeline.cli import main
from beam_pipeline.report import write_report
from beam_pipeline.stats import Rejected, Stats, dataset_stats, describe
from transforms.committing import Committer
from transforms.lease import WriterLease
from transforms.schemas import CLIPS, rows_to_table
from transforms.tables import create_tables, table_uri


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(
        tmp_path / "set",
        videos=[video("a", 20.0), video("b", 10.0, "partial")],
        clips=[
            clip("a", 0.0, 4.0, [candidate("frame", "A dog's ball, a BALL.", 0.5)], category="pets"),
            clip(
                "a", 4.0, 14.0, [candidate("text", "The cat — naïve", 0.9)], width=1080, height=1920, category="sports"
            ),
            clip("b", 1.0, 2.0, [candidate("frame", "dog", 0.1)], category="pets"),
        ],
        rejected=[
            rejected("a", 14.0, 16.0, "stitch", "too short", 2.0, 2.5),
            rejected("b", 2.0, 2.5, "stitch", "too short", 2.0, 2.5),
            rejected("a", 17.0, 20.0, "trim", "trimmed", None, None),
        ],
    )


def test_the_figures_are_those_of_the_tables(dataset):
    found = dataset_stats(dataset)
    assert found == Stats(
        videos={"ok": 1, "partial": 1},
        clips=3,
        clip_h=15.0 / 3600,
        mean_clip_s=5.0,
        mean_words=10 / 3,
        resolutions={"720p": 2, "1080p": 1},
        teachers={"frame": 2, "text": 1},
        categories={"pets": 2, "sports": 1},
        words=9,
        vocabulary=7,
        vocabulary_is_capped=False,
        top_words={"ball": 2, "cat": 1, "dog": 1, "dog's": 1, "naïve": 1},
        repeated=0.0,
        repeated_is_estimated=False,
        rejected=(Rejected("stitch", "too short", 2, 2.5), Rejected("trim", "trimmed", 1, 3.0)),
        versions={"clips": 1, "failures": 0, "rejected": 1, "videos": 1},
    )
    assert found.type_token == found.as_json()["type_token"] == 7 / 9
    assert found.as_json()["table_1"] == {
        "videos": 2,
        "clips": 3,
        "mean_clip_s": 5.0,
        "clip_h": 15.0 / 3600,
        "mean_words": 10 / 3,
        "resolution": "720p",
        "resolution_share": 2 / 3,
    }


def test_the_command_prints_the_row_beside_panda_70ms_and_writes_the_figures(dataset, tmp_path, capsys):
    assert main(["stats", str(dataset), "--json", str(tmp_path / "new" / "stats.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:7] == [
        "                             here   Panda-70M",
        "source videos                   2   3,790,459",
        "clips                           3  70,817,169",
        "mean length of a clip      5.00 s      8.48 s",
        "hours of clips               0.00     166,800",
        "words a caption              3.33       13.20",
        "resolution             720p (67%)        720p",
    ]
    assert "frame                   2  66.7%" in lines
    assert "vocabulary: 7 words, of 9 in all (type-token ratio 0.778)" in lines
    assert "repeated: 0.0% of the clips have a caption that another clip has, too" in lines
    at = lines.index("category  clips  share")
    assert lines[at + 1 : at + 3] == ["pets          2  66.7%", "sports        1  33.3%"]
    assert "stitch: too short      2      2.5" in lines
    written = json.loads((tmp_path / "new" / "stats.json").read_text("utf-8"))
    assert (written["table_1"]["clips"], written["rejected"][0]["spans"]) == (3, 2)


def test_what_is_not_committed_or_was_taken_down_is_not_counted(tmp_path):
    with WriterLease(tmp_path, "r1"):
        Committer(tmp_path).commit([video_rows("a"), video_rows("b", caption="a walrus sings"), failed_rows("c")])
    leftover = rows_to_table(video_rows("d", "killed").clips, CLIPS)
    write_deltalake(table_uri(tmp_path, "clips"), leftover, mode="append")
    (tmp_path / "runs").mkdir()
    stone = {"run_id": "takedown-1", "status": "running", "videos": ["b"]}
    (tmp_path / "runs" / "takedown-1.json").write_text(json.dumps(stone))
    found = dataset_stats(tmp_path)
    assert (found.videos, found.clips, found.top_words) == ({"failed": 1, "ok": 1}, 2, {"dog": 2, "runs": 2})
    assert [(one.spans, one.seconds) for one in found.rejected] == [(4, 4.0)]


def test_an_empty_dataset_has_figures(tmp_path):
    create_tables(tmp_path)
    found = dataset_stats(tmp_path)
    assert (found.clips, found.mean_words, found.resolution, found.top_words) == (0, None, None, {})
    assert (found.categories, found.repeated, found.type_token) == ({}, None, None)
    assert "repeated" not in describe(found)
    assert "words a caption        none       13.20" in describe(found)


def test_a_dataset_in_a_bucket_has_the_same_figures(gcs, tmp_path):
    for place in (str(tmp_path / "set"), "gs://bucket/set"):
        with WriterLease(place, "r1"):
            Committer(place).commit([video_rows("a"), video_rows("b")])
    assert dataset_stats("gs://bucket/set") == dataset_stats(tmp_path / "set")


def test_words_of_any_number_are_counted_in_bounded_memory():
    words = Vocabulary(most=2)
    words.add(pa.array(["one two three", None, "two " + "x" * 1000]))
    assert (dict(words.counts), words.is_capped) == ({"one": 1, "two": 2}, True)


def test_a_caption_is_repeated_whatever_its_case_blanks_and_full_stop():
    repeats = Repeats()
    repeats.add(pa.array(["A dog runs.", "a dog  runs", "A cat.", None]))
    repeats.add(pa.array(["A CAT", "a cow", "A cow!"]))
    assert (repeats.share, repeats.is_estimated) == (4 / 6, False)
    assert Repeats().share is None


def test_repeats_of_any_number_of_captions_are_estimated_in_bounded_memory():
    # 20,000 captions, of which each fourth stands twice: of 25,000 clips 10,000 have one that another has.
    captions = [f"caption {number}" for number in range(20_000)]
    captions += captions[::4]
    exact, bounded = Repeats(), Repeats(most=2000)
    for at in range(0, len(captions), 1000):
        exact.add(pa.array(captions[at : at + 1000]))
        bounded.add(pa.array(captions[at : at + 1000]))
        assert len(bounded._counts) <= 2000
    assert (exact.share, exact.is_estimated, bounded.is_estimated) == (0.4, False, True)
    assert bounded.share == pytest.approx(0.4, abs=0.04)
    turned = Repeats(most=2000)
    turned.add(pa.array(captions[::-1]))
    assert turned.share == bounded.share, "whatever the order"


def test_a_long_word_counts_by_its_beginning():
    words = Vocabulary()
    words.add(pa.array(["x" * 1000]))
    assert dict(words.counts) == {"x" * 64: 1}


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["stats", "NOWHERE"], 1, "is no dataset: it has no table videos"),
        (["stats", "s3://bucket/x"], 2, "s3://bucket/x is neither a directory nor gs://BUCKET/FOLDER"),
        (["stats", "SET", "--jsn", "x"], 2, "unknown argument '--jsn'; did you mean '--json'?"),
        (["stats", "SET", "--json", "SET"], 1, "stats failed: IsADirectoryError"),
    ],
)
def test_bad_usage_and_failures_are_told_in_one_line(dataset, tmp_path, arguments, status, message, capsys):
    places = {"SET": str(dataset), "NOWHERE": str(tmp_path / "nowhere")}
    assert main([places.get(word, word) for word in arguments]) == status
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert message in told.err


def test_the_report_has_the_same_figures_and_draws_words_and_categories(dataset, tmp_path):
    page = html.unescape(pathlib.Path(write_report(str(dataset), str(tmp_path / "r.html"))).read_text("utf-8"))
    table = page.partition('<table id="table-1">')[2].partition("</table>")[0]
    assert re.findall(r"<td>(.*?)</td>", table) == [
        "2", "3", "5.00 s", "0.00", "3.33", "720p (67%)",
        "3,790,459", "70,817,169", "8.48 s", "166,800", "13.20", "720p",
    ]  # fmt: skip
    words = page.partition('<figure id="words">')[2].partition("</figure>")[0]
    drawn = re.findall(r'<td dir="auto">(.*?)</td>.*?class="fill" width="(.*?)".*?<td>(\d+)</td>', words)
    assert drawn == [
        ("ball", "100.0", "2"), ("cat", "50.0", "1"), ("dog", "50.0", "1"), ("dog's", "50.0", "1"),
        ("naïve", "50.0", "1"),
    ]  # fmt: skip
    assert re.findall(r"<dd>(.*?)</dd>", words) == ["7", "0.778", "0.0 %"]
    labels = page.partition("<code>category</code>")[2].partition("</figure>")[0]
    assert re.findall(r'<td dir="auto">(.*?)</td>.*?class="fill" width="(.*?)"', labels) == [
        ("pets", "100.0"), ("sports", "50.0"),
    ]  # fmt: skip
