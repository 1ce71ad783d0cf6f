"""When a checkpoint is written, which ones stay, and what happens while the disk refuses."""

import errno
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from ..errors import CheckpointError
from ..files import make_folder
from ..words import data_size
from .checkpoints import (
    Checkpoint,
    amend_checkpoint,
    checkpoint_folder,
    delete_checkpoint,
    list_checkpoints,
    set_aside,
    verify_checkpoint,
    write_checkpoint,
)
from .config import TrainingConfig

log = logging.getLogger(__name__)

RETRY_SHARE = 0.1
"""A failed save is tried again after this share of `checkpoint_every`."""

LAST_WAITS_S = (2.0, 10.0, 30.0)
"""The last save of a process cannot wait for a later step; it waits so long between its attempts."""

MARGIN_SHARE, MARGIN_BYTES = 0.05, 64 * 2**20
"""Free space wanted beyond the tensors' bytes."""


class Checkpointer:
    """Keeps a run's work on disk. Every process has one, and all take part in `save`; the first one writes.

    Args:
        run: The run's output folder.
        training: When to save and what to keep.
        facts: What made the run, for every manifest, JSON-ready.
        best_metric: The figure of validation that ranks checkpoints; higher is better, with a leading minus
            lower is. None ranks none.
        resumed: What the run continues from; never deleted.
        main: Whether this is the first process.
        any_process: Whether something is true in any process.
    """

    def __init__(
        self,
        run: Path,
        training: TrainingConfig,
        facts: Mapping[str, Any],
        best_metric: str | None = None,
        resumed: Checkpoint | None = None,
        main: bool = True,
        any_process: Callable[[bool], bool] = bool,
    ) -> None:
        self.run, self.training, self.facts, self.best_metric = run, training, facts, best_metric
        self._resumed = resumed.folder.resolve() if resumed else None
        self._last_good = resumed
        self._main, self._any_process = main, any_process
        self._retry_at: int | None = None

    def due(self, step: int) -> bool:
        """Whether to save after this step; all processes agree."""
        every, training = self.training.keep_every, self.training
        planned = step % training.checkpoint_every == 0 or step == training.steps
        return planned or bool(every and step % every == 0) or step == self._retry_at

    def warn_if_full(self, needed: int) -> None:
        """Say early that there will be no room for a checkpoint of so many bytes."""
        free = shutil.disk_usage(self.run).free
        if free < _wanted(needed):
            log.error(
                "a checkpoint needs %s, and %s has %s free: NOTHING can be saved. Free space before step %d.",
                data_size(_wanted(needed)),
                self.run,
                data_size(free),
                self.training.checkpoint_every,
            )

    def save(
        self,
        step: int,
        write: Callable[[Path], None],
        needed: int,
        final: bool = False,
    ) -> bool:
        """Write the checkpoint of a step, delete what is no longer kept, and say whether it is written.

        A failure leaves the earlier checkpoints alone, is told loudly and tried again some steps later.

        Args:
            step: Steps done.
            write: Fills the checkpoint's folder; called in the first process alone.
            needed: Bytes that it will write.
            final: No later step will try again: attempt it a few times.

        Raises:
            CheckpointError: `final`, and all attempts failed.
        """
        saved = not self._main or self._attempt(step, write, needed)
        for wait in LAST_WAITS_S if final and not saved else ():
            log.warning("trying again in %g s", wait)
            time.sleep(wait)
            if saved := self._attempt(step, write, needed):
                break
        failed = self._any_process(not saved)
        pause = max(1, round(RETRY_SHARE * self.training.checkpoint_every))
        self._retry_at = step + pause if failed else None
        if failed and final:
            raise CheckpointError(
                f"{self.run}: step {step} could not be saved (the log says why); {self._loss(step)}. Free "
                "space or repair the disk, then start the same command again to continue from there."
            )
        if failed:
            log.error("training goes on; the next attempt to save is after step %d", self._retry_at)
        return not failed

    def note(self, step: int, metrics: Mapping[str, float | str]) -> None:
        """Add what a validation after this very step has measured to the step's checkpoint, if there is one.

        By it the best are kept. For the first process alone.
        """
        if not checkpoint_folder(self.run, step).is_dir():
            return
        try:
            self._prune(amend_checkpoint(self.run, step, {"metrics": _finite(metrics)}))
        except (OSError, CheckpointError) as error:
            log.warning("step %d: the checkpoint does not know its validation: %s", step, error)

    def _attempt(self, step: int, write: Callable[[Path], None], needed: int) -> bool:
        folder = checkpoint_folder(self.run, step).parent
        wanted = _wanted(needed)
        try:
            make_folder(folder)
            if shutil.disk_usage(folder).free < wanted:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            facts = {**self.facts, "metrics": None, "best_metric": self.best_metric}
            checkpoint = write_checkpoint(self.run, step, write, facts)
            self._prune(checkpoint)
        except (OSError, CheckpointError) as error:
            self._complain(step, error, wanted, folder)
            return False
        self._last_good = checkpoint
        log.info("%s: saved", checkpoint.folder)
        return True

    def _prune(self, newest: Checkpoint) -> None:
        checkpoints = list_checkpoints(self.run)
        kept = kept_steps(checkpoints, self.training, self.best_metric)
        dropped = [
            checkpoint
            for checkpoint in checkpoints
            if checkpoint.step not in kept and checkpoint.folder.resolve() != self._resumed
        ]
        if not dropped:
            return
        try:
            verify_checkpoint(newest)
        except CheckpointError:
            set_aside(newest.folder)
            raise
        for checkpoint in dropped:
            try:
                delete_checkpoint(self.run, checkpoint)
            except (OSError, CheckpointError) as error:
                log.warning("an old checkpoint stays: %s", error)

    def _complain(self, step: int, error: Exception, wanted: int, folder: Path) -> None:
        try:
            free = data_size(shutil.disk_usage(folder).free)
        except OSError:
            free = "unknown"
        log.error(
            "step %d is NOT saved: %s. Needed: %s, free: %s, in %s. Free space there, or look at the disk. "
            "Earlier checkpoints are untouched; %s.",
            step,
            error,
            data_size(wanted),
            free,
            folder,
            self._loss(step),
        )

    def _loss(self, step: int) -> str:
        if self._last_good is None:
            return f"there is no checkpoint yet, so all {step} steps would be lost"
        good = self._last_good
        return f"the last good checkpoint is {good.folder}, so {step - good.step} steps would be lost"


