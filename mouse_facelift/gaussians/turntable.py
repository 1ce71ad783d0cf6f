"""Turntables: cameras in a circle, frames one at a time."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..geometry import Camera
from ..pictures import to_uint8
from .gaussians import Gaussians
from .rendering import Backend, render


def turntable_cameras(
    n: int, size: int, elevation_deg: float = 0.0, radius: float = 2.7, fov_deg: float = 50.0
) -> list[Camera]:
    """Cameras in a circle about the z axis that look at the origin.

    Args:
        n: How many; camera i stands at azimuth 270 + 360 i / n degrees, so the first one is the front view.
        size: Image width and height in pixels.
        elevation_deg: Of the cameras above the xy plane.
        radius: Distance from the origin, model units.
        fov_deg: Full field of view, horizontal and vertical.
    """
    focal = size / (2 * math.tan(math.radians(fov_deg) / 2))
    elevation = math.radians(elevation_deg)
    cameras = []
    for azimuth in np.radians(270 + 360 * np.arange(n) / n):
        flat = radius * math.cos(elevation)
        center = (flat * math.cos(azimuth), flat * math.sin(azimuth), radius * math.sin(elevation))
        cameras.append(Camera.look_at(center, (0, 0, 0), focal, size))
    return cameras


@torch.no_grad()
def render_turntable(
    gaussians: Gaussians,
    n: int,
    size: int,
    background: float | Tensor | None = None,
    elevation_deg: float = 0.0,
    backend: Backend = "auto",
) -> Iterator[NDArray[np.uint8]]:
    """Yield the n frames of a turntable of one scene, drawn when they are asked for. [H, W, 3]"""
    for camera in turntable_cameras(n, size, elevation_deg):
        K, w2c = (torch.from_numpy(matrix)[None] for matrix in (camera.K, camera.w2c))
        rgb = render(gaussians, K, w2c, size, size, background, backend).rgb[0]
        yield to_uint8(rgb)
