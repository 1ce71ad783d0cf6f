"""Checkpoints that exist completely or not at all, and the only function that makes their paths.

<run>/checkpoints/step_00001000/
    weights/            what inference loads (averaged weights where EMA is on)
    state/              what resume needs (see `state`)
    manifest.json       step, what made it, sizes and hashes; written last: without it there is no checkpoint
"""

import errno
import functools
import json
import logging
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError

from ..errors import CheckpointError, ConfigError
from ..files import atomic_folder, flush_tree, remove_leftovers, write_json
from ..provenance import sha256

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
HOME = "checkpoints"
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
    return run / HOME / f"step_{step:08d}"


def enclosing_run(path: Path) -> Path | None:
    """The run in whose `checkpoints/` a path lies, or would; None if in none's."""
    resolved = path.resolve()
    homes = (place for place in (resolved, *resolved.parents) if place.name == HOME)
    return next((home.parent for home in homes if _step_folders(home.parent)), None)


def write_checkpoint(
    run: Path, step: int, write: Callable[[Path], None], facts: Mapping[str, Any]
) -> Checkpoint:
    """Write a checkpoint: `write(folder)` fills it, then come the hashes, then the rename.

    Args:
        run: The run's output folder; no other process may be writing checkpoints there.
        step: Updates done.
        write: Fills `weights/` and `state/` under the folder it is given.
        facts: Further manifest entries, JSON-ready.

    Raises:
        OSError: the disk is full or failing; no earlier checkpoint was touched.
    """
    folder = checkpoint_folder(run, step)
    remove_leftovers(folder.parent, _NAME.pattern)
    _set_aside_invalid(folder)
    with atomic_folder(folder) as temporary:
        try:
            write(temporary)
        except SafetensorError as error:
            raise OSError(errno.EIO, str(error), str(folder)) from error
        flush_tree(temporary)
        write_json(
            temporary / MANIFEST,
            {"step": step, "time": round(time.time(), 3), **facts, "files": _describe_files(temporary)},
        )
    return read_checkpoint(folder)


