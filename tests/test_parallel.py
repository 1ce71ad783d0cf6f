import threading
from collections.abc import Iterator

import pytest

from mouse_facelift.parallel import bounded_map


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_items_are_taken_than_threads_work_on(workers):
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(40):
            taken += 1
            yield number

    for given, result in enumerate(bounded_map(lambda number: 2 * number, items(), workers)):
        assert result == 2 * given
        assert taken - given <= workers


def test_threads_work_at_the_same_time():
    together = threading.Barrier(3, timeout=10)
    arrived = list(bounded_map(lambda number: together.wait() >= 0, range(3), 3))
    assert arrived == [True] * 3


def test_error_in_the_work_comes_out_and_ends_it():
    begun = []

    def work(number: int) -> int:
        begun.append(number)
        return 1 // (3 - number)

    with pytest.raises(ZeroDivisionError):
        list(bounded_map(work, range(100), 2))
    assert len(begun) <= 5
