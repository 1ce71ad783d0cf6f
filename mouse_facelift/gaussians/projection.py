"""EWA projection: 3D Gaussians become 2D Gaussians ("splats") in every image, in plain differentiable torch.

Zwicker et al., "EWA Splatting" (2002), as in 3D Gaussian splatting: the camera is linearised at each centre.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .gaussians import Gaussians

NEAR = 0.2
"""Gaussians whose centre is nearer to the camera plane than this are not drawn, world units."""

DILATION_PX2 = 0.3
"""Added to both variances of a splat, so that none falls between pixels."""

SLOPE_MARGIN = 0.15
"""How far outside the image the camera may still be linearised, as a share of the image size on each side."""


@dataclass(frozen=True)
class Splats:
    """N 2D Gaussians in each of V images of B scenes; `opacity * exp(-(xx dx^2 + yy dy^2)/2 - xy dx dy)`.

    Attributes:
        center: Pixels, half-pixel centres. [B, V, N, 2]
        conic: Inverse of the covariance, xx, xy, yy in 1/pixel^2. [B, V, N, 3]
        covariance: xx, xy, yy in pixel^2. [B, V, N, 3]
        depth: Along the optical axis, world units; where it is <= `NEAR` the rest means nothing. [B, V, N]
    """

    center: Tensor
    conic: Tensor
    covariance: Tensor
    depth: Tensor


def project(
    gaussians: Gaussians, K: Tensor, w2c: Tensor, width: int, height: int, *, symmetric_limits: bool = False
) -> Splats:
    """Project B scenes of N Gaussians into V cameras each.

    Far outside the image the linearisation blows up, so the slopes x/z and y/z at which it is taken are
    limited to the image plus a margin of 15 % on each side.

    Args:
        gaussians: Batched. [B, N, ...]
        K: Intrinsics in pixels, no skew. [B, V, 3, 3]
        w2c: World-to-camera. [B, V, 4, 4]
        width: Image width in pixels.
        height: Image height in pixels.
        symmetric_limits: Centre the slope limits on the optical axis, as the published rasterizer does,
            instead of on the image, as gsplat does. The same where the principal point is the image centre.
    """
    batch, count = gaussians.means.shape[:2]
    views = K.shape[1]
    rotations = w2c[..., :3, :3].reshape(batch, 3 * views, 3)
    in_camera = (rotations @ gaussians.means.mT).view(batch, views, 3, count) + w2c[..., :3, 3:]
    axes = (rotations @ principal_axes(gaussians).flatten(2)).view(batch, views, 3, 3, count)

    depth = in_camera[:, :, 2]
    z = depth.clamp_min(NEAR / 2)
    rows, means = [], []
    for axis, size in enumerate((width, height)):
        focal, principal = K[..., axis, axis, None], K[..., axis, 2, None]
        slope = in_camera[:, :, axis] / z
        middle = torch.full_like(principal, size / 2) if symmetric_limits else principal
        margin = SLOPE_MARGIN * size
        limited = slope.clamp(-(middle + margin) / focal, (size - middle + margin) / focal)
        # A row of J W R S, so that the covariance is the product of the rows: always positive definite.
        rows.append((focal / z)[:, :, None] * (axes[:, :, axis] - limited[:, :, None] * axes[:, :, 2]))
        means.append(focal * slope + principal)

    xx, yy = (row.square().sum(2) for row in rows)
    xy = (rows[0] * rows[1]).sum(2)
    # |a|^2 |b|^2 - (a.b)^2 = |a x b|^2 keeps the determinant positive where the difference would cancel.
    cross = torch.linalg.cross(rows[0], rows[1], dim=2).square().sum(2)
    determinant = cross + DILATION_PX2 * (xx + yy) + DILATION_PX2**2
    xx, yy = xx + DILATION_PX2, yy + DILATION_PX2
    conic = torch.stack([yy, -xy, xx], -1) / determinant[..., None]
    return Splats(torch.stack(means, -1), conic, torch.stack([xx, xy, yy], -1), depth)


def principal_axes(gaussians: Gaussians) -> Tensor:
    """Principal axes times standard deviations, R S. [B, 3, 3, N], columns are axes, N last for speed."""
    w, x, y, z = F.normalize(gaussians.quats, dim=-1).unbind(-1)
    rotation = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, 1) for row in rotation], 1) * gaussians.scales.mT[:, None]