def kept_steps(
    checkpoints: Sequence[Checkpoint], training: TrainingConfig, best_metric: str | None = None
) -> set[int]:
    """Which checkpoints stay: the newest, the best and every so manieth.

    Args:
        checkpoints: Oldest first.
        training: How many of each.
        best_metric: See `Checkpointer`.
    """
    newest = checkpoints[-training.keep_checkpoints :]
    best = rank_checkpoints(checkpoints, best_metric)[: training.keep_best]
    every = training.keep_every
    regular = [checkpoint for checkpoint in checkpoints if every and checkpoint.step % every == 0]
    return {checkpoint.step for checkpoint in (*newest, *best, *regular)}


def rank_checkpoints(checkpoints: Sequence[Checkpoint], best_metric: str | None) -> list[Checkpoint]:
    """Those that were validated after their very step, the best first; of equal ones, the newer first.

    Figures of other settings of the validation than the newest one's do not compare; these are left out.
    """
    if best_metric is None or not checkpoints:
        return []
    name, sign = best_metric.removeprefix("-"), -1 if best_metric.startswith("-") else 1
    scored, settings = [], _validation(checkpoints[-1])
    for checkpoint in checkpoints:
        if _validation(checkpoint) != settings:
            continue
        score = (checkpoint.manifest.get("metrics") or {}).get(name)
        if _is_number(score):
            scored.append((sign * score, checkpoint.step, checkpoint))
    return [checkpoint for _, _, checkpoint in sorted(scored, key=lambda entry: entry[:2], reverse=True)]


def _validation(checkpoint: Checkpoint) -> Any:
    return checkpoint.manifest.get("config", {}).get("validation")


def _wanted(needed: int) -> int:
    """Bytes that shall be free before so many are written."""
    return needed + int(MARGIN_SHARE * needed) + MARGIN_BYTES


def _finite(metrics: Mapping[str, float | str]) -> dict[str, float | str]:
    return {name: value for name, value in metrics.items() if isinstance(value, str) or _is_number(value)}


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and math.isfinite(value)
