"""WebDataset shards, read back by the package itself: rows, captions, files, frames; the same bytes each time."""

import hashlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from exported_dataset import DASHED, HOSTILE, LONG, entomb, write_clips
from PIL import Image

from beam_pipeline.cli import main
from beam_pipeline.export import ClipSample, ExportOptions, export
from beam_pipeline.export_pictures import Pictures
from beam_pipeline.export_webdataset import files_of
from transforms.by_source import place_of
from transforms.files import list_files
from transforms.reel import ReelFrame, ReelWriter
from transforms.tables import Snapshot

webdataset = pytest.importorskip("webdataset", reason="needs the extra export")

ROOT = pathlib.Path(__file__).parents[1]
CLIPS = {
    DASHED: [f"{DASHED}-1000-9000", f"{DASHED}-9500-12000", f"{DASHED}-12000-14000"],
    LONG: [f"{LONG}-500-3000"],
    "plain": ["plain-0-4000", "plain-30000125-30009500"],
}
ORDER = [clip for name in sorted(CLIPS, key=lambda name: place_of("export", name)) for clip in CLIPS[name]]


@pytest.fixture
def dataset(tmp_path):
    return write_clips(tmp_path / "set")


def written(dataset, output, **options):
    return export(str(dataset), str(output), ExportOptions("webdataset", **options))


def samples(output):
    files = sorted(map(str, pathlib.Path(output).glob("*.tar")))
    found = list(webdataset.WebDataset(files, shardshuffle=False, empty_check=False))
    return {sample["__key__"]: {k: v for k, v in sample.items() if not k.startswith("__")} for sample in found}


def test_every_clip_is_a_sample_with_its_row_and_caption(dataset, tmp_path):
    told = written(dataset, tmp_path / "out")
    found = samples(tmp_path / "out")
    assert list(found) == ORDER
    rows = {row["clip_id"]: row for row in Snapshot.open(dataset).read("clips").to_pylist()}
    for clip_id, sample in found.items():
        assert sample["txt"].decode() == rows[clip_id]["caption"]
        expected = {name: value for name, value in rows[clip_id].items() if name != "embedding"}
        assert json.loads(sample["json"]) == expected
    assert found[ORDER[0]].keys() == {"json", "txt"}
    assert found[f"{DASHED}-1000-9000"]["txt"].decode() == HOSTILE
    assert told["counts"] == {
        "sources": 3, "clips": 6, "with_a_file": 1, "with_frames": 0, "without_pictures": 5, "absent": 0,
    }  # fmt: skip


def test_a_clip_has_its_own_file_or_else_frames_of_the_reel(dataset, tmp_path):
    told = written(dataset, tmp_path / "out", frames=3)
    found = samples(tmp_path / "out")
    assert found["plain-0-4000"].keys() == {"json", "txt", "mp4"}
    assert found["plain-0-4000"]["mp4"] == b"a film"
    dashed = found[f"{DASHED}-1000-9000"]
    assert dashed.keys() == {"json", "txt", "000.jpg", "001.jpg", "002.jpg"}
    # Frame n of the reel has the colour (37 n, ...); those nearest to 2.33, 5 and 7.67 s are the 5th, 10th and 15th.
    reds = [Image.open(io.BytesIO(dashed[f"{n:03d}.jpg"])).getpixel((63, 35))[0] for n in range(3)]
    assert [abs(red - 37 * frame % 256) < 12 for red, frame in zip(reds, (5, 10, 15), strict=True)] == [True] * 3
    assert found[f"{LONG}-500-3000"].keys() == {"json", "txt"}
    assert (told["counts"]["with_frames"], told["counts"]["without_pictures"]) == (4, 1)


def test_a_reel_of_another_version_shows_something_else_and_is_not_used(dataset, tmp_path):
    path = dataset / "reels" / f"{DASHED}.arrow"
    with ReelWriter(str(path), etag="newer", settings="s") as reel:
        reel.add(ReelFrame(1.0, 0, 0, b"another film"))
        reel.finish({})
    (dataset / "reels" / "plain.arrow").write_bytes(b"no reel")
    told = written(dataset, tmp_path / "out", frames=3)
    assert (told["counts"]["with_frames"], told["counts"]["without_pictures"]) == (0, 5)


def test_embeddings_go_along_when_asked_for(dataset, tmp_path):
    written(dataset, tmp_path / "out", embeddings=True)
    for sample in samples(tmp_path / "out").values():
        embedding = np.load(io.BytesIO(sample["npy"]))
        assert (embedding.dtype, embedding.tolist()) == (np.float32, [1.0, 0.0])
        assert "embedding" not in json.loads(sample["json"])


def test_numbers_that_json_cannot_hold_become_null():
    row = {"clip_id": "a", "caption": "c", "margin": float("nan"), "captions": [{"matching_score": float("inf")}]}
    assert json.loads(files_of(ClipSample(row))["json"]) == {
        "clip_id": "a", "caption": "c", "margin": None, "captions": [{"matching_score": None}],
    }  # fmt: skip


