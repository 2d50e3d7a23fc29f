"""A run with --write-clips: files beside the rows, made once, told when they fail, and gone when their clips are."""

import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from dataset_rows import failure_row, video_rows
from synthetic import make_video
from test_redriving import failing

from beam_pipeline.cli import main
from beam_pipeline.config import ConfigError, load_config
from beam_pipeline.verify import audit
from transforms import clip_writing
from transforms.child import DecoderCrashed, Limits
from transforms.clip_places import sweep_media
from transforms.clip_settings import ClipFileSettings
from transforms.clip_writing import with_files, write_files
from transforms.files import read
from transforms.records import Failure
from transforms.schemas import RowError
from transforms.tables import read_table

STITCHING = {"still_distance": None, "redundant_distance": None, "min_event_s": 1.0}
#: A key frame a second, so that some clips could be copied from where they begin.
OPTIONS = {"preset": "ultrafast", "g": "25", "x264-params": "scenecut=0"}
CONFIG = {"extends": "lite", "teachers": ["lite-motion"], "stitching": STITCHING}


def prepare(folder: pathlib.Path, **changes: object) -> pathlib.Path:
    """Two little videos in `in`, and a configuration of one teacher."""
    (folder / "in").mkdir()
    make_video(folder / "in" / "a.mp4", [(3.0, "red"), (3.0, "blue")], drift_px=3, options=OPTIONS)
    make_video(folder / "in" / "b.mkv", [(3.0, "green")], drift_px=3, audio_s=3.0)
    (folder / "config.yaml").write_text(yaml.safe_dump({**CONFIG, **changes}))
    return folder


def curate(folder: pathlib.Path, *flags: str) -> None:
    places = ["--input", str(folder / "in"), "--output", str(folder / "out")]
    assert main(["curate", *places, "--config", str(folder / "config.yaml"), *flags]) == 0


def files(folder: pathlib.Path) -> dict[str, int]:
    """The clip files, with the times at which they were written."""
    media = folder / "out" / "media"
    return {path.name: path.stat().st_mtime_ns for path in media.iterdir()} if media.is_dir() else {}


def told(folder: pathlib.Path) -> dict[str, str | None]:
    """What the rows say of their files, by the clip's beginning."""
    rows = read_table(str(folder / "out"), "clips").to_pylist()
    return {f"{os.path.basename(row['uri'])} {row['start_s']:.1f}": row["clip_file"] for row in rows}


def failures(folder: pathlib.Path) -> list[tuple[Any, ...]]:
    rows = read_table(str(folder / "out"), "failures").to_pylist()
    return sorted((row["stage"], row["error_class"], row["attempt"], row["start_s"]) for row in rows)


def statuses(folder: pathlib.Path) -> dict[str, str]:
    rows = read_table(str(folder / "out"), "videos").to_pylist()
    return {os.path.basename(row["uri"]): row["status"] for row in rows}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> pathlib.Path:
    folder = prepare(tmp_path_factory.mktemp("written"))
    curate(folder, "--write-clips", "encode")
    return folder


@pytest.fixture
def again(written, tmp_path) -> pathlib.Path:
    """The same, to be changed; its videos are where they were."""
    shutil.copytree(written / "out", tmp_path / "out")
    os.symlink(written / "in", tmp_path / "in")
    shutil.copy(written / "config.yaml", tmp_path)
    return tmp_path


def test_every_clip_gets_a_file_and_its_row_names_it(written):
    rows = read_table(str(written / "out"), "clips").to_pylist()
    assert {row["clip_id"]: row["clip_file"] for row in rows} == {
        row["clip_id"]: f"media/{row['clip_id']}.mp4" for row in rows
    }
    assert sorted(files(written)) == sorted(f"{row['clip_id']}.mp4" for row in rows)
    assert len(rows) == 3
    found = audit(written / "out")
    assert (found.breaches, found.counts["clip_files"], found.counts["stray_files"]) == ([], 3, 0)


def test_the_run_tells_of_its_files(written):
    (record,) = [json.loads(path.read_text()) for path in (written / "out" / "runs").glob("*.json")]
    media = record["stages"]["media"]
    assert (media["in"], media["out"], media["failed"], media["reused"]) == (3, 3, 0, 0)
    assert record["config"]["write_clips"]["mode"] == "encode"
    assert record["bytes"]["media"] == sum(path.stat().st_size for path in (written / "out" / "media").iterdir())


def test_the_same_command_again_writes_nothing(written):
    before = files(written)
    curate(written, "--write-clips", "encode")
    assert files(written) == before
    assert audit(written / "out").breaches == []


