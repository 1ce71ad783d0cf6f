"""The one training loop, for both trainers, on accelerate."""

import contextlib
import errno
import logging
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, gather_object, patch_environment, set_seed
from torch import Tensor, nn

from ..config import Config
from ..errors import CheckpointError, DataError, DivergedError, Interrupted, MflError
from ..files import remove_leftovers
from ..provenance import Run
from ..samples.training_data import TrainingData
from .checkpoints import checkpoint_folder, is_named, verify_checkpoint
from .config import OptimizerConfig, TrainingConfig
from .guard import SkipWindow, suspects
from .loading import load_batches
from .logging import check_loggers
from .optimizer import make_adamw
from .process import this_process
from .reporter import Reporter, be_quiet
from .resume import agreed_checkpoint, announce, check_compatible, facts_of_run
from .sampler import StepSampler, step_generator
from .saving import Checkpointer
from .schedule import lr_factor
from .sharding import shard, unsynchronized, wants_sharding
from .signals import StopRequest, stop_request
from .state import (
    TrainState,
    generator_state,
    make_average,
    read_generators,
    restore_generators,
    untouched_generators,
)
from .task import Task
from .trainable import frozen_hash
from .update import Outcome, Pass, Updater, mean_terms

log = logging.getLogger(__name__)

GRACE_S = 3
"""For another process to tell its error before this one ends."""
EXPECTED = (MflError, OSError, RuntimeError)
"""Files that cannot be read, disks, memory, processes that were killed, and all that CUDA reports."""


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch; call before weights are made."""
    set_seed(seed)


def fit(
    task: Task,
    optimizer: OptimizerConfig,
    training: TrainingConfig,
    output: Path,
    command: str,
    config: Config,
    inputs: Iterable[Path] = (),
) -> Path:
    """Train a task, or continue the run in `output`.

    Args:
        task: What to train.
        optimizer: AdamW and its schedule.
        training: Length, batch, precision, checkpoints, logs.
        output: The run's folder: `run.json`, `log.jsonl`, `checkpoints/`, `validation/`.
        command: The subcommand, for manifests.
        config: The whole resolved configuration, for manifests and the resume check.
        inputs: Files whose hashes `run.json` shall hold, such as list files and start weights.

    Returns:
        The run's folder.

    Raises:
        ConfigError: the folder holds checkpoints that `resume` does not mean.
        CheckpointError: the checkpoint to resume belongs to another configuration or is damaged, or the last
            step could not be saved.
        DataError: a sample cannot be read, or too many steps had a loss or gradient that is not finite.
        DependencyError: what the figures shall go to is not installed.
        Interrupted: a signal ended the run.

    Whatever ends it, the state is saved first; but not where one process of several breaks in the midst of a
    step, which the others cannot know.
    """
    check_loggers(training)
    trainer = Trainer(task, optimizer, training, output, command, config)
    trainer.resume(inputs)
    trainer.train()
    return output


@dataclass(frozen=True)
class Step:
    """A step: its forward passes, what became of it, and its learning rate."""

    passes: Sequence[Pass]
    outcome: Outcome
    rate: float


class Trainer:
    """A run in progress. Nothing is written before `train`."""

    def __init__(
        self,
        task: Task,
        optimizer: OptimizerConfig,
        training: TrainingConfig,
        output: Path,
        command: str,
        config: Config,
    ) -> None:
        self.task, self.training, self.output = task, training, output.resolve()
        self.command, self.config = command, config
        on_gpu = this_process().device.type == "cuda"
        precision = training.precision if on_gpu and training.precision != "fp32" else "no"
        if training.precision != "fp32" and not on_gpu:
            log.info("no GPU: all is computed in fp32 (training.precision=%s)", training.precision)
        # Accelerate keeps the first precision of a process; two runs in one process may differ.
        AcceleratorState._reset_state()
        # Buffers are constants, so nobody need tell them; gradients are reduced where they lie.
        ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
        sharded = wants_sharding(training)
        # What accelerate's launcher was told of these it would do itself, a second time.
        with patch_environment(ACCELERATE_USE_FSDP="false", ACCELERATE_GRADIENT_ACCUMULATION_STEPS="1"):
            self.accelerator = Accelerator(mixed_precision=precision, kwargs_handlers=[ddp])
        self.main = self.accelerator.is_main_process
        if not self.main:
            be_quiet()
        self.run = Run(command, config)
        self.step = self.updates = self.samples = 0
        self._settled = 0
        """Step that is saved, or was tried to the last."""
        self._whole = True
        """No update is half done."""
        self._validation_due = False
        self._last_batch: dict[str, Any] | None = None
        self._failure: Exception | None = None
        self._generators: Mapping[str, Any] | None = None
        self._seen: TrainingData | None = None
        self._ends_together = False
        """All processes know that the run ends here."""

        self.peak_rate, self.rate_factor = optimizer.lr, lr_factor(optimizer, training.steps)
        self.frozen = frozen_hash(task.module) if self.main else None
        self.sharded = sharded and self.accelerator.num_processes > 1
        self.bare = self.module = task.module.to(self.accelerator.device)
        twin = shard(self.bare, self.accelerator) if self.sharded else None
        self.optimizer = self.accelerator.prepare(make_adamw(self.bare, optimizer, fused=on_gpu))
        if not self.sharded:
            self.module = self.accelerator.prepare(self.bare)
        self.updater = Updater(self.accelerator, self.module, self.optimizer, optimizer)
        self.skips = SkipWindow(training)
        kept_here = training.ema_decay and (self.main or self.sharded)
        self.average = make_average(self.bare, training.ema_decay) if kept_here else None
        self.state = TrainState(self.bare, self.optimizer, self.average, self.accelerator.scaler, twin)

    @property
    def samples_per_step(self) -> int:
        """Of all processes together."""
        training = self.training
        return training.batch_size * training.gradient_accumulation * self.accelerator.num_processes

    # Resume

    def resume(self, inputs: Iterable[Path] = ()) -> None:
        """Restore the state that `training.resume` asks for, and make ready to save."""
        training, facts = self.training, {}
        checkpoint = agreed_checkpoint(self.output, training.resume, self.main)
        if self.main:
            self.run.add_inputs(inputs)
            facts = facts_of_run(self.run, training, self.accelerator.num_processes, self.frozen)
            if checkpoint is not None:
                check_compatible(checkpoint, facts, named=is_named(checkpoint, training.resume))
                verify_checkpoint(checkpoint)
            announce(self.output, training, checkpoint, facts)
        if checkpoint is not None:
            counters = self.state.read(checkpoint.state)
            self.step, self.updates, self.samples = checkpoint.step, counters["updates"], counters["samples"]
            self._settled = self.step
            self.skips.restore(counters.get("skips", ()))
            self._seen = TrainingData.load(checkpoint.weights)
            validated = checkpoint.manifest.get("metrics") is not None
            self._validation_due = counters.get("validation_due", False) and not validated
            self._generators = read_generators(checkpoint.state, self.accelerator.process_index)
        metric = getattr(self.task, "best_metric", None)
        self.checkpointer = Checkpointer(
            self.output, training, facts, metric, checkpoint, self.main, self._any_process
        )

    def _any_process(self, fact: bool) -> bool:
        """Whether something is true in any process; all of them wait for the answer."""
        return bool(self.accelerator.reduce(torch.tensor(float(fact), device=self.accelerator.device), "sum"))

    # Train

    def train(self) -> None:
        """Run the remaining updates."""
        if self.step >= self.training.steps and not self._validation_due:
            log.info("%s: all %d steps are done already", self.output, self.training.steps)
            return
        if self.main:
            remove_leftovers(self.output, r"run|status|training_data|log(\.aside)?")
            self.run.write(self.output, {"steps": self.step})
            self._describe_data()
        try:
            self._train_to_the_end()
        finally:
            if self.main:
                self.run.lap("training")
                self._write_facts()
            if self._ends_together:
                # A launcher ends all processes as soon as one has: the first must be done with its files.
                self.accelerator.wait_for_everyone()

    def _describe_data(self) -> None:
        """Write down what is trained on; a checkpoint that is continued from knows it already."""
        describe = getattr(self.task, "training_data", None)
        if self._seen is None and describe is not None:
            self._seen = describe()
        if self._seen is not None:
            self._seen.save(self.output)

    def _write_facts(self) -> None:
        try:
            self.run.write(self.output, {"steps": self.step})
        except OSError as error:
            # How the training ended matters more.
            log.warning("%s is not up to date: %s", self.output / "run.json", error.strerror)

    def _train_to_the_end(self) -> None:
        training, steps = self.training, self.training.steps
        reporter = Reporter(
            self.output,
            self.command,
            training,
            self.config,
            self.step,
            self.samples_per_step,
            silent=not self.main,
        )
        loading = contextlib.closing(self.batches())
        with reporter as report, stop_request() as stop, loading as batches:
            if self._generators is not None:
                restore_generators(self._generators)
            if self._validation_due:
                log.info("step %d: its validation was cut short and is made up for", self.step)
            begin, stopped = self.step, self._validation_due and self._validate(report, stop)
            try:
                while self.step < steps and not stopped:
                    step = self.make_step(batches, stop)
                    report.advance(self.step, step.outcome.loss)
                    if self.main and self.step == begin + 1:
                        self.checkpointer.warn_if_full(self.state.size())
                    stopped = self._after_step(report, step, stop)
            except Exception:
                self._rescue()
                raise
            if stopped:
                self._ends_together = True
                raise stop.interruption

    def batches(self) -> Generator[dict[str, Any], None, None]:
        """All batches of this process that are still to come."""
        sampler = StepSampler(
            len(self.task.dataset),  # type: ignore[arg-type]
            self.training.batch_size,
            (self.training.steps - self.step) * self.training.gradient_accumulation,
            self.samples,
            self.training.seed,
            self.accelerator.process_index,
            self.accelerator.num_processes,
            getattr(self.task, "parts", ()),
        )
        on_gpu = self.accelerator.device.type == "cuda"
        return load_batches(self.task.dataset, sampler, self.training, pin_memory=on_gpu)

    def make_step(self, batches: Iterator[dict[str, Any]], stop: StopRequest | None = None) -> Step:
        """Forward and backward passes, then an update where their gradient allows it."""
        accumulation = self.training.gradient_accumulation
        passes = []
        self.module.train()
        for micro_step in range(accumulation):
            batch = self._to_device(self._next(batches)) | {"step": self.step}
            generator = step_generator(
                self.training.seed, self.step, micro_step, self.accelerator.process_index
            )
            last = micro_step == accumulation - 1
            with contextlib.nullcontext() if last else self._unsynchronized():
                with self.accelerator.autocast():
                    terms = self.task.loss(self.module, batch, generator)
                self.accelerator.backward(terms["loss"] / accumulation)
            passes.append(Pass({k: v.detach().float() for k, v in terms.items()}, batch.get("id", ())))
        rate = self.peak_rate * self.rate_factor(self.updates)
        self._whole = False
        outcome = self.updater.update(passes, rate, bool(stop), self._failure is not None)
        if outcome.failed:
            self._whole = True
            self._end_together("could not read its next samples")
        # A skipped step advances neither the schedule nor the average.
        if not outcome.skipped:
            self.updates += 1
            if self.average is not None:
                self.average.update_parameters(self.bare)
        self.step += 1
        self.samples += self.samples_per_step
        self._whole = True
        return Step(passes, outcome, rate)

    def _next(self, batches: Iterator[dict[str, Any]]) -> dict[str, Any]:
        """The next batch.

        If it cannot be read, other processes wait for this one's gradients: an earlier batch stands in, and
        the step does not count.
        """
        if self.accelerator.num_processes == 1:
            return next(batches)
        try:
            self._last_batch = next(batches)
        except EXPECTED as error:
            if self._last_batch is None:
                raise
            self._failure = error
        return self._last_batch

    def _end_together(self, what: str) -> NoReturn:
        """End the run in all processes, with the error of the one that failed.

        Raises:
            DataError: another one did.
            MflError, OSError, RuntimeError: this one did.
        """
        self._ends_together = True
        if self._failure is None:
            # The first process to end has the others ended, so the one that knows what is wrong goes first.
            time.sleep(GRACE_S)
        raise self._failure or DataError(f"another process {what}; its own message says more.")

    def _unsynchronized(self) -> contextlib.AbstractContextManager[None]:
        """Gradients stay with their processes: only those of a step's last pass are reduced."""
        return unsynchronized(self.bare) if self.sharded else self.accelerator.no_sync(self.module)

    def _to_device(self, batch: dict[str, Any]) -> dict[str, Any]:
        device = self.accelerator.device
        return {
            key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for key, value in batch.items()
        }

    # Watch and save

    def _after_step(self, report: Reporter, step: Step, stop: StopRequest) -> bool:
        """Log, validate, save, as is due; returns whether the run shall end."""
        training, last = self.training, self.step == self.training.steps
        self._count_skip(report, step.outcome, step.passes)
        if self.step % training.log_every == 0 or self.step == 1 or last:
            self._log(report, step)
        trouble, stopped = self.skips.check(ending=last), step.outcome.stop
        self._validation_due = self.step % training.validate_every == 0 or last
        if trouble:
            # Whoever goes on from here has looked at them.
            self.skips.restore(())
            raise self._diverged(trouble)
        # First of all: a validation takes long, and may fail.
        due = self.checkpointer.due(self.step) or stopped
        saved = due and self._save(final=last or stopped)
        if self._validation_due and not stopped:
            stopped = self._validate(report, stop)
            if stopped and not saved:
                self._save(final=True)
        return stopped

    def _diverged(self, trouble: str) -> DivergedError:
        """Save the state and say so."""
        self._ends_together = True
        try:
            self._save(final=True)
        except CheckpointError as error:
            return DivergedError(f"step {self.step}: {trouble}. The state could not be saved: {error}")
        folder = checkpoint_folder(self.output, self.step)
        return DivergedError(f"step {self.step}: {trouble}. The state is saved in {folder}.")

    def _rescue(self) -> None:
        """Save what an error would lose. What one process alone knows of cannot be saved: all take part."""
        together = self._ends_together or self.accelerator.num_processes == 1
        if self.step == self._settled or not self._whole or not together:
            return
        try:
            self._save(final=True)
        except EXPECTED as error:
            # How it all began matters more.
            log.error("step %d could not be saved: %s", self.step, error)

    def _count_skip(self, report: Reporter, outcome: Outcome, passes: Sequence[Pass]) -> None:
        names: list[str] = []
        if outcome.skipped:
            names = gather_object(suspects(passes, outcome))
            report.skipped(self.step, outcome.skipped, names)
        self.skips.add(outcome.skipped if outcome.fault else "", names)

    def _log(self, report: Reporter, step: Step) -> None:
        values = mean_terms(self.accelerator, step.passes)
        done = {"grad_norm": step.outcome.grad_norm, "lr": step.rate, "skipped": self.step - self.updates}
        report.figures(self.step, values | done)

    def _validate(self, report: Reporter, stop: StopRequest) -> bool:
        """Measure, in the first process. Whether some process was asked to stop, which cuts it short.

        Raises:
            MflError, OSError, RuntimeError: what went wrong in it; in all processes.
        """
        module = self.state.show()
        if self.main and module is not None:
            try:
                self._measure_and_tell(module, report, stop)
            except EXPECTED as error:
                # The others wait below.
                self._failure = error
        self.accelerator.wait_for_everyone()
        if self._any_process(self._failure is not None):
            self._end_together("failed in its validation")
        report.restart_clock(self.step)
        return self._any_process(bool(stop))

    def _measure_and_tell(self, module: nn.Module, report: Reporter, stop: StopRequest) -> None:
        folder = self.output / "validation" / f"step_{self.step:08d}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(folder, ".*")
            with stop.at_once():
                metrics = self.measure(module, folder)
            self._validation_due = False
            report.validation(self.step, metrics, folder)
            self.checkpointer.note(self.step, metrics)
        except Interrupted:
            if stop.insists:
                raise
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            # A full disk is no reason to lose the training itself.
            log.error("step %d is not validated, %s: %s", self.step, error.strerror, folder)
            self._validation_due = False

    def measure(self, module: nn.Module, folder: Path) -> Mapping[str, float | str]:
        """What the task measures on `state.show()`; its pictures lie in `folder` afterwards."""
        module.to(self.accelerator.device).eval()
        try:
            with torch.no_grad(), self.accelerator.autocast(), untouched_generators():
                return self.task.validate(module, folder)
        finally:
            module.train()
            if self.sharded:
                module.cpu()

    def _save(self, final: bool) -> bool:
        """Save this step, and say whether it is saved; `final`: no later one will make up for a failure."""
        if final:
            self._settled = self.step
        generators = gather_object([generator_state()])
        counters = {
            "updates": self.updates,
            "samples": self.samples,
            "skips": self.skips.content,
            "validation_due": self._validation_due,
        }
        shown, captured = self.state.show(), self.state.capture()

        def write(folder: Path) -> None:
            (folder / "weights").mkdir()
            (folder / "state").mkdir()
            self.task.export(cast(nn.Module, shown), folder / "weights")
            if self._seen is not None:
                self._seen.save(folder / "weights")
            captured.write(folder / "state", counters, generators)

        saved = self.checkpointer.save(self.step, write, self.state.size(), final)
        if saved:
            self._settled = self.step
        return saved
