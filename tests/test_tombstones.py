"""Tombstones: which sources they keep out, which files are a video's, and what is struck out of the records of runs."""

import json
import os

import pytest

from beam_pipeline.takedown_records import STRUCK, Words
from transforms.reading import find_sources
from transforms.records import Span
from transforms.stitching import clip_id
from transforms.tombstones import (
    Tombstone,
    TombstoneError,
    files_of,
    read_tombstones,
    source_digest,
    taken_down,
    without_taken_down,
)


def make_uploads(folder):
    folder.mkdir()
    for name in ("good.mp4", "gone.mp4", "moved.mp4"):
        (folder / name).write_bytes(b"not looked at here")
    (folder / "notes.txt").write_text("no media")
    return {os.path.basename(source.uri): source for source in find_sources([str(folder)]).sources}


def write_tombstone(folder, name="takedown-1", **record):
    whole = {"run_id": name, "status": "done", "videos": [], "sources": [], **record}
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    (folder / "runs" / f"{name}.json").write_text(json.dumps(whole))


def test_sources_with_a_tombstone_are_skipped_by_id_and_by_uri_until_it_is_deleted(tmp_path):
    sources = make_uploads(tmp_path / "uploads")
    found = find_sources([str(tmp_path / "uploads")])
    assert without_taken_down(found, tmp_path / "set") == found
    # Of the one the id was derived from its URI; the other was in the dataset under a manifest's id.
    write_tombstone(tmp_path / "set", videos=[sources["gone.mp4"].video_id])
    moved = source_digest(sources["moved.mp4"].uri)
    write_tombstone(tmp_path / "set", "takedown-2", videos=["manifest-7"], sources=[moved], status="running")
    left = without_taken_down(found, tmp_path / "set")
    assert [os.path.basename(source.uri) for source in left.sources] == ["good.mp4"]
    assert (found.skipped, left.skipped) == (1, 3)
    assert taken_down(tmp_path / "set") == {sources["gone.mp4"].video_id, "manifest-7"}
    for path in (tmp_path / "set" / "runs").iterdir():
        path.unlink()
    assert without_taken_down(found, tmp_path / "set") == found


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"run_id": "t", "status": "done", "videos": "all"}'])
def test_a_tombstone_that_can_not_be_read_stops_whoever_would_ingest(tmp_path, text):
    write_tombstone(tmp_path)
    path = tmp_path / "runs" / "takedown-2.json"
    path.write_text(text)
    with pytest.raises(TombstoneError, match=f"^the takedown {path} can't be read .*; mend it, or delete it to let "):
        taken_down(tmp_path)


def test_tombstones_are_read_in_order(tmp_path):
    assert read_tombstones(tmp_path) == []
    write_tombstone(tmp_path, "takedown-2", videos=["b"], status="running")
    write_tombstone(tmp_path, "takedown-1", videos=["a"], sources=["0f"])
    (tmp_path / "runs" / "r1.json").write_text("of no takedown, and broken")
    assert read_tombstones(tmp_path) == [
        Tombstone("takedown-1", True, frozenset(["a"]), frozenset(["0f"])),
        Tombstone("takedown-2", False, frozenset(["b"])),
    ]


def test_files_belong_to_the_video_whose_name_they_have_and_to_no_other(tmp_path):
    long = "l" * 120
    names = {
        "reels": ["a.arrow", ".a.arrow.77.tmp", "a-1.arrow", "b.arrow"],
        "speech": ["a.json", ".a.json.77.tmp", "a-1.json"],
        "media": ["a-0-10.mp4", "deep/a-10-20.webm", "a-0-10-3-4.mp4", "a-b-0-10.mp4", "own.mp4", "a.mp4", "notes.txt"],
    }
    shortened = f"{clip_id(long, Span(1000.0, 2000.0))}.mp4"
    assert not shortened.startswith(long)
    names["media"].append(shortened)
    for folder, those in names.items():
        for name in those:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    found = files_of(tmp_path, ["a", long], {"own": "a"})
    relative = {
        folder: {os.path.relpath(path, tmp_path): video_id for path, video_id in owners.items()}
        for folder, owners in found.items()
    }
    assert relative == {
        "reels": {"reels/.a.arrow.77.tmp": "a", "reels/a.arrow": "a"},
        "speech": {"speech/.a.json.77.tmp": "a", "speech/a.json": "a"},
        "media": {
            "media/a-0-10.mp4": "a",
            "media/deep/a-10-20.webm": "a",
            f"media/{shortened}": long,
            "media/own.mp4": "a",
        },
    }


STRIKES = {
    "a URI and its file": ("""no /in/A "Dog's".mp4; A "Dog's".mp4 is gone""", f"no {STRUCK}; {STRUCK} is gone"),
    "as Python shows it": ("can't open " + repr("""/in/A "Dog's".mp4"""), f"can't open '{STRUCK}'"),
    "as a URL": ("GET file:///in/A%20%22Dog%27s%22.mp4", f"GET file://{STRUCK}"),
    "a title": ("the video Ann is Ann's, Annabel is not", f"the video {STRUCK} is {STRUCK}'s, Annabel is not"),
    "a title too short to name anybody": ("ab was read", "ab was read"),
    "nothing": ("out of memory", "out of memory"),
}


@pytest.mark.parametrize("case", STRIKES)
def test_what_names_a_video_is_struck_out_of_a_text(case):
    words = Words(frozenset(["v"]), frozenset(["""/in/A "Dog's".mp4"""]), frozenset(["Ann", "ab", ""]))
    text, expected = STRIKES[case]
    assert words.strike(text) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [("/in/a.mp4", True), ("./in/a.mp4", True), ("in//a.mp4", True), ("a.mp4", True), ("/in", False), (".", False),
     ("b.mp4", False), ("/in/*.mp4", False), ("aa.mp4", False)],
)  # fmt: skip
def test_an_input_is_struck_out_if_it_is_the_very_file(given, expected):
    assert Words(uris=frozenset(["/in/a.mp4"])).names_input(given) is expected