@pytest.mark.slow
def test_a_file_that_stands_is_used_again_when_something_else_changes(again):
    before = {path.name: path.read_bytes() for path in (again / "out" / "media").iterdir()}
    times = files(again)
    config = {**CONFIG, "teachers": ["lite-motion", "lite-frame"]}
    (again / "config.yaml").write_text(yaml.safe_dump(config))
    curate(again, "--write-clips", "encode")
    assert files(again) == times
    assert {path.name: path.read_bytes() for path in (again / "out" / "media").iterdir()} == before
    assert audit(again / "out").breaches == []


@pytest.mark.slow
def test_other_settings_write_other_files_and_none_at_all_removes_them(again):
    before = files(again)
    (again / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "write_clips": {"mode": "encode", "short_side": 90}}))
    curate(again)
    assert files(again).keys() == before.keys() and not set(files(again).values()) & set(before.values())
    (again / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    curate(again)
    assert (files(again), set(told(again).values())) == ({}, {None})
    assert audit(again / "out").breaches == []


@pytest.mark.slow
def test_files_of_clips_that_are_no_more_go_when_the_run_ends(again):
    stitching = {**STITCHING, "trim_fraction": 0.2}
    (again / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "stitching": stitching}))
    before = files(again)
    curate(again, "--write-clips", "encode")
    assert len(files(again)) == 3 and not files(again).keys() & before.keys()
    assert audit(again / "out").breaches == []


def test_a_takedown_removes_the_files_too(again):
    (video,) = [row for row in read_table(str(again / "out"), "videos").to_pylist() if row["uri"].endswith("a.mp4")]
    assert main(["takedown", str(again / "out"), f"--video={video['video_id']}"]) == 0
    assert [name for name in files(again) if name.startswith(video["video_id"])] == []
    assert len(files(again)) == 1
    assert audit(again / "out").breaches == []


def test_verify_tells_missing_broken_misnamed_and_stray_files(again):
    media = again / "out" / "media"
    first, second, third = sorted(media.iterdir())
    whole = third.read_bytes()
    first.unlink()
    second.write_bytes(second.read_bytes()[:-10])
    shutil.copy(third, media / "other.mp4")
    assert sorted(audit(again / "out").breaches) == sorted(
        [
            f"{first.stem}: its file media/{first.name} is missing",
            f"{second.stem}: its file media/{second.name} can't be read: it is cut off, or no video",
            "media: other.mp4 is no clip's file",
        ]
    )
    assert third.read_bytes() == whole
    curate(again, "--write-clips", "encode")
    assert "other.mp4" not in files(again)


def test_a_file_that_cannot_be_written_costs_the_clip_its_file_and_is_redriven(tmp_path, monkeypatch):
    folder = prepare(tmp_path)
    ask = clip_writing.decode

    def crash(task: str, request: Mapping[str, Any], limits: Any) -> Any:
        if request["path"].endswith("a.mp4"):
            ask(task, {**request, "clips": request["clips"][:1]}, limits)
            raise DecoderCrashed("the decoder was ended by SIGSEGV while it read this video")
        return ask(task, request, limits)

    monkeypatch.setattr(clip_writing, "decode", crash)
    curate(folder, "--write-clips", "encode")
    # What was whole when the process died stays.
    assert failures(folder) == [("media", "DecoderCrashed", 1, pytest.approx(3.3))]
    assert [name for name, file in told(folder).items() if file is None] == ["a.mp4 3.3"]
    assert statuses(folder) == {"a.mp4": "partial", "b.mkv": "ok"}
    assert audit(folder / "out").breaches == []
    before = files(folder)
    monkeypatch.setattr(clip_writing, "decode", lambda *_: 1 / 0)
    curate(folder, "--write-clips", "encode")  # Unchanged failures are left to redrive.
    monkeypatch.setattr(clip_writing, "decode", crash)

    def crash_at_once(*_: Any) -> Any:
        raise DecoderCrashed("again")

    monkeypatch.setattr(clip_writing, "decode", crash_at_once)
    assert main(["redrive", str(folder / "out"), "--stage", "media"]) == 0
    assert failures(folder) == [("media", "DecoderCrashed", 2, pytest.approx(3.3))]
    monkeypatch.setattr(clip_writing, "decode", ask)
    with failing() as asked:
        assert main(["redrive", str(folder / "out"), "--stage", "media"]) == 0
    assert (asked, failures(folder), statuses(folder)) == ([], [], {"a.mp4": "ok", "b.mkv": "ok"})
    assert {name: time for name, time in files(folder).items() if name in before} == before
    assert None not in told(folder).values()
    assert audit(folder / "out").breaches == []


@pytest.mark.slow
def test_a_source_that_has_gone_costs_the_files_and_no_rows(tmp_path, monkeypatch):
    folder = prepare(tmp_path)
    with failing("lite-motion"):
        curate(folder, "--write-clips", "copy", "--max-failed-fraction", "1")
    (folder / "in" / "b.mkv").unlink()
    assert main(["redrive", str(folder / "out"), "--max-failed-fraction", "1"]) == 0
    named = told(folder)
    assert [name for name, file in named.items() if file is None] == ["b.mkv 0.3"]
    assert failures(folder) == [("media", "NotAFile", 1, pytest.approx(0.3))]
    assert audit(folder / "out").breaches == []


