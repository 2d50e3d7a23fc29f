"""The sound of a video: where it is heard, whatever the file makes of its times, and what is left of broken sound."""

import dataclasses
import pathlib
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from sounding import Stretch, bursts, make_sounding
from synthetic import make_video

from transforms import sound_track
from transforms.child import DecoderStalled, Limits
from transforms.media_errors import NotAFile, SourceChanged, UndecodableSound, source_version
from transforms.records import MediaFacts, Shot, SplitVideo, Video
from transforms.sound import sound_of

RATE = 16_000
ONCE = (Stretch(0.0, 3.0, 1.0),)
#: It begins late, and there is none from 2.7 s to 4 s.
WITH_A_GAP = (Stretch(0.7, 2.0, 0.5), Stretch(4.0, 2.0, 0.25))


def split_of(path: pathlib.Path | str, until_s: float = 6.0, **changes: object) -> SplitVideo:
    """A video of one shot."""
    uri = str(path)
    video = Video("v", uri, source_version(uri) if pathlib.Path(uri).exists() else "", 1)
    shot = Shot(0, 0, round(25 * until_s), 0.0, until_s, 0.0, until_s)
    return SplitVideo(
        dataclasses.replace(video, **changes), MediaFacts(until_s, 64, 36, 25.0, "mpeg4"), (shot,), "/reels/v.arrow"
    )


def heard(split: SplitVideo, limits: Limits | None = None) -> np.ndarray:
    """All of it in one piece."""
    with sound_of(split, limits) as chunks:
        return np.concatenate([np.zeros(0, np.float32), *chunks])


def written(path: pathlib.Path, out: pathlib.Path, until_s: float = 6.0) -> tuple[np.ndarray, dict[str, int]]:
    """What the decoding process writes, without the process."""
    told = sound_track.write_sound(str(path), str(out), until_s)
    return np.fromfile(out, np.int16) / 32_768, told


@pytest.mark.parametrize(
    ("name", "codec", "rate", "layout", "stretches", "expected"),
    [
        ("a.mp4", "aac", 44_100, "stereo", ONCE, [1.0]),
        ("a.mp4", "aac", 44_100, "stereo", WITH_A_GAP, [1.2, 4.25]),
        ("a.mp4", "aac", 48_000, "mono", WITH_A_GAP, [1.2, 4.25]),
        ("a.mp4", "libmp3lame", 44_100, "stereo", WITH_A_GAP, [1.2, 4.25]),
        ("a.mkv", "pcm_s16le", 48_000, "stereo", WITH_A_GAP, [1.2, 4.25]),
        ("a.mkv", "pcm_s16le", 16_000, "mono", WITH_A_GAP, [1.2, 4.25]),
        ("a.mkv", "aac", 22_050, "mono", WITH_A_GAP, [1.2, 4.25]),
        ("a.webm", "libopus", 48_000, "stereo", WITH_A_GAP, [1.2, 4.25]),
        ("a.ts", "aac", 48_000, "stereo", WITH_A_GAP, [1.2, 4.25]),
        ("a.avi", "pcm_s16le", 48_000, "stereo", ONCE, [1.0]),
    ],
)
def test_sound_is_heard_when_it_is_heard_to_a_millisecond(tmp_path, name, codec, rate, layout, stretches, expected):
    path = make_sounding(tmp_path / name, stretches, codec=codec, rate=rate, layout=layout)
    sound, told = written(path, tmp_path / "out")
    # WebM's clock ticks in milliseconds.
    assert bursts(sound) == pytest.approx(expected, abs=0.002 if name.endswith("webm") else 0.001)
    assert (told["samples"], told["broken"]) == (len(sound), 0)
    # Resampled, it is a tone of 1000 Hz still, and of the same loudness.
    burst = sound[round(expected[0] * RATE) + 800 :][:4800]
    assert np.argmax(np.abs(np.fft.rfft(burst))) * RATE / len(burst) == pytest.approx(1000, abs=4)
    assert np.abs(burst).max() == pytest.approx(0.5, abs=0.03)


def test_two_channels_are_mixed_evenly_and_never_clip(tmp_path):
    left = make_sounding(tmp_path / "left.mkv", [Stretch(0, 1, 0.2, left=0.5, right=0.0)], codec="pcm_s16le")
    assert np.abs(written(left, tmp_path / "out")[0]).max() == pytest.approx(0.25, abs=0.005)
    full = make_sounding(tmp_path / "full.mkv", [Stretch(0, 1, 0.2, left=0.99, right=0.99)], codec="pcm_s16le")
    assert np.abs(written(full, tmp_path / "out")[0]).max() == pytest.approx(0.99, abs=0.01)


def test_what_is_before_the_files_zero_or_behind_the_last_shot_is_not_heard(tmp_path):
    path = make_sounding(tmp_path / "a.mkv", [Stretch(0.0, 5.0, 1.0)], codec="pcm_s16le")
    sound, _ = written(path, tmp_path / "out", until_s=1.25)
    assert (len(sound), bursts(sound)) == (20_000, pytest.approx([1.0], abs=0.001))
    assert len(seconds_at([-4000], tmp_path / "out")) == 12_000


