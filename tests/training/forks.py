"""Programs in processes of their own that begin with the libraries loaded, which takes seconds once."""

import atexit
import multiprocessing
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

HERE = Path(__file__).parent

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "torch._dynamo",  # by every optimizer, else in every fork
        "mouse_facelift.gslrm.train",
        "mouse_facelift.mvdiffusion.train",
        "mouse_facelift.cli",
    ]
)


def start(
    program: str, arguments: Sequence[str], told: Path, environment: Mapping[str, str] | None = None
) -> ForkServerProcess:
    """Run a program, given as text, as `python program.py ARGUMENTS` would.

    Args:
        program: It may import this folder's modules.
        arguments: For `sys.argv`.
        told: File that gets what it writes to stdout and stderr.
        environment: On top of this process's.
    """
    process = _context.Process(target=_run, args=(program, list(arguments), told, dict(environment or {})))
    process.start()
    return process


def end(process: ForkServerProcess, told: Path, timeout: float = 120) -> tuple[int | None, str]:
    """Wait for its end: exit code, negative after a signal, and what it wrote."""
    process.join(timeout)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode, told.read_text()


def run_in_two(program: str, folder: Path, timeout: float = 120) -> None:
    """Run a program, with `folder` as its argument, in two processes on the CPU that know of each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"ACCELERATE_USE_CPU": "true", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    settings |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    told = [folder / f"process_{rank}.txt" for rank in (0, 1)]
    both = [
        start(program, [str(folder)], file, settings | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank, file in enumerate(told)
    ]
    outcomes = [end(process, file, timeout) for process, file in zip(both, told, strict=True)]
    assert [code for code, _ in outcomes] == [0, 0], "\n".join(text for _, text in outcomes)


def _run(program: str, arguments: list[str], told: Path, environment: dict[str, str]) -> None:
    import torch

    descriptor = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(environment)
    # Its data loaders start as they do anywhere else.
    multiprocessing.set_start_method(None, force=True)
    torch.set_num_threads(1)
    sys.path.insert(0, str(HERE))
    sys.argv = ["program", *arguments]
    try:
        exec(compile(program, "program", "exec"), {"__name__": "__main__"})
    finally:
        # A process of `multiprocessing` ends without.
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
