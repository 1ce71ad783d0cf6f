"""Work on a stream in threads, with no more items in memory than there is work for them.

Threads never touch a GPU: a CUDA graph that is being recorded would not survive it.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from .errors import MflError

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_WORKERS = 16

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


def until_error(items: Iterable[Item], errors: list[Exception]) -> Iterator[Item]:
    """The items; what ends them early is put into `errors`, if it is an expected error."""
    try:
        yield from items
    except (MflError, OSError) as error:
        errors.append(error)


def worker_count(asked: int) -> int:
    """Threads to use: as asked, or one per core up to `MAX_WORKERS` for 0."""
    return asked or min(MAX_WORKERS, _cores())


def _cores() -> int:
    """Cores that this process may use: on a cluster fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
