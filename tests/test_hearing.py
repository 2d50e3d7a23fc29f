"""Speech where nobody wrote subtitles: heard once, kept with the dataset, aligned to clips; its failure costs text."""

import contextlib
import dataclasses
import json
import pathlib
import shutil
from collections.abc import Iterator

import apache_beam as beam
import numpy as np
import pytest
import tiny_whisper
import yaml
from apache_beam.testing.util import assert_that, equal_to
from fakes import MEDIA
from run_records import newest_run
from sounding import Stretch, bursts, make_sounding
from synthetic import make_video
from test_sound import split_of

from beam_pipeline.cli import main
from beam_pipeline.verify import audit
from model_handlers.listening import Listener, cues_of, language_of
from model_handlers.speech import SpeechSettings, Spoken, Transcriber, load_transcriber
from transforms.files import read
from transforms.hearing import HearVideos, failed_before, heard_before, wants_hearing, written
from transforms.records import Cue, Earlier, Failure, RejectedSpan, Shot, Span, SplitVideo, Video
from transforms.sound import sound_of
from transforms.tables import read_table

SHOT = Shot(0, 0, 100, 0.0, 4.0, 0.0, 4.0)
VIDEO = Video("v", "/videos/v.mp4", "7", 10)
CUES = (Cue(0.0, 2.0, "A boat"), Cue(2.0, 4.0, "moves slowly"))


def split(video_id: str = "v", **changes: object) -> SplitVideo:
    return SplitVideo(dataclasses.replace(VIDEO, video_id=video_id, **changes), MEDIA, (SHOT,), "/reels/v.arrow")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (split(), True),
        (split(text_failures=(Failure("E", "m", "").letter("read", "v", "u"),)), True),
        (split(cues=CUES), False),
        (dataclasses.replace(split(), embedded_cues=CUES), False),
        (dataclasses.replace(split(), shots=()), False),
        (dataclasses.replace(split(), shots=(), dropped=RejectedSpan("v", Span(0, 1), "source", "r")), False),
    ],
)
def test_videos_with_shots_and_without_subtitles_are_heard(found, expected):
    assert wants_hearing(found) is expected


@pytest.mark.parametrize(
    ("told", "known", "expected"),
    [
        ("de", ["de", "en"], "de"),
        ("DE", ["de", "en"], "de"),
        ("pt-BR", ["pt"], "pt"),
        ("en_US", ["en"], "en"),
        (" en ", ["en"], "en"),
        ("German", ["de", "en"], None),
        ("", ["de", "en"], None),
        (None, ["de", "en"], None),
        (None, [], None),
        ("en-GB", [], "en"),
        ("de", [], "de"),
    ],
)
def test_a_language_is_asked_for_where_the_model_knows_it_else_found_out(told, known, expected):
    assert language_of(told, known) == expected


def test_what_was_heard_is_read_again_for_the_same_version_model_and_language():
    kept = written(split(language="en"), CUES, "f1")
    assert heard_before(kept, split(language="en"), "f1") == CUES
    assert heard_before(written(split(), (), "f1"), split(), "f1") == ()
    others = [
        (split(language="en", etag="8"), "f1"),
        (split(language="en"), "f2"),
        (split(language="de"), "f1"),
        (split(), "f1"),
    ]
    assert [heard_before(kept, *other) for other in others] == [None] * 4
    told = json.loads(kept)
    broken = [b"", b"\xff", b"[]", b"{}", kept[:-9], json.dumps({**told, "cues": [{"text": "A"}]}).encode()]
    assert [heard_before(one, split(language="en"), "f1") for one in broken] == [None] * 6


def test_a_failure_stands_for_the_model_that_failed_and_no_other():
    letter = Failure("ValueError", "m", "").letter("hear", "v", "u", fingerprint="f1")
    standing = split(earlier=Earlier(settled=(letter,)))
    assert (failed_before(standing, "f1"), failed_before(standing, "f2")) == (letter, None)
    assert failed_before(split(earlier=Earlier(retried=(letter,))), "f1") is None
    assert failed_before(split(), "f1") is None


class Ears:
    """Says where bursts begin in a sound; a model of two languages."""

    languages = ("de", "en")

    def transcribe(self, chunks, language=None):
        sound = np.concatenate([np.zeros(0, np.float32), *chunks])
        return [Spoken(round(one, 2), round(one, 2) + 0.5, f" beep\nin {language} ") for one in bursts(sound)]


class BurstListener(Listener):
    """A listener whose model knows bursts."""

    def load(self):
        return Ears()


def heard_by_the_stage(videos: list[SplitVideo], speech_dir: str, expected: list, sound=sound_of) -> None:
    listener = BurstListener("bursts", SpeechSettings("none"), sound=sound)
    with beam.Pipeline() as pipeline:
        found = pipeline | beam.Create(videos) | HearVideos(speech_dir, listener, "f1")
        told = found | beam.Map(lambda one: (one.video.video_id, one.heard, one.heard_with, _class_of(one.unheard)))
        assert_that(told, equal_to(expected))


