"""Rates out of run records, files and flags: by hand, from records that are written here and one that a run wrote."""

import copy
import json

import pytest

from beam_pipeline.estimate import Worker
from beam_pipeline.estimate_entries import EntryError, parse_worker, read_entries, read_handlers
from beam_pipeline.estimate_rates import Rate, measured_run

CONFIG = {
    "splitting": {"detector": "content"},
    "embedder": "e",
    "teachers": ["a", "b"],
    "selector": "s",
    "placement": {"accelerator": ""},
    "values": {"teachers": ["a", {"name": "b", "accelerator": "type:nvidia-l4;count:1"}]},
}


def flow(in_, seconds, **more):
    return {"in": in_, "out": in_, "failed": 0, "reused": 0, "seconds": seconds, **more}


def teacher(asked, seconds, not_applicable=0, reused=0):
    return {"asked": asked, "not_applicable": not_applicable, "reused": reused, "seconds": seconds}


RECORD = {
    "run_id": "r",
    "status": "done",
    "started_at": "2026-01-01T00:00:00+00:00",
    "finished_at": "2026-01-01T00:10:00+00:00",
    "input": ["gs://bucket/videos"],
    "options": {"beam_flags": ["--direct_num_workers=1"]},
    "config": CONFIG,
    "counts": {"committed": 18, "failed": 2, "unchanged": 0, "clips": 200, "video_ms": 1_800_000},
    "seconds": {"split": 180.0, "finish": 120.0},
    "bytes": {"reels": 3_600_000, "clips": 4_000},
    "stages": {
        "read": flow(20, 4.0),
        "split": flow(20, 180.0),
        "embed": flow(300, 60.0),
        "stitch": flow(300, 3.0),
        "caption": flow(200, 150.0, teachers={"a": teacher(200, 100.0), "b": teacher(50, 50.0, not_applicable=150)}),
        "score": flow(200, 20.0),
        "commit": flow(20, 1.0),
    },
}


def changed(**changes):
    record = copy.deepcopy(RECORD)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = record
        for parent in parents:
            place = place[parent]
        place[last] = value
    return record


def test_seconds_are_told_for_a_unit_of_each_stage():
    measured = measured_run(RECORD)
    assert {stage: (rate.seconds, rate.on, rate.share) for stage, rate in measured.rates.items()} == {
        "read": (0.2, "cpu", None),
        "split": (0.1, "cpu", None),
        "embed": (0.2, "cpu", None),
        "stitch": (0.01, "cpu", None),
        "caption/a": (0.5, "cpu", 1.0),
        "caption/b": (1.0, "gpu", 0.25),
        "score": (0.1, "cpu", None),
        "commit": (0.05, "cpu", None),
    }
    assert (measured.video_s, measured.shots, measured.clips, measured.videos) == (1800.0, 300, 200, 20)
    assert measured.bytes_of == {"reels": 2000.0, "clips": 20.0}
    # 300 of 600 seconds of one worker.
    assert (measured.busy, measured.finish_s, measured.weak) == (0.5, 120.0, ())


def test_models_stand_where_the_user_says():
    on = {stage: rate.on for stage, rate in measured_run(RECORD, "gpu").rates.items()}
    assert sorted(stage for stage in on if on[stage] == "gpu") == ["caption/a", "caption/b", "embed", "score"]


def test_what_was_used_again_counts_as_much_as_what_was_not():
    split = {**RECORD["stages"]["split"], "reused": 15, "seconds": 45.0}
    captioned = {"a": teacher(50, 25.0, reused=150), "b": teacher(0, 0.0, reused=200)}
    measured = measured_run(changed(stages__split=split, stages__caption__teachers=captioned))
    assert measured.rates["split"].seconds == pytest.approx(0.1)
    assert (measured.rates["caption/a"].seconds, measured.rates["caption/a"].share) == (0.5, 1.0)
    assert measured.unmeasured == {"caption/b": "run r asked it about no clip"}
    # What its reels weigh is of more than it split.
    assert (measured.fresh_videos, measured.bytes_of) == (5, {})


@pytest.mark.parametrize(
    ("changes", "weak"),
    [
        ({"counts__clips": 99}, "it measured 99 clips; 100 or more would be better"),
        ({"counts__video_ms": 300_000}, "it measured 5 minutes of video; 10 or more would be better"),
        ({"stages__split__in": 9}, "it measured 9 videos; 10 or more would be better"),
        ({"stages__split__reused": 11}, "11 of 20 videos were split by an earlier run; a new --output measures all"),
        ({"status": "interrupted"}, "it is 'interrupted', not done"),
        (
            {"options__beam_flags": []},
            "its workers may have waited for the GPU in turns, which seconds hold; --direct_num_workers=1 tells better",
        ),
    ],
)
def test_a_run_that_measured_little_is_a_weak_basis(changes, weak):
    assert weak in measured_run(changed(**changes)).weak


def test_a_stage_that_hardly_worked_is_a_weak_one():
    measured = measured_run(changed(stages__caption__teachers__b__asked=3, stages__read__seconds=0.0))
    assert measured.weak_stages == {
        "read": "took no time that could be told",
        "caption/b": "was asked about 3 of 200 clips",
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"counts__video_ms": 0}, "run r split no video: all of it was there already, or failed"),
        (
            {"stages": None},
            "the record of run r does not tell its stages, as of a template's job; take a run of reelscribe curate",
        ),
    ],
)
def test_a_record_that_tells_nothing_is_refused(changes, message):
    with pytest.raises(ValueError) as refused:
        measured_run(changed(**changes))
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("flags", "assumed"),
    [
        ([], "run r had as many workers as cores, so a second of its CPU work is a second of one core"),
        (
            ["--direct_num_workers=2"],
            "run r had 2 workers: no fewer than the machine had cores, else its seconds tell less",
        ),
        (
            ["--runner", "DataflowRunner"],
            "run r was one of DataflowRunner: no worker had more threads at work than vCPUs, or it tells more",
        ),
    ],
)
def test_what_a_second_of_work_stands_for_is_told(flags, assumed):
    assert measured_run(changed(options__beam_flags=flags)).assumed[1] == assumed


