"""Models that stay on their device: what a bad request, a full GPU and busy threads cost; that nothing is mixed up."""

import concurrent.futures
import dataclasses
import threading
import time

import apache_beam as beam
import pytest
from apache_beam.ml.inference.base import RunInference
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given, settings
from hypothesis import strategies as st

from model_handlers.devices import Device
from model_handlers.resident import CPU_BATCH, DeviceTooSmall, Raw, Resident, ResidentHandler, loaded_once
from model_handlers.settings import Settings

torch = pytest.importorskip("torch")

CPU = Device("cpu", torch.float32)


@dataclasses.dataclass
class Doubling:
    """Doubles numbers; holds so many at once, and refuses some at each of its three steps."""

    room: int = 1000
    unprepared: frozenset = frozenset()
    refused: frozenset = frozenset()
    unfinished: frozenset = frozenset()
    delay_s: float = 0.0
    computing: int = 0

    def prepare(self, request: int) -> int:
        time.sleep(self.delay_s * (request % 3))
        if request in self.unprepared:
            raise ValueError(f"no picture of {request}")
        return 2 * request

    def forward(self, prepared) -> Raw:
        self.computing += 1
        assert self.computing == 1, "two batches at once"
        time.sleep(self.delay_s)
        self.computing -= 1
        if len(prepared) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        for number in prepared:
            if number // 2 in self.refused:
                raise RuntimeError(f"cannot double {number // 2}")
        return Raw(list(prepared), tokens=len(prepared))

    def finish(self, request: int, raw: int) -> int:
        if request in self.unfinished:
            raise ValueError(f"nothing to say of {request}")
        assert raw == 2 * request
        return raw


class FakeGpu(Device):
    """A GPU of 100 bytes, 20 of them taken, on which each request takes ten while it is computed."""

    largest = 0

    def allocated(self) -> int:
        return 20

    def start_peak(self) -> None: ...

    def peak(self) -> int:
        return 20 + 10 * FakeGpu.largest

    def room(self) -> int:
        return 80


def told(outcomes) -> dict:
    return {one.request: one.answer if one.failure is None else one.failure.message for one in outcomes}


def test_a_bad_request_costs_itself_at_each_step():
    network = Doubling(unprepared={1}, refused={3}, unfinished={5})
    outcomes, work = Resident(network, CPU, most=8).respond(range(7))
    assert [one.request for one in outcomes] == list(range(7))
    assert told(outcomes) == {
        0: 0, 1: "no picture of 1", 2: 4, 3: "cannot double 3", 4: 8, 5: "nothing to say of 5", 6: 12,
    }  # fmt: skip
    assert (sum(work.batches), work.tokens, work.out_of_memory) == (5, 5, 0)


def test_a_full_gpu_halves_the_batch_and_loses_none():
    resident = Resident(Doubling(room=2), CPU, most=64)
    resident._size.size = 16
    outcomes, work = resident.respond(range(20))
    assert told(outcomes) == {number: 2 * number for number in range(20)}
    assert work.out_of_memory == 7 and max(work.batches) == 2
    assert resident.respond(range(20))[1].out_of_memory == 0


def test_a_request_too_large_for_the_gpu_costs_itself_once_others_have_passed():
    class Greedy(Doubling):
        def forward(self, prepared):
            if 14 in prepared:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(prepared)

    outcomes, _ = Resident(Greedy(), CPU, most=4).respond(range(9))
    assert told(outcomes) == {**{number: 2 * number for number in range(9)}, 7: "CUDA out of memory"}


def test_a_gpu_without_room_for_a_single_request_stops_the_job():
    with pytest.raises(DeviceTooSmall, match="cpu has no room for a single request"):
        Resident(Doubling(room=0), CPU, most=4).respond(range(9))


def test_batches_grow_to_what_was_measured_on_a_gpu():
    class Measured(Doubling):
        def forward(self, prepared):
            FakeGpu.largest = len(prepared)
            return super().forward(prepared)

    _, work = Resident(Measured(), FakeGpu("cuda:7", torch.float32), most=64).respond(range(30))
    assert work.batches == [1, 2, 4, 6, 6, 6, 5]


def test_on_a_cpu_batches_are_small():
    assert Resident(Doubling(), CPU, most=64).respond(range(9))[1].batches == [CPU_BATCH, CPU_BATCH, 1]


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_memory_that_runs_out_in_cudas_own_libraries_halves_the_batch_as_well(error):
    class Crowded(Doubling):
        def forward(self, prepared):
            if len(prepared) > 2:
                raise error
            return super().forward(prepared)

    outcomes, work = Resident(Crowded(), CPU, most=64).respond(range(8))
    assert told(outcomes) == {number: 2 * number for number in range(8)}
    assert work.out_of_memory == 1 and work.batches == [2, 2, 2, 2]