def _class_of(letter):
    return (letter.stage, letter.error_class, letter.clip_id, letter.fingerprint) if letter else None


def test_the_stage_hears_what_is_not_written_keeps_it_and_asks_nobody_twice(tmp_path):
    path = make_sounding(tmp_path / "a.mp4", [Stretch(0.7, 2.0, 0.5), Stretch(4.0, 2.0, 0.25)])
    sounding, silent = split_of(path, language="de"), split_of(make_video(tmp_path / "b.mp4", [(1.0, "red")]))
    videos = [
        sounding,
        dataclasses.replace(silent, video=dataclasses.replace(silent.video, video_id="silent")),
        dataclasses.replace(split_of(tmp_path / "gone.mp4"), video=split("gone", uri=str(tmp_path / "gone.mp4")).video),
        split("told", cues=CUES),
    ]
    beeps = (Cue(1.2, 1.7, "beep in de"), Cue(4.25, 4.75, "beep in de"))
    failed = ("hear", "NotAFile", None, "f1")
    expected = [("v", beeps, "f1", None), ("silent", (), "f1", None), ("gone", (), "", failed), ("told", (), "", None)]
    heard_by_the_stage(videos, str(tmp_path / "speech"), expected)
    assert sorted(one.name for one in (tmp_path / "speech").iterdir()) == ["silent.json", "v.json"]
    path.unlink()  # What was heard needs no source.
    heard_by_the_stage(videos[:1], str(tmp_path / "speech"), expected[:1])


def test_what_was_heard_is_kept_in_a_bucket_as_well(tmp_path, gcs):
    path = make_sounding(tmp_path / "a.mp4", [Stretch(0.0, 2.0, 0.5)])
    expected = [("v", (Cue(0.5, 1.0, "beep in None"),), "f1", None)]
    heard_by_the_stage([split_of(path)], "gs://bucket/set/speech", expected)
    assert gcs.names("set/speech") == ["set/speech/v.json"]
    etag = json.loads(read("gs://bucket/set/speech/v.json"))["etag"]
    path.unlink()
    heard_by_the_stage([split_of(path, etag=etag)], "gs://bucket/set/speech", expected)


@contextlib.contextmanager
def full_disk(_: SplitVideo) -> Iterator[Iterator[np.ndarray]]:
    raise OSError(28, "No space left on device")
    yield iter(())


def test_a_fault_of_the_machine_stops_the_stage_and_is_no_dead_letter(tmp_path):
    listener = BurstListener("bursts", SpeechSettings("none"), sound=full_disk)
    with pytest.raises(OSError, match="No space left"):
        listener.run_inference([split()], Ears())


# A whole job, with a tiny Whisper that says the same of whatever sounds.

VTT = "WEBVTT\n\n00:00.500 --> 00:02.500\nSaid by people.\n"
SAYS = ["<|0.00|>", "ĠA", "Ġboat", "<|2.00|>", "<|2.00|>", "Ġmoves", "Ġslowly", "<|5.00|>"]


@pytest.fixture(scope="module")
def whisper(tmp_path_factory) -> str:
    pytest.importorskip("transformers")
    return tiny_whisper.make_whisper(tmp_path_factory.mktemp("whisper") / "whisper-tiny", SAYS)


@contextlib.contextmanager
def listening(error: Exception | None = None) -> Iterator[list[str | None]]:
    """Let the model fail with this error; list the language of each video that it is asked about."""
    asked: list[str | None] = []
    transcribe = Transcriber.transcribe

    def told(self, chunks, language=None):
        asked.append(language)
        if error:
            raise error
        return transcribe(self, chunks, language)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Transcriber, "transcribe", told)
        yield asked


def configure(folder: pathlib.Path, **values: object) -> None:
    stitching = {"still_distance": None, "redundant_distance": None, "min_event_s": 1.0}
    config = {"extends": "lite", "teachers": ["lite-frame"], "stitching": stitching, **values}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def curate(folder: pathlib.Path) -> dict:
    """Run the job; what it counted."""
    places = ["--input", str(folder / "in"), "--output", str(folder / "out")]
    assert main(["curate", *places, "--config", str(folder / "config.yaml")]) == 0
    assert audit(folder / "out").breaches == []
    return newest_run(folder / "out")


def subtitles(folder: pathlib.Path) -> list[tuple[str | None, bool]]:
    """Of each clip in order: its text, and whether that was heard."""
    rows = sorted(read_table(str(folder / "out"), "clips").to_pylist(), key=lambda row: row["start_s"])
    return [(row["subtitles"], "hear" in [one["name"] for one in row["made_with"]]) for row in rows]


