"""AdamW as both trainers use it, its momenta in 32 or in 8 bits."""

import importlib
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from ..errors import ConfigError, DependencyError
from .config import OptimizerConfig

SMALLEST_8BIT = 16384
"""Tensors with fewer elements keep 32-bit momenta: more than any norm's or bias's of our models has."""


def make_adamw(module: nn.Module, config: OptimizerConfig, fused: bool) -> Optimizer:
    """AdamW over a module's trainable parameters; norms and biases do not decay (facelift_spec 4.4).

    Args:
        module: On its final device. Its attribute `undecayed`, if it has one, names parameters that do not
            decay either.
        config: Kind, rates and momenta. The schedule is not applied here.
        fused: Take torch's fused kernel, which notices fp16 overflow on its own; for kind adamw.

    Raises:
        DependencyError: kind adamw_8bit without bitsandbytes.
    """
    undecayed = getattr(module, "undecayed", ())
    decaying: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            (decaying if parameter.ndim >= 2 and name not in undecayed else others).append(parameter)
    groups = [
        {"params": decaying, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if config.kind == "adamw":
        return AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused or None)
    _need_bitsandbytes()
    adamw_8bit: Callable[..., Optimizer] = importlib.import_module("bitsandbytes").optim.AdamW8bit
    return adamw_8bit(groups, lr=config.lr, betas=config.betas, eps=config.eps, min_8bit_size=SMALLEST_8BIT)


def check_optimizer(config: OptimizerConfig, device: torch.device) -> None:
    """Make sure, before any weights are read, that this machine has what the optimizer needs.

    Raises:
        DependencyError: kind adamw_8bit without bitsandbytes.
        ConfigError: kind adamw_8bit without a CUDA device.
    """
    if config.kind == "adamw":
        return
    _need_bitsandbytes()
    if device.type != "cuda":
        raise ConfigError(
            f"optimizer.kind is {config.kind}, which is for CUDA devices; this run is on {device.type}. Set "
            "optimizer.kind=adamw."
        )


def _need_bitsandbytes() -> None:
    if find_spec("bitsandbytes") is None:
        raise DependencyError(
            "optimizer.kind is adamw_8bit, which needs bitsandbytes, and it is not installed. "
            "pip install 'mouse-facelift[adam8bit]', or set optimizer.kind=adamw."
        )
