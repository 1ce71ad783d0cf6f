"""Work beside the GPU's, in threads: what comes next is read, and what is done is written, while it computes.

Threads never touch the device: a CUDA graph that is being recorded would not survive it.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ..errors import MflError
from ..parallel import worker_count

Item = TypeVar("Item")
Result = TypeVar("Result")

READERS = 4
"""Samples are read by so many threads at most: more would only fill the memory."""

MAX_BYTES = 2 << 30
"""What items in work may hold together; one that holds more is worked on by the caller's own thread."""


def overlapped(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    bytes_of: Callable[[Item], int] = lambda _: 0,
    *,
    at_once: bool = False,
) -> Generator[Result, None, None]:
    """Yield `work(item)` in the order of `items`, computed while the caller, or `items`, goes on.

    One item more than there are threads is in work at most, so that no thread waits while the next item is
    made. An expected error comes out in its place: after the results of all items before it, whether it is of
    the work or of `items`. Anything else, such as an interruption or the end of the caller's interest, drops
    what has not begun, and waits for what has.

    Args:
        work: What threads do.
        items: Made in the caller's thread.
        threads: How many.
        bytes_of: What an item holds; see `MAX_BYTES`.
        at_once: A result, or an error, comes out as soon as it is there: what is written behind is counted,
            and a full disk told. Otherwise it waits until all threads have work: what is read ahead goes on
            being read.
    """
    pending: deque[tuple[Future[Result], int]] = deque()
    errors: list[Exception] = []
    pool = ThreadPoolExecutor(threads)
    try:
        for item in until_error(items, errors):
            size = bytes_of(item)
            while pending and sum(held for _, held in pending) + size > MAX_BYTES:
                yield pending.popleft()[0].result()
            if size > MAX_BYTES:
                yield work(item)
            else:
                pending.append((pool.submit(work, item), size))
            del item  # It would stay in memory while the next one is made.
            while pending and (len(pending) > threads or (at_once and pending[0][0].done())):
                yield pending.popleft()[0].result()
        while pending:
            yield pending.popleft()[0].result()
    finally:
        pool.shutdown(cancel_futures=True)
    if errors:
        raise errors[0]


def reader_count(workers: int) -> int:
    """Threads that read ahead, given how many are asked for; see `worker_count`."""
    return min(READERS, worker_count(workers))


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Several items at a time; those before an expected error come before it."""
    batch: list[Item] = []
    try:
        for item in items:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except (MflError, OSError):
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def until_error(items: Iterable[Item], errors: list[Exception]) -> Iterator[Item]:
    """The items; what ends them early is put into `errors`, if it is an expected error."""
    try:
        yield from items
    except (MflError, OSError) as error:
        errors.append(error)
