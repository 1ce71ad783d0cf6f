"""The one training loop, for both trainers, on accelerate."""

import contextlib
import logging
import math
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import parse_flag_from_env, set_seed
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from .. import progress
from ..config import Config, dump_config
from ..errors import CheckpointError, DataError
from ..provenance import Run
from .checkpoints import (
    Checkpoint,
    checkpoint_to_resume,
    prune_checkpoints,
    verify_checkpoint,
    write_checkpoint,
)
from .config import OptimizerConfig, TrainingConfig
from .logging import RunLog
from .optimizer import make_adamw
from .sampler import StepSampler, step_generator
from .schedule import averaging, lr_factor
from .task import Task
from .trainable import frozen_hash, load_trained_state, share_frozen, trained_state

log = logging.getLogger(__name__)

FREE_TO_CHANGE = ("training.", "validation.", "output")
"""Configuration that a resumed run may have otherwise than the run it continues."""


def this_process() -> PartialState:
    """This process among those of the run, and its device; also for what happens before `fit`."""
    # PartialState alone does not look at the variable and would take every process for the first one.
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


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
        CheckpointError: the checkpoint to resume belongs to another configuration or is damaged.
        DataError: the loss or its gradient is not finite.
        KeyboardInterrupt: interrupted; the state is saved first.
    """
    trainer = _Trainer(task, optimizer, training, output, command, config)
    if trainer.main:
        trainer.run.add_inputs(inputs)
    trainer.resume()
    trainer.train()
    return output


class _Trainer:
    def __init__(
        self,
        task: Task,
        optimizer: OptimizerConfig,
        training: TrainingConfig,
        output: Path,
        command: str,
        config: Config,
    ) -> None:
        self.task, self.training, self.output = task, training, output
        self.command, self.config = command, config
        self.max_grad_norm = optimizer.max_grad_norm
        on_gpu = this_process().device.type == "cuda"
        precision = training.precision if on_gpu and training.precision != "fp32" else "no"
        # Accelerate keeps the first precision of a process; two runs in one process may differ.
        AcceleratorState._reset_state()
        self.accelerator = Accelerator(mixed_precision=precision)
        self.main = self.accelerator.is_main_process
        if not self.main:
            _be_quiet()
        self.run = Run(command, config)
        self.step = self.updates = 0

        task.module.to(self.accelerator.device)
        self.peak_rate, self.rate_factor = optimizer.lr, lr_factor(optimizer, training.steps)
        # The fused kernel skips overflowing fp16 steps on its own, unnoticed by accelerate.
        adamw = make_adamw(task.module, optimizer, fused=on_gpu and precision != "fp16")
        self.module, self.optimizer = self.accelerator.prepare(task.module, adamw)
        self.average = self._new_average()
        self.frozen = frozen_hash(self.bare) if self.main else None

    @property
    def bare(self) -> nn.Module:
        """The task's module without the wrapping of distributed training."""
        return self.accelerator.unwrap_model(self.module)

    def _new_average(self) -> AveragedModel | None:
        if self.training.ema_decay == 0 or not self.main:
            return None
        average = AveragedModel(self.bare, multi_avg_fn=averaging(self.training.ema_decay))
        share_frozen(self.bare, average.module)
        return average

    # Resume

    def resume(self) -> None:
        """Restore the state that `training.resume` asks for."""
        checkpoint = checkpoint_to_resume(self.output, self.training.resume)
        if checkpoint is None:
            log.info("%s: starting from step 0", self.output)
            return
        self._check_compatible(checkpoint)
        if self.main:
            verify_checkpoint(checkpoint)
        self._load_state(checkpoint)
        log.info("%s: continuing from step %d of %d", checkpoint.folder, self.step, self.training.steps)

    def _check_compatible(self, checkpoint: Checkpoint) -> None:
        then, now = checkpoint.manifest, {"command": self.command, "config": dump_config(self.config)}
        differences = [
            f"{key}: then {before!r}, now {after!r}"
            for key, before, after in _differences(then["config"], now["config"])
            if not key.startswith(FREE_TO_CHANGE)
        ]
        if then["command"] != self.command:
            differences.insert(0, f"command: then {then['command']}, now {self.command}")
        if differences:
            raise CheckpointError(
                f"{checkpoint.folder} belongs to another configuration: {'; '.join(differences)}. "
                "Restore these values, choose another output, or start from its weights instead."
            )
        if self.main and then.get("frozen") != self.frozen:
            raise CheckpointError(
                f"{checkpoint.folder} was trained beside other frozen weights than those given now; a "
                "checkpoint holds only what is trained. Give the start weights that the run began with."
            )

    def _load_state(self, checkpoint: Checkpoint) -> None:
        # Everything is read on the CPU: whoever takes it moves it to its own device.
        weights, averaged = checkpoint.state / "model.safetensors", checkpoint.state / "ema.safetensors"
        load_trained_state(self.bare, load_file(weights))
        state = torch.load(checkpoint.state / "optimizer.pt", map_location="cpu", weights_only=True)
        self.optimizer.load_state_dict(state["optimizer"])
        self.updates = state["updates"]
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            # A run that has kept no average so far begins one from its weights.
            load_trained_state(self.average.module, load_file(averaged if averaged.is_file() else weights))
            self.average.n_averaged.fill_(state["averaged_updates"])
        self.step = checkpoint.step

    # Train

    def train(self) -> None:
        """Run the remaining updates."""
        if self.step >= self.training.steps:
            log.info("%s: all %d steps are done already", self.output, self.training.steps)
            return
        if self.main:
            self.run.write(self.output, {"steps": self.step})
        try:
            self._train_to_the_end()
        finally:
            if self.main:
                self.run.lap("training")
                self.run.write(self.output, {"steps": self.step})

    def _train_to_the_end(self) -> None:
        writer = RunLog(self.output, self.training, self.config) if self.main else contextlib.nullcontext()
        title, steps = self.command, self.training.steps
        with writer as record, _stop_request() as stop, progress.bar(title, steps) as line:
            line.advance(self.step)
            batches = self._batches()
            self._clock, self._since = time.perf_counter(), self.step
            while self.step < steps:
                values = self._update(batches)
                self.step += 1
                line.advance(note=f"loss {values['loss']:.4f}")
                stopping = self._any_process(bool(stop))
                self._after_update(record, values, stopping)
                if stopping:
                    raise KeyboardInterrupt

    def _any_process(self, stop: bool) -> bool:
        """Whether any process was asked to stop: all must end after the same step."""
        asked = torch.tensor(float(stop), device=self.accelerator.device)
        return bool(self.accelerator.reduce(asked, "sum"))

    def _batches(self) -> Iterator[dict[str, Any]]:
        accumulation = self.training.gradient_accumulation
        sampler = StepSampler(
            len(self.task.dataset),  # type: ignore[arg-type]
            self.training.batch_size,
            self.training.steps * accumulation,
            self.step * accumulation,
            self.training.seed,
            self.accelerator.process_index,
            self.accelerator.num_processes,
        )
        return iter(
            DataLoader(
                self.task.dataset,
                batch_sampler=sampler,
                num_workers=self.training.workers,
                pin_memory=self.accelerator.device.type == "cuda",
                worker_init_fn=_ignore_signals,
            )
        )

    def _update(self, batches: Iterator[dict[str, Any]]) -> dict[str, float]:
        """One optimizer update. Returns the mean of the logged terms, the gradient norm and the rate."""
        accumulation = self.training.gradient_accumulation
        totals: dict[str, Tensor] = {}
        self.module.train()
        for micro_step in range(accumulation):
            batch = self._to_device(next(batches)) | {"step": self.step}
            generator = step_generator(
                self.training.seed, self.step, micro_step, self.accelerator.process_index
            )
            last = micro_step == accumulation - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.module):
                with self.accelerator.autocast():
                    terms = self.task.loss(self.module, batch, generator)
                self._check_finite("loss", terms["loss"], batch)
                self.accelerator.backward(terms["loss"] / accumulation)
            for name, value in terms.items():
                totals[name] = totals.get(name, 0) + value.detach().float() / accumulation
        norm = self.accelerator.clip_grad_norm_(self.module.parameters(), self.max_grad_norm)
        if self.accelerator.scaler is None:
            self._check_finite("gradient's norm", norm, batch)
        rate = self.peak_rate * self.rate_factor(self.updates)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        # A step that the fp16 scaler skips advances neither the schedule nor the average.
        if not self.accelerator.optimizer_step_was_skipped:
            self.updates += 1
            if self.average is not None:
                self.average.update_parameters(self.bare)
        self.optimizer.zero_grad(set_to_none=True)
        return {name: float(value) for name, value in totals.items()} | {"grad_norm": float(norm), "lr": rate}

    def _to_device(self, batch: dict[str, Any]) -> dict[str, Any]:
        device = self.accelerator.device
        return {
            key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for key, value in batch.items()
        }

    def _check_finite(self, name: str, value: Tensor, batch: Mapping[str, Any]) -> None:
        number = float(value.detach())
        if not math.isfinite(number):
            raise DataError(
                f"the {name} is {number} at step {self.step + 1} on samples {batch.get('id')}. "
                f"Look at these samples, or lower optimizer.lr. The last checkpoint is kept in {self.output}."
            )

    # Watch and save

    def _after_update(self, record: RunLog | None, values: dict[str, float], stopping: bool) -> None:
        training, step = self.training, self.step
        last = step == training.steps
        if step % training.log_every == 0 or step == 1 or last:
            self._log(record, values)
        if (step % training.validate_every == 0 or last) and not stopping:
            self._validate(record)
        if step % training.checkpoint_every == 0 or last or stopping:
            self._save()

    def _log(self, record: RunLog | None, values: dict[str, float]) -> None:
        if record is None:
            return
        now = time.perf_counter()
        samples = (self.step - self._since) * self.training.batch_size * self.training.gradient_accumulation
        speed = samples * self.accelerator.num_processes / max(now - self._clock, 1e-9)
        self._clock, self._since = now, self.step
        record.write(self.step, {**values, "samples_per_s": round(speed, 3)})

    def _validate(self, record: RunLog | None) -> None:
        if record is not None:
            folder = self.output / "validation" / f"step_{self.step:08d}"
            folder.mkdir(parents=True, exist_ok=True)
            module = self._shown_module().eval()
            with torch.no_grad(), self.accelerator.autocast():
                metrics = self.task.validate(module, folder)
            module.train()
            record.write(self.step, {f"validation/{name}": value for name, value in metrics.items()})
            record.pictures(self.step, folder)
            shown = ", ".join(
                f"{name} {value if isinstance(value, str) else f'{value:.4g}'}"
                for name, value in metrics.items()
            )
            log.info("step %d: %s", self.step, shown)
        self.accelerator.wait_for_everyone()
        self._clock, self._since = time.perf_counter(), self.step

    def _shown_module(self) -> nn.Module:
        return self.average.module if self.average is not None else self.bare

    def _save(self) -> None:
        if self.main:
            facts = {"command": self.command, "config": dump_config(self.config), "frozen": self.frozen}
            write_checkpoint(self.output, self.step, self._write_state, facts)
            prune_checkpoints(self.output, self.training.keep_checkpoints)
        self.accelerator.wait_for_everyone()

    def _write_state(self, folder: Path) -> None:
        weights, state = folder / "weights", folder / "state"
        weights.mkdir()
        state.mkdir()
        self.task.export(self._shown_module(), weights)
        save_file(trained_state(self.bare), state / "model.safetensors")
        if self.average is not None:
            save_file(trained_state(self.average.module), state / "ema.safetensors")
        scaler = self.accelerator.scaler
        torch.save(
            {
                "optimizer": self.optimizer.state_dict(),
                "updates": self.updates,
                "scaler": scaler.state_dict() if scaler is not None else None,
                "averaged_updates": int(self.average.n_averaged) if self.average is not None else 0,
            },
            state / "optimizer.pt",
        )


