import threading

import pyarrow as pa
import pyarrow.dataset as pa_dataset
import pyarrow.parquet as pq
import pytest
from dataset_rows import FAILED_AT, clip_row, failed_rows, failure_row, rejected_row, video_rows
from deltalake import DeltaTable

from beam_pipeline.verify import audit
from transforms.committing import Committer, finalise
from transforms.lease import WriterLease
from transforms.parquet_files import scan_files
from transforms.schemas import ADDED, STATISTICS, VideoRows, earlier_schemas
from transforms.tables import (
    CLIPS,
    FAILURES,
    REJECTED,
    TABLES,
    VIDEOS,
    CurrentVideo,
    NoDataset,
    RowError,
    Snapshot,
    create_tables,
    current_videos,
    read_table,
    rows_to_table,
    table_uri,
)

# The contract, spelt out a second time: name, Arrow type, nullable.
STRUCT = pa.struct(
    [(name, pa.string()) for name in ("teacher", "model", "revision", "prompt_id", "caption")]
    + [("matching_score", pa.float32()), ("fingerprint", pa.string())]
)
MEASURED = (
    "motion camera_motion subject_motion brightness contrast underexposed overexposed blur border_share crop "
    "text_share subtitle_share watermark screen_in_screen screen_recording category category_score aesthetic "
    "technical_quality nsfw desirable_filtering"
)
CONTRACT = {
    "clips": "clip_id video_id uri title start_s end_s duration_s timestamp width height fps caption teacher "
    "matching_score margin abstained captions subtitles embedding shots run_id fingerprint schema_version "
    f"max_running_lpips clip_file made_with {MEASURED} caption_language harmful_text duplicate_of "
    "duplicate_distance",
    "videos": "video_id uri title description size_bytes etag duration_s width height fps codec n_shots n_clips "
    "n_rejected n_failures status fingerprints run_id content_hash duplicate_of",
    "rejected": "video_id start_s end_s stage reason value threshold run_id "
    f"clip_id shots embedding captions made_with max_running_lpips {MEASURED}",
    "failures": "stage video_id clip_id teacher uri start_s end_s error_class message detail attempt failed_at run_id "
    "fingerprint shots embedding captions",
}


@pytest.mark.parametrize("name", CONTRACT)
def test_columns_stand_in_the_order_of_the_contract(name):
    assert TABLES[name].names == CONTRACT[name].split()


def test_types_are_those_of_the_contract():
    types = {field.name: field.type for field in CLIPS}
    assert [types[name] for name in ("timestamp", "embedding")] == [pa.list_(pa.string()), pa.list_(pa.float32())]
    assert types["captions"] == pa.list_(STRUCT)
    assert types["shots"] == pa.list_(pa.struct([("start_s", pa.float64()), ("end_s", pa.float64())]))
    assert (types["start_s"], types["width"], types["margin"]) == (pa.float64(), pa.int32(), pa.float32())
    assert FAILURES.field("failed_at").type == pa.timestamp("us", "UTC")
    assert VIDEOS.field("size_bytes").type == pa.int64()
    added = ["made_with", *MEASURED.split(), "caption_language", "harmful_text"]
    added += ["duplicate_of", "duplicate_distance"]
    nullable = ["title", "matching_score", "margin", "subtitles", "max_running_lpips", "clip_file", *added]
    assert [field.name for field in CLIPS if field.nullable] == nullable
    of_a_clip = ["clip_id", "shots", "embedding", "captions", "made_with", "max_running_lpips", *MEASURED.split()]
    assert [field.name for field in REJECTED if field.nullable] == ["value", "threshold", *of_a_clip]
    nullable = "clip_id teacher start_s end_s fingerprint shots embedding captions"
    assert [field.name for field in FAILURES if field.nullable] == nullable.split()


