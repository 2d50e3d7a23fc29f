"""What counts as an input in a bucket, under which id and version, and what is read beside it."""

import dataclasses
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from transforms.reading import InputError, find_sources, read_video, video_id_of
from transforms.records import Cue
from transforms.sources import NothingFound

VTT = "WEBVTT\n\n00:01.000 --> 00:02.000\nHello.\n"
NAMES = ("up/a.mp4", "up/b.MKV", "up/sub/a.mp4", "up/notes.txt", "up/.hidden.mp4", "up/sub/", "upper.mp4")


@pytest.fixture
def folder(gcs):
    """A bucket as users have them: media at two depths, side-cars, notes, a hidden file, a placeholder."""
    for name in NAMES:
        gcs.put(name, name)
    gcs.put("up/a.json", json.dumps({"title": " A title ", "description": "About."}))
    gcs.put("up/a.vtt", VTT)
    return gcs


def names(found):
    return [source.uri.removeprefix("gs://bucket/") for source in found.sources]


@pytest.mark.parametrize("uri", ["gs://bucket/up/", "gs://bucket/up"])
def test_a_folder_gives_its_media_recursively_and_counts_the_rest(folder, uri):
    found = find_sources([uri])
    assert names(found) == ["up/a.mp4", "up/b.MKV", "up/sub/a.mp4"]
    assert found.skipped == 4


def test_a_whole_bucket_is_a_folder(folder):
    assert names(find_sources(["gs://bucket"])) == ["up/a.mp4", "up/b.MKV", "up/sub/a.mp4", "upper.mp4"]


def test_versions_and_side_cars_come_out_of_the_listing(folder):
    first, second, _ = find_sources(["gs://bucket/up/"]).sources
    assert [path for _, path in folder.asked] == ["/storage/v1/b/bucket/o"]
    assert (first.video_id, first.etag, first.size_bytes) == (
        video_id_of("gs://bucket/up/a.mp4"),
        folder.generation("up/a.mp4"),
        8,
    )
    assert (first.subtitles, first.subtitles_version) == ("gs://bucket/up/a.vtt", folder.generation("up/a.vtt"))
    assert (first.metadata, first.metadata_version) == ("gs://bucket/up/a.json", folder.generation("up/a.json"))
    assert (second.subtitles, second.metadata, second.text_version) == (None, None, "")


def test_the_version_changes_when_the_object_or_its_text_does(folder):
    before = find_sources(["gs://bucket/up/a.mp4"]).sources[0]
    folder.put("up/a.vtt", VTT)
    worded = find_sources(["gs://bucket/up/a.mp4"]).sources[0]
    folder.put("up/a.mp4", b"other")
    overwritten = find_sources(["gs://bucket/up/a.mp4"]).sources[0]
    assert before.etag == worded.etag != overwritten.etag
    assert before.text_version != worded.text_version == overwritten.text_version
    assert before.video_id == overwritten.video_id


def test_a_named_object_is_an_input_whatever_its_name_and_once_only(folder):
    folder.put("up/odd[1]?.bin", b"x")
    folder.put("up/plain", b"x")
    folder.put("up/plain.vtt", VTT)
    inputs = ["gs://bucket/up/notes.txt", "gs://bucket/up/odd[1]?.bin", "gs://bucket/up/plain"]
    found = find_sources([*inputs, "gs://bucket/up/notes.txt"])
    assert names(found) == ["up/notes.txt", "up/odd[1]?.bin", "up/plain"]
    assert found.sources[2].subtitles == "gs://bucket/up/plain.vtt"
    assert [source.etag for source in found.sources] == [folder.generation(name) for name in names(found)]


@pytest.mark.parametrize(
    ("pattern", "matches", "skipped"),
    [
        ("up/*", ["up/sub/a.mp4", "up/a.mp4", "up/b.MKV", "up/notes.txt"], 2),
        ("up/a.*", ["up/a.mp4"], 2),
        ("up/a.m*", ["up/a.mp4"], 0),
        ("**/a.*", ["up/a.mp4", "up/sub/a.mp4"], 2),
        ("up*", ["up/a.mp4", "up/b.MKV", "up/sub/a.mp4", "upper.mp4"], 4),
        ("u?/", ["up/a.mp4", "up/b.MKV", "up/sub/a.mp4"], 4),
        ("up/.h*", ["up/.hidden.mp4"], 0),
        ("up/[a-b].[mM]*", ["up/a.mp4", "up/b.MKV"], 0),
    ],
)
def test_a_pattern_takes_what_it_matches_and_searches_folders(folder, pattern, matches, skipped):
    found = find_sources([f"gs://bucket/{pattern}"])
    assert (names(found), found.skipped) == (matches, skipped)


def test_a_match_keeps_its_side_cars_though_the_pattern_does_not_match_them(folder):
    (found,) = find_sources(["gs://bucket/up/a.m*"]).sources
    assert found.subtitles == "gs://bucket/up/a.vtt"


