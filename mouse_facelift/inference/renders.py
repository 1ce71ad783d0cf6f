"""Pictures of a reconstruction beside its colours: depth, coverage, and views from named sides."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..gaussians import Gaussians, render
from ..gaussians.turntable import named_cameras
from ..geometry.rays import camera_tensors
from ..pictures import to_uint8

DEPTH_STEPS = 4096
"""Grey levels of a depth picture per model unit: 16 bits reach 16 units, a camera stands at about 2.7."""

MAX_LEVEL = 2**16 - 1

DEPTH = {
    "unit": "model units along the optical axis, times depth_steps; 0 where coverage is at most one half, "
    f"{MAX_LEVEL} also beyond",
    "depth_steps": DEPTH_STEPS,
}
"""What the numbers in depth pictures mean, for `metrics.json`."""


def depth_levels(depth: Tensor, alpha: Tensor) -> NDArray[np.uint16]:
    """The depth of what is there in 16 bits, see `DEPTH`.

    Args:
        depth: Mean depth of what covers a pixel, model units. [V, 1, H, W]
        alpha: Coverage. [V, 1, H, W]

    Returns:
        [V, H, W]
    """
    levels = (depth[:, 0].double() * DEPTH_STEPS).round().clamp(1, MAX_LEVEL)
    return torch.where(alpha[:, 0] > 0.5, levels, 0).int().cpu().numpy().astype(np.uint16)


def alpha_levels(alpha: Tensor) -> NDArray[np.uint8]:
    """Coverage in 8 bits. [V, 1, H, W] -> [V, H, W]"""
    return (alpha[:, 0].clamp(0, 1) * 255).round().byte().cpu().numpy()


@torch.no_grad()
def named_views(gaussians: Gaussians, size: int, background: float) -> dict[str, NDArray[np.uint8]]:
    """One scene seen from each named side, `top` and so on. [size, size, 3] each"""
    cameras = named_cameras(size)
    K, w2c = camera_tensors(cameras.values())
    pictures = to_uint8(render(gaussians, K, w2c, size, size, background).rgb)
    return dict(zip(cameras, pictures, strict=True))
