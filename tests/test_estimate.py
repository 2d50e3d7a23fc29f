"""The arithmetic of an estimate, by hand; and what is refused rather than counted as nothing."""

import dataclasses

import pytest

from beam_pipeline.estimate import NotPossible, Task, Worker, estimate, pool_of
from beam_pipeline.estimate_rates import Measured, Rate
from beam_pipeline.estimate_stages import Amounts, amounts_of, choose_rates, stages_of, tasks_of

CPU = Worker("cpu", "n2-standard-8", vcpus=8, gpus=0, price=0.5)
GPU = Worker("gpu", "g2-standard-8", vcpus=8, gpus=1, price=2.0)

#: 100 hours of one vCPU, and 20 of one GPU.
SPLIT = Task("split", "second of video", 3_600_000, 0.1, "cpu", "cpu")
CAPTION = Task("caption/blip", "clip", 144_000, 0.5, "gpu", "gpu")


def pools(found):
    return {pool.worker.pool: (pool.workers, round(pool.hours, 9), round(pool.cost, 9)) for pool in found.pools}


@pytest.mark.parametrize(
    ("workers", "tasks", "utilisation", "asked", "expected", "wall_h", "cost"),
    [
        # 100 vCPU hours on 5 x 8 vCPUs half busy: 100 / 20 = 5 hours, 5 workers at 0.5.
        ([CPU], [SPLIT], 0.5, {"count": 5}, {"cpu": (5, 5.0, 12.5)}, 5.0, 12.5),
        # 20 GPU hours on 5 GPUs half busy: 8 hours, 5 workers at 2; then one pool after the other.
        ([CPU, GPU], [SPLIT, CAPTION], 0.5, {"count": 5}, {"cpu": (5, 5.0, 12.5), "gpu": (5, 8.0, 80.0)}, 13.0, 92.5),
        # The one kind of worker does both: (100 / 8 + 20) / 0.5 = 65 worker hours.
        (
            [GPU],
            [dataclasses.replace(SPLIT, pool="gpu"), CAPTION],
            0.5,
            {"count": 5},
            {"gpu": (5, 13.0, 130.0)},
            13.0,
            130.0,
        ),
        # 25 + 40 = 65 worker hours within 13: just five; within 12.9: six.
        (
            [CPU, GPU],
            [SPLIT, CAPTION],
            0.5,
            {"within_h": 13},
            {"cpu": (5, 5.0, 12.5), "gpu": (5, 8.0, 80.0)},
            13.0,
            92.5,
        ),
        (
            [CPU, GPU],
            [SPLIT, CAPTION],
            0.5,
            {"within_h": 12.9},
            {"cpu": (6, round(25 / 6, 9), 12.5), "gpu": (6, round(40 / 6, 9), 80.0)},
            65 / 6,
            92.5,
        ),
        # Half an hour to start is paid for: 5 x (0.5 + 8) x 2 = 85.
        (
            [CPU, dataclasses.replace(GPU, start_min=30)],
            [SPLIT, CAPTION],
            0.5,
            {"within_h": 13.5},
            {"cpu": (5, 5.0, 12.5), "gpu": (5, 8.5, 85.0)},
            13.5,
            97.5,
        ),
        # Four GPUs by quota take 10 hours, so that 25 worker hours of CPU have 5 of the 15.
        (
            [CPU, dataclasses.replace(GPU, workers=4)],
            [SPLIT, CAPTION],
            0.5,
            {"within_h": 15},
            {"cpu": (5, 5.0, 12.5), "gpu": (4, 10.0, 80.0)},
            15.0,
            92.5,
        ),
        # Nothing to do in a pool costs nothing, its start neither.
        ([CPU, dataclasses.replace(GPU, start_min=60)], [SPLIT], 0.5, {"count": 5}, {"cpu": (5, 5.0, 12.5)}, 5.0, 12.5),
    ],
)
def test_workers_and_hours_follow_from_each_other(workers, tasks, utilisation, asked, expected, wall_h, cost):
    found = estimate(tasks, workers, utilisation, **asked)
    assert pools(found) == expected
    assert (found.wall_h, found.cost) == (pytest.approx(wall_h), pytest.approx(cost))


def test_pools_that_overlap_take_as_long_as_the_longest():
    assert estimate([SPLIT, CAPTION], [CPU, GPU], 0.5, count=5).overlapped_h == pytest.approx(8.0)


@pytest.mark.parametrize(
    ("worker", "within_h", "message"),
    [
        (
            dataclasses.replace(CPU, start_min=60),
            1.0,
            "within 1 hours no number of workers will do: starting its workers takes 1",
        ),
        (
            dataclasses.replace(CPU, workers=1),
            10.0,
            "within 10 hours no number of workers will do: starting its workers and pools of a fixed size takes 25",
        ),
    ],
)
def test_a_deadline_that_no_number_of_workers_meets_is_refused(worker, within_h, message):
    with pytest.raises(NotPossible) as refused:
        estimate([SPLIT], [worker], 0.5, within_h=within_h)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("on", "said", "workers", "pool"),
    [
        ("cpu", None, [CPU, GPU], "cpu"),
        ("gpu", None, [CPU, GPU], "gpu"),
        ("cpu", None, [GPU], "gpu"),
        ("cpu", "gpu", [CPU, GPU], "gpu"),
    ],
)
def test_work_goes_to_the_pool_of_its_kind(on, said, workers, pool):
    assert pool_of("embed", on, said, workers) == pool


