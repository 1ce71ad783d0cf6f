"""An undisturbed run of a trainer beside one that Ctrl-C ends and the same command goes on with."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoint_tensors import assert_same_end
from torch import Tensor

from mouse_facelift.training.checkpoints import checkpoint_folder, list_checkpoints

EVERYTHING = ("weights/", "state/model:", "state/ema:", "state/optimizer:", "state/rng:")


def compare_interrupted(
    task: type, train: Callable[[Path], Path], folder: Path, interrupt_at: int
) -> tuple[Path, dict[str, Tensor]]:
    """Both runs see the same samples in the same order and end with the same bits.

    Args:
        task: The trainer's; its losses tell which samples are seen.
        train: Trains in the folder that it is given, with accumulation over two passes of one sample each.
        folder: Gets `whole` and `parts`.
        interrupt_at: The pass, from 1, in which Ctrl-C is pressed; the first of its step.

    Returns:
        The undisturbed run and all that its last checkpoint holds.
    """
    seen: dict[str, list[str]] = {"whole": [], "parts": []}
    loss = task.loss  # type: ignore[attr-defined]

    def run(name: str, interrupt_at: int = -1) -> Path:
        def watched(self: Any, module: Any, batch: dict[str, Any], generator: Any) -> dict[str, Tensor]:
            seen[name].extend(batch["id"])
            if len(seen[name]) == interrupt_at:
                os.kill(os.getpid(), signal.SIGINT)
            return loss(self, module, batch, generator)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(task, "loss", watched)
            return train(folder / name)

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("parts", interrupt_at)
    passes = interrupt_at + 1
    assert len(seen["parts"]) == passes and checkpoint_folder(folder / "parts", passes // 2).is_dir()
    assert list_checkpoints(folder / "parts")[-1].step < list_checkpoints(whole)[-1].step
    parts = run("parts")
    assert seen["parts"] == seen["whole"] and len(seen["whole"]) == 2 * list_checkpoints(whole)[-1].step
    return whole, assert_same_end(parts, whole, *EVERYTHING)
