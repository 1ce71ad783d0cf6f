"""The demo mouse as a textured triangle mesh: shape and pose in, millimetres out.

Every part is a tube of fixed resolution, so a vertex is the same point of the skin in every pose and shape.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .anatomy import PARTS, surfaces
from .animal import MousePose, MouseShape
from .coat import COLUMNS, paint_coat, texture_rows
from .sweep import Array, Indices, tube_faces, tube_weld


@dataclass(frozen=True, eq=False)
class Mesh:
    """A textured triangle mesh. Only vertices and normals depend on the pose, only the texture on the coat.

    Attributes:
        vertices: mm, world. [N, 3]
        normals: Unit, outward. [N, 3]
        faces: Counter-clockwise seen from outside. [F, 3]
        uv: Texture column and row, texel centres at integers. [N, 2]
        texture: sRGB in [0, 1]. [rows, columns, 3]
        weld: For every vertex the first one at the same place: tubes have a seam. [N]
        part: Index into `PARTS` per vertex. [N]
    """

    vertices: Array
    normals: Array
    faces: Indices
    uv: Array
    texture: NDArray[np.float32]
    weld: Indices
    part: Indices


def mouse_mesh(shape: MouseShape, pose: MousePose) -> Mesh:
    """Build the surface of a mouse, about 7700 vertices.

    The parts are closed and overlap where they meet, for example legs and trunk. Nothing lies below the
    floor: soles and tail are flattened against it.
    """
    vertices = np.concatenate([grid.reshape(-1, 3) for grid in surfaces(shape, pose)])
    vertices[:, 2] = np.maximum(vertices[:, 2], 0.0)
    fixed = _topology()
    normals = _normals(vertices, fixed)
    return Mesh(vertices, normals, fixed.faces, fixed.uv, _texture(shape), fixed.weld, fixed.part)


@dataclass(frozen=True, eq=False)
class _Topology:
    faces: Indices
    uv: Array
    weld: Indices
    part: Indices


@lru_cache(maxsize=1)
def _topology() -> _Topology:
    faces, uv, weld, part = [], [], [], []
    offset = 0
    for index, kind in enumerate(PARTS.values()):
        faces.append(tube_faces(kind.rings, kind.segments) + offset)
        weld.append(tube_weld(kind.rings, kind.segments) + offset)
        columns = np.linspace(0, COLUMNS - 1, kind.rings)
        rows = np.linspace(*texture_rows(kind.paint), kind.segments + 1)
        uv.append(np.stack(np.meshgrid(columns, rows, indexing="ij"), axis=-1).reshape(-1, 2))
        part.append(np.full(len(weld[-1]), index))
        offset += len(weld[-1])
    return _Topology(np.concatenate(faces), np.concatenate(uv), np.concatenate(weld), np.concatenate(part))


@lru_cache(maxsize=8)
def _texture(shape: MouseShape) -> NDArray[np.float32]:
    return paint_coat(shape)


def _normals(vertices: Array, fixed: _Topology) -> Array:
    """Area-weighted vertex normals, the same on both sides of a seam. [N, 3]"""
    a, b, c = (vertices[fixed.faces[:, i]] for i in range(3))
    corners = fixed.weld[fixed.faces].reshape(-1)
    spread = np.repeat(np.cross(b - a, c - a), 3, axis=0)
    total = np.stack([np.bincount(corners, column, len(vertices)) for column in spread.T], axis=1)
    total = total[fixed.weld]
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
