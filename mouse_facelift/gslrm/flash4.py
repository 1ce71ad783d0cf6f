"""FlashAttention-4's kernels for long sequences, where the optional package is installed.

On an H200, at the 24,578 tokens of six views of 512 pixels, they take less time than cuDNN's, most of all
with gradients (docs/benchmarks.md).
"""

import functools
import importlib
from collections.abc import Callable

import torch
from torch import Tensor

from ..attention_kernels import is_hopper

MIN_TOKENS = 8192
"""Shorter sequences do not make up for the slower launch; they are replayed as graphs (`graphs.py`)."""

HEAD_WIDTHS = (64, 128)

Kernel = Callable[..., tuple[Tensor, Tensor]]


def flash4_for(device: torch.device, dtype: torch.dtype, tokens: int, head_width: int) -> Kernel | None:
    """The kernel that suits sequences of `tokens`, or None.

    It takes q, k, v [B, L, H, D] and returns the result [B, L, H, D] first.
    """
    half = dtype in (torch.float16, torch.bfloat16)
    suits = device.type == "cuda" and half and tokens >= MIN_TOKENS and head_width in HEAD_WIDTHS
    return _kernel(device.index or 0) if suits else None


def attend(kernel: Kernel, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Full attention, heads before tokens. [B, H, L, D] -> [B, H, L, D]"""
    return kernel(*(x.transpose(1, 2) for x in (q, k, v)))[0].transpose(1, 2)


@functools.cache
def _kernel(device: int) -> Kernel | None:
    """It wants Hopper or later; None too where the package is absent."""
    if not is_hopper(device):
        return None
    try:
        # Opaque to torch.compile, which would trace into its own compiler.
        return torch.compiler.disable(importlib.import_module("flash_attn.cute").flash_attn_func)
    except ImportError:
        return None
