"""The splitting stage in a pipeline: one record or one dead letter a video, reels that are used again."""

import dataclasses
import errno
import fcntl
import os
import pickle
import signal
import threading
import time

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from synthetic import make_video, repeat_video

from transforms import child, objects
from transforms.child import Limits
from transforms.detection import SplittingConfig
from transforms.media_errors import MediaError, NotAFile, source_version
from transforms.objects import StorageError
from transforms.records import Cue, MediaFacts, Shot, Span, Video
from transforms.reel import Reel
from transforms.shots import DetectShots, SourceChanged, split_local
from transforms.splitting import split_video

SCENES = [(1.0, "red"), (2.0, "blue")]


def video_of(path, video_id: str) -> Video:
    return Video(video_id, str(path), source_version(str(path)), os.path.getsize(path))


def long_video(path):
    """Forty seconds: more than one to decode."""
    short = make_video(path.with_name("short.mp4"), [(2.0, "red")], size=(640, 360))
    return repeat_video(path, short, 20)


def run(videos: list[Video], reels) -> tuple[list, list, dict[str, int]]:
    """Run the stage; gather what comes out, and its counters."""
    split, failed = [], []
    pipeline = beam.Pipeline(runner="FnApiRunner", options=PipelineOptions([]))
    out = pipeline | beam.Create(videos) | DetectShots(SplittingConfig(), str(reels))
    folder = reels.parent
    _ = out.videos | "keep videos" >> beam.Map(_keep, str(folder / "videos"))
    _ = out.failed | "keep failed" >> beam.Map(_keep, str(folder / "failed"))
    result = pipeline.run()
    result.wait_until_finish()
    counters = {c.key.metric.name: c.committed for c in result.metrics().query()["counters"]}
    for kind, into in (("videos", split), ("failed", failed)):
        for name in sorted(os.listdir(folder / kind)) if (folder / kind).is_dir() else []:
            into.append(pickle.loads((folder / kind / name).read_bytes()))
            os.unlink(folder / kind / name)
    return split, failed, counters


def _keep(record, folder: str) -> None:
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, record.video.video_id), "wb") as file:
        pickle.dump(record, file)


def test_each_video_becomes_a_split_video_or_a_dead_letter(tmp_path):
    good = make_video(tmp_path / "good.mp4", SCENES, subtitles=[(0.5, 1.5, "Hello")])
    page = tmp_path / "page.mp4"
    page.write_bytes(b"<html></html>")
    videos = [video_of(good, "good"), video_of(page, "page")]

    split, failed, counters = run(videos, tmp_path / "reels")

    (one,) = split
    assert one.video == videos[0]
    assert one.media == MediaFacts(3.0, 320, 180, 25.0, "h264")
    assert one.shots == (Shot(0, 0, 25, 0.0, 1.0, 0.04, 0.92), Shot(1, 25, 75, 1.0, 3.0, 1.08, 2.88))
    assert one.embedded_cues == (Cue(0.5, 1.5, "Hello"),)
    assert (one.damage, one.damage_span, one.reel) == (None, None, str(tmp_path / "reels/good.arrow"))
    (two,) = failed
    letter = two.dead_letter
    assert (two.video, letter.stage, letter.video_id, letter.uri) == (videos[1], "split", "page", str(page))
    assert (letter.error_class, letter.message) == ("NotAVideo", f"{page} is a text file (a web page?), not a video")
    assert os.listdir(tmp_path / "reels") == ["good.arrow"]
    assert (counters["videos_split"], counters["videos_failed"], counters["decoded_seconds"]) == (1, 1, 3)


def test_the_reel_shows_each_shot_and_the_score_of_each_frame(tmp_path):
    split, _ = split_local(
        video_of(make_video(tmp_path / "a.mp4", SCENES), "a"), str(tmp_path), SplittingConfig(), Limits()
    )
    reel = Reel.open(split.reel)
    assert [reel.shots.count(shot.index) for shot in split.shots] == [pytest.approx(17, abs=1)] * 2
    assert {0.0, 0.04, 0.92, 1.0, 1.08, 2.88} <= {round(time_s, 6) for time_s in reel.times}
    red, blue = reel.frames_at([0.92, 1.0])
    assert red.shape == (180, 320, 3)
    assert (red.mean(axis=(0, 1)).argmax(), blue.mean(axis=(0, 1)).argmax()) == (0, 2)
    times, scores = reel.statistics()
    assert len(times) == 75 and scores.argmax() == 25 and scores[25] > 25 > scores[26:].max()