@pytest.mark.slow
def test_a_full_disk_stops_the_job_and_not_the_video(again, monkeypatch, capsys):
    (again / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "write_clips": {"mode": "encode", "crf": 40}}))
    before = told(again)

    def full(*_: Any) -> Any:
        raise RuntimeError("the decoder cannot work here: OSError: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(clip_writing, "decode", full)
        places = ["--input", str(again / "in"), "--output", str(again / "out")]
        assert main(["curate", *places, "--config", str(again / "config.yaml")]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert told(again) == before
    curate(again)
    assert audit(again / "out").breaches == []


def test_files_stand_in_a_bucket_like_the_rest(gcs, tmp_path):
    folder = prepare(tmp_path)
    gcs.put("uploads/a.mp4", (folder / "in" / "a.mp4").read_bytes())
    command = ["curate", "--input", "gs://bucket/uploads/", "--output", "gs://bucket/set"]
    command += ["--config", str(folder / "config.yaml"), "--write-clips", "copy"]
    assert main(command) == 0
    rows = read_table("gs://bucket/set", "clips").to_pylist()
    assert [row["clip_file"] for row in rows] == [f"media/{row['clip_id']}.mp4" for row in rows]
    assert all(len(read(f"gs://bucket/set/{row['clip_file']}")) > 1000 for row in rows)
    found = audit("gs://bucket/set")
    assert (found.breaches, found.counts["clip_files"]) == ([], len(rows))


def test_rows_get_their_files_and_a_dead_letter_for_each_that_failed():
    rows = video_rows("v")
    first, second = (clip["clip_id"] for clip in rows.clips)
    before = failure_row("v", "r1", "media", clip_id=second, attempt=3)
    retried = type(rows)(rows.video_id, rows.video, rows.clips, rows.rejected, rows.failures, (before,))
    found = with_files(retried, {first: f"media/{first}.mp4"}, {second: Failure("ClipNotWritten", "why", "")})
    found.check()
    assert [clip["clip_file"] for clip in found.clips] == [f"media/{first}.mp4", None]
    letter = found.failures[-1]
    assert [letter[name] for name in ("stage", "clip_id", "start_s", "end_s", "attempt", "run_id", "message")] == [
        "media", second, 11.0, 19.0, 4, "r1", "why",
    ]  # fmt: skip
    assert (found.video["status"], found.video["n_failures"]) == ("partial", 2)


def test_an_id_that_leads_elsewhere_becomes_no_file(tmp_path):
    rows = video_rows("v", n_clips=1)
    (clip,) = rows.clips
    escaping = dataclasses.replace(rows, clips=({**clip, "clip_id": "../../escaped"},))
    with pytest.raises(RowError, match=r"the id '../../escaped' may hold only letters"):
        write_files(escaping, str(tmp_path / "out"), ClipFileSettings(), Limits())
    assert os.listdir(tmp_path) == []


def test_a_configuration_says_it_and_only_then_changes_the_fingerprint(tmp_path):
    plain = load_config("lite")
    asked = load_config("lite", changes={"write_clips": {"mode": "copy"}})
    assert (plain.write_clips, asked.write_clips) == (None, ClipFileSettings("copy"))
    before, after = (config.fingerprints("1", "") for config in (plain, asked))
    assert [stage for stage in before if before[stage] != after[stage]] == ["select"]
    file = tmp_path / "c.yaml"
    for written, settings in (
        ("encode", ClipFileSettings("encode")),
        ({"mode": "encode", "crf": 20, "short_side": 360}, ClipFileSettings("encode", crf=20, short_side=360)),
        (None, None),
    ):
        file.write_text(yaml.safe_dump({"write_clips": written}))
        assert load_config(file=str(file)).write_clips == settings
    for written, problem in (
        ("encod", "there is no mode of write_clips 'encod'; did you mean 'encode'?"),
        ({"mode": "copy", "crff": 3}, "there is no key 'crff'; did you mean 'crf'?"),
    ):
        file.write_text(yaml.safe_dump({"write_clips": written}))
        with pytest.raises(ConfigError) as caught:
            load_config(file=str(file))
        assert str(caught.value).startswith(problem)


def test_a_sweep_leaves_what_others_put_there(again):
    media = again / "out" / "media"
    for name in ("notes.txt", "gone-0-1000.mp4", ".gone-0-1000.77.tmp", "gone-0-1000.webm"):
        (media / name).write_bytes(b"x")
    assert sweep_media(again / "out") == 3
    assert len(files(again)) == 4 and "notes.txt" in files(again)
