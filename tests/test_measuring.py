"""Max Running LPIPS as a column: measured beside the captions, absent without weights, never at a clip's cost."""

import dataclasses
import math
import pathlib

import apache_beam as beam
import pyarrow.dataset as pa_dataset
import pytest
import yaml
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to
from fakes import MEDIA, Model, make_clip
from lpips_weights import lpips_tensors, write_weights
from synthetic import make_video

from beam_pipeline import report_contents
from beam_pipeline.cli import main
from beam_pipeline.config import ConfigError, fingerprint, load_config
from beam_pipeline.doctor import Check, check_models
from beam_pipeline.pipeline import CurateVideos
from beam_pipeline.report import write_report
from beam_pipeline.report_drawings import short
from beam_pipeline.runs import RunRecord
from beam_pipeline.verify import audit
from model_handlers.base import ElementwiseHandler
from model_handlers.perceptual import load_lpips, rows_at_1fps
from model_handlers.weights import digest
from transforms.committing import Committer, finalise
from transforms.lease import WriterLease
from transforms.measuring import Asked, MeasureClips, Measuring, begun, missing, with_answers
from transforms.reading import Source
from transforms.records import (
    Answers,
    Candidate,
    CaptionedClip,
    DeadLetter,
    Failure,
    JudgedClip,
    MeasuredClip,
    MeasureRequest,
    Outcome,
    Shot,
    Span,
    SplitVideo,
    StitchedVideo,
    Video,
)
from transforms.reel import Reel
from transforms.rows import AssembleVideos, video_rows
from transforms.tables import read_table

FINGERPRINTS = {"split": "s", "embed": "e", "captions": "c", "select": "x"}
VIDEO = Video("v", "/videos/v.mp4", "1", 10)
CLIPS = [make_clip(number, version=VIDEO.version) for number in range(2)]
WHOLE = StitchedVideo(
    SplitVideo(VIDEO, MEDIA, (Shot(0, 0, 600, 0.0, 14.0, 0.1, 13.9),), "/reels/v.arrow"),
    tuple(CLIPS),
    ((1.0, 0.0),) * 2,
    (),
    (),
)


#: What the two measures of these tests fill, and how each is known.
ASKED = Asked("Rule", {"ruler": "r1", "shade": "s1"}, {"ruler": ["blur"], "shade": ["brightness", "contrast"]})


class Ruler(ElementwiseHandler):
    """Answers a tenth of a clip's number as its blur, and a constant shade; fails where it is told to."""

    def __init__(self, fails_on: str = "", ruler_fails_on: str = ""):
        super().__init__("ruler", max_batch=4)
        self._fails_on, self._ruler_fails_on = fails_on, ruler_fails_on

    def load(self) -> Model:
        return Model()

    def answer(self, requests, model):
        if self._fails_on in [request.measured.clip.clip_id for request in requests]:
            raise ValueError("no frame can be read")
        return [self._answers(request) for request in requests]

    def _answers(self, request):
        clip_id = request.measured.clip.clip_id
        blurred = {"blur": int(clip_id[-1]) / 10}
        if clip_id == self._ruler_fails_on:
            blurred = Failure("ValueError", "too short", "")
        answers = {"ruler": blurred, "shade": {"brightness": 0.5, "contrast": None}}
        return {name: answers[name] for name in request.names}


def judged(clip) -> JudgedClip:
    captioned = CaptionedClip(clip, (Candidate("a", "m", "r", "p", "One.", "f"),), (), ())
    return JudgedClip(captioned, (0.5,), 0, None, False, (), "s")


def measured(clip, values: dict, *letters: DeadLetter) -> MeasuredClip:
    return MeasuredClip(clip, values, dict.fromkeys(values, "f"), letters)