def test_a_stage_of_a_run_that_did_none_of_it_has_no_rate():
    nothing = measured_run(changed(stages__score=flow(200, 0.0, reused=200), stages__embed=flow(0, 0.0)))
    assert nothing.unmeasured == {"score": "run r did none of it anew", "embed": "run r did none of it"}


def test_an_endpoints_seconds_are_no_work_of_ours():
    values = {"teachers": [{"name": "a", "url": "http://models/v1"}]}
    assert measured_run(changed(config__values=values)).unmeasured == {
        "caption/a": "an endpoint computes it, at a speed and price of its own"
    }


YAML = """
clips_per_hour: 100
stages:
  embed: {gpu_s: 0.01, pool: l4}
teachers:
  blip: {gpu_s: 0.2, share: 0.5}
workers:
  l4: {machine: g2-standard-8, vcpu: 8, gpus: 1, price: 1.5, start_min: 8}
"""


def test_rates_and_workers_are_entered_in_a_file(tmp_path):
    (tmp_path / "rates.yaml").write_text(YAML)
    entries = read_entries(str(tmp_path / "rates.yaml"))
    assert entries.rates == {
        "embed": Rate(0.01, "gpu", "rates.yaml", pool="l4"),
        "caption/blip": Rate(0.2, "gpu", "rates.yaml", share=0.5),
    }
    assert entries.workers == (Worker("l4", "g2-standard-8", 8, 1, 1.5, 8.0),)
    assert entries.densities == {"clips_per_hour": 100.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stage: {}", "there is no key 'stage'; did you mean 'stages'?"),
        ("stages: {splt: {cpu_s: 1}}", "stages: there is no stage 'splt'; did you mean 'split'?"),
        ("stages: {split: {cpu: 1}}", "split: there is no key 'cpu'; did you mean 'cpu_s'?"),
        ("stages: {split: {}}", "split needs either cpu_s, seconds of one vCPU, or gpu_s, seconds of one GPU"),
        ("stages: {split: {cpu_s: -1}}", "split: cpu_s must be 0 or more, not -1"),
        ("stages: {split: {cpu_s: .nan}}", "split: cpu_s must be a number, not nan"),
        ("clips_per_hour: 0", "clips_per_hour must be above 0, not 0"),
        ("workers: {gpu: {machine: g2, gpus: 1}}", "gpu does not say vcpu and price"),
        ("[", "cannot read"),
        ("- 1", "must be a mapping of keys to values"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_line(tmp_path, text, message):
    (tmp_path / "rates.yaml").write_text(text)
    with pytest.raises(EntryError) as refused:
        read_entries(str(tmp_path / "rates.yaml"))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_worker_is_said_in_a_flag():
    said = "gpu=g2-standard-8,vcpu=8,gpus=1,price=1.5,start_min=8,workers=4"
    assert parse_worker(said) == Worker("gpu", "g2-standard-8", 8, 1, 1.5, 8.0, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpu", "--worker 'gpu': write it like gpu=g2-standard-8,vcpu=8,gpus=1,price=1.5"),
        ("gpu=g2,vcpu=8", "--worker gpu does not say price"),
        ("gpu=g2,vcpu=8,price=cheap", "--worker 'gpu=g2,vcpu=8,price=cheap': price needs a number, not 'cheap'"),
        ("gpu=g2,vcpu=8,price=1,gpu=1", "--worker gpu: there is no key 'gpu'; did you mean 'gpus'?"),
        ("gpu=g2,vcpu=0.5,price=1", "--worker gpu: vcpu must be a whole number, not 0.5"),
    ],
)
def test_a_worker_that_cannot_be_meant_is_refused(text, message):
    with pytest.raises(EntryError) as refused:
        parse_worker(text)
    assert str(refused.value).startswith(message)


def benchmark(**changes):
    models = [
        {"model": "blip2-opt-2.7b", "through_beam": [4.0, 5.0, 8.0], "failures": []},
        {"model": "clip-vit-h", "through_beam": [100.0], "failures": []},
        {"model": "qwen2.5-vl-7b", "through_beam": [9.0], "failures": ["out of memory"]},
    ]
    return {"size": "full", "device": "NVIDIA L4", "models": models, **changes}


def test_a_benchmarks_clips_a_second_become_seconds_a_clip(tmp_path):
    file = tmp_path / "h.json"
    file.write_text(json.dumps(benchmark()))
    assert read_handlers(str(file)) == {
        "caption/blip2-opt-2.7b": Rate(0.2, "gpu", "h.json (NVIDIA L4)"),
        "embed": Rate(0.01, "gpu", "h.json (NVIDIA L4)", settings="clip-vit-h"),
    }
    file.write_text(json.dumps(benchmark(device="CPU, 4 cores")))
    assert read_handlers(str(file))["embed"] == Rate(0.04, "cpu", "h.json (CPU, 4 cores)", settings="clip-vit-h")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps(benchmark(size="small")), "measured small stand-ins of the models; add --size full"),
        ("{}", "is not what benchmarks/handlers.py --json writes"),
        ("no json", "is not what benchmarks/handlers.py --json writes"),
    ],
)
def test_what_no_benchmark_wrote_is_refused(tmp_path, text, message):
    (tmp_path / "h.json").write_text(text)
    with pytest.raises(EntryError, match=message):
        read_handlers(str(tmp_path / "h.json"))