def failures(folder: pathlib.Path) -> list[tuple]:
    rows = read_table(str(folder / "out"), "failures").to_pylist()
    return [(row["stage"], row["clip_id"], row["error_class"], row["attempt"]) for row in rows]


def prepare(folder: pathlib.Path, whisper: str) -> pathlib.Path:
    (folder / "in").mkdir()
    make_video(folder / "in" / "a.mp4", shots=[(3.0, "red"), (3.0, "blue")], drift_px=3, audio_s=6.0)
    configure(folder, speech=whisper)
    return folder


@pytest.fixture(scope="module")
def once(tmp_path_factory, whisper) -> pathlib.Path:
    """A dataset whose video was heard."""
    folder = prepare(tmp_path_factory.mktemp("heard"), whisper)
    with listening() as asked:
        run = curate(folder)
    assert (asked, run["models"][0]["name"]) == ([None], "speech")
    assert {name: run["stages"]["hear"][name] for name in ("in", "out", "failed", "reused")} == {
        "in": 1, "out": 1, "failed": 0, "reused": 0,
    }  # fmt: skip
    return folder


@pytest.fixture
def heard(once, tmp_path) -> pathlib.Path:
    """A copy of it, of the same video: by another path it would be another one."""
    shutil.copytree(once / "out", tmp_path / "out")
    shutil.copy(once / "config.yaml", tmp_path)
    (tmp_path / "in").symlink_to(once / "in")
    return tmp_path


HEARD = [("A boat", True), ("moves slowly", True)]


def test_what_is_said_stands_in_the_clips_in_which_it_is_said_and_is_not_asked_for_again(heard, whisper):
    assert (subtitles(heard), failures(heard)) == (HEARD, [])
    (kept,) = (heard / "out" / "speech").iterdir()
    told = json.loads(kept.read_text())
    (video,) = read_table(str(heard / "out"), "videos").to_pylist()
    assert (kept.name, told["etag"], told["language"]) == (f"{video['video_id']}.json", video["etag"], None)
    assert told["cues"] == [
        {"start_s": 0.0, "end_s": 2.0, "text": "A boat"},
        {"start_s": 2.0, "end_s": 5.0, "text": "moves slowly"},
    ]
    with listening() as asked:
        configure(heard, speech=whisper, abstain_below=0.5)
        stages = curate(heard)["stages"]
    assert (asked, stages["hear"]["reused"], subtitles(heard)) == ([], 1, HEARD)
    # Of the same text the captions are still those of these requests.
    assert stages["caption"]["teachers"]["lite-frame"]["asked"] == 0


def test_the_words_of_people_go_before_those_of_a_model(heard):
    side_car = heard / "in" / "a.vtt"
    side_car.write_text(VTT)
    try:
        with listening() as asked:
            stages = curate(heard)["stages"]
    finally:
        side_car.unlink()
    assert (asked, subtitles(heard)) == ([], [("Said by people.", False), (None, False)])
    assert "hear" not in stages


def test_a_takedown_removes_what_was_heard(heard):
    (video_id,) = read_table(str(heard / "out"), "videos").column("video_id").to_pylist()
    (heard / "out" / "speech" / "other.json").write_text("{}")
    assert main(["takedown", str(heard / "out"), "--video", video_id]) == 0
    assert [one.name for one in (heard / "out" / "speech").iterdir()] == ["other.json"]
    assert audit(heard / "out").breaches == []
    # What a killed takedown, or a copy of the dataset, left.
    (heard / "out" / "speech" / f"{video_id}.json").write_text("{}")
    assert len(audit(heard / "out").breaches) == 1


def test_a_video_that_cannot_be_heard_costs_its_text_until_a_redrive_hears_it(tmp_path, whisper):
    folder = prepare(tmp_path, whisper)
    with listening(ValueError("cannot be heard")) as asked:
        curate(folder)
    assert (len(asked), subtitles(folder)) == (1, [(None, False)] * 2)
    assert failures(folder) == [("hear", None, "ValueError", 1)]
    assert read_table(str(folder / "out"), "videos").column("status").to_pylist() == ["ok"]
    assert not (folder / "out" / "speech").exists()
    assert main(["report", str(folder / "out")]) == 0

    with listening() as asked:
        assert main(["redrive", str(folder / "out"), "--stage", "hear"]) == 0
    assert (asked, failures(folder), subtitles(folder)) == ([None], [], HEARD)
    assert audit(folder / "out").breaches == []


def test_real_sound_is_heard_up_to_its_end(shared_dir, whisper):
    video = split_of(shared_dir / "videos" / "katna" / "pos_video.mp4", until_s=16.0)
    with sound_of(video) as chunks:
        cues = cues_of(load_transcriber(SpeechSettings(whisper)), chunks, "en-GB")
    assert [cue.text for cue in cues] == ["A boat", "moves slowly"]
    assert all(0.0 <= cue.start_s < cue.end_s <= 16.0 for cue in cues)
