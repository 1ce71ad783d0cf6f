import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.optim.swa_utils import AveragedModel

from mouse_facelift.training.config import OptimizerConfig
from mouse_facelift.training.optimizer import make_adamw
from mouse_facelift.training.schedule import averaging, lr_factor


def test_warm_up_starts_at_zero_and_cosine_ends_at_zero_for_good() -> None:
    factor = lr_factor(OptimizerConfig(warmup_steps=4), total=12)
    assert [factor(k) for k in range(4)] == [0, 0.25, 0.5, 0.75]
    assert factor(4) == 1
    assert factor(8) == pytest.approx(0.5)
    assert factor(12) == pytest.approx(0)
    assert factor(20) == pytest.approx(0)
    assert all(factor(k) > factor(k + 1) for k in range(4, 12))


def test_constant_schedule_stays_after_warm_up() -> None:
    factor = lr_factor(OptimizerConfig(warmup_steps=2, schedule="constant"), total=5)
    assert [factor(k) for k in range(5)] == [0, 0.5, 1, 1, 1]


def test_no_warm_up_starts_at_the_peak() -> None:
    assert lr_factor(OptimizerConfig(warmup_steps=0), total=5)(0) == 1


@pytest.mark.parity
def test_average_decays_as_the_published_one(shared: Path) -> None:
    fixture = json.loads((shared / "fixtures/facelift/train_diffusion.json").read_text())
    published = fixture["ema_decay_by_optimization_step"]
    module = torch.nn.Linear(1, 1, bias=False).double()
    average = AveragedModel(module, multi_avg_fn=averaging(0.9999))
    last = max(int(step) for step in published if int(step) <= 1000)
    for update in range(1, last + 1):
        torch.nn.init.ones_(module.weight)
        torch.nn.init.zeros_(average.module.weight)
        average.update_parameters(module)
        if str(update) in published:
            decay = 1 - float(average.module.weight.detach())
            assert math.isclose(decay, published[str(update)], abs_tol=1e-9), update


@pytest.fixture(scope="module")
def published(shared: Path) -> dict[str, Any]:
    return json.loads((shared / "fixtures/facelift/schedules.json").read_text())


@pytest.mark.parity
def test_rates_are_the_published_ones_up_to_the_last_update(published: dict[str, Any]) -> None:
    """After it theirs rise again, and ours stay at 0."""
    schedules = published["gslrm_lr"]
    assert schedules
    for facts in schedules.values():
        config = OptimizerConfig(lr=facts["base_lr"], warmup_steps=facts["warmup"])
        factor = lr_factor(config, facts["total"])
        for update, rate in facts["lr_used_by_update_number"].items():
            expected = rate if int(update) <= facts["total"] else 0.0
            found = facts["base_lr"] * factor(int(update))
            assert found == pytest.approx(expected, rel=1e-7, abs=1e-7 * facts["base_lr"]), update


@pytest.mark.parity
def test_updates_are_the_published_ones(shared: Path, published: dict[str, Any]) -> None:
    """AdamW, its groups, clipping and rates.

    Theirs cleans gradients that are not finite and leaves out updates whose gradient is far too long or whose
    loss is not finite; our loop stops at what is not finite. Here both are done as theirs.
    """
    tensors = load_file(shared / "fixtures/facelift/schedules.safetensors")
    rule = published["optimizer_rule"]
    names = {name: name.replace(".", "_") for name in rule["order"]}
    module = torch.nn.ParameterDict({key: tensors[f"opt.init.{name}"] for name, key in names.items()})
    config = OptimizerConfig(
        lr=rule["base_lr"],
        betas=rule["betas"],
        weight_decay=rule["weight_decay"],
        warmup_steps=rule["warmup"],
        max_grad_norm=rule["max_norm"],
    )
    adamw, factor = make_adamw(module, config, fused=False), lr_factor(config, rule["total"])
    groups = [{"weight_decay": g["weight_decay"], "n": len(g["params"])} for g in adamw.param_groups]
    assert groups == rule["groups"]
    taken = 0
    for row in rule["rows"]:
        recorded = f"opt.{row['i']}"
        rate = config.lr * factor(row["i"])
        assert rate == pytest.approx(row["lr_used"], abs=1e-9)
        if row["param_update_step"] > taken:
            for name, key in names.items():
                gradient = tensors[f"{recorded}.grad.{name}"]
                module[key].grad = gradient.nan_to_num(nan=0.0, posinf=1e-3, neginf=-1e-3)
            norm = torch.nn.utils.clip_grad_norm_(module.parameters(), config.max_grad_norm)
            assert float(norm) == pytest.approx(row["grad_norm_returned"], rel=1e-6)
            for group in adamw.param_groups:
                group["lr"] = rate
            adamw.step()
            taken = row["param_update_step"]
        for name, key in names.items():
            after = tensors[f"{recorded}.after.{name}"]
            torch.testing.assert_close(module[key].detach(), after, rtol=1e-6, atol=1e-6)
    assert taken
