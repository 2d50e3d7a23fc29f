"""De-duplication of what people upload twice: through the real models, to marks that a split goes by."""

import collections
import dataclasses
import os
import shutil

import pyarrow.parquet as pq
import pytest
import yaml
from lite_media import photographs
from synthetic import make_video

from beam_pipeline.cli import main
from beam_pipeline.config import load_config
from beam_pipeline.duplicates import check_duplicates, clear_marks, made_by, mark_duplicates
from beam_pipeline.split import PARTS, SplitOptions, split_dataset
from beam_pipeline.verify import verify
from transforms.finalising import finalise
from transforms.lease import WriterLease
from transforms.tables import Snapshot, read_table

#: Of efficientnet-lite0 (docs/duplicates.md).
THRESHOLD = 0.4
CONFIG = {
    "extends": "lite",
    "teachers": ["lite-frame"],
    "stitching": {"still_distance": None, "redundant_distance": None, "min_event_s": 1.0},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A video, its copy under another name, the same encoded anew, larger and worse, and one of something else."""
    folder = tmp_path_factory.mktemp("duplicates")
    uploads, seen = folder / "uploads", photographs()
    uploads.mkdir()
    shots = [(2.0, seen["cat"]), (2.0, seen["temple"])]
    make_video(uploads / "first.mp4", shots=shots)
    shutil.copyfile(uploads / "first.mp4", uploads / "again.mp4")
    make_video(uploads / "anew.mp4", shots=shots, size=(480, 270), options={"crf": "30", "preset": "veryfast"})
    make_video(uploads / "other.mp4", shots=[(2.0, seen["coffee"]), (2.0, seen["rocket"])])
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    arguments = ["--input", str(uploads), "--output", str(folder / "set"), "--config", str(folder / "config.yaml")]
    assert main(["curate", *arguments]) == 0
    return folder


def by_name(dataset):
    """The clips as (file's name, second at which it begins): what each is a duplicate of, and how far off."""
    rows = {row["clip_id"]: row for row in read_table(dataset, "clips").to_pylist()}
    names = {one: (os.path.basename(row["uri"]), int(row["start_s"])) for one, row in rows.items()}
    return {names[one]: (names.get(row["duplicate_of"]), row["duplicate_distance"]) for one, row in rows.items()}


def test_copies_and_what_was_encoded_anew_are_marked_and_stay_on_one_side_of_a_split(folder, tmp_path):
    dataset = str(folder / "set")
    config = load_config(file=str(folder / "config.yaml"))
    with WriterLease(dataset, "pass"):
        marked = mark_duplicates(dataset, THRESHOLD, made_by(config, dataset))
        finalise(dataset)
    assert (marked.clips, marked.duplicate_clips, marked.clusters) == (8, 4, 2)
    assert (marked.hashed, marked.duplicate_videos, marked.changed) == (2, 1, 6)
    found = by_name(dataset)
    for second in (0, 2):
        # The largest picture stands.
        assert [found[name, second][0] for name in ("anew.mp4", "first.mp4", "again.mp4", "other.mp4")] == [
            None, ("anew.mp4", second), ("anew.mp4", second), None,
        ]  # fmt: skip
        assert 0.01 < found["first.mp4", second][1] < THRESHOLD
        assert found["first.mp4", second][1] == pytest.approx(found["again.mp4", second][1], abs=1e-4)
    videos = {os.path.basename(row["uri"]): row for row in read_table(dataset, "videos").to_pylist()}
    assert videos["again.mp4"]["content_hash"] == videos["first.mp4"]["content_hash"]
    copied = [name for name in ("again.mp4", "first.mp4") if videos[name]["duplicate_of"]]
    (original,) = {"again.mp4", "first.mp4"} - set(copied)
    assert videos[copied[0]]["duplicate_of"] == videos[original]["video_id"]
    assert [videos[name]["content_hash"] for name in ("anew.mp4", "other.mp4")] == [None, None]
    assert verify(dataset) == []
    assert list(check_duplicates(Snapshot.open(dataset), collections.Counter(), orderly=True)) == []
    for seed in range(6):
        split_dataset(dataset, str(tmp_path / str(seed)), SplitOptions(val=0.3, test=0.3, seed=seed))
        tables = {part: pq.read_table(tmp_path / str(seed) / f"{part}.parquet") for part in PARTS}
        sides = {os.path.basename(uri): part for part in PARTS for uri in tables[part]["uri"].to_pylist()}
        assert len({sides[name] for name in ("first.mp4", "again.mp4", "anew.mp4")}) == 1


def test_a_run_over_the_same_videos_changes_no_mark_and_the_next_pass_nothing(folder):
    dataset = str(folder / "set")
    config = load_config(file=str(folder / "config.yaml"))
    with WriterLease(dataset, "pass"):
        mark_duplicates(dataset, THRESHOLD, made_by(config, dataset))
    before = by_name(dataset)
    arguments = ["--input", str(folder / "uploads"), "--output", dataset, "--config", str(folder / "config.yaml")]
    assert main(["curate", *arguments]) == 0
    assert by_name(dataset) == before
    with WriterLease(dataset, "pass"):
        assert mark_duplicates(dataset, THRESHOLD, made_by(config, dataset)).changed == 0
        assert clear_marks(dataset) == 0
        finalise(dataset)


def test_an_embedder_knows_its_clips_by_their_fingerprints_however_the_videos_were_cut(folder):
    dataset = str(folder / "set")
    videos = [(row["etag"], row["fingerprints"]["embed"]) for row in read_table(dataset, "videos").to_pylist()]
    # Other stitching rules than those of the run, which its record tells.
    lite = load_config("lite")
    assert [made_by(lite, dataset)(*video) for video in videos] == [True] * 4
    other = dataclasses.replace(lite, embedder=dataclasses.replace(lite.embedder, revision="another"))
    assert [made_by(other, dataset)(*video) for video in videos] == [False] * 4
