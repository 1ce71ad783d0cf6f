import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from mouse_facelift.mvdiffusion.config import MVDiffOptimizerConfig, MVDiffTrainingConfig
from mouse_facelift.training.config import OptimizerConfig
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


@pytest.fixture(scope="module")
def diffusion(shared: Path) -> dict[str, Any]:
    return json.loads((shared / "fixtures/facelift/train_diffusion.json").read_text())


@pytest.mark.parity
def test_average_decays_as_the_published_one(diffusion: dict[str, Any]) -> None:
    """Before the first update there is nothing to average yet, which theirs counts as update 0."""
    published = {int(update): decay for update, decay in diffusion["ema_decay_by_optimization_step"].items()}
    module = torch.nn.Linear(1, 1, bias=False).double()
    average = AveragedModel(module, multi_avg_fn=averaging(MVDiffTrainingConfig().ema_decay))
    assert any(published.values())
    for update, expected in published.items():
        if update > 0:
            average.n_averaged.fill_(update - 1)
            torch.nn.init.ones_(module.weight)
            torch.nn.init.zeros_(average.module.weight)
            average.update_parameters(module)
            decay = 1 - float(average.module.weight.detach())
            assert math.isclose(decay, expected, abs_tol=1e-9), update


@pytest.mark.parity
def test_diffusion_rate_is_the_published_one_until_it_is_halved(diffusion: dict[str, Any]) -> None:
    """Theirs ignores warm-up, and halves after ten times the length of the published training."""
    published = {int(update): rate for update, rate in diffusion["piecewise_lr"].items()}
    config = MVDiffOptimizerConfig(lr=published[min(published)], warmup_steps=0)
    factor = lr_factor(config, total=max(published))
    compared = {update: rate for update, rate in published.items() if rate == config.lr}
    assert len(compared) > 1
    assert {update: config.lr * factor(update) for update in compared} == pytest.approx(compared)


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
