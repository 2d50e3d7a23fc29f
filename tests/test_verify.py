import json
import os

import pyarrow.parquet as pq
import pytest
from dataset_rows import clip_row, failed_rows, failure_row, rejected_row, video_rows, whole

from beam_pipeline.verify import MOST_BREACHES, audit, verify
from transforms.committing import Committer, finalise
from transforms.lease import WriterLease
from transforms.reel import ReelWriter
from transforms.schemas import VideoRows
from transforms.tables import NoDataset, Snapshot


def dataset(directory, *videos, run_id="r1", **record):
    """A finished dataset of these videos; `record` goes into the record of its run."""
    with WriterLease(directory, run_id):
        Committer(directory).commit(list(videos))
        finalise(directory)
    if record:
        write_record(directory, run_id, **record)


def write_record(directory, run_id, **record):
    (directory / "runs").mkdir(exist_ok=True)
    whole_record = {"run_id": run_id, "started_at": "2024-01-01T00:00:00", "status": "done", **record}
    (directory / "runs" / f"{run_id}.json").write_text(json.dumps(whole_record))


def write_reel(directory, video_id, shots):
    summary = {"shots": [{"index": n, "start_s": start, "end_s": end} for n, (start, end) in enumerate(shots)]}
    with ReelWriter(str(directory / "reels" / f"{video_id}.arrow"), etag="1", settings="s") as reel:
        reel.finish(summary)


def changed(rows: VideoRows, **clip_columns):
    """The video with its first clip's columns changed."""
    first, *others = rows.clips
    return VideoRows(rows.video_id, rows.video, ({**first, **clip_columns}, *others), rows.rejected, rows.failures)


def video(video_id="a", **columns):
    """One shot of 10 s: a clip of it with its trims."""
    return whole(
        video_id,
        "r1",
        clips=[clip_row(video_id, "r1", 1.0, 9.0, "a dog runs")],
        rejected=[rejected_row(video_id, "r1", 0.0, 1.0), rejected_row(video_id, "r1", 9.0, 10.0)],
        **{"duration_s": 10.0, **columns},
    )


def test_a_sound_dataset_has_no_breach_and_is_counted(tmp_path):
    partial = [failure_row("p", "r1", "split", start_s=20.0, end_s=60.0)]
    damaged = whole("p", "r1", clips=[clip_row("p", "r1", 0.0, 5.0, "x")], failures=partial, status="partial")
    inputs = [
        {"video_id": "a", "outcome": "committed"},
        {"video_id": "b", "outcome": "failed"},
        {"video_id": "p", "outcome": "committed"},
    ]
    counts = {"inputs": 3, "committed": 2, "failed": 1}
    write_reel(tmp_path, "a", [(0.0, 10.0), (10.0, 20.0)])
    write_reel(tmp_path, "p", [(0.0, 5.0)])
    dataset(tmp_path, video_rows("a"), failed_rows("b"), damaged, inputs=inputs, counts=counts)
    found = audit(tmp_path)
    assert found.breaches == []
    assert found.counts == {
        "duplicate_clips": 0, "duplicate_videos": 0,
        "clips": 3, "failures": 3, "reels": 2, "rejected": 4, "runs": 1, "stray_files": 0, "taken_down": 0,
        "uncommitted": 0, "videos": 3, "videos_failed": 1, "videos_ok": 1, "videos_partial": 1,
    }  # fmt: skip
    assert found.describe().splitlines()[0::14] == ["clips                3", "no breach"]


def test_there_is_nothing_to_verify_where_there_is_no_dataset(tmp_path):
    with pytest.raises(NoDataset):
        verify(tmp_path)


def test_an_unusual_but_sound_video_is_no_breach(tmp_path):
    # An event that is too long: a clip, its two trims, and the tail; then a shot whose embedding failed; a clip that
    # nobody could caption, with two letters; and a selector's failure that did not cost its clip.
    rows = whole(
        "a",
        "r1",
        clips=[clip_row("a", "r1", 6.0, 54.0, "long")],
        rejected=[
            rejected_row("a", "r1", 0.0, 6.0),
            rejected_row("a", "r1", 54.0, 60.0),
            rejected_row("a", "r1", 60.0, 75.0, "max_length"),
        ],
        failures=[
            failure_row("a", "r1", "embed", start_s=75.0, end_s=80.0004),
            failure_row("a", "r1", "caption", clip_id="a_80000_90000", start_s=80.0, end_s=90.0),
            failure_row("a", "r1", "join", clip_id="a_80000_90000", start_s=80.0, end_s=90.0),
            failure_row("a", "r1", "score", clip_id="a_6000_54000", start_s=6.0, end_s=54.0),
            failure_row("a", "r1", "split", start_s=90.0, end_s=200.0),
        ],
        status="partial",
        n_shots=20,
        duration_s=200.0,
    )
    write_reel(tmp_path, "a", [(0.0, 75.0), (75.0, 90.0)])
    dataset(tmp_path, rows)
    assert verify(tmp_path) == []


