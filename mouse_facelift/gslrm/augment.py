"""Augmentation that stays true: a sample's whole world is turned and scaled, its pictures are not touched.

A world similarity changes all cameras of a sample together and no intrinsics (docs/architecture.md, legal
operation ii), so the same pictures show the turned, larger or smaller animal exactly.
"""

import math

import torch
from torch import Tensor

from ..geometry.rays import CameraBatch
from .config import AugmentConfig


def augment(cameras: CameraBatch, config: AugmentConfig, generator: torch.Generator) -> CameraBatch:
    """Draw one turn about the vertical axis and one scale per sample, and move its cameras accordingly.

    Args:
        cameras: Model units, Z up.
        config: What to draw; what is switched off changes no bit.
        generator: On the CPU. The same numbers are taken from it whatever is switched on.
    """
    turn, share = torch.rand(2, len(cameras.K), generator=generator, dtype=torch.float64)
    least, most = config.scale
    angle = 2 * math.pi * turn if config.yaw else torch.zeros_like(turn)
    return cameras.similarity(least + (most - least) * share, yaw_rotation(angle))


def yaw_rotation(angle: Tensor) -> Tensor:
    """Rotation about +z, counter-clockwise seen from above. angle: radians [B] -> [B, 3, 3]"""
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    rows = (cos, -sin, zero, sin, cos, zero, zero, zero, one)
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))
