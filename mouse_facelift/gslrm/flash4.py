"""FlashAttention-4's kernels for long sequences, where the optional package is installed.

On an H200, at the 24,578 tokens of six views of 512 pixels, they take an eighth less time than cuDNN's
forward and a fifth less with gradients (docs/benchmarks.md).
"""

import functools
import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MIN_TOKENS = 8192
"""Shorter sequences do not make up for the slower launch; they are replayed as graphs (`graphs.py`)."""

Kernel = Callable[..., tuple[Tensor, Tensor]]


def flash4_for(q: Tensor) -> Kernel | None:
    """The kernel that suits `q` [B, H, L, D], or None."""
    suits = q.is_cuda and q.dtype in (torch.float16, torch.bfloat16) and q.shape[2] >= MIN_TOKENS
    return _kernel(q.device.index or 0) if suits else None


def attend(kernel: Kernel, q: Tensor, k: Tensor, v: Tensor, padding: int) -> Tensor:
    """Full attention over rows of which the last `padding` are zeros and take no part.

    Of the softmax's denominator exp(logsumexp), padding * exp(0) does not belong.

    Args:
        kernel: Takes q, k, v [B, L, H, D] and `return_lse`; returns the result [B, L, H, D] and, in float32,
            the logarithm of the denominators [B, H, L], both differentiable.
        q: [B, H, L, D]
        k: [B, H, L, D]
        v: [B, H, L, D]
        padding: 0 or more.

    Returns:
        [B, H, L, D]; the last `padding` rows are zeros.
    """
    if not padding:
        return kernel(*(x.transpose(1, 2) for x in (q, k, v)))[0].transpose(1, 2)
    k, v = (_WithoutGradientOfPadding.apply(x, padding) for x in (k, v))
    out, logsumexp = kernel(*(x.transpose(1, 2) for x in (q, k, v)), return_lse=True)
    factor = (1 - padding * torch.exp(-logsumexp)).reciprocal()
    real = torch.arange(q.shape[2], device=q.device) < q.shape[2] - padding
    factor = torch.where(real, factor, 0)
    # In half precision a factor so near 1 would be a rougher one.
    return (out.transpose(1, 2) * factor[..., None]).to(out.dtype)


class _WithoutGradientOfPadding(torch.autograd.Function):
    """Rows of zeros must stay zeros: what flows back to them would grow from layer to layer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, padding: int) -> Tensor:
        ctx.padding = padding
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        gradient = gradients[0].clone()
        gradient[:, :, -ctx.padding :] = 0
        return gradient, None


@functools.cache
def _kernel(device: int) -> Kernel | None:
    """It wants Hopper or later; None too where the package is absent."""
    if torch.cuda.get_device_capability(device) < (9, 0):
        return None
    try:
        # Opaque to torch.compile, which would trace into its own compiler.
        return torch.compiler.disable(importlib.import_module("flash_attn.cute").flash_attn_func)
    except ImportError:
        return None
