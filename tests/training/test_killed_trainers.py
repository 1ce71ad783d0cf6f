"""kill -9 of both real trainers, again and again, inside saves too: the end is an undisturbed run's."""

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import forks
import pytest
from checkpoint_tensors import assert_same_end
from tiny_trainers import GSLRM, MVDIFFUSION, write_samples

from mouse_facelift.training.checkpoints import list_checkpoints, verify_checkpoint
from mouse_facelift.training.logging import read_log

KILLS, STEPS = 15, 40

LIFE = """
from kill_server import slow_down

from mouse_facelift import cli, provenance

provenance._git_revision = lambda: None  # as long as many steps
slow_down()
cli.main()
"""

MORE = {
    "train-gslrm": ["views.input_views=[2, 3]", "augment={yaw: true, scale: [0.7, 1.0]}"],
    "train-mvdiff": ["cache.latents=true", "augment.brightness=0.1", "data.reference_view=random"],
}


class Training:
    """One through the real command line, which lives many times.

    Args:
        command: The subcommand.
        folder: With `list.txt` and `settings.yaml`.
        name: Of the run's folder in it.
    """

    def __init__(self, command: str, folder: Path, name: str) -> None:
        self.run, self.told = folder / name, folder / f"{name}.txt"
        self.arguments = [
            command,
            f"--config={folder / 'settings.yaml'}",
            f"data.train_list={folder / 'list.txt'}",
            f"output={self.run}",
            f"training.steps={STEPS}",
            "training.validate_every=6",
            "training.keep_checkpoints=2",
            *MORE[command],
        ]

    def complete(self) -> None:
        process = forks.start(LIFE, [*self.arguments, "training.checkpoint_every=20"], self.told)
        code, told = forks.end(process, self.told)
        assert code == 0, told[-3000:]

    def live(self, until: Callable[[], bool], then_s: float) -> None:
        """Begin or go on, saving after every step; killed so long after it has come so far."""
        process = forks.start(LIFE, [*self.arguments, "training.checkpoint_every=1"], self.told)
        deadline = time.monotonic() + 60
        while not until():
            assert process.is_alive() and time.monotonic() < deadline, self.told.read_text()[-3000:]
            time.sleep(0.002)
        time.sleep(then_s)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, self.told.read_text()[-3000:]

    def newest(self) -> str:
        return max((path.name for path in (self.run / "checkpoints").glob("step_*")), default="")

    def half_written(self) -> list[Path]:
        return list((self.run / "checkpoints").glob(".step_*"))


def milestones(training: Training, number: int) -> Callable[[], bool]:
    """How far a life comes at least: a few only to their start, the others past their first save."""
    before, has_begun = training.newest(), (training.run / "run.json").is_file
    if number == 0:
        return training.run.is_dir
    if number == 1 and "train-mvdiff" in training.arguments:
        return lambda: any((training.run / "latents").rglob("*.safetensors"))
    return has_begun if number % 5 == 1 else lambda: training.newest() != before


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train-gslrm", "train-mvdiff"])
def test_trainer_killed_again_and_again_ends_as_an_undisturbed_one(command: str, tmp_path: Path) -> None:
    path = write_samples(tmp_path)
    settings = GSLRM if command == "train-gslrm" else MVDIFFUSION.replace("LIST", str(path))
    (tmp_path / "settings.yaml").write_text(settings)
    killed, whole = Training(command, tmp_path, "killed"), Training(command, tmp_path, "whole")
    moments, in_a_save, reached = random.Random(0), 0, []
    for number in range(KILLS):
        killed.live(milestones(killed, number), moments.uniform(0, 0.2))
        checkpoints = list_checkpoints(killed.run)
        for checkpoint in checkpoints:
            verify_checkpoint(checkpoint)
        reached.append(max((checkpoint.step for checkpoint in checkpoints), default=0))
        in_a_save += bool(killed.half_written())
    assert reached == sorted(reached), "a kill took a checkpoint"
    assert KILLS // 2 < reached[-1] < STEPS
    assert in_a_save >= KILLS // 4, "too few kills fell into a save"
    killed.complete()
    whole.complete()
    kinds = ("weights/", "state/model", "state/ema", "state/optimizer", "state/rng")
    assert_same_end(killed.run, whole.run, *kinds)
    logs = [[(line["step"], line.get("loss")) for line in read_log(run.run)] for run in (killed, whole)]
    assert logs[0] == logs[1]
    assert [str(path) for path in killed.run.rglob(".*")] == []