def test_statistics_in_the_log_are_of_ids_and_times_only():
    assert {column for columns in STATISTICS.values() for column in columns} == {
        "clip_id", "video_id", "run_id", "start_s", "end_s", "failed_at",
    }  # fmt: skip


def test_rows_become_a_table_of_exactly_the_schema():
    table = rows_to_table([rejected_row("a", "r1", 0.0, 1)], REJECTED)
    assert table.schema.equals(REJECTED)
    assert table.to_pylist() == [rejected_row("a", "r1", 0.0, 1.0)]
    assert rows_to_table([], CLIPS).schema.equals(CLIPS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"colour": "red"}, r"row 0: unknown columns \['colour'\], missing columns \[\]"),
        ({"caption": None}, "column caption may not be null"),
        ({"start_s": "soon"}, "rows do not fit"),
        ({"width": 2**31}, "rows do not fit"),
        ({"shots": [{"start_s": 0.0, "end": 1.0}]}, r"row 0.shots: unknown columns \['end'\], missing .*'end_s'"),
    ],
)
def test_rows_that_do_not_fit_are_refused(change, said):
    with pytest.raises(RowError, match=said):
        rows_to_table([{**clip_row("a", "r1", 0.0, 1.0, "x"), **change}], CLIPS)


def test_a_missing_column_is_refused_even_a_nullable_one():
    row = clip_row("a", "r1", 0.0, 1.0, "x")
    del row["title"]
    with pytest.raises(RowError, match=r"missing columns \['title'\]"):
        rows_to_table([row], CLIPS)


def test_racing_creators_make_one_set_of_tables(tmp_path):
    errors = []

    def create():
        try:
            create_tables(tmp_path / "d")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=create) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    create_tables(tmp_path / "d")
    assert {name: read_table(tmp_path / "d", name).num_rows for name in TABLES} == dict.fromkeys(TABLES, 0)


def without_added_columns(rows: VideoRows) -> VideoRows:
    """The same rows as the first release made them."""
    added = ADDED["clips"]
    clips = tuple({key: value for key, value in clip.items() if key not in added} for clip in rows.clips)
    added = ADDED["rejected"]
    rejected = tuple({key: value for key, value in row.items() if key not in added} for row in rows.rejected)
    return VideoRows(rows.video_id, rows.video, clips, rejected, rows.failures)


def measured(rows: VideoRows) -> VideoRows:
    clips = tuple({**clip, "max_running_lpips": 0.25} for clip in rows.clips)
    return VideoRows(rows.video_id, rows.video, clips, rows.rejected, rows.failures)


@pytest.fixture
def released(tmp_path):
    """A dataset of the first release: written by this code, with the schema that `clips` had then."""
    with pytest.MonkeyPatch.context() as patched:
        for name in ("clips", "rejected"):
            patched.setitem(TABLES, name, earlier_schemas(name)[-1])
        committer = Committer(tmp_path / "set")
        committer.commit([without_added_columns(video_rows("a")), without_added_columns(video_rows("b"))])
        committer.commit([without_added_columns(video_rows("c", n_clips=1))])
        with WriterLease(tmp_path / "set", "r1"):
            finalise(tmp_path / "set", target_bytes=1)
    files = list((tmp_path / "set" / "clips").glob("*.parquet"))
    assert [pq.read_schema(path).names[-1] for path in files] == ["schema_version"] * 2
    return tmp_path / "set"


def test_a_dataset_from_before_a_column_was_added_reads_with_nulls_and_verifies(released):
    version = DeltaTable(table_uri(released, "clips")).version()
    assert earlier_schemas("clips") == [
        pa.schema(list(CLIPS)[:-left_out]) for left_out in range(1, len(ADDED["clips"]) + 1)
    ]
    clips = read_table(released, "clips")
    assert clips.schema.equals(CLIPS)
    assert clips["max_running_lpips"].to_pylist() == [None] * 5
    assert audit(released).breaches == []
    assert DeltaTable(table_uri(released, "clips")).version() == version, "reading changes nothing"