def test_a_lost_gpu_raises_so_that_the_worker_starts_anew():
    class Lost(Doubling):
        def forward(self, prepared):
            raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    with pytest.raises(torch.AcceleratorError):
        Resident(Lost(), CPU, most=4).respond(range(3))


def test_a_network_that_loses_a_value_fails_all_of_the_batch_rather_than_shifting_them():
    class Losing(Doubling):
        def forward(self, prepared):
            return Raw(super().forward(prepared).values[1:])

    outcomes, _ = Resident(Losing(), CPU, most=4).respond(range(3))
    assert set(told(outcomes).values()) == {"the network gave 0 values to 1 requests"}


def test_pictures_are_prepared_while_the_device_computes():
    computing, prepared_meanwhile = threading.Event(), threading.Event()

    class Waiting(Doubling):
        """The third picture waits for the first batch to be computed, and the first batch for the third picture."""

        def prepare(self, request):
            if request == 2:
                assert computing.wait(20)
                prepared_meanwhile.set()
            return super().prepare(request)

        def forward(self, prepared):
            computing.set()
            assert prepared_meanwhile.wait(20)
            return super().forward(prepared)

    outcomes, _ = Resident(Waiting(), CPU, most=2).respond(range(6))
    assert told(outcomes) == {number: 2 * number for number in range(6)}


def test_threads_take_turns_on_the_device_and_the_wait_is_told():
    entered, leave = threading.Event(), threading.Event()

    class Held(Doubling):
        def forward(self, prepared):
            entered.set()
            assert leave.wait(20)
            return super().forward(prepared)

    resident = Resident(Held(), CPU, most=4)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(resident.respond, range(4))
        assert entered.wait(20)
        second = pool.submit(resident.respond, range(4, 8))
        time.sleep(0.2)
        leave.set()
        answers = [first.result(), second.result()]
    assert [list(told(outcomes)) for outcomes, _ in answers] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert answers[0][1].wait_s < 0.1 < answers[1][1].wait_s


numbers = st.frozensets(st.integers(0, 40))


trouble = given(
    st.lists(st.integers(0, 40), max_size=40), numbers, numbers, numbers, st.integers(1, 5), st.integers(1, 12)
)


@settings(max_examples=30, deadline=None)
@trouble
def test_no_answer_ever_lands_on_another_request(requests, unprepared, refused, unfinished, room, most):
    check_answers(requests, unprepared, refused, unfinished, room, most)


@pytest.mark.soak
@settings(max_examples=300, deadline=None)
@trouble
def test_no_answer_ever_lands_on_another_request_however_long_it_is_tried(
    requests, unprepared, refused, unfinished, room, most
):
    check_answers(requests, unprepared, refused, unfinished, room, most)


def check_answers(requests, unprepared, refused, unfinished, room, most):
    """Under shuffling, failures at each step and memory that runs out; `Doubling.finish` checks the pair as well."""
    resident = Resident(Doubling(room, unprepared, refused, unfinished), CPU, most=most)
    resident._size.size = most
    outcomes, _ = resident.respond(requests)
    assert [one.request for one in outcomes] == requests
    bad = unprepared | refused | unfinished
    assert [one.answer for one in outcomes] == [None if number in bad else 2 * number for number in requests]


def test_weights_are_shared_while_somebody_holds_them_and_loaded_anew_after():
    class Weights: ...

    loads = []

    def load():
        loads.append(1)
        return Weights()

    first, second = loaded_once("a", load), loaded_once("a", load)
    assert first is second and len(loads) == 1
    del first, second
    third = loaded_once("a", load)
    assert isinstance(third, Weights) and len(loads) == 2


def test_what_is_loaded_may_have_parts_that_are_loaded_once_themselves():
    whole = loaded_once("whole", lambda: frozenset({loaded_once("part", frozenset)}))
    assert whole == frozenset({frozenset()})


class DoublingHandler(ResidentHandler):
    def network(self, device):
        return Doubling(unprepared={3})


def test_a_handler_tells_beam_what_its_work_cost():
    handler = DoublingHandler("doubling", Settings("none", max_batch=8))
    pipeline = beam.Pipeline(runner="FnApiRunner")
    answers = (
        pipeline | beam.Create(range(20)) | RunInference(handler) | beam.Map(lambda one: (one.request, one.answer))
    )
    assert_that(answers, equal_to([(number, None if number == 3 else 2 * number) for number in range(20)]))
    result = pipeline.run()
    found = result.metrics().query()
    counters = {
        m.key.metric.name: m.result for m in found["counters"] if m.key.metric.namespace == "reelscribe/doubling"
    }
    assert (counters["tokens"], counters["out_of_memory_retries"]) == (19, 0)
    sizes = [m.result for m in found["distributions"] if m.key.metric.name == "device_batch_size"]
    assert [(one.sum, one.max) for one in sizes] == [(19, CPU_BATCH)]
