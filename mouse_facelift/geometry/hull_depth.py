"""Where rays enter the visual hull: tested directly against the silhouettes, without a voxel grid."""

import torch
from torch import Tensor

from ..blur import has_triton
from .rays import CameraBatch

FOREGROUND = 0.5
"""Alpha above which a pixel shows the animal."""

BISECTIONS = 4
"""Halvings of the interval in which a ray enters the hull."""


@torch.no_grad()
def first_hull_depth(
    alpha: Tensor, cameras: CameraBatch, origins: Tensor, directions: Tensor, radius: float, samples: int
) -> Tensor:
    """Distance along each foreground pixel's ray to the first point that lies inside every silhouette.

    A point outside another view's picture is unknown there: such a view has no say, but two views and more
    than half of all must see the point. Two opposite cameras alone see the same outline and could not carve.

    Args:
        alpha: Silhouettes of the input views. [B, V, H, W]
        cameras: Of exactly these pixels.
        origins: Of the pixels' rays, world units. [B, V, 3, H, W]
        directions: Unit length. [B, V, 3, H, W]
        radius: Rays are searched this far on both sides of their point nearest the world origin, and only in
            front of their camera.
        samples: Points tested along a ray; parts thinner than `2 * radius / samples` can be missed.

    Returns:
        [B, V, H, W]; NaN for background pixels and for rays that never are inside every silhouette.
    """
    if alpha.device.type == "cuda" and alpha.dtype == torch.float32 and has_triton():
        from .hull_depth_cuda import first_entry

        # In double precision, because products of float32 matrices may be allowed to round to 10 bits.
        projections = (cameras.K.double() @ cameras.w2c[..., :3, :].double()).float()
        return first_entry(alpha > FOREGROUND, projections, origins, directions, radius, samples)
    # Autocast would project in half precision: pixels of error.
    with torch.autocast(alpha.device.type, enabled=False):
        return _search(alpha, cameras, origins, directions, radius, samples)


def _search(
    alpha: Tensor, cameras: CameraBatch, origins: Tensor, directions: Tensor, radius: float, samples: int
) -> Tensor:
    depth = torch.full_like(alpha, torch.nan)
    steps = torch.linspace(-radius, radius, samples, device=alpha.device, dtype=alpha.dtype)
    for scene, silhouettes in enumerate(alpha > FOREGROUND):
        K, w2c = cameras.K[scene], cameras.w2c[scene]
        start = origins[scene].movedim(1, -1)[silhouettes]
        along = directions[scene].movedim(1, -1)[silhouettes]
        nearest = -(start * along).sum(-1, keepdim=True)
        distances = nearest + steps
        inside = _inside(start, along, distances, silhouettes, K, w2c)
        first = inside.long().argmax(1, keepdim=True)
        entry = distances.gather(1, first)
        before = entry - (steps[1] - steps[0])
        for _ in range(BISECTIONS):
            middle = (before + entry) / 2
            hit = _inside(start, along, middle, silhouettes, K, w2c)
            entry, before = torch.where(hit, middle, entry), torch.where(hit, before, middle)
        depth[scene][silhouettes] = entry[:, 0].masked_fill(~inside.any(1), torch.nan)
    return depth


def _inside(
    start: Tensor, along: Tensor, distances: Tensor, silhouettes: Tensor, K: Tensor, w2c: Tensor
) -> Tensor:
    """Which points at `distances` [N, S] of rays [N, 3] every view sees as the animal. [N, S]"""
    height, width = silhouettes.shape[-2:]
    inside = distances > 0
    votes = torch.zeros_like(distances)
    for silhouette, k, camera in zip(silhouettes, K, w2c, strict=True):
        # Points are start + distance * along, so their projections need only two transformed vectors a ray.
        base = (start @ camera[:3, :3].T + camera[:3, 3]) @ k.T
        slope = along @ camera[:3, :3].T @ k.T
        x, y, z = (base[:, i, None] + distances * slope[:, i, None] for i in range(3))
        column, row = (x / z).floor().long(), (y / z).floor().long()
        seen = (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        shown = silhouette[row.clamp(0, height - 1), column.clamp(0, width - 1)]
        inside &= shown | ~seen
        votes += seen
    return inside & (votes > max(1, len(silhouettes) / 2))
