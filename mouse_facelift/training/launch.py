"""`--gpus N`: the same command in several processes of this machine, through accelerate's launcher.

The launcher only passes signals on: each process finishes its step, saves and ends by itself in its own time.
"""

import logging
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import psutil
import torch
import torch.distributed.run
from accelerate.commands.launch import launch_command, launch_command_parser
from accelerate.utils import parse_flag_from_env
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from ..border import LAUNCHED, USER_ERROR
from ..errors import SIGNALS, ConfigError, Interrupted
from ..words import several

log = logging.getLogger(__name__)

STOPPED = (-signal.SIGTERM, 130, 143)
"""How processes end that were asked to."""


def launch(gpus: int, arguments: Sequence[str]) -> tuple[int, str]:
    """Run `mfl ARGUMENTS` in one process for each GPU, and wait until all have ended.

    With ACCELERATE_USE_CPU=true they are processes on the CPU, for tests.

    Args:
        gpus: How many.
        arguments: Of the command line.

    Returns:
        The exit code, and what to tell on stderr: those of the process that failed first.

    Raises:
        ConfigError: this machine has fewer GPUs, or the process has been launched itself.
        Interrupted: a signal came before there were processes to pass it on to.
    """
    _check(gpus)
    options = launch_command_parser().parse_args(
        [
            *("--multi_gpu", "--num_processes", str(gpus), "--num_machines", "1", "--main_process_port", "0"),
            *("--mixed_precision", "no", "--dynamo_backend", "no", "--module", "mouse_facelift", *arguments),
        ]
    )
    # The launcher would end all processes half a minute after any of its signals; nobody sends this one.
    options.signals_to_handle = "SIGQUIT"
    _silence("torch.distributed.elastic")
    os.environ[LAUNCHED] = "1"
    try:
        with _signals_passed_on() as received:
            launch_command(options)
    except ChildFailedError as error:
        return _verdict(list(error.failures.values()), bool(received))
    finally:
        del os.environ[LAUNCHED]
    return 0, ""


def _check(gpus: int) -> None:
    if "RANK" in os.environ:
        raise ConfigError(
            f"--gpus {gpus}: this process was started by a launcher already (RANK is set). Leave --gpus out "
            "there, or start mfl without the launcher."
        )
    there = torch.cuda.device_count()
    if gpus > there and not parse_flag_from_env("ACCELERATE_USE_CPU"):
        raise ConfigError(
            f"--gpus {gpus}: this machine has {several(there, 'GPU')} that torch can use. Ask for as many at "
            "most; CUDA_VISIBLE_DEVICES may hide some."
        )


@contextmanager
def _signals_passed_on() -> Iterator[list[int]]:
    """Send to all processes what this one receives; yields what that was."""
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        workers = _workers()
        if not workers:
            raise Interrupted(number)
        received.append(number)
        for worker in workers:
            worker.send_signal(number)

    before = {which: signal.signal(which, handle) for which in SIGNALS}
    try:
        yield received
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)


def _workers() -> list[psutil.Process]:
    """Children that have a rank: their sessions are their own, so no signal reaches them otherwise."""
    found = []
    for child in psutil.Process().children():
        try:
            if "RANK" in child.environ():
                found.append(child)
        except psutil.Error:
            log.debug("process %d is gone", child.pid)
    return found


def _verdict(failures: Sequence[ProcessFailure], asked_to_stop: bool) -> tuple[int, str]:
    """Exit code and words of the process that failed first.

    The others end for want of it, or because the launcher then asks them to.

    Args:
        failures: In the order in which the launcher noticed them.
        asked_to_stop: All were sent a signal.
    """
    first_hand = [f for f in failures if asked_to_stop or _code(f) not in STOPPED] or list(failures)
    refusals = [f for f in first_hand if _code(f) == USER_ERROR and "exact_time" in f.error_file_data]
    first = min(refusals, key=lambda f: float(f.error_file_data["exact_time"]), default=first_hand[0])
    code = _code(first)
    if "exact_time" in first.error_file_data:
        return code, str(first.message)
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    why = "; too little memory is the usual reason" if -code == signal.SIGKILL else ""
    return 128 - code if code < 0 else code, f"error: process {first.local_rank} {how}{why}."


def _code(failure: ProcessFailure) -> int:
    """What the process itself meant, even if a signal reached it on its way out."""
    return int(failure.error_file_data.get("exit_code", failure.exitcode))


def _silence(name: str) -> None:
    """A library whose news are told here in other words."""
    for logger in list(logging.root.manager.loggerDict):
        if logger.startswith(name):
            logging.getLogger(logger).setLevel(logging.CRITICAL)
