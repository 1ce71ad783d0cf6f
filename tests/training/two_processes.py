"""Scripts run by two processes of one run on the CPU, and tasks for which one process and two must agree."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset

from mouse_facelift.config import Config
from mouse_facelift.training.checkpoints import list_checkpoints
from mouse_facelift.training.config import OptimizerConfig, TrainingConfig
from mouse_facelift.training.logging import read_log
from mouse_facelift.training.loop import fit, seed_everything


class PlainConfig(Config):
    training: TrainingConfig = Field(TrainingConfig(), description="Training.")


class Numbers(Dataset[dict[str, Any]]):
    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> dict[str, Any]:
        x = torch.randn(6, generator=torch.Generator().manual_seed(index))
        return {"id": f"number_{index}", "x": x, "y": x[:2].sin()}


class Plain:
    """Learns without any randomness: a step is a function of its samples alone, and a mean over them."""

    def __init__(self) -> None:
        layers = [nn.Sequential(nn.Linear(width, 8), nn.Tanh()) for width in (6, 8)]
        self.module: nn.Module = Stack(nn.ModuleList(layers), nn.Linear(8, 2))
        self.dataset = Numbers()

    def loss(self, module: nn.Module, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": (module(batch["x"]) - batch["y"]).square().mean()}

    def validate(self, module: nn.Module, folder: Path) -> dict[str, float]:
        return {"weight": float(sum(parameter.abs().sum() for parameter in module.parameters()))}

    def export(self, module: nn.Module, folder: Path) -> None:
        save_file(
            {name: value.contiguous() for name, value in module.state_dict().items()},
            folder / "w.safetensors",
        )


class Mixed(Plain):
    """The first three samples are drawn as often as the other six."""

    parts = ((3, 0.5), (6, 0.5))


class Stack(nn.Module):
    """Blocks in a list, as both of our networks have them, and a buffer."""

    def __init__(self, layers: nn.ModuleList, head: nn.Linear) -> None:
        super().__init__()
        self.layers, self.head = layers, head
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def train(
    output: Path, optimizer: Mapping[str, Any] | None = None, task: type[Plain] = Plain, **training: Any
) -> Path:
    defaults = {"batch_size": 2, "workers": 0, "ema_decay": 0.8, "log_every": 1, "validate_every": 2}
    settings = TrainingConfig.model_validate(defaults | training)
    seed_everything(0)
    rule = {"lr": 0.05, "warmup_steps": 2, "schedule": "constant", "max_grad_norm": 0.05} | dict(
        optimizer or {}
    )
    config = PlainConfig(training=settings)
    return fit(task(), OptimizerConfig.model_validate(rule), settings, output, "plain", config)


def losses(run: Path) -> list[float]:
    """Of every step."""
    return [line["loss"] for line in read_log(run) if "loss" in line]


def tensors_of(run: Path) -> dict[str, Tensor]:
    """All that the newest checkpoint holds, optimizer included, by file and name."""
    folder = list_checkpoints(run)[-1].folder
    found = {}
    for file in sorted(folder.rglob("*.safetensors")):
        found |= {f"{file.name}:{name}": value for name, value in load_file(file).items()}
    content = torch.load(folder / "state" / "optimizer.pt", weights_only=True)
    for number, entry in content["optimizer"]["state"].items():
        found |= {f"{number}:{name}": value for name, value in entry.items()}
    return found
