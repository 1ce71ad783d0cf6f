"""A separable Gaussian over full windows, with a gradient that costs no more than the blur itself."""

import functools
import importlib.util
import logging
import os
import shutil
import sysconfig
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

log = logging.getLogger(__name__)


def gaussian_blur(images: Tensor, taps: int, sigma: float) -> Tensor:
    """Weighted means over windows that lie wholly inside, in float32 throughout.

    Not by convolutions: those run in TF32 on GPUs, and what is blurred here may be subtracted from its like.

    Args:
        images: float32. [..., H, W], both at least `taps`
        taps: Side of the window, odd.
        sigma: Standard deviation, pixels.

    Returns:
        [..., H - taps + 1, W - taps + 1]
    """
    blurred: Tensor = _Blur.apply(images, taps, sigma)
    return blurred


class _Blur(torch.autograd.Function):
    """Along columns, then rows. The window is symmetric, so the gradient is the padded gradient blurred."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, taps: int, sigma: float) -> Tensor:
        ctx.taps, ctx.sigma = taps, sigma
        return _both_axes(images, taps, sigma, padding=0)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None]:
        return _both_axes(gradients[0], ctx.taps, ctx.sigma, padding=ctx.taps - 1), None, None


def _both_axes(images: Tensor, taps: int, sigma: float, padding: int) -> Tensor:
    """[..., H, W] -> [..., H + 2 * padding - taps + 1, likewise]"""
    weights = _window(taps, sigma)
    if images.device.type == "cuda" and images.dtype == torch.float32 and has_triton():
        from .blur_cuda import weighted_sums

        return weighted_sums(weighted_sums(images, weights, -1, padding), weights, -2, padding)
    for axis in (-1, -2):
        images = _shifted_sums(images, weights, axis, padding)
    return images


def _shifted_sums(images: Tensor, weights: tuple[float, ...], axis: int, padding: int) -> Tensor:
    """One axis, tap by tap."""
    if padding:
        images = F.pad(images, (padding, padding) if axis == -1 else (0, 0, padding, padding))
    length = images.shape[axis] - len(weights) + 1
    total = weights[0] * images.narrow(axis, 0, length)
    for start, weight in enumerate(weights[1:], start=1):
        total.add_(images.narrow(axis, start, length), alpha=weight)
    return total


@functools.cache
def _window(taps: int, sigma: float) -> tuple[float, ...]:
    """Its sum is 1."""
    offsets = torch.arange(taps, dtype=torch.float64) - taps // 2
    window = (-offsets.square() / (2 * sigma**2)).exp()
    return tuple((window / window.sum()).tolist())


@functools.cache
def has_triton() -> bool:
    """Whether its kernels can be compiled: CUDA builds of torch bring Triton, but no C compiler."""
    if importlib.util.find_spec("triton") is None:
        return False
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    if compiler and Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        return True
    log.warning(
        "Triton finds no C compiler, or no Python.h, to compile its kernels; slower code is used on the GPU. "
        "Install gcc and Python's headers (python3-dev)."
    )
    return False
