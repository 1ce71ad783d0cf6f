"""Ending a run on request: the step is finished and saved first, a second request ends it at once.

SIGINT is Ctrl-C, SIGTERM comes from schedulers and launchers, SIGUSR1 is Slurm's warning before its time
limit (`#SBATCH --signal=USR1@300`).
"""

import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

from ..errors import SIGNALS, Interrupted

log = logging.getLogger(__name__)

ECHO_S = 1.0
"""Launchers and schedulers signal a process and its group, so that one request arrives more than once."""


class StopRequest:
    """What has been received so far. True once the run shall end.

    Args:
        launched: A launcher started this process. It passes Ctrl-C on, so that even SIGINT may be an echo.

    Attributes:
        insists: There was a second request.
    """

    def __init__(self, launched: bool = False) -> None:
        self._launched = launched
        self._last: int | None = None
        self._when = 0.0
        self.insists = self._impatient = False

    def __bool__(self) -> bool:
        return self._last is not None

    @property
    def interruption(self) -> Interrupted:
        """What to raise once the state is saved. SIGTERM where another process was asked, not this one."""
        return Interrupted(self._last or signal.SIGTERM)

    def receive(self, number: int, now: float) -> bool:
        """Take in a signal.

        Args:
            number: Of the signal.
            now: Seconds on any clock that only goes forward.

        Returns:
            Whether the process must end at once: this is a second request, neither an echo of the first nor
            a warning. SIGTERM after a warning is what was warned of, so it counts as the first.
        """
        first = self._last in (None, signal.SIGUSR1)
        may_echo = number != signal.SIGINT or self._launched
        echo = not first and may_echo and now - self._when < ECHO_S
        if echo or (number == signal.SIGUSR1 and self):
            return False
        self._last, self._when = number, now
        self.insists = not first
        return self.insists

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """For what changes nothing and can be done later: let the first request end the block in its midst.

        Raises:
            Interrupted: there was a request, before the block or in it.
        """
        self._impatient = True
        try:
            if self:
                raise self.interruption
            yield
        finally:
            self._impatient = False

    def handle(self, number: int, now: float) -> None:
        """Take in a signal, as `receive`, and say so.

        Raises:
            Interrupted: what is being done must end at once.
        """
        news = not self
        if self.receive(number, now):
            raise Interrupted(number)
        if news:
            name, left = signal.Signals(number).name, "leaving" if self._impatient else "finishing"
            what = "validation" if self._impatient else "step"
            log.warning("%s: %s the %s, then saving; Ctrl-C again stops at once", name, left, what)
            if self._impatient:
                raise Interrupted(number)


@contextlib.contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Collect signals for the duration of a block.

    Raises:
        Interrupted: in the midst of the block, on a second request.
    """
    request = StopRequest(launched="TORCHELASTIC_RUN_ID" in os.environ)
    before: dict[signal.Signals, Any] = {}

    def handle(number: int, frame: object) -> None:
        try:
            request.handle(number, time.monotonic())
        finally:
            if request.insists:
                # Whatever comes now must not be collected: the block is being left.
                restore()

    def restore() -> None:
        for which, handler in before.items():
            signal.signal(which, handler)

    try:
        for which in SIGNALS:
            before[which] = signal.signal(which, handle)
    except ValueError:
        log.debug("not in the main thread: signals are not caught")
    try:
        yield request
    finally:
        restore()


def ignore_signals(worker: int) -> None:
    """Keep a data loading process alive while its trainer finishes the step."""
    for which in SIGNALS:
        signal.signal(which, signal.SIG_IGN)
