"""Where training figures go: `log.jsonl` in the run's folder always, Weights & Biases on request."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ..config import Config, dump_config
from .config import TrainingConfig


class RunLog:
    """Appends one JSON object a line: `{"step": ..., "loss": ..., ...}`.

    Args:
        folder: The run's output folder.
        training: For the Weights & Biases settings.
        config: The whole resolved configuration.
    """

    def __init__(self, folder: Path, training: TrainingConfig, config: Config) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / "log.jsonl").open("a", encoding="utf-8")
        self._wandb = _start_wandb(folder, training, config)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=0 if kind is None else 1)

    def write(self, step: int, values: Mapping[str, float | str]) -> None:
        """Record figures of a step; what is not finite becomes null, since JSON has no word for it."""
        line = {"step": step, "time": round(time.time(), 3), **{k: _json(v) for k, v in values.items()}}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        if self._wandb is not None:
            self._wandb.log(dict(values), step=step)

    def pictures(self, step: int, folder: Path) -> None:
        """Show a folder's validation pictures in Weights & Biases; on disk they already are."""
        if self._wandb is None:
            return
        import wandb

        images = {f"validation/{path.stem}": wandb.Image(str(path)) for path in sorted(folder.glob("*.png"))}
        self._wandb.log(images, step=step)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """All lines of a run's `log.jsonl`."""
    text = (folder / "log.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _json(value: float | str) -> float | str | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _start_wandb(folder: Path, training: TrainingConfig, config: Config) -> Any:
    if training.wandb == "disabled":
        return None
    import wandb

    return wandb.init(
        project=training.wandb_project,
        name=folder.name,
        dir=str(folder),
        mode=training.wandb,
        config=dump_config(config),
    )
