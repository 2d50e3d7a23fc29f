"""Rules of the user's: what breaks them, where they are applied, and that nothing gets lost by them."""

import dataclasses
import json

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to
from fakes import MEDIA, make_clip
from synthetic import make_video

from beam_pipeline.cli import main
from beam_pipeline.config import ConfigError, load_config
from beam_pipeline.filters import parsed, rules_of, together
from beam_pipeline.verify import audit
from transforms.filtering import FilterClips, Rule, first_broken
from transforms.records import (
    Answers,
    Candidate,
    CaptionedClip,
    DeadLetter,
    FilteredClip,
    JudgedClip,
    MeasuredClip,
    RejectedSpan,
    Shot,
    SplitVideo,
    StitchedVideo,
    Video,
)
from transforms.rows import AssembleVideos, video_rows
from transforms.tables import read_table

FINGERPRINTS = {"split": "s", "embed": "e", "captions": "c", "select": "x"}
VIDEO = Video("v", "/videos/v.mp4", "1", 10)
CLIPS = tuple(make_clip(number, version=VIDEO.version) for number in range(3))
SPLIT = SplitVideo(VIDEO, MEDIA, (Shot(0, 0, 600, 0.0, 14.0, 0.1, 13.9),), "/reels/v.arrow")
WHOLE = StitchedVideo(SPLIT, CLIPS, ((1.0, 0.0),) * 3, (), ())
CANDIDATE = Candidate("a", "m", "r", "p", "One.", "f")


@pytest.mark.parametrize(
    ("rule", "row", "reason", "value", "threshold"),
    [
        (Rule("blur", high=0.6), {"blur": 0.7}, "blur is above 0.6", 0.7, 0.6),
        (Rule("blur", high=0.6), {"blur": 0.6}, None, None, None),
        (Rule("motion", low=0.1), {"motion": 0.05}, "motion is below 0.1", 0.05, 0.1),
        (Rule("motion", low=0.1, high=0.2), {"motion": 0.1}, None, None, None),
        (Rule("motion", low=0.1), {"motion": None}, None, None, None),
        (Rule("motion", low=0.1), {}, None, None, None),
        (Rule("category", only=("food", "sports")), {"category": "sports"}, None, None, None),
        (Rule("category", only=("food", "sports")), {"category": "news"}, "category is news", None, None),
        (Rule("category", without=("news",)), {"category": "news"}, "category is news", None, None),
        (Rule("abstained", only=(False,)), {"abstained": True}, "abstained is True", None, None),
    ],
)
def test_a_rule_is_broken_by_what_it_does_not_allow_and_never_by_what_is_not_known(rule, row, reason, value, threshold):
    broken = rule.broken_by(row)
    assert (broken and (broken.reason, broken.value, broken.threshold)) == (reason and (reason, value, threshold))


