"""Where training figures go: `log.jsonl` always, TensorBoard and Weights & Biases on request.

A resumed run goes on in the same places: lines of steps that are done again are moved aside, and the
Weights & Biases run is the same.
"""

import importlib.util
import json
import logging
import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from ..config import Config, dump_config
from ..errors import DependencyError
from ..files import write_text
from .config import TrainingConfig

log = logging.getLogger(__name__)

LOG, ASIDE, WANDB_ID = "log.jsonl", "log.aside.jsonl", "wandb_id.txt"

Figures = Mapping[str, float | str]


def check_loggers(training: TrainingConfig) -> None:
    """Make sure, before anything is built, that what the figures shall go to is installed.

    Raises:
        DependencyError: it is not.
    """
    if training.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise DependencyError(
            "training.tensorboard is true, which needs tensorboard, and it is not installed. "
            "pip install 'mouse-facelift[tensorboard]', or set training.tensorboard=false."
        )
    if training.wandb != "disabled" and importlib.util.find_spec("wandb") is None:
        raise DependencyError(
            f"training.wandb is {training.wandb}, and wandb is not installed. pip install wandb, or set "
            "training.wandb=disabled."
        )


class RunLog:
    """Appends one JSON object a line: `{"step": ..., "loss": ..., ...}`.

    Args:
        folder: The run's output folder.
        training: For the TensorBoard and Weights & Biases settings.
        config: The whole resolved configuration.
        step: Steps done. Lines of later ones are from before a crash: they go to `log.aside.jsonl`.

    Raises:
        DependencyError: TensorBoard is not installed, or Weights & Biases does not start.
    """

    def __init__(self, folder: Path, training: TrainingConfig, config: Config, step: int = 0) -> None:
        check_loggers(training)
        folder.mkdir(parents=True, exist_ok=True)
        set_aside(folder, step)
        self._file = (folder / LOG).open("a", encoding="utf-8")
        self._tensorboard = _start_tensorboard(folder, training, step)
        self._wandb = _start_wandb(folder, training, config)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):  # it was told when the line was written
            self._file.close()
        self._tell("_tensorboard", lambda board: board.close())
        self._tell("_wandb", lambda run: run.finish(exit_code=0 if kind is None else 1))

    def write(self, step: int, values: Figures) -> None:
        """Record figures of a step."""
        self.note(step, values)
        for name, value in values.items():
            if not isinstance(value, str):
                self._tell("_tensorboard", lambda board, *what: board.add_scalar(*what), name, value, step)
        self._tell("_wandb", lambda run: run.log(dict(values), step=step))

    def note(self, step: int, facts: Mapping[str, float | str | Sequence[str]]) -> None:
        """Write a line of `log.jsonl` alone; what is not finite becomes null: JSON has no word for it."""
        line = {"step": step, "time": round(time.time(), 3), **{k: _json(v) for k, v in facts.items()}}
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError as error:
            # A full disk is no reason to lose the training itself.
            log.warning("step %d is missing in %s: %s", step, self._file.name, error.strerror)

    def pictures(self, step: int, folder: Path) -> None:
        """Show a folder's validation pictures where figures are shown; on disk they already are."""
        files = {f"validation/{path.stem}": path for path in sorted(folder.glob("*.png"))}
        self._tell("_tensorboard", _show_on_board, files, step)
        self._tell("_wandb", _show_on_wandb, files, step)

    def _tell(self, place: str, call: Callable[..., object], *values: object) -> None:
        """Figures that some service does not take are no reason to lose the training itself."""
        service = getattr(self, place)
        if service is None:
            return
        try:
            call(service, *values)
        except Exception as error:  # noqa: BLE001 - other people's code
            log.warning("%s takes no more figures: %s", place.removeprefix("_"), error)
            setattr(self, place, None)


def _show_on_board(board: Any, files: Mapping[str, Path], step: int) -> None:
    for name, path in files.items():
        board.add_image(name, np.asarray(Image.open(path)), step, dataformats="HWC")


def _show_on_wandb(run: Any, files: Mapping[str, Path], step: int) -> None:
    import wandb

    run.log({name: wandb.Image(str(path)) for name, path in files.items()}, step=step)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """All lines of a run's `log.jsonl`; one that was torn by a crash is left out."""
    text = (folder / LOG).read_text(encoding="utf-8", errors="replace")
    return [line for line in map(_parse, text.splitlines()) if line is not None]


def set_aside(folder: Path, step: int) -> None:
    """Keep the whole lines up to `step` in `log.jsonl`; move all others to the end of `log.aside.jsonl`."""
    path = folder / LOG
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    kept: list[str] = []
    moved: list[str] = []
    for line in text.splitlines():
        parsed = _parse(line)
        (kept if parsed is not None and parsed["step"] <= step else moved).append(line + "\n")
    if not moved and (text.endswith("\n") or not text):
        return
    if moved:
        with (folder / ASIDE).open("a", encoding="utf-8") as aside:
            aside.writelines(moved)
        log.info("%s: %d lines after step %d moved to %s", path, len(moved), step, ASIDE)
    write_text(path, "".join(kept))


def _parse(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("step"), int) else None


def _json(value: float | str | Sequence[str]) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _start_tensorboard(folder: Path, training: TrainingConfig, step: int) -> Any:
    if not training.tensorboard:
        return None
    from torch.utils.tensorboard import SummaryWriter

    # Purged: what a crashed run has shown of steps that are done again.
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)


def _start_wandb(folder: Path, training: TrainingConfig, config: Config) -> Any:
    if training.wandb == "disabled":
        return None
    import wandb

    stored = folder / WANDB_ID
    if not stored.is_file():
        write_text(stored, secrets.token_hex(8) + "\n")
    try:
        return wandb.init(
            project=training.wandb_project,
            name=folder.name,
            dir=str(folder),
            mode=training.wandb,
            config=dump_config(config),
            id=stored.read_text(encoding="utf-8").strip(),
            # Not "must": what was offline so far is not known to the server.
            resume="allow",
        )
    except wandb.errors.Error as error:
        raise DependencyError(
            f"Weights & Biases does not start: {str(error).rstrip('.')}. Log in with `wandb login`, or set "
            "training.wandb=offline or disabled."
        ) from None
