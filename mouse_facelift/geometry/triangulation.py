"""3D points from their pixel positions in several calibrated views."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError
from .cameras import Array, Camera

HUBER_PX = 3.0
"""Residual up to which an observation counts in full; beyond it, its pull no longer grows."""
MAX_STEPS = 30
MAX_CONDITION = 1e10
"""Of the rays' normal equations; beyond it they are parallel."""


@dataclass(frozen=True, eq=False)
class Triangulation:
    """A triangulated point, or N of them.

    Attributes:
        point: World position. [3] or [N, 3]
        residual_px: Distance between observation and reprojection; NaN where not observed, infinite where the
            point is behind the camera. [V] or [N, V]
    """

    point: Array
    residual_px: Array


def triangulate(points: ArrayLike, cameras: Sequence[Camera]) -> Triangulation:
    """Find the point that reprojects best, so that one wrong view cannot drag it away.

    The midpoint of the rays starts Gauss-Newton steps on the reprojection error under Huber's loss
    (Hartley and Zisserman, Multiple View Geometry, section 12.2 and appendix 6.8).

    Args:
        points: Pixel positions of one point, half-pixel centres; NaN where a view does not see it. [V, 2]
        cameras: The V cameras.

    Returns:
        The point in the cameras' world and its residual per view.

    Raises:
        DataError: fewer than two views see the point, or all rays are parallel.
    """
    pixels = np.asarray(points, float)
    seen = int(np.isfinite(pixels).all(-1).sum())
    if seen < 2:
        raise DataError(f"triangulation: {seen} views see the point, expected at least 2.")
    found = triangulate_many(pixels[None], cameras)
    if np.isnan(found.point[0]).any():
        raise DataError("triangulation: all rays are parallel. Are the cameras copies of one another?")
    return Triangulation(found.point[0], found.residual_px[0])


def triangulate_many(
    points: ArrayLike, cameras: Sequence[Camera], huber_px: float = HUBER_PX
) -> Triangulation:
    """Triangulate N points at once; see `triangulate`.

    Args:
        points: Pixel positions, half-pixel centres; NaN where a view does not see a point. [N, V, 2]
        cameras: The V cameras.
        huber_px: Where Huber's loss turns from quadratic to linear, in pixels.

    Returns:
        Points [N, 3] and residuals [N, V]; NaN for points that fewer than two views see, or with all rays
        parallel.
    """
    pixels = np.asarray(points, float)
    seen = np.isfinite(pixels).all(-1)
    pixels = np.where(seen[..., None], pixels, 0.0)
    projections = np.stack([camera.K @ camera.w2c[:3] for camera in cameras])
    found, solvable = _ray_midpoints(pixels, seen, cameras)
    moving = np.flatnonzero(solvable)
    for _ in range(MAX_STEPS):
        if not len(moving):
            break
        step = _gauss_newton_steps(found[moving], pixels[moving], seen[moving], projections, huber_px)
        found[moving] += step
        small = 1e-10 * (1 + np.linalg.norm(found[moving], axis=1))
        moving = moving[np.linalg.norm(step, axis=1) >= small]
    projected, depth = _project(found, projections)
    error = np.linalg.norm(projected - pixels, axis=-1)
    error[depth <= 0] = np.inf
    error[~(seen & solvable[:, None])] = np.nan
    return Triangulation(found, error)


def _ray_midpoints(
    pixels: Array, seen: NDArray[np.bool_], cameras: Sequence[Camera]
) -> tuple[Array, NDArray[np.bool_]]:
    """The points nearest to their rays: sum over rays of (I - d d^T)(X - c) = 0. [N, 3], solvable [N]"""
    back = np.stack([camera.R.T @ np.linalg.inv(camera.K) for camera in cameras])
    centers = np.stack([camera.center for camera in cameras])
    directions = np.einsum("vij,nvj->nvi", back[..., :2], pixels) + back[..., 2]
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    across = (np.eye(3) - directions[..., :, None] * directions[..., None, :]) * seen[..., None, None]
    normal, right = across.sum(1), np.einsum("nvij,vj->ni", across, centers)
    solvable = (seen.sum(1) >= 2) & (np.linalg.cond(normal) <= MAX_CONDITION)
    found = np.full_like(right, np.nan)
    found[solvable] = np.linalg.solve(normal[solvable], right[solvable, :, None])[..., 0]
    return found, solvable


def _gauss_newton_steps(
    found: Array, pixels: Array, seen: NDArray[np.bool_], projections: Array, huber_px: float
) -> Array:
    """Steps [N, 3] of the points `found`; views that do not see a point, or from behind, have no say."""
    projected, depth = _project(found, projections)
    counts = seen & (depth > 0)
    projected = np.where(counts[..., None], projected, pixels)
    error = pixels - projected
    # u = (m1 X) / (m3 X), hence du / dX = (m1 - u m3) / (m3 X), with the rows m of the projection matrix.
    slopes = projections[:, :2, :3] - projected[..., None] * projections[:, 2:, :3]
    jacobian = slopes / np.where(counts, depth, np.inf)[..., None, None]
    weight = np.minimum(1.0, huber_px / np.maximum(np.linalg.norm(error, axis=-1), 1e-12))
    rows = jacobian.reshape(len(found), -1, 3)
    weighted = (weight[..., None, None] * jacobian).reshape(rows.shape).transpose(0, 2, 1)
    normal, right = weighted @ rows + 1e-12 * np.eye(3), weighted @ error.reshape(len(found), -1, 1)
    return np.asarray(np.linalg.solve(normal, right)[..., 0], np.float64)


def _project(points: Array, projections: Array) -> tuple[Array, Array]:
    """Pixels [N, V, 2] and depths [N, V] of points [N, 3] under projection matrices [V, 3, 4]."""
    homogeneous = np.einsum("vij,nj->nvi", projections[..., :3], points) + projections[..., 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        return homogeneous[..., :2] / homogeneous[..., 2:], homogeneous[..., 2]