def test_a_reel_is_used_again_for_the_same_version_and_settings_only(tmp_path):
    path = make_video(tmp_path / "a.mp4", SCENES)
    first, reused = split_local(video_of(path, "a"), str(tmp_path), SplittingConfig(), Limits())
    assert not reused
    again, reused = split_local(video_of(path, "a"), str(tmp_path), SplittingConfig(), Limits())
    assert reused and again == first
    _, reused = split_local(video_of(path, "a"), str(tmp_path), SplittingConfig(reel_fps=3), Limits())
    assert not reused
    os.utime(path, ns=(1, 1))
    _, reused = split_local(video_of(path, "a"), str(tmp_path), SplittingConfig(reel_fps=3), Limits())
    assert not reused


def test_a_source_that_is_not_the_listed_version_is_refused(tmp_path):
    path = make_video(tmp_path / "a.mp4", SCENES)
    listed = video_of(path, "a")
    os.utime(path, ns=(1, 1))
    with pytest.raises(SourceChanged, match="changed since it was listed"):
        split_local(listed, str(tmp_path), SplittingConfig(), Limits())


def test_a_source_that_changes_while_it_is_read_leaves_no_reel(tmp_path):
    path = long_video(tmp_path / "a.mp4")
    child.decode("ping", {}, Limits())
    threading.Timer(0.2, os.utime, (path,), {"ns": (1, 1)}).start()
    with pytest.raises(SourceChanged, match="changed while it was read"):
        split_local(video_of(path, "a"), str(tmp_path / "reels"), SplittingConfig(), Limits())
    assert os.listdir(tmp_path / "reels") == []


def object_of(gcs, path, video_id: str) -> Video:
    generation = gcs.put(f"up/{path.name}", path.read_bytes())
    return Video(video_id, f"gs://bucket/up/{path.name}", generation, path.stat().st_size)


def test_an_object_is_split_like_the_same_file_and_its_copy_goes(gcs, tmp_path, temporary):
    path = make_video(tmp_path / "a.mp4", SCENES)
    video = object_of(gcs, path, "there")
    there, reused = split_local(video, str(tmp_path / "reels"), SplittingConfig(), Limits())
    here, _ = split_local(video_of(path, "here"), str(tmp_path / "reels"), SplittingConfig(), Limits())
    assert (there.video, there.shots, there.media, reused) == (video, here.shots, here.media, False)
    assert Reel.open(there.reel).etag == video.etag
    assert os.listdir(temporary) == []


def test_a_reel_of_an_object_is_used_again_without_asking_for_the_object(gcs, tmp_path, temporary):
    video = object_of(gcs, make_video(tmp_path / "a.mp4", SCENES), "a")
    first, _ = split_local(video, str(tmp_path), SplittingConfig(), Limits())
    gcs.asked.clear()
    again, reused = split_local(video, str(tmp_path), SplittingConfig(), Limits())
    assert (again, reused, gcs.asked) == (first, True, [])
    newer = dataclasses.replace(video, etag=gcs.put("up/a.mp4", (tmp_path / "a.mp4").read_bytes()))
    assert split_local(newer, str(tmp_path), SplittingConfig(), Limits())[1] is False


@pytest.mark.parametrize(
    ("change", "kind", "told"),
    [
        (lambda gcs: gcs.put("up/a.mp4", b"new"), SourceChanged, "changed since it was listed; run the command again"),
        (lambda gcs: gcs.remove("up/a.mp4"), NotAFile, "is not there any more (removed since it was listed)"),
        (lambda gcs: setattr(gcs, "refuse", 403), NotAFile, "may not be read (403"),
    ],
)
def test_an_object_that_is_not_as_it_was_listed_costs_that_video_and_leaves_nothing(
    gcs, tmp_path, temporary, change, kind, told
):
    video = object_of(gcs, make_video(tmp_path / "a.mp4", SCENES), "a")
    change(gcs)
    with pytest.raises(kind) as caught:
        split_local(video, str(tmp_path / "reels"), SplittingConfig(), Limits())
    assert str(caught.value).startswith(f"gs://bucket/up/a.mp4 {told}")
    assert os.listdir(temporary) == [] and not (tmp_path / "reels").exists()


