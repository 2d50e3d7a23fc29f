"""Max Running LPIPS as a column: measured beside the captions, absent without weights, never at a clip's cost."""

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
from beam_pipeline.runs import RunRecord
from beam_pipeline.verify import audit
from model_handlers.base import ElementwiseHandler
from model_handlers.perceptual import frames_at_1fps, load_lpips
from transforms.committing import Committer, finalise
from transforms.lease import WriterLease
from transforms.measuring import MeasureClips, measurement_of
from transforms.reading import Source
from transforms.records import (
    Candidate,
    CaptionedClip,
    DeadLetter,
    Failure,
    JudgedClip,
    Measurement,
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


class Ruler(ElementwiseHandler):
    """Answers a clip with a tenth of its number; fails where it is told to."""

    def __init__(self, fails_on: str = ""):
        super().__init__("ruler", max_batch=4)
        self._fails_on = fails_on

    def load(self) -> Model:
        return Model()

    def answer(self, requests, model):
        if self._fails_on in [clip.clip_id for clip in requests]:
            raise ValueError("no frame can be read")
        return [int(clip.clip_id[-1]) / 10 for clip in requests]


def judged(clip) -> JudgedClip:
    captioned = CaptionedClip(clip, (Candidate("a", "m", "r", "p", "One.", "f"),), (), ())
    return JudgedClip(captioned, (0.5,), 0, None, False, ())


@pytest.mark.parametrize(
    ("answer", "failure", "value", "error"),
    [
        (0.25, None, 0.25, None),
        (0.0, None, 0.0, None),
        (None, None, None, None),
        (math.nan, None, None, ("BadMeasurement", "Max Running LPIPS cannot be nan")),
        (-0.1, None, None, ("BadMeasurement", "Max Running LPIPS cannot be -0.1")),
        (None, Failure("ReelError", "gone", "trace"), None, ("ReelError", "gone")),
    ],
)
def test_a_measurement_is_a_distance_or_nothing_or_a_dead_letter(answer, failure, value, error):
    found = measurement_of(Outcome(CLIPS[0], answer=answer, failure=failure))
    assert (found.video_id, found.clip_id, found.max_running_lpips) == ("v", "v-0", value)
    letter = found.dead_letter
    assert (letter and (letter.error_class, letter.message)) == error
    if letter:
        assert (letter.stage, letter.clip_id, letter.teacher, letter.span) == ("measure", "v-0", None, CLIPS[0].span)


def test_each_clip_is_measured_and_one_failure_leaves_the_others_alone():
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
        clips = pipeline | beam.Create([make_clip(number) for number in range(3)])
        told = clips | MeasureClips(Ruler(fails_on="v-1")) | beam.Map(_told)
        assert_that(told, equal_to([("v-0", 0.0, None), ("v-1", None, "no frame can be read"), ("v-2", 0.2, None)]))


def _told(found: Measurement) -> tuple:
    return found.clip_id, found.max_running_lpips, found.dead_letter.message if found.dead_letter else None


def letter_of(clip) -> DeadLetter:
    return Failure("ReelError", "gone", "").letter("measure", "v", clip.uri, clip_id=clip.clip_id, span=clip.span)


@pytest.mark.parametrize(
    ("measured", "column", "letters"),
    [
        (None, [None, None], []),
        ([Measurement("v", "v-1", 0.5), Measurement("v", "v-0", 0.25)], [0.25, 0.5], []),
        ([Measurement("v", "v-0", None), Measurement("v", "v-1", 0.5)], [None, 0.5], []),
        ([Measurement("v", "v-0", None, letter_of(CLIPS[0])), Measurement("v", "v-1", 0.5)], [None, 0.5], ["gone"]),
        ([Measurement("v", "v-0", 0.25)], [0.25, None], ["the measurement of this clip got lost"]),
    ],
)
def test_a_failed_measurement_costs_the_number_not_the_clip_nor_the_status(tmp_path, measured, column, letters):
    rows = video_rows(WHOLE, map(judged, CLIPS), "r1", FINGERPRINTS, measured)
    assert [row["max_running_lpips"] for row in rows.clips] == column
    assert [(row["stage"], row["message"]) for row in rows.failures] == [("measure", message) for message in letters]
    assert (rows.video["status"], rows.video["n_clips"], rows.video["n_failures"]) == ("ok", 2, len(letters))


def test_a_clip_that_failed_is_still_the_span_that_its_own_dead_letter_says(tmp_path):
    failure = Failure("NoCaption", "none", "").letter("caption", "v", "u", clip_id="v-0", span=CLIPS[0].span)
    mute = JudgedClip(CaptionedClip(CLIPS[0], (), (), ()), (), None, None, False, (failure,))
    measured = [Measurement("v", "v-0", None, letter_of(CLIPS[0])), Measurement("v", "v-1", 0.5)]
    rows = video_rows(WHOLE, [mute, judged(CLIPS[1])], "r1", FINGERPRINTS, measured)
    assert [(row["clip_id"], row["max_running_lpips"]) for row in rows.clips] == [("v-1", 0.5)]
    assert [row["stage"] for row in rows.failures] == ["caption", "measure"]
    assert rows.video["status"] == "partial"


def test_verify_takes_a_failed_measurement_for_no_loss_and_an_impossible_number_for_a_breach(tmp_path):
    touching = [make_clip(number, span=Span(4.0 * number, 4.0 * number + 4.0)) for number in range(2)]
    whole = StitchedVideo(WHOLE.split, tuple(touching), WHOLE.embeddings, (), ())
    measured = [Measurement("v", "v-0", None, letter_of(touching[0])), Measurement("v", "v-1", 0.5)]
    good, bad = tmp_path / "good", tmp_path / "bad"
    Committer(good).commit([video_rows(whole, map(judged, touching), "r1", FINGERPRINTS, measured)])
    with WriterLease(good, "r1"):
        finalise(good)
    assert audit(good).breaches == []
    tables = report_contents.load(str(good))
    assert tables.failures.num_rows == 1
    assert report_contents.spans_by_video(tables, ["v"]) == {"v": [("accepted", 0.0, 4.0), ("accepted", 4.0, 8.0)]}
    wrong = [Measurement("v", "v-0", -0.5), Measurement("v", "v-1", math.inf)]
    Committer(bad).commit([video_rows(whole, map(judged, touching), "r1", FINGERPRINTS, wrong)])
    with WriterLease(bad, "r1"):
        finalise(bad)
    assert audit(bad).breaches == [
        "v-0: its max_running_lpips is -0.5, which no distance can be",
        "v-1: its max_running_lpips is inf, which no distance can be",
    ]


@pytest.mark.parametrize("measures", [True, False])
def test_videos_are_assembled_with_their_measurements_or_without_any(measures):
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
        parts = [pipeline | "w" >> beam.Create([WHOLE]), pipeline | "j" >> beam.Create([judged(c) for c in CLIPS])]
        if measures:
            parts.append(pipeline | "m" >> beam.Create([measurement_of(Outcome(CLIPS[n], n / 4)) for n in (1, 0)]))
        rows = tuple(parts) | AssembleVideos("run", lambda video: FINGERPRINTS)
        told = rows | beam.Map(lambda one: [row["max_running_lpips"] for row in one.clips])
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
        frames = frames_at_1fps(reel, Span(row["start_s"], row["end_s"]))
        assert row["max_running_lpips"] == pytest.approx(measure.max_running(frames), abs=1e-5)
    assert max(row["max_running_lpips"] for row in after) > 0
    plain = pa_dataset.dataset(dataset / "clips").to_table(columns=["max_running_lpips"])
    assert sorted(plain.to_pydict()["max_running_lpips"]) == sorted(row["max_running_lpips"] for row in after)
    capsys.readouterr()
    curate(write_config(tmp_path, weights))
    assert "1 in: 0 committed, 1 unchanged" in capsys.readouterr().out
    page = pathlib.Path(write_report(str(dataset))).read_text()
    assert all(f"LPIPS <b>{row['max_running_lpips']:.3f}</b>" in page for row in after)
    assert "<figcaption>Max Running LPIPS <span>2 clips" in page
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
    assert (config.lpips, config.measure, config.as_json()["measures"]) == (None, None, {})
    found, chosen = config.fingerprints("etag", "text"), config.selector
    identity = [chosen.name, chosen.model, chosen.revision, chosen.prompt_id]
    # Otherwise every video of every dataset would be done anew.
    assert found["select"] == fingerprint(found["captions"], identity, config.abstain_below)


def test_the_run_record_and_the_config_name_the_weights(tmp_path):
    weights = write_weights(tmp_path / "w.safetensors")
    config = load_config(changes={"measures": {"lpips": weights}})
    assert config.as_json()["measures"] == {"lpips": weights, "sha256": config.lpips_sha256}
    assert [entry.name for entry in config.models][-1] == "conse"
    record = RunRecord.begin(str(tmp_path), "r1", config, [], {})
    assert record.values["config"]["measures"]["lpips"] == weights


@pytest.mark.parametrize(
    ("measures", "said"),
    [
        ({"lpip": "x"}, "there is no measure 'lpip'; did you mean 'lpips'? Known: lpips"),
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
