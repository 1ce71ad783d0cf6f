"""What is trained, apart from what is frozen."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from mouse_facelift.errors import CheckpointError
from mouse_facelift.training.schedule import averaging
from mouse_facelift.training.trainable import frozen_hash, load_trained_state, share_frozen, trained_state


@pytest.fixture
def module() -> nn.Module:
    """The first layer is frozen, the batch norm's buffers belong to what is trained."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    module[0].requires_grad_(False)
    return module


def test_state_holds_trained_parameters_and_buffers_and_comes_back(module: nn.Module) -> None:
    state = trained_state(module)
    assert not any(name.startswith("0.") for name in state)
    assert {"1.running_mean", "2.weight"} <= state.keys()
    other = copy.deepcopy(module)
    other[2].weight.data.zero_()
    load_trained_state(other, state)
    assert torch.equal(other[2].weight, module[2].weight)


def test_state_of_other_parameters_is_refused(module: nn.Module) -> None:
    state = trained_state(module)
    state["3.weight"] = state.pop("2.weight")
    with pytest.raises(CheckpointError, match=r"missing 2\.weight; unexpected 3\.weight"):
        load_trained_state(module, state)


def test_average_takes_frozen_parameters_from_the_module_itself(module: nn.Module) -> None:
    average = AveragedModel(module, multi_avg_fn=averaging(0.9))
    share_frozen(module, average.module)
    frozen, before = module[0].weight, module[0].weight.clone()
    assert average.module[0].weight.data_ptr() == frozen.data_ptr()
    assert average.module[2].weight.data_ptr() != module[2].weight.data_ptr()
    for _ in range(3):
        module[2].weight.data.add_(1)
        average.update_parameters(module)
    assert torch.equal(frozen, before)
    assert not torch.equal(average.module[2].weight, module[2].weight)


def test_hash_tells_frozen_parameters_apart(module: nn.Module) -> None:
    before = frozen_hash(module)
    module[2].weight.data.add_(1)
    assert frozen_hash(module) == before is not None
    module[0].weight.data[0, 0] += 1
    assert frozen_hash(module) != before
    assert frozen_hash(module.requires_grad_(True)) is None


def test_half_precision_can_be_hashed() -> None:
    assert frozen_hash(nn.Linear(3, 2).bfloat16().requires_grad_(False)) is not None
