"""Panda-70M's CSV: its columns and literals, read back as its users do; cells that no spreadsheet runs."""

import ast
import csv
import json

import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from exported_dataset import DASHED, HOSTILE, LONG, entomb, write_clips

from beam_pipeline.cli import main
from beam_pipeline.export import ExportOptions, export
from beam_pipeline.export_panda70m import COLUMNS, LISTS, as_was, neutral, read_csv
from transforms.by_source import place_of

ORDER = sorted([DASHED, LONG, "plain"], key=lambda name: place_of("export", name))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return str(write_clips(tmp_path_factory.mktemp("export") / "set"))


def written(dataset, output, **options):
    export(dataset, str(output), ExportOptions("panda70m-csv", **options))
    return output / "clips.csv"


def test_a_source_is_a_row_of_the_originals_columns(dataset, tmp_path):
    frame = pandas.read_csv(written(dataset, tmp_path / "out"), keep_default_na=False)
    assert list(frame.columns) == [
        "videoID", "url", "timestamp", "caption", "matching_score", "desirable_filtering", "shot_boundary_detection",
    ]  # fmt: skip
    rows = {row["videoID"]: row for row in frame.to_dict("records")}
    assert list(rows) == [neutral(name) for name in ORDER]
    dashed = rows["'" + DASHED]
    assert dashed["url"] == "'+videos/dash.mp4"
    assert {name: ast.literal_eval(dashed[name]) for name in LISTS} == {
        "timestamp": [["0:00:00.000", "0:00:01.000"]] * 3,
        "caption": [HOSTILE, "@home", "a cat"],
        "matching_score": [0.43, 0.5, 0.75],
        "desirable_filtering": [None, None, "desirable"],
        "shot_boundary_detection": [
            [["0:00:00.000", "0:00:04.000"], ["0:00:04.000", "0:00:08.000"]],
            [["0:00:00.000", "0:00:02.500"]],
            [["0:00:00.000", "0:00:02.000"]],
        ],
    }
    assert dashed["matching_score"] == "[0.43, 0.5, 0.75]"
    assert ast.literal_eval(rows[LONG]["matching_score"]) == [None]


def test_our_reader_gives_ids_and_addresses_as_they_were(dataset, tmp_path):
    rows = {row["videoID"]: row for row in read_csv(str(written(dataset, tmp_path / "out")))}
    assert set(rows) == set(ORDER)
    assert (rows[DASHED]["url"], rows["plain"]["url"]) == ("+videos/dash.mp4", "videos/plain.mp4")
    assert rows[DASHED]["caption"][0] == HOSTILE


def test_no_cell_begins_a_formula_and_every_row_is_one_line(dataset, tmp_path):
    file = written(dataset, tmp_path / "out")
    with open(file, newline="", encoding="utf-8") as text:
        cells = [cell for row in csv.reader(text) for cell in row]
    assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))] == []
    assert len(file.read_bytes().split(b"\n")) == 5


@pytest.mark.parametrize("text", ["", "plain", "=1", "+1", "-1", "@x", "\tx", "\rx", "'x", "''=x", "a=1", "'"])
def test_what_is_made_harmless_can_be_undone(text):
    assert as_was(neutral(text)) == text
    assert not neutral(text).startswith(("=", "+", "-", "@", "\t", "\r"))


def test_a_file_of_panda_70ms_own_form_is_read(tmp_path):
    file = tmp_path / "panda.csv"
    lists = [[["0:00:15.982", "0:00:36.503"]], ["it's"], [0.5], ["desirable"], [[["0:00:00.000", "0:00:20.521"]]]]
    pandas.DataFrame([["-4Vrb2DnM6g", "https://x/?v=1", *lists]], columns=list(COLUMNS)).to_csv(file, index=False)
    assert list(read_csv(str(file))) == [dict(zip(COLUMNS, ["-4Vrb2DnM6g", "https://x/?v=1", *lists], strict=True))]


def test_a_list_longer_than_the_csv_module_allows_is_read(tmp_path):
    file = tmp_path / "long.csv"
    file.write_text(f'videoID,caption\nx,"{["y" * 200_000]!r}"\n')
    assert [len(row["caption"][0]) for row in read_csv(str(file))] == [200_000]


def test_the_record_counts_and_two_exports_are_the_same_to_the_byte(dataset, tmp_path):
    for name in ("a", "b"):
        written(dataset, tmp_path / name)
        assert sorted(one.name for one in (tmp_path / name).iterdir()) == ["clips.csv", "shards.json"]
    told = json.loads((tmp_path / "a" / "shards.json").read_text())
    assert told["counts"] == {"sources": 3, "clips": 6, "absent": 0}
    assert (told["format"], told["files"][0]["clips"]) == ("panda70m-csv", 6)
    for name in ("clips.csv", "shards.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_what_was_taken_down_never_appears_though_a_subset_names_it(tmp_path, capsys):
    folder = write_clips(tmp_path / "set")
    entomb(folder, DASHED)
    file = tmp_path / "mine.parquet"
    ids = {"clip_id": [f"{DASHED}-1000-9000", "plain-0-4000"], "video_id": [DASHED, "plain"]}
    pq.write_table(pa.table(ids), file)
    arguments = [
        "export",
        str(folder),
        "--to",
        "panda70m-csv",
        "--output",
        str(tmp_path / "out"),
        "--subset",
        str(file),
    ]
    assert main(arguments) == 0
    assert [(row["videoID"], row["caption"]) for row in read_csv(str(tmp_path / "out" / "mine.csv"))] == [
        ("plain", ["a dog runs"])
    ]
    assert capsys.readouterr().out.splitlines() == [
        "1 clips of 1 sources",
        "1 clips of the subset are not in the dataset any more",
        str(tmp_path / "out"),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "panda"], "there is no format 'panda'; did you mean 'panda70m-csv'?"),
        (["--to", "panda70m-csv", "--frames", "4"], "--frames is not for panda70m-csv"),
        (["--to", "panda70m-csv", "--subset", "NOWHERE"], "is no Parquet file that can be read"),
        (["--to", "panda70m-csv", "--overwrit"], "did you mean '--overwrite'?"),
        (["--to", "panda70m-csv", "--output", "SET/reels/x"], "is the dataset's own"),
        (["--to", "panda70m-csv", "--output", "SET/.."], "would be replaced"),
        ([], "--to"),
    ],
)
def test_bad_usage_is_told_in_one_line(dataset, tmp_path, arguments, message, capsys):
    words = [word.replace("SET", dataset).replace("NOWHERE", str(tmp_path / "nowhere")) for word in arguments]
    assert main(["export", dataset, "--output", str(tmp_path / "out"), *words]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert message in told.err
    assert not (tmp_path / "out").exists()
