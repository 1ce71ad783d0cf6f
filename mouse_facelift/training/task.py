"""What a trainer must say about itself so that the one loop can train it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset


class Task(Protocol):
    """A thing to train. The loop owns device, precision, optimizer, EMA, checkpoints and logs.

    Attributes:
        module: What is trained, averaged and checkpointed.
        dataset: Training samples: dicts of tensors and strings, for torch's default collate.
        best_metric: Optional. The figure of `validate` by which the best checkpoints are kept: higher is
            better, or lower with a leading minus.
        parts: Optional. Samples and share of each part of `dataset`, which follow one another and are drawn
            from by their shares, which add up to 1. Without it every sample counts alike.
        training_data: Optional. A function that says what is trained on, asked once and in the first process
            alone: its `TrainingData` goes into the run's folder and beside the weights of each checkpoint.
    """

    module: nn.Module
    dataset: Dataset[dict[str, Any]]

    def loss(self, module: nn.Module, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        """One forward pass.

        Args:
            module: `self.module` as wrapped for training; call this one.
            batch: Collated items, tensors on the training device; `step`: updates made so far.
            generator: On the CPU, seeded from (seed, step, rank): the only source of randomness, so that a
                resumed run draws what an undisturbed one would have drawn.

        Returns:
            Scalar tensors: `loss`, which is minimised, and whatever else shall be logged.
        """
        ...

    def validate(self, module: nn.Module, folder: Path) -> Mapping[str, float | str]:
        """Measure on fixed validation samples with fixed seeds and write pictures into `folder`.

        Returns what shall be logged: figures, and what they were measured on in words.

        `module` has `self.module`'s type, is unwrapped, in eval mode, and holds the averaged weights
        where EMA is on.
        """
        ...

    def export(self, module: nn.Module, folder: Path) -> None:
        """Write what inference loads. `module` as in `validate`; `folder` exists and is empty."""
        ...
