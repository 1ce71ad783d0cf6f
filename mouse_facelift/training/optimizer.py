"""AdamW as both trainers use it."""

from torch import nn
from torch.optim import AdamW

from .config import OptimizerConfig


def make_adamw(module: nn.Module, config: OptimizerConfig, fused: bool) -> AdamW:
    """AdamW over a module's trainable parameters; norms and biases do not decay (facelift_spec 4.4).

    Args:
        module: On its final device.
        config: Rates and momenta. The schedule is not applied here.
        fused: Take torch's fused kernel, which notices fp16 overflow on its own.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused or None)