def test_a_request_is_answered_column_by_column_and_a_number_that_cannot_be_is_a_failure():
    request = MeasureRequest(measured(CLIPS[0], {"motion": 1.0}), ("ruler", "shade"))
    shade = {"brightness": 0.5, "contrast": None}

    def told(answer, failure=None):
        found = with_answers(Outcome(request, answer, failure), ASKED)
        return found.values, found.made_with, [(one.error_class, one.message) for one in found.dead_letters]

    before, after = {"motion": 1.0}, {"motion": "f"}
    assert told({"ruler": {"blur": 0.25}, "shade": shade}) == (
        {**before, "blur": 0.25, **shade},
        {**after, "ruler": "r1", "shade": "s1"},
        [],
    )
    assert told({"ruler": {"blur": math.nan}, "shade": {"brightness": 0.5}}) == (
        before,
        after,
        [
            ("BadMeasurement", "ruler: blur cannot be nan"),
            ("BadMeasurement", "shade: it filled brightness, not brightness, contrast"),
        ],
    )
    assert told({"ruler": {"blur": 1.01}, "shade": shade})[2] == [("BadMeasurement", "ruler: blur cannot be 1.01")]
    assert told({"shade": shade})[2] == [("LostResult", "ruler: what was measured of this clip got lost")]
    gone = Failure("ReelError", "gone", "trace")
    assert told(None, gone) == (before, after, [("ReelError", "ruler: gone"), ("ReelError", "shade: gone")])
    first, second = with_answers(Outcome(request, None, gone), ASKED).dead_letters
    assert (first.stage, first.clip_id, first.teacher, first.span) == ("measure", "v-0", None, CLIPS[0].span)
    assert first.place != second.place, "each is counted and tried again for itself"


def run_measures(handler, clips) -> "beam.PCollection":
    return clips | MeasureClips([Measuring(ASKED, handler)]) | beam.Map(_told)


def _told(found: MeasuredClip) -> tuple:
    letters = sorted(letter.message for letter in found.dead_letters)
    return found.clip.clip_id, found.values.get("blur"), found.values.get("brightness"), letters


def test_each_clip_is_measured_and_a_failure_costs_one_measure_of_one_clip():
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
        clips = pipeline | beam.Create([make_clip(number) for number in range(4)])
        found = run_measures(Ruler(fails_on="v-1", ruler_fails_on="v-2"), clips)
        unread = ["ruler: no frame can be read", "shade: no frame can be read"]
        expected = [
            ("v-0", 0.0, 0.5, []),
            ("v-1", None, None, unread),
            ("v-2", None, 0.5, ["ruler: too short"]),
            ("v-3", pytest.approx(0.3), 0.5, []),
        ]
        assert_that(found, equal_to(expected))


def test_only_what_is_missing_is_measured_again_and_a_failure_that_stands_is_left():
    letter = Failure("ValueError", "shade: dark", "").letter("measure", "v", "u", clip_id="v-7", fingerprint="shade:s1")
    known = {
        "v-5": Answers(values={"blur": 0.9}, made_with={"ruler": "r1"}),
        "v-6": Answers(values={"blur": 0.9, "brightness": 0.1}, made_with={"ruler": "before", "shade": "s1"}),
        "v-7": Answers(values={"blur": 0.9}, made_with={"ruler": "r1"}, failures=(letter,)),
    }
    clips = [dataclasses.replace(make_clip(int(name[-1])), earlier=answers) for name, answers in known.items()]
    assert [missing(begun(clip, [ASKED]), ASKED) for clip in clips] == [("shade",), ("ruler",), ()]
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
        found = run_measures(Ruler(), pipeline | beam.Create(clips))
        expected = [("v-5", 0.9, 0.5, []), ("v-6", 0.6, 0.1, []), ("v-7", 0.9, None, ["shade: dark"])]
        assert_that(found, equal_to(expected))


def letter_of(clip) -> DeadLetter:
    return Failure("ReelError", "gone", "").letter("measure", "v", clip.uri, clip_id=clip.clip_id, span=clip.span)


