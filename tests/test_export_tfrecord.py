"""TFRecord files, read by a reader that shares nothing with the writer; by TensorFlow where it is installed."""

import json
import math
import pathlib
import struct
import subprocess

import pytest
from exported_dataset import DASHED, HOSTILE, LONG, entomb, write_clips
from tfrecord_reader import crc32c, read_records

from beam_pipeline.cli import main
from beam_pipeline.export import ExportOptions, export
from transforms.measure_columns import MEASURED

pytest.importorskip("google_crc32c", reason="needs the extra export")

TENSORFLOW = pathlib.Path(__file__).parents[1] / ".venv-tensorflow"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return str(write_clips(tmp_path_factory.mktemp("export") / "set"))


def written(dataset, output, **options):
    export(dataset, str(output), ExportOptions("tfrecord", **options))
    files = sorted(pathlib.Path(output).glob("*.tfrecord"))
    return {record["clip_id"][0].decode(): record for file in files for record in read_records(file)}


def float32(number):
    return struct.unpack("<f", struct.pack("<f", number))[0]


def test_the_readers_check_sum_is_castagnolis():
    assert crc32c(b"123456789") == 0xE3069283


def test_a_clip_is_an_example_with_a_feature_a_column(dataset, tmp_path):
    found = written(dataset, tmp_path / "out")
    record = found[f"{DASHED}-1000-9000"]
    assert record == {
        "clip_id": [f"{DASHED}-1000-9000".encode()],
        "clip_file": [],
        "video_id": [DASHED.encode()],
        "uri": [f"videos/{DASHED}.mp4".encode()],
        "title": [],
        "start_s": [1.0],
        "start_ms": [1000],
        "end_s": [9.0],
        "end_ms": [9000],
        "duration_s": [8.0],
        "duration_ms": [8000],
        "timestamp": [b"0:00:00.000", b"0:00:01.000"],
        "width": [1280],
        "height": [720],
        "fps": [25.0],
        "caption": [HOSTILE.encode()],
        "teacher": [b"frame"],
        "matching_score": [float32(0.43)],
        "margin": [float32(0.43 - 0.25)],
        "abstained": [0],
        "captions/teacher": [b"frame", b"text"],
        "captions/model": [b"models/frame", b"models/text"],
        "captions/revision": [b"r1", b"r1"],
        "captions/prompt_id": [b"p1", b"p1"],
        "captions/caption": [HOSTILE.encode(), b"-1"],
        "captions/matching_score": [float32(0.43), 0.25],
        "captions/fingerprint": [b"f", b"f"],
        "subtitles": [],
        "shots/start_s": [0.0, 5.0],
        "shots/start_ms": [0, 5000],
        "shots/end_s": [5.0, 9.5],
        "shots/end_ms": [5000, 9500],
        "run_id": [b"run-1"],
        "fingerprint": [b"f"],
        "schema_version": [1],
        "made_with/name": [],
        "made_with/fingerprint": [],
        **{column.name: [] for column in MEASURED},
        "caption_language": [],
        "harmful_text": [],
        "duplicate_of": [],
        "duplicate_distance": [],
    }
    assert found["plain-30000125-30009500"]["start_ms"] == [30000125]
    assert found[f"{DASHED}-9500-12000"]["abstained"] == [1]
    assert found[f"{LONG}-500-3000"]["matching_score"] == []


def test_frames_files_and_embeddings_are_features(dataset, tmp_path):
    found = written(dataset, tmp_path / "out", frames=2, embeddings=True)
    assert found["plain-0-4000"]["clip"] == [b"a film"]
    frames = found[f"{DASHED}-12000-14000"]["frames"]
    assert [frame[:3] for frame in frames] == [b"\xff\xd8\xff"] * 2
    assert found["plain-0-4000"]["embedding"] == [1.0, 0.0]


def test_a_null_in_a_parallel_list_keeps_its_place(tmp_path):
    from beam_pipeline.export import ClipSample
    from beam_pipeline.export_tfrecord import encode, features_of

    captions = [{"teacher": "a", "matching_score": None}, {"teacher": None, "matching_score": 0.5}]
    names = ("model", "revision", "prompt_id", "caption", "fingerprint")
    row = {"captions": [{**dict.fromkeys(names, "x"), **one} for one in captions]}
    features = features_of(ClipSample(row))
    assert features["captions/teacher"] == [b"a", b""]
    assert [math.isnan(features["captions/matching_score"][0]), features["captions/matching_score"][1]] == [True, 0.5]
    assert encode(features) == encode(dict(reversed(features.items())))


def test_shards_are_numbered_listed_and_the_same_to_the_byte(dataset, tmp_path):
    arguments = ["export", dataset, "--to", "tfrecord", "--shard-clips", "4", "--frames", "2"]
    for name in ("a", "b"):
        assert main([*arguments, "--output", str(tmp_path / name)]) == 0
    told = json.loads((tmp_path / "a" / "shards.json").read_text())
    names = ["clips-000000.tfrecord", "clips-000001.tfrecord"]
    assert [(file["name"], file["clips"]) for file in told["files"]] == list(zip(names, [4, 2], strict=True))
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_what_was_taken_down_never_appears(tmp_path):
    folder = write_clips(tmp_path / "set")
    entomb(folder, DASHED, "plain")
    assert list(written(str(folder), tmp_path / "out")) == [f"{LONG}-500-3000"]


READ = """
import json, sys
import tensorflow as tf

features = {
    "clip_id": tf.io.FixedLenFeature([], tf.string),
    "caption": tf.io.FixedLenFeature([], tf.string),
    "start_ms": tf.io.FixedLenFeature([], tf.int64),
    "matching_score": tf.io.FixedLenFeature([], tf.float32, default_value=-1.0),
    "captions/caption": tf.io.RaggedFeature(tf.string),
    "frames": tf.io.RaggedFeature(tf.string),
}
dataset = tf.data.TFRecordDataset(sys.argv[1:]).map(lambda record: tf.io.parse_single_example(record, features))
for row in dataset:
    shapes = [tf.io.decode_jpeg(frame).shape.as_list() for frame in row["frames"]]
    print(json.dumps({
        "clip_id": row["clip_id"].numpy().decode(),
        "caption": row["caption"].numpy().decode(),
        "start_ms": int(row["start_ms"]),
        "score": float(row["matching_score"]),
        "captions": len(row["captions/caption"]),
        "frames": shapes,
    }))
"""


@pytest.mark.slow
def test_tensorflow_reads_the_records(dataset, tmp_path):
    if not (TENSORFLOW / ".installed").exists():
        pytest.skip("no .venv-tensorflow: `make tensorflow` builds it where Python 3.11 or 3.12 is there")
    written(dataset, tmp_path / "out", frames=2)
    files = sorted(map(str, (tmp_path / "out").glob("*.tfrecord")))
    command = [str(TENSORFLOW / "bin" / "python"), "-c", READ, *files]
    read = subprocess.run(command, capture_output=True, text=True, timeout=170, cwd=tmp_path)
    assert read.returncode == 0, read.stderr[-2000:]
    rows = {row.pop("clip_id"): row for row in map(json.loads, read.stdout.splitlines())}
    assert rows[f"{DASHED}-1000-9000"] == {
        "caption": HOSTILE, "start_ms": 1000, "score": float32(0.43), "captions": 2, "frames": [[36, 64, 3]] * 2,
    }  # fmt: skip
    assert rows[f"{LONG}-500-3000"] == {
        "caption": "a boat", "start_ms": 500, "score": -1.0, "captions": 1, "frames": [],
    }  # fmt: skip
    assert len(rows) == 6
