"""One 3D point from its pixel positions in several calibrated views."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..errors import DataError
from .cameras import Array, Camera

HUBER_PX = 3.0
"""Residual up to which an observation counts in full; beyond it, its pull no longer grows."""
MAX_STEPS = 30


@dataclass(frozen=True, eq=False)
class Triangulation:
    """A triangulated point.

    Attributes:
        point: World position. [3]
        residual_px: Distance between observation and reprojection; NaN where not observed, infinite where the
            point is behind the camera. [V]
    """

    point: Array
    residual_px: Array


def triangulate(points: ArrayLike, cameras: Sequence[Camera], huber_px: float = HUBER_PX) -> Triangulation:
    """Find the point that reprojects best, so that one wrong view cannot drag it away.

    The midpoint of the rays starts Gauss-Newton steps on the reprojection error under Huber's loss
    (Hartley and Zisserman, Multiple View Geometry, section 12.2 and appendix 6.8).

    Args:
        points: Pixel positions of one point, half-pixel centres; NaN where a view does not see it. [V, 2]
        cameras: The V cameras.
        huber_px: Where Huber's loss turns from quadratic to linear, in pixels.

    Returns:
        The point in the cameras' world and its residual per view.

    Raises:
        DataError: fewer than two views see the point, or all rays are parallel.
    """
    pixels = np.asarray(points, float)
    seen = [view for view in range(len(cameras)) if np.isfinite(pixels[view]).all()]
    if len(seen) < 2:
        raise DataError(f"triangulation: {len(seen)} views see the point, expected at least 2.")
    rows = [(cameras[view], pixels[view]) for view in seen]
    point = _ray_midpoint(rows)
    for _ in range(MAX_STEPS):
        step = _gauss_newton_step(point, rows, huber_px)
        point = point + step
        if np.linalg.norm(step) < 1e-10 * (1 + np.linalg.norm(point)):
            break
    residual = np.full(len(cameras), np.nan)
    for view in seen:
        projected, depth = cameras[view].project(point)
        residual[view] = np.linalg.norm(projected - pixels[view]) if depth > 0 else np.inf
    return Triangulation(point, residual)


def _ray_midpoint(rows: list[tuple[Camera, Array]]) -> Array:
    """The point nearest to all rays: sum over rays of (I - d d^T)(X - c) = 0."""
    normal, right = np.zeros((3, 3)), np.zeros(3)
    for camera, pixel in rows:
        direction = camera.R.T @ np.linalg.solve(camera.K, np.append(pixel, 1.0))
        direction /= np.linalg.norm(direction)
        across = np.eye(3) - np.outer(direction, direction)
        normal += across
        right += across @ camera.center
    if np.linalg.cond(normal) > 1e10:
        raise DataError("triangulation: all rays are parallel. Are the cameras copies of one another?")
    return np.asarray(np.linalg.solve(normal, right), np.float64)


def _gauss_newton_step(point: Array, rows: list[tuple[Camera, Array]], huber_px: float) -> Array:
    normal, right = 1e-12 * np.eye(3), np.zeros(3)
    for camera, pixel in rows:
        x, y, z = camera.R @ point + camera.t
        if z <= 0:
            continue
        error = pixel - camera.project(point)[0]
        jacobian = camera.K[:2, :2] @ np.array([[1, 0, -x / z], [0, 1, -y / z]]) @ camera.R / z
        weight = min(1.0, huber_px / max(float(np.linalg.norm(error)), 1e-12))
        normal += weight * jacobian.T @ jacobian
        right += weight * jacobian.T @ error
    return np.asarray(np.linalg.solve(normal, right), np.float64)
