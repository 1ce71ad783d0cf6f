"""A toy that draws from every random generator there is: resumed runs must find all of them as they were."""

import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import Dataset

from mouse_facelift.config import Config
from mouse_facelift.training.checkpoints import list_checkpoints
from mouse_facelift.training.config import OptimizerConfig, TrainingConfig
from mouse_facelift.training.loop import fit, seed_everything


class DataConfig(Config):
    train_list: Path | None = Field(None, description="Samples.")


class ToyConfig(Config):
    width: int = Field(4, description="Size of the toy.")
    data: DataConfig = Field(DataConfig(), description="Data.")
    training: TrainingConfig = Field(TrainingConfig(), description="Training.")


class Points(Dataset[dict[str, Any]]):
    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> dict[str, Any]:
        x = torch.randn(3, generator=torch.Generator().manual_seed(index))
        return {"id": f"point_{index}", "x": x, "y": x.sum()[None]}


class Forgetful:
    """Dropout, Python's and NumPy's generators in the loss; validation draws from them too."""

    best_metric = "score"

    def __init__(self, width: int = 4, interrupt_at: int = -1, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.interrupt_at = interrupt_at
        self.passes = 0
        self.module: nn.Module = nn.Sequential(nn.Linear(3, width), nn.Dropout(0.5), nn.Linear(width, 1))
        self.dataset = Points()
        self.seen: list[str] = []

    def loss(self, module: nn.Module, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        self.passes += 1
        self.seen += batch["id"]
        if self.passes == self.interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
        noise = torch.randn(batch["x"].shape, generator=generator)
        shift = random.random() + random.gauss() + float(np.random.normal())  # noqa: NPY002
        return {"loss": (module(batch["x"] + 0.1 * noise) - batch["y"] - 0.1 * shift).square().mean()}

    def validate(self, module: nn.Module, folder: Path) -> dict[str, float]:
        return {"score": random.random() + float(np.random.rand()) + float(torch.rand(()))}  # noqa: NPY002

    def export(self, module: nn.Module, folder: Path) -> None:
        save_file(module.state_dict(), folder / "toy.safetensors")


def train(
    output: Path,
    task: Forgetful | None = None,
    seed: int = 0,
    width: int = 4,
    train_list: Path | None = None,
    **training: Any,
) -> Path:
    defaults = {"batch_size": 2, "workers": 0, "ema_decay": 0.9, "log_every": 1, "checkpoint_every": 2}
    settings = TrainingConfig.model_validate(defaults | training)
    config = ToyConfig(width=width, data=DataConfig(train_list=train_list), training=settings)
    optimizer = OptimizerConfig(lr=0.05, warmup_steps=2)
    seed_everything(seed)
    return fit(task or Forgetful(width), optimizer, settings, output, "toy", config)


def steps(run: Path) -> list[int]:
    return [checkpoint.step for checkpoint in list_checkpoints(run)]
