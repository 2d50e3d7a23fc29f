"""What `ElementwiseHandler` promises: a bad request costs itself, models are kept, environment errors raise."""

import pickle

import apache_beam as beam
import pytest
from apache_beam.ml.inference.base import RunInference
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to

from model_handlers import base
from model_handlers.base import ElementwiseHandler
from transforms.records import Outcome

LOADS: list[str] = []
ASKED: list[list[int]] = []


class Model:
    """Something that can be weakly referenced."""


class Halver(ElementwiseHandler[int, int, Model]):
    """Halves even numbers; an odd one spoils its batch, 13 is a machine out of memory."""

    def load(self):
        LOADS.append(self.name)
        return Model()

    def answer(self, requests, model):
        ASKED.append(list(requests))
        if 13 in requests:
            raise MemoryError("no more")
        for number in requests:
            if number % 2:
                raise ValueError(f"{number} is odd")
        return [number // 2 for number in requests]


class Forgetful(Halver):
    def answer(self, requests, model):
        return super().answer(requests, model)[1:]


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setattr(base, "_models", {})
    LOADS.clear()
    ASKED.clear()


def test_good_batch_is_answered_in_one_call_and_in_order():
    outcomes = list(Halver("h").run_inference([4, 8, 2], Model()))
    assert outcomes == [Outcome(4, 2), Outcome(8, 4), Outcome(2, 1)]
    assert ASKED == [[4, 8, 2]]


def test_bad_request_costs_itself_only():
    outcomes = list(Halver("h").run_inference([4, 7, 2], Model()))
    assert [(outcome.request, outcome.answer) for outcome in outcomes] == [(4, 2), (7, None), (2, 1)]
    failure = outcomes[1].failure
    assert failure is not None
    assert (failure.error_class, failure.message) == ("ValueError", "7 is odd")
    assert "raise ValueError" in failure.detail


def test_too_few_answers_are_a_failure_and_never_shift_onto_other_requests():
    outcomes = list(Forgetful("f").run_inference([4, 8], Model()))
    assert [outcome.answer for outcome in outcomes] == [None, None]
    assert [outcome.failure.message for outcome in outcomes] == ["f gave 0 answers to 1 requests"] * 2


@pytest.mark.parametrize("batch", [[13], [2, 13]])
def test_environment_errors_raise(batch):
    with pytest.raises(MemoryError, match="no more"):
        list(Halver("h").run_inference(batch, Model()))


def test_model_is_loaded_once_for_all_handlers_of_one_key():
    first, again, other = Halver("h"), Halver("h"), Halver("other")
    assert first.load_model() is again.load_model()
    assert other.load_model() is not first.load_model()
    assert LOADS == ["h", "other"]


def test_handler_travels_to_a_worker():
    copy = pickle.loads(pickle.dumps(Halver("h", max_batch=3)))
    assert (copy.name, dict(copy.batch_elements_kwargs())) == ("h", {"min_batch_size": 1, "max_batch_size": 3})


def test_run_inference_answers_all_but_the_bad_request():
    options = PipelineOptions(["--runner=FnApiRunner"])
    with beam.Pipeline(options=options) as pipeline:
        outcomes = pipeline | beam.Create([2, 7, 10]) | RunInference(Halver("h"))
        told = outcomes | beam.Map(lambda outcome: (outcome.request, outcome.answer, outcome.failure is not None))
        assert_that(told, equal_to([(2, 1, False), (7, None, True), (10, 5, False)]))
    assert LOADS == ["h"]
