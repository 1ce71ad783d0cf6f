"""Training and validation as blocks of time with guard gaps: no validation frame has a twin in training."""

import logging
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass

logger = logging.getLogger(__name__)

MAX_GUARD_SHARE = 0.25
"""Largest share of samples given up to guard gaps; beyond it there are fewer blocks, then narrower gaps."""


@dataclass(frozen=True)
class Split:
    """Positions in the list of samples, each in time order; together all of them.

    Attributes:
        train: For training.
        val: For validation.
        guard: In neither, being too near in time to validation.
    """

    train: tuple[int, ...]
    val: tuple[int, ...]
    guard: tuple[int, ...]


def split_by_time(frames: Sequence[int], val_share: float, blocks: int, guard_frames: int) -> Split:
    """Divide samples.

    Validation blocks lie in the middles of equal stretches of the recording. From two samples on there is at
    least one of each kind, unless `val_share` is 0.

    Args:
        frames: Frame number of every sample, strictly increasing.
        val_share: Share of the samples for validation, 0 <= val_share < 1.
        blocks: Validation blocks, at most.
        guard_frames: Frames nearer than or as near as this to a validation frame are not trained on.
    """
    total = len(frames)
    wanted = 0 if val_share == 0 or total < 2 else min(total - 1, max(1, round(total * val_share)))
    guard = guard_frames
    while True:
        for count in range(min(blocks, wanted), 0, -1):
            result = _split(frames, wanted, count, guard)
            if len(result.guard) <= MAX_GUARD_SHARE * total and result.train:
                if guard < guard_frames:
                    logger.warning(
                        "split: %d samples are too few for a gap of %d frames; it is %d.",
                        total,
                        guard_frames,
                        guard,
                    )
                return result
        if not wanted:
            return Split(tuple(range(total)), (), ())
        guard //= 2


def _split(frames: Sequence[int], wanted: int, blocks: int, guard: int) -> Split:
    total = len(frames)
    val: set[int] = set()
    for block in range(blocks):
        length = wanted * (block + 1) // blocks - wanted * block // blocks
        middle = (2 * block + 1) * total / (2 * blocks)
        first = min(max(0, round(middle - length / 2)), total - length)
        val |= set(range(first, first + length))
    val_frames = [frames[position] for position in sorted(val)]
    near = {
        position
        for position in range(total)
        if position not in val and _distance(frames[position], val_frames) <= guard
    }
    return Split(
        tuple(position for position in range(total) if position not in val and position not in near),
        tuple(sorted(val)),
        tuple(sorted(near)),
    )


def _distance(frame: int, sorted_frames: Sequence[int]) -> int:
    at = bisect(sorted_frames, frame)
    return min(abs(frame - other) for other in sorted_frames[max(0, at - 1) : at + 1])
