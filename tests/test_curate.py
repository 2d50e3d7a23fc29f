"""The main job as a user runs it: a folder of videos, good and bad, through the real models to the dataset."""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
import yaml
from run_records import newest_run
from sameness import differences
from synthetic import make_video

from beam_pipeline.cli import main
from beam_pipeline.verify import audit
from transforms.tables import current_videos, read_table

CONFIG = {"extends": "lite", "stitching": {"still_distance": None, "redundant_distance": None, "min_event_s": 1.0}}


def write_config(folder: pathlib.Path, **changes: object) -> str:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, **changes}))
    return str(path)


def make_uploads(folder: pathlib.Path) -> pathlib.Path:
    """What people upload: good videos with and without words, a broken one, things that only look like videos."""
    folder.mkdir()
    shots = [(3.0, "red"), (3.0, "blue")]
    make_video(folder / "good.mp4", shots=shots, drift_px=3)
    (folder / "good.json").write_text(json.dumps({"title": "Colours in motion", "description": "Red, then blue."}))
    (folder / "good.vtt").write_text(
        "WEBVTT\n\n00:00.500 --> 00:02.500\nThis is red.\n\n00:03.500 --> 00:05.500\nBlue.\n"
    )
    make_video(folder / "spoken.mkv", shots=[(3.0, "green")], drift_px=3, subtitles=[(0.5, 2.5, "Said inside.")])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "noise.mp4").write_bytes(random.Random(7).randbytes(5000))
    (folder / "playlist.mp4").write_text("#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n")
    make_video(folder / "cut-off.mkv", shots=[(4.0, "yellow"), (4.0, "grey")], drift_px=3, audio_s=8.0)
    whole = (folder / "cut-off.mkv").read_bytes()
    (folder / "cut-off.mkv").write_bytes(whole[: len(whole) * 8 // 10])
    (folder / "notes.txt").write_text("not a video")
    return folder


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    return make_uploads(tmp_path_factory.mktemp("in") / "uploads")


@pytest.fixture(scope="module")
def dataset(uploads, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    config = write_config(folder)
    assert main(["curate", "--input", str(uploads), "--output", str(folder / "set"), "--config", config]) == 0
    return folder / "set"


def by_name(dataset: pathlib.Path, table: str, *columns: str) -> dict[str, list[tuple]]:
    """The rows of a table by their video's file name."""
    names = {row["video_id"]: os.path.basename(row["uri"]) for row in read_table(dataset, "videos").to_pylist()}
    found: dict[str, list[tuple]] = {}
    for row in read_table(dataset, table).to_pylist():
        found.setdefault(names[row["video_id"]], []).append(tuple(row[column] for column in columns))
    return found


def test_every_upload_ends_where_it_should(dataset):
    assert by_name(dataset, "videos", "status", "n_shots", "n_clips", "n_failures") == {
        "good.mp4": [("ok", 2, 2, 0)],
        "spoken.mkv": [("ok", 1, 1, 0)],
        "cut-off.mkv": [("partial", 2, 2, 1)],
        "empty.mp4": [("failed", 0, 0, 1)],
        "noise.mp4": [("failed", 0, 0, 1)],
        "playlist.mp4": [("failed", 0, 0, 1)],
    }
    assert audit(dataset).breaches == []


def test_clips_have_the_times_of_their_shots_less_the_trim_and_the_words_said_in_them(dataset):
    clips = by_name(dataset, "clips", "start_s", "end_s", "timestamp", "subtitles", "title", "width", "height", "fps")
    assert sorted(clips["good.mp4"]) == [
        (0.3, pytest.approx(2.7), ["0:00:00.300", "0:00:02.700"], "This is red.", "Colours in motion", 320, 180, 25.0),
        (3.3, pytest.approx(5.7), ["0:00:03.300", "0:00:05.700"], "Blue.", "Colours in motion", 320, 180, 25.0),
    ]
    assert [row[3:5] for row in clips["spoken.mkv"]] == [("Said inside.", None)]


def test_every_clip_has_a_caption_of_every_teacher_that_has_its_inputs_and_the_best_one_chosen(dataset):
    for row in read_table(dataset, "clips").to_pylist():
        teachers = [one["teacher"] for one in row["captions"]]
        assert len(teachers) == (7 if row["subtitles"] or row["title"] else 5)
        best = max(row["captions"], key=lambda one: one["matching_score"])
        assert (row["caption"], row["teacher"], row["matching_score"]) == (
            best["caption"], best["teacher"], best["matching_score"],
        )  # fmt: skip
        assert row["caption"].rstrip()[-1] in '.!?"”'


def test_what_a_rule_drops_stands_in_rejected_with_its_value(dataset):
    rejected = by_name(dataset, "rejected", "stage", "start_s", "end_s", "value", "threshold")
    assert sorted(rejected["good.mp4"], key=lambda row: row[1]) == [
        ("trim", pytest.approx(start), pytest.approx(start + 0.3), pytest.approx(0.3), 0.1)
        for start in (0.0, 2.7, 3.0, 5.7)
    ]


def test_what_fails_is_told_in_a_plain_sentence(dataset):
    failures = by_name(dataset, "failures", "stage", "error_class", "clip_id", "teacher")
    assert {name: [row[0] for row in rows] for name, rows in failures.items()} == {
        "empty.mp4": ["split"], "noise.mp4": ["split"], "playlist.mp4": ["split"], "cut-off.mkv": ["split"],
    }  # fmt: skip
    messages = {name: rows[0][0] for name, rows in by_name(dataset, "failures", "message").items()}
    assert "empty" in messages["empty.mp4"]
    assert all("\n" not in message and len(message) > 20 for message in messages.values())


def test_the_run_is_recorded_and_its_counts_add_up(dataset, uploads):
    run = newest_run(dataset)
    assert run["status"] == "done"
    outcomes = {os.path.basename(one["uri"]): one["outcome"] for one in run["inputs"]}
    assert outcomes == {
        "good.mp4": "committed", "spoken.mkv": "committed", "cut-off.mkv": "committed",
        "empty.mp4": "failed", "noise.mp4": "failed", "playlist.mp4": "failed",
    }  # fmt: skip
    counts = run["counts"]
    assert (counts["inputs"], counts["committed"], counts["unchanged"], counts["failed"]) == (6, 3, 0, 3)
    assert (counts["skipped"], counts["clips"]) == (3, 5)
    assert run["bytes"]["source"] == sum(
        path.stat().st_size for path in uploads.iterdir() if path.suffix in (".mp4", ".mkv")
    )
    assert {"embed", "caption", "score"} <= run["seconds"].keys()


def test_plain_readers_see_the_same_clips(dataset):
    plain = ds.dataset(sorted(map(str, (dataset / "clips").glob("*.parquet")))).to_table()
    columns = [("clip_id", "ascending")]
    assert plain.sort_by(columns).equals(read_table(dataset, "clips").sort_by(columns).cast(plain.schema))


def test_a_video_that_was_taken_down_is_not_ingested_again(dataset, uploads, tmp_path):
    shutil.copytree(dataset, tmp_path / "set")
    gone = next(one for one in current_videos(tmp_path / "set") if one.startswith("good-"))
    assert main(["takedown", str(tmp_path / "set"), "--video", gone]) == 0
    config = write_config(tmp_path)
    assert main(["curate", "--input", str(uploads), "--output", str(tmp_path / "set"), "--config", config]) == 0
    assert gone not in current_videos(tmp_path / "set")
    assert audit(tmp_path / "set").breaches == []


def test_the_same_command_again_does_nothing(dataset, uploads, capsys):
    before = read_table(dataset, "clips")
    arguments = ["curate", "--input", str(uploads), "--output", str(dataset)]
    assert main([*arguments, "--config", str(dataset.parent / "config.yaml")]) == 0
    assert "6 in: 0 committed, 6 unchanged, 0 failed" in capsys.readouterr().out
    assert read_table(dataset, "clips").equals(before)
    assert audit(dataset).breaches == []


def test_too_many_failed_videos_are_exit_status_1(uploads, tmp_path, capsys):
    arguments = [
        "curate",
        "--input",
        str(uploads / "empty.mp4"),
        str(uploads / "noise.mp4"),
        "--output",
        str(tmp_path / "o"),
    ]
    assert main(arguments) == 1
    assert "100% of this run's videos failed" in capsys.readouterr().err
    assert main([*arguments[:-1], str(tmp_path / "p"), "--max-failed-fraction", "1"]) == 0


@pytest.mark.parametrize("inputs", ["videos", "elsewhere"])
def test_somebodys_own_files_are_never_overwritten_nor_swept_away(inputs, tmp_path, capsys):
    """A project whose folders are called as a dataset's are: it is refused before anything is touched."""
    for name in ("videos/a.mp4", "elsewhere/a.mp4", "clips/mine.txt", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    before = sorted(tmp_path.rglob("*"))
    assert main(["curate", "--input", str(tmp_path / inputs), "--output", str(tmp_path)]) == 2
    assert "take another --output" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_readme_that_was_there_before_the_dataset_stays(tmp_path):
    (tmp_path / "README.md").write_text("# My project")
    (tmp_path / "in").mkdir()
    assert main(["curate", "--input", str(tmp_path / "in"), "--output", str(tmp_path)]) == 0
    assert (tmp_path / "README.md").read_text() == "# My project"
    assert (tmp_path / "DATASET.md").read_text().startswith("---")
    (tmp_path / "clips" / "mine.txt").write_text("mine")
    assert main(["curate", "--input", str(tmp_path / "in"), "--output", str(tmp_path)]) == 0
    assert (tmp_path / "clips" / "mine.txt").read_text() == "mine"


def test_a_changed_file_and_a_changed_configuration_redo_what_they_concern(tmp_path):
    uploads = tmp_path / "in"
    uploads.mkdir()
    for name, colour in (("a.mp4", "red"), ("b.mp4", "blue")):
        make_video(uploads / name, shots=[(2.0, colour)], drift_px=3)
    output = tmp_path / "out"

    def run(**changes: object) -> dict[str, str]:
        arguments = ["curate", "--input", str(uploads), "--output", str(output)]
        assert main([*arguments, "--config", write_config(tmp_path, **changes)]) == 0
        assert audit(output).breaches == []
        return {os.path.basename(one["uri"]): one["outcome"] for one in newest_run(output)["inputs"]}

    def clips() -> dict[str, dict]:
        return {os.path.basename(row["uri"]): row for row in read_table(output, "clips").to_pylist()}

    assert run() == {"a.mp4": "committed", "b.mp4": "committed"}
    first, reels = clips(), {path.name: path.stat().st_mtime_ns for path in (output / "reels").iterdir()}
    time.sleep(1.1)

    make_video(uploads / "b.mp4", shots=[(3.0, "blue")], drift_px=3)
    assert run() == {"a.mp4": "unchanged", "b.mp4": "committed"}
    second = clips()
    assert second["a.mp4"] == first["a.mp4"]
    assert (first["b.mp4"]["end_s"], second["b.mp4"]["end_s"]) == (pytest.approx(1.8), pytest.approx(2.7))
    time.sleep(1.1)

    assert run(teachers=["lite-frame", "lite-scene"]) == {"a.mp4": "committed", "b.mp4": "committed"}
    assert [[one["teacher"] for one in row["captions"]] for row in clips().values()] == [
        ["lite-frame", "lite-scene"]
    ] * 2
    unsplit = [path for path in (output / "reels").iterdir() if path.stat().st_mtime_ns == reels[path.name]]
    assert [path.name.partition("-")[0] for path in unsplit] == ["a"], "other teachers split nothing anew"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kills", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_run_killed_at_any_instant_reads_well_and_the_same_command_finishes_it(uploads, dataset, tmp_path, kills):
    output, config = tmp_path / "out", write_config(tmp_path)
    command = [sys.executable, "-m", "beam_pipeline.cli", "curate", "--input", str(uploads), "--output", str(output)]
    command += ["--config", config, "--chunk-videos", "1"]
    dice, killed = random.Random(3), 0
    for _ in range(kills):
        running = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        seen = len(current_videos(output)) if (output / "videos").exists() else 0
        deadline = time.monotonic() + 120
        # Strike at a random moment once something has been committed, so that each round gets further.
        while time.monotonic() < deadline and running.poll() is None and committed(output) <= seen:
            time.sleep(0.05)
        time.sleep(dice.uniform(0.0, 1.0))
        if running.poll() is None:
            os.kill(running.pid, signal.SIGKILL)
            killed += 1
        running.wait()
        assert audit(output).breaches == []
        for row in read_table(output, "videos").to_pylist():
            clips = read_table(output, "clips").filter(pa.compute.field("video_id") == row["video_id"])
            assert clips.num_rows == row["n_clips"]
    assert killed >= kills // 2
    assert subprocess.run(command, capture_output=True, check=False, timeout=170).returncode == 0
    assert audit(output).breaches == []
    assert differences(output, dataset) == []


def committed(output: pathlib.Path) -> int:
    return len(current_videos(output)) if (output / "videos" / "_delta_log").exists() else 0


#: Real odd files of the folder of real media, and how each must end.
ODD = {
    "handmade/zero_length.mp4": ("failed", "NotAVideo"),
    "handmade/html_as_mp4.mp4": ("failed", "NotAVideo"),
    "handmade/truncated_no_moov.mp4": ("failed", "TruncatedVideo"),
    "handmade/truncated_faststart.mp4": ("partial", "PartlyDecoded"),
    "handmade/audio_only.mp4": ("failed", "NoVideoStream"),
    "mp4parse/short-cenc.mp4": ("failed", "EncryptedVideo"),
    "exoplayer/video_desks.3gp": ("ok", None),
    "handmade/one_frame.mp4": ("ok", None),
    "torchcodec/testsrc2_444_12bit_hevc.mp4": ("ok", None),
}


def ends(shared_dir: pathlib.Path, output: pathlib.Path) -> dict[str, tuple[str, str | None]]:
    errors = {row["video_id"]: row["error_class"] for row in read_table(output, "failures").to_pylist()}
    return {
        str(pathlib.Path(row["uri"]).relative_to((shared_dir / "videos").resolve())): (
            row["status"],
            errors.get(row["video_id"]),
        )
        for row in read_table(output, "videos").to_pylist()
    }


def test_odd_real_files_end_where_they_should(shared_dir, tmp_path):
    names = [str(shared_dir / "videos" / name) for name in ODD]
    assert main(["curate", "--input", *names, "--output", str(tmp_path), "--max-failed-fraction", "1"]) == 0
    assert ends(shared_dir, tmp_path) == ODD
    assert audit(tmp_path).breaches == []


@pytest.mark.soak
def test_every_real_file_goes_through_one_run_and_none_stops_it(shared_dir, tmp_path):
    assert main(["curate", "--input", str(shared_dir / "videos"), "--output", str(tmp_path)]) == 0
    found = ends(shared_dir, tmp_path)
    assert {name: found[name] for name in ODD} == ODD
    assert audit(tmp_path).breaches == []
    # Whatever PySceneDetect's reader cannot open either has failed here, and nothing else has.
    assert sum(status == "failed" for status, _ in found.values()) == 32