@pytest.mark.parametrize(
    ("uri", "error", "message"),
    [
        (
            "gs://bucket/nope.mp4",
            NothingFound,
            r"^there is no object gs://bucket/nope.mp4, and none below .*/$",
        ),
        ("gs://bucket/nope/", NothingFound, r"^there is no object gs://bucket/nope/$"),
        ("gs://bucket/*.webm", NothingFound, r"^no object matches gs://bucket/\*.webm$"),
        ("gs://no-such-bucket/up/", InputError, r"^there is no bucket gs://no-such-bucket$"),
        ("gs://", InputError, "names no bucket; write gs://BUCKET/NAME"),
        ("gs://bucket*/up/", InputError, "names no bucket"),
        ("s3://bucket/a.mp4", InputError, "cannot read s3://bucket/a.mp4: inputs are files, .* here or in gs://"),
    ],
)
def test_an_input_that_names_nothing_is_the_users_to_mend(folder, uri, error, message):
    with pytest.raises(error, match=message):
        find_sources([uri])


def test_missing_rights_are_the_users_to_mend(folder):
    folder.refuse = 403
    with pytest.raises(InputError, match=r"gs://bucket/up/ may not be read .*roles/storage.objectViewer"):
        find_sources(["gs://bucket/up/"])


def test_missing_credentials_are_the_users_to_mend(monkeypatch):
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    with pytest.raises(InputError, match="run: gcloud auth application-default login"):
        find_sources(["gs://bucket/up/"])


ROWS = [
    {"uri": "a.mp4", "video_id": "mine", "title": "From the manifest"},
    {"uri": "gs://bucket/up/sub/a.mp4", "subtitles": "a.vtt", "language": "en"},
    {"uri": "gone.mp4"},
    {"uri": "../upper.mp4"},
    {"uri": "/etc/passwd"},
    {"uri": "b.MKV", "subtitles": "file:///etc/passwd"},
    {"uri": "gs://no-such-bucket/x.mp4"},
    {"uri": "gs://bucket"},
    {"uri": "sub/../a.mp4", "video_id": "again"},
]


def put_manifest(gcs, tmp_path, kind, rows=ROWS):
    columns = ["uri", "video_id", "title", "subtitles", "language"]
    path = tmp_path / f"list.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif kind == "csv":
        path.write_text("\n".join([",".join(columns), *(",".join(row.get(c, "") for c in columns) for row in rows)]))
    else:
        pq.write_table(pa.Table.from_pylist([{name: row.get(name) for name in columns} for row in rows]), path)
    gcs.put(f"up/list.{kind}", path.read_bytes())
    return f"gs://bucket/up/list.{kind}"


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_manifest_in_a_bucket_lists_objects_of_its_folder(folder, tmp_path, kind):
    manifest = put_manifest(folder, tmp_path, kind)
    found = find_sources([manifest], allowed=["no-such-bucket"])
    mine, sub, gone, outside, local, words, absent, bucket = found.sources
    assert (mine.video_id, mine.uri, mine.title) == ("mine", "gs://bucket/up/a.mp4", "From the manifest")
    assert (mine.etag, mine.metadata, mine.problem) == (folder.generation("up/a.mp4"), "gs://bucket/up/a.json", None)
    assert (sub.subtitles, sub.language) == ("gs://bucket/up/a.vtt", "en")
    assert sub.subtitles_version == folder.generation("up/a.vtt")
    assert (gone.uri, gone.etag, gone.problem) == ("gs://bucket/up/gone.mp4", "", None)
    assert outside.problem == "uri '../upper.mp4' leaves the manifest's folder; give its gs:// URI instead"
    assert outside.etag == ""
    told = "is a file of one machine; a manifest in a bucket names objects: gs://..., or relative to itself"
    assert (local.problem, local.etag) == (f"/etc/passwd {told}", "")
    assert (words.problem, words.subtitles) == (f"file:///etc/passwd {told}", None)
    assert (absent.etag, absent.problem) == ("", None)
    assert bucket.problem == "gs://bucket names no object; write gs://BUCKET/NAME"


def test_a_manifest_on_this_machine_may_name_objects_and_an_object_as_subtitles(folder, tmp_path):
    (tmp_path / "here.mp4").write_bytes(b"here")
    rows = [{"uri": "gs://bucket/up/b.MKV", "title": "There"}, {"uri": "here.mp4", "subtitles": "gs://bucket/up/a.vtt"}]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    there, here = find_sources([str(tmp_path / "list.jsonl")], allowed=["bucket"]).sources
    assert (there.uri, there.etag, there.title) == ("gs://bucket/up/b.MKV", folder.generation("up/b.MKV"), "There")
    assert read_video(here).cues == (Cue(1.0, 2.0, "Hello."),)