@contextlib.contextmanager
def _stop_request() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM, so that the step ends and is saved; a second SIGINT acts at once.

    Launchers and schedulers tend to send SIGTERM more than once.
    """
    received: list[int] = []

    def handle(number: int, frame: object) -> None:
        if not received:
            log.warning("interrupted: finishing the step and saving; press Ctrl-C again to stop at once")
        received.append(number)
        signal.signal(signal.SIGINT, before[signal.SIGINT])

    before: dict[signal.Signals, Any] = {}
    try:
        for which in (signal.SIGINT, signal.SIGTERM):
            before[which] = signal.signal(which, handle)
    except ValueError:
        log.debug("not in the main thread: signals are not caught")
    try:
        yield received
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)


def _ignore_signals(worker: int) -> None:
    """Keep a data loading process alive while its trainer finishes the step."""
    for which in (signal.SIGINT, signal.SIGTERM):
        signal.signal(which, signal.SIG_IGN)


def _be_quiet() -> None:
    """Leave progress and news to the first process."""
    progress.console = None
    logging.getLogger(__name__.partition(".")[0]).setLevel(logging.WARNING)


def _differences(then: Any, now: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted(then.keys() | now.keys()):
            yield from _differences(then.get(key), now.get(key), f"{prefix}.{key}" if prefix else key)
    elif then != now:
        yield prefix, then, now
