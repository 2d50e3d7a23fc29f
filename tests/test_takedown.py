"""A video is taken down: nothing under the dataset names it any more, and the rest stands as it was."""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
from dataset_rows import failed_rows, failure_row, video_rows
from report_dataset import write_reel, write_run
from synthetic import make_video

from beam_pipeline.cli import main
from beam_pipeline.datasetcard import write_card
from beam_pipeline.takedown_records import STRUCK
from beam_pipeline.verify import audit
from transforms.committing import Committer
from transforms.finalising import finalise
from transforms.lease import WriterLease
from transforms.reading import find_sources
from transforms.schemas import TABLES, VideoRows
from transforms.tables import read_table
from transforms.tombstones import source_digest, taken_down, without_taken_down

ROOT = pathlib.Path(__file__).parents[1]

VIDEO = "mmm-hidden"  # Neither the least nor the greatest id of its file.
URI = "/uploads/Clandestine Footage.mp4"
WORDS = {
    "uri": URI,
    "file name": "Clandestine Footage",
    "title": "Walruses at Midnight",
    "description": "filmed in secret",
    "caption": "a walrus sings to itself",
    "subtitle": "whispered by nobody",
    "failure": "the uploader's name is Jane Roe",
    "older title": "Untitled Walrus Draft",
    "id": VIDEO,
}

#: Its id stays in the tombstone, in the inputs of runs, and as the beginning of another video's id.
ID_ALONE = {name: {"media", "runs"} if name == "id" else set() for name in WORDS}


def hidden_rows(run_id: str, title: str) -> VideoRows:
    """The video that is to go: its words stand wherever words can stand."""
    rows = video_rows(VIDEO, run_id, caption=WORDS["caption"])
    named = {"uri": URI, "title": title}
    failures = [failure_row(VIDEO, run_id, "caption", teacher="lite-text", start_s=1.0, end_s=9.0)]
    return VideoRows(
        VIDEO,
        {**rows.video, **named, "description": WORDS["description"]},
        tuple({**clip, **named, "subtitles": WORDS["subtitle"]} for clip in rows.clips),
        rows.rejected,
        tuple({**one, "uri": URI, "message": WORDS["failure"]} for one in failures),
    )


def named_file(rows: VideoRows) -> VideoRows:
    """The same rows, with a file of the first clip."""
    first, *others = rows.clips
    return VideoRows(
        rows.video_id,
        rows.video,
        ({**first, "clip_file": f"media/{first['clip_id']}.mp4"}, *others),
        rows.rejected,
        rows.failures,
    )


