"""Cameras around the animal: in a circle, whose frames come one at a time, and from six named sides."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..geometry import FACELIFT_DISTANCE, FACELIFT_FOCAL, Camera, direction
from ..geometry.rays import camera_tensors
from ..pictures import to_uint8
from .gaussians import Gaussians
from .rendering import render

FRAMES_AT_ONCE, PIXELS_AT_ONCE = 8, 1 << 21
"""Of a turntable, at most. One by one, launching the work takes longer than the work; every frame drawn at
once holds all Gaussians projected, however few pixels it has."""

NAMED_VIEWS = {
    "top": (80.0, 270.0),
    "front_high": (40.0, 270.0),
    "right": (20.0, 0.0),
    "bottom": (-85.0, 270.0),
    "back_high": (40.0, 90.0),
    "left": (20.0, 180.0),
}
"""Elevation and azimuth in degrees. Sides are those of the axes, wherever the animal looks: right is +x."""


def orbit_camera(
    azimuth_deg: float,
    elevation_deg: float,
    size: int,
    radius: float = FACELIFT_DISTANCE,
    focal: float = FACELIFT_FOCAL,
) -> Camera:
    """A camera that looks at the origin.

    Args:
        azimuth_deg: Where it stands, counter-clockwise from +x seen from above.
        elevation_deg: Above the xy plane.
        size: Image width and height in pixels.
        radius: Distance from the origin, model units.
        focal: Focal length in picture sides.
    """
    center = radius * direction(*np.radians((azimuth_deg, elevation_deg)))
    return Camera.look_at(center, (0, 0, 0), focal * size, size)


def named_cameras(size: int) -> dict[str, Camera]:
    """The cameras of `NAMED_VIEWS`, pictures of size x size pixels."""
    return {name: orbit_camera(azimuth, up, size) for name, (up, azimuth) in NAMED_VIEWS.items()}


def turntable_cameras(
    n: int,
    size: int,
    elevation_deg: float = 0.0,
    radius: float = FACELIFT_DISTANCE,
    focal: float = FACELIFT_FOCAL,
) -> list[Camera]:
    """Cameras in a circle about the z axis that look at the origin.

    Args:
        n: How many; camera i stands at azimuth 270 + 360 i / n degrees, so the first one is the front view.
        size: Image width and height in pixels.
        elevation_deg: Of the cameras above the xy plane.
        radius: Distance from the origin, model units.
        focal: Focal length in picture sides.
    """
    azimuths = 270 + 360 * np.arange(n) / n
    return [orbit_camera(azimuth, elevation_deg, size, radius, focal) for azimuth in azimuths]


@torch.no_grad()
def render_turntable(
    gaussians: Gaussians,
    n: int,
    size: int,
    background: float | Tensor | None = None,
    elevation_deg: float = 0.0,
) -> Iterator[NDArray[np.uint8]]:
    """Yield the n frames of a turntable of one scene, drawn a few at a time as asked for. [H, W, 3]"""
    cameras = turntable_cameras(n, size, elevation_deg)
    together = min(FRAMES_AT_ONCE, max(1, PIXELS_AT_ONCE // size**2))
    for start in range(0, n, together):
        K, w2c = camera_tensors(cameras[start : start + together])
        yield from to_uint8(render(gaussians, K, w2c, size, size, background).rgb)
