"""Means over frames with confidence intervals: frames are drawn again in blocks (Künsch 1989, circular)."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .config import BootstrapConfig
from .scores import Score

ALONE = 2
"""From fewer frames no interval can be told."""


@dataclass(frozen=True)
class Estimate:
    """A mean and its interval.

    Attributes:
        mean: Over frames, each the mean of its cameras.
        low: Lower end of the interval; None from a single frame.
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
    """The mean over frames, and the percentiles of means over frames drawn again in blocks.

    All values of a frame stay together: cameras of one moment share the animal's pose and one reconstruction.

    Args:
        values: Name of the frame's sample and value. Frames are neighbours in the order of their first value.
        config: Draws, block and confidence.

    Returns:
        None without values.
    """
    by_frame: defaultdict[str, list[float]] = defaultdict(list)
    for frame, value in values:
        by_frame[frame].append(value)
    if not by_frame:
        return None
    means = np.array([np.mean(found) for found in by_frame.values()])
    low, high = _interval(means, config) if len(means) >= ALONE else (None, None)
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


def _interval(means: NDArray[np.float64], config: BootstrapConfig) -> tuple[float, float]:
    count, block = len(means), min(config.block, len(means))
    generator = np.random.default_rng(config.seed)
    starts = generator.integers(count, size=(config.resamples, -(-count // block)))
    drawn = (starts[..., None] + np.arange(block)).reshape(config.resamples, -1)[:, :count] % count
    tail = (1 - config.confidence) / 2
    low, high = np.quantile(means[drawn].mean(axis=1), (tail, 1 - tail))
    return float(low), float(high)
