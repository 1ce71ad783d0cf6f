"""Exact attention at lengths that the hardware likes.

The kernels are up to 14 % slower where the number of tokens is not a multiple of the tile. So the tokens are
padded with zeros, and what the padding does to the softmax is taken out again, exactly: a key of zeros has
the score 0 whatever the query, so n of them add n to the denominator. The layers have no biases, so rows of
zeros stay zeros everywhere else, and so do their gradients.
"""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .flash4 import attend, flash4_for

ALIGNMENT = 128
"""Tokens are padded to a multiple of this."""


def padding_for(tokens: Tensor, head_width: int) -> int:
    """Rows of zeros that make attention over `tokens` [B, L, C] fast; 0 where padding does not help."""
    if tokens.device.type != "cuda" or not _has_fast_cudnn(tokens.device.index or 0):
        return 0
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else tokens.dtype
    length, half = tokens.shape[1], dtype in (torch.float16, torch.bfloat16)
    if not half or flash4_for(tokens.device, dtype, length, head_width):
        return 0
    return -length % ALIGNMENT


def attention(q: Tensor, k: Tensor, v: Tensor, padding: int = 0) -> Tensor:
    """Full attention, scores scaled by 1 / sqrt(D).

    Args:
        q: [B, H, L, D]
        k: [B, H, L, D]
        v: [B, H, L, D]
        padding: The last rows of all three are zeros and take no part; the result's are zeros, and its
            gradient's must be. Above 0 only on CUDA in half precision.

    Returns:
        [B, H, L, D]
    """
    if padding == 0:
        if kernel := flash4_for(q.device, q.dtype, *q.shape[2:]):
            return attend(kernel, q, k, v)
        return F.scaled_dot_product_attention(q, k, v)
    return _padded_attention(q, k, v, padding)[0]


# An opaque operator, so that torch.compile leaves it as it is.
@torch.library.custom_op("mouse_facelift::padded_attention", mutates_args=())
def _padded_attention(q: Tensor, k: Tensor, v: Tensor, padding: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Result, logarithm of the denominators, and the kernel's (unused) random state."""
    out, logsumexp, _, _, _, _, seed, offset, _ = torch.ops.aten._scaled_dot_product_cudnn_attention(
        q, k, v, None, True
    )
    # Of the whole denominator exp(logsumexp), padding * exp(0) does not belong.
    share = 1 - padding * torch.exp(-logsumexp)
    out.mul_(share.reciprocal().view(*out.shape[:3], 1))
    out[:, :, -padding:] = 0
    return out, logsumexp.add_(share.log_()), seed, offset


@_padded_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, padding: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    out, logsumexp, _, _, _, _, seed, offset, _ = torch.ops.aten._scaled_dot_product_cudnn_attention(
        q, k, v, None, True
    )
    return out, logsumexp, seed, offset


@torch.library.custom_op("mouse_facelift::padded_attention_backward", mutates_args=())
def _padded_attention_backward(
    gradient: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    seed: Tensor,
    offset: Tensor,
    padding: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """With the true result and denominators the kernel's own formulas are exact for the real rows."""
    gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.aten._scaled_dot_product_cudnn_attention_backward(
        gradient,
        q,
        k,
        v,
        out,
        logsumexp,
        seed,
        offset,
        None,
        None,
        None,
        q.shape[2],
        k.shape[2],
        0.0,
        False,
    )
    for found in gradients[1:]:
        found[:, :, -padding:] = 0
    return gradients


@_padded_attention_backward.register_fake
def _(gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, padding = inputs
    ctx.save_for_backward(q, k, v, *output)
    ctx.padding = padding


def _backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None]:
    q, k, v, out, logsumexp, seed, offset = ctx.saved_tensors
    gradients = _padded_attention_backward(gradient, q, k, v, out, logsumexp, seed, offset, ctx.padding)
    return (*gradients, None)


_padded_attention.register_autograd(_backward, setup_context=_save)


@functools.cache
def _has_fast_cudnn(device: int) -> bool:
    """Its attention is the fastest on Hopper and later, and not everywhere before."""
    return torch.backends.cuda.cudnn_sdp_enabled() and torch.cuda.get_device_capability(device) >= (9, 0)
