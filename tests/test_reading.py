"""What counts as an input, under which id and version, and what is read beside it."""

import json
import os

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to

from transforms.reading import (
    InputError,
    ReadVideos,
    Source,
    find_sources,
    local_source,
    read_video,
    video_id_of,
)
from transforms.records import Cue


@pytest.fixture
def folder(tmp_path):
    """A folder as users have them: media at two depths, side-cars, notes, a hidden file."""
    for name in ("a.mp4", "b.MKV", "sub/a.mp4", "notes.txt", ".hidden.mp4", "a.json", "a.vtt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    (tmp_path / "a.json").write_text(json.dumps({"title": " A title ", "description": "About.", "views": 3}))
    (tmp_path / "a.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nHello.\n")
    return tmp_path


def test_a_directory_gives_its_media_recursively_and_counts_the_rest(folder):
    found = find_sources([str(folder)])
    assert [os.path.relpath(source.uri, folder) for source in found.sources] == ["a.mp4", "b.MKV", "sub/a.mp4"]
    assert found.skipped == 4


def test_equal_base_names_get_ids_of_their_own_and_the_same_ones_every_time(folder):
    ids = [source.video_id for source in find_sources([str(folder)]).sources]
    assert len(set(ids)) == 3
    assert ids == [source.video_id for source in find_sources([str(folder)]).sources]
    assert ids[0] == video_id_of(str(folder / "a.mp4"))
    assert ids[0].startswith("a-")


@pytest.mark.parametrize("name", ["Ünï cödé 视频.mp4", "a'; DROP TABLE--.mp4", "x" * 200 + ".mp4", "....mp4"])
def test_ids_are_safe_whatever_the_name(name):
    assert 1 <= len(video_id_of(f"/videos/{name}")) <= 53
    assert set(video_id_of(f"/videos/{name}")) <= set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
    )


def test_a_named_file_is_an_input_whatever_its_name_and_once_only(folder):
    found = find_sources(
        [str(folder / "notes.txt"), str(folder / "notes.txt"), str(folder / "sub" / ".." / "notes.txt")]
    )
    assert [os.path.basename(source.uri) for source in found.sources] == ["notes.txt"]


def test_a_pattern_takes_what_it_matches_without_side_cars(folder):
    found = find_sources([str(folder / "**" / "a.*")])
    assert [os.path.relpath(source.uri, folder) for source in found.sources] == ["a.mp4", "sub/a.mp4"]
    assert found.skipped == 2


def test_limit_takes_the_first(folder):
    assert len(find_sources([str(folder)], limit=2).sources) == 2


def test_an_input_that_names_nothing_is_the_users_to_mend(folder):
    with pytest.raises(InputError, match="there is no file or directory"):
        find_sources([str(folder / "nope.mp4")])
    with pytest.raises(InputError, match="no file matches"):
        find_sources([str(folder / "*.webm")])


def test_the_version_changes_when_the_file_or_its_text_does(folder):
    before = local_source(str(folder / "a.mp4"))
    (folder / "a.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nHello again.\n")
    os.truncate(folder / "b.MKV", 1)
    after = local_source(str(folder / "a.mp4"))
    assert (before.etag, before.video_id) == (after.etag, after.video_id)
    assert before.text_version != after.text_version
    (folder / "a.mp4").write_bytes(b"other bytes")
    assert local_source(str(folder / "a.mp4")).etag != before.etag


MANIFEST = [
    {"uri": "a.mp4", "video_id": "mine", "title": "From the manifest"},
    {"uri": "sub/a.mp4", "subtitles": "a.vtt", "language": "en"},
    {"uri": "gone.mp4"},
    {"uri": "../outside.mp4"},
    {"uri": "b.MKV", "video_id": "../../etc/x"},
]