def seconds_at(begins: list[int], out: pathlib.Path) -> np.ndarray:
    """What is written of frames of a second each that begin at these samples; the nth is a steady n thousand."""
    with open(out, "wb") as file:
        track = sound_track._Track(file, 100 * RATE)
        for number, begin in enumerate(begins, 1):
            frame = av.AudioFrame.from_ndarray(np.full((1, RATE), 1000 * number, np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts = RATE, begin
            track.add(frame, Fraction(1, RATE))
        track.finish()
    return np.fromfile(out, np.int16)


def test_times_that_step_back_go_on_from_where_the_sound_was(tmp_path):
    sound = seconds_at([0, RATE, -40 * RATE, -38 * RATE], tmp_path / "out")
    # Behind the step there is a gap of a second, which stays.
    assert [int(sound[round(s * RATE)]) for s in (0.5, 1.5, 2.5, 3.5, 4.5)] == [1000, 2000, 3000, 0, 4000]
    assert len(sound) == 5 * RATE


def test_damaged_sound_is_heard_as_far_as_it_decodes_and_when_it_is_heard(tmp_path):
    # Not from zero on: the encoder's own beginning would be before it, and MPEG-TS would put all pictures off by that.
    stretches = [Stretch(n + 0.1, 1.0, 0.1) for n in range(6)]
    path = make_sounding(tmp_path / "a.ts", stretches, rate=48_000)
    content = bytearray(path.read_bytes())
    # Of the third sixth nothing is left but the packets' marks.
    for begin in range(len(content) // 3 // 188 * 188, len(content) // 2, 188):
        content[begin + 4 : begin + 188] = bytes(184)
    path.write_bytes(content)
    sound, _ = written(path, tmp_path / "out")
    found = bursts(sound)
    assert 3 <= len(found) <= 5
    assert [one % 1 for one in found] == pytest.approx([0.2] * len(found), abs=0.001)


def test_a_video_without_sound_is_silent_and_no_failure(tmp_path):
    assert len(heard(split_of(make_video(tmp_path / "a.mp4", [(1.0, "red")])))) == 0


def test_chunks_are_what_a_speech_model_takes_and_leave_nothing_behind(tmp_path, temporary):
    path = make_sounding(tmp_path / "a.mp4", WITH_A_GAP, rate=44_100)
    with sound_of(split_of(path)) as chunks:
        assert len(list(temporary.iterdir())) == 1
        found = list(chunks)
    assert {(chunk.dtype, chunk.ndim) for chunk in found} == {(np.dtype(np.float32), 1)}
    assert bursts(np.concatenate(found)) == pytest.approx([1.2, 4.25], abs=0.001)
    assert list(temporary.iterdir()) == []


def test_errors_and_deadlines_cost_the_sound_and_leave_nothing_behind(tmp_path, temporary):
    path = make_sounding(tmp_path / "a.mp4", ONCE)
    with pytest.raises(DecoderStalled, match="decoding took longer than"):
        heard(split_of(path), Limits(deadline_s=1e-6))
    with pytest.raises(SourceChanged, match="changed since it was listed"):
        heard(split_of(path, etag="1-1"))
    with pytest.raises(NotAFile, match="cannot be read"):
        heard(split_of(tmp_path / "gone.mp4"))
    with pytest.raises(ZeroDivisionError), sound_of(split_of(path)) as chunks:
        1 / len(next(chunks)[:0])
    assert list(temporary.iterdir()) == []


def test_an_object_is_heard_like_a_file(tmp_path, gcs, temporary):
    path = make_sounding(tmp_path / "a.mp4", ONCE)
    generation = gcs.put("a.mp4", path.read_bytes())
    sound = heard(split_of("gs://bucket/a.mp4", etag=generation, size_bytes=path.stat().st_size))
    assert bursts(sound) == pytest.approx([1.0], abs=0.001)
    with pytest.raises(SourceChanged, match=r"gs://bucket/a\.mp4 changed since it was listed"):
        heard(split_of("gs://bucket/a.mp4", etag="1", size_bytes=1))
    assert list(temporary.iterdir()) == []


def plainly_decoded(path: pathlib.Path) -> np.ndarray:
    """All samples one after the other, channels averaged, at the file's rate: for files without gaps."""
    with av.open(str(path)) as container:
        parts = []
        for frame in container.decode(audio=0):
            samples = frame.to_ndarray().astype(np.float64)
            parts.append(samples.mean(axis=0) if frame.format.is_planar else samples.reshape(-1, 2).mean(axis=1))
        return np.concatenate(parts)


@pytest.mark.parametrize("name", ["data_juicer/video1.mp4", "decord/flipping_a_pancake.mkv", "moviepy/chaplin.mp4"])
def test_sound_of_real_videos_lies_where_a_plain_decode_has_it(shared_dir, name):
    path = shared_dir / "videos" / name
    sound = heard(split_of(path, until_s=6.0))
    plain = plainly_decoded(path)
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        rate, begin_s = stream.rate, float(next(container.decode(audio=0)).pts * stream.time_base)
    at = np.arange(2 * RATE, 5 * RATE)
    other = np.interp(at / RATE - begin_s, np.arange(len(plain)) / rate, plain)
    alike = [np.corrcoef(sound[at + shift], other)[0, 1] for shift in range(-16, 17)]
    assert (int(np.argmax(alike)) - 16, max(alike)) == (pytest.approx(0, abs=1), pytest.approx(1.0, abs=0.05))


def test_sound_of_which_nothing_decodes_is_told_from_none(shared_dir):
    path = shared_dir / "videos" / "mp4parse" / "short-cenc.mp4"
    with pytest.raises(UndecodableSound, match=r"short-cenc.mp4: none of its sound \(aac\) could be decoded"):
        heard(split_of(path))


def test_asking_for_sound_loads_no_decoder_into_this_process():
    script = "import sys, transforms.sound; print('av' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (told.stdout.strip(), told.returncode) == ("False", 0), told.stderr
