"""The update rule: what is applied, what is skipped, and the published rule as options of it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch import Tensor, nn

from mouse_facelift.training.config import OptimizerConfig
from mouse_facelift.training.optimizer import make_adamw
from mouse_facelift.training.schedule import lr_factor
from mouse_facelift.training.update import Outcome, Pass, Updater


def updater(module: nn.Module, config: OptimizerConfig) -> Updater:
    AcceleratorState._reset_state()
    accelerator = Accelerator(cpu=True, mixed_precision="no")
    return Updater(accelerator, module, make_adamw(module, config, fused=False), config)


def one(gradient: list[float], loss: float = 1.0, **rule: Any) -> tuple[Outcome, Tensor]:
    """One update of a parameter that is 0, from its gradient; rate 0.1."""
    module = nn.ParameterDict({"x": torch.zeros(len(gradient))})
    module["x"].grad = torch.tensor(gradient)
    config = OptimizerConfig(weight_decay=0, **rule)
    done = updater(module, config).update([Pass({"loss": torch.tensor(loss)})], rate=0.1)
    assert module["x"].grad is None
    return done, module["x"].detach()


def test_fit_gradient_is_clipped_and_applied_at_the_given_rate() -> None:
    outcome, x = one([3.0, -4.0])
    assert outcome == Outcome(loss=1.0, grad_norm=pytest.approx(5.0))
    torch.testing.assert_close(x, torch.tensor([-0.1, 0.1]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_gradient_that_is_not_finite_changes_nothing(bad: float) -> None:
    outcome, x = one([1.0, bad])
    assert (outcome.skipped, outcome.fault, outcome.by_loss) == ("the gradient is not finite", True, False)
    assert torch.equal(x, torch.zeros(2))


@pytest.mark.parametrize("clean", [False, True])
def test_loss_that_is_not_finite_changes_nothing_even_where_gradients_are_cleaned(clean: bool) -> None:
    outcome, x = one([1.0], loss=float("inf"), clean_gradients=clean)
    assert (outcome.skipped, outcome.fault, outcome.by_loss) == ("the loss is not finite", True, True)
    assert torch.equal(x, torch.zeros(1))


def test_too_long_gradient_is_left_out_only_if_asked_for() -> None:
    assert not one([50.0])[0].skipped
    assert not one([39.9], skip_above=20, max_grad_norm=2)[0].skipped
    outcome, x = one([40.1], skip_above=20, max_grad_norm=2)
    assert outcome.skipped == "the gradient's norm is 40.1, more than 40 (optimizer.skip_above)"
    assert outcome.fault and torch.equal(x, torch.zeros(1))


def test_loss_is_the_mean_over_forward_passes() -> None:
    module = nn.ParameterDict({"x": torch.zeros(1)})
    module["x"].grad = torch.ones(1)
    passes = [Pass({"loss": torch.tensor(value)}) for value in (1.0, 2.0)]
    assert updater(module, OptimizerConfig()).update(passes, 0.1, stop=True) == Outcome(1.5, 1.0, stop=True)


class TestScaler:
    """fp16, with torch's own scaler on the CPU."""

    @staticmethod
    def step(gradient: float, scale: float, loss: float = 1.0, **rule: Any) -> tuple[Outcome, Tensor, float]:
        module = nn.ParameterDict({"x": torch.zeros(1)})
        config = OptimizerConfig(weight_decay=0, **rule)
        adamw = make_adamw(module, config, fused=False)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        scaler.scale(torch.zeros(()))
        module["x"].grad = torch.tensor([gradient]) * scale

        def clip(parameters: Any, longest: float) -> Tensor:
            scaler.unscale_(adamw)
            return nn.utils.clip_grad_norm_(parameters, longest)

        accelerator: Any = SimpleNamespace(scaler=scaler, num_processes=1, clip_grad_norm_=clip)
        passes = [Pass({"loss": torch.tensor(loss)})]
        outcome = Updater(accelerator, module, adamw, config).update(passes, 0.1)
        return outcome, module["x"].detach(), scaler.get_scale()

    def test_fit_gradient_is_applied_unscaled(self) -> None:
        outcome, x, scale = self.step(0.5, 1024.0)
        assert outcome == Outcome(1.0, pytest.approx(0.5))
        torch.testing.assert_close(x, torch.tensor([-0.1]))
        assert scale == 1024

    def test_overflow_halves_the_scale_and_is_no_fault(self) -> None:
        outcome, x, scale = self.step(float("inf"), 1024.0)
        assert outcome.skipped and not outcome.fault
        assert torch.equal(x, torch.zeros(1)) and scale == 512

    def test_overflow_at_a_scale_below_1_is_a_fault(self) -> None:
        assert self.step(float("inf"), 0.5)[0].fault

    def test_loss_that_is_not_finite_is_a_fault_at_any_scale(self) -> None:
        assert self.step(float("nan"), 1024.0, loss=float("nan"))[0].fault

    def test_cleaning_leaves_overflows_to_the_scaler(self) -> None:
        outcome, x, scale = self.step(float("inf"), 1024.0, clean_gradients=True)
        assert outcome.skipped and torch.equal(x, torch.zeros(1)) and scale == 512

    def test_skip_by_length_keeps_the_scale(self) -> None:
        outcome, x, scale = self.step(30.0, 1024.0, skip_above=20)
        assert outcome.fault and torch.equal(x, torch.zeros(1)) and scale == 1024


@pytest.mark.parity
def test_rule_with_its_options_is_the_published_one(shared: Path) -> None:
    """Eight updates: small, clipped, skipped, NaN gradients, NaN loss, just below the limit.

    Rates are given: theirs go on through skipped updates, and ours wait.
    """
    tensors = load_file(shared / "fixtures/facelift/schedules.safetensors")
    rule = json.loads((shared / "fixtures/facelift/schedules.json").read_text())["optimizer_rule"]
    names = {name: name.replace(".", "_") for name in rule["order"]}
    module = nn.ParameterDict({key: tensors[f"opt.init.{name}"] for name, key in names.items()})
    config = OptimizerConfig(
        lr=rule["base_lr"],
        betas=rule["betas"],
        weight_decay=rule["weight_decay"],
        warmup_steps=rule["warmup"],
        max_grad_norm=rule["max_norm"],
        skip_above=rule["skip_factor"],
        clean_gradients=True,
    )
    ours = updater(module, config)
    groups = [{"weight_decay": g["weight_decay"], "n": len(g["params"])} for g in ours.optimizer.param_groups]
    assert groups == rule["groups"]
    factor, updates = lr_factor(config, rule["total"]), 0
    for row in rule["rows"]:
        for name, key in names.items():
            gradient = tensors.get(f"opt.{row['i']}.grad.{name}")
            module[key].grad = (
                torch.full_like(module[key], float("nan")) if gradient is None else gradient.clone()
            )
        loss = torch.tensor(float("nan") if row["kind"] == "nan_loss" else 1.0)
        rate = config.lr * factor(row["i"])
        assert rate == pytest.approx(row["lr_used"], abs=1e-9)
        outcome = ours.update([Pass({"loss": loss})], rate)
        updates += not outcome.skipped
        assert updates == row["param_update_step"], row
        if row["kind"] != "nan_loss":
            assert outcome.grad_norm == pytest.approx(row["grad_norm_returned"], rel=1e-6)
        for name, key in names.items():
            after = tensors[f"opt.{row['i']}.after.{name}"]
            torch.testing.assert_close(module[key].detach(), after, rtol=1e-6, atol=1e-6)
    assert "skip" in [row["kind"] for row in rule["rows"]]
