import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forgetful_toy import Points
from forks import run_in_two
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mouse_facelift.config import Config
from mouse_facelift.errors import CheckpointError, ConfigError, DataError
from mouse_facelift.training.checkpoints import checkpoint_folder, list_checkpoints
from mouse_facelift.training.config import OptimizerConfig, TrainingConfig
from mouse_facelift.training.logging import read_log
from mouse_facelift.training.loop import fit, seed_everything


class ToyConfig(Config):
    width: int = Field(3, description="Size of the toy.")
    training: TrainingConfig = Field(TrainingConfig(), description="Training.")


class Toy:
    """Learn a sum from noisy points; the noise comes from the generator that the loop hands out."""

    def __init__(self, spoil_at: int = -1, interrupt_at: int = -1) -> None:
        self.module: nn.Module = nn.Linear(3, 1)
        self.dataset = Points()
        self.calls, self.spoil_at, self.interrupt_at = 0, spoil_at, interrupt_at

    def loss(self, module: nn.Module, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        self.calls += 1
        if self.calls == self.interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
        noise = 0.1 * torch.randn(batch["x"].shape, generator=generator)
        error = (module(batch["x"] + noise) - batch["y"]).square().mean()
        if self.calls == self.spoil_at:
            error = error * float("nan")
        return {"loss": error, "error": error.detach()}

    def validate(self, module: nn.Module, folder: Path) -> dict[str, float]:
        (folder / "picture.txt").write_text("seen")
        return {"weight": float(module.weight.sum())}

    def export(self, module: nn.Module, folder: Path) -> None:
        save_file(module.state_dict(), folder / "toy.safetensors")


def train(
    output: Path, make: Callable[[], Toy] = Toy, width: int = 3, seed: int = 0, **training: Any
) -> Path:
    defaults = {"batch_size": 2, "workers": 0, "ema_decay": 0.9, "log_every": 1, "checkpoint_every": 100}
    settings = TrainingConfig.model_validate(defaults | training)
    seed_everything(seed)
    task = make()
    config = ToyConfig(width=width, training=settings)
    return fit(
        task, OptimizerConfig(lr=0.05, warmup_steps=2, schedule="constant"), settings, output, "toy", config
    )


def final_files(run: Path) -> dict[str, Tensor]:
    folder = list_checkpoints(run)[-1].folder
    tensors = {}
    for name in ("weights/toy.safetensors", "state/model.safetensors", "state/ema.safetensors"):
        tensors |= {f"{name}:{key}": value for key, value in load_file(folder / name).items()}
    return tensors


def test_loss_goes_down_and_everything_is_written(tmp_path: Path) -> None:
    run = train(tmp_path / "run", steps=60, validate_every=30)
    lines = read_log(run)
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 60
    assert sum(losses[-10:]) < 0.2 * sum(losses[:10])
    assert [line["step"] for line in lines if "validation/weight" in line] == [30, 60]
    assert (run / "validation/step_00000060/picture.txt").is_file()
    facts = json.loads((run / "run.json").read_text())
    assert facts["command"] == "toy"
    assert facts["config"]["training"]["steps"] == 60


def test_interrupted_and_resumed_equals_undisturbed_bit_for_bit(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", steps=8, gradient_accumulation=2)
    train(tmp_path / "parts", steps=4, gradient_accumulation=2)
    parts = train(tmp_path / "parts", seed=99, steps=8, gradient_accumulation=2)
    expected, found = final_files(whole), final_files(parts)
    assert expected.keys() == found.keys()
    for name in expected:
        assert torch.equal(expected[name], found[name]), name


def test_interrupt_saves_the_finished_step_and_a_second_run_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", lambda: Toy(interrupt_at=5), steps=9)
    assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path / "run")] == [5]
    whole, resumed = train(tmp_path / "whole", steps=9), train(tmp_path / "run", steps=9)
    for name, value in final_files(whole).items():
        assert torch.equal(value, final_files(resumed)[name]), name


def test_exported_weights_are_the_averaged_ones(tmp_path: Path) -> None:
    tensors = final_files(train(tmp_path / "run", steps=6))
    exported = tensors["weights/toy.safetensors:weight"]
    assert torch.equal(exported, tensors["state/ema.safetensors:weight"])
    assert not torch.equal(exported, tensors["state/model.safetensors:weight"])


def test_learning_rate_follows_its_schedule(tmp_path: Path) -> None:
    run = train(tmp_path / "run", steps=4)
    assert [line["lr"] for line in read_log(run) if "lr" in line] == pytest.approx([0, 0.025, 0.05, 0.05])


def test_old_checkpoints_are_deleted(tmp_path: Path) -> None:
    run = train(tmp_path / "run", steps=9, checkpoint_every=2, keep_checkpoints=2)
    assert [checkpoint.step for checkpoint in list_checkpoints(run)] == [8, 9]


def test_finished_run_is_left_alone(tmp_path: Path) -> None:
    run = train(tmp_path / "run", steps=3)
    before = checkpoint_folder(run, 3).stat().st_mtime_ns
    task = Toy()
    train(tmp_path / "run", lambda: task, steps=3)
    assert task.calls == 0
    assert checkpoint_folder(run, 3).stat().st_mtime_ns == before


