"""FlashAttention-4's kernels for long sequences, where the optional package is installed.

On an H200, at the 24,578 tokens of six views of 512 pixels, they take less time than cuDNN's, most of all
with gradients (docs/benchmarks.md). As operators of PyTorch they are no break in a compiled graph.
"""

import functools
import importlib
import importlib.util
import types
from typing import Any

import torch
from torch import Tensor

from ..attention_kernels import is_hopper

MIN_TOKENS = 8192
"""Shorter sequences do not make up for the slower launch; they are replayed as graphs (`graphs.py`)."""

HEAD_WIDTHS = (64, 128)


def suits_flash4(device: torch.device, dtype: torch.dtype, tokens: int, head_width: int) -> bool:
    """Whether `attend` can be used, and shall be, for sequences of `tokens`."""
    half = dtype in (torch.float16, torch.bfloat16)
    suits = device.type == "cuda" and half and tokens >= MIN_TOKENS and head_width in HEAD_WIDTHS
    return suits and is_hopper(device.index or 0) and _installed()


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Full attention, heads before tokens. [B, H, L, D] -> [B, H, L, D]"""
    found: Tensor = _forward(*(x.transpose(1, 2) for x in (q, k, v)))[0]
    return found.transpose(1, 2)


@torch.compiler.assume_constant_result
def _installed() -> bool:
    return _package_is_there()


@functools.cache
def _package_is_there() -> bool:
    try:
        return importlib.util.find_spec("flash_attn.cute") is not None
    except ModuleNotFoundError:
        return False


def _kernels() -> types.ModuleType:
    return importlib.import_module("flash_attn.cute.interface")


# Operators: tokens before heads


@torch.library.custom_op("mouse_facelift::flash4", mutates_args=())
def _forward(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The result [B, L, H, D] and, for the backward pass, the scores' logarithmic sums, fp32 [B, H, L]."""
    out, sums = _kernels()._flash_attn_fwd(q, k, v, return_lse=True)[:2]
    return out, sums


@torch.library.custom_op("mouse_facelift::flash4_backward", mutates_args=())
def _backward(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, sums: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v. [B, L, H, D]"""
    dq, dk, dv = (_packed(x) for x in (q, k, v))
    _kernels()._flash_attn_bwd(q, k, v, out, grad.contiguous(), sums, dq=dq, dk=dk, dv=dv)
    return dq, dk, dv


@_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    batch, length, heads, _ = q.shape
    return _packed(q), q.new_empty(batch, heads, length, dtype=torch.float32)


@_backward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, sums: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return _packed(q), _packed(k), _packed(v)


def _packed(like: Tensor) -> Tensor:
    return torch.empty_like(like, memory_format=torch.contiguous_format)


def _remember(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor, Tensor, Tensor]:
    found: tuple[Tensor, Tensor, Tensor] = _backward(*ctx.saved_tensors, grad)
    return found


_forward.register_autograd(_gradients, setup_context=_remember)
