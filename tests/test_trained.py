"""A trained selector's directory: its record believed in nothing, and what of it reaches handlers, jobs and reports."""

import json
import pathlib
import re

import pytest
import tiny_dual
import yaml
from lite_media import clip_of, photographs, write_reel
from report_dataset import write_dataset

from beam_pipeline import doctor_models
from beam_pipeline.choosing import choose
from beam_pipeline.config import ConfigError, load_config
from beam_pipeline.datasetcard import card, figures
from beam_pipeline.training import provenance
from model_handlers import catalogue
from model_handlers.dual_selectors import SiglipNetwork
from model_handlers.settings import Settings
from model_handlers.trained import MAX_BYTES, Calibration, Trained, as_trained, calibrated, read_trained, sigmoid
from model_handlers.umt_selector import UmtJudge
from model_handlers.video_selectors import XClipNetwork
from model_handlers.weights import WeightsError
from transforms.records import Candidate, CaptionedClip

CURVE = Calibration("temperature", "score", 40.0, -12.0)
RECORD = {
    "schema_version": 1,
    "selector": "clip-vit-h",
    "base": {"model": catalogue.selector("clip-vit-h").model, "revision": "1"},
    "trained_on": {
        "fingerprint": "f" * 64,
        "examples": {"train": 800, "validation": 100, "test": 100},
        "sources": {"train": 300},
    },
    "recipe": {},
    "metrics": {"test": {"clips": 90, "untrained": {"value": 0.22}, "trained": {"value": 0.36}}},
    "calibration": CURVE.as_json(),
    "abstain_below": 0.1,
}


def write_record(folder: pathlib.Path, **changes: object) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "selector.json").write_text(json.dumps({**RECORD, **changes}))
    return folder