def breaches(dataset: pathlib.Path) -> list[str]:
    """What is wrong, but for a file of a video that is not there and whose id begins like the one that is."""
    found = audit(dataset).breaches
    return [one for one in found if one != f"media: {VIDEO}-5-7-1-2.mp4 is no clip's file"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Videos committed one by one, so that the logs have checkpoints, with reels, clip files, records and a report."""
    folder = tmp_path_factory.mktemp("takedown") / "set"
    with WriterLease(folder, "r2"):
        committer = Committer(folder)
        committer.commit([named_file(video_rows("a-1")), hidden_rows("r1", WORDS["older title"]), failed_rows("z-2")])
        for number in range(22):
            committer.commit([video_rows(f"video-{number}", n_clips=1)])
        committer.commit([hidden_rows("r2", WORDS["title"])])
        finalise(folder)
    for video_id in ("a-1", VIDEO):
        write_reel(folder, video_id, 2.0, (64, 36))
    (folder / "media").mkdir()
    for name in ("a-1_1000_9000", f"{VIDEO}_1000_9000", f".{VIDEO}_11000_19000", f"{VIDEO}-5-7", f"{VIDEO}-5-7-1-2"):
        (folder / "media" / f"{name}.mp4").write_bytes(b"pictures")
    make_video(folder / "media" / "a-1_1000_9000.mp4", [(8.0, "red")], fps=2, size=(64, 36))
    write_records(folder)
    (folder / "runs" / "r9.tmp").write_text(URI)
    write_card(folder)
    assert main(["report", str(folder)]) == 0
    return folder


def write_records(folder):
    listed = [{"video_id": video_id, "uri": f"/videos/{video_id}.mp4", "outcome": "committed"} for video_id in ("a-1",)]
    hidden = {"video_id": VIDEO, "uri": URI, "outcome": "committed"}
    settled = {"started_at": "2026-01-01T00:00:00+00:00", "options": {"keep_reels": False}}
    write_run(folder, "r1", status="done", inputs=[*listed, hidden], counts={"inputs": 2, "committed": 2}, **settled)
    told = f"MediaError: {URI!r} broke while '{WORDS['title']}' was read"
    given = ["/uploads", URI, "uploads/Clandestine Footage.mp4", "other.mp4"]
    write_run(folder, "r2", status="failed", input=given, error={"message": told, "traceback": f"x\n{told}"}, **settled)


@pytest.fixture
def dataset(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "set")
    return tmp_path / "set"


def where_named(folder, words):
    """For each word the folders and files at the top of a dataset in which something holds it, in whatever form."""
    found = {name: set() for name in words}
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        texts = [path.read_bytes(), os.fsencode(path)]
        if path.suffix == ".parquet":
            texts.append(repr(pq.read_table(path).to_pylist()).encode())
        for name, word in words.items():
            if any(word.encode() in text for text in texts):
                found[name].add(path.relative_to(folder).parts[0])
    return found


def rows_of_others(folder):
    return {
        name: sorted((row for row in read_table(folder, name).to_pylist() if row["video_id"] != VIDEO), key=repr)
        for name in TABLES
    }


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def record_of(folder):
    (path,) = (folder / "runs").glob("takedown-*.json")
    return json.loads(path.read_text())


def test_the_words_stand_in_the_dataset_before(dataset):
    assert where_named(dataset, WORDS) == {
        "uri": {"clips", "failures", "report.html", "runs", "videos"},
        "file name": {"clips", "failures", "report.html", "runs", "videos"},
        "title": {"clips", "report.html", "runs", "videos"},
        "description": {"videos"},
        "caption": {"clips", "report.html"},
        "subtitle": {"clips", "report.html"},
        "failure": {"failures"},
        "older title": set(),
        "id": {*TABLES, "media", "reels", "report.html", "runs"},
    }
    assert any("checkpoint" in name for name in files(dataset))


def test_nothing_names_a_video_any_more_but_its_id_in_the_records(dataset, capsys):
    before = rows_of_others(dataset)
    assert main(["takedown", str(dataset), "--video", VIDEO, "--reason", f"Jane asked for {URI}"]) == 0
    assert where_named(dataset, WORDS) == ID_ALONE
    assert rows_of_others(dataset) == before
    found = audit(dataset)
    assert breaches(dataset) == []
    assert (found.counts["taken_down"], found.counts["videos"], found.counts["stray_files"]) == (1, 24, 1)
    assert sorted(os.listdir(dataset / "reels")) == ["a-1.arrow"]
    # What only begins like it is the clip of a video that is called mmm-hidden-5-7.
    assert sorted(os.listdir(dataset / "media")) == ["a-1_1000_9000.mp4", f"{VIDEO}-5-7-1-2.mp4"]
    assert "report.html" not in files(dataset)
    record = record_of(dataset)
    assert record["started_at"] <= record["finished_at"]
    assert {key: value for key, value in record.items() if not key.endswith("_at")} == {
        "run_id": record["run_id"],
        "command": "takedown",
        "status": "done",
        "videos": [VIDEO],
        "sources": [source_digest(URI)],
        "absent": [],
        "reason": f"Jane asked for {STRUCK}",
        "counts": {
            "videos": 1, "clips": 2, "rejected": 4, "failures": 1, "reels": 1, "clip_files": 3, "report": 1,
        },
    }  # fmt: skip
    assert capsys.readouterr().out.splitlines() == [
        "removed   1 videos, 2 clips, 4 rejected, 1 failures, 1 reels, 3 clip files, 1 report",
        "left      exports, and reports written elsewhere, are not known here: remove those yourself",
        f"lift it   delete {dataset}/runs/{record['run_id']}.json",
        f"report    it showed them, so it is gone; anew: reelscribe report {dataset}",
    ]


def test_records_of_runs_still_add_up_and_keep_what_is_not_the_videos(dataset):
    main(["takedown", str(dataset), "--video", VIDEO])
    first, second = (json.loads((dataset / "runs" / f"{run}.json").read_text()) for run in ("r1", "r2"))
    assert first["inputs"] == [
        {"video_id": "a-1", "uri": "/videos/a-1.mp4", "outcome": "committed"},
        {"video_id": VIDEO, "uri": None, "outcome": "committed"},
    ]
    assert second["input"] == ["/uploads", STRUCK, STRUCK, "other.mp4"]
    told = f"MediaError: '{STRUCK}' broke while '{STRUCK}' was read"
    assert second["error"] == {"message": told, "traceback": f"x\n{told}"}
    assert sorted(path.name for path in (dataset / "runs").glob("*.tmp")) == []


def test_the_report_and_the_card_are_made_anew_without_it(dataset):
    main(["takedown", str(dataset), "--video", VIDEO])
    assert "| videos | 24 (23 ok, 1 failed) |" in (dataset / "README.md").read_text()
    assert main(["report", str(dataset)]) == 0
    assert [name for name, places in where_named(dataset, WORDS).items() if places] == ["id"]


def test_the_same_command_again_changes_nothing(dataset, capsys):
    main(["takedown", str(dataset), "--video", VIDEO])
    before = files(dataset)
    capsys.readouterr()
    assert main(["takedown", str(dataset), "--video", VIDEO, VIDEO]) == 0
    assert capsys.readouterr().out == f"{VIDEO} was taken down before\n"
    assert files(dataset) == before


def test_a_video_that_came_back_is_taken_down_again(dataset):
    main(["takedown", str(dataset), "--video", VIDEO])
    with WriterLease(dataset, "r3"):
        Committer(dataset).commit([hidden_rows("r3", WORDS["title"])])
        finalise(dataset)
    assert len(breaches(dataset)) == len(TABLES)
    assert main(["takedown", str(dataset), "--video", VIDEO]) == 0
    assert breaches(dataset) == []
    assert where_named(dataset, WORDS) == ID_ALONE


def test_ids_that_the_dataset_does_not_have_are_kept_out_all_the_same(dataset, capsys):
    assert main(["takedown", str(dataset), "--video=-never", "--video", VIDEO, "nor-this"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if "will not be ingested" in line] == [
        "-never is not in the dataset; it will not be ingested",
        "nor-this is not in the dataset; it will not be ingested",
    ]
    assert taken_down(dataset) == {"-never", "nor-this", VIDEO}
    assert breaches(dataset) == []


def test_nothing_is_told_to_be_removed_for_an_id_that_the_dataset_does_not_have(dataset, capsys):
    assert main(["takedown", str(dataset), "--video", "never"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["never", "left", "lift", "report"]
    (dataset / "report.html").unlink(missing_ok=True)
    assert main(["takedown", str(dataset), "--video", "z-2"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "removed   1 videos, 1 failures"


def test_bad_usage_is_told_in_a_line_and_changes_nothing(dataset, tmp_path, capsys):
    before = files(dataset)
    assert main(["takedown", str(dataset), "--video", "x' OR '1'='1"]) == 2
    assert main(["takedown", "s3://bucket/set", "--video", "a"]) == 2
    assert main(["takedown", str(dataset)]) == 2
    assert main(["takedown", str(tmp_path / "nowhere"), "--video", "a"]) == 1
    with WriterLease(dataset, "running-job"):
        assert main(["takedown", str(dataset), "--video", "a"]) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[:4] == [
        "reelscribe: \"x' OR '1'='1\" is no video_id: they have letters, digits, '_' and '-', at most 128 of them",
        "reelscribe: s3://bucket/set is neither a directory nor gs://BUCKET/FOLDER",
        "reelscribe: the following arguments are required: --video",
        f"reelscribe: {tmp_path / 'nowhere'} is no dataset: it has no table clips; make one with `reelscribe curate`",
    ]
    assert told[4].startswith(f"reelscribe: {dataset} is being written by running-job (pid {os.getpid()} on ")
    assert len(told) == 5
    assert not (tmp_path / "nowhere").exists()
    assert files(dataset) - {".lease.lock"} == before - {".lease.lock"}


def test_a_tombstone_of_the_takedown_keeps_the_file_out_under_another_id(dataset, tmp_path):
    manifest = tmp_path / "list.jsonl"
    os.makedirs(tmp_path / "uploads")
    (tmp_path / "uploads" / "a.mp4").write_bytes(b"a video")
    manifest.write_text(json.dumps({"uri": "uploads/a.mp4", "video_id": "mine"}))
    (named,) = find_sources([str(manifest)]).sources
    with WriterLease(dataset, "r3"):
        rows = video_rows("mine", "r3")
        Committer(dataset).commit([VideoRows("mine", {**rows.video, "uri": named.uri}, *rows_beside(rows))])
        finalise(dataset)
    assert main(["takedown", str(dataset), "--video", "mine"]) == 0
    for again in (manifest, tmp_path / "uploads"):
        assert without_taken_down(find_sources([str(again)]), dataset).sources == ()


def rows_beside(rows):
    return rows.clips, rows.rejected, rows.failures


def start_takedown(folder):
    return subprocess.Popen(
        [sys.executable, "-m", "beam_pipeline.cli", "takedown", str(folder), "--video", VIDEO],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def kill_after(folder, delay_s):
    """Start a takedown, kill it so long after it wrote its tombstone; whether it was still at work."""
    process = start_takedown(folder)
    while not any((folder / "runs").glob("takedown-*.json")) and process.poll() is None:
        time.sleep(0.001)
    time.sleep(delay_s)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def check_kills(whole, folder, kills, seed):
    draw, hit = random.Random(seed), 0
    expected = rows_of_others(whole)
    for number in range(kills):
        dataset = folder / f"set-{number}"
        shutil.copytree(whole, dataset)
        hit += kill_after(dataset, draw.uniform(0.0, 0.4))
        assert taken_down(dataset) == {VIDEO}
        assert breaches(dataset) == []
        assert rows_of_others(dataset) == expected
        assert main(["takedown", str(dataset), "--video", VIDEO]) == 0
        assert breaches(dataset) == []
        assert rows_of_others(dataset) == expected
        assert where_named(dataset, WORDS) == ID_ALONE
        record = record_of(dataset)
        assert (record["status"], record["counts"]["clips"], record["counts"]["clip_files"]) == ("done", 2, 3)
        shutil.rmtree(dataset)
    return hit


def test_a_takedown_killed_at_any_instant_is_finished_by_the_same_command(whole, tmp_path):
    assert check_kills(whole, tmp_path, kills=3, seed=1) >= 2


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_thirty_kills(whole, tmp_path):
    assert check_kills(whole, tmp_path, kills=30, seed=2) >= 15
