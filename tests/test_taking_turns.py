"""Several models on one GPU: they take turns, the least recently used one makes room, and answers keep their names."""

import gc
import itertools
import os
import pathlib
import sys
import threading

import apache_beam as beam
import pytest
from apache_beam.ml.inference.base import RunInference
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to

from model_handlers.resident import Raw, ResidentHandler
from model_handlers.settings import Settings
from model_handlers.taking_turns import TakeTurns

pytest.importorskip("torch")


class Naming:
    """Puts its name before a number; writes down when it came and went."""

    def __init__(self, name: str, diary: pathlib.Path):
        self.name, self.diary = name, diary
        self._note("+")

    def __del__(self):
        # At the interpreter's end there is nothing left to write with.
        if sys and not sys.is_finalizing():
            self._note("-")

    def _note(self, sign: str) -> None:
        with open(self.diary, "a") as diary:
            diary.write(f"{sign}{self.name}\n")

    def prepare(self, request):
        return request

    def forward(self, prepared):
        return Raw([f"{self.name}{number}" for number in prepared])

    def finish(self, request, raw):
        if request == 13:
            raise ValueError("unlucky")
        return raw


class NamingHandler(ResidentHandler):
    def __init__(self, name: str, diary: pathlib.Path):
        super().__init__(name, Settings(str(diary)))
        self._diary = diary

    def network(self, device):
        return Naming(self.name, self._diary)


def answered(tmp_path, at_once, count=40, per_turn=10):
    diary = tmp_path / "diary"
    handler = TakeTurns({name: NamingHandler(name, diary) for name in "abc"}, at_once=at_once, per_turn=per_turn)
    flags = ["--runner=FnApiRunner", "--direct_running_mode=multi_threading", "--direct_num_workers=2"]
    with beam.Pipeline(options=PipelineOptions(flags)) as pipeline:
        asked = pipeline | beam.Create([(name, number) for number in range(count) for name in "abc"])
        told = asked | beam.Reshuffle() | RunInference(handler, model_identifier=handler.identifier)
        plain = told | beam.Map(lambda named: (named[0], named[1].request, named[1].answer))
        assert_that(
            plain,
            equal_to([(name, n, None if n == 13 else f"{name}{n}") for name in "abc" for n in range(count)]),
        )
    return diary.read_text().split()


def most_at_once(diary):
    alive = most = 0
    for line in diary:
        alive += 1 if line.startswith("+") else -1
        most = max(most, alive)
    return most


@pytest.mark.parametrize("at_once", [1, 2])
def test_no_more_models_are_in_memory_than_allowed_and_no_answer_is_lost(tmp_path, at_once):
    diary = answered(tmp_path, at_once)
    assert most_at_once(diary) == at_once
    assert {line for line in diary if line.startswith("+")} == {"+a", "+b", "+c"}


def test_without_a_limit_each_model_is_loaded_once_for_all_pipelines_of_a_job(tmp_path):
    answered(tmp_path, None)
    assert sorted(answered(tmp_path, None)) == ["+a", "+b", "+c"]


def test_the_model_that_is_loaded_goes_first(tmp_path):
    """Of every round but the first, one of three loads is spared."""
    diary = answered(tmp_path, 1, count=60, per_turn=20)
    loads = [line for line in diary if line.startswith("+")]
    assert all(before != after for before, after in itertools.pairwise(loads))


def test_two_handlers_never_share_their_models_by_accident(tmp_path):
    one, other = (TakeTurns({"a": NamingHandler("a", tmp_path / "d")}) for _ in range(2))
    assert one.identifier != other.identifier


def test_a_model_that_once_failed_to_load_is_loaded_by_the_next_try(tmp_path):
    class Failing(NamingHandler):
        def network(self, device):
            if not (tmp_path / "tried").exists():
                (tmp_path / "tried").touch()
                raise OSError("the hub is away")
            return super().network(device)

    members = {"a": NamingHandler("a", tmp_path / "d"), "b": Failing("b", tmp_path / "d")}
    handler = TakeTurns(members, at_once=1)
    model = handler.load_model()
    batch = [("a", 1), ("b", 2)]
    with pytest.raises(OSError, match="the hub is away"):
        handler.run_inference(batch, model)
    told = sorted((name, outcome.answer) for name, outcome in handler.run_inference(batch, model))
    assert told == [("a", "a1"), ("b", "b2")]


@pytest.mark.parametrize("rounds", [10, pytest.param(100, marks=pytest.mark.soak)])
def test_evictions_leave_no_thread_and_no_open_file_behind(tmp_path, rounds):
    handler = TakeTurns({name: NamingHandler(name, tmp_path / "d") for name in "abc"}, at_once=1)
    model = handler.load_model()

    def leftovers():
        gc.collect()
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    for number in range(rounds):
        handler.run_inference([(name, number) for name in "abc"], model)
        if number == 3:
            before = leftovers()
    assert [now <= then + 4 for now, then in zip(leftovers(), before, strict=True)] == [True, True]
