"""What a run tells while it goes: progress line, figures, heartbeat; on the first process only."""

import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import torch

from .. import progress
from ..config import Config
from .config import TrainingConfig
from .heartbeat import Heartbeat
from .logging import Figures, RunLog

log = logging.getLogger(__name__)

GIB = 2**30


class Reporter:
    """Opens the run's logs for the duration of a block.

    Args:
        folder: The run's output folder.
        title: Of the progress line.
        training: Its length and where its figures go.
        config: The whole resolved configuration.
        step: Steps done.
        samples_per_step: Of all processes together.
        silent: This is not the first process.

    Raises:
        DependencyError: as `RunLog`.
    """

    def __init__(
        self,
        folder: Path,
        title: str,
        training: TrainingConfig,
        config: Config,
        step: int,
        samples_per_step: int,
        silent: bool = False,
    ) -> None:
        self._samples_per_step = samples_per_step
        self._log: RunLog | None = None
        self._heart: Heartbeat | None = None
        self._extra = self._validated = ""
        with contextlib.ExitStack() as opened:
            if not silent:
                # First, so that `status.json` says failed where a log cannot be opened.
                self._heart = opened.enter_context(Heartbeat(folder, training.steps, step))
                self._log = opened.enter_context(RunLog(folder, training, config, step))
            self._line = opened.enter_context(progress.bar(title, training.steps))
            self._context = opened.pop_all()
        self._line.advance(step)
        self.restart_clock(step)

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._context.__exit__(kind, error, trace)

    def restart_clock(self, step: int) -> None:
        """Count time from now, for samples per second: something else than training took its time."""
        self._clock, self._since = time.perf_counter(), step

    def advance(self, step: int, loss: float) -> None:
        """Tell that a step is done."""
        self._line.advance(note=f"loss {loss:.4f}{self._extra}")
        if self._heart is not None:
            self._heart.beat(step)

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """Record a step's figures, with samples per second since the last ones and the GPU's peak memory."""
        now = time.perf_counter()
        speed = (step - self._since) * self._samples_per_step / max(now - self._clock, 1e-9)
        self.restart_clock(step)
        shown = {**values, "samples_per_s": round(speed, 3)}
        self._extra = f", PSNR {values['psnr']:.2f} dB" if "psnr" in values else self._validated
        self._extra += f", {speed:.3g} samples/s"
        if torch.cuda.is_available():
            shown["gpu_memory_gib"] = round(torch.cuda.max_memory_allocated() / GIB, 3)
            self._extra += f", {shown['gpu_memory_gib']:.1f} GiB"
        if self._log is not None:
            self._log.write(step, shown)

    def skipped(self, step: int, reason: str, samples: Sequence[str]) -> None:
        """Tell of a step without an update, and on which samples."""
        if self._log is not None:
            names = ", ".join(samples) or "not known"
            log.warning("step %d: no update, %s; samples: %s", step, reason, names)
            self._log.note(step, {"skipped": reason, "samples": list(samples)})

    def validation(self, step: int, metrics: Figures, folder: Path) -> None:
        """Record what was measured, and the pictures in `folder`; the line shows its first PSNR from here on,
        if steps have none of their own."""
        if self._log is None:
            return
        decibels = [value for name, value in metrics.items() if name.startswith("psnr")]
        self._validated = f", validated PSNR {decibels[0]:.2f} dB" if decibels else ""
        self._log.write(step, {f"validation/{name}": value for name, value in metrics.items()})
        self._log.pictures(step, folder)
        words = (f"{k} {v if isinstance(v, str) else f'{v:.4g}'}" for k, v in metrics.items())
        log.info("step %d: %s", step, ", ".join(words))


def be_quiet() -> None:
    """Leave progress and news to the first process."""
    progress.console = None
    logging.getLogger(__name__.partition(".")[0]).setLevel(logging.ERROR)