SPAN_BREACHES = {
    "a gap": (
        whole("a", "r1", rejected=[rejected_row("a", "r1", 0.0, 1.0), rejected_row("a", "r1", 1.5, 2.0)]),
        ["a: nobody says what became of 1.000-1.500 s"],
    ),
    "an overlap": (
        whole("a", "r1", rejected=[rejected_row("a", "r1", 0.0, 1.0), rejected_row("a", "r1", 0.5, 2.0)]),
        ["a: the span 0.500-2.000 s overlaps the one that ends at 1.000 s"],
    ),
    "an empty span": (
        whole("a", "r1", rejected=[rejected_row("a", "r1", 0.0, 1.0), rejected_row("a", "r1", 1.0, 1.0)]),
        ["a: the span 1.000-1.000 s has no length"],
    ),
    "shots without spans": (
        whole("a", "r1", n_shots=3),
        ["a: of its 3 shots no span is left, neither accepted nor rejected nor failed"],
    ),
    "spans without shots": (
        whole("a", "r1", rejected=[rejected_row("a", "r1", 0.0, 1.0)], n_shots=0),
        ["a: it has 1 spans, but n_shots is 0"],
    ),
    "a clip beyond the end": (video(duration_s=8.0), ["a: the clip 1.000-9.000 s is not inside its video"]),
    "ok in spite of a failure": (
        whole("a", "r1", failures=[failure_row("a", "r1", "split")]),
        ["a: status ok, yet 1 dead letters are of the video or of its spans"],
    ),
    "partial for no reason": (
        video(status="partial"),
        ["a: status partial, and no dead letter says what is missing"],
    ),
    "failed for no reason": (whole("a", "r1", status="failed"), ["a: it failed, and no dead letter says why"]),
}


@pytest.mark.parametrize("case", SPAN_BREACHES)
def test_spans_that_do_not_tile_are_breaches(tmp_path, case):
    rows, expected = SPAN_BREACHES[case]
    dataset(tmp_path, rows)
    assert verify(tmp_path) == expected


CLIP_BREACHES = {
    "its caption is empty": ({"caption": " "}, "a_1000_9000: its caption is none of lite-frame's candidates"),
    "its caption is none of lite-text's candidates": ({"teacher": "lite-text"}, None),
    "its margin is -0.5, so another candidate was better": ({"margin": -0.5}, None),
    "its timestamp says '0:00:02.000', its span 1.000 s": ({"timestamp": ["0:00:02.000", "0:00:09.000"]}, None),
    "its timestamp says 'soon', its span 9.000 s": ({"timestamp": ["0:00:01.000", "soon"]}, None),
    "its timestamp has 1 entries, not 2": ({"timestamp": ["0:00:01.000"]}, None),
    "duration_s is 7.0, but its span is 8.000 s long": ({"duration_s": 7.0}, None),
}


@pytest.mark.parametrize("said", CLIP_BREACHES)
def test_clips_that_contradict_themselves_are_breaches(tmp_path, said):
    columns, also = CLIP_BREACHES[said]
    dataset(tmp_path, changed(video(), **columns))
    assert verify(tmp_path) == [f"a_1000_9000: {said}", *([also] if also else [])]


def test_ids_that_stand_twice_and_lengths_that_differ_are_breaches(tmp_path):
    dataset(tmp_path, video("a"), changed(video("b"), clip_id="a_1000_9000", embedding=[1.0]))
    assert verify(tmp_path) == [
        "clips: embeddings of different lengths: 1, 2",
        "clips: clip_id a_1000_9000 stands 2 times",
    ]