GONE = MeasuredClip(CLIPS[0], dead_letters=(letter_of(CLIPS[0]),))


@pytest.mark.parametrize(
    ("found", "column", "letters"),
    [
        (None, [None, None], []),
        ([measured(CLIPS[1], {"blur": 0.5}), measured(CLIPS[0], {"blur": 0.25})], [0.25, 0.5], []),
        ([measured(CLIPS[0], {"blur": None}), measured(CLIPS[1], {"blur": 0.5})], [None, 0.5], []),
        ([GONE, measured(CLIPS[1], {"blur": 0.5})], [None, 0.5], ["gone"]),
        ([measured(CLIPS[0], {"blur": 0.25})], [0.25, None], ["measures: what was measured of this clip got lost"]),
    ],
)
def test_a_failed_measurement_costs_the_number_not_the_clip_nor_the_status(found, column, letters):
    rows = video_rows(WHOLE, map(judged, CLIPS), "r1", FINGERPRINTS, found)
    assert [row["blur"] for row in rows.clips] == column
    assert [(row["stage"], row["message"]) for row in rows.failures] == [("measure", message) for message in letters]
    assert (rows.video["status"], rows.video["n_clips"], rows.video["n_failures"]) == ("ok", 2, len(letters))


def test_a_row_says_with_what_it_was_made():
    rows = video_rows(WHOLE, map(judged, CLIPS), "r1", FINGERPRINTS, [measured(clip, {"blur": 0.5}) for clip in CLIPS])
    assert rows.clips[0]["made_with"] == [{"name": "blur", "fingerprint": "f"}, {"name": "select", "fingerprint": "s"}]


def test_a_clip_that_failed_is_still_the_span_that_its_own_dead_letter_says():
    failure = Failure("NoCaption", "none", "").letter("caption", "v", "u", clip_id="v-0", span=CLIPS[0].span)
    mute = JudgedClip(CaptionedClip(CLIPS[0], (), (), ()), (), None, None, False, (failure,))
    rows = video_rows(WHOLE, [mute, judged(CLIPS[1])], "r1", FINGERPRINTS, [GONE, measured(CLIPS[1], {"blur": 0.5})])
    assert [(row["clip_id"], row["blur"]) for row in rows.clips] == [("v-1", 0.5)]
    assert [row["stage"] for row in rows.failures] == ["measure", "caption"]
    assert rows.video["status"] == "partial"


def test_verify_takes_a_failed_measurement_for_no_loss_and_an_impossible_number_for_a_breach(tmp_path):
    touching = [make_clip(number, span=Span(4.0 * number, 4.0 * number + 4.0)) for number in range(2)]
    whole = StitchedVideo(WHOLE.split, tuple(touching), WHOLE.embeddings, (), ())
    good, bad = tmp_path / "good", tmp_path / "bad"
    found = [MeasuredClip(touching[0], dead_letters=(letter_of(touching[0]),)), measured(touching[1], {"blur": 0.5})]
    Committer(good).commit([video_rows(whole, map(judged, touching), "r1", FINGERPRINTS, found)])
    with WriterLease(good, "r1"):
        finalise(good)
    assert audit(good).breaches == []
    tables = report_contents.load(str(good))
    assert tables.failures.num_rows == 1
    assert report_contents.spans_by_video(tables, ["v"]) == {"v": [("accepted", 0.0, 4.0), ("accepted", 4.0, 8.0)]}
    wrong = [measured(touching[0], {"max_running_lpips": -0.5}), measured(touching[1], {"blur": math.inf})]
    Committer(bad).commit([video_rows(whole, map(judged, touching), "r1", FINGERPRINTS, wrong)])
    with WriterLease(bad, "r1"):
        finalise(bad)
    assert audit(bad).breaches == ["v-0: its max_running_lpips cannot be -0.5", "v-1: its blur cannot be inf"]


