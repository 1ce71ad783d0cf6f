"""Which samples each step sees: a function of the seed and of how many were seen before."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

BLOCK = 256
"""Positions over which the parts of a mixed data set get their shares, to within one sample."""


class StepSampler(Sampler[list[int]]):
    """Batches from an endless sequence of shuffled epochs, dealt out to the ranks in turn.

    Every epoch holds every sample once, also where batch size or number of processes change in its middle.
    With `parts` every part has epochs of its own, and the sequence draws from them by their shares.

    Args:
        size: Samples in the data set.
        batch_size: Samples per rank and forward pass.
        passes: Forward passes to make.
        position: Samples that all ranks together have seen before.
        seed: Seed of the order.
        rank: This process.
        world: Number of processes.
        parts: Samples and share of each part of the data set, which follow one another; the shares add up
            to 1. Empty is one part.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        passes: int,
        position: int = 0,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        parts: Sequence[tuple[int, float]] = (),
    ) -> None:
        self.batch_size, self.passes, self.position = batch_size, passes, position
        self.rank, self.world = rank, world
        self._turns = _Turns([share for _, share in parts] or [1.0], seed)
        sizes = [count for count, _ in parts] or [size]
        self._first = np.cumsum([0, *sizes])
        self._epochs = [_Epochs(count, seed, number) for number, count in enumerate(sizes)]

    def __len__(self) -> int:
        return self.passes

    def __iter__(self) -> Iterator[list[int]]:
        for number in range(self.passes):
            first = self.position + (number * self.world + self.rank) * self.batch_size
            yield [self._sample(place) for place in range(first, first + self.batch_size)]

    def _sample(self, position: int) -> int:
        part, turn = self._turns[position] if len(self._epochs) > 1 else (0, position)
        return int(self._first[part]) + self._epochs[part][turn]


class _Epochs:
    """An endless sequence of the samples of one part, each epoch shuffled anew."""

    def __init__(self, size: int, seed: int, part: int) -> None:
        self._size, self._key = size, (seed, part)
        self._epoch = -1
        self._permutation = np.empty(0, np.int64)

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(position, self._size)
        if self._epoch != epoch:
            seed, part = self._key
            self._epoch = epoch
            self._permutation = np.random.default_rng([seed, epoch, part]).permutation(self._size)
        return int(self._permutation[place])


class _Turns:
    """Whose turn it is: an endless sequence of parts by their shares, in shuffled blocks.

    Every block samples the shares systematically: at equal steps from one random start on. So each part has
    its share of every block to within one sample, and exactly in the mean.
    """

    def __init__(self, shares: Sequence[float], seed: int) -> None:
        edges = np.cumsum(shares)[:-1]
        self._edges, self._parts, self._seed = edges, len(shares), seed
        self._block = 0
        self._before = np.zeros(self._parts, np.int64)
        self._order, self._rank = self._draw(0)

    def __getitem__(self, position: int) -> tuple[int, int]:
        """The part at a position, and how often it was there before."""
        block, place = divmod(position, BLOCK)
        if block < self._block:
            self._block, self._before = 0, np.zeros(self._parts, np.int64)
            self._order, self._rank = self._draw(0)
        while self._block < block:
            self._before = self._before + np.bincount(self._order, minlength=self._parts)
            self._block += 1
            self._order, self._rank = self._draw(self._block)
        part = int(self._order[place])
        return part, int(self._before[part] + self._rank[place])

    def _draw(self, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Part of every position of a block, and how often that part was in the block before. [BLOCK] each"""
        # The fourth word keeps it apart from the epochs, whose keys have three.
        generator = np.random.default_rng([self._seed, block, 0, 1])
        points = (np.arange(BLOCK) + generator.random()) / BLOCK
        order = generator.permutation(np.searchsorted(self._edges, points, side="right"))
        rank = np.empty(BLOCK, np.int64)
        for part in range(self._parts):
            (places,) = np.nonzero(order == part)
            rank[places] = np.arange(len(places))
        return order, rank


def step_generator(seed: int, step: int, micro_step: int, rank: int) -> torch.Generator:
    """The CPU generator of one forward pass; also seeds torch's global one, for code that draws from it."""
    state = int(np.random.SeedSequence([seed, step, micro_step, rank]).generate_state(1, np.uint64)[0])
    torch.manual_seed(state % 2**63)
    return torch.Generator().manual_seed(state % 2**63)