def test_step_with_a_loss_that_is_not_finite_is_left_out_and_told_with_its_samples(tmp_path: Path) -> None:
    run = train(tmp_path / "run", lambda: Toy(spoil_at=3), steps=5)
    lines = read_log(run)
    told = [line for line in lines if "samples" in line]
    assert [(line["step"], line["skipped"]) for line in told] == [(3, "the loss is not finite")]
    assert all(name.startswith("point_") for name in told[0]["samples"]) and len(told[0]["samples"]) == 2
    steps = [line for line in lines if "loss" in line]
    assert [line["skipped"] for line in steps] == [0, 0, 1, 1, 1]
    # The schedule waits: the step after the skipped one has the rate that it would have had.
    assert [line["lr"] for line in steps] == pytest.approx([0, 0.025, 0.05, 0.05, 0.05])
    spoiled = read_log(train(tmp_path / "early", lambda: Toy(spoil_at=2), steps=5))
    assert [line["lr"] for line in spoiled if "lr" in line] == pytest.approx([0, 0.025, 0.025, 0.05, 0.05])


def test_resume_refuses_another_configuration_and_shows_the_difference(tmp_path: Path) -> None:
    train(tmp_path / "run", steps=2)
    with pytest.raises(CheckpointError, match="width: then 3, now 4"):
        train(tmp_path / "run", width=4, steps=4)


def test_resume_never_refuses_a_used_folder(tmp_path: Path) -> None:
    train(tmp_path / "run", steps=2)
    with pytest.raises(ConfigError, match=r"step 2 and training\.resume is never"):
        train(tmp_path / "run", steps=4, resume="never")


def test_resume_from_a_missing_path_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        train(tmp_path / "run", steps=4, resume=str(tmp_path / "nowhere"))


def test_bad_gradient_stops_before_it_reaches_the_weights(tmp_path: Path) -> None:
    class Kink(Toy):
        def loss(self, module: nn.Module, batch: dict[str, Any], generator: Any) -> dict[str, Tensor]:
            terms = super().loss(module, batch, generator)
            zero = terms["loss"] - terms["loss"].detach()
            return {"loss": zero.abs().sqrt()}

    task = Kink()
    before = [value.detach().clone() for value in task.module.parameters()]
    with pytest.raises(DataError, match=r"step 3: 3 of the last 3 steps were skipped: the gradient is"):
        train(tmp_path / "run", lambda: task, steps=5, skip_window=10)
    assert all(torch.equal(*pair) for pair in zip(before, task.module.parameters(), strict=True))


def test_average_can_begin_in_the_middle_of_a_run(tmp_path: Path) -> None:
    train(tmp_path / "run", steps=2, ema_decay=0)
    tensors = final_files(train(tmp_path / "run", steps=3, ema_decay=0.9))
    # The first update copies the weights.
    assert torch.equal(tensors["state/ema.safetensors:weight"], tensors["state/model.safetensors:weight"])


def test_older_checkpoint_is_not_continued_beside_newer_ones(tmp_path: Path) -> None:
    run = train(tmp_path / "run", steps=4, checkpoint_every=2)
    older = str(checkpoint_folder(run, 2))
    with pytest.raises(ConfigError, match="holds a checkpoint of step 4"):
        train(run, steps=6, resume=older)
    branch = train(tmp_path / "branch", steps=6, resume=older)
    assert [checkpoint.step for checkpoint in list_checkpoints(branch)] == [6]


def test_damaged_state_is_refused(tmp_path: Path) -> None:
    run = train(tmp_path / "run", steps=2)
    file = checkpoint_folder(run, 2) / "state" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        train(run, steps=4)


def test_interrupted_run_says_what_made_it(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", lambda: Toy(interrupt_at=2), steps=9)
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["steps"] == 2 and facts["command"] == "toy"


def test_data_loading_processes_survive_the_interrupt(tmp_path: Path) -> None:
    class Nervous(Points):
        def __getitem__(self, index: int) -> dict[str, Any]:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            return super().__getitem__(index)

    task = Toy()
    task.dataset = Nervous()
    train(tmp_path / "run", lambda: task, steps=2, workers=1)
    assert task.calls == 2


TWO_PROCESSES = """
import os
import sys
from pathlib import Path

from test_loop import Toy, train

folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
try:
    train(folder / "run", lambda: Toy(interrupt_at=3 if rank == 1 else -1), steps=6)
except KeyboardInterrupt:
    train(folder / "run", steps=6)
    train(folder / "whole", steps=6)
"""


def test_two_processes_stop_together_write_one_run_and_resume_bit_for_bit(tmp_path: Path) -> None:
    run_in_two(TWO_PROCESSES, tmp_path)
    run, whole = tmp_path / "run", tmp_path / "whole"
    assert [checkpoint.step for checkpoint in list_checkpoints(run)] == [3, 6]
    assert [line["step"] for line in read_log(run) if "loss" in line] == [1, 2, 3, 4, 5, 6]
    for name, value in final_files(whole).items():
        assert torch.equal(value, final_files(run)[name]), name