def test_shards_end_at_their_number_of_clips_or_bytes_and_are_listed(dataset, tmp_path):
    written(dataset, tmp_path / "two", shard_clips=4)
    written(dataset, tmp_path / "six", shard_bytes=1)
    told = json.loads((tmp_path / "two" / "shards.json").read_text())
    assert [(file["name"], file["clips"]) for file in told["files"]] == [
        ("clips-000000.tar", 4),
        ("clips-000001.tar", 2),
    ]
    for file in told["files"]:
        content = (tmp_path / "two" / file["name"]).read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert len(list((tmp_path / "six").glob("*.tar"))) == 6
    assert list(samples(tmp_path / "six")) == list(samples(tmp_path / "two")) == ORDER


def test_two_exports_are_the_same_to_the_byte_and_name_nobody(dataset, tmp_path):
    for name in ("a", "b"):
        written(dataset, tmp_path / name, frames=2, embeddings=True)
    files = [{one.name: one.read_bytes() for one in (tmp_path / name).iterdir()} for name in ("a", "b")]
    assert files[0] == files[1]
    with tarfile.open(tmp_path / "a" / "clips-000000.tar") as tar:
        assert {(one.mtime, one.uname, one.gname, one.uid, one.gid) for one in tar} == {
            (0, "reelscribe", "reelscribe", 0, 0)
        }


def test_a_part_of_a_split_gives_its_shards_its_name(dataset, tmp_path, capsys):
    out = tmp_path / "parts"
    assert main(["split", str(dataset), "--output", str(out), "--val", "0", "--test", "0", "--limit", "2"]) == 0
    arguments = ["export", str(dataset), "--to", "webdataset", "--output", str(tmp_path / "shards")]
    assert main([*arguments, "--subset", str(out / "train.parquet")]) == 0
    found = samples(tmp_path / "shards")
    assert set(found) == set(pq.read_table(out / "train.parquet")["clip_id"].to_pylist())
    assert sorted(os.listdir(tmp_path / "shards")) == ["shards.json", "train-000000.tar"]
    assert capsys.readouterr().out.splitlines()[-4:] == [
        "2 clips of 1 sources",
        "1 with their clip's file",
        "1 without pictures: see --frames",
        str(tmp_path / "shards"),
    ]


def test_what_was_taken_down_never_appears(dataset, tmp_path):
    entomb(dataset, "plain", LONG)
    written(dataset, tmp_path / "out")
    assert sorted(samples(tmp_path / "out")) == sorted(CLIPS[DASHED])


def test_a_dataset_without_clips_gives_no_shards(dataset, tmp_path):
    entomb(dataset, *CLIPS)
    told = written(dataset, tmp_path / "out")
    assert (told["counts"]["clips"], os.listdir(tmp_path / "out")) == (0, ["shards.json"])


def test_a_bucket_takes_shards_as_it_gives_clips(gcs, tmp_path, dataset):
    for path in sorted(dataset.rglob("*")):
        if path.is_file():
            gcs.put(f"set/{path.relative_to(dataset)}", path.read_bytes())
    export("gs://bucket/set", "gs://bucket/out", ExportOptions("webdataset", frames=2, shard_clips=4))
    written(dataset, tmp_path / "here", frames=2, shard_clips=4)
    assert [path.rpartition("/")[2] for path in list_files("gs://bucket/out")] == [
        "clips-000000.tar", "clips-000001.tar", "shards.json",
    ]  # fmt: skip
    from transforms.files import read

    for name in ("clips-000000.tar", "clips-000001.tar"):
        assert read(f"gs://bucket/out/{name}") == (tmp_path / "here" / name).read_bytes()


def test_a_full_disk_is_told_and_leaves_nothing_behind(dataset, tmp_path):
    script = (
        "import resource, sys; from beam_pipeline.cli import main;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)); sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "export", str(dataset), "--to", "webdataset", "--shard-clips", "1"]
    command += ["--output", str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
    assert "export failed: OSError: [Errno 27] File too large" in ended.stderr
    assert os.listdir(tmp_path) == ["set"]


def test_a_missing_package_is_named_with_its_extra(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "webdataset", None)
    arguments = ["export", str(dataset), "--to", "webdataset", "--output", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert capsys.readouterr().err == (
        "reelscribe: webdataset is not installed; run: pip install 'reelscribe[export]'\n"
    )


def test_the_file_of_a_clip_is_its_own_or_none(dataset):
    found = Pictures(str(dataset), 0).of_source("plain", "e")
    assert found.file({"clip_id": "plain-0-4000", "clip_file": "media/plain-0-4000.mp4"}) == ("mp4", b"a film")
    for named in (None, "media/gone.mp4", "media/plain-0-4000.webm", "/etc/passwd", "media/../README.md"):
        assert found.file({"clip_id": "plain-0-4000", "clip_file": named}) is None
    (dataset / "notes.mp4").write_bytes(b"another file")
    assert found.file({"clip_id": "../notes", "clip_file": "media/../notes.mp4"}) is None