def test_many_rows_of_one_folder_are_listed_not_asked_for_one_by_one(gcs, tmp_path):
    rows = [{"uri": f"{number}.mp4"} for number in range(200)]
    for row in rows:
        gcs.put(f"up/{row['uri']}", b"x")
    gcs.put("up/150.vtt", VTT)
    found = find_sources([put_manifest(gcs, tmp_path, "jsonl", rows)]).sources
    assert [source.etag for source in found] == [gcs.generation(f"up/{row['uri']}") for row in rows]
    assert found[150].subtitles == "gs://bucket/up/150.vtt"
    assert len(gcs.asked) < 25


def test_a_manifest_that_cannot_be_read_is_the_users_to_mend(gcs):
    gcs.put("bad.jsonl", "{not json")
    with pytest.raises(InputError, match=r"^cannot read the manifest gs://bucket/bad.jsonl: "):
        find_sources(["gs://bucket/bad.jsonl"])


def test_side_cars_are_read_as_they_were_listed(folder):
    source = find_sources(["gs://bucket/up/a.mp4"]).sources[0]
    video = read_video(source)
    assert (video.title, video.description, video.cues) == ("A title", "About.", (Cue(1.0, 2.0, "Hello."),))
    assert (video.etag, video.size_bytes, video.text_failures) == (source.etag, source.size_bytes, ())


def test_a_side_car_that_changed_or_went_since_costs_itself_and_says_so(folder):
    source = find_sources(["gs://bucket/up/a.mp4"]).sources[0]
    folder.put("up/a.vtt", VTT.replace("Hello", "Later"))
    folder.remove("up/a.json")
    video = read_video(source)
    assert (video.title, video.cues) == (None, ())
    (letter,) = video.text_failures
    assert (letter.stage, letter.message) == (
        "read",
        "there is no gs://bucket/up/a.json; gs://bucket/up/a.vtt changed since it was listed",
    )


def test_subtitles_that_a_manifest_names_and_that_are_not_there_cost_themselves(folder, tmp_path):
    rows = [{"uri": "a.mp4", "subtitles": "gone.vtt"}]
    video = read_video(find_sources([put_manifest(folder, tmp_path, "jsonl", rows)]).sources[0])
    assert (video.title, video.cues) == ("A title", ())
    assert [letter.message for letter in video.text_failures] == ["there is no gs://bucket/up/gone.vtt"]


@pytest.mark.parametrize("text", ["{not json", "[1, 2]", '{"title": 5}', "\xff", ""])
def test_other_json_beside_an_object_is_ignored(folder, text, caplog):
    folder.put("up/a.json", text.encode("latin-1"))
    video = read_video(find_sources(["gs://bucket/up/a.mp4"]).sources[0])
    assert (video.title, video.text_failures) == (None, ())
    assert "ignored gs://bucket/up/a.json: not a JSON object with a title or a description" in caplog.text


def test_an_object_that_is_not_there_when_it_is_listed_ends_as_a_dead_letter(folder):
    source = dataclasses.replace(find_sources(["gs://bucket/up/a.mp4"]).sources[0], etag="")
    with pytest.raises(FileNotFoundError, match=r"^gs://bucket/up/a.mp4 is not there \(never uploaded, or removed"):
        read_video(source)


@pytest.mark.parametrize(
    "name", [".", "..", "x" * 70_000, "\N{SNOWMAN}" * 342, "a\nb.mp4"], ids=["dot", "dots", "long", "bytes", "line"]
)
def test_a_name_that_no_object_can_have_costs_its_row_and_nobody_is_asked(gcs, tmp_path, name):
    """Asked for it, Cloud Storage would tell of the bucket, or refuse the request: the end of the job."""
    (tmp_path / "list.jsonl").write_text(json.dumps({"uri": f"gs://bucket/{name}"}))
    (found,) = find_sources([str(tmp_path / "list.jsonl")], allowed=["bucket"]).sources
    assert found.problem == f"gs://bucket/{name}"[:200] + " is the name of no object; write gs://BUCKET/NAME"
    assert gcs.asked == []


def test_a_relative_name_that_no_object_can_have_costs_its_row_too(gcs):
    gcs.put("list.jsonl", "\n".join(json.dumps({"uri": one}) for one in ("x" * 70_000, "a.mp4")))
    gcs.put("a.mp4", "a")
    first, second = find_sources(["gs://bucket/list.jsonl"]).sources
    assert (first.problem or "").endswith("xxx is the name of no object; write gs://BUCKET/NAME")
    assert (second.uri, second.problem) == ("gs://bucket/a.mp4", None)


def test_an_address_of_a_file_that_cannot_be_parted_costs_its_row(tmp_path):
    (tmp_path / "list.jsonl").write_text(json.dumps({"uri": "file://[a/b.mp4"}))
    (found,) = find_sources([str(tmp_path / "list.jsonl")]).sources
    assert found.problem == "cannot read file://[a/b.mp4: Invalid IPv6 URL"
