"""A start for per-frame optimisation without a network: the visual hull's surface, coloured by the views."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DataError
from ..geometry import Camera
from ..geometry.visual_hull import carve
from .gaussians import Gaussians
from .harmonics import SH_C0
from .rendering import render

LAYERS = 1.5
"""Thickness of the shell that is kept, in cells: opaque, and free to move."""

SPREAD = 0.4
"""Standard deviation of a Gaussian, in cells: neighbours close the surface without blurring its outline."""

OPACITY = 0.6


def hull_start(rgba: Tensor, K: Tensor, w2c: Tensor, cell_px: float = 1.5, radius: float = 1.2) -> Gaussians:
    """Isotropic Gaussians on the surface of the visual hull.

    Each takes the mean colour of the pixels of views that see it; visibility is judged by the depth of the
    Gaussians themselves.

    Args:
        rgba: Straight alpha, in [0, 1]. [V, 4, S, S]
        K: Intrinsics. [V, 3, 3]
        w2c: World-to-camera, model units. [V, 4, 4]
        cell_px: Distance between neighbours in pixels of the views, at the origin.
        radius: Half the side of the cube about the origin that is searched, model units.

    Returns:
        One scene, on the device of `rgba`.

    Raises:
        DataError: the silhouettes share no space, or a camera looks away from the origin.
    """
    cameras = [
        Camera(k, w, rgba.shape[-1], rgba.shape[-2])
        for k, w in zip(K.double().cpu().numpy(), w2c.double().cpu().numpy(), strict=True)
    ]
    pixels = [camera.t[2] / camera.K[0, 0] for camera in cameras]
    if min(pixels) <= 0:
        raise DataError("hull_start: a camera looks away from the origin, where the animal should be.")
    cell = cell_px * float(np.median(pixels))
    masks = list((rgba[:, 3] > 0.5).cpu().numpy())
    hull = carve(masks, cameras, np.zeros(3), radius, cell)
    shell = hull.cells[(hull.outside <= 0) & (hull.outside > -LAYERS * cell)]
    if len(shell) == 0:
        raise DataError("hull_start: no point of space projects into all silhouettes. Are they one moment's?")
    means = torch.from_numpy(shell).to(rgba)
    scene = Gaussians(
        means,
        F.pad(means.new_zeros(len(means), 3), (1, 0), value=1.0),
        torch.full_like(means, SPREAD * cell),
        means.new_full((len(means),), OPACITY),
        means.new_zeros(len(means), 1, 3),
    )
    colors = _seen_colors(scene, rgba, K.to(means), w2c.to(means), 2 * LAYERS * cell)
    return Gaussians(scene.means, scene.quats, scene.scales, scene.opacities, (colors[:, None] - 0.5) / SH_C0)


@torch.no_grad()
def _seen_colors(scene: Gaussians, rgba: Tensor, K: Tensor, w2c: Tensor, slack: float) -> Tensor:
    """Mean colour of the views that see each Gaussian within `slack` of the surface; of all if none does."""
    height, width = rgba.shape[-2:]
    surface = render(scene, K, w2c, width, height)
    in_camera = torch.einsum("vij,nj->vni", w2c[:, :3, :3], scene.means) + w2c[:, None, :3, 3]
    pixels = torch.einsum("vij,vnj->vni", K[:, :2], in_camera) / in_camera[..., 2:].clamp_min(1e-6)
    grid = 2 * pixels / pixels.new_tensor([width, height]) - 1
    layers = torch.cat(
        [rgba[:, :3] * rgba[:, 3:], rgba[:, 3:], surface.depth * surface.alpha, surface.alpha], 1
    )
    found = F.grid_sample(layers, grid[:, None], align_corners=False)[:, :, 0].mT
    depth = found[..., 4:5] / found[..., 5:].clamp_min(1e-6)
    seen = (in_camera[..., 2:] < depth + slack).to(rgba.dtype)
    # A little of every view, for points that none sees.
    weights = found[..., 3:4] * (seen + 1e-3)
    color = found[..., :3] / found[..., 3:4].clamp_min(1e-6)
    return (weights * color).sum(0) / weights.sum(0).clamp_min(1e-8)
