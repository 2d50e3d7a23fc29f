"""Opening and decoding: times, sizes, subtitles, damage, and a plain sentence for whatever is no video."""

import os
import pathlib
from fractions import Fraction

import cv2
import numpy as np
import pytest
from synthetic import make_video

from transforms import media_errors
from transforms.embedded import plain
from transforms.media import Media, Unsteady, local_path, open_media, steadily
from transforms.records import Cue, Span

SCENES = [(1.0, "red"), (1.0, "blue")]


def read(path) -> tuple[Media, list[float]]:
    with open_media(str(path)) as media:
        times = [picture.time_s for picture in media.pictures()]
        media.damage_found = media.damage()
    return media, times


def test_times_are_presentation_times_of_each_frame(tmp_path):
    media, times = read(make_video(tmp_path / "a.mp4", SCENES, fps=Fraction(30000, 1001)))
    assert times == pytest.approx([n * 1001 / 30000 for n in range(60)])
    facts = media.facts()
    assert (facts.duration_s, facts.width, facts.height, facts.codec) == (
        pytest.approx(60 * 1.001 / 30),
        320,
        180,
        "h264",
    )
    assert facts.fps == pytest.approx(29.97003)
    assert media.damage_found is None


def test_variable_rate_keeps_the_times_of_the_file(tmp_path):
    path = make_video(tmp_path / "vfr.mkv", SCENES, times=lambda n: n / 25 if n < 25 else 1 + (n - 25) / 10)
    _, times = read(path)
    assert times == pytest.approx([*(n / 25 for n in range(25)), *(1 + n / 10 for n in range(25))], abs=0.001)


def test_a_late_start_is_told_as_the_file_tells_it(tmp_path):
    media, times = read(make_video(tmp_path / "late.mkv", SCENES, start_s=100))
    assert (times[0], times[-1]) == (100.0, pytest.approx(101.96))
    assert (media.start_s, media.end_s) == (100.0, pytest.approx(102.0, abs=0.002))
    assert media.damage_found is None


def test_sizes_are_as_displayed_with_the_pixels_aspect(tmp_path):
    media, _ = read(make_video(tmp_path / "wide.mp4", SCENES, aspect=Fraction(4, 3)))
    assert (media.facts().width, media.facts().height) == (427, 180)


def test_pictures_are_those_that_opencv_reads(tmp_path):
    path = make_video(tmp_path / "a.mp4", SCENES)
    reader = cv2.VideoCapture(str(path))
    with open_media(str(path)) as media:
        differing = [p.index for p in media.pictures() if not np.array_equal(p.bgr(), reader.read()[1])]
    assert differing == []


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm"])
def test_embedded_subtitles_come_as_plain_cues_in_the_same_pass(tmp_path, name):
    path = make_video(
        tmp_path / name,
        SCENES,
        codec="libvpx" if name.endswith("webm") else "libx264",
        subtitles=[(0.5, 0.9, "Hello <i>you</i>"), (1.0, 1.8, "A &amp; B")],
    )
    media, times = read(path)
    assert len(times) == 50
    assert [(round(c.start_s, 3), round(c.end_s, 3), c.text) for c in media.cues] == [
        (0.5, 0.9, "Hello you"),
        (1.0, 1.8, "A & B"),
    ]


def test_markup_and_entities_are_taken_off_subtitles():
    assert plain("{\\an8}<b>One</b>\n\n  two &lt;3 ") == "One\ntwo <3"


def test_a_file_cut_off_in_the_middle_keeps_its_good_part_and_names_the_missing_span(tmp_path):
    whole = make_video(
        tmp_path / "a.mkv", [(4.0, "red"), (4.0, "blue")], drift_px=3, options={"preset": "ultrafast", "g": "25"}
    )
    part = tmp_path / "part.mkv"
    part.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    media, times = read(part)
    text, span = media.damage_found
    assert 0 < len(times) < 180
    assert span == Span(media.end_s, pytest.approx(8.0, abs=0.05))
    assert text.startswith("the video should last until 8.0") and text.endswith("it is truncated or damaged")


def test_sound_that_outlasts_the_pictures_is_no_damage(tmp_path):
    media, _ = read(make_video(tmp_path / "a.mkv", SCENES, audio_s=6.0))
    assert media.damage_found is None


def test_corrupt_packets_are_passed_over_counted_and_timed(tmp_path):
    path = make_video(tmp_path / "a.avi", [(4.0, "red")], codec="mjpeg", pix_fmt="yuvj420p")
    raw = bytearray(path.read_bytes())
    starts = [n for n in range(len(raw) - 3) if raw[n : n + 3] == b"\xff\xd8\xff"]
    raw[starts[50] : starts[50] + 300] = b"\x00" * 300
    path.write_bytes(raw)
    media, times = read(path)
    assert (media.corrupt_packets, round(media.first_corrupt_s, 2)) == (1, 2.0)
    told = "a packet at 2.00 s could not be decoded: frames are missing or patched"
    assert (len(times), media.damage_found) == (99, (told, None))


