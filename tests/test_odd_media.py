"""Odd containers: the times of shots are those of the file's own packets, and what fails fails in a plain sentence.

What is true is taken from a plain demux, without a decoder and without any of our code: the presentation times of the
packets that are meant to be shown. Shots have to agree with it to half a frame, and every packet has to have its frame.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import pathlib
import statistics
import struct
from collections.abc import Callable, Iterator

import av
import numpy as np
import pytest
from mutations import faults_of_sentence
from synthetic import make_video, scene, write_frames

from transforms import media_errors
from transforms.child import Limits, decode
from transforms.detection import SplittingConfig
from transforms.media import open_media
from transforms.reel import Reel

CONFIG = dataclasses.asdict(SplittingConfig())


@dataclasses.dataclass(frozen=True)
class Packets:
    """When a file's packets are to be shown, ascending, where the last one ends, and half of the usual distance."""

    times: list[float]
    end_s: float
    half_s: float


def packets_of(path: pathlib.Path) -> Packets:
    """Read the packets of the first video that is no cover; those that an edit list hides are left out."""
    shown = []
    with av.open(str(path), metadata_errors="replace") as container:
        cover = av.stream.Disposition.attached_pic
        stream = next(video for video in container.streams.video if not video.disposition & cover)
        for packet in container.demux(stream):
            time = packet.dts if packet.pts is None else packet.pts
            if packet.size and not packet.is_discard and time is not None:
                shown.append((float(time * stream.time_base), float((packet.duration or 0) * stream.time_base)))
    times = sorted(time for time, _ in shown)
    steps = [later - earlier for earlier, later in itertools.pairwise(times) if later > earlier]
    last_s, length_s = max(shown)
    frame_s = statistics.median(steps) if steps else length_s
    return Packets(times, last_s + (length_s or frame_s), frame_s / 2)


def far_from(times: list[float], among: list[float], most_s: float) -> list[float]:
    """Those of `times` that have none of `among` within `most_s`."""
    found = []
    for time in times:
        at = bisect.bisect_left(among, time)
        if min(abs(time - near) for near in among[max(0, at - 1) : at + 1]) > most_s + 1e-4:
            found.append(round(time, 4))
    return found


def split(path: pathlib.Path, folder: pathlib.Path) -> tuple[dict, list[float]]:
    """Split a video as the pipeline does; return the summary and the time of every frame."""
    reel = folder / "reel.arrow"
    request = {"path": str(path), "reel": str(reel), "etag": "1-1", "config": CONFIG}
    summary = decode("split", request, Limits())
    return summary, Reel.open(str(reel)).statistics()[0].tolist()


def disagreements(path: pathlib.Path, folder: pathlib.Path) -> Iterator[str]:
    """Where the splitter's times are not those of the packets."""
    summary, frames = split(path, folder)
    packets, shots = packets_of(path), summary["shots"]
    if strange := far_from([shot["start_s"] for shot in shots], packets.times, packets.half_s):
        yield f"shots begin at {strange}, where there is no packet"
    if strange := far_from(frames, packets.times, packets.half_s):
        yield f"frames stand at {strange[:5]}, where there is no packet"
    end_s = shots[-1]["end_s"]
    if summary["damage"]:
        yield from faults_of_sentence(summary["damage"], str(path))
        if end_s > packets.end_s + packets.half_s:
            yield f"it ends at {end_s}, behind the last packet at {packets.end_s}"
        return
    # AVI has no presentation times: ffmpeg, too, misplaces a frame before it trusts the demuxer's guesses no more.
    lost = far_from(packets.times, frames, packets.half_s)
    if len(lost) > (path.suffix == ".avi"):
        yield f"packets at {lost[:5]} ({len(lost)} of {len(packets.times)}) have no frame"
    if abs(end_s - packets.end_s) > packets.half_s + 1e-4:
        yield f"it ends at {end_s}, but its packets at {packets.end_s}"


