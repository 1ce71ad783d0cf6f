"""Whatever draws random numbers, an interrupted run ends as an undisturbed one, bit for bit."""

import random
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_tensors import assert_same_end
from forgetful_toy import Forgetful, steps, train
from torch import nn
from torch.optim.swa_utils import AveragedModel

from mouse_facelift.errors import CheckpointError
from mouse_facelift.training.state import (
    TrainState,
    generator_state,
    read_generators,
    restore_generators,
    untouched_generators,
)


def draws() -> list[float]:
    legacy = float(np.random.normal())  # noqa: NPY002
    return [random.random(), random.gauss(), legacy, float(torch.rand(()))]


def test_generators_go_on_where_they_were_through_a_file(tmp_path: Path) -> None:
    draws()  # leaves half of a pair of Gaussian numbers behind, in Python and in NumPy
    torch.save({"ranks": [generator_state()]}, tmp_path / "rng.pt")
    expected = draws() + draws()
    stored = read_generators(tmp_path, rank=0)
    assert stored is not None
    restore_generators(stored)
    assert draws() + draws() == expected
    assert read_generators(tmp_path, rank=1) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_generator_of_the_gpu_goes_on_where_it_was(tmp_path: Path) -> None:
    torch.save({"ranks": [generator_state()]}, tmp_path / "rng.pt")
    expected = torch.rand(5, device="cuda")
    stored = read_generators(tmp_path, rank=0)
    assert stored is not None
    restore_generators(stored)
    assert torch.equal(torch.rand(5, device="cuda"), expected)


def test_what_a_block_draws_is_not_missed_afterwards() -> None:
    before = generator_state()
    expected = draws()
    restore_generators(before)
    with untouched_generators():
        draws()
    assert draws() == expected


@pytest.mark.parametrize("workers", [0, 1])
def test_interrupted_equals_undisturbed_with_dropout_and_every_generator(
    tmp_path: Path, workers: int
) -> None:
    settings = {"steps": 4, "gradient_accumulation": 2, "workers": workers, "validate_every": 1}
    whole, first, second = Forgetful(), Forgetful(interrupt_at=3), Forgetful(seed=99)
    train(tmp_path / "whole", whole, **settings)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", first, **settings)
    train(tmp_path / "parts", second, seed=99, **settings)
    assert steps(tmp_path / "parts") == [2, 4]
    assert first.seen + second.seen == whole.seen
    assert_same_end(tmp_path / "parts", tmp_path / "whole")


def make_state(average: bool) -> TrainState:
    module = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return TrainState(module, optimizer, AveragedModel(module) if average else None)


@pytest.mark.parametrize("average", [False, True])
def test_size_is_that_of_the_tensors_on_disk(tmp_path: Path, average: bool) -> None:
    state = make_state(average)
    state.capture().write(tmp_path, {}, [])
    tensors = 8 * 4
    # Two momenta and a step count for weight and bias; the weights for inference are the task's to write.
    assert state.size() == tensors * (2 + average) + 2 * tensors + 2 * 4
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) >= state.size() - tensors


def test_counters_come_back(tmp_path: Path) -> None:
    make_state(False).capture().write(tmp_path, {"updates": 5, "samples": 40}, [generator_state()])
    assert make_state(True).read(tmp_path) == {"updates": 5, "samples": 40}


def test_state_of_another_model_is_refused(tmp_path: Path) -> None:
    make_state(False).capture().write(tmp_path, {}, [])
    other = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(CheckpointError, match="does not fit the model"):
        TrainState(other, torch.optim.AdamW(other.parameters())).read(tmp_path)


def test_full_disk_is_an_os_error(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, limits[1]))
    try:
        with pytest.raises(OSError, match=r"optimizer\.pt"):
            make_state(False).capture().write(tmp_path, {}, [])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
