"""What a run was trained on goes with it, and with every copy of its weights."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from forgetful_toy import Points
from safetensors.torch import save_file
from torch import Tensor, nn

from mouse_facelift.config import Config
from mouse_facelift.geometry import Camera
from mouse_facelift.provenance import sha256
from mouse_facelift.samples.format import read_sample, write_sample
from mouse_facelift.samples.training_data import FILE, TrainingData
from mouse_facelift.training.checkpoints import list_checkpoints
from mouse_facelift.training.config import OptimizerConfig, TrainingConfig
from mouse_facelift.training.data import with_start
from mouse_facelift.training.loop import fit


class Recorded:
    """A toy that says what it is trained on."""

    def __init__(self, record: TrainingData | None) -> None:
        self.module: nn.Module = nn.Linear(3, 1)
        self.dataset = Points()
        self.record, self.asked = record, 0

    def training_data(self) -> TrainingData | None:
        self.asked += 1
        return self.record

    def loss(self, module: nn.Module, batch: dict, generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": (module(batch["x"]) - batch["y"]).square().mean()}

    def validate(self, module: nn.Module, folder: Path) -> dict[str, float]:
        return {"figure": 1.0}

    def export(self, module: nn.Module, folder: Path) -> None:
        save_file(module.state_dict(), folder / "toy.safetensors")


@pytest.fixture
def record(tmp_path: Path) -> TrainingData:
    folder = tmp_path / "samples" / "sample_000007"
    camera = Camera.look_at((2.7, 0, 0), (0, 0, 0), 10, 8)
    write_sample(folder, [np.full((8, 8, 4), 255, np.uint8)], [camera], [3], {"frame_index": 7})
    return TrainingData.of([read_sample(folder)], [3])


def train(task: Recorded, output: Path, steps: int) -> None:
    settings = {"steps": steps, "batch_size": 2, "workers": 0, "checkpoint_every": 2}
    fit(task, OptimizerConfig(), TrainingConfig.model_validate(settings), output, "toy", Config())


def test_run_and_every_checkpoint_say_what_was_trained_on(record: TrainingData, tmp_path: Path) -> None:
    task = Recorded(record)
    train(task, tmp_path / "run", 4)
    folders = [tmp_path / "run", *(checkpoint.weights for checkpoint in list_checkpoints(tmp_path / "run"))]
    assert len(folders) == 3
    assert all(TrainingData.load(folder) == record for folder in folders)
    assert all(
        f"weights/{FILE}" in checkpoint.manifest["files"] for checkpoint in list_checkpoints(tmp_path / "run")
    )
    assert task.asked == 1


def test_a_resumed_run_keeps_its_record(record: TrainingData, tmp_path: Path) -> None:
    train(Recorded(record), tmp_path / "run", 2)
    task = Recorded(None)
    train(task, tmp_path / "run", 4)
    assert TrainingData.load(list_checkpoints(tmp_path / "run")[-1].weights) == record
    assert task.asked == 0


def test_a_task_that_says_nothing_leaves_no_record(tmp_path: Path) -> None:
    train(Recorded(None), tmp_path / "run", 2)
    assert not list((tmp_path / "run").rglob(FILE))


def test_start_weights_hand_on_their_record(record: TrainingData, tmp_path: Path) -> None:
    train(Recorded(record), tmp_path / "run", 2)
    copied = shutil.copytree(list_checkpoints(tmp_path / "run")[0].weights, tmp_path / "copied")
    joined = with_start(TrainingData(()), copied / "toy.safetensors")
    assert joined == record
    (copied / FILE).unlink()
    unknown = with_start(TrainingData(()), copied / "toy.safetensors")
    assert unknown.unrecorded == (sha256(copied / "toy.safetensors"),)
