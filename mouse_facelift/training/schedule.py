"""Learning-rate schedules and the decay of averaged weights, as functions of the update number."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .config import OptimizerConfig

Tensors = tuple[Tensor, ...] | list[Tensor]


def lr_factor(config: OptimizerConfig, total: int) -> Callable[[int], float]:
    """Multiplier of the peak learning rate for update number k, counted from 0.

    Warm-up is `k / warmup`, so the first update has rate 0; cosine then falls to 0 at `total` and stays there
    (facelift_spec 4.4; the published schedule rises again after its end).
    """
    warmup = config.warmup_steps

    def factor(update: int) -> float:
        if update < warmup:
            return update / warmup
        if config.schedule == "constant":
            return 1.0
        progress = min(1.0, (update - warmup) / max(1, total - warmup))
        return 0.5 * (1 + math.cos(math.pi * progress))

    return factor


def averaging(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """In-place average for torch's AveragedModel.

    The first update copies; the k-th has decay `min(decay, k / (k + 9))`. Same numbers
    as the published training's averaged weights (facelift_spec 6.6).
    """

    @torch.no_grad()
    def average(averaged: Tensors, current: Tensors, updates: Tensor | int) -> None:
        k = int(updates) + 1
        torch._foreach_lerp_(averaged, current, 1 - min(decay, k / (k + 9)))

    return average
