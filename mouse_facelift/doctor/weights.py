"""Published weights by their checksums, and checkpoints of training runs by their manifests."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..errors import CheckpointError
from ..words import data_size, several
from .config import DoctorConfig
from .findings import Finding, ok, problem, some, warning

if TYPE_CHECKING:
    from ..training.checkpoints import Checkpoint

Result = TypeVar("Result")

_STEP = re.compile(r"step_\d{8}")


def check_published(config: DoctorConfig) -> Iterator[Finding]:
    """Whatever publications lie in the home of weights."""
    from ..weights.published import FACELIFT
    from ..weights.verify import published_folders, verify

    there = list(published_folders(config.weights))
    if not there:
        fix = f"To start from them: mfl weights pull --to {config.weights / FACELIFT.name}"
        yield warning("published weights", f"none in {config.weights}", fix)
    for published, folder in there:
        subject = f"weights {published.name}"
        try:
            verdict = verify(published, folder, config.hash_bytes)
        except CheckpointError as error:
            yield problem(subject, some([str(error)]), "Fetch or complete them as the message says.")
            continue
        found = f"{folder}: {verdict}, {data_size(verdict.bytes)}"
        if not verdict.recorded:
            fix = "Where there is a network, `mfl weights pull` compares them with the Hub's checksums."
            yield warning(subject, found, fix)
        else:
            yield ok(subject, found)


def check_runs(config: DoctorConfig) -> Iterator[Finding]:
    """Checkpoints of training runs: all complete, and the newest of each with the content of its manifest."""
    from ..training.runs import find_runs

    runs = list(dict.fromkeys(run for folder in (*config.runs, config.weights) for run in find_runs(folder)))
    if not runs:
        yield ok("training runs", f"none in {', '.join(map(str, config.runs))}")
        return
    faults: list[str] = []
    complete = hashed = 0
    left = config.hash_bytes
    for run in runs:
        sound = list(_complete(run, faults))
        complete += len(sound)
        if not sound:
            continue
        size = sum(int(entry["bytes"]) for entry in sound[-1].manifest["files"].values())
        if left is None or size <= left:
            left = None if left is None else left - size
            hashed += 1
            _verify(sound[-1], faults)
    if faults:
        fix = "Move what is damaged away; training goes on from the newest checkpoint that is whole."
        yield problem("training runs", some(faults), fix)
    else:
        words = f"{several(complete, 'complete checkpoint')} in {several(len(runs), 'run')}"
        yield ok("training runs", f"{words}; content compared of {hashed}")


def _complete(run: Path, faults: list[str]) -> Iterator["Checkpoint"]:
    from ..training.checkpoints import HOME, read_checkpoint

    for folder in sorted(path for path in (run / HOME).glob("step_*") if _STEP.fullmatch(path.name)):
        checkpoint = _try(partial(read_checkpoint, folder), folder, faults)
        if checkpoint is not None:
            yield checkpoint


def _verify(checkpoint: "Checkpoint", faults: list[str]) -> None:
    from ..training.checkpoints import verify_checkpoint

    _try(partial(verify_checkpoint, checkpoint), checkpoint.folder, faults)


def _try(look: Callable[[], Result], folder: Path, faults: list[str]) -> Result | None:
    """Look at a checkpoint, unless a training at work deletes it meanwhile."""
    try:
        return look()
    except (CheckpointError, FileNotFoundError) as error:
        if folder.is_dir():
            faults.append(str(error))
        return None
