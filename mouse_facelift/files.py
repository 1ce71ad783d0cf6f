"""Files that are whole or absent: write beside, flush to disk, then rename."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def _read_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_UMASK = _read_umask()
"""Read once: reading means setting it for a moment, which threads that write files would notice."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """A write that fails (on a full disk, say) does not tell to which file; the user must know."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it and rename it to `path`.

    Keeps the suffix, because writers such as FFmpeg choose the format from it.
    """
    make_folder(path.parent)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with naming(path):
            yield temporary
            temporary.chmod(0o666 & ~_UMASK)
            _flush(temporary)
            temporary.replace(path)
            _flush(path.parent)
    finally:
        # What made the write fail matters more than what is left of it.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success rename it to `path`, replacing an old one.

    Files reach the disk before the folders that name them, and all of them before the rename. An old folder
    is put back where the new one cannot take its place.
    """
    make_folder(path.parent)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        with naming(path):
            yield temporary
            temporary.chmod(0o777 & ~_UMASK)
            flush_tree(temporary)
            _move_into_place(temporary, path)
            _flush(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, so that they survive a power cut."""
    if path.is_dir():
        return
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        _flush(folder.parent)


def nearest_existing(path: Path) -> Path:
    """The path itself, or what exists of the way to it."""
    absolute = path.absolute()
    return next(place for place in (absolute, *absolute.parents) if place.exists())


def free_bytes(path: Path) -> int:
    """Free space on the disk where a path is, or will be."""
    return shutil.disk_usage(nearest_existing(path)).free


def flush_tree(folder: Path) -> None:
    """Force all that a folder holds to disk: files first, then folders, the innermost first."""
    for parent, _, files in os.walk(folder, topdown=False):
        for name in files:
            _flush(Path(parent, name))
        _flush(Path(parent))


def remove_leftovers(folder: Path, names: str) -> None:
    """Delete what killed writers left half-written in a folder, and put back what they had set aside.

    Nobody else may be writing there now.

    Args:
        folder: Where the files or folders would have appeared; may be absent.
        names: Regular expression of their final names, without suffix.
    """
    half_written = re.compile(rf"\.({names})\.[a-z0-9_]{{8}}(\.\w+)?")
    set_aside = re.compile(rf"\.({names})\.old\.[a-z0-9_]{{8}}")
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        if set_aside.fullmatch(path.name):
            _put_back(path)
        elif half_written.fullmatch(path.name):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, readable by people, with a trailing newline."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def _move_into_place(temporary: Path, path: Path) -> None:
    if not path.exists():
        temporary.replace(path)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
    old = aside / path.name
    try:
        path.replace(old)
        try:
            temporary.replace(path)
        except BaseException:
            # An interruption, too; it may have come just after the new one took its place.
            if not path.exists():
                old.replace(path)
            raise
        finally:
            if path.exists():
                shutil.rmtree(old, ignore_errors=True)
    finally:
        # Not empty where the old folder could not be put back: then it stays there.
        with suppress(OSError):
            aside.rmdir()


def _put_back(aside: Path) -> None:
    """Return what `_move_into_place` set aside to its place, or delete it where the new one is there."""
    for old in list(aside.iterdir()):
        place = aside.parent / old.name
        if not place.exists():
            old.replace(place)
    shutil.rmtree(aside, ignore_errors=True)


def _flush(path: Path) -> None:
    """Force a file's bytes, or a folder's list of entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
