"""Gates for sources: what a video must be to be split, and that one which is not stays accounted for."""

import pytest
from fakes import MEDIA
from synthetic import make_video

from beam_pipeline.cli import main
from beam_pipeline.config import ConfigError, load_config
from beam_pipeline.verify import audit
from transforms.filtering import Rule
from transforms.gates import dropped, facts_of
from transforms.records import MediaFacts, RejectedSpan, Span, Video
from transforms.splitting import probe
from transforms.tables import read_table

VIDEO = Video("v", "/videos/v.mp4", "1", 1_000_000)
FILM = MediaFacts(10.0, 1920, 1080, 25.0, "h264")


def test_a_videos_facts_are_what_people_call_them():
    assert facts_of(VIDEO, FILM) == {
        "width": 1920, "height": 1080, "short_side": 1080, "fps": 25.0, "aspect": pytest.approx(16 / 9),
        "duration_s": 10.0, "bits_per_pixel": pytest.approx(8e6 / (1920 * 1080 * 250)), "codec": "h264",
    }  # fmt: skip
    unknown = facts_of(VIDEO, MediaFacts(10.0, 1920, 1080, 0.0, "h264"))
    assert (unknown["fps"], unknown["bits_per_pixel"]) == (None, None)


@pytest.mark.parametrize(
    ("rule", "reason", "value", "threshold"),
    [
        (Rule("height", low=1081), "height is below 1081", 1080, 1081),
        (Rule("height", low=1080), None, None, None),
        (Rule("aspect", high=1.5), "aspect is above 1.5", pytest.approx(16 / 9), 1.5),
        (Rule("codec", only=("av1", "vp9")), "codec is h264", None, None),
    ],
)
def test_a_rule_drops_the_whole_video(rule, reason, value, threshold):
    whole = Span(0.0, 10.0)
    expected = RejectedSpan("v", whole, "source", reason, value, threshold) if reason else None
    assert dropped(VIDEO, FILM, (rule,)) == expected


def test_what_is_not_known_drops_nothing():
    assert dropped(VIDEO, MediaFacts(10.0, 1920, 1080, 0.0, "h264"), (Rule("fps", low=10),)) is None
    assert dropped(VIDEO, MEDIA, ()) is None


def test_a_probe_says_what_a_decode_pass_finds_and_nothing_is_decoded_of_what_a_gate_drops(tmp_path):
    path = make_video(tmp_path / "a.mp4", shots=[(3.0, "red")], size=(320, 180))
    assert probe(str(path)) == {"duration_s": 3.0, "width": 320, "height": 180, "fps": 25.0, "codec": "h264"}


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("heigth=480..", "there is no column to filter by 'heigth'; did you mean 'height'?"),
        ("height=480", "there is no key of video_filters.height 'only'"),
    ],
)
def test_a_mistake_in_a_gate_is_bad_usage(flag, said, capsys):
    assert main(["curate", "--input", "a.mp4", "--output", "out", "--video-filter", flag]) == 2
    assert said in capsys.readouterr().err


def test_gates_leave_the_fingerprints_before_the_selection_alone():
    gated, plain = load_config(changes={"video_filters": {"height": {"min": 480}}}), load_config()
    before, after = plain.fingerprints("e", "t"), gated.fingerprints("e", "t")
    assert [stage for stage in before if before[stage] != after[stage]] == ["select"]
    with pytest.raises(ConfigError, match=r"video_filters.height.min must be a number, not '480'"):
        load_config(changes={"video_filters": {"height": {"min": "480"}}})


def test_a_gated_video_is_one_rejected_span_and_comes_back_when_the_gate_opens(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name, size in (("small", (160, 90)), ("large", (320, 180))):
        make_video(tmp_path / "in" / f"{name}.mp4", shots=[(3.0, "red"), (3.0, "blue")], drift_px=3, size=size)
    config, dataset = tmp_path / "config.yaml", tmp_path / "set"
    config.write_text(
        "extends: lite\nteachers: [lite-frame]\n"
        "stitching: {still_distance: null, redundant_distance: null, min_event_s: 1.0}\n"
    )

    def curate(*flags: str) -> dict[str, tuple]:
        command = ["curate", "--input", str(tmp_path / "in"), "--output", str(dataset), "--config", str(config)]
        assert main([*command, *flags]) == 0
        assert audit(dataset).breaches == []
        rows = read_table(dataset, "videos").to_pylist()
        names = ("n_shots", "n_clips", "n_rejected", "status", "height")
        return {row["uri"].rpartition("/")[2]: tuple(row[name] for name in names) for row in rows}

    gate = ("--video-filter", "height=120..")
    assert curate(*gate) == {"small.mp4": (0, 0, 1, "ok", 90), "large.mp4": (2, 2, 4, "ok", 180)}
    (row,) = [row for row in read_table(dataset, "rejected").to_pylist() if row["stage"] == "source"]
    told = [row[name] for name in ("start_s", "end_s", "reason", "value", "threshold")]
    assert told == [0.0, 6.0, "height is below 120", 90.0, 120.0]
    assert "rejected  1 source, 4 trim" in capsys.readouterr().out
    assert [path.name.partition("-")[0] for path in (dataset / "reels").iterdir()] == ["large"], "it was not decoded"
    assert curate() == {"small.mp4": (2, 2, 4, "ok", 90), "large.mp4": (2, 2, 4, "ok", 180)}
    # Now by what its reel says: the file is not opened again.
    assert curate(*gate)["small.mp4"] == (0, 0, 1, "ok", 90)