@pytest.mark.parametrize("measures", [True, False])
def test_videos_are_assembled_with_their_measurements_or_without_any(measures):
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
        parts = [pipeline | "w" >> beam.Create([WHOLE]), pipeline | "j" >> beam.Create([judged(c) for c in CLIPS])]
        if measures:
            parts.append(pipeline | "m" >> beam.Create([measured(CLIPS[n], {"blur": n / 4}) for n in (1, 0)]))
        rows = tuple(parts) | AssembleVideos("run", lambda video: FINGERPRINTS)
        told = rows | beam.Map(lambda one: [row["blur"] for row in one.clips])
        assert_that(told, equal_to([[0.0, 0.25] if measures else [None, None]]))


def write_config(folder: pathlib.Path, weights: str | None) -> str:
    events = {"still_distance": None, "redundant_distance": None, "min_event_s": 1.0}
    values = {"extends": "lite", "stitching": events, "teachers": ["lite-frame"], "measures": {"lpips": weights}}
    path = folder / f"{'with' if weights else 'without'}.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


def steps_of(config_file: str) -> list[str]:
    pipeline = beam.Pipeline()
    _ = pipeline | beam.Create([Source("a", "/a.mp4", "1", 1)]) | CurateVideos(load_config(file=config_file), "o", "r")
    return [step.unique_name for step in pipeline.to_runner_api().components.transforms.values()]


def test_the_recipe_has_no_step_more_when_nothing_is_measured(tmp_path):
    with_weights = steps_of(write_config(tmp_path, write_weights(tmp_path / "w.safetensors")))
    without = steps_of(write_config(tmp_path, None))
    new = [step for step in with_weights if step not in without]
    assert new
    assert all("Measure" in step for step in new)
    assert not any("Measure" in step for step in without)


def test_curate_fills_the_column_when_there_are_weights_and_redoes_what_had_none(tmp_path, capsys):
    make_video(tmp_path / "a.mp4", shots=[(3.0, "red"), (4.0, "blue")], drift_px=3)
    weights, dataset = write_weights(tmp_path / "w.safetensors"), tmp_path / "set"

    def curate(config: str) -> list[dict]:
        arguments = ["curate", "--input", str(tmp_path / "a.mp4"), "--output", str(dataset), "--config", config]
        assert main(arguments) == 0
        assert audit(dataset).breaches == []
        return sorted(read_table(dataset, "clips").to_pylist(), key=lambda row: row["start_s"])

    before = curate(write_config(tmp_path, None))
    assert [row["max_running_lpips"] for row in before] == [None, None]
    assert "LPIPS" not in pathlib.Path(write_report(str(dataset))).read_text()
    after = curate(write_config(tmp_path, weights))
    assert [row["clip_id"] for row in after] == [row["clip_id"] for row in before]
    measure = load_lpips(weights, "cpu")
    for row in after:
        reel = Reel.open(str(dataset / "reels" / f"{row['video_id']}.arrow"))
        frames = reel.frames(rows_at_1fps(reel, Span(row["start_s"], row["end_s"])))
        assert row["max_running_lpips"] == pytest.approx(measure.max_running(frames), abs=1e-5)
    assert max(row["max_running_lpips"] for row in after) > 0
    plain = pa_dataset.dataset(dataset / "clips").to_table(columns=["max_running_lpips"])
    assert sorted(plain.to_pydict()["max_running_lpips"]) == sorted(row["max_running_lpips"] for row in after)
    capsys.readouterr()
    curate(write_config(tmp_path, weights))
    assert "1 in: 0 committed, 1 unchanged" in capsys.readouterr().out
    page = pathlib.Path(write_report(str(dataset))).read_text()
    assert all(f">Max Running LPIPS <b>{short(row['max_running_lpips'])}</b>" in page for row in after)
    assert "Max Running LPIPS <code>max_running_lpips</code> <span>2 clips" in page
    card = (dataset / "README.md").read_text()
    assert f"| mean Max Running LPIPS | {sum(row['max_running_lpips'] for row in after) / 2:.3f} |" in card


