"""How inference goes through its inputs: more are read while the GPU computes (`parallel.overlapped`)."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from ..errors import MflError
from ..parallel import worker_count

Item = TypeVar("Item")

READERS = 4
"""Samples are read by so many threads at most: more would only fill the memory."""


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
