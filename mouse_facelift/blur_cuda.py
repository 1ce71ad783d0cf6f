"""Weighted sums along one axis as one CUDA kernel: every value is read from memory about once."""

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


def weighted_sums(images: Tensor, weights: tuple[float, ...], axis: int, padding: int) -> Tensor:
    """See `blur.gaussian_blur`, of which this is one axis.

    Args:
        images: float32. [..., H, W]
        weights: Of a window, first to last.
        axis: -1 or -2.
        padding: Zeros thought before and behind.

    Returns:
        The axis is `2 * padding - len(weights) + 1` longer.
    """
    images = images.contiguous()
    shape = list(images.shape)
    shape[axis] += 2 * padding - len(weights) + 1
    sums = images.new_empty(shape)
    # Values that lie between two neighbours along the axis.
    stride = 1 if axis == -1 else images.shape[-1]
    grid = (triton.cdiv(sums.numel(), BLOCK),)
    with torch.cuda.device(images.device):
        _weighted_sums[grid](
            images,
            _on_device(weights, images.device),
            sums,
            images.shape[axis],
            shape[axis],
            stride,
            sums.numel(),
            padding,
            TAPS=len(weights),
            BLOCK=BLOCK,
        )
    return sums


@functools.cache
def _on_device(weights: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(weights, dtype=torch.float32, device=device)


@triton.jit
def _weighted_sums(
    images,
    weights,
    sums,
    length,
    new_length,
    stride,
    count,
    padding,
    TAPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """`sums` is [outer, new_length, stride], `images` [outer, length, stride]."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inner, row = place % stride, place // stride
    first = row % new_length - padding
    source = images + (row // new_length) * length * stride + inner
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for tap in tl.static_range(TAPS):
        at = first + tap
        inside = (at >= 0) & (at < length) & (place < count)
        total += tl.load(weights + tap) * tl.load(source + at * stride, mask=inside, other=0.0)
    tl.store(sums + place, total, mask=place < count)