def two_scenes() -> list[np.ndarray]:
    return [*scene("red", 25), *scene("blue", 25, seed=1)]


SHOTS = [(1.0, "red"), (1.0, "blue")]
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}
MADE: dict[str, Callable[[pathlib.Path], pathlib.Path]] = {
    "b-frames.mp4": lambda path: write_frames(path, two_scenes(), options={"preset": "medium"}),
    "b-frames.ts": lambda path: write_frames(path, two_scenes(), options={"preset": "medium"}),
    "b-frames.flv": lambda path: write_frames(path, two_scenes(), options={"preset": "medium"}),
    "b-frames.mpg": lambda path: write_frames(path, two_scenes(), codec="mpeg2video", options={"bf": "2"}),
    "b-frames.avi": lambda path: write_frames(path, two_scenes(), codec="mpeg4", options={"bf": "2"}),
    "fragments.mp4": lambda path: write_frames(path, two_scenes(), container_options=FRAGMENTS),
    "late.mp4": lambda path: make_video(path, SHOTS, start_s=7.5),
    "late.ts": lambda path: make_video(path, SHOTS, start_s=7.5),
    "variable.webm": lambda path: make_video(path, SHOTS, codec="libvpx", times=lambda n: n / 25 + (n // 10) * 0.3),
    "ten-bit.mkv": lambda path: make_video(path, SHOTS, codec="libx265", pix_fmt="yuv420p10le"),
    "odd-size.mkv": lambda path: make_video(path, SHOTS, size=(321, 181), pix_fmt="yuv444p"),
    "one-frame.mp4": lambda path: make_video(path, [(0.04, "red")]),
    "ntsc.mov": lambda path: make_video(
        path, SHOTS, codec="mjpeg", pix_fmt="yuvj420p", times=lambda n: n * 1001 / 30e3
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_shots_of_made_videos_lie_where_their_packets_say(tmp_path, name):
    assert list(disagreements(MADE[name](tmp_path / name), tmp_path)) == []


#: The oddest of the real files.
ODDEST = (
    *("handmade/rotated90_meta.mp4", "decord/video_270.mov", "torchcodec/nasa_13013_rotated.mp4"),
    *("handmade/vfr_drop.mp4", "katna/pos_video.mp4", "exoplayer/sample_with_increasing_timestamps.mp4"),
    *("exoplayer/iibbibb_editlist_videoonly.mp4", "exoplayer/midroll-5s.mp4", "torchcodec/discard_first_keyframe.mp4"),
    *("handmade/start_100s.mkv", "torchcodec/test_non_zero_start.mp4", "pyscenedetect/delayed_start.mp4"),
    *("handmade/hevc_10bit.mp4", "torchcodec/testsrc2_av1_10bit.mp4", "exoplayer/roadtrip-vp92-10bit.webm"),
    *("handmade/odd_dims_444.mp4", "exoplayer/bear-vp9-odd-dimensions.webm", "handmade/interlaced_tff.mp4"),
    *("exoplayer/sample_h263.ts", "exoplayer/sd-hls0000000000.ts", "mmaction2/test.avi", "exoplayer/sample.flv"),
    *("moviepy/no_duration.webm", "exoplayer/sample.mkv", "decord/unordered.mov", "exoplayer/sample_fragmented.mp4"),
    *("exoplayer/video_desks.3gp", "torchcodec/nasa_13013.mp4", "handmade/one_frame.mp4"),
    *("handmade/truncated_faststart.mp4", "handmade/bitflips_mdat.mp4", "mp4parse/no_timescale.mp4"),
)


@pytest.mark.parametrize("name", ODDEST)
def test_shots_of_real_videos_lie_where_their_packets_say(shared_dir, tmp_path, name):
    assert list(disagreements(shared_dir / "videos" / name, tmp_path)) == []


#: Files of which nothing can be had, and what they are called.
HOPELESS = {
    "handmade/zero_length.mp4": media_errors.NotAVideo,
    "handmade/html_as_mp4.mp4": media_errors.NotAVideo,
    "handmade/random_bytes.mp4": media_errors.NotAVideo,
    "exoplayer/sample_fragmented_sideloaded_track.mp4": media_errors.NotAVideo,
    "handmade/truncated_no_moov.mp4": media_errors.TruncatedVideo,
    "handmade/audio_only.mp4": media_errors.NoVideoStream,
    "exoplayer/full_blocks.mkv": media_errors.NoVideoStream,
    "exoplayer/sample.text.mp4": media_errors.NoVideoStream,
    "mp4parse/short-cenc.mp4": media_errors.EncryptedVideo,
    "exoplayer/subsample_encrypted_altref.webm": media_errors.EncryptedVideo,
    "exoplayer/invalid-bitstream.webm": media_errors.UndecodableVideo,
    "exoplayer/sample_with_sdt.ts": media_errors.UndecodableVideo,
    "mp4parse/chunk_out_of_range.mp4": media_errors.UndecodableVideo,
    "mp4parse/invalid_userdata.mp4": media_errors.UndecodableVideo,
    "mp4parse/zero_empty_stsc.mp4": media_errors.UndecodableVideo,
}


def faults_of_failure(path: pathlib.Path, error: media_errors.MediaError, folder: pathlib.Path) -> list[str]:
    """What is wrong with a failure: its words, what it left behind, or that the file could have been decoded."""
    faults = faults_of_sentence(str(error), str(path))
    if list(folder.iterdir()):
        faults.append("something was left behind")
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            if frames := len(list(itertools.islice(container.decode(video=0), 1))):
                faults.append(f"a plain decoder finds frames in it ({frames} at least)")
    except (av.error.FFmpegError, UnicodeDecodeError, IndexError):
        pass  # as it should be: there is nothing in it for others either
    return faults


@pytest.mark.parametrize("name", HOPELESS)
def test_what_cannot_be_decoded_is_told_in_a_plain_sentence(shared_dir, tmp_path, name):
    path = shared_dir / "videos" / name
    with pytest.raises(media_errors.MediaError) as caught:
        split(path, tmp_path)
    assert type(caught.value) is HOPELESS[name]
    assert faults_of_failure(path, caught.value, tmp_path) == []


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_every_real_file_agrees_with_its_packets_or_fails_in_a_plain_sentence(shared_dir, tmp_path):
    faults, agreed, failed = [], 0, 0
    paths = [path for path in sorted((shared_dir / "videos").rglob("*.*")) if path.suffix not in (".json", ".srt")]
    for number, path in enumerate(paths):
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            found = list(disagreements(path, folder))
            agreed += not found
        except media_errors.MediaError as error:
            found = faults_of_failure(path, error, folder)
            failed += not found
        faults += [f"{path.name}: {fault}" for fault in found]
    assert faults == []
    assert agreed + failed == len(paths) and agreed > 200 and failed > 20


#: Containers that say in front how long they are, so that it shows when their end is missing.
CUT_OFF: dict[str, dict] = {
    "a.mp4": {"container_options": {"movflags": "faststart"}},
    "a.mkv": {},
    "a.webm": {"codec": "libvpx"},
    "a.flv": {},
    "a.avi": {"codec": "mpeg4"},
    "a.ivf": {"codec": "libvpx"},
}


@pytest.mark.parametrize("name", CUT_OFF)
def test_a_video_cut_off_in_the_middle_is_split_as_far_as_it_goes_and_says_so(tmp_path, name):
    pictures = [*scene("red", 100, drift_px=3), *scene("blue", 100, seed=1, drift_px=3)]
    path = write_frames(tmp_path / name, pictures, **CUT_OFF[name])
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    summary, frames = split(path, tmp_path / "reels")
    assert 100 < len(frames) < 130
    assert [shot["start_frame"] for shot in summary["shots"]] == [0, 100]
    assert summary["damage"].endswith("could be decoded: it is truncated or damaged")
    assert summary["damage_span"] == {"start_s": summary["shots"][-1]["end_s"], "end_s": pytest.approx(8.0, abs=0.05)}


@pytest.mark.parametrize("size", [1 << 40, 1 << 62, (1 << 64) - 1])
def test_a_box_that_claims_to_reach_beyond_any_file_costs_that_file_only(tmp_path, size):
    """A seek to where it claims to end fails with an error of the operating system, which is not the machine's."""
    path = tmp_path / "a.mp4"
    path.write_bytes(struct.pack(">I4sQ", 1, b"ftyp", size) + bytes(200))
    with pytest.raises(media_errors.TruncatedVideo) as caught:
        split(path, tmp_path / "reels")
    assert faults_of_sentence(str(caught.value), str(path)) == []


@pytest.mark.parametrize("matrix", ["YCgCo", "bt2020c", "chroma-derived-nc", "ictcp"])
def test_colour_matrices_that_swscale_does_not_convert_cost_colours_not_the_video(tmp_path, matrix):
    """Standard ones, as Dolby Vision and screen recordings have; damaged AV1 has ones that no standard knows."""
    options = {"preset": "ultrafast", "x264-params": f"colormatrix={matrix}"}
    path = write_frames(tmp_path / "a.mp4", two_scenes(), options=options)
    summary, frames = split(path, tmp_path / "reels")
    assert (len(frames), [shot["start_frame"] for shot in summary["shots"]]) == (50, [0, 25])


def test_a_stream_that_comes_and_goes_in_the_middle_does_not_end_the_video(tmp_path):
    """Broadcasts gain and lose streams on the way: here sound, where no demuxer looks beforehand."""
    small = {"size": (160, 90)}
    parts = [
        make_video(tmp_path / "1.ts", [(10.0, "red"), (10.0, "blue")], **small),
        make_video(tmp_path / "2.ts", [(2.0, "green")], start_s=20.0, audio_s=22.0, **small),
        make_video(tmp_path / "3.ts", [(10.0, "red"), (10.0, "blue")], start_s=22.0, **small),
    ]
    path = tmp_path / "all.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    summary, frames = split(path, tmp_path / "reels")
    assert 1048 <= len(frames) <= 1050  # the packet at which the new stream shows up may be lost
    assert summary["shots"][-1]["end_s"] == pytest.approx(42.0, abs=0.1)


def test_pictures_that_stand_for_hours_are_no_rate_of_nought(tmp_path):
    path = make_video(
        tmp_path / "a.mp4", [(0.04, "red"), (0.04, "blue")], codec="mpeg2video", times=lambda n: n * 100_000.0
    )
    assert split(path, tmp_path / "reels")[1] == [0.0, 100_000.0]


def test_a_container_that_breaks_off_gives_the_frames_that_the_decoder_still_held(shared_dir, tmp_path):
    raw = bytearray((shared_dir / "videos/mp4parse/no_timescale.mp4").read_bytes())
    raw[63_673:63_677] = (0x7FFF).to_bytes(4, "big")  # the length of a fragment's mdat
    path = tmp_path / "a.mp4"
    path.write_bytes(raw)
    summary, frames = split(path, tmp_path / "reels")
    assert len(frames) == 170
    assert faults_of_sentence(summary["damage"], str(path)) == []


def test_frames_of_an_avi_that_keeps_no_presentation_times_follow_each_other_evenly(tmp_path):
    """AVI knows decoding times alone: with B-frames of H.264 the demuxer's guesses stand out of order."""
    path = write_frames(tmp_path / "a.avi", two_scenes(), options={"preset": "medium"})
    with open_media(str(path)) as media:
        times = [picture.time_s for picture in media.pictures()]
    uneven = [n for n, (a, b) in enumerate(itertools.pairwise(times), 1) if abs(b - a - 0.04) > 0.001]
    # ffmpeg itself needs three frames to see that the time stamps cannot be trusted, and guesses at the last one.
    assert (len(times), uneven[3:-1]) == (50, [])