def write_config(folder: pathlib.Path, **values: object) -> str:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"extends": "lite", **values}))
    return str(path)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny CLIP with a record of its training."""
    folder = tmp_path_factory.mktemp("trained") / "v1"
    tiny_dual.make_clip(folder)
    return write_record(folder)


def copy_of(folder: pathlib.Path, target: pathlib.Path, **changes: object) -> pathlib.Path:
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return write_record(target, **changes)


def test_what_a_record_says_is_read(tmp_path):
    found = read_trained(str(write_record(tmp_path)))
    assert found.calibration == CURVE
    assert (found.selector, found.abstain_below, found.trained_on["sources"]) == ("clip-vit-h", 0.1, {"train": 300})
    assert found.calibration.probability(0.3) == pytest.approx(0.5)
    untouched = write_record(tmp_path, calibration=None, abstain_below=None)
    assert (read_trained(str(untouched)).calibration, read_trained(str(untouched)).abstain_below) == (None, None)


@pytest.mark.parametrize("weights", ["", "org/model", "l16_25m.pth", "gs://models/l16.safetensors", "/nowhere/v1"])
def test_what_cannot_hold_a_record_has_none(weights):
    assert read_trained(weights) is None


def test_a_curve_is_told_and_read_again_as_it_is():
    for curve in (Calibration("temperature", "logit", 2.5, -1.0), Calibration("isotonic", x=(0.1, 0.3), y=(0.0, 0.5))):
        assert Calibration.of_json(json.loads(json.dumps(curve.as_json()))) == curve


def test_an_isotonic_curve_lies_between_its_points_but_for_the_tilt_that_keeps_the_order():
    curve = Calibration("isotonic", x=(0.1, 0.2, 0.4), y=(0.0, 0.5, 0.5))
    assert curve.probability(0.15) == pytest.approx(0.25, abs=1e-3)
    assert curve.probability(-1.0) == pytest.approx(0.0, abs=1e-3) and curve.probability(9.0) == pytest.approx(
        0.5, abs=1e-3
    )
    assert curve.probability(0.2) < curve.probability(0.3) < curve.probability(0.4) < curve.probability(0.5)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"schema_version": 2}, "schema_version must be 1; a newer reelscribe may read it"),
        ({"schema_version": True}, "schema_version must be 1"),
        ({"selector": None}, "selector must be a name of the catalogue"),
        ({"selector": "a\u001b[2J"}, "selector must be a name of the catalogue"),
        ({"metrics": []}, "metrics must be an object"),
        ({"abstain_below": "0.4"}, "abstain_below must be a number"),
        ({"abstain_below": True}, "abstain_below must be a number"),
        ({"abstain_below": 10**400}, "abstain_below must be finite"),
        ({"calibration": {"kind": "platt"}}, "calibration.kind must be one of temperature, isotonic"),
        ({"calibration": {"kind": []}}, "calibration.kind must be one of"),
        ({"calibration": {"kind": "temperature", "scale": 1}}, "calibration.shift must be a number"),
        ({"calibration": {"kind": "temperature", "scale": -1, "shift": 0}}, "it would turn every choice round"),
        ({"calibration": {"kind": "temperature", "of": [], "scale": 1, "shift": 0}}, "calibration.of must be one of"),
        ({"calibration": {"kind": "isotonic", "x": [0, 1], "y": [0]}}, "calibration.y must be a list of 2 to 10,000"),
        ({"calibration": {"kind": "isotonic", "x": [0, 1, 2], "y": [0, 1]}}, "must be as long as each other"),
        ({"calibration": {"kind": "isotonic", "x": [0, 0], "y": [0, 1]}}, "calibration.x must rise"),
        ({"calibration": {"kind": "isotonic", "x": [0, 1], "y": [1, 0]}}, "and never fall"),
        ({"calibration": {"kind": "isotonic", "x": [0, 1], "y": [0, 2]}}, "must lie between 0 and 1"),
        ({"calibration": {"kind": "isotonic", "x": [0] * 10_001, "y": [0] * 10_001}}, "a list of 2 to 10,000 numbers"),
    ],
)
def test_a_record_that_cannot_be_meant_is_refused_in_one_line(tmp_path, changes, told):
    with pytest.raises(WeightsError) as raised:
        read_trained(str(write_record(tmp_path, **changes)))
    assert told in str(raised.value) and "\n" not in str(raised.value)
    assert str(raised.value).startswith(f"{tmp_path}/selector.json can't be used: ")


@pytest.mark.parametrize(
    "written",
    [b"", b"\xff\xfe", b"[" * 200_000, b"[]", b'{"schema_version": NaN}', b" " * (MAX_BYTES + 1), b"9" * 5000],
    ids=["empty", "no text", "deep", "a list", "not a number", "long", "digits"],
)
def test_bytes_that_are_no_record_are_refused_in_one_line(tmp_path, written):
    (tmp_path / "selector.json").write_bytes(written)
    with pytest.raises(WeightsError, match="can't be used: ") as raised:
        read_trained(str(tmp_path))
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 600


def test_a_record_in_a_bucket_is_read_without_its_weights(gcs):
    gcs.put("models/v1/selector.json", json.dumps(RECORD).encode())
    gcs.put("models/v1/model.safetensors", b"gigabytes")
    assert read_trained("gs://bucket/models/v1").abstain_below == 0.1
    with pytest.raises(WeightsError, match="there is no checkpoint below gs://bucket/models/v2"):
        read_trained("gs://bucket/models/v2")


def captioned(folder: pathlib.Path, *texts: str) -> CaptionedClip:
    reel = write_reel(folder / "r.arrow", [photographs()["cat"]] * 4)
    candidates = tuple(Candidate(f"t{n}", "m", "r", "p", text, "f") for n, text in enumerate(texts))
    return CaptionedClip(clip_of(reel, 4, "c"), candidates, (), ())


def test_the_handler_calibrates_whole_captions_and_chooses_the_same(checkpoint, tmp_path):
    long = "A cat sits on the sofa and looks at the camera. " * 9
    request = captioned(tmp_path, "A cat sits on the sofa.", "Two dogs run across a green field.", long)
    plain = copy_of(checkpoint, tmp_path / "plain", calibration=None)
    answers = []
    for weights in (plain, checkpoint):
        handler = choose("selector", {"name": "clip-vit-h", "weights": str(weights), "dtype": "float32"}).entry.build()
        (outcome,) = handler.run_inference([request], handler.load_model())
        answers.append(outcome.answer)
    raw, said = answers
    assert said == pytest.approx(calibrated(raw, CURVE), abs=1e-5)
    assert max(range(3), key=raw.__getitem__) == max(range(3), key=said.__getitem__) and len(set(raw)) == 3


@pytest.mark.parametrize(
    ("network", "combined"),
    [
        # The mean of the logits of .5 and .9, weighed by their tokens.
        (UmtJudge(None), [1 / (1 + 9**-0.75), 0.2]),
        (SiglipNetwork(None, None, None, None, 1), [sigmoid(0.5 * 0.25 + 0.9 * 0.75), sigmoid(0.2)]),
        (XClipNetwork(None, None, None, None, 1), [0.5 * 0.25 + 0.9 * 0.75, 0.2]),
    ],
    ids=["umt", "siglip", "xclip"],
)
def test_pieces_of_a_long_caption_are_combined_before_its_score_is_calibrated(network, combined, tmp_path):
    settings = Settings(weights=str(write_record(tmp_path)))
    raw = [([0.5, 0.9], (4, 12)), ([0.2], (5,))]
    assert network.finish(None, raw) == pytest.approx(combined)
    assert as_trained(network, settings).finish(None, raw) == pytest.approx(calibrated(combined, CURVE))


def test_a_trained_version_brings_its_threshold_its_licence_and_a_version_of_its_own(checkpoint, tmp_path):
    original = choose("selector", "clip-vit-h").entry
    entry = choose("selector", {"name": "mine", "like": "clip-vit-h", "weights": str(checkpoint)}).entry
    assert (entry.abstain_below, entry.licence, entry.restricted) == (0.1, original.licence, original.restricted)
    other = copy_of(checkpoint, tmp_path / "v2", calibration={"kind": "temperature", "scale": 41.0, "shift": -12.0})
    again = choose("selector", {"name": "mine", "like": "clip-vit-h", "weights": str(other)}).entry
    assert again.revision != entry.revision and again.identity != entry.identity


def test_what_was_trained_from_somebody_elses_model_has_no_licence_that_we_know(checkpoint, tmp_path):
    foreign = copy_of(checkpoint, tmp_path / "v2", base={"model": "our-org/clip", "revision": "0" * 40})
    entry = choose("selector", {"name": "clip-vit-h", "weights": str(foreign)}).entry
    assert entry.licence == "unknown" and entry.restricted.startswith("nothing says what its licence allows")
    told = choose("selector", {"name": "clip-vit-h", "weights": str(foreign), "licence": "MIT", "commercial": True})
    assert (told.entry.licence, told.entry.restricted) == ("MIT", "")


def test_a_version_of_another_selector_is_refused_with_the_right_name(checkpoint):
    told = (
        f"{checkpoint} holds a trained clip-vit-h, not siglip2-base; write {{name: clip-vit-h, weights: {checkpoint}}}"
    )
    with pytest.raises(WeightsError, match=re.escape(told)):
        choose("selector", {"name": "siglip2-base", "weights": str(checkpoint)})


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        ({}, "trained; scores not calibrated"),
        ({"trained_on": {"examples": {"train": "<b>"}}, "metrics": []}, "trained; scores not calibrated"),
        ({"trained_on": {"examples": {"train": 10**30}, "sources": {"train": True}}}, "trained; scores not calibrated"),
        (
            {"metrics": {"validation": {"trained": {"value": 0.5}}}, "abstain_below": 0.25},
            "trained; 50.0 % agreement with people on validation clips; scores not calibrated, abstains below 0.25",
        ),
    ],
)
def test_of_what_a_record_tells_of_itself_only_numbers_are_shown(training, expected):
    assert provenance.told(training) == expected


@pytest.mark.parametrize(
    ("said", "expected"), [({}, 0.1), ({"abstain_below": 0.3}, 0.3), ({"abstain_below": None}, None)]
)
def test_what_a_configuration_says_of_abstaining_goes_before_what_was_learned(checkpoint, tmp_path, said, expected):
    config = load_config(write_config(tmp_path, selector={"name": "clip-vit-h", "weights": str(checkpoint)}, **said))
    assert config.abstain_below == expected
    assert config.as_json()["selector_training"]["trained_on"] == RECORD["trained_on"]


def test_calibration_and_threshold_change_what_the_selection_depends_on_and_nothing_before_it(checkpoint, tmp_path):
    prints = []
    for name, changes in {"a": {}, "b": {"calibration": None}, "c": {"abstain_below": 0.2}}.items():
        weights = str(copy_of(checkpoint, tmp_path / name, **changes))
        config = load_config(write_config(tmp_path, selector={"name": "clip-vit-h", "weights": weights}))
        prints.append(config.fingerprints("etag", "text"))
    assert len({one["select"] for one in prints}) == 3 and len({one["captions"] for one in prints}) == 1


def test_where_only_the_workers_hold_the_directory_somebody_must_say_when_to_abstain(tmp_path):
    named = {"name": "clip-vit-h", "weights": "/models/selector/v1", "revision": "v1"}
    with pytest.raises(ConfigError) as raised:
        load_config(write_config(tmp_path, selector=named))
    assert str(raised.value) == (
        "/models/selector/v1 is not on this machine, so its selector.json can't say when to abstain; write "
        "abstain_below: the number that stands there, or null to abstain never"
    )
    assert load_config(write_config(tmp_path, selector=named, abstain_below=None)).abstain_below is None


def test_the_doctor_tells_what_a_selector_was_trained_on_and_how_good_it_was_found(checkpoint, tmp_path):
    config = write_config(tmp_path, selector={"name": "clip-vit-h", "weights": str(checkpoint)})
    check = next(one for one in doctor_models.check_models(None, config) if one.name == "model clip-vit-h")
    assert check.state == "ok"
    assert check.what.endswith(
        "; trained on 800 clips of 300 sources; 36.0 % agreement with people on 90 held-out clips, 22.0 % untrained; "
        "scores calibrated (temperature), abstains below 0.1"
    )


def test_the_doctor_tells_of_a_record_that_cannot_be_used(checkpoint, tmp_path):
    broken = copy_of(checkpoint, tmp_path / "v2", abstain_below="low")
    config = write_config(tmp_path, selector={"name": "clip-vit-h", "weights": str(broken)})
    (check,) = doctor_models.check_models(None, config)
    assert (check.name, check.state) == ("configuration", "fail")
    assert check.what.startswith(f"{broken}/selector.json can't be used: abstain_below must be a number")


def test_the_datasets_card_tells_of_the_training_and_of_the_captions_behind_it(checkpoint, tmp_path):
    config = load_config(write_config(tmp_path, selector={"name": "clip-vit-h", "weights": str(checkpoint)}))
    text = card("A set", figures(write_dataset(tmp_path / "set")), {"config": config.as_json()})
    assert "The selector is a version of `clip-vit-h`, trained on 800 clips of 300 sources; 36.0 % agreement" in text
    assert "whatever binds the captions and judgements that it learned from may bind it too" in text
    assert config.selector.trained == Trained.of_json(RECORD)
