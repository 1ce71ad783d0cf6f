"""Several data sets as one to train on, each with its weight; their samples may differ in number of views."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from .datasets import SampleDataset


class Mixture(Dataset[dict[str, Any]]):
    """Data sets one after the other. How often each is drawn from is the sampler's: see `parts`.

    Items are those of `SampleDataset` with uint8 pictures (`as_floats` makes them floats), of equal shape:
    samples with fewer than V views are filled up with copies of their last one. With them:
        may_show: Views that a model may be shown, bool. [V]
        may_compare: Views that are truth, bool; copies are neither. [V]

    Attributes:
        sets: The data sets, with pictures of one size.
        weights: How much each counts; any positive numbers.
        views: The most views of a sample, V.
    """

    def __init__(self, sets: Sequence[SampleDataset], weights: Sequence[float] | None = None) -> None:
        self.sets = list(sets)
        self.weights = [1.0] * len(self.sets) if weights is None else list(weights)
        self.views = max(len(samples.view_ids) for samples in self.sets)
        self._ends = list(accumulate(len(samples) for samples in self.sets))

    @property
    def parts(self) -> list[tuple[int, float]]:
        """Number of samples and share of each data set, for the sampler; the shares add up to 1."""
        total = sum(self.weights)
        return [(len(s), weight / total) for s, weight in zip(self.sets, self.weights, strict=True)]

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = bisect_right(self._ends, index)
        samples = self.sets[number]
        item = samples.eight_bit(index - self._ends[number] + len(samples))
        roles = {"may_show": samples.input_positions, "may_compare": samples.target_positions}
        return {**self._filled_up(item), **{name: self._mask(views) for name, views in roles.items()}}

    def _filled_up(self, item: dict[str, Any]) -> dict[str, Any]:
        count = len(item["view_ids"])
        if count == self.views:
            return item
        views = torch.arange(self.views).clamp(max=count - 1)
        return {key: value[views] if isinstance(value, Tensor) else value for key, value in item.items()}

    def _mask(self, positions: Sequence[int]) -> Tensor:
        mask = torch.zeros(self.views, dtype=torch.bool)
        mask[list(positions)] = True
        return mask
