"""Where cameras stand and where their pictures are, in space."""

import numpy as np
from numpy.typing import NDArray

from ..geometry import Camera, direction

Array = NDArray[np.float64]


def viewpoint(target: Array, distance: float, azimuth_deg: float, elevation_deg: float) -> Array:
    """Where a camera stands that looks at `target` [3] from a side, Z up. [3]"""
    return np.asarray(target + distance * direction(*np.radians((azimuth_deg, elevation_deg))))


def pane(camera: Camera, depth: float) -> tuple[Array, float, float, Array]:
    """A camera's picture as a rectangle in space, exact also where the optical axis is not in its middle.

    Args:
        camera: Any without skew.
        depth: Of the rectangle, along the optical axis.

    Returns:
        Its middle [3], width and height, and the edges of it and of the pyramid to the camera. [8, 2, 3]
    """
    size = np.array([camera.width, camera.height])
    pixels = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0.5]]) * size
    rays = np.column_stack([pixels, np.ones(5)]) @ np.linalg.inv(camera.K).T
    points = depth * rays @ camera.c2w[:3, :3].T + camera.center
    corners = points[:4]
    around = np.stack([corners, np.roll(corners, -1, axis=0)], axis=1)
    to_camera = np.stack([corners, np.broadcast_to(camera.center, (4, 3))], axis=1)
    width, height = depth * size / camera.K[[0, 1], [0, 1]]
    return points[4], float(width), float(height), np.concatenate([around, to_camera])
