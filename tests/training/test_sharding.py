import pytest
import torch
from torch import nn

from mouse_facelift.errors import ConfigError
from mouse_facelift.training.config import OptimizerConfig, TrainingConfig
from mouse_facelift.training.sharding import blocks, check_sharding, local, spread, wants_sharding, whole


def numbers(count: int) -> nn.Module:
    return nn.Linear(count, 1, bias=False)


@pytest.mark.parametrize(
    ("least", "most", "expected"),
    [(1, 10, [6, 2, 4]), (3, 10, [6, 4]), (1, 5, [3, 3, 6, 2, 4]), (20, 30, [])],
)
def test_blocks_are_members_of_lists_and_divided_where_they_are_large(
    least: int, most: int, expected: list[int]
) -> None:
    inner = nn.Sequential(nn.ModuleList([numbers(3), numbers(3)]))
    network = nn.ModuleDict(
        {"down": nn.ModuleList([inner, numbers(2)]), "up": nn.ModuleList([numbers(4)]), "out": numbers(50)}
    )
    sizes = [sum(p.numel() for p in block.parameters()) for block in blocks(network, least, most)]
    assert sizes == expected


@pytest.mark.parametrize(
    ("training", "optimizer", "message"),
    [
        ({"precision": "fp16"}, {}, "precision=fp16. Set it to bf16"),
        ({}, {"kind": "adamw_8bit"}, "kind=adamw_8bit. Set optimizer.kind=adamw"),
    ],
)
def test_what_takes_parameters_for_whole_is_refused(
    training: dict[str, str], optimizer: dict[str, str], message: str
) -> None:
    rule = OptimizerConfig.model_validate(optimizer)
    check_sharding(TrainingConfig.model_validate(training), rule)
    with pytest.raises(ConfigError, match=message):
        check_sharding(TrainingConfig.model_validate({"fsdp": True, **training}), rule)


def test_launcher_may_ask_for_sharding(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not wants_sharding(TrainingConfig())
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert wants_sharding(TrainingConfig())


def test_plain_tensors_are_whole_already() -> None:
    tensor = torch.ones(3)
    assert whole(tensor) is local(tensor) is spread(tensor, torch.zeros(3)) is tensor