def test_of_several_broken_rules_the_first_one_is_told():
    rules = (Rule("motion", low=0.1), Rule("blur", high=0.6))
    assert first_broken(rules, {"blur": 0.7, "motion": 0.0}).column == "motion"
    assert first_broken(rules, {"blur": 0.7, "motion": 0.5}).column == "blur"
    assert first_broken(rules, {"blur": 0.5, "motion": 0.5}) is None


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("blur=..0.6", ("blur", {"max": 0.6})),
        ("blur=0.1..", ("blur", {"min": 0.1})),
        (" motion = -1 .. 2 ", ("motion", {"min": -1.0, "max": 2.0})),
        ("category=food, sports", ("category", {"only": ["food", "sports"]})),
        ("category=!news", ("category", {"without": ["news"]})),
        ("abstained=false", ("abstained", {"only": [False]})),
    ],
)
def test_a_flag_says_a_rule(text, rule):
    assert parsed(text) == rule


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ({"blurr": {"max": 1}}, "there is no column to filter by 'blurr'; did you mean 'blur'?"),
        ({"clip_id": {"only": ["a"]}}, "there is no column to filter by 'clip_id'"),
        ({"blur": 0.5}, "filters.blur must be a mapping like {min: 0.1} or {max: 0.9}, not 0.5"),
        ({"duration_s": {"maximum": 1}}, "there is no key of filters.duration_s 'maximum'; did you mean 'max'?"),
        ({"duration_s": {"max": "1"}}, "filters.duration_s.max must be a number, not '1'"),
        ({"duration_s": {"max": True}}, "filters.duration_s.max must be a number, not True"),
        ({"duration_s": {"min": 2, "max": 1}}, "no duration_s is both 2 or more and 1 or less"),
        ({"duration_s": {"max": float("nan")}}, "a bound of duration_s must be a finite number"),
        ({"duration_s": {}}, "the rule on duration_s says nothing; give it min, max, only or without"),
        ({"abstained": {"only": ["no"]}}, "filters.abstained.only must be true or false, not 'no'"),
        ({"teacher": {"only": [1]}}, "filters.teacher.only must be words, not 1"),
        ({"max_running_lpips": {"max": 1}}, "filters.max_running_lpips needs a measure that fills it"),
        ("blur", "filters must be a mapping"),
        ({"duplicate_of": {"only": ["a"]}}, "there is no column to filter by 'duplicate_of'"),
        ({"harmful_text": {"only": [False]}}, "filters.harmful_text needs hygiene: {harmful: true}"),
        ({"caption_language": {"only": ["en"]}}, "filters.caption_language needs hygiene: {language: true}"),
        ({"category": {"only": ["sport"]}}, "there is no label of category 'sport'; did you mean 'sports'?"),
        ({"desirable_filtering": {"only": ["desireable"]}}, "did you mean 'desirable'?"),
    ],
)
def test_a_mistake_in_a_rule_is_told_in_one_line(filters, said):
    with pytest.raises(ConfigError) as raised:
        load_config(changes={"filters": filters})
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["blur", "blur=", "=1..2", "blur=a..b"])
def test_a_flag_that_says_no_rule_is_bad_usage(text, capsys):
    assert main(["curate", "--input", "a.mp4", "--output", "out", "--filter", text]) == 2
    told = capsys.readouterr().err
    assert told.startswith("reelscribe: argument --filter: ") and told.count("\n") == 1


def test_several_flags_about_a_column_are_one_rule():
    flags = ["blur=0.1..", "blur=..0.6", "category=!a", "category=!b,c"]
    assert together(map(parsed, flags)) == {
        "blur": {"min": 0.1, "max": 0.6},
        "category": {"without": ["a", "b", "c"]},
    }


def test_two_flags_that_say_the_same_bound_differently_are_bad_usage(capsys):
    flags = ["--filter", "blur=..0.6", "--filter", "blur=..0.5"]
    assert main(["curate", "--input", "a.mp4", "--output", "out", *flags]) == 2
    assert capsys.readouterr().err == "reelscribe: two rules say the max of blur: 0.6 and 0.5; keep one of them\n"


def test_a_number_at_the_bound_stays_there_when_it_is_read_again():
    rule = Rule("subtitle_share", high=0.2)
    assert rule.broken_by({"subtitle_share": 0.2}) is None
    assert rule.broken_by({"subtitle_share": float(np.float32(0.2))}) is None
    assert rule.broken_by({"subtitle_share": 0.2001}).reason == "subtitle_share is above 0.2"


def test_a_rule_on_what_is_measured_has_it_measured_and_is_applied_before_the_captions():
    config = load_config(changes={"filters": {"blur": {"max": 0.6}, "desirable_filtering": {"only": ["desirable"]}}})
    assert [one.name for one in config.measures.measures] == ["motion", "blur", "screens"]
    assert [one.name for one in config.measures.derived] == ["desirability"]
    assert [rule.column for rule in config.filters_before] == ["blur", "desirable_filtering"]


