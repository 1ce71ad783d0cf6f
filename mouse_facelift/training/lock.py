"""One trainer at a time in a run's folder, by a lock that ends with its process, however that ends.

The lock is `flock` on `trainer.lock`: the system lets go of it after a kill -9 as well, so nobody has to
clean up. On NFS it holds between machines, unless the disk is mounted with local locks (`local_lock`): then
only trainers of one machine see each other.
"""

import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import make_folder

log = logging.getLogger(__name__)

LOCK = "trainer.lock"

ATTEMPTS, PAUSE_S = 5, 0.1
"""`mfl runs` holds the lock for a moment when it looks whether anybody does."""

_held: set[int] = set()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only trainer in a folder for the duration of a block.

    The folder is made if need be, and goes again if the block leaves it empty.

    Raises:
        ConfigError: another process trains there.
        OSError: the folder cannot be made.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    make_folder(folder)
    descriptor = _acquire(folder / LOCK)
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / LOCK).unlink()
        _held.discard(descriptor)
        os.close(descriptor)
        with suppress(OSError):
            for place in made:
                place.rmdir()


def trainer_at_work(folder: Path) -> bool:
    """Whether a process holds the lock of a folder, as far as its disk can tell."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _acquire(path: Path) -> int:
    for attempt in range(ATTEMPTS):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read(descriptor)
            os.close(descriptor)
            if attempt < ATTEMPTS - 1:
                time.sleep(PAUSE_S)
        except OSError as error:
            log.warning(
                "%s: this disk knows no locks (%s). Make sure that no other training writes to %s.",
                path,
                error.strerror,
                path.parent,
            )
            return _keep(descriptor)
        else:
            # Between open and flock its last holder may have deleted the file: a lock on nothing.
            if _is(path, descriptor):
                return _keep(descriptor)
            os.close(descriptor)
            holder = {}
    raise ConfigError(_refusal(path.parent, holder))


def _keep(descriptor: int) -> int:
    _held.add(descriptor)
    facts = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(facts).encode() + b"\n", 0)
    return descriptor


def _read(descriptor: int) -> dict[str, Any]:
    try:
        return dict(json.loads(os.pread(descriptor, 4096, 0)))
    except (OSError, ValueError, TypeError):
        return {}


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _refusal(folder: Path, holder: Mapping[str, Any]) -> str:
    who, stop = "another process", "stop it"
    if holder:
        who = f"process {holder.get('pid')} on {holder.get('host')} (since {holder.get('since')})"
        stop = f"stop it (kill {holder.get('pid')} there; it saves first)"
    return (
        f"output: {folder} is in use: {who} trains there. Two trainers would overwrite each "
        f"other's checkpoints. Wait for it, {stop}, or choose another output."
    )


def _forget() -> None:
    """A forked process, such as a data loader, must not keep the lock when its trainer is gone."""
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget)
