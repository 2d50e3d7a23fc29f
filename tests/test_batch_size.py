"""Batch sizes: they grow by what was measured, and never again to where memory ran out."""

from model_handlers.batch_size import BatchSize

MB = 2**20


def grown(size: BatchSize, *, each: int, room: int, fixed: int = 0) -> list[int]:
    """The sizes of ten full batches, of requests that take `each` bytes beside `fixed` for the whole batch."""
    seen = []
    for _ in range(10):
        seen.append(size.size)
        size.passed(size.size, fixed + each * size.size, room)
    return seen


def test_doubles_until_the_most():
    assert grown(BatchSize(most=12), each=MB, room=1000 * MB) == [1, 2, 4, 8, 12, 12, 12, 12, 12, 12]


def test_stops_at_what_fits_into_85_percent_of_the_room():
    assert grown(BatchSize(most=64), each=10 * MB, room=100 * MB) == [1, 2, 4, 8, 8, 8, 8, 8, 8, 8]


def test_what_a_batch_takes_whatever_its_size_weighs_less_as_it_grows():
    assert grown(BatchSize(most=64), each=MB, fixed=40 * MB, room=100 * MB)[:6] == [1, 2, 4, 7, 12, 19]


def test_a_batch_that_was_not_full_does_not_grow_the_next():
    size = BatchSize(most=64, size=8)
    size.passed(3, 3 * MB, 1000 * MB)
    assert size.size == 8


def test_shrinks_when_larger_requests_come():
    size = BatchSize(most=64, size=16)
    size.passed(16, 1600 * MB, 850 * MB)
    assert size.size == 7


def test_stays_below_where_memory_ran_out_for_sixteen_full_batches():
    size = BatchSize(most=64, size=16)
    size.overflowed(16)
    sizes = grown(size, each=MB, room=10_000 * MB) + grown(size, each=MB, room=10_000 * MB)
    assert sizes == [8] * 16 + [16] * 4
    size.overflowed(1)
    assert (size.size, size.ceiling) == (1, 1)


def test_one_request_that_is_too_large_does_not_keep_the_batches_small():
    size = BatchSize(most=64, size=64)
    size.overflowed(1)
    done = 0
    while size.size < 64:
        size.passed(size.size, MB * size.size, 10_000 * MB)
        done += 1
    assert done == 16 * 6