@pytest.mark.parametrize(
    ("on", "said", "workers", "message"),
    [
        ("gpu", None, [CPU], "embed needs GPUs; add a worker with some: --worker gpu=MACHINE,vcpu=N,gpus=1,price=P"),
        ("cpu", "l4", [CPU], "embed is for the pool 'l4', and there is no --worker l4=... (only cpu)"),
        (
            "gpu",
            None,
            [GPU, dataclasses.replace(GPU, pool="h100")],
            "embed could be for gpu or h100; say which: pool: gpu in --rates",
        ),
    ],
)
def test_work_that_no_pool_or_several_could_do_is_refused(on, said, workers, message):
    with pytest.raises(NotPossible) as refused:
        pool_of("embed", on, said, workers)
    assert str(refused.value) == message


def test_gpu_work_that_is_sent_to_a_pool_without_gpus_is_refused():
    with pytest.raises(NotPossible, match="caption/blip needs GPUs, and workers of the pool cpu have none"):
        estimate([dataclasses.replace(CAPTION, pool="cpu")], [CPU], 0.5, count=1)


CONFIG = {"splitting": {"detector": "content"}, "embedder": "e", "teachers": ["a", "b"], "selector": "s"}


def test_a_job_has_the_stages_that_its_configuration_asks_for():
    plain = ["read", "split", "embed", "stitch", "caption/a", "caption/b", "score", "commit"]
    assert stages_of(CONFIG) == plain
    more = {
        "speech": {"weights": "w"},
        "measures": {"blur": {}},
        "hygiene": {"stock": True},
        "write_clips": {"mode": "copy"},
    }
    assert sorted(set(stages_of({**CONFIG, **more})) - set(plain)) == ["clean", "hear", "measure", "media"]


def a_run(run_id="r", **rates):
    known = {name.replace("__", "/"): rate for name, rate in rates.items()}
    return Measured(
        run_id, CONFIG, known, {"score": f"run {run_id} did none of it"}, 10, 10, 3600.0, 9, 5, {}, None, 0, (), {}, ()
    )


def test_what_is_entered_goes_before_a_benchmark_and_that_before_runs():
    run = a_run(
        embed=Rate(3.0, "cpu", "run r", settings="e"),
        caption__a=Rate(3.0, "cpu", "run r", share=0.5, settings="a"),
        caption__b=Rate(3.0, "cpu", "run r", share=0.25, settings="b"),
    )
    entered = {"caption/a": Rate(1.0, "gpu", "rates.yaml")}
    benchmarked = {"caption/a": Rate(2.0, "gpu", "h.json"), "embed": Rate(2.0, "gpu", "h.json", settings="clip-vit-h")}
    chosen = choose_rates(CONFIG, [run], entered, benchmarked).rates
    assert chosen["caption/a"] == Rate(1.0, "gpu", "rates.yaml", share=0.5)
    assert chosen["caption/b"] == Rate(3.0, "cpu", "run r", share=0.25, settings="b")
    # The benchmark's is another embedder's.
    assert chosen["embed"] == Rate(3.0, "cpu", "run r", settings="e")
    assert choose_rates({**CONFIG, "embedder": "clip-vit-h"}, [run], {}, benchmarked).rates["embed"].source == "h.json"


def test_a_stage_without_a_rate_of_its_own_settings_is_named_with_the_reason():
    fast = Rate(1.0, "cpu", "run r", settings={"detector": "content", "fast": True})
    chosen = choose_rates(CONFIG, [a_run(split=fast, embed=Rate(1.0, "cpu", "run r", settings="x"))], {}, {})
    assert chosen.missing == {
        "read": "run r had none",
        "split": "run r had other settings",
        "embed": "run r had x",
        "stitch": "run r had none",
        "caption/a": "run r had none",
        "caption/b": "run r had none",
        "score": "run r did none of it",
        "commit": "run r had none",
    }


def test_what_a_run_did_not_measure_another_one_does():
    rate = Rate(4.0, "cpu", "run old", settings="s")
    assert choose_rates(CONFIG, [a_run(), a_run("old", score=rate)], {}, {}).rates == {"score": rate}


def test_amounts_are_hours_times_density_and_a_teacher_gets_its_share():
    amounts = amounts_of(2.0, None, {"clips_per_hour": 100.0, "videos_per_hour": 3.0})
    assert amounts == Amounts(7200.0, videos=6.0, shots=None, clips=200.0)
    assert amounts_of(2.0, 9, {"videos_per_hour": 3.0}).videos == 9
    tasks = tasks_of({"caption/a": Rate(36.0, "gpu", "x", share=0.5)}, amounts, [GPU])
    assert [(task.amount, task.hours, task.pool) for task in tasks] == [(100.0, 1.0, "gpu")]
    with pytest.raises(
        NotPossible, match="embed is told for a shot, and nobody said how many there are: add shots_per_hour"
    ):
        tasks_of({"embed": Rate(1.0, "cpu", "x")}, amounts, [CPU])
