"""A vectorised z-buffer rasteriser in NumPy: triangles and a camera in, what every pixel sees out.

Pixel centres lie at half-integers. All triangles are expanded at once to the samples of their bounding boxes,
the samples are tested, and the largest inverse depth wins. Meant for meshes of many small triangles.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..geometry import Camera
from .mouse import Mesh
from .sweep import Array, Indices

Float32 = NDArray[np.float32]

NEAR = 1e-3
"""Triangles with a corner closer than this (world units) are dropped, not clipped."""


@dataclass(frozen=True, eq=False)
class Fragments:
    """The M samples of a picture that see a triangle, inside a window of whole pixels.

    Attributes:
        left: First pixel column of the window.
        top: First pixel row of the window.
        shape: Rows and columns of samples in the window.
        row: Of each sample in the window. [M]
        column: Of each sample in the window. [M]
        face: Nearest triangle. [M]
        weights: Perspective-correct weights of its corners. [M, 3]
        depth: Along the optical axis, world units. [M]
    """

    left: int
    top: int
    shape: tuple[int, int]
    row: Indices
    column: Indices
    face: Indices
    weights: Array
    depth: Array

    def image(self, values: NDArray[Any]) -> NDArray[Any]:
        """Spread values per sample [M, ...] over the window, 0 elsewhere. [rows, columns, ...]"""
        picture = np.zeros((*self.shape, *values.shape[1:]), values.dtype)
        picture[self.row, self.column] = values
        return picture


@dataclass(frozen=True, eq=False)
class Render:
    """A picture of a mesh alone.

    Attributes:
        rgb: Mean colour of the covered samples (straight, not premultiplied), 0 where none. [H, W, 3]
        alpha: Share of samples covered. [H, W]
        depth: Mean depth of the covered samples along the optical axis, 0 where none. [H, W]
    """

    rgb: Float32
    alpha: Float32
    depth: Float32


def rasterize(
    vertices: Array, faces: Indices, camera: Camera, samples: int = 1, cull: bool = False
) -> Fragments:
    """Find the nearest triangle for every sample.

    Args:
        vertices: World coordinates. [N, 3]
        faces: Corner indices. [F, 3]
        camera: Where from, and the picture's size.
        samples: Samples per pixel along either axis, evenly spaced.
        cull: Skip triangles seen from behind (clockwise), for closed surfaces.
    """
    pixels, depth = camera.project(vertices)
    corners, corner_depth = samples * pixels[faces], depth[faces]
    edge1, edge2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = edge1[:, 0] * edge2[:, 1] - edge1[:, 1] * edge2[:, 0]
    # y points down in the picture, so triangles seen from the front have a negative area.
    kept = np.flatnonzero((corner_depth > NEAR).all(axis=1) & (area < 0 if cull else area != 0))
    corners, corner_depth = corners[kept], corner_depth[kept]
    size = samples * np.array((camera.width, camera.height))
    low = np.clip(np.ceil(corners.min(axis=1) - 0.5), 0, size).astype(np.int64)
    high = np.clip(np.floor(corners.max(axis=1) + 0.5), 0, size).astype(np.int64)
    seen = (low < high).all(axis=1)
    if not seen.any():
        return _nothing(samples)
    low, high, corners, corner_depth, kept = (x[seen] for x in (low, high, corners, corner_depth, kept))
    first = low.min(axis=0) // samples * samples
    window = -(-high.max(axis=0) // samples) * samples - first
    planes = _planes(corners - first, corner_depth)
    triangle, row, column = _nearest(low - first, high - first, planes, window)
    first_weight, second_weight, nearness = (_evaluate(planes[:, i], triangle, column, row) for i in range(3))
    affine = np.stack([first_weight, second_weight, 1 - first_weight - second_weight], axis=1)
    weights = affine / corner_depth[triangle] / nearness[:, None]
    left, top = (first // samples).tolist()
    shape = int(window[1]), int(window[0])
    return Fragments(left, top, shape, row, column, kept[triangle], weights, 1 / nearness)


def render_mesh(mesh: Mesh, camera: Camera, samples: int = 2) -> Render:
    """Draw a textured mesh under soft overhead light, with `samples` x `samples` samples a pixel."""
    seen = rasterize(mesh.vertices, mesh.faces, camera, samples, cull=True)
    attributes = np.column_stack([mesh.uv, daylight(mesh.normals), np.ones(len(mesh.uv))])
    values = np.einsum("mk,mkc->mc", seen.weights, attributes[mesh.faces[seen.face]])
    column, row, light, covered = cv2.split(seen.image(values.astype(np.float32)))
    colour = cv2.remap(mesh.texture, column, row, cv2.INTER_LINEAR) * light[..., None]
    layers = np.dstack([colour, seen.image(seen.depth.astype(np.float32)), covered])
    height, width = layers.shape[0] // samples, layers.shape[1] // samples
    layers = cv2.resize(layers, (width, height), interpolation=cv2.INTER_AREA)
    layers[..., :4] /= np.maximum(layers[..., 4:], 1e-6)
    picture = np.zeros((camera.height, camera.width, 5), np.float32)
    picture[seen.top : seen.top + height, seen.left : seen.left + width] = layers
    return Render(np.minimum(picture[..., :3], 1), np.minimum(picture[..., 4], 1), picture[..., 3])


def daylight(normals: Array) -> Array:
    """Brightness of a matt surface under a wide lamp overhead and above a bright floor. [N, 3] -> [N]"""
    lamp = np.array((0.25, 0.15, 1.0)) / np.linalg.norm((0.25, 0.15, 1.0))
    direct = np.clip((normals @ lamp + 0.5) / 1.5, 0.0, 1.0)
    bounce = np.clip(-normals[:, 2], 0.0, 1.0)
    return 0.45 + 0.60 * direct + 0.2 * bounce


def _planes(corners: Array, depth: Array) -> Array:
    """Two barycentrics and the inverse depth of every triangle as affine functions in the picture. [F, 3, 3]

    Rows hold (a, b, c) of a x + b y + c. Inverse depth is affine in the picture, depth is not.
    """
    ones = np.ones((*corners.shape[:2], 1))
    barycentric = np.linalg.inv(np.concatenate([corners, ones], axis=2)).transpose(0, 2, 1)
    inverse_depth = np.einsum("fk,fkc->fc", 1 / depth, barycentric)
    return np.stack([barycentric[:, 0], barycentric[:, 1], inverse_depth], axis=1)


def _nearest(low: Indices, high: Indices, planes: Array, window: Indices) -> tuple[Indices, Indices, Indices]:
    """Winning triangle, row and column of every covered sample of a window (width, height). 3 x [M]"""
    extent = high - low
    counts = extent[:, 0] * extent[:, 1]
    triangle = np.repeat(np.arange(len(low)), counts)
    order = np.arange(len(triangle)) - np.repeat(np.cumsum(counts) - counts, counts)
    row, column = np.divmod(order, extent[triangle, 0])
    column += low[triangle, 0]
    row += low[triangle, 1]
    first, second = (_evaluate(planes[:, i], triangle, column, row) for i in range(2))
    # A rounding error's worth of slack, so that no sample on a shared edge is missed by both triangles.
    inside = np.flatnonzero((first >= -1e-9) & (second >= -1e-9) & (first + second <= 1 + 1e-9))
    triangle, column, row = triangle[inside], column[inside], row[inside]
    nearness = _evaluate(planes[:, 2], triangle, column, row)
    sample = row * window[0] + column
    nearest = np.zeros(window[0] * window[1])
    np.maximum.at(nearest, sample, nearness)
    wins = nearness == nearest[sample]
    winner = np.full(len(nearest), -1)
    winner[sample[wins]] = triangle[wins]
    covered = np.flatnonzero(winner >= 0)
    row, column = np.divmod(covered, window[0])
    return winner[covered], row, column


def _evaluate(planes: Array, triangle: Indices, column: Indices, row: Indices) -> Array:
    """Value of each triangle's affine function [F, 3] at sample centres."""
    a, b, c = planes.T
    c = c + 0.5 * (a + b)
    return a[triangle] * column + b[triangle] * row + c[triangle]


def _nothing(samples: int) -> Fragments:
    """One pixel that sees nothing."""
    none = np.zeros(0, np.int64)
    return Fragments(0, 0, (samples, samples), none, none, none, np.zeros((0, 3)), np.zeros(0))
