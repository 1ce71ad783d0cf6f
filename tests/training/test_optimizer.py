from torch import nn

from mouse_facelift.training.config import OptimizerConfig
from mouse_facelift.training.optimizer import make_adamw


def test_matrices_decay_and_norms_biases_and_frozen_parts_do_not() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4, bias=False))
    module[2].requires_grad_(False)
    decaying, others = make_adamw(module, OptimizerConfig(weight_decay=0.1), fused=False).param_groups
    assert decaying["weight_decay"] == 0.1 and others["weight_decay"] == 0
    assert [id(p) for p in decaying["params"]] == [id(module[0].weight)]
    assert {id(p) for p in others["params"]} == {id(module[0].bias), *map(id, module[1].parameters())}
