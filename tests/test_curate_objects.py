"""The main job over a bucket: real little videos in Cloud Storage's emulator, through the real models to a dataset."""

import json
import os
import pathlib

import pyarrow as pa
import pytest
import yaml
from synthetic import make_video

from beam_pipeline.cli import main
from beam_pipeline.verify import audit
from transforms.reading import video_id_of
from transforms.tables import current_videos, read_table

CONFIG = {"extends": "lite", "stitching": {"still_distance": None, "redundant_distance": None, "min_event_s": 1.0}}
VTT = "WEBVTT\n\n00:00.500 --> 00:02.500\nThis is red.\n\n00:03.500 --> 00:05.500\nBlue.\n"


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> dict[str, bytes]:
    """Three different videos, by the colour that they show first."""
    folder = tmp_path_factory.mktemp("videos")
    shots = {"red": [(3.0, "red"), (3.0, "blue")], "green": [(3.0, "green")], "grey": [(4.0, "grey")]}
    return {name: make_video(folder / f"{name}.mp4", shots[name], drift_px=3).read_bytes() for name in shots}


def curate(folder: pathlib.Path, source: str) -> int:
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    return main(["curate", "--input", source, "--output", str(folder / "set"), "--config", str(config)])


def clips_of(folder: pathlib.Path) -> list[tuple]:
    columns = ["video_id", "start_s", "end_s", "title", "subtitles", "width"]
    order = [("video_id", "ascending"), ("start_s", "ascending")]
    table = pa.table(read_table(str(folder / "set"), "clips")).select(columns).sort_by(order)
    return [tuple(row.values()) for row in table.to_pylist()]


def failures_of(folder: pathlib.Path) -> dict[str, tuple[str, str, str]]:
    table = pa.table(read_table(str(folder / "set"), "failures"))
    return {
        row["video_id"]: (row["stage"], row["error_class"], row["message"])
        for row in table.select(["video_id", "stage", "error_class", "message"]).to_pylist()
    }


def test_a_bucket_becomes_a_dataset_and_what_changes_or_goes_meanwhile_is_never_mixed_in(
    gcs, videos, tmp_path, temporary
):
    ids = {name: video_id_of(f"gs://bucket/up/{name}.mp4") for name in ("good", "changes", "goes", "page")}
    for name, content in (
        ("good.mp4", videos["red"]),
        ("good.vtt", VTT),
        ("good.json", json.dumps({"title": "Colours"})),
        ("notes.txt", "not a video"),
        ("changes.mp4", videos["green"]),
        ("goes.mp4", videos["grey"]),
        ("page.mp4", "<html></html>"),
    ):
        gcs.put(f"up/{name}", content)

    def interfere(name):
        if name == "up/changes.mp4":
            gcs.put(name, videos["grey"])
        if name == "up/goes.mp4":
            gcs.remove(name)

    gcs.before_read = interfere
    assert curate(tmp_path, "gs://bucket/up/") == 1, "more than half of the videos failed"
    told = {
        "changes": ("SourceChanged", "changes.mp4 changed since it was listed; run the command again"),
        "goes": ("NotAFile", "goes.mp4 is not there any more (removed since it was listed)"),
        "page": ("NotAVideo", "page.mp4 is a text file (a web page?), not a video"),
    }
    assert failures_of(tmp_path) == {
        ids[name]: ("split", kind, f"gs://bucket/up/{message}") for name, (kind, message) in told.items()
    }
    assert clips_of(tmp_path) == [
        (ids["good"], 0.3, 2.7, "Colours", "This is red.", 320),
        (ids["good"], 3.3, 5.7, "Colours", "Blue.", 320),
    ]
    assert os.listdir(tmp_path / "set" / "reels") == [f"{ids['good']}.arrow"]
    assert audit(str(tmp_path / "set")).breaches == []

    gcs.before_read, before = (lambda name: None), len(gcs.asked)
    assert curate(tmp_path, "gs://bucket/up/") == 0
    assert failures_of(tmp_path).keys() == {ids["goes"], ids["page"]}
    etags = {video_id: video.etag for video_id, video in current_videos(str(tmp_path / "set")).items()}
    assert etags[ids["changes"]] == gcs.generation("up/changes.mp4")
    assert etags[ids["good"]] == gcs.generation("up/good.mp4")
    assert clips_of(tmp_path)[0][:3] == (ids["changes"], 0.4, 3.6)
    assert audit(str(tmp_path / "set")).breaches == []
    assert len(gcs.asked) - before == 3, "one listing, and the one video that is new: its content, and a look after it"
    assert list(temporary.glob("reelscribe*")) == []