def test_a_dataset_from_before_a_column_was_added_is_continued(released):
    old = sorted(pa_dataset.dataset(released / "clips").to_table().to_pylist(), key=lambda row: row["clip_id"])
    settings = DeltaTable(table_uri(released, "clips")).metadata().configuration
    with WriterLease(released, "r2"):
        Committer(released).commit([measured(video_rows("d", "r2")), measured(video_rows("a", "r2", n_clips=1))])
        finalise(released, target_bytes=1)
    assert audit(released).breaches == []
    # Every file by itself: whoever reads the folder may take the columns of any one of them for all.
    for path in (released / "clips").glob("*.parquet"):
        assert pq.read_schema(path).equals(CLIPS)
    plain = pa_dataset.dataset(released / "clips").to_table().to_pylist()
    assert {row["clip_id"]: row["max_running_lpips"] for row in plain} == {
        "a_1000_9000": 0.25, "b_1000_9000": None, "b_11000_19000": None, "c_1000_9000": None,
        "d_1000_9000": 0.25, "d_11000_19000": 0.25,
    }  # fmt: skip
    kept = sorted((row for row in plain if row["run_id"] == "r1"), key=lambda row: row["clip_id"])
    assert kept == [{**row, **dict.fromkeys(ADDED["clips"])} for row in old if row["video_id"] != "a"]
    assert DeltaTable(table_uri(released, "clips")).metadata().configuration == settings


def test_racing_writers_add_a_column_once(released):
    started, errors = threading.Barrier(4), []

    def create():
        started.wait()
        try:
            create_tables(released)
        except Exception as error:
            errors.append(error)

    version = DeltaTable(table_uri(released, "clips")).version()
    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert DeltaTable(table_uri(released, "clips")).version() == version + 1
    assert read_table(released, "clips").num_rows == 5


def test_a_table_with_other_columns_is_refused(tmp_path):
    DeltaTable.create(str(tmp_path / "clips"), pa.schema([("clip_id", pa.string())]))
    with pytest.raises(RowError, match="has other columns than this version writes"):
        create_tables(tmp_path)


@pytest.mark.parametrize("name", ["a%20b", "a[1]", "a|b", "a\\b", "a\nb", "a^b"])
def test_directories_whose_names_break_delta_tables_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="in its path breaks Delta tables"):
        create_tables(tmp_path / name)


@pytest.mark.parametrize("name", ["two words", "Ärger 日本", "q'uote", "a#b?c"])
def test_other_directory_names_are_all_right(tmp_path, name):
    Committer(tmp_path / name).commit([video_rows("a")])
    Committer(tmp_path / name).commit([video_rows("a", "r2", n_clips=3), video_rows("b", "r2")])
    with WriterLease(tmp_path / name, "r2"):
        finalise(tmp_path / name)
    assert read_table(tmp_path / name, "clips").num_rows == 5
    assert pa_dataset.dataset(tmp_path / name / "clips").count_rows() == 5


def test_there_is_no_dataset_in_an_empty_directory(tmp_path):
    assert current_videos(tmp_path) == {}
    with pytest.raises(NoDataset, match="is no dataset: it has no table videos"):
        read_table(tmp_path, "clips")


def test_current_videos_say_what_stands(tmp_path):
    Committer(tmp_path).commit([video_rows("a", etag="7"), failed_rows("-b")])
    fingerprints = {"split": "s", "embed": "e", "captions": "c", "select": "l"}
    assert current_videos(tmp_path) == {
        "a": CurrentVideo("a", "/videos/a.mp4", "7", fingerprints, "ok", "r1", 2, 2, 4, 1),
        "-b": CurrentVideo("-b", "/videos/-b.mp4", "1", fingerprints, "failed", "r1", 0, 0, 0, 1),
    }