def bytes_of(video: pathlib.Path, kind: str) -> bytes:
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{video}\n#EXT-X-ENDLIST\n".encode()
    return {
        "empty": b"",
        "page": b"<!DOCTYPE html><html></html>",
        "noise": np.random.default_rng(1).bytes(20_000),
        "hls": playlist,
        "concat": f"ffconcat version 1.0\nfile '{video}'\n".encode(),
        "picture": cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))[1].tobytes(),
        "no index": video.read_bytes()[: video.stat().st_size // 2],
    }[kind]


@pytest.mark.parametrize(
    "kind, error, words",
    [
        ("empty", media_errors.NotAVideo, "is empty"),
        ("page", media_errors.NotAVideo, "is a text file"),
        ("noise", media_errors.NotAVideo, "is no video of a known container"),
        ("hls", media_errors.NotAVideo, "is a playlist"),
        ("concat", media_errors.NotAVideo, "is a playlist"),
        ("picture", media_errors.NotAVideo, "is no video of a known container"),
        ("no index", media_errors.TruncatedVideo, "breaks off before its index"),
    ],
)
@pytest.mark.parametrize("name", ["x.mp4", "x.m3u8"])
def test_what_is_no_video_is_refused_in_a_plain_sentence(tmp_path, kind, error, words, name):
    video = make_video(tmp_path / "a.mp4", [(1.0, "red")])
    odd = tmp_path / name
    odd.write_bytes(bytes_of(video, kind))
    with pytest.raises(error, match=words), open_media(str(odd)) as media:
        list(media.pictures())


def test_a_file_without_pictures_is_refused(tmp_path):
    path = tmp_path / "sound.mp4"
    import av

    with av.open(str(path), "w") as out:
        sound = out.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    with pytest.raises(media_errors.NoVideoStream, match="has no video stream, only audio"), open_media(str(path)):
        pass


def test_only_regular_files_of_this_machine_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (tmp_path, tmp_path / "pipe.mp4", tmp_path / "missing.mp4", "/dev/zero", "concat:a|b", "a\0b"):
        with pytest.raises(media_errors.NotAFile), open_media(str(path)):
            pass


def test_a_file_called_like_an_address_is_only_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_video(tmp_path / "a.mp4", [(0.4, "red")]).rename(tmp_path / "concat:a|b.mp4")
    assert len(read("concat:a|b.mp4")[1]) == 10


def test_file_uris_are_decoded_and_others_refused():
    assert local_path("file:///videos/a%20b%23.mp4") == "/videos/a b#.mp4"
    assert local_path("/videos/100%.mp4") == "/videos/100%.mp4"
    for uri in ("gs://bucket/a.mp4", "file://host/a.mp4", "https://example.org/a.mp4"):
        with pytest.raises(media_errors.NotAFile):
            local_path(uri)


def test_real_subtitles_rotation_and_stream_choice(shared_dir):
    videos = shared_dir / "videos"
    media, _ = read(videos / "exoplayer/sample_with_null_terminated_srt.mkv")
    assert media.cues == [Cue(0.0, 1.234, "This is the first")]
    media, times = read(videos / "torchcodec/nasa_13013.mp4")
    assert (len(times), media.facts().width, len(media.cues)) == (325, 320, 4)
    media, _ = read(videos / "handmade/rotated90_meta.mp4")
    assert (media.facts().width, media.facts().height) == (272, 640)
    media, times = read(videos / "exoplayer/video_desks.3gp")
    assert len(times) > 0 and media.damage_found is None


def test_real_damage_is_found(shared_dir):
    media, times = read(shared_dir / "videos/handmade/truncated_faststart.mp4")
    assert (len(times), media.damage_found[1]) == (69, Span(2.8, 4.0))
    for name in ("handmade/bitflips_mdat.mp4", "decord/corrupted.mp4"):
        media, _ = read(shared_dir / "videos" / name)
        assert (media.corrupt_packets, media.damage_found[1]) == (1, None)


def test_decoding_threads_share_the_cores_and_a_broken_stream_gets_one():
    cores = len(os.sched_getaffinity(0))
    asked = []

    def decode(threads: int) -> str:
        asked.append(threads)
        if threads > 1:
            raise Unsteady
        return "steady"

    assert steadily(decode, sharing=2 * cores) == "steady" and asked == [1]
    assert steadily(decode, sharing=1) == "steady" and asked[1:] == ([1] if cores == 1 else [cores + 1, 1])
