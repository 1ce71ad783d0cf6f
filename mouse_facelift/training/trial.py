"""`--dry-run` of the trainers: one real step, and what the run will need. Nothing of it stays."""

import contextlib
import logging
import math
import resource
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..config import Config
from ..errors import ConfigError
from ..files import free_bytes
from ..words import data_size, duration, gigabytes, several
from .config import OptimizerConfig, TrainingConfig
from .loop import Trainer
from .task import Task
from .update import Outcome

log = logging.getLogger(__name__)

STEPS = 2
"""The first step also loads kernels and starts the data loading; the second is timed."""


@dataclass(frozen=True)
class Trial:
    """What a run will need, judged from one step of it.

    Attributes:
        loss: Of the timed step.
        skipped: Why there was no update in it; empty where there was one.
        steps: Steps to come.
        step_s: Seconds of one.
        validations: Validations to come.
        validation_s: Seconds of one.
        device: Where it runs.
        peak_bytes: Memory taken at most: of the GPU, or else of this process.
        memory_bytes: Memory of the GPU; None on a CPU.
        checkpoint_bytes: One checkpoint on disk.
        checkpoints: How many there will be at a time, the one being written included.
        free_bytes: Free on the output's disk.
    """

    loss: float
    skipped: str
    steps: int
    step_s: float
    validations: int
    validation_s: float
    device: str
    peak_bytes: int
    memory_bytes: int | None
    checkpoint_bytes: int
    checkpoints: int
    free_bytes: int

    @property
    def total_s(self) -> float:
        """Seconds that the steps and validations to come will take."""
        return self.steps * self.step_s + self.validations * self.validation_s

    @property
    def disk_bytes(self) -> int:
        """Disk that the checkpoints will take."""
        return self.checkpoints * self.checkpoint_bytes

    def lines(self) -> list[str]:
        """What to tell, a sentence a line."""
        update = f"no update: {self.skipped}" if self.skipped else "the update was made"
        of = f" of {gigabytes(self.memory_bytes)}" if self.memory_bytes is not None else ""
        short = " That is too little!" if self.disk_bytes > self.free_bytes else ""
        return [
            f"one step: loss {self.loss:.4g}, {update}.",
            f"memory: {gigabytes(self.peak_bytes)}{of} on {self.device}.",
            f"time: {duration(self.step_s)} a step, {duration(self.validation_s)} a validation; "
            f"{several(self.steps, 'step')} and {several(self.validations, 'validation')} take about "
            f"{duration(self.total_s)}.",
            f"disk: {data_size(self.checkpoint_bytes)} a checkpoint, at most {self.checkpoints} at a time: "
            f"{data_size(self.disk_bytes)}; {data_size(self.free_bytes)} are free.{short}",
        ]


def trial(
    task: Task,
    optimizer: OptimizerConfig,
    training: TrainingConfig,
    output: Path,
    command: str,
    config: Config,
    inputs: Iterable[Path] = (),
    validation_samples: int = 1,
) -> Trial:
    """Do what `fit` would do, for one step, and write nothing outside a temporary folder.

    Args:
        task: As for `fit`; its validation shall look at one sample only.
        optimizer: As for `fit`.
        training: As for `fit`.
        output: As for `fit`. What is there is read, to see whether the run can be continued, and not changed.
        command: As for `fit`.
        config: As for `fit`.
        inputs: As for `fit`.
        validation_samples: Samples that a validation of the run will look at.

    Returns:
        What was measured; it is also told in the log.

    Raises:
        ConfigError: a step does not fit into the GPU's memory; or as `fit`.
        CheckpointError: as `fit`.
        DataError: a sample cannot be read.
    """
    # Enough steps to try, also where the run is nearly done.
    longer = training.model_copy(update={"steps": training.steps + STEPS})
    trainer = Trainer(task, optimizer, longer, output, command, config)
    trainer.resume(inputs)
    done = trainer.step
    try:
        outcome, step_s = _timed_step(trainer)
        validation_s = validation_samples * _timed_validation(trainer)
    except torch.OutOfMemoryError:
        total = gigabytes(_gpu_memory() or 0)
        raise ConfigError(
            f"one step needs more memory than the GPU has ({total}). Lower training.batch_size (and raise "
            "training.gradient_accumulation), set training.precision=bf16, or train fewer parameters."
        ) from None
    steps = max(0, training.steps - done)
    result = Trial(
        loss=outcome.loss,
        skipped=outcome.skipped,
        steps=steps,
        step_s=step_s,
        validations=math.ceil(steps / training.validate_every),
        validation_s=validation_s,
        device=_device_name(trainer),
        peak_bytes=_peak_memory(),
        memory_bytes=_gpu_memory(),
        checkpoint_bytes=trainer.state.size(),
        checkpoints=_checkpoints_at_a_time(training),
        free_bytes=free_bytes(output),
    )
    if trainer.main:
        for line in result.lines():
            log.info("%s", line)
    return result


def _timed_step(trainer: Trainer) -> tuple[Outcome, float]:
    with contextlib.closing(trainer.batches()) as batches:
        for _ in range(STEPS):
            _wait_for_device()
            begin = time.perf_counter()
            step = trainer.make_step(batches)
            _wait_for_device()
            seconds = time.perf_counter() - begin
    return step.outcome, seconds


def _timed_validation(trainer: Trainer) -> float:
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        module = trainer.state.show()
        if module is not None:
            trainer.measure(module, Path(folder))
        _wait_for_device()
        return time.perf_counter() - begin


def _checkpoints_at_a_time(training: TrainingConfig) -> int:
    written = math.ceil(training.steps / training.checkpoint_every)
    kept_for_good = training.steps // training.keep_every if training.keep_every else 0
    kept = training.keep_checkpoints + training.keep_best
    return min(written, kept + 1) + kept_for_good


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _peak_memory() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    # Linux counts kibibytes, macOS bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _gpu_memory() -> int | None:
    if not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory


def _device_name(trainer: Trainer) -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else str(trainer.accelerator.device)
