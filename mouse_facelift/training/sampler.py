"""Which samples each step sees: a function of the seed and of how many were seen before."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler


class StepSampler(Sampler[list[int]]):
    """Batches from an endless sequence of shuffled epochs, dealt out to the ranks in turn.

    Every epoch holds every sample once, also where batch size or number of processes change in its middle.

    Args:
        size: Samples in the data set.
        batch_size: Samples per rank and forward pass.
        passes: Forward passes to make.
        position: Samples that all ranks together have seen before.
        seed: Seed of the order.
        rank: This process.
        world: Number of processes.
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
    ) -> None:
        self.size, self.batch_size, self.passes, self.position = size, batch_size, passes, position
        self.seed, self.rank, self.world = seed, rank, world
        self._epoch = -1
        self._permutation = np.empty(0, np.int64)

    def __len__(self) -> int:
        return self.passes

    def __iter__(self) -> Iterator[list[int]]:
        for number in range(self.passes):
            first = self.position + (number * self.world + self.rank) * self.batch_size
            yield [self._sample(place) for place in range(first, first + self.batch_size)]

    def _sample(self, position: int) -> int:
        epoch, place = divmod(position, self.size)
        return int(self._order(epoch)[place])

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if self._epoch != epoch:
            self._epoch = epoch
            self._permutation = np.random.default_rng([self.seed, epoch]).permutation(self.size)
        return self._permutation


def spread_evenly(count: int, wanted: int) -> list[int]:
    """At most `wanted` of the indices below `count`, evenly spread, the same ones every time."""
    wanted = min(count, wanted)
    return [index * count // wanted for index in range(wanted)]


def step_generator(seed: int, step: int, micro_step: int, rank: int) -> torch.Generator:
    """The CPU generator of one forward pass; also seeds torch's global one, for code that draws from it."""
    state = int(np.random.SeedSequence([seed, step, micro_step, rank]).generate_state(1, np.uint64)[0])
    torch.manual_seed(state % 2**63)
    return torch.Generator().manual_seed(state % 2**63)
