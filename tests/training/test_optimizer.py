"""What decays, and 8-bit momenta: refused where they cannot be, exact over a resume where they can."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset

from mouse_facelift.config import Config
from mouse_facelift.errors import ConfigError, DependencyError
from mouse_facelift.training.checkpoints import list_checkpoints
from mouse_facelift.training.config import OptimizerConfig, TrainingConfig
from mouse_facelift.training.loop import fit, seed_everything
from mouse_facelift.training.optimizer import SMALLEST_8BIT, check_optimizer, make_adamw

EIGHT_BIT = OptimizerConfig(kind="adamw_8bit", lr=0.01, warmup_steps=0, schedule="constant")
CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_matrices_decay_and_norms_biases_and_frozen_parts_do_not() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4, bias=False))
    module[2].requires_grad_(False)
    decaying, others = make_adamw(module, OptimizerConfig(weight_decay=0.1), fused=False).param_groups
    assert decaying["weight_decay"] == 0.1 and others["weight_decay"] == 0
    assert [id(p) for p in decaying["params"]] == [id(module[0].weight)]
    assert {id(p) for p in others["params"]} == {id(module[0].bias), *map(id, module[1].parameters())}


class Rounding(torch.optim.Optimizer):
    """Stands in for bitsandbytes: large tensors have a momentum of whole numbers and a scale."""

    def __init__(self, groups: Any, lr: float, betas: Any, eps: float, min_8bit_size: int) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps})
        self.min_8bit_size = min_8bit_size

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                momentum = (
                    state["levels"].float() * state["scale"] if "levels" in state else state.get("m", 0)
                )
                momentum = 0.9 * momentum + 0.1 * p.grad
                p.sub_(group["lr"] * (momentum + group["weight_decay"] * p))
                state["step"] = state.get("step", 0) + 1
                if p.numel() < self.min_8bit_size:
                    state["m"] = momentum
                else:
                    state["scale"] = momentum.abs().max() / 127
                    state["levels"] = (momentum / state["scale"]).round().to(torch.int8)

    def load_state_dict(self, state_dict: Any) -> None:
        """Like bitsandbytes': whole numbers stay whole, which torch's own way of loading would not do."""
        super().load_state_dict(state_dict)
        for p, saved in zip(
            (p for group in self.param_groups for p in group["params"]),
            state_dict["state"].values(),
            strict=False,
        ):
            self.state[p] = {k: v.clone() if isinstance(v, Tensor) else v for k, v in saved.items()}


@pytest.fixture
def fake_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("bitsandbytes")
    module.__spec__ = SimpleNamespace(name="bitsandbytes")  # type: ignore[assignment]
    module.optim = SimpleNamespace(AdamW8bit=Rounding)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bitsandbytes", module)


def test_8bit_momenta_are_refused_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "bitsandbytes", raising=False)
    monkeypatch.setattr("mouse_facelift.training.optimizer.find_spec", lambda name: None)
    for attempt in (
        lambda: check_optimizer(EIGHT_BIT, GPU),
        lambda: make_adamw(nn.Linear(2, 2), EIGHT_BIT, fused=False),
    ):
        with pytest.raises(DependencyError, match=r"pip install 'mouse-facelift\[adam8bit\]'"):
            attempt()
    check_optimizer(OptimizerConfig(), CPU)


@pytest.mark.usefixtures("fake_bitsandbytes")
def test_8bit_momenta_are_refused_without_a_gpu() -> None:
    with pytest.raises(ConfigError, match=r"this run is on cpu\. Set optimizer\.kind=adamw"):
        check_optimizer(EIGHT_BIT, CPU)
    check_optimizer(EIGHT_BIT, GPU)


@pytest.mark.usefixtures("fake_bitsandbytes")
def test_8bit_groups_and_rates_are_those_of_adamw() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    plain = make_adamw(module, OptimizerConfig(), fused=False).param_groups
    small = make_adamw(module, OptimizerConfig(kind="adamw_8bit"), fused=False)
    assert isinstance(small, Rounding) and small.min_8bit_size == SMALLEST_8BIT
    for before, after in zip(plain, small.param_groups, strict=True):
        for key in ("lr", "betas", "eps", "weight_decay"):
            assert before[key] == after[key]
        assert list(map(id, before["params"])) == list(map(id, after["params"]))


@pytest.mark.usefixtures("fake_bitsandbytes")
def test_run_with_momenta_of_whole_numbers_resumes_exactly(tmp_path: Path) -> None:
    assert_exact_resume(tmp_path)


def test_bitsandbytes_on_a_cpu_resumes_exactly(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="the extra adam8bit is not installed")
    assert_exact_resume(tmp_path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_bitsandbytes_on_a_gpu_resumes_exactly(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="the extra adam8bit is not installed")
    check_optimizer(EIGHT_BIT, GPU)
    assert_exact_resume(tmp_path)


def is_8bit(state: Any) -> bool:
    """Whether a parameter's state holds a tensor of bytes, however deep."""
    if isinstance(state, dict):
        return any(is_8bit(value) for value in state.values())
    return isinstance(state, Tensor) and state.dtype.itemsize == 1


class ToyConfig(Config):
    training: TrainingConfig = Field(TrainingConfig(), description="Training.")


class Vectors(Dataset[dict[str, Any]]):
    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"id": str(index), "x": torch.randn(128, generator=torch.Generator().manual_seed(index))}


class Reverse:
    """Learn to turn vectors round, with one matrix just large enough for 8 bits."""

    def __init__(self) -> None:
        self.module: nn.Module = nn.Linear(128, 128)
        self.dataset = Vectors()

    def loss(self, module: nn.Module, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": (module(batch["x"]) - batch["x"].flip(1)).square().mean()}

    def validate(self, module: nn.Module, folder: Path) -> dict[str, float]:
        return {}

    def export(self, module: nn.Module, folder: Path) -> None:
        save_file(module.state_dict(), folder / "model.safetensors")


def assert_exact_resume(folder: Path) -> None:
    def train(name: str, steps: int) -> Path:
        settings = TrainingConfig(steps=steps, workers=0, batch_size=2, precision="fp32")
        seed_everything(3)
        return fit(Reverse(), EIGHT_BIT, settings, folder / name, "toy", ToyConfig(training=settings))

    whole, parts = train("whole", 6), train("parts", 3)
    train("parts", 6)
    middle, end = list_checkpoints(parts)
    saved = torch.load(middle.state / "optimizer.pt", weights_only=True)["optimizer"]["state"]
    assert [is_8bit(state) for state in saved.values()] == [True, False]
    expected = load_file(list_checkpoints(whole)[-1].state / "model.safetensors")
    found = load_file(end.state / "model.safetensors")
    assert all(torch.equal(expected[name], found[name]) for name in expected)
