"""Moments of a recording at which something is measured that holds for all of it."""

from collections.abc import Iterable

import numpy as np

MAX_CLUSTER = 4
"""Moments that may follow one keyframe; where more would have to, even spacing is worth its decoding."""
APART = 10
"""Frames between moments that follow the same keyframe, at least."""


def spread_moments(keyframes: Iterable[int], first: int, last: int, count: int, room: int = 0) -> list[int]:
    """Choose frames spread over a recording, near keyframes where possible: those cost least to decode.

    Args:
        keyframes: Frames that can be decoded on their own.
        first: First frame that may be chosen.
        last: Last frame that may be chosen.
        count: How many; fewer where there are not so many frames.
        room: Frames before and after each moment that are decoded too.

    Returns:
        Frame numbers, increasing.
    """
    if last < first:
        return []
    even = np.linspace(first, last, min(count, last - first + 1)).round().astype(int)
    starts = np.array([key + room for key in keyframes if first <= key + room <= last], int)
    apart = max(2 * room + 1, APART)
    for cluster in range(1, MAX_CLUSTER + 1):
        offered = np.unique(np.add.outer(starts, apart * np.arange(cluster)))
        offered = offered[offered <= last]
        if len(offered) >= len(even):
            return _nearest(even, offered)
    return sorted(set(even.tolist()))


def _nearest(wanted: np.ndarray, offered: np.ndarray) -> list[int]:
    """For each wanted frame the nearest of those offered, each taken once."""
    free = offered.astype(float)
    chosen = []
    for frame in wanted:
        place = int(np.abs(free - frame).argmin())
        chosen.append(int(offered[place]))
        free[place] = np.inf
    return sorted(chosen)
