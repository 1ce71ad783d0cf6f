"""The border of the `mfl` command: every outcome of its work becomes an exit code, every error one message.

Exit codes: 0 done, 2 user error, 130 interrupted, 143 ended by SIGTERM or SIGUSR1, 1 a bug (or nobody reads
the output any more).
"""

import errno
import json
import logging
import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import typer

from . import progress
from .errors import SIGNALS, Interrupted, MflError

USER_ERROR, INTERRUPTED, BUG = 2, 130, 1

LAUNCHED = "MFL_LAUNCHED"
"""Set in the environment of processes that leave it to their launcher to tell why they ended."""

REFUSALS = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EMFILE,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EIO,
    errno.EEXIST,
    errno.ENOTDIR,
)
"""What the system says when files cannot be read or written; no bug of ours."""


def at_border(work: Callable[[], None], debug: bool) -> None:
    """Do a command's work and tell how it ended.

    Raises:
        typer.Exit: it did not end well; the exit code is in it.
    """
    _set_up_terminal(debug)
    try:
        work()
    except (typer.Exit, BrokenPipeError):
        # Whoever reads the output has seen enough (`| head`): the command line's library ends quietly.
        raise
    except KeyboardInterrupt as error:
        raise _interruption(error) from None
    except Exception as error:  # noqa: BLE001 - the one place that may: it reports and exits
        if _interruptions:
            # Raised while a library was importing itself, an interruption comes out as something else.
            raise _interruption(_interruptions[0]) from None
        message = _user_message(error)
        trace = traceback.format_exc() if message is None or debug else ""
        if message is None:
            message = "This is a bug in mouse-facelift; please report it with the lines above."
            raise _end(BUG, trace + message) from None
        raise _end(USER_ERROR, f"{trace}error: {message}") from None


def run_program(program: Callable[[], None]) -> None:
    """Run the whole command line, which signals end in good order."""
    for which in SIGNALS:
        signal.signal(which, _interrupt)
    try:
        program()
    except BaseException:
        if not _interruptions:
            raise
        # Before a command begins, the command line's library takes it for a Ctrl-C, or for a bug.
        raise SystemExit(_interruption(_interruptions[0]).exit_code) from None
    finally:
        # All is told and written: nothing is left that a signal could spoil.
        for which in SIGNALS:
            signal.signal(which, signal.SIG_DFL)


def _end(code: int, message: str) -> typer.Exit:
    """Tell why on stderr. One of several processes leaves that to its launcher, which tells it once."""
    place = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if place is None or LAUNCHED not in os.environ:
        typer.echo(message, err=True)
    else:
        now = time.time()
        # The launcher's own fields, and two of ours: see training/launch.py.
        content = {"message": message, "timestamp": int(now), "exact_time": now, "exit_code": code}
        Path(place).write_text(json.dumps(content), encoding="utf-8")
    return typer.Exit(code)


def _interruption(error: KeyboardInterrupt) -> typer.Exit:
    _interruptions.clear()
    return _end(error.exit_code if isinstance(error, Interrupted) else INTERRUPTED, "interrupted")


def _user_message(error: Exception) -> str | None:
    """What to tell the user where the cause lies with the request or the file system; None for a bug."""
    if isinstance(error, MflError):
        return str(error)
    if isinstance(error, OSError) and error.errno in REFUSALS:
        # A write that fails, unlike an open, does not say to which file.
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}. Check the path, its permissions and the free space."
    return None


def _set_up_terminal(debug: bool) -> None:
    from rich.console import Console
    from rich.logging import RichHandler

    console = Console(stderr=True)
    if console.is_terminal:
        progress.console = console
        handler: logging.Handler = RichHandler(console=console, show_path=False, show_time=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        # A log file has neither a width to fold lines at nor a line to draw progress on.
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    # One process tells for all.
    first = os.environ.get("RANK", "0") == "0"
    progress.console = progress.console if first else None
    level = logging.INFO if first else logging.ERROR
    logging.getLogger(__package__).setLevel(logging.DEBUG if debug else level)


_interruptions: list[Interrupted] = []


def _interrupt(number: int, frame: object) -> None:
    _interruptions.append(Interrupted(number))
    raise _interruptions[-1]
