"""This process among those of a run."""

import atexit
import functools
import gc
import os
import time
from datetime import timedelta

from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

PATIENCE = timedelta(hours=3)
"""How long processes wait for one that validates, saves or caches; the usual ten minutes end long runs."""


def this_process() -> PartialState:
    """This process among those of the run, and its device; also for what happens before `fit`."""
    # PartialState alone does not look at the variable and would take every process for the first one.
    process = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=PATIENCE)
    if process.use_distributed:
        _leave_at_exit()
    return process


def local_processes() -> int:
    """Processes of this run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", this_process().num_processes))


@functools.cache
def _leave_at_exit() -> None:
    atexit.register(_leave)


def _leave() -> None:
    """Close gloo's connections: their threads would outlive the interpreter, and abort where they call it.

    NCCL's threads do not call it, and closing its connections can wait for the other processes. Where they
    wait for this one, which has failed, nobody would ever end.
    """
    if PartialState().backend != "gloo":
        return
    # Modules that were wrapped for distributed training hold connections too, in cycles of references.
    gc.collect()
    PartialState().destroy_process_group()
    # A thread of gloo may still be letting go of its last task, for which it needs the interpreter.
    time.sleep(0.2)
