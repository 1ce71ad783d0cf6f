"""`mfl runs`: training runs under some folders, how far they are and how they stand."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..provenance import noted
from ..samples.format import CAMERAS_FILE
from ..words import data_size, duration
from .checkpoints import HOME, Checkpoint, list_checkpoints
from .heartbeat import STATUS, read_status
from .lock import LOCK, trainer_at_work
from .logging import LOG, read_log

if TYPE_CHECKING:
    from rich.table import Table

DEFAULT_FOLDERS = (Path("runs"), Path("outputs"))
OWN_FOLDERS = {HOME, "validation", "tensorboard", "wandb", "pipeline", "latents"}
"""What a run keeps in its folder; other folders there may be runs again."""


@dataclass(frozen=True)
class RunSummary:
    """A training run as it stands.

    Attributes:
        folder: Its output folder.
        command: What made it.
        status: starting, running, finished, interrupted, diverged, failed (an error ended it), killed (its
            process is gone and could say nothing), stale? (it ran elsewhere and has given no sign for long),
            unknown; with `, no checkpoint` where nothing can be resumed.
        step: Last step that is known to be done.
        steps: Steps in all.
        metric: Which figure of validation ranks checkpoints.
        best: Its best value.
        best_step: When that was measured.
        checkpoint_step: The newest complete checkpoint.
        checkpoint_age_s: Seconds since it was written.
        size: Bytes on disk.
    """

    folder: Path
    command: str
    status: str
    step: int
    steps: int | None
    metric: str | None
    best: float | None
    best_step: int | None
    checkpoint_step: int | None
    checkpoint_age_s: float | None
    size: int


def list_runs(folders: Sequence[Path] = ()) -> list[RunSummary]:
    """All training runs in or under the folders; none given: in `runs` and `outputs`.

    Raises:
        ConfigError: a folder does not exist.
    """
    chosen = list(folders) or [folder for folder in DEFAULT_FOLDERS if folder.is_dir()]
    if not chosen:
        names = " nor ".join(f"{folder}/" for folder in DEFAULT_FOLDERS)
        raise ConfigError(f"neither {names} exists here. Say where to look: mfl runs FOLDER.")
    missing = [folder for folder in chosen if not folder.is_dir()]
    if missing:
        raise ConfigError(f"{missing[0]}: no such folder; expected one with training runs in it.")
    found = dict.fromkeys(path for folder in chosen for path in find_runs(folder))
    return [summarize(folder) for folder in found]


def find_runs(folder: Path) -> Iterator[Path]:
    """Folders of training runs in or under a folder, by what lies in them; none where it does not exist."""
    for place, names, files in os.walk(folder):
        path = Path(place)
        if {LOG, STATUS, LOCK} & set(files) or any((path / HOME).glob("step_*")):
            yield path
            names[:] = set(names) - OWN_FOLDERS
        elif CAMERAS_FILE in files:
            # Pictures: no run lies in it.
            names.clear()
        names[:] = sorted(name for name in names if not name.startswith("."))


def summarize(folder: Path) -> RunSummary:
    """Read one run's folder; nothing in it is changed."""
    status, made = read_status(folder), noted(folder / "run.json")
    lines = read_log(folder) if (folder / LOG).is_file() else []
    checkpoints = list_checkpoints(folder)
    newest = checkpoints[-1] if checkpoints else None
    steps = [line["step"] for line in lines] + [checkpoint.step for checkpoint in checkpoints]
    metric = _metric(newest, lines)
    best, best_step = _best(metric, lines)
    return RunSummary(
        folder=folder,
        command=str(made.get("command", "")),
        status=_status(folder, status, newest),
        step=max([int(status.get("step", 0)), *steps]),
        steps=status.get("steps") or made.get("config", {}).get("training", {}).get("steps"),
        metric=metric and metric.removeprefix("-"),
        best=best,
        best_step=best_step,
        checkpoint_step=newest.step if newest else None,
        checkpoint_age_s=time.time() - newest.manifest.get("time", 0) if newest else None,
        size=sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file()),
    )


def as_json(runs: Sequence[RunSummary]) -> str:
    """A list of objects with the attributes of `RunSummary`."""
    return json.dumps([asdict(run) | {"folder": str(run.folder)} for run in runs], indent=1)


def as_table(runs: Sequence[RunSummary]) -> "Table":
    """For a terminal: one line a run."""
    from rich.table import Column, Table
    from rich.text import Text

    # A name that is cut off is nobody's.
    table = Table(
        Column("run", overflow="fold"),
        "command",
        "status",
        "step",
        "best",
        "checkpoint",
        "size",
        box=None,
        pad_edge=False,
    )
    for run in runs:
        best = f"{run.metric} {run.best:.4g} at {run.best_step}" if run.best is not None else "-"
        age = f"{run.checkpoint_step}, {duration(run.checkpoint_age_s or 0)} ago"
        table.add_row(
            Text(str(run.folder)),
            run.command,
            run.status,
            f"{run.step}/{run.steps or '?'}",
            best,
            age if run.checkpoint_step is not None else "-",
            data_size(run.size),
        )
    return table


def _status(folder: Path, facts: Mapping[str, Any], newest: Checkpoint | None) -> str:
    # A lock that nobody holds any more is left by a trainer that could say nothing.
    status = str(facts.get("status", "killed" if (folder / LOCK).exists() else "unknown"))
    if trainer_at_work(folder):
        # Its own sign is old where it validates for long, and from before where it has just begun.
        return "running" if status in ("running", "stale?") else "starting"
    if status == "killed" and newest is not None and newest.step == facts.get("steps"):
        return "finished"
    return f"{status}, no checkpoint" if newest is None and status != "running" else status


def _metric(newest: Checkpoint | None, lines: Sequence[dict[str, Any]]) -> str | None:
    """What ranks checkpoints, with a minus where lower is better; else any PSNR of validation."""
    chosen = newest.manifest.get("best_metric") if newest else None
    measured = (name.removeprefix("validation/") for line in lines for name in line if "/psnr" in name)
    return chosen or next(measured, None)


def _best(metric: str | None, lines: Sequence[dict[str, Any]]) -> tuple[float | None, int | None]:
    if metric is None:
        return None, None
    name, sign = f"validation/{metric.removeprefix('-')}", -1 if metric.startswith("-") else 1
    measured = [
        (sign * line[name], -line["step"]) for line in lines if isinstance(line.get(name), int | float)
    ]
    if not measured:
        return None, None
    value, step = max(measured)
    return sign * value, -step
