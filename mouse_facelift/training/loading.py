"""Batches of one process, made ahead by data loading processes."""

import traceback
from collections.abc import Generator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from ..errors import MflError
from .config import TrainingConfig
from .sampler import StepSampler
from .signals import ignore_signals

Batch = dict[str, Any]


def load_batches(
    dataset: Dataset[Batch], sampler: StepSampler, training: TrainingConfig, pin_memory: bool
) -> Generator[Batch, None, None]:
    """Collated samples in the sampler's order. Close it when done: its workers end with it.

    Args:
        dataset: What to load.
        sampler: Which samples make which batch.
        training: `workers` and `seed`.
        pin_memory: The batches go to a GPU.

    Raises:
        MflError: a sample cannot be read; as if it had been read in this process. No other takes its place.
    """
    loader = DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=training.workers,
        pin_memory=pin_memory,
        worker_init_fn=ignore_signals,
        # Else it draws from the global one: once more in a resumed run than in an undisturbed one.
        generator=torch.Generator().manual_seed(training.seed),
    )
    try:
        yield from loader
    except BaseException as error:
        # Whoever keeps the error would keep its frames, and with them the other workers. They are deaf to
        # SIGTERM, so that this process would wait for them at its end, for good.
        traceback.clear_frames(error.__traceback__)
        if not isinstance(error, MflError):
            raise
        # Torch puts the worker's traceback before the message.
        kind = f"{type(error).__module__}.{type(error).__qualname__}: "
        raise type(error)(str(error).rpartition(kind)[2].strip()) from None