def test_counts_that_do_not_add_up_are_breaches(tmp_path):
    with WriterLease(tmp_path, "r1"):
        committer = Committer(tmp_path)
        rows = video()
        miscounted = VideoRows("a", {**rows.video, "n_clips": 5, "n_rejected": 1, "n_failures": 2}, rows.clips)
        committer._append("clips", [rows])
        committer._append("rejected", [rows])
        committer._publish([miscounted], replacing=False)
        assert verify(tmp_path) == [
            "a: n_clips is 5, but there are 1",
            "a: n_rejected is 1, but there are 2",
            "a: n_failures is 2, but there are 0",
        ]


def test_spans_must_reach_as_far_as_the_reels_shots(tmp_path):
    write_reel(tmp_path, "a", [(0.0, 5.0), (5.0, 12.0)])
    dataset(tmp_path, video(duration_s=12.0))
    assert verify(tmp_path) == [
        "a: its spans reach from 0.000 to 10.000 s, but the splitter found shots from 0.000 to 12.000 s"
    ]


def test_a_reel_that_is_broken_or_missing_is_a_breach_unless_reels_were_dropped(tmp_path):
    (tmp_path / "reels").mkdir()
    (tmp_path / "reels" / "a.arrow").write_bytes(b"no reel")
    dataset(tmp_path, video("a"), video("b"), options={"keep_reels": True})
    broken, missing = verify(tmp_path)
    assert broken.startswith(f"a: no readable reel at {tmp_path / 'reels' / 'a.arrow'}")
    assert missing == "b: its reel is missing from reels/"
    os.unlink(tmp_path / "reels" / "a.arrow")
    write_record(tmp_path, "r2", started_at="2024-01-02T00:00:00", options={"keep_reels": False})
    assert verify(tmp_path) == []


def test_a_truncated_file_is_a_breach(tmp_path):
    dataset(tmp_path, video())
    (path,) = (tmp_path / "clips").glob("*.parquet")
    path.write_bytes(path.read_bytes()[:-100])
    (breach,) = verify(tmp_path)
    assert breach.startswith(f"clips: {path.name} can't be read: ")


def test_a_missing_file_is_a_breach(tmp_path):
    dataset(tmp_path, video())
    (path,) = (tmp_path / "rejected").glob("*.parquet")
    path.unlink()
    with pytest.raises(FileNotFoundError):
        list(Snapshot.open(tmp_path).scan("rejected"))
    assert verify(tmp_path) == [f"rejected: the table's file {path.name} is missing"]


def test_a_file_with_other_types_is_a_breach(tmp_path):
    dataset(tmp_path, video())
    (path,) = (tmp_path / "rejected").glob("*.parquet")
    table = pq.read_table(path)
    pq.write_table(table.set_column(1, "start_s", table["start_s"].cast("float")), path)
    assert verify(tmp_path) == [f"rejected: {path.name} has not the table's columns and types: start_s"]


def test_stray_files_and_uncommitted_rows_are_breaches_only_after_a_writer_left_in_good_order(tmp_path):
    dataset(tmp_path, video())
    with pytest.raises(KeyboardInterrupt), WriterLease(tmp_path, "r2"):
        Committer(tmp_path)._append("clips", [video("never")])
        (tmp_path / "clips" / "part-1.parquet").write_bytes(b"staged")
        raise KeyboardInterrupt
    assert verify(tmp_path) == []
    counts = audit(tmp_path).counts
    assert (counts["uncommitted"], counts["stray_files"], counts["clips"]) == (1, 1, 1)
    (tmp_path / ".lease").unlink()
    assert verify(tmp_path) == [
        "clips: part-1.parquet is no file of the table, but readers of the folder see it",
        "clips: 1 rows of no committed video, which readers of the files see",
    ]
    with WriterLease(tmp_path, "r3"):
        finalise(tmp_path)
    assert verify(tmp_path) == []


def test_a_run_that_did_not_finish_need_not_account_for_its_inputs(tmp_path):
    dataset(tmp_path, video(), status="interrupted", inputs=[{"video_id": "z", "outcome": "pending"}])
    assert verify(tmp_path) == []


RUN_BREACHES = {
    "another outcome": ([("a", "pending")], {}, ["runs/r1: inputs have the outcome 'pending'"]),
    "a count": ([("a", "committed")], {"inputs": 2}, ["runs/r1: it counts 2 inputs, but lists 1"]),
    "an input twice": (
        [("a", "committed"), ("a", "unchanged")],
        {},
        ["runs/r1: the input a is listed 2 times"],
    ),
    "an input that is nowhere": ([("z", "committed")], {}, ["runs/r1: the input z has no row in videos"]),
    "a failure that was none": ([("a", "failed")], {}, ["runs/r1: a is listed as failed, its status is ok"]),
}


