"""Means over frames with confidence intervals: frames are drawn again in blocks (Künsch 1989, circular).

Percentiles of few blocks are too near to each other, so they are moved away from the mean as far as Student's
quantile is beyond the normal one (after Hesterberg 2015, "expanded percentile intervals").
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from .config import BootstrapConfig
from .scores import Score

FEWEST_FRAMES = 5
"""From fewer frames, or blocks of frames, no interval can be told that deserves its name."""
BY_CHANCE = 2.0
"""Neighbours among n independent frames correlate by less than this over sqrt(n), 19 times out of 20."""


@dataclass(frozen=True)
class Estimate:
    """A mean and its interval.

    Attributes:
        mean: Over frames, each the mean of its cameras.
        low: Lower end of the interval; None from fewer than `FEWEST_FRAMES` blocks of frames.
        high: Upper end.
        frames: How many frames.
        values: How many cameras in them all together.
    """

    mean: float
    low: float | None
    high: float | None
    frames: int
    values: int


def estimate(values: Sequence[tuple[str, float]], config: BootstrapConfig) -> Estimate | None:
    """The mean over frames, and an interval from means over frames drawn again in blocks.

    All values of a frame stay together: cameras of one moment share the animal's pose and one reconstruction.

    Args:
        values: Name of the frame's sample and value. Frames are neighbours in the order of their first value.
        config: Draws, block and confidence.

    Returns:
        None without values.
    """
    means = _frame_means(values)
    if not len(means):
        return None
    enough = len(means) // config.block >= FEWEST_FRAMES
    low, high = _interval(means, config) if enough else (None, None)
    return Estimate(float(means.mean()), low, high, len(means), len(values))


def paired(
    ones: Iterable[Score], others: Iterable[Score], figure: Callable[[Score], float | None]
) -> list[tuple[str, float]]:
    """Differences, one minus other, at the same camera of the same frame, for `estimate`."""
    theirs = {score.place: figure(score) for score in others}
    differences = []
    for score in ones:
        mine, theirs_here = figure(score), theirs.get(score.place)
        if mine is not None and theirs_here is not None:
            differences.append((score.sample, mine - theirs_here))
    return differences


def alike_neighbours(values: Iterable[tuple[str, float]]) -> float | None:
    """How alike successive frames are, up to 1; None where it may be chance: they may be independent.

    Args:
        values: As of `estimate`.
    """
    means = _frame_means(values)
    if len(means) < FEWEST_FRAMES or means.std() == 0:
        return None
    centred = means - means.mean()
    correlation = float((centred[1:] * centred[:-1]).sum() / (centred**2).sum())
    return correlation if correlation > BY_CHANCE / math.sqrt(len(means)) else None


def _frame_means(values: Iterable[tuple[str, float]]) -> NDArray[np.float64]:
    """Means by frame, in the order of the frames' first values. [F]"""
    by_frame: defaultdict[str, list[float]] = defaultdict(list)
    for frame, value in values:
        by_frame[frame].append(value)
    return np.array([np.mean(found) for found in by_frame.values()])


def _interval(means: NDArray[np.float64], config: BootstrapConfig) -> tuple[float, float]:
    count, block = len(means), config.block
    generator = np.random.default_rng(config.seed)
    starts = generator.integers(count, size=(config.resamples, -(-count // block)))
    drawn = (starts[..., None] + np.arange(block)).reshape(config.resamples, -1)[:, :count] % count
    tail = (1 - config.confidence) / 2
    ends = np.quantile(means[drawn].mean(axis=1), (tail, 1 - tail))
    low, high = means.mean() + _widening(count / block, 1 - tail) * (ends - means.mean())
    return float(low), float(high)


def _widening(blocks: float, probability: float) -> float:
    """How much wider Student's interval of so many independent values is than their percentiles' one.

    Percentiles lack the factor sqrt(n / (n - 1)), and take the spread for known. The quantile of Student's
    distribution is Fisher's expansion about the normal one: at 95 % within 1 % from 5 values on.
    """
    z, freedom = NormalDist().inv_cdf(probability), blocks - 1
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    student = z + sum(term / freedom**power for power, term in enumerate(terms, start=1))
    return math.sqrt(blocks / freedom) * student / z
