"""Jumps of a glued recording, found in how much the animal's mask overlaps with that of the frame before."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

NEIGHBOURS = 5
"""Overlaps on either side that one is compared with."""
MIN_NEIGHBOURS = 2
"""Overlaps that must be known on either side."""
MIN_STEP = 0.2
"""A jump moves the animal by this share of its own length at least: an overlap below 0.67."""
FACTOR = 2.5
"""A jump is this many times as long as any step near it."""
OUTLIER = 8.0
"""A jump lies this many robust standard deviations beyond the recording's usual step."""


def find_jumps(overlaps: Mapping[int, float]) -> list[int]:
    """Find where a recording was glued together.

    An animal that moves fast does so for several frames, and a mask that fails in one frame changes twice; a
    jump is a single step, far longer than those before and after it.

    Args:
        overlaps: Frame -> intersection over union of its mask with that of the frame before, in the median
            view; frames without one are left out.

    Returns:
        The first frame after each jump, increasing.
    """
    if not overlaps:
        return []
    frames = sorted(overlaps)
    steps = _steps(np.array([overlaps[frame] for frame in frames]))
    usual = float(np.median(steps))
    spread = 1.4826 * float(np.median(np.abs(steps - usual)))
    candidates = np.flatnonzero(steps > max(MIN_STEP, usual + OUTLIER * spread))
    return [frames[i] for i in candidates if _is_isolated(frames, steps, int(i))]


def segment_of(frames: Sequence[int], jumps: Sequence[int]) -> list[int]:
    """Number of the segment that each frame lies in.

    Args:
        frames: Frame numbers, in any order.
        jumps: First frames after a jump, in any order.
    """
    borders = sorted(jumps)
    return [bisect_right(borders, frame) for frame in frames]


def _steps(overlap: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far a shape moved, as a share of its length: moving a box by x leaves (1 - x) / (1 + x)."""
    return (1 - overlap) / (1 + overlap)


def _is_isolated(frames: Sequence[int], steps: NDArray[np.float64], i: int) -> bool:
    window = range(max(0, i - NEIGHBOURS), min(len(frames), i + NEIGHBOURS + 1))
    near = [j for j in window if j != i and abs(frames[j] - frames[i]) <= NEIGHBOURS]
    before, after = [steps[j] for j in near if j < i], [steps[j] for j in near if j > i]
    if min(len(before), len(after)) < MIN_NEIGHBOURS:
        return False
    return bool(steps[i] > FACTOR * max(*before, *after))