def write_manifest(folder, kind):
    path = folder / f"list.{kind}"
    columns = ["uri", "video_id", "title", "subtitles", "language"]
    if kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in MANIFEST) + "\n\n")
    elif kind == "csv":
        lines = [",".join(columns), *(",".join(row.get(name, "") for name in columns) for row in MANIFEST)]
        path.write_text("\n".join(lines))
    else:
        pq.write_table(pa.Table.from_pylist([{name: row.get(name) for name in columns} for row in MANIFEST]), path)
    return str(path)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_manifest_of_any_kind_lists_the_same_sources(folder, kind):
    mine, sub, gone, outside, unsafe = find_sources([write_manifest(folder, kind)]).sources
    assert (mine.video_id, mine.title, mine.problem) == ("mine", "From the manifest", None)
    assert (sub.subtitles, sub.language) == (str(folder / "a.vtt"), "en")
    assert (gone.problem, gone.size_bytes) == (None, 0)
    assert outside.problem == "uri '../outside.mp4' leaves the manifest's folder; give an absolute path instead"
    assert unsafe.problem.startswith("the video_id '../../etc/x' is not usable")
    assert unsafe.video_id == video_id_of(str(folder / "b.MKV"))


def test_two_videos_of_one_id_do_not_overwrite_each_other(folder):
    rows = [{"uri": "a.mp4", "video_id": "x"}, {"uri": "b.MKV", "video_id": "x"}]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    first, second = find_sources([str(folder / "list.jsonl")]).sources
    assert (first.video_id, first.problem) == ("x", None)
    assert second.video_id == video_id_of(second.uri)
    assert second.problem == f"the video_id 'x' is already taken by {first.uri}; give each video its own"


def test_an_id_that_is_derived_of_another_input_is_that_inputs_whatever_came_first(folder):
    mine, other, third = (str(folder / name) for name in ("a.mp4", "b.MKV", "c.mp4"))
    rows = [
        {"uri": other, "video_id": video_id_of(mine)},
        {"uri": other, "video_id": "not an id"},
        {"uri": third, "video_id": video_id_of(other)},
    ]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = {one.uri: one for one in find_sources([str(folder / "list.jsonl"), mine]).sources}
    assert {uri: one.video_id for uri, one in found.items()} == {one: video_id_of(one) for one in (mine, other, third)}
    assert found[mine].problem is None
    assert (
        found[third].problem
        == f"the video_id {video_id_of(other)!r} is already taken by {other}; give each video its own"
    )


