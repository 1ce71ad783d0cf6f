"""Checkpoints that exist completely or not at all, and the only function that makes their paths.

<run>/checkpoints/step_00001000/
    weights/            what inference loads (averaged weights where EMA is on)
    state/              what resume needs, of trained parameters alone: model.safetensors, ema.safetensors,
                        optimizer.pt
    manifest.json       step, sizes and hashes; written last: without it there is no checkpoint
"""

import json
import logging
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, ConfigError
from ..files import atomic_folder, write_json
from ..provenance import sha256

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_NAME = re.compile(r"step_(\d{8})")


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint."""

    folder: Path
    step: int
    manifest: Mapping[str, Any]

    @property
    def weights(self) -> Path:
        """Folder with inference-ready weights."""
        return self.folder / "weights"

    @property
    def state(self) -> Path:
        """Folder with what resume needs."""
        return self.folder / "state"


def checkpoint_folder(run: Path, step: int) -> Path:
    """Where the checkpoint of a step lies. Every path to a checkpoint comes from here."""
    return run / "checkpoints" / f"step_{step:08d}"


def write_checkpoint(
    run: Path, step: int, write: Callable[[Path], None], facts: Mapping[str, Any]
) -> Checkpoint:
    """Write a checkpoint: `write(folder)` fills it, then come the hashes, then the rename.

    Args:
        run: The run's output folder.
        step: Updates done.
        write: Fills `weights/` and `state/` under the folder it is given.
        facts: Further manifest entries, JSON-ready.
    """
    folder = checkpoint_folder(run, step)
    for leftover in folder.parent.glob(".step_*"):
        # A run that was killed while it wrote this one cannot clean up after itself.
        shutil.rmtree(leftover)
    with atomic_folder(folder) as temporary:
        write(temporary)
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        entries = {
            path.relative_to(temporary).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
            for path in files
        }
        write_json(temporary / MANIFEST, {"step": step, **facts, "files": entries})
    return read_checkpoint(folder)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Open a checkpoint and check that its files are all there with their sizes.

    Raises:
        CheckpointError: no manifest, or files missing or cut short.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckpointError(f"{folder}: no {MANIFEST}; this is not a complete checkpoint.")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        step, files = int(manifest["step"]), dict(manifest["files"])
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: not a checkpoint manifest ({error!r}).") from None
    for name, entry in files.items():
        file = folder / name
        found = file.stat().st_size if file.is_file() else None
        if found != entry["bytes"]:
            raise CheckpointError(f"{file}: has {found} bytes, the manifest says {entry['bytes']}.")
    return Checkpoint(folder, step, manifest)


def list_checkpoints(run: Path) -> list[Checkpoint]:
    """All complete checkpoints of a run, oldest first. Incomplete ones are named in the log and left out."""
    found = []
    for folder in (run / "checkpoints").glob("step_*"):
        if not _NAME.fullmatch(folder.name):
            continue
        try:
            found.append(read_checkpoint(folder))
        except CheckpointError as error:
            log.warning("left out: %s", error)
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def find_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at `path`, or the newest of the run at `path`.

    Raises:
        CheckpointError: the path is missing or holds no complete checkpoint.
    """
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such folder; expected a run or one of its checkpoints.")
    if _NAME.fullmatch(path.resolve().name):
        return read_checkpoint(path)
    checkpoints = list_checkpoints(path)
    if not checkpoints:
        raise CheckpointError(
            f"{path}: holds no complete checkpoint; expected {path}/checkpoints/step_XXXXXXXX/."
        )
    newest = checkpoints[-1]
    log.info("%s: taking its newest checkpoint, step %d", path, newest.step)
    return newest


def checkpoint_to_resume(run: Path, choice: str) -> Checkpoint | None:
    """The checkpoint that training in the folder `run` continues from; None starts anew.

    Args:
        run: The run's output folder.
        choice: `training.resume`: auto, never, or the path of a checkpoint or a run.

    Raises:
        ConfigError: the folder holds checkpoints with `never`, or later ones than the chosen one; they would
            be taken for the newest.
        CheckpointError: the path holds no complete checkpoint.
    """
    found = list_checkpoints(run)
    if choice == "auto":
        return found[-1] if found else None
    chosen = None if choice == "never" else find_checkpoint(Path(choice))
    if found and (chosen is None or chosen.step < found[-1].step):
        raise ConfigError(
            f"{run} holds a checkpoint of step {found[-1].step} and training.resume is {choice}. "
            "Choose another output, or training.resume=auto to continue from that checkpoint."
        )
    return chosen


def prune_checkpoints(run: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints, after checking the newest one's hashes."""
    checkpoints = list_checkpoints(run)
    if len(checkpoints) <= keep:
        return
    verify_checkpoint(checkpoints[-1])
    for checkpoint in checkpoints[:-keep]:
        shutil.rmtree(checkpoint.folder)


def verify_checkpoint(checkpoint: Checkpoint) -> None:
    """Compare every file with its hash.

    Raises:
        CheckpointError: a file's content differs from what was written.
    """
    for name, entry in checkpoint.manifest["files"].items():
        if sha256(checkpoint.folder / name) != entry["sha256"]:
            raise CheckpointError(
                f"{checkpoint.folder / name}: damaged, its content differs from the manifest. "
                "Delete this checkpoint and use another."
            )