def test_what_is_read_is_what_was_written_with_the_contracts_types(tmp_path):
    rows = video_rows("a")
    Committer(tmp_path).commit([rows])
    for name, schema in TABLES.items():
        table = read_table(tmp_path, name)
        assert table.schema.equals(schema)
        assert table.to_pylist() == list(rows.of(name))
    assert read_table(tmp_path, "failures")["failed_at"].to_pylist() == [FAILED_AT]
    assert read_table(tmp_path, "clips", ["end_s", "teacher"]).to_pylist() == [
        {"end_s": 9.0, "teacher": "lite-frame"},
        {"end_s": 19.0, "teacher": "lite-frame"},
    ]


def test_rows_of_a_video_that_was_never_committed_stay_unseen(tmp_path):
    committer = Committer(tmp_path)
    committer._append("clips", [video_rows("a")])
    assert read_table(tmp_path, "clips").num_rows == 0
    assert DeltaTable(table_uri(tmp_path, "clips")).count() == 2


def test_a_snapshot_stays_as_it_was_while_a_video_is_replaced(tmp_path):
    Committer(tmp_path).commit([video_rows("a", caption="old")])
    snapshot = Snapshot.open(tmp_path)
    Committer(tmp_path).commit([video_rows("a", "r2", n_clips=3, caption="new")])
    assert snapshot.read("clips", ["caption"])["caption"].to_pylist() == ["old", "old"]
    assert snapshot.is_outdated()
    assert Snapshot.open(tmp_path).read("clips", ["caption"])["caption"].to_pylist() == ["new"] * 3


def test_statistics_of_titles_and_captions_are_not_in_the_log(tmp_path):
    Committer(tmp_path).commit([video_rows("a", caption="a secret")])
    logs = "".join(path.read_text() for path in tmp_path.glob("*/_delta_log/*.json"))
    assert "a secret" not in logs
    assert "a title" not in logs
    assert "a_1000_9000" in logs


def test_ids_that_could_be_predicates_are_refused():
    with pytest.raises(RowError, match="may hold only letters"):
        video_rows("x' OR '1'='1").check()
    with pytest.raises(RowError, match="may hold only letters"):
        video_rows("a" * 129).check()
    with pytest.raises(RowError, match="may hold only letters"):
        video_rows("a\n").check()
    video_rows("-" + "a" * 100).check()


def test_rows_that_do_not_add_up_are_refused():
    rows = video_rows("a")
    with pytest.raises(RowError, match="a: n_clips is 3, rows 2"):
        type(rows)("a", {**rows.video, "n_clips": 3}, rows.clips, rows.rejected, rows.failures).check()
    with pytest.raises(RowError, match="a row of failures says 'b', 'r1', not a"):
        type(rows)("a", rows.video, rows.clips, rows.rejected, (failure_row("b", "r1", "split"),)).check()
    with pytest.raises(RowError, match="a failed video has no clips, this has 2"):
        type(rows)("a", {**rows.video, "status": "failed"}, rows.clips, rows.rejected, rows.failures).check()


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (["video_id", "title"], [{"video_id": "a", "title": None}, {"video_id": "b", "title": None}]),
        (["title"], [{"title": None}, {"title": None}]),
        (None, [{"video_id": one, "title": None, "n_clips": count} for one, count in (("a", 1), ("b", 2))]),
    ],
)
def test_a_file_of_an_older_version_has_nulls_in_columns_that_came_later(tmp_path, columns, found):
    schema = pa.schema([("video_id", pa.string()), ("title", pa.string()), ("n_clips", pa.int64())])
    pq.write_table(
        pa.table({"n_clips": pa.array([1, 2], pa.int32()), "video_id": ["a", "b"]}), tmp_path / "old.parquet"
    )
    batches = list(scan_files([str(tmp_path / "old.parquet")], schema, columns))
    assert [row for batch in batches for row in batch.to_pylist()] == found
    assert batches[0].schema == pa.schema([schema.field(name) for name in columns or schema.names])
