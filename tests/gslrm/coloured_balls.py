"""Samples of balls whose colour is their surface normal."""

from pathlib import Path

import numpy as np
import torch

from mouse_facelift.geometry import Camera
from mouse_facelift.geometry.rays import pixel_rays
from mouse_facelift.samples.format import write_list, write_sample

SIZE = 32


def ball(camera: Camera, radius: float) -> np.ndarray:
    """RGBA of a ball at the origin, coloured by its normal. [H, W, 4]"""
    K, w2c = (torch.tensor(matrix)[None, None] for matrix in (camera.K, camera.w2c))
    origins, directions = (rays[0, 0] for rays in pixel_rays(K, w2c, camera.height, camera.width))
    along = (origins * directions).sum(0)
    discriminant = along**2 - (origins**2).sum(0) + radius**2
    hit = discriminant > 0
    normals = (origins + (-along - discriminant.clamp_min(0).sqrt()) * directions) / radius
    rgba = torch.cat([torch.where(hit, 0.5 + 0.5 * normals, 1.0), hit[None].to(normals)])
    return (rgba.permute(1, 2, 0) * 255).round().byte().numpy()


def write_balls(folder: Path, views: int) -> Path:
    """Balls of three sizes, each seen by a ring of cameras. Returns their list."""
    names = []
    for number, radius in enumerate((0.45, 0.6, 0.75)):
        cameras = [
            Camera.look_at((2.7 * np.cos(a), 2.7 * np.sin(a), 0.5), (0, 0, 0), 1.07 * SIZE, SIZE)
            for a in np.linspace(0, 2 * np.pi, views, endpoint=False)
        ]
        pictures = [ball(camera, radius) for camera in cameras]
        name = folder / f"ball_{number}"
        write_sample(name, pictures, cameras, range(views))
        names.append(name)
    write_list(folder / "list.txt", names)
    return folder / "list.txt"