def amend_checkpoint(run: Path, step: int, facts: Mapping[str, Any]) -> Checkpoint:
    """Add to a checkpoint's manifest, which is whole at any moment.

    Raises:
        CheckpointError: there is no complete checkpoint of this step.
        OSError: the disk is full or failing; the manifest is as it was.
    """
    checkpoint = read_checkpoint(checkpoint_folder(run, step))
    _remove_half_manifests(checkpoint.folder)
    write_json(checkpoint.folder / MANIFEST, {**checkpoint.manifest, **facts})
    return read_checkpoint(checkpoint.folder)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Open a checkpoint and check that its files are all there with their sizes.

    Raises:
        CheckpointError: no manifest, one of another step, or files missing or cut short.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckpointError(f"{folder}: no {MANIFEST}; this is not a complete checkpoint.")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        step = int(manifest["step"])
        sizes = {PurePosixPath(name): int(entry["bytes"]) for name, entry in manifest["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: not a checkpoint manifest ({error!r}). Expected one of step_XXXXXXXX of a training run."
        ) from None
    named = _NAME.fullmatch(folder.resolve().name)
    if named and int(named[1]) != step:
        raise CheckpointError(f"{path}: is of step {step}, the folder's name says {int(named[1])}.")
    for name, size in sizes.items():
        file = folder / name
        if name.is_absolute() or ".." in name.parts:
            raise CheckpointError(f"{path}: names {name}, which is not inside the checkpoint.")
        if not file.is_file():
            raise CheckpointError(f"{file}: is missing.")
        if file.stat().st_size != size:
            raise CheckpointError(f"{file}: has {file.stat().st_size} bytes, the manifest says {size}.")
    return Checkpoint(folder, step, manifest)


def verify_checkpoint(checkpoint: Checkpoint) -> None:
    """Compare every file with its hash.

    Raises:
        CheckpointError: a file's content differs from what was written.
    """
    entries = checkpoint.manifest["files"]
    found = _hashes([checkpoint.folder / name for name in entries])
    for file, (name, entry) in zip(found, entries.items(), strict=True):
        if found[file] != entry.get("sha256"):
            raise CheckpointError(
                f"{checkpoint.folder / name}: damaged, its content differs from the manifest. "
                f"Move {checkpoint.folder} away to go on from an older checkpoint."
            )


def list_checkpoints(run: Path) -> list[Checkpoint]:
    """All complete checkpoints of a run, oldest first; incomplete ones are only named in the log, once."""
    found = []
    for folder in _step_folders(run):
        try:
            found.append(read_checkpoint(folder))
        except CheckpointError as error:
            _warn_once(f"left out: {error}")
    return found


def find_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at `path`, or the newest of the run at `path`.

    Raises:
        CheckpointError: the path is missing or holds no complete checkpoint.
    """
    checkpoint = _find(path)
    if checkpoint.folder != path:
        log.info("%s: taking its newest checkpoint, step %d", path, checkpoint.step)
    return checkpoint


def checkpoint_to_resume(run: Path, choice: str) -> Checkpoint | None:
    """The checkpoint that training in the folder `run` continues from; None starts anew.

    A run that began at a path goes on from its own newest checkpoint when the same command is given again.

    Args:
        run: The run's output folder.
        choice: `training.resume`: auto, never, or the path of a checkpoint or a run.

    Raises:
        ConfigError: the folder holds checkpoints with `never`, or such that did not begin at the path, or,
            where the path is within the folder, later ones; they would be taken for the newest.
        CheckpointError: the path holds no complete checkpoint, or `auto` finds incomplete ones alone: to
            start anew beside them would look like losing them.
    """
    found = list_checkpoints(run)
    if choice == "auto":
        if not found and (broken := _step_folders(run)):
            raise CheckpointError(
                f"{run}: holds {', '.join(folder.name for folder in broken)}, none of them complete (the log "
                "says why). Repair them, move them away to start from step 0, or choose another output."
            )
        return found[-1] if found else None
    if choice != "never" and found and _began_at(found[-1]) == choice:
        return found[-1]
    chosen = None if choice == "never" else _find(_expand_home(choice))
    inside = chosen is not None and chosen.folder.resolve().parent == (run / HOME).resolve()
    if found and (chosen is None or not inside or chosen.step < found[-1].step):
        raise ConfigError(
            f"{run} holds a checkpoint of step {found[-1].step} and training.resume is {choice}. "
            "Choose another output, or training.resume=auto to continue from that checkpoint."
        )
    return chosen


def is_named(checkpoint: Checkpoint, choice: str) -> bool:
    """Whether `training.resume` means this very checkpoint, and not one that the run has made since."""
    if choice in ("auto", "never"):
        return False
    return checkpoint.folder.resolve().is_relative_to(_expand_home(choice).resolve())


def delete_checkpoint(run: Path, checkpoint: Checkpoint) -> None:
    """Delete a checkpoint of this run: renamed first, so that half a deleted one is no checkpoint.

    Raises:
        CheckpointError: it lies outside the run, or a link leads there, or somebody keeps other files in it.
        OSError: it cannot be deleted.
    """
    folder = checkpoint.folder
    home = run.resolve() / HOME
    if folder.is_symlink() or folder.resolve() != home / folder.name:
        raise CheckpointError(
            f"{folder}: leads to {folder.resolve()}, which is not in {home}; it is not deleted. Delete it "
            "yourself if nobody needs it."
        )
    _remove_half_manifests(folder)
    own = {folder / MANIFEST, *(folder / name for name in checkpoint.manifest["files"])}
    foreign = next((path for path in folder.rglob("*") if path not in own and not _is_folder(path)), None)
    if foreign is not None:
        raise CheckpointError(
            f"{folder}: holds {foreign.relative_to(folder)}, which is not part of it; it is not deleted. "
            "Move that elsewhere."
        )
    doomed = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    folder.replace(doomed)
    shutil.rmtree(doomed)


def set_aside(folder: Path) -> Path:
    """Rename what is of no use, so that it no longer looks like a checkpoint; returns its new place."""
    return folder.rename(folder.with_name(f"{folder.name}.bad.{secrets.token_hex(4)}"))


def _began_at(checkpoint: Checkpoint) -> str | None:
    """`training.resume` of the process that wrote it."""
    config = checkpoint.manifest.get("config", {})
    return config.get("training", {}).get("resume")


def _expand_home(choice: str) -> Path:
    try:
        return Path(choice).expanduser()
    except RuntimeError:
        # Nobody has that name: no such folder, then.
        return Path(choice)


def _find(path: Path) -> Checkpoint:
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such folder; expected a run or one of its checkpoints.")
    if _NAME.fullmatch(path.resolve().name) or (path / MANIFEST).is_file():
        return read_checkpoint(path)
    checkpoints = list_checkpoints(path)
    if not checkpoints:
        raise CheckpointError(f"{path}: holds no complete checkpoint; expected {path}/{HOME}/step_XXXXXXXX/.")
    return checkpoints[-1]


def _set_aside_invalid(folder: Path) -> None:
    """Make room where an incomplete checkpoint lies; what may not be ours is not deleted."""
    try:
        if folder.exists():
            read_checkpoint(folder)
    except CheckpointError as error:
        log.warning("%s Moved to %s.", error, set_aside(folder).name)


def _step_folders(run: Path) -> list[Path]:
    folders = (run / HOME).glob("step_*")
    return sorted(folder for folder in folders if _NAME.fullmatch(folder.name))


def _remove_half_manifests(folder: Path) -> None:
    remove_leftovers(folder, Path(MANIFEST).stem)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": value}
        for file, value in _hashes(files).items()
    }


def _hashes(files: list[Path]) -> dict[Path, str]:
    """Side by side: hashing lets go of the interpreter's lock."""
    with ThreadPoolExecutor() as pool:
        return dict(zip(files, pool.map(sha256, files), strict=True))


@functools.cache
def _warn_once(message: str) -> None:
    log.warning("%s", message)
