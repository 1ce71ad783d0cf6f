"""Which of PyTorch's attention kernels to try first."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

KERNELS = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
"""In the order of preference on Hopper and later."""


@contextmanager
def preferred_attention(device: torch.device) -> Iterator[None]:
    """Let `scaled_dot_product_attention` try cuDNN's kernels first where these are the fastest."""
    if device.type != "cuda" or not is_hopper(device.index or 0):
        yield
        return
    with sdpa_kernel(KERNELS, set_priority=True):
        yield


@torch.compiler.assume_constant_result
def is_hopper(device: int) -> bool:
    """Or later."""
    return _capability(device) >= (9, 0)


@functools.cache
def _capability(device: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)
