"""Clips for training: every one once over all ranks and workers, shuffled anew each epoch, with the right frames."""

import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_rows import video_rows
from deltalake import write_deltalake
from exported_dataset import DASHED, LONG, entomb, write_clips

from beam_pipeline.loading import ClipRows
from transforms.committing import Committer
from transforms.lease import WriterLease
from transforms.reel import Reel, ReelError
from transforms.schemas import CLIPS, rows_to_table
from transforms.tables import table_uri

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Of three runs: 23 clips that count, and leftovers of a run that was killed."""
    folder = tmp_path_factory.mktemp("loading") / "set"
    for run_id, names in (("r1", "abcd"), ("r2", "bef"), ("r3", "g")):
        with WriterLease(folder, run_id):
            Committer(folder).commit(
                [video_rows(f"v{name}", run_id, n_clips=5 if name == "g" else 3) for name in names]
            )
    leftover = rows_to_table(video_rows("vx", "killed").clips, CLIPS)
    write_deltalake(table_uri(folder, "clips"), leftover, mode="append")
    return folder


ALL = sorted(
    f"v{name}_{at * 10000 + 1000}_{at * 10000 + 9000}" for name in "abcdefg" for at in range(5 if name == "g" else 3)
)


def ids(rows):
    return [row["clip_id"] for row in rows]


@pytest.mark.parametrize("of", [1, 2, 6, 40])
@pytest.mark.parametrize("shuffle", [0, 5])
def test_every_clip_comes_to_one_shard(dataset, of, shuffle):
    rows = ClipRows(dataset, shuffle=shuffle)
    shards = [ids(rows.shard(number, of)) for number in range(of)]
    assert rows.count == 23
    assert sorted(clip for shard in shards for clip in shard) == ALL
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_files_with_leftovers_are_told_from_those_of_which_every_row_counts(dataset):
    committed = ClipRows(dataset)._committed
    partly = [file for file in committed.files if file not in committed.whole]
    # Of the first run's rows one video's are superseded.
    assert sorted(pq.read_table(file)["run_id"].unique().to_pylist() for file in partly) == [["killed"], ["r1"]]


@pytest.mark.parametrize(("of", "each"), [(1, 23), (2, 11), (6, 3), (40, 0)])
def test_even_shards_have_the_same_number(dataset, of, each):
    rows = ClipRows(dataset, even=True, shuffle=4)
    shards = [ids(rows.shard(number, of)) for number in range(of)]
    assert [len(shard) for shard in shards] == [each] * of
    assert len({clip for shard in shards for clip in shard}) == each * of


def test_an_epoch_is_shuffled_in_its_own_way_and_the_same_again(dataset):
    rows = ClipRows(dataset, shuffle=8, seed=3)
    orders = []
    for epoch in (0, 1, 0):
        rows.set_epoch(epoch)
        orders.append(ids(rows))
    assert orders[0] == orders[2] != orders[1]
    assert orders[0] != ids(ClipRows(dataset, shuffle=8, seed=4)) != ids(ClipRows(dataset))


def test_columns_are_those_asked_for_and_an_unknown_one_is_told(dataset):
    row = next(iter(ClipRows(dataset, ["caption", "start_s"])))
    assert row == {"caption": "a dog runs", "start_s": row["start_s"]}
    with pytest.raises(ValueError, match="clips have no column 'captoin'; there are clip_id, "):
        ClipRows(dataset, ["captoin"])


def test_a_subset_leaves_its_clips(dataset, tmp_path):
    file = tmp_path / "some.parquet"
    pq.write_table(pa.table({"clip_id": [*ALL[3:7], "gone"], "video_id": ["v"] * 5}), file)
    rows = ClipRows(dataset, subset=str(file))
    assert (rows.count, sorted(ids(rows))) == (4, ALL[3:7])


def test_frames_are_those_of_the_clip_and_files_are_named(tmp_path):
    folder = write_clips(tmp_path / "set")
    entomb(folder, LONG)
    rows = {row["clip_id"]: row for row in ClipRows(folder, ["clip_id"], frames=3, files=True)}
    assert len(rows) == 5
    frames = rows[f"{DASHED}-1000-9000"]["frames"]
    assert (frames.shape, frames.dtype) == ((3, 36, 64, 3), np.uint8)
    reel = Reel.open(str(folder / "reels" / f"{DASHED}.arrow"))
    assert np.array_equal(frames, np.stack(reel.frames([5, 10, 15])))
    assert rows["plain-0-4000"]["file"] == str(folder / "media" / "plain-0-4000.mp4")
    assert rows[f"{DASHED}-1000-9000"]["file"] is None


def test_a_missing_reel_is_told(dataset):
    with pytest.raises(ReelError, match=r"no readable reel at .*run curate again"):
        next(iter(ClipRows(dataset, frames=2)))


def test_a_dataset_in_a_bucket_is_read_alike(gcs, tmp_path):
    folder = write_clips(tmp_path / "set")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            gcs.put(f"set/{path.relative_to(folder)}", path.read_bytes())
    entomb(folder, LONG)
    gcs.put("set/runs/takedown-1.json", (folder / "runs" / "takedown-1.json").read_bytes())
    here = {row["clip_id"]: row["frames"].tobytes() for row in ClipRows(folder, frames=2)}
    assert {row["clip_id"]: row["frames"].tobytes() for row in ClipRows("gs://bucket/set", frames=2)} == here


class TestWithTorch:
    @pytest.fixture(autouse=True)
    def torch(self):
        return pytest.importorskip("torch", reason="needs the extra local")

    @pytest.mark.parametrize("workers", [0, 2])
    def test_a_loader_gives_every_clip_once(self, dataset, workers):
        from torch.utils.data import DataLoader

        from beam_pipeline.loading import TorchClips

        loader = DataLoader(TorchClips(dataset, shuffle=4), batch_size=4, num_workers=workers, collate_fn=list)
        for _ in range(2):
            assert sorted(ids(row for batch in loader for row in batch)) == ALL

    def test_frames_become_one_tensor_a_batch(self, torch, tmp_path):
        from torch.utils.data import DataLoader

        from beam_pipeline.loading import TorchClips

        folder = write_clips(tmp_path / "set")
        entomb(folder, LONG, "plain")
        (batch,) = DataLoader(TorchClips(folder, ["caption"], frames=2), batch_size=3)
        assert (batch["frames"].shape, batch["frames"].dtype) == ((3, 2, 36, 64, 3), torch.uint8)
        assert batch["caption"][2] == "a cat"

    def test_ranks_are_shared_out_among_evenly(self, torch, dataset, monkeypatch):
        from beam_pipeline.loading import TorchClips

        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
        seen = []
        for rank in range(2):
            monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
            seen.append(ids(TorchClips(dataset)))
        assert [len(shard) for shard in seen] == [11, 11]
        assert len({clip for shard in seen for clip in shard}) == 22

    def test_it_travels_to_a_worker_that_is_spawned(self, dataset, tmp_path):
        from beam_pipeline.loading import TorchClips

        (tmp_path / "clips").write_bytes(pickle.dumps(TorchClips(dataset, shuffle=3)))
        script = "import pickle, sys; print(*(row['clip_id'] for row in pickle.load(open(sys.argv[1], 'rb'))))"
        command = [sys.executable, "-c", script, str(tmp_path / "clips")]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
        assert (sorted(ended.stdout.split()), ended.returncode) == (ALL, 0), ended.stderr[-2000:]
