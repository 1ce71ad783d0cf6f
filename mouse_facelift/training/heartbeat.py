"""`status.json` in a run's folder: how far it is, which process works on it, and how it ended."""

import logging
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from ..errors import DivergedError
from ..files import write_json
from ..provenance import noted

log = logging.getLogger(__name__)

STATUS = "status.json"

BEAT_S = 30.0
"""The file is written anew about this often, between steps."""

STALE_S = 20 * 60.0
"""A run elsewhere without a sign for this long may be dead; a long validation gives no sign either."""


class Heartbeat:
    """Keeps `status.json` up to date for the duration of a block, and says in it how the block ended.

    Args:
        folder: The run's output folder, which exists.
        steps: Steps in all.
        step: Steps done.
    """

    def __init__(self, folder: Path, steps: int, step: int) -> None:
        self._path = folder / STATUS
        self._facts = {"steps": steps, **_machine(), "pid": os.getpid(), "began": _start_of(os.getpid())}
        self._step, self._written = step, 0.0

    def __enter__(self) -> "Heartbeat":
        self._write("running")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._write("finished")
        elif issubclass(kind, DivergedError):
            self._write("diverged")
        else:
            self._write("interrupted" if issubclass(kind, KeyboardInterrupt) else "failed")

    def beat(self, step: int) -> None:
        """Tell that a step is done."""
        self._step = step
        if time.monotonic() - self._written > BEAT_S:
            self._write("running")

    def _write(self, status: str) -> None:
        self._written = time.monotonic()
        facts = {"status": status, "step": self._step, **self._facts, "updated": round(time.time(), 3)}
        try:
            write_json(self._path, facts)
        except OSError as error:
            # A full disk is no reason to lose the training itself.
            log.warning("%s is not up to date: %s", self._path, error.strerror)


def read_status(folder: Path) -> dict[str, Any]:
    """What `status.json` says; empty where there is none.

    A `status` of `running` is checked: `killed` if the process is known to be gone, `stale?` if it ran
    elsewhere and has given no sign for long.
    """
    facts = noted(folder / STATUS)
    if facts.get("status") == "running":
        facts["status"] = _liveness(facts)
    return facts


def _liveness(facts: Mapping[str, Any]) -> str:
    if {key: facts.get(key) for key in _machine()} == _machine():
        return "running" if _is_alive(facts) else "killed"
    return "running" if time.time() - float(facts.get("updated", 0)) < STALE_S else "stale?"


def _machine() -> dict[str, str]:
    """Where the number of a process means this process: a container may have its host's name."""
    namespace = Path("/proc/self/ns/pid")
    return {"host": socket.gethostname(), "pids": str(namespace.readlink()) if namespace.exists() else ""}


def _is_alive(facts: Mapping[str, Any]) -> bool:
    now, then = _start_of(int(facts.get("pid", 0))), facts.get("began")
    # Numbers of processes are used again; the clock may have been set by a little.
    return now is not None and then is not None and abs(now - float(then)) < 5


def _start_of(pid: int) -> float | None:
    """When a process began, seconds since 1970; None where there is none."""
    try:
        return round(float(psutil.Process(pid).create_time()), 2)
    except psutil.Error:
        return None