def test_to_ask_for_a_measure_by_its_name_keeps_what_the_configuration_says_of_it(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("measures: {category: {labels: {a: a person, b: a car}}}\n")
    (configured,) = load_config(file=str(file)).measures.measures
    asked = load_config(file=str(file), changes={"measures": {"category": True, "blur": True}}).measures.measures
    assert [one.name for one in asked] == ["blur", "category"]
    assert (asked[1].fingerprint, asked[1].labels) == (configured.fingerprint, ("a", "b"))


@pytest.mark.parametrize(
    ("measures", "names"),
    [
        (
            {"all": True, "text": False, "category": False},
            "borders motion exposure blur watermark screens desirability",
        ),
        ({"all": False, "blur": True}, "blur"),
        ({"desirability": True}, "motion screens desirability"),
        ({"all": None}, ""),
    ],
)
def test_what_is_named_goes_before_all(measures, names):
    chosen = load_config(changes={"measures": measures}).measures
    assert " ".join(one.name for one in (*chosen.measures, *chosen.derived)) == names


def test_a_measure_that_another_needs_cannot_be_refused():
    with pytest.raises(ConfigError, match=r"measures\.desirability needs motion, which is False"):
        load_config(changes={"measures": {"desirability": True, "motion": False}})


def test_a_clip_that_is_dropped_keeps_what_its_teachers_failed_at():
    letter = DeadLetter("caption", "v", "u", "ValueError", "no", clip_id="v-0", teacher="b", span=CLIPS[0].span)
    costly = DeadLetter("caption", "v", "u", "NoCaption", "none", clip_id="v-0", span=CLIPS[0].span)
    clip = dataclasses.replace(CLIPS[0], earlier=Answers((CANDIDATE,), failures=(letter, costly)))
    dropped = FilteredClip(clip, RejectedSpan("v", clip.span, "filter", "blur is above 0.4", 0.5, 0.4))
    rows = video_rows(StitchedVideo(SPLIT, (clip,), ((1.0, 0.0),), (), ()), [dropped], "run", FINGERPRINTS)
    assert [(row["teacher"], row["error_class"]) for row in rows.failures] == [("b", "ValueError")]
    assert rows.video["status"] == "ok"


def test_rules_on_rows_wait_for_the_row():
    config = load_config(changes={"filters": {"duration_s": {"max": 60}, "abstained": {"only": [False]}}})
    assert (config.filters_before, len(config.filters_after)) == ((), 2)
    assert config.fingerprint() != load_config().fingerprint()
    assert load_config(changes={"filters": {"duration_s": None}}).fingerprint() == load_config().fingerprint()


def judged(clip) -> JudgedClip:
    return JudgedClip(CaptionedClip(clip, (CANDIDATE,), (), ()), (0.5,), 0, None, False, (), "s1")


def test_clips_are_sorted_and_both_kinds_end_in_the_rows_of_their_video():
    measured = [MeasuredClip(clip, {"blur": n / 4}, {"blur": "b1"}) for n, clip in enumerate(CLIPS)]
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
        found = pipeline | "m" >> beam.Create(measured)
        sorted_clips = found | FilterClips((Rule("blur", high=0.4),))
        captioned = sorted_clips.kept | "j" >> beam.Map(judged)
        verdicts = (captioned, sorted_clips.dropped) | "v" >> beam.Flatten()
        whole = pipeline | "w" >> beam.Create([WHOLE])
        rows = (whole, verdicts, found) | AssembleVideos("run", lambda video: FINGERPRINTS)
        told = rows | beam.Map(
            lambda one: (
                [(row["clip_id"], row["blur"]) for row in one.clips],
                [(row["clip_id"], row["reason"], row["value"], row["blur"]) for row in one.rejected],
                [one.video[name] for name in ("n_clips", "n_rejected", "n_failures", "status")],
            )
        )
        kept, dropped = [("v-0", 0.0), ("v-1", 0.25)], [("v-2", "blur is above 0.4", 0.5, 0.5)]
        assert_that(told, equal_to([(kept, dropped, [2, 1, 0, "ok"])]))


def test_a_clip_that_its_row_drops_keeps_its_captions_and_scores():
    rows = video_rows(WHOLE, map(judged, CLIPS), "run", FINGERPRINTS, rules=(Rule("matching_score", low=0.6),))
    assert (rows.clips, rows.video["n_rejected"], rows.video["status"]) == ((), 3, "ok")
    first = rows.rejected[0]
    assert (first["stage"], first["reason"], first["value"], first["threshold"]) == (
        "filter", "matching_score is below 0.6", 0.5, 0.6,
    )  # fmt: skip
    assert [(one["caption"], one["matching_score"]) for one in first["captions"]] == [("One.", 0.5)]
    assert (first["embedding"], first["made_with"]) == ([1.0, 0.0], [{"name": "select", "fingerprint": "s1"}])


def test_a_clip_that_is_dropped_now_keeps_what_an_earlier_run_asked_about_it():
    answers = Answers((CANDIDATE,), (0.5,), {"blur": 0.5}, {"select": "s1", "blur": "b1"})
    clip = dataclasses.replace(CLIPS[0], earlier=answers)
    whole = StitchedVideo(SPLIT, (clip,), ((1.0, 0.0),), (), ())
    dropped = FilteredClip(clip, RejectedSpan("v", clip.span, "filter", "blur is above 0.4", 0.5, 0.4))
    found = [MeasuredClip(clip, {"blur": 0.5}, {"blur": "b1"})]
    (row,) = video_rows(whole, [dropped], "run", FINGERPRINTS, found).rejected
    assert [(one["caption"], one["matching_score"]) for one in row["captions"]] == [("One.", 0.5)]
    assert {one["name"]: one["fingerprint"] for one in row["made_with"]} == {"select": "s1", "blur": "b1"}


def test_a_moved_threshold_moves_clips_between_the_tables_and_asks_nobody_again(tmp_path, capsys):
    make_video(tmp_path / "a.mp4", shots=[(3.0, "red"), (5.0, "blue")], drift_px=3)
    dataset = tmp_path / "set"
    config = tmp_path / "config.yaml"
    config.write_text(
        "extends: lite\nteachers: [lite-frame]\n"
        "stitching: {still_distance: null, redundant_distance: null, min_event_s: 1.0}\n"
    )

    def curate(*rules: str) -> tuple[list, list, str]:
        flags = [part for rule in rules for part in ("--filter", rule)]
        command = ["curate", "--input", str(tmp_path / "a.mp4"), "--output", str(dataset), "--config", str(config)]
        assert main([*command, *flags]) == 0
        assert audit(dataset).breaches == []
        clips = read_table(dataset, "clips").sort_by("start_s").to_pylist()
        dropped = [row for row in read_table(dataset, "rejected").to_pylist() if row["stage"] == "filter"]
        return clips, dropped, capsys.readouterr().out

    def told(rows: list) -> list:
        return [(row["clip_id"], row["caption"], row["matching_score"]) for row in rows]

    both, none, _ = curate()
    assert (len(both), none) == (2, [])
    (long,), (short,), said = curate("duration_s=3..")
    assert told([long]) == told(both[1:]) and short["clip_id"] == both[0]["clip_id"]
    assert short["value"] == pytest.approx(both[0]["duration_s"]) and short["threshold"] == 3.0
    assert "rejected  1 filter, 4 trim" in said
    again, none, _ = curate()
    assert (told(again), none) == (told(both), [])
    assert [row["run_id"] for row in again] != [row["run_id"] for row in both]
    # Nobody was asked: all answers are those of the first run.
    runs = sorted((dataset / "runs").glob("*.json"))
    stages = [json.loads(path.read_text())["stages"] for path in runs]
    assert [one["caption"]["teachers"]["lite-frame"]["asked"] for one in stages] == [2, 0, 0]
    assert [one["score"]["reused"] for one in stages] == [0, 2, 2]


def test_rules_of_nothing_are_none():
    assert rules_of({"blur": None, "motion": False}) == ()