@pytest.mark.parametrize("case", RUN_BREACHES)
def test_runs_that_do_not_account_for_their_inputs_are_breaches(tmp_path, case):
    inputs, counts, expected = RUN_BREACHES[case]
    listed = [{"video_id": video_id, "outcome": outcome} for video_id, outcome in inputs]
    dataset(tmp_path, video(), inputs=listed, counts=counts, options={"keep_reels": False})
    assert verify(tmp_path) == expected


def write_takedown(directory, *videos, run_id="takedown-1", status="done", started_at="2024-02-01T00:00:00"):
    write_record(directory, run_id, status=status, started_at=started_at, videos=list(videos))


def test_inputs_that_were_taken_down_have_no_row_and_are_counted(tmp_path):
    inputs = [{"video_id": video_id, "uri": None, "outcome": "committed"} for video_id in ("a", "gone", "lost")]
    dataset(tmp_path, video(), inputs=inputs, options={"keep_reels": False}, counts={"inputs": 3})
    write_takedown(tmp_path, "gone", "never-there")
    assert verify(tmp_path) == ["runs/r1: the input lost has no row in videos"]
    assert audit(tmp_path).counts["taken_down"] == 2


def test_whatever_is_left_of_a_video_that_was_taken_down_is_a_breach(tmp_path):
    write_reel(tmp_path, "a", [(0.0, 10.0)])
    (tmp_path / "media").mkdir()
    for name in ("a-1000-9000.mp4", "b-1000-9000.mp4"):
        (tmp_path / "media" / name).write_bytes(b"pictures")
    dataset(tmp_path, video("a"), video("b"), options={"keep_reels": False})
    write_takedown(tmp_path, "a")
    again = f"run: reelscribe takedown {tmp_path} --video=a"
    assert verify(tmp_path) == [
        "media: a-1000-9000.mp4 is no clip's file",
        "media: b-1000-9000.mp4 is no clip's file",
        f"a: it was taken down, yet clips has 1 rows of it; {again}",
        f"a: it was taken down, yet rejected has 2 rows of it; {again}",
        f"a: it was taken down, yet videos has 1 rows of it; {again}",
        f"a: it was taken down, yet reels/ has a.arrow; {again}",
        f"a: it was taken down, yet media/ has a-1000-9000.mp4; {again}",
    ]


def test_a_takedown_that_was_cut_short_is_accepted_until_another_run_left_in_good_order(tmp_path):
    dataset(tmp_path, video("a"), video("b"))
    write_takedown(tmp_path, "b", status="running")
    assert verify(tmp_path) == []
    write_record(tmp_path, "r2", started_at="2024-03-01T00:00:00")
    again = f"run: reelscribe takedown {tmp_path} --video=b"
    assert verify(tmp_path) == [f"runs/takedown-1: it did not finish; {again}"]
    # The second takedown of a video that had come back: its first one finished long ago.
    write_takedown(tmp_path, "b", run_id="takedown-0", started_at="2024-01-15T00:00:00")
    assert verify(tmp_path) == [f"runs/takedown-1: it did not finish; {again}"]
    # Begun in the very second in which the last run did.
    write_takedown(tmp_path, "b", status="running", started_at="2024-03-01T00:00:00")
    assert verify(tmp_path) == []


@pytest.mark.parametrize("videos", [None, "all"])
def test_a_takedown_that_does_not_say_of_what_is_a_breach(tmp_path, videos):
    dataset(tmp_path, video())
    write_record(tmp_path, "takedown-1", **({} if videos is None else {"videos": videos}))
    (breach,) = verify(tmp_path)
    assert breach.startswith("runs/takedown-1.json: it can't be read: ")


def test_a_run_record_that_is_no_json_is_a_breach(tmp_path):
    dataset(tmp_path, video())
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "r1.json").write_text("{")
    (breach,) = verify(tmp_path)
    assert breach.startswith("runs/r1.json: it can't be read: JSONDecodeError: ")


def test_a_thousand_breaches_are_enough(tmp_path):
    rows = [whole(f"v{number}", "r1", n_shots=1) for number in range(MOST_BREACHES + 5)]
    dataset(tmp_path, *rows)
    breaches = verify(tmp_path)
    assert len(breaches) == MOST_BREACHES + 1
    assert breaches[-1] == "and perhaps more: stopped after 1000 breaches"