def test_of_two_names_of_one_digest_the_first_stands(folder, monkeypatch):
    monkeypatch.setattr("transforms.reading.video_id_of", lambda uri: "same")
    monkeypatch.setattr("transforms.sources.video_id_of", lambda uri: "same")
    found = find_sources([str(folder / "a.mp4"), str(folder / "b.MKV")]).sources
    assert [(one.uri, one.video_id) for one in found] == [(str(folder / "a.mp4"), "same")]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("bad.jsonl", "{not json", "cannot read the manifest"),
        ("bad.jsonl", "[1]", "line 1: not an object"),
        ("bad.jsonl", '{"title": "x"}', "row 1: no uri"),
        ("bad.csv", "path,title\na,b\n", "has no column 'uri'"),
        ("bad.parquet", "PAR1", "cannot read the manifest"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_the_users_to_mend(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        find_sources([str(tmp_path / name)])


def test_side_cars_are_read_and_the_manifest_goes_before_them(folder):
    video = read_video(local_source(str(folder / "a.mp4")))
    assert (video.title, video.description) == ("A title", "About.")
    assert video.cues == (Cue(1.0, 2.0, "Hello."),)
    assert read_video(local_source(str(folder / "a.mp4"), {"title": "Mine"})).title == "Mine"


@pytest.mark.parametrize("text", ["{not json", "[1, 2]", '{"title": 5}', '{"title": ""}', '{"shots": []}'])
def test_other_json_beside_a_video_is_ignored(folder, text, caplog):
    (folder / "a.json").write_text(text)
    video = read_video(local_source(str(folder / "a.mp4")))
    assert (video.title, video.description) == (None, None)
    assert "not a JSON object with a title or a description" in caplog.text


def test_subtitles_that_cannot_be_read_cost_themselves_not_the_video(folder):
    (folder / "a.vtt").write_bytes(bytes(range(256)) * 20)
    video = read_video(local_source(str(folder / "a.mp4")))
    assert video.cues == ()
    assert [(letter.stage, letter.teacher, letter.span) for letter in video.text_failures] == [("read", None, None)]


def test_what_cannot_be_read_is_a_dead_letter_and_the_rest_goes_on(folder):
    os.symlink(folder / "gone.mp4", folder / "link.mp4")
    sources = [
        local_source(str(folder / "a.mp4")),
        local_source(str(folder / "link.mp4")),
        Source("odd", "/x.mp4", problem="odd thing"),
    ]
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
        read = pipeline | beam.Create(sources) | ReadVideos()
        assert_that(read.videos | "ids" >> beam.Map(lambda video: video.title), equal_to(["A title"]), "videos")
        told = read.failed | "told" >> beam.Map(
            lambda failed: (failed.video.video_id, failed.dead_letter.stage, failed.dead_letter.message)
        )
        gone = f"{folder / 'gone.mp4'} is not there (a broken link, or removed since it was listed)"
        assert_that(told, equal_to([(sources[1].video_id, "read", gone), ("odd", "read", "odd thing")]), "failed")


@pytest.mark.parametrize(
    ("text", "title"),
    [('{"title": "half \\ud83d a pair"}', "half ? a pair"), ("[" * 200_000, None), ('{"title": "ok"' + " " * 50, None)],
)
def test_a_hostile_side_car_costs_its_text_at_most(folder, text, title):
    (folder / "a.json").write_text(text)
    assert read_video(local_source(str(folder / "a.mp4"))).title == title


def test_subtitles_that_are_no_file_are_not_waited_for(folder):
    (folder / "a.vtt").unlink()
    os.mkfifo(folder / "pipe.vtt")
    video = read_video(local_source(str(folder / "a.mp4"), {"subtitles": str(folder / "pipe.vtt")}))
    assert [letter.message for letter in video.text_failures] == [f"{folder / 'pipe.vtt'} is not a regular file"]


def test_an_odd_manifest_row_costs_that_row(folder):
    rows = [
        {"uri": "a\0b.mp4"},
        {"uri": "a.mp4", "title": "half \ud83d"},
        {"uri": "b.MKV", "subtitles": "\0.vtt"},
        {"uri": "s3://bucket/x.mp4"},
        {"uri": f"file://{folder}/sub/a.mp4"},
    ]
    (folder / "LIST.JSONL").write_text("\n".join(map(json.dumps, rows)))
    nul, half, words, bucket, plain = find_sources([str(folder / "LIST.JSONL")]).sources
    assert (half.title, half.problem) == ("half ?", None)
    assert "NUL character" in nul.problem and "NUL character" in words.problem
    assert bucket.problem == "cannot read s3://bucket/x.mp4: inputs are local files and objects in gs://"
    assert (plain.uri, plain.problem) == (str(folder / "sub" / "a.mp4"), None)


def test_names_that_are_no_utf8_stay_apart(tmp_path):
    for name in (b"caf\xe9.mp4", b"caf\xe8.mp4"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"x")
    found = find_sources([str(tmp_path)]).sources
    assert sorted(os.path.basename(source.uri) for source in found) == ["caf%E8.mp4", "caf%E9.mp4"]
    assert {source.problem for source in found} == {"the file's name is not valid UTF-8; rename it"}


def test_a_pattern_searches_folders_and_reads_manifests_as_if_they_were_named(folder):
    (folder / "su.jsonl").write_text(json.dumps({"uri": "a.mp4"}))
    found = find_sources([str(folder / "su*")])
    assert sorted(os.path.relpath(source.uri, folder) for source in found.sources) == ["a.mp4", "sub/a.mp4"]
