"""A posture in numbers: what a visual hull looks like wherever it stands and whichever way it faces.

Euclidean distance between two descriptors is a difference of shape in the hull's unit of length: moments and
heights count in full; a square of the silhouette maps that is covered in one and free in the other counts as
one square's side.
"""

import numpy as np
from numpy.typing import NDArray

from ..geometry.cameras import Array
from ..geometry.visual_hull import VisualHull

SQUARES_PER_SIZE = 3
"""Squares of the silhouette maps along the animal's size, the cube root of its volume."""
LENGTH, WIDTH, HEIGHT = 16, 8, 8
"""Squares along the animal, across it and upwards."""
HEIGHT_SHARES = (0.1, 0.3, 0.5, 0.7, 0.9, 0.99)
"""Shares of the volume whose upper ends are the height statistics."""
FLOOR_SHARE = 0.01
"""Heights are measured from where this share of the volume lies below."""
OPAQUE_SIZE = 1 / 8
"""A map's square is mostly covered where the hull is this thick, a share of the animal's size."""


def describe(hull: VisualHull, rotation: Array | None = None) -> NDArray[np.float32]:
    """Describe the posture of a hull.

    Args:
        hull: A hull that is not empty.
        rotation: Takes the world's up to +Z; None where Z is up. [3, 3]

    Returns:
        Three standard deviations along the principal axes, six heights, the skewness along the body, and soft
        silhouettes from above and from the side with the body along their rows and the thin end first. [266]
    """
    points = hull.cells if rotation is None else np.einsum("ij,nj->ni", rotation, hull.cells)
    return posture(points, hull.shares * hull.cell_size**3)


def posture(points: Array, volumes: Array) -> NDArray[np.float32]:
    """Describe the posture of a cloud of points [N, 3], Z up, with the volume of each [N]. See `describe`."""
    total = volumes.sum()
    size = float(np.cbrt(total))
    # einsum instead of @, whose last digits depend on the number of threads.
    centered = points - np.einsum("n,ni->i", volumes, points) / total
    covariance = np.einsum("ni,nj->ij", volumes[:, None] * centered, centered) / total
    deviations = np.sqrt(np.maximum(np.linalg.eigvalsh(covariance)[::-1], 0))
    along, across = _level_axes(centered, covariance)
    third_moment = float((volumes * along**3).sum() / total)
    if third_moment > 0:
        along, across = -along, -across
    # Divided by the variance instead of rooted, which has no infinite slope at zero.
    skewness = -abs(third_moment) / max(float((volumes * along**2).sum() / total), 1e-12)
    heights = _quantiles(points[:, 2], volumes, (FLOOR_SHARE, *HEIGHT_SHARES))
    square = size / SQUARES_PER_SIZE
    rows = along / square + LENGTH / 2
    opaque = OPAQUE_SIZE * size * square**2
    top = _covered(rows, across / square + WIDTH / 2, (LENGTH, WIDTH), volumes / opaque)
    side = _covered(rows, (points[:, 2] - heights[0]) / square, (LENGTH, HEIGHT), volumes / opaque)
    parts = [deviations, heights[1:] - heights[0], [skewness], square * top.ravel(), square * side.ravel()]
    return np.concatenate(parts).astype(np.float32)


def _level_axes(centered: Array, covariance: Array) -> tuple[Array, Array]:
    """Positions along the animal's longest level direction and to the left of it. 2 x [N]"""
    x, y = np.linalg.eigh(covariance[:2, :2])[1][:, 1]
    return x * centered[:, 0] + y * centered[:, 1], x * centered[:, 1] - y * centered[:, 0]


def _quantiles(values: Array, weights: Array, shares: tuple[float, ...]) -> Array:
    order = np.argsort(values, kind="stable")
    # In the middle of each point's own weight, so that the order of equal points does not matter.
    below = np.cumsum(weights[order]) - weights[order] / 2
    return np.interp(np.array(shares) * weights.sum(), below, values[order])


def _covered(rows: Array, columns: Array, shape: tuple[int, int], thickness: Array) -> Array:
    """A soft silhouette: 1 - exp(-thickness), each point shared between the four nearest squares. [H, W]

    Points outside the map count at its border.
    """
    height, width = shape
    rows, columns = np.clip(rows - 0.5, 0, height - 1.001), np.clip(columns - 0.5, 0, width - 1.001)
    row, column = rows.astype(np.intp), columns.astype(np.intp)
    down, right = rows - row, columns - column
    total = np.zeros(height * width)
    for i, vertical in ((0, 1 - down), (1, down)):
        for j, level in ((0, 1 - right), (1, right)):
            squares = (row + i) * width + column + j
            total += np.bincount(squares, thickness * vertical * level, height * width)
    return 1 - np.exp(-total.reshape(shape))