@pytest.mark.parametrize(("content", "told"), [(b"", "is empty (0 bytes)"), (b"<html></html>", "is a text file")])
def test_what_is_wrong_with_an_object_is_told_of_the_object_not_of_its_copy(gcs, tmp_path, temporary, content, told):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(MediaError) as caught:
        split_local(object_of(gcs, tmp_path / "a.mp4", "a"), str(tmp_path), SplittingConfig(), Limits())
    assert str(caught.value).startswith(f"gs://bucket/up/a.mp4 {told}")
    assert os.listdir(temporary) == []


def test_a_full_disk_or_a_service_that_is_away_is_no_fault_of_the_video(gcs, tmp_path, temporary, monkeypatch):
    video = object_of(gcs, make_video(tmp_path / "a.mp4", SCENES), "a")
    with pytest.raises(OSError, match="has no room") as caught:
        split_local(dataclasses.replace(video, size_bytes=1 << 60), str(tmp_path), SplittingConfig(), Limits())
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.setattr(objects, "_RETRY_S", 0.1)
    gcs.refuse = 503
    with pytest.raises(StorageError, match=r"gs://bucket/up/a.mp4 cannot be read now"):
        split_local(video, str(tmp_path), SplittingConfig(), Limits())
    assert os.listdir(temporary) == []


def test_a_copy_that_a_killed_process_left_is_removed_by_the_next_one(gcs, tmp_path, temporary):
    left, used = temporary / "reelscribe-copy-left", temporary / "reelscribe-copy-used"
    for folder in (left, used):
        folder.mkdir()
        (folder / "video.mp4").write_bytes(b"x")
        os.utime(folder, (1, 1))
    holder = os.open(used, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    video = object_of(gcs, make_video(tmp_path / "a.mp4", SCENES), "a")
    split_local(video, str(tmp_path), SplittingConfig(), Limits())
    os.close(holder)
    assert os.listdir(temporary) == ["reelscribe-copy-used"]


def test_a_truncated_video_is_split_as_far_as_it_goes(tmp_path):
    whole = make_video(tmp_path / "a.mkv", [(4.0, "red"), (4.0, "blue")], drift_px=3)
    part = tmp_path / "part.mkv"
    part.write_bytes(whole.read_bytes()[: whole.stat().st_size * 3 // 4])
    split, _ = split_local(video_of(part, "part"), str(tmp_path), SplittingConfig(), Limits())
    assert split.damage.endswith("it is truncated or damaged")
    assert split.damage_span == Span(split.shots[-1].end_s, pytest.approx(8.0, abs=0.05))
    assert 4.0 < split.shots[-1].end_s < 7.0


def test_a_crashing_decoder_costs_one_video_and_the_next_gets_a_fresh_one(tmp_path):
    path = long_video(tmp_path / "a.mp4")
    child.close_idle()
    victim = child.decode("ping", {}, Limits())

    def crash():
        while not (tmp_path / "reels" / f".a.arrow.{victim}.tmp").exists():
            time.sleep(0.01)
        os.kill(victim, signal.SIGSEGV)

    threading.Thread(target=crash, daemon=True).start()
    _, failed, counters = run([video_of(path, "a")], tmp_path / "reels")
    assert [(f.dead_letter.error_class, f.dead_letter.message) for f in failed] == [
        ("DecoderCrashed", "the decoder was ended by SIGSEGV while it read this video")
    ]
    assert counters["videos_failed"] == 1 and os.listdir(tmp_path / "reels") == []
    split, failed, _ = run([video_of(make_video(tmp_path / "b.mp4", SCENES), "b")], tmp_path / "reels")
    assert [len(one.shots) for one in split] == [2] and failed == []


def test_limits_are_checked_when_the_pipeline_is_built():
    with pytest.raises(ValueError, match="stall_s must be more than 0"):
        DetectShots(SplittingConfig(), "reels", Limits(stall_s=0))


BROKEN = ["handmade/bitflips_mdat.mp4", "handmade/truncated_faststart.mp4", "decord/corrupted.mp4"]


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_stream_gives_the_same_reel_however_many_videos_share_the_cores(shared_dir, tmp_path, name):
    reels = []
    for number, sharing in enumerate((1, 1, 64)):
        path = str(tmp_path / f"{number}.arrow")
        split_video(str(shared_dir / "videos" / name), path, SplittingConfig(), etag="1-1", sharing=sharing)
        reel = Reel.open(path)
        scores = reel.statistics()[1].tolist()
        reels.append((reel.summary | {"decode_s": 0}, reel.jpegs(reel.within(0, 1e9)), scores))
    assert reels[0] == reels[1] == reels[2]
