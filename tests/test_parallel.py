import signal
import threading
import time
from collections.abc import Iterator

import pytest

from mouse_facelift import parallel
from mouse_facelift.errors import DataError
from mouse_facelift.parallel import overlapped


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_order_and_a_bounded_number_of_items_is_in_work(threads: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(30):
            taken += 1
            yield number

    for given, result in enumerate(overlapped(lambda number: 2 * number, items(), threads)):
        assert result == 2 * given
        assert taken - given <= threads + 1


def test_one_thread_works_while_the_next_item_is_made() -> None:
    made_second, worked = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        yield 0
        made_second.set()
        assert worked.wait(10)
        yield 1

    def work(number: int) -> int:
        assert made_second.wait(10)
        worked.set()
        return number

    assert list(overlapped(work, items(), 1)) == [0, 1]


def test_what_is_written_behind_is_told_as_soon_as_it_is_done() -> None:
    taken, done = [], threading.Event()

    def items() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number
            assert done.wait(10)
            time.sleep(0.01)

    results = overlapped(lambda number: done.set(), items(), 16, at_once=True)
    next(results)
    assert len(taken) < 5, "neither a count nor a full disk waits for 17 samples"
    results.close()


def test_what_is_read_ahead_is_read_by_all_threads_before_the_first_is_given_away() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number
            time.sleep(0.002)

    results = overlapped(lambda number: number, items(), 4)
    assert next(results) == 0 and len(taken) == 5
    results.close()


def test_one_that_is_too_large_is_worked_on_by_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "MAX_BYTES", 10)
    here = threading.current_thread()

    def work(size: int) -> bool:
        return threading.current_thread() is here

    assert list(overlapped(work, [4, 25, 4], 2, lambda size: size)) == [False, True, False]


def test_items_that_hold_much_are_not_in_work_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "MAX_BYTES", 10)
    active, most, lock = 0, 0, threading.Lock()

    def work(size: int) -> int:
        nonlocal active, most
        with lock:
            active += size
            most = max(most, active)
        time.sleep(0.002)
        with lock:
            active -= size
        return size

    sizes = [4, 4, 25, 4, 4, 4, 4]
    assert list(overlapped(work, sizes, 4, lambda size: size)) == sizes
    assert most == 25, "one that is too large alone is done alone"


def test_error_of_the_items_comes_after_the_results_of_those_before_it() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise DataError("the fourth")

    results = []
    with pytest.raises(DataError, match="the fourth"):
        for result in overlapped(lambda number: number, items(), 8):
            results.append(result)
    assert results == [0, 1, 2]


def test_of_two_errors_the_earlier_item_s_is_told() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise DataError("the fourth item")

    def work(number: int) -> int:
        time.sleep(0.01)
        if number == 1:
            raise OSError("disk full at the second")
        return number

    results = []
    with pytest.raises(OSError, match="at the second"):
        for result in overlapped(work, items(), 8):
            results.append(result)
    assert results == [0]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, even where this process began as a background job that ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_interruption_finishes_what_has_begun_and_nothing_else() -> None:
    begun, finished, together, go = [], [], threading.Barrier(2, timeout=10), threading.Event()

    def work(number: int) -> None:
        begun.append(number)
        if together.wait() == 0:
            # As Ctrl-C does, once the main thread waits with a third item in its hands.
            time.sleep(0.1)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            threading.Timer(1.0, go.set).start()
        assert go.wait(10)
        finished.append(number)

    with pytest.raises(KeyboardInterrupt):
        list(overlapped(work, range(9), 2))
    assert sorted(begun) == sorted(finished) == [0, 1]


def test_whoever_wants_no_more_leaves_no_thread() -> None:
    before = threading.active_count()
    results = overlapped(lambda number: number, range(100), 3)
    assert next(results) == 0
    results.close()
    assert threading.active_count() == before


def test_threads_work_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=10)
    arrived = list(overlapped(lambda number: together.wait() >= 0, range(3), 3))
    assert arrived == [True] * 3


def test_error_in_the_work_comes_out_and_ends_it() -> None:
    begun = []

    def work(number: int) -> int:
        begun.append(number)
        return 1 // (3 - number)

    with pytest.raises(ZeroDivisionError):
        list(overlapped(work, range(100), 2))
    assert len(begun) <= 6
