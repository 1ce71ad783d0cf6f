"""Which frames of a recording become samples, and which take the place of those that fail."""

from bisect import bisect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
from numpy.typing import ArrayLike

from ..errors import ConfigError
from ..geometry.cameras import Array
from .config import SelectionConfig

MAX_DIMENSIONS = 64
"""Posture descriptors are reduced to this many principal components before they are compared."""


@dataclass(frozen=True)
class Replacements:
    """The state of the search for good frames in place of failed ones.

    Attributes:
        pending: Frames to survey before the rest can be decided, increasing; empty when all is settled.
        found: Failed frame -> the next good frame, or None where there is none within reach; settled ones
            only.
    """

    pending: tuple[int, ...]
    found: Mapping[int, int | None]


def candidates(config: SelectionConfig, frame_count: int) -> list[int]:
    """The frames to survey first, in time order and without repetition.

    They become samples if they are good; of those of mode `diverse`, `choose_diverse` takes `config.count`.

    Args:
        config: How to choose.
        frame_count: Frames in the recording.

    Raises:
        ConfigError: nothing is chosen, or a listed frame does not exist.
    """
    if config.mode == "uniform":
        chosen = _uniform(frame_count, config.count, config.middle_share)
    elif config.mode == "diverse":
        chosen = _uniform(frame_count, config.count * config.candidates, config.middle_share)
    elif config.mode == "interval":
        chosen = list(range(config.start, min(config.stop or frame_count, frame_count), config.step))
    else:
        chosen = sorted(set(config.frames))
        if chosen and not (chosen[0] >= 0 and chosen[-1] < frame_count):
            raise ConfigError(
                f"selection.frames holds {chosen[0] if chosen[0] < 0 else chosen[-1]}, the recording has "
                f"frames 0 to {frame_count - 1}."
            )
    excluded = set(config.exclude)
    frames = [frame for frame in chosen if frame not in excluded]
    if not frames:
        raise ConfigError(
            f"selection chooses none of the recording's {frame_count} frames (mode {config.mode}). Check "
            "selection.frames, start, stop and exclude."
        )
    return frames


def choose_diverse(descriptors: ArrayLike, count: int) -> list[int]:
    """Choose postures so that every other one is near to one of them: greedy k-centre.

    The frame nearest to the mean comes first, then always the one farthest from all chosen: at most twice the
    best possible radius (T. Gonzalez, Clustering to minimize the maximum intercluster distance, 1985).

    Args:
        descriptors: Posture of each frame; Euclidean distance is difference. [N, D]
        count: How many to choose; all where there are fewer.

    Returns:
        Positions in `descriptors`, increasing.
    """
    points = _principal_components(np.asarray(descriptors, np.float64))
    if count >= len(points):
        return list(range(len(points)))
    squares = (points**2).sum(1)
    chosen = [int(squares.argmin())]
    nearest = np.full(len(points), np.inf)
    while len(chosen) < count:
        last = chosen[-1]
        products = np.einsum("nd,d->n", points, points[last])
        np.minimum(nearest, squares - 2 * products + squares[last], out=nearest)
        # Below what rounding leaves of a zero, so that nothing is chosen twice among equal postures.
        nearest[last] = -np.inf
        chosen.append(int(nearest.argmax()))
    return sorted(chosen)


def replacements(
    config: SelectionConfig,
    chosen: Sequence[int],
    good: Mapping[int, bool],
    jumps: Collection[int],
    frame_count: int,
) -> Replacements:
    """Look for the next good frame after each chosen one that failed.

    Surveying is expensive, and decoding is cheap only forwards, so it goes in rounds: the caller surveys
    `pending` (1 frame after each failed one, then 2 more, then 4, ...) and asks again with what it found. A
    replacement comes before the next chosen frame and before the next jump. Listed frames are never replaced;
    in mode `diverse` the other candidates take the place.

    Args:
        config: `replace_within`, `exclude` and the mode.
        chosen: The frames that were to become samples, increasing.
        good: Frame -> whether it can be used, of all chosen frames and all others surveyed so far.
        jumps: First frames after a jump: what lies beyond is another time.
        frame_count: Frames in the recording.
    """
    end = min(config.stop or frame_count, frame_count) if config.mode == "interval" else frame_count
    reach = 0 if config.mode in ("list", "diverse") else config.replace_within
    excluded, borders = set(config.exclude), sorted(jumps)
    pending: list[int] = []
    found: dict[int, int | None] = {}
    for frame, following in zip(chosen, [*chosen[1:], end], strict=True):
        if good[frame]:
            continue
        jump = next(iter(borders[bisect(borders, frame) :]), end)
        window = range(frame + 1, min(frame + reach + 1, following, jump))
        allowed = [other for other in window if other not in excluded]
        surveyed = list(takewhile(good.__contains__, allowed))
        replacement = next((other for other in surveyed if good[other]), None)
        more = allowed[len(surveyed) : 2 * len(surveyed) + 1]
        if replacement is None and more:
            pending += more
        else:
            found[frame] = replacement
    return Replacements(tuple(pending), found)


def _uniform(frame_count: int, count: int, middle_share: float) -> list[int]:
    """`count` frames at equal steps over the middle share; all of them where there are fewer."""
    length = max(1, round(frame_count * middle_share))
    first = (frame_count - length) // 2
    if count >= length:
        return list(range(first, first + length))
    centers = (np.arange(count) + 0.5) * length / count
    return [first + int(center) for center in centers]


def _principal_components(points: Array) -> Array:
    """Points about their mean, in their leading directions where there are many dimensions. [N, d]"""
    centered = points - points.mean(0)
    if centered.shape[1] <= MAX_DIMENSIONS:
        return centered
    # einsum instead of @: equal postures stay equal to the last digit, whatever the number of threads.
    _, directions = np.linalg.eigh(np.einsum("ni,nj->ij", centered, centered))
    return np.einsum("nd,dk->nk", centered, directions[:, -MAX_DIMENSIONS:])
