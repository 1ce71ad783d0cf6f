import json
import math
from pathlib import Path

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

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
