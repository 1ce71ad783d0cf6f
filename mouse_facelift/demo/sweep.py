"""The one surface primitive of the demo mouse: a closed tube swept along a curve, as a grid of vertices.

A tube of R rings and S segments is R x (S + 1) vertices: the last column repeats the first, so that a texture
can be wrapped around it; the first and last rings are points. Frames are right-handed: side x up = forward.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Curve:
    """A framed space curve.

    Attributes:
        points: Along the curve, mm. [R, 3]
        side: Unit vector to the animal's left. [R, 3]
        up: Unit vector; side x up is the direction of the curve. [R, 3]
    """

    points: Array
    side: Array
    up: Array

    @property
    def forward(self) -> Array:
        """Direction of the curve. [R, 3]"""
        return np.cross(self.side, self.up)


def framed(points: Array, side: Array) -> Curve:
    """Frame a curve [R, 3] so that its cross-sections stay level with `side` [3]."""
    forward = unit(np.gradient(points, axis=0))
    up = unit(np.cross(forward, side))
    return Curve(points, np.cross(up, forward), up)


def ellipses(width: ArrayLike, top: ArrayLike, bottom: ArrayLike, segments: int) -> Array:
    """Cross-sections that start and end at the lowest point.

    Args:
        width: Half-width to either side, mm. [R]
        top: Height above the curve, mm. [R]
        bottom: Depth below the curve, mm. [R]
        segments: Number of segments S.

    Returns:
        (side, up) coordinates of the outline, mm. [R, S + 1, 2]
    """
    angle = np.linspace(-0.5 * np.pi, 1.5 * np.pi, segments + 1)
    sine = np.sin(angle)
    x = np.asarray(width)[:, None] * np.cos(angle)
    y = np.where(sine > 0, np.asarray(top)[:, None], np.asarray(bottom)[:, None]) * sine
    return np.stack([x, y], axis=-1)


def sweep(curve: Curve, sections: Array) -> Array:
    """Place cross-sections [R, S + 1, 2] along a curve. -> [R, S + 1, 3]"""
    return (
        curve.points[:, None]
        + sections[..., :1] * curve.side[:, None]
        + sections[..., 1:] * curve.up[:, None]
    )


def tube_faces(rings: int, segments: int) -> Indices:
    """Triangles of a tube's grid, counter-clockwise seen from outside, none degenerate. [F, 3]"""
    grid = np.arange(rings * (segments + 1)).reshape(rings, segments + 1)
    here, around = grid[:-1, :-1], grid[:-1, 1:]
    ahead, across = grid[1:, :-1], grid[1:, 1:]
    lower = np.stack([here, around, ahead], axis=-1)[1:]
    upper = np.stack([around, across, ahead], axis=-1)[:-1]
    return np.concatenate([lower.reshape(-1, 3), upper.reshape(-1, 3)])


def tube_weld(rings: int, segments: int) -> Indices:
    """For every vertex of a tube the first one at the same place (seam and ends). [R * (S + 1)]"""
    grid = np.arange(rings * (segments + 1)).reshape(rings, segments + 1)
    grid[:, -1] = grid[:, 0]
    grid[0], grid[-1] = grid[0, 0], grid[-1, 0]
    return grid.reshape(-1)


def rounded(points: Array, count: int) -> Array:
    """Round the corners of a polyline by Chaikin's corner cutting and resample it evenly.

    Args:
        points: Three coordinates, and any further columns that shall follow them. [P, 3 + C]
        count: Number of points wanted.

    Returns:
        The curve, through the first and last point. [count, 3 + C]
    """
    for _ in range(3):
        cut = np.stack(
            [0.75 * points[:-1] + 0.25 * points[1:], 0.25 * points[:-1] + 0.75 * points[1:]], axis=1
        )
        points = np.concatenate([points[:1], cut.reshape(-1, points.shape[1])[1:-1], points[-1:]])
    length = np.linalg.norm(np.diff(points[:, :3], axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(length)])
    return columns_at(np.linspace(0, along[-1], count), along, points)


def columns_at(at: Array, knots: Array, columns: Array) -> Array:
    """Interpolate every column of `columns` [P, C] linearly. -> [len(at), C]"""
    return np.stack([np.interp(at, knots, column) for column in columns.T], axis=1)


def profile(at: Array, knots: ArrayLike, values: ArrayLike) -> Array:
    """A smooth outline from a few numbers: cubic Hermite interpolation with finite-difference slopes.

    Args:
        at: Where to evaluate, inside the knots. [N]
        knots: Increasing. [P]
        values: [P]
    """
    x, y = np.asarray(knots, float), np.asarray(values, float)
    slope = np.gradient(y, x)
    i = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
    step = x[i + 1] - x[i]
    t = (at - x[i]) / step
    near = (1 + 2 * t) * (1 - t) ** 2 * y[i] + t * (1 - t) ** 2 * step * slope[i]
    far = t**2 * (3 - 2 * t) * y[i + 1] + t**2 * (t - 1) * step * slope[i + 1]
    return near + far


def two_bones(root: Array, end: Array, first: float, second: float, pole: Array) -> Array:
    """The joint of two bones from `root` to `end`, bent towards `pole`; they stretch if they must. [3]"""
    reach = float(np.linalg.norm(end - root))
    stretch = max(1.0, reach / (0.98 * (first + second)))
    first, second = first * stretch, second * stretch
    axis = (end - root) / reach
    along = (first**2 - second**2 + reach**2) / (2 * reach)
    bend = unit(pole - (pole @ axis) * axis)
    return root + along * axis + np.sqrt(max(first**2 - along**2, 0.0)) * bend


def integral(slopes: Array, along: Array) -> Array:
    """Trapezoidal integral of `slopes` [R, C] along `along` [R], zero at the start. [R, C]"""
    steps = 0.5 * (slopes[1:] + slopes[:-1]) * np.diff(along)[:, None]
    return np.concatenate([np.zeros((1, slopes.shape[1])), np.cumsum(steps, axis=0)])


def unit(vectors: Array) -> Array:
    """Vectors at length 1. [..., 3]"""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
