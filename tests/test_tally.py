"""What each stage did stands in the record of a run, and adds up, for videos good and bad, once and again."""

import json
import pathlib

import apache_beam as beam
import pytest
import yaml
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions
from fakes import EchoTeacher, LengthSelector, make_clip
from synthetic import make_video

from beam_pipeline.cli import main
from beam_pipeline.tally import Tally
from beam_pipeline.verify import audit
from model_handlers.base import ElementwiseHandler
from transforms.captioning import CaptionClips, Teacher
from transforms.counting import count
from transforms.measuring import Asked, MeasureClips, Measuring
from transforms.scoring import JudgeCaptions

RULES = {"still_distance": None, "redundant_distance": None, "min_event_s": 1.0}


def tallied(build) -> Tally:
    """The tally of a pipeline that `build` makes."""
    pipeline = beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"]))
    build(pipeline)
    result = pipeline.run()
    result.wait_until_finish()
    tally = Tally()
    tally.add(result.metrics())
    return tally


def without_seconds(stage: dict) -> dict:
    return {name: value for name, value in stage.items() if name not in ("seconds", "teachers")}


@pytest.fixture(scope="module")
def uploads(tmp_path_factory) -> pathlib.Path:
    """Two good videos, one cut off, one of noise, and a link to nothing."""
    folder = tmp_path_factory.mktemp("in")
    make_video(folder / "good.mp4", shots=[(3.0, "red"), (3.0, "blue")], drift_px=3)
    (folder / "good.json").write_text(json.dumps({"title": "Colours in motion"}))
    make_video(folder / "short.mp4", shots=[(2.0, "green"), (0.4, "white")], drift_px=3)
    make_video(folder / "cut-off.mkv", shots=[(4.0, "yellow"), (4.0, "grey")], drift_px=3, audio_s=8.0)
    whole = (folder / "cut-off.mkv").read_bytes()
    (folder / "cut-off.mkv").write_bytes(whole[: len(whole) * 8 // 10])
    (folder / "noise.mp4").write_bytes(b"no video" * 500)
    (folder / "gone.mp4").symlink_to(folder / "nowhere.mp4")
    return folder


def curated(uploads: pathlib.Path, output: pathlib.Path, teachers: list[str]) -> dict:
    """The record of a run with these teachers."""
    config = output.parent / "config.yaml"
    config.write_text(yaml.safe_dump({"extends": "lite", "stitching": RULES, "teachers": teachers}))
    before = set(output.glob("runs/*.json"))
    assert main(["curate", "--input", str(uploads), "--output", str(output), "--config", str(config)]) == 0
    assert audit(output).breaches == []
    (path,) = set(output.glob("runs/*.json")) - before
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def runs(uploads, tmp_path_factory) -> tuple[dict, dict]:
    """A run with two teachers, and the same with a third one."""
    output = tmp_path_factory.mktemp("out") / "set"
    first = curated(uploads, output, ["lite-scene", "lite-text"])
    return first, curated(uploads, output, ["lite-scene", "lite-text", "lite-hedged"])


def test_what_goes_into_a_stage_comes_out_or_fails_and_what_comes_out_goes_into_the_next(runs, uploads):
    stages = runs[0]["stages"]
    assert list(stages) == ["read", "split", "embed", "stitch", "caption", "score", "commit"]
    sizes = {path.name: path.stat().st_size for path in uploads.iterdir() if path.exists()}
    videos = sum(sizes[name] for name in ("good.mp4", "short.mp4", "cut-off.mkv"))
    assert {name: without_seconds(stages[name]) for name in stages if name != "stitch"} == {
        "read": {"in": 5, "out": 4, "failed": 1, "bytes": videos + sizes["noise.mp4"]},
        "split": {"in": 4, "out": 3, "failed": 1, "reused": 0, "bytes": videos},
        "embed": {"in": 6, "out": 6, "failed": 0, "reused": 0},
        "caption": {"in": 5, "out": 5, "failed": 0},
        "score": {"in": 5, "out": 5, "failed": 0, "reused": 0},
        "commit": {"in": 5, "out": 5, "failed": 0, "repeated": 0, "superseded": 0},
    }
    for name in stages.keys() - {"stitch"}:
        assert stages[name]["in"] == stages[name]["out"] + stages[name]["failed"], name
    assert min(stages[name]["seconds"] for name in ("split", "embed", "score", "commit")) > 0


@pytest.mark.parametrize(("run", "reused"), [(0, 0), (1, 5)])
def test_what_the_rules_keep_and_drop_is_as_long_as_what_was_found(runs, run, reused):
    stitch = runs[run]["stages"]["stitch"]
    # Two ends of each of five clips, and the flash of 0.4 s that is no event.
    assert [stitch[name] for name in ("in", "out", "rejected", "failed", "reused")] == [6, 5, 11, 0, reused]
    assert stitch["in_s"] == pytest.approx(stitch["out_s"] + stitch["rejected_s"] + stitch["failed_s"], abs=0.002)
    assert stitch["out_s"] == pytest.approx(runs[run]["counts"]["clip_ms"] / 1000, abs=0.01)


def test_each_teacher_answers_or_fails_or_has_nothing_to_look_at(runs):
    caption = runs[0]["stages"]["caption"]
    told = {name: without_seconds(teacher) for name, teacher in caption["teachers"].items()}
    assert told == {
        "lite-scene": {"asked": 5, "captions": 5, "failed": 0, "not_applicable": 0, "reused": 0},
        "lite-text": {"asked": 2, "captions": 2, "failed": 0, "not_applicable": 3, "reused": 0},
    }
    worked_s = sum(teacher["seconds"] for teacher in caption["teachers"].values())
    assert caption["seconds"] == pytest.approx(runs[0]["seconds"]["caption"], abs=0.001)
    assert caption["seconds"] == pytest.approx(worked_s, abs=0.002)


def test_a_teacher_more_finds_all_else_done(runs):
    stages = runs[1]["stages"]
    flow = {name: {key: stages[name][key] for key in ("in", "out", "failed")} for name in stages}
    assert (flow["read"], flow["split"]) == ({"in": 5, "out": 4, "failed": 1}, {"in": 4, "out": 3, "failed": 1})
    assert {name: stages[name]["reused"] for name in ("split", "embed", "stitch", "score")} == {
        "split": 3, "embed": 6, "stitch": 5, "score": 0,
    }  # fmt: skip
    assert flow["caption"] == {"in": 5, "out": 5, "failed": 0}
    assert {name: without_seconds(told) for name, told in stages["caption"]["teachers"].items()} == {
        "lite-hedged": {"asked": 5, "captions": 5, "failed": 0, "not_applicable": 0, "reused": 0},
        "lite-scene": {"asked": 0, "captions": 0, "failed": 0, "not_applicable": 0, "reused": 5},
        "lite-text": {"asked": 0, "captions": 0, "failed": 0, "not_applicable": 3, "reused": 2},
    }
    assert (stages["split"]["bytes"], stages["embed"]["seconds"], "embed" in runs[1]["seconds"]) == (0, 0.0, False)
    assert all(flow[name]["in"] == flow[name]["out"] + flow[name]["failed"] for name in flow if name != "stitch")


def test_what_a_run_counted_before_there_were_stages_reads_as_ever(runs):
    counts = runs[0]["counts"]
    assert {name: counts[name] for name in ("inputs", "committed", "failed", "clips", "read failed")} == {
        "inputs": 5, "committed": 3, "failed": 2, "clips": 5, "read failed": 1,
    }  # fmt: skip
    assert not any(name.startswith("stages") for name in counts)
    assert set(runs[0]["seconds"]) == {"split", "embed", "caption", "score", "commit", "finish"}


class HalfMeter(ElementwiseHandler):
    """Measures the clips with an even number; the others break it."""

    def load(self):
        return HalfMeter

    def answer(self, requests, model):
        if any(int(request.measured.clip.clip_id.rpartition("-")[2]) % 2 for request in requests):
            raise ValueError("odd")
        return [{"half": {"blur": 0.25}}] * len(requests)


def test_failures_of_models_are_counted_where_they_happen():
    clips = [make_clip(number) for number in range(4)]
    teachers = [
        Teacher("sharp", EchoTeacher("sharp", fails_on=["v-1", "v-3"])),
        Teacher("mute", EchoTeacher("mute", mute_on=["v-1"])),
    ]

    def build(pipeline):
        found = pipeline | beam.Create(clips)
        asked = Asked("Pixels", {"half": "h1"}, {"half": ["blur"]})
        _ = found | "Measure clips" >> MeasureClips([Measuring(asked, HalfMeter("half"))])
        captioned = found | "Caption clips" >> CaptionClips(teachers)
        _ = captioned | "Judge captions" >> JudgeCaptions(LengthSelector(fails_on=["v-3"]))

    stages = tallied(build).stages()
    # v-1 has no caption at all, so that the selector never sees it.
    assert {name: without_seconds(stages[name]) for name in ("caption", "measure", "score")} == {
        "caption": {"in": 4, "out": 3, "failed": 1},
        "measure": {"in": 4, "out": 2, "failed": 2, "reused": 0, "measures": {}},
        "score": {"in": 3, "out": 2, "failed": 1, "reused": 0},
    }
    assert {name: without_seconds(told) for name, told in stages["caption"]["teachers"].items()} == {
        "mute": {"asked": 4, "captions": 3, "failed": 1, "not_applicable": 0, "reused": 0},
        "sharp": {"asked": 4, "captions": 2, "failed": 2, "not_applicable": 0, "reused": 0},
    }


def _spend(name: str) -> None:
    count(f"caption/{name}", asked=1, captions=1)
    Metrics.distribution(f"reelscribe/{name}", "compute_micro_secs").update({"big": 3_000_000, "small": 500_000}[name])
    Metrics.distribution("reelscribe/together", "inference_batch_latency_micro_secs").update(2_000_000)


def test_teachers_that_take_turns_have_each_its_own_seconds():
    tally = tallied(
        lambda pipeline: (
            pipeline | beam.Create(["big", "small", "small"]) | "Caption clips/Ask together/Caption" >> beam.Map(_spend)
        )
    )
    told = tally.stages()["caption"]
    assert {name: (one["asked"], one["seconds"]) for name, one in told["teachers"].items()} == {
        "big": (1, 3.0), "small": (2, 1.0),
    }  # fmt: skip
    assert told["seconds"] == 6.0


def test_what_several_pipelines_did_adds_up():
    tally = Tally()
    for videos in (2, 3):
        pipeline = beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"]))
        _ = pipeline | beam.Create([videos]) | beam.Map(lambda n: count("read", in_=n, out=n - 1, failed=1, bytes=0))
        result = pipeline.run()
        result.wait_until_finish()
        tally.add(result.metrics())
    assert without_seconds(tally.stages()["read"]) == {"in": 5, "out": 3, "failed": 2, "bytes": 0}


def test_every_dead_letter_of_the_dataset_was_counted_in_its_stage(runs):
    failed = {name: told["failed"] for name, told in runs[0]["stages"].items() if told["failed"]}
    counted = {
        name.removeprefix("failures "): n for name, n in runs[0]["counts"].items() if name.startswith("failures")
    }
    # The part of a video that was cut off is a dead letter, too; the video went on without it.
    assert (failed, counted) == ({"read": 1, "split": 1}, {"read": 1, "split": 2})


def test_a_counter_at_nothing_counts_nothing_where_a_runner_tells_none_of_it():
    pipeline = beam.Pipeline(
        options=PipelineOptions(["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"])
    )
    nothing, one = Metrics.counter("reelscribe/rows", "clip_ms"), Metrics.counter("reelscribe/rows", "videos")
    _ = pipeline | beam.Create([None]) | beam.Map(lambda _: (nothing.inc(0), one.inc()))
    result = pipeline.run()
    result.wait_until_finish()
    tally = Tally()
    tally.add(result.metrics())
    assert tally.counts == {"clip_ms": 0, "videos": 1}
