"""Clips source by source: every clip once, in an order of the ids alone, whatever runs wrote them and however many."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_rows import failed_rows, video_rows

from transforms import by_source
from transforms.by_source import Parts, SubsetError, clips_by_source, place_of
from transforms.committing import Committer
from transforms.lease import WriterLease
from transforms.tables import NoDataset, create_tables

NAMES = [f"video-{number:02d}" for number in range(40)]


def commit(folder, *rounds):
    for number, names in enumerate(rounds):
        with WriterLease(folder, f"r{number}"):
            Committer(folder).commit([video_rows(name, f"r{number}", n_clips=3) for name in names])
    return folder


def read(folder, **more):
    with clips_by_source(folder, ["caption"], ["uri"], **more) as sources:
        return [(source.video, source.clips.to_pylist()) for source in sources]


@pytest.fixture(params=["in memory", "on the disk"])
def room(request, monkeypatch):
    if request.param == "on the disk":
        monkeypatch.setattr(by_source, "_CLIPS_A_PART", 10)
        monkeypatch.setattr(Parts.__init__, "__defaults__", (1,))


def test_the_order_is_that_of_the_places_whatever_wrote_the_rows(tmp_path, room):
    once = read(commit(tmp_path / "once", NAMES), salt="7")
    bit_by_bit = read(commit(tmp_path / "more", NAMES[20:], NAMES[:20], NAMES[10:15]), salt="7")
    assert [video["video_id"] for video, _ in once] == sorted(NAMES, key=lambda name: place_of("7", name))
    assert once == bit_by_bit
    assert once[0][0] == {"uri": f"/videos/{once[0][0]['video_id']}.mp4", "video_id": once[0][0]["video_id"]}
    assert [clip["start_s"] for clip in once[0][1]] == [1.0, 11.0, 21.0]
    assert read(tmp_path / "once", salt="8") != once


def test_a_subset_leaves_its_clips_and_tells_which_are_gone(tmp_path, room):
    folder = commit(tmp_path / "set", NAMES)
    wanted = [("video-03_1000_9000", "video-03"), ("video-30_11000_19000", "video-30"), ("gone_0_1", "gone")]
    wanted.append(wanted[0])
    file = tmp_path / "some.parquet"
    pq.write_table(pa.table(list(zip(*wanted, strict=True)), ["clip_id", "video_id"]), file)
    with clips_by_source(folder, ["clip_id"], subset=str(file)) as sources:
        for _ in range(2):
            found = [clip["clip_id"] for source in sources for clip in source.clips.to_pylist()]
            assert (sorted(found), sources.absent) == (["video-03_1000_9000", "video-30_11000_19000"], 1)


def test_a_video_without_clips_is_no_source_and_an_empty_dataset_has_none(tmp_path):
    with WriterLease(tmp_path / "set", "r"):
        Committer(tmp_path / "set").commit([failed_rows("a"), video_rows("b")])
    assert [video["video_id"] for video, _ in read(tmp_path / "set")] == ["b"]
    create_tables(tmp_path / "empty")
    assert read(tmp_path / "empty") == []


def test_nothing_stays_on_the_disk(tmp_path, room, temporary):
    read(commit(tmp_path / "set", NAMES))
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"clip_id": ["a"]}, "has no text column video_id"),
        ({"clip_id": [1], "video_id": ["a"]}, "has no text column clip_id"),
        (None, "is no Parquet file that can be read"),
    ],
)
def test_a_file_that_names_no_clips_is_refused(tmp_path, columns, message):
    file = tmp_path / "some.parquet"
    file.write_text("clip_id\n") if columns is None else pq.write_table(pa.table(columns), file)
    with pytest.raises(SubsetError, match=message), clips_by_source(tmp_path, [], subset=str(file)):
        pass


def test_where_there_is_no_dataset_it_is_told(tmp_path):
    with pytest.raises(NoDataset), clips_by_source(tmp_path, []):
        pass
