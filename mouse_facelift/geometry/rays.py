"""Cameras as batched tensors and the ray of every pixel: what the networks and renderers see of a camera."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from .cameras import Camera


@dataclass(frozen=True, eq=False)
class CameraBatch:
    """V pinhole cameras for each of B samples: `x_cam = R X + t`, half-pixel centres.

    Attributes:
        K: Intrinsics in pixels. [B, V, 3, 3]
        w2c: World-to-camera, rigid, OpenCV. [B, V, 4, 4]

    Raises:
        DataError: the shapes do not belong together.
    """

    K: Tensor
    w2c: Tensor

    def __post_init__(self) -> None:
        lead = tuple(self.K.shape[:-2])
        if len(lead) != 2 or self.K.shape != (*lead, 3, 3) or self.w2c.shape != (*lead, 4, 4):
            raise DataError(
                f"cameras: K has shape {tuple(self.K.shape)} and w2c {tuple(self.w2c.shape)}, "
                "expected [B, V, 3, 3] and [B, V, 4, 4]."
            )

    def select(self, views: Tensor) -> "CameraBatch":
        """The cameras of some views, chosen per sample. views: indices [B, k]"""
        return CameraBatch(select_views(self.K, views), select_views(self.w2c, views))

    def similarity(self, scale: Tensor, rotation: Tensor) -> "CameraBatch":
        """The cameras in the world `X' = scale * rotation @ X`: R' = R Q^T, t' = s t; K untouched.

        Args:
            scale: Positive, one number for all cameras of a sample. [B]
            rotation: Proper rotation Q, likewise. [B, 3, 3]
        """
        # In float64: autocast and TF32 leave it alone, and the new rotation is rounded once.
        w2c = self.w2c.double()
        moved = w2c.clone()
        moved[..., :3, :3] = w2c[..., :3, :3] @ rotation.to(w2c).mT[:, None]
        moved[..., :3, 3] = w2c[..., :3, 3] * scale.to(w2c)[:, None, None]
        return CameraBatch(self.K, moved.to(self.w2c.dtype))

    def to(self, device: torch.device | str) -> "CameraBatch":
        """Move to a device."""
        return CameraBatch(self.K.to(device), self.w2c.to(device))


def camera_tensors(cameras: Iterable[Camera]) -> tuple[Tensor, Tensor]:
    """Several cameras as networks and renderers take them: K [V, 3, 3] and w2c [V, 4, 4]."""
    K, w2c = zip(*((camera.K, camera.w2c) for camera in cameras), strict=True)
    return torch.from_numpy(np.stack(K)).float(), torch.from_numpy(np.stack(w2c)).float()


def select_views(values: Tensor, views: Tensor) -> Tensor:
    """Take some views of each sample.

    Args:
        values: Anything per view. [B, V, ...]
        views: Indices, chosen per sample. [B, k]

    Returns:
        The chosen views in the given order. [B, k, ...]
    """
    views = views.to(values.device)
    return values[torch.arange(len(values), device=values.device)[:, None], views]


def pixel_rays(K: Tensor, w2c: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Origin and direction of the ray through every pixel centre (facelift_spec 2.1).

    Element-wise arithmetic only: a matrix product would be rounded to bf16 under autocast, or to TF32.

    Args:
        K: Intrinsics in pixels, half-pixel centres, upper-triangular. [B, V, 3, 3]
        w2c: World-to-camera, rigid, OpenCV. [B, V, 4, 4]
        height: Image height in pixels.
        width: Image width in pixels.

    Returns:
        Camera centres, constant over each image, in world units, and unit directions in the world frame.
        Both [B, V, 3, H, W].
    """
    u = torch.arange(width, dtype=K.dtype, device=K.device) + 0.5
    v = torch.arange(height, dtype=K.dtype, device=K.device)[:, None] + 0.5
    k = K[..., None, None]
    y = ((v - k[:, :, 1, 2]) / k[:, :, 1, 1]).expand(-1, -1, height, width)
    x = (u - k[:, :, 0, 2] - k[:, :, 0, 1] * y) / k[:, :, 0, 0]
    in_camera = torch.stack([x, y, torch.ones_like(x)], dim=2)
    in_camera = in_camera / in_camera.norm(dim=2, keepdim=True)

    R, t = w2c[..., :3, :3], w2c[..., :3, 3:]
    centers = -(R * t).sum(dim=-2)
    # R^T r, row by row of R. Normalised again because float32 rotations are orthonormal only to 1e-7.
    rows = R[..., None, None]
    directions = sum(in_camera[:, :, i, None] * rows[:, :, i] for i in range(3))
    directions = directions / directions.norm(dim=2, keepdim=True)
    return centers[..., None, None].expand_as(directions), directions