def test_the_fingerprint_follows_the_weights_not_their_place_and_only_the_last_stages(tmp_path):
    one, same = write_weights(tmp_path / "one.safetensors"), write_weights(tmp_path / "same.safetensors")
    other = write_weights(tmp_path / "other.safetensors", lpips_tensors(seed=1))

    def found(weights: str | None) -> dict[str, str]:
        return load_config(changes={"measures": {"lpips": weights}}).fingerprints("etag", "text")

    assert found(None) == load_config().fingerprints("etag", "text")
    assert found(one) == found(same)
    assert [stage for stage in FINGERPRINTS if found(one)[stage] != found(None)[stage]] == ["select"]
    assert [stage for stage in FINGERPRINTS if found(one)[stage] != found(other)[stage]] == ["select"]


def test_without_measures_the_fingerprint_is_made_as_before_there_were_any():
    config = load_config()
    assert (config.lpips, config.measures.measures, config.as_json()["measures"]) == (None, (), {})
    found, chosen = config.fingerprints("etag", "text"), config.selector
    identity = [chosen.name, chosen.model, chosen.revision, chosen.prompt_id]
    # Otherwise every video of every dataset would be done anew.
    assert found["select"] == fingerprint(found["captions"], identity, config.abstain_below)


def test_the_run_record_and_the_config_name_the_weights(tmp_path):
    weights = write_weights(tmp_path / "w.safetensors")
    config = load_config(changes={"measures": {"lpips": weights}})
    (measure,) = config.measures.measures
    assert measure.revision == f"sha256 {digest(weights)[:12]}"
    assert config.as_json()["measures"] == {"lpips": {"fingerprint": measure.fingerprint}}
    assert [entry.name for entry in config.models][-1] == "conse"
    record = RunRecord.begin(str(tmp_path), "r1", config, [], {})
    assert record.values["config"]["values"]["measures"]["lpips"] == weights


@pytest.mark.parametrize(
    ("measures", "said"),
    [
        ({"lpip": "x"}, "there is no measure 'lpip'; did you mean 'lpips'?"),
        ({"lpips": 3}, "measures.lpips must be a weights file, `hub` or null, not 3"),
        ({"lpips": "/no/where.safetensors"}, "measures.lpips: there are no LPIPS weights at /no/where.safetensors"),
        ({"lpips": "s3://b/w.safetensors"}, "measures.lpips: LPIPS weights are read from a file or from gs://"),
        ("w.safetensors", "measures must be a mapping"),
    ],
)
def test_a_mistake_in_measures_is_told_in_one_line(measures, said):
    with pytest.raises(ConfigError) as raised:
        load_config(changes={"measures": measures})
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_doctor_finds_weights_that_are_missing_or_do_not_fit(tmp_path):
    absent = write_config(tmp_path, str(tmp_path / "gone.safetensors"))
    fix = "name the weights' file in the configuration: measures: {lpips: FILE.safetensors}"
    (check,) = check_models(None, absent)
    assert (check.name, check.state, check.fix) == ("configuration", "fail", fix)
    assert check.what.startswith("measures.lpips: there are no LPIPS weights at ")

    def found(path: str) -> Check:
        return next(one for one in check_models(None, write_config(tmp_path, path)) if one.name == "model lpips")

    good = write_weights(tmp_path / "w.safetensors")
    assert (found(good).state, found(good).what[:18]) == ("ok", "loads: LPIPS v0.1,")
    tensors = lpips_tensors()
    tensors.pop("lin.2.weight")
    bad = found(write_weights(tmp_path / "bad.safetensors", tensors))
    assert (bad.state, bad.fix) == (
        "fail",
        "name other weights, or none, in the configuration: measures: {lpips: FILE.safetensors}",
    )
    assert "does not fit LPIPS: it lacks lin.2.weight" in bad.what
