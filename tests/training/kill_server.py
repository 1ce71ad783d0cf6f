"""Imports torch once, then forks trainings and kills them (SIGKILL) at random moments, also inside a save.

Run as `python kill_server.py FOLDER`: leaves FOLDER/killed and FOLDER/whole, and tells on stdout what lay on
disk after each kill, one JSON object a line.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # by every optimizer, else in every fork
from forgetful_toy import Forgetful, train
from safetensors.torch import save

from mouse_facelift import files, provenance
from mouse_facelift.training import state
from mouse_facelift.training.checkpoints import list_checkpoints, verify_checkpoint

KILLS, STEPS = 30, 120
SLOW_S = 0.003


def main(folder: Path) -> None:
    settings = {"steps": STEPS, "validate_every": 50, "keep_checkpoints": 2}
    moments = random.Random(0)
    torch.set_num_threads(1)
    provenance._git_revision = lambda: None  # half of the time of a life
    for number in range(KILLS):
        child = start(folder / "killed", settings | {"checkpoint_every": 1}, slow=True)
        await_save(folder / "killed", child, number)
        time.sleep(moments.uniform(0, 0.2))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        sys.stdout.write(json.dumps({"killed": killed, **found(folder / "killed")}) + "\n")
        sys.stdout.flush()
    for name in ("killed", "whole"):
        _, status = os.waitpid(start(folder / name, settings | {"checkpoint_every": 50}, slow=False), 0)
        assert status == 0, name


def start(run: Path, settings: dict[str, Any], slow: bool) -> int:
    child = os.fork()
    if child == 0:
        if slow:
            slow_down()
        try:
            train(run, Forgetful(), **settings)
            os._exit(0)
        finally:
            # Whatever happens, a fork must not run on in its parent's place.
            traceback.print_exc()
            os._exit(1)
    return child


def slow_down() -> None:
    """Stretch every save, so that most kills fall into one."""

    def slow_flush(path: Path) -> None:
        time.sleep(SLOW_S)
        flush(path)

    def slow_save_file(tensors: Any, path: Path) -> None:
        content = save(tensors)
        with path.open("wb") as file:
            for part in (content[: len(content) // 2], content[len(content) // 2 :]):
                file.write(part)
                file.flush()
                time.sleep(SLOW_S)

    flush = files._flush
    files._flush = slow_flush
    state.save_file = slow_save_file


def await_save(run: Path, child: int, number: int) -> None:
    """Let most lives come as far as their first save; kill some of them before."""
    before = newest(run)
    deadline = time.monotonic() + 20
    while number % 5 and newest(run) == before and time.monotonic() < deadline:
        time.sleep(0.005)
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return


def newest(run: Path) -> str:
    return max((path.name for path in (run / "checkpoints").glob("step_*")), default="")


def found(run: Path) -> dict[str, Any]:
    checkpoints = list_checkpoints(run)
    for checkpoint in checkpoints:
        verify_checkpoint(checkpoint)
    half = [path.name for path in (run / "checkpoints").glob(".step_*")]
    return {"steps": [checkpoint.step for checkpoint in checkpoints], "half_written": half}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
